//! An accepted connection whose incoming bytes pass through [`AuthorityNormaliser`], so that tonic can
//! serve kubelets that send the socket's path as `:authority`. Outgoing bytes are unchanged.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use crate::wire::http2::authority::{AuthorityNormaliser, Malformed};

/// How many bytes are read from the stream at once.
const RECEIVED_SIZE: usize = 8 * 1024;

/// Wraps any stream that tonic can serve.
///
/// The stream is read only after all earlier bytes were passed on. Beyond the normaliser's own bound
/// it buffers at most 8 KiB as received and [`AuthorityNormaliser::MAX_GROWTH`] more as normalised.
/// A malformed connection reads as an error of the kind [`io::ErrorKind::InvalidData`], after all bytes
/// before the fault.
#[derive(Debug)]
pub struct NormalisedStream<S> {
    stream: S,
    normaliser: AuthorityNormaliser,
    received: Box<[u8]>,
    /// The part of `received` that the normaliser has not consumed.
    waiting: Range<usize>,
    normalised: Vec<u8>,
    /// How many bytes of `normalised` were passed on.
    passed: usize,
    fault: Option<Malformed>,
}

impl<S> NormalisedStream<S> {
    /// Wraps a connection of which nothing was read yet.
    #[must_use]
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            normaliser: AuthorityNormaliser::new(),
            received: vec![0; RECEIVED_SIZE].into_boxed_slice(),
            waiting: 0..0,
            normalised: Vec::new(),
            passed: 0,
            fault: None,
        }
    }

    /// Normalises the waiting bytes, or the first part of them.
    fn normalise(&mut self) {
        self.normalised.clear();
        self.passed = 0;
        let waiting = &self.received[self.waiting.clone()];
        match self.normaliser.advance(waiting, &mut self.normalised) {
            Ok(taken) => self.waiting.start += taken,
            Err(malformed) => self.fault = Some(malformed),
        }
    }

    fn pass(&mut self, buffer: &mut ReadBuf<'_>) {
        let ready = &self.normalised[self.passed..];
        let piece = &ready[..ready.len().min(buffer.remaining())];
        buffer.put_slice(piece);
        self.passed += piece.len();
    }
}

impl<S: AsyncRead + Unpin> NormalisedStream<S> {
    /// Receives more bytes; `waiting` is empty afterwards if the client has closed its half.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(&mut self.received);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        self.waiting = 0..buffer.filled().len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for NormalisedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.passed == this.normalised.len() {
            if let Some(malformed) = this.fault {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, malformed)));
            }
            if this.waiting.is_empty() {
                ready!(this.poll_receive(cx))?;
                if this.waiting.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            this.normalise();
        }
        this.pass(buffer);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for NormalisedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: Connected> Connected for NormalisedStream<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    /// A HEADERS frame with the authority `/s`.
    const REQUEST: &[u8] = b"\0\0\x04\x01\x05\0\0\0\x01\x41\x02/s";
    const NORMALISED: &[u8] = b"\0\0\x16\x01\x05\0\0\0\x01\0\x0a:authority\x09localhost";
    /// A HEADERS frame with the index 0.
    const FAULTY: &[u8] = b"\0\0\x01\x01\x05\0\0\0\x03\x80";

    async fn read_all(bytes: Vec<u8>) -> (Vec<u8>, io::Result<usize>) {
        let mut read = Vec::new();
        let result = NormalisedStream::new(Cursor::new(bytes)).read_to_end(&mut read).await;
        (read, result)
    }

    #[tokio::test]
    async fn requests_are_read_with_their_new_authority_until_the_client_ends() {
        let (read, result) = read_all([PREFACE, REQUEST, REQUEST].concat()).await;
        assert_eq!(read, [PREFACE, NORMALISED, NORMALISED].concat());
        assert_eq!(result.unwrap(), read.len());
    }

    #[tokio::test]
    async fn what_came_before_a_fault_is_read_before_it() {
        let (read, result) = read_all([PREFACE, REQUEST, FAULTY, REQUEST].concat()).await;
        assert_eq!(read, [PREFACE, NORMALISED].concat());
        let error = result.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(
            error.to_string(),
            "HEADERS frame on stream 3: index 0 is invalid: the tables end at 62"
        );
    }

    #[tokio::test]
    async fn a_malformed_connection_stays_so() {
        let mut stream = NormalisedStream::new(Cursor::new([PREFACE, FAULTY, REQUEST].concat()));
        stream.read_to_end(&mut Vec::new()).await.unwrap_err();
        let again = stream.read_u8().await.unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_reader_may_take_one_byte_at_a_time() {
        let mut stream = NormalisedStream::new(Cursor::new([PREFACE, REQUEST].concat()));
        for expected in [PREFACE, NORMALISED].concat() {
            assert_eq!(stream.read_u8().await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_reader_is_woken_when_the_rest_of_a_block_comes() {
        let (mut client, server) = duplex(64);
        let mut server = NormalisedStream::new(server);
        let mut read = vec![0; PREFACE.len() + NORMALISED.len()];
        let write = async {
            for byte in [PREFACE, REQUEST].concat() {
                client.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (result, ()) = tokio::join!(server.read_exact(&mut read), write);
        assert_eq!(result.unwrap(), read.len());
        assert_eq!(read, [PREFACE, NORMALISED].concat());
    }

    #[tokio::test]
    async fn no_more_is_received_than_was_passed_on() {
        let data = [&b"\0\x40\0\0\0\0\0\0\x01"[..], &[7; 16_384]].concat();
        let mut stream = NormalisedStream::new(Cursor::new([PREFACE, &data].concat()));
        stream.read_u8().await.unwrap();
        assert_eq!(stream.stream.position(), 8 * 1024);
    }

    #[tokio::test]
    async fn what_is_written_passes_as_it_is() {
        let (client, server) = duplex(64);
        let mut server = NormalisedStream::new(server);
        server.write_all(REQUEST).await.unwrap();
        server.shutdown().await.unwrap();
        let mut received = Vec::new();
        let mut client = client;
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, REQUEST);
    }
}
