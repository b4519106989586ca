//! A Unix stream that can be ended from outside, as the end of a process does, and that holds a value
//! until then. tonic serves each connection in a task of its own, which outlives the server that
//! accepted it, and drops the stream when the connection is over, whichever side ended it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, UdsConnectInfo};

/// A stream that is reset for both sides once its token is cancelled.
#[derive(Debug)]
pub struct AbortableStream<T = ()> {
    stream: UnixStream,
    aborted: Pin<Box<WaitForCancellationFutureOwned>>,
    _held: T,
}

impl AbortableStream {
    /// Wraps a stream that `abort` ends.
    #[must_use]
    pub fn new(stream: UnixStream, abort: &CancellationToken) -> Self {
        Self::holding(stream, abort, ())
    }
}

impl<T> AbortableStream<T> {
    /// The same with a value that is dropped with the stream.
    #[must_use]
    pub fn holding(stream: UnixStream, abort: &CancellationToken, held: T) -> Self {
        Self { stream, aborted: Box::pin(abort.clone().cancelled_owned()), _held: held }
    }

    /// Fails once the stream is aborted; until then, wakes the task when that happens.
    fn poll_aborted(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.aborted.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<T: Unpin> AsyncRead for AbortableStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_aborted(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<T: Unpin> AsyncWrite for AbortableStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_aborted(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_aborted(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<T> Connected for AbortableStream<T> {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn an_abort_wakes_a_reader_that_waits() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let abort = CancellationToken::new();
        let mut stream = AbortableStream::new(ours, &abort);
        let mut buffer = [0; 1];
        let (read, ()) = tokio::join!(stream.read(&mut buffer), async { abort.cancel() });
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_held_value_is_dropped_with_the_stream() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (held, ended) = tokio::sync::oneshot::channel::<()>();
        let stream = AbortableStream::holding(ours, &CancellationToken::new(), held);
        drop(stream);
        ended.await.unwrap_err();
    }
}
