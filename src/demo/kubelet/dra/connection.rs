//! The connection to a driver's service: one for prepare, unprepare and health, made anew whenever it
//! ends.

use std::io;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint, Uri};

use super::health;
use super::registry::DraContext;
use super::state::RegisteredDriver;
use crate::host::abortable_stream::AbortableStream;

/// Stays connected, and follows the health of devices, until the task is dropped.
pub(super) async fn keep(context: DraContext, socket: PathBuf, driver: RegisteredDriver) {
    loop {
        if let Ok((channel, ended)) = connect(&context, &driver.endpoint).await {
            let connected = Some(channel.clone());
            context.state.send_modify(|state| state.connected(&socket, connected));
            tokio::select! {
                // Either way the connection is over: nothing is ever sent.
                _ = ended => {}
                () = health::follow(&context, &driver, channel) => {}
            }
            context.state.send_modify(|state| state.connected(&socket, None));
            health::forget(&context, &driver.name);
        }
        sleep(context.settings.deadlines.reconnect).await;
    }
}

/// The channel never reconnects; the receiver ends with the connection.
async fn connect(
    context: &DraContext,
    endpoint: &Path,
) -> Result<(Channel, oneshot::Receiver<()>), Box<dyn std::error::Error + Send + Sync>> {
    let stream = UnixStream::connect(endpoint).await?;
    let (held, ended) = oneshot::channel();
    let stream = AbortableStream::holding(stream, &context.cut, held);
    let mut only_stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = only_stream.take().ok_or(io::ErrorKind::NotConnected);
        async move { stream.map_err(io::Error::from) }
    });
    // The kubelet's resolver of `unix:` targets sends this `:authority`.
    let endpoint = Endpoint::from_static("http://localhost");
    Ok((endpoint.connect_with_connector(connector).await?, ended))
}
