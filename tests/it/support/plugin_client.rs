//! An ordinary gRPC client of the plugin: what a kubelet or an operator's tool would be.

use std::path::Path;

use ix_device_plugin::host::kubelet::channel_over;
use ix_device_plugin::wire::v1beta1::device_plugin_client::DevicePluginClient;
use ix_device_plugin::wire::v1beta1::{Empty, ListAndWatchResponse};
use tokio::net::UnixStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::clock::soon;

pub(crate) async fn connect(socket: &Path) -> DevicePluginClient<Channel> {
    try_connect(socket).await.unwrap()
}

/// A stream of lists of which none was read yet.
pub(crate) async fn lists(socket: &Path) -> Streaming<ListAndWatchResponse> {
    connect(socket).await.list_and_watch(Empty {}).await.unwrap().into_inner()
}

/// As [`lists`], where nobody may be there.
pub(crate) async fn try_lists(socket: &Path) -> Option<Streaming<ListAndWatchResponse>> {
    let lists = try_connect(socket).await?.list_and_watch(Empty {}).await;
    Some(lists.ok()?.into_inner())
}

async fn try_connect(socket: &Path) -> Option<DevicePluginClient<Channel>> {
    let stream = UnixStream::connect(socket).await.ok()?;
    Some(DevicePluginClient::new(channel_over(stream).await.ok()?))
}

/// The next list's ids; none where the stream ended in good order.
pub(crate) async fn next_ids(lists: &mut Streaming<ListAndWatchResponse>) -> Option<Vec<String>> {
    let list = soon("a list", lists.message()).await.unwrap()?;
    Some(list.devices.into_iter().map(|device| device.id).collect())
}
