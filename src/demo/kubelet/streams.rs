//! Follows the `ListAndWatch` stream of one plugin to its end. Never opens a second one: a kubelet
//! does not reconnect.

use tokio_util::sync::CancellationToken;

use super::connection::{PluginClient, rpc_error};
use super::node::NodeHandle;
use super::resources::ClientId;
use crate::wire::v1beta1::Empty;

/// Opens the stream, passes each list on, and reports the end, whichever side caused it.
pub(super) async fn follow(
    client: PluginClient,
    id: ClientId,
    node_handle: NodeHandle,
    dropped: CancellationToken,
) {
    let why = tokio::select! {
        () = dropped.cancelled() => "ended by the kubelet".to_owned(),
        why = receive_lists(client, id, &node_handle) => why,
    };
    // Without an owner, nothing is left to do.
    let _ = node_handle.ask(move |node| node.stream_ended(id, why)).await;
}

/// Returns why no more lists come.
async fn receive_lists(mut client: PluginClient, id: ClientId, node_handle: &NodeHandle) -> String {
    let mut lists = match client.list_and_watch(Empty {}).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return rpc_error(&status),
    };
    loop {
        match lists.message().await {
            Ok(Some(list)) => {
                let received =
                    node_handle.ask(move |node| node.resources.list_received(id, list.devices));
                if let Err(gone) = received.await {
                    return gone.to_string();
                }
            }
            Ok(None) => return "EOF".to_owned(),
            Err(status) => return rpc_error(&status),
        }
    }
}
