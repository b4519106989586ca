//! The kubelet's way to dial a plugin.

use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use crate::host::abortable_stream::AbortableStream;
use crate::wire::v1beta1::device_plugin_client::DevicePluginClient;

/// One message, at most: grpc-go's default, which the kubelet leaves as it is. Bytes.
pub(super) const RECEIVE_LIMIT: usize = 4 * 1024 * 1024;

/// grpc-go's first pause between attempts to connect, and how the pauses grow.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const PAUSE_GROWTH: f32 = 1.6;

/// Calls to one plugin.
pub(super) type PluginClient = DevicePluginClient<Channel>;

/// Connects to the plugin's socket, again and again until that works: the caller bounds it.
/// It never reconnects; `cut` ends it.
///
/// # Errors
/// The socket accepts, but what listens there does not speak HTTP/2.
pub(super) async fn dial(
    socket: &Path,
    cut: &CancellationToken,
) -> Result<PluginClient, tonic::transport::Error> {
    let stream = AbortableStream::new(connect(socket).await, cut);
    let mut only_stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = only_stream.take().ok_or(io::ErrorKind::NotConnected);
        async move { stream.map_err(io::Error::from) }
    });
    // The kubelet sends this `:authority` since 1.26.
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connector).await?;
    Ok(DevicePluginClient::new(channel).max_decoding_message_size(RECEIVE_LIMIT))
}

async fn connect(socket: &Path) -> UnixStream {
    let mut pause = FIRST_PAUSE;
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = pause.mul_f32(PAUSE_GROWTH);
    }
}

/// A status as grpc-go prints it, for example
/// `rpc error: code = Unavailable desc = transport is closing`.
pub(super) fn rpc_error(status: &Status) -> String {
    let code = match status.code() {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_in_the_kubelets_log() {
        assert_eq!(
            rpc_error(&Status::not_found("no device 0000:13:00.0")),
            "rpc error: code = NotFound desc = no device 0000:13:00.0"
        );
        assert_eq!(rpc_error(&Status::cancelled("")), "rpc error: code = Canceled desc = ");
    }
}
