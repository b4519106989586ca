//! Follows the `ListAndWatch` stream of one plugin to its end. Never opens a second one: a kubelet
//! does not reconnect.

use tokio_util::sync::CancellationToken;

use super::connection::{PluginClient, rpc_error};
use super::node::Asker;
use super::resources::ClientId;
use crate::wire::v1beta1::Empty;

/// Opens the stream, hands on each list, and reports the end, whoever brought it about.
pub(super) async fn follow(
    client: PluginClient,
    id: ClientId,
    asker: Asker,
    dropped: CancellationToken,
) {
    let why = tokio::select! {
        () = dropped.cancelled() => "ended by the kubelet".to_owned(),
        why = receive_lists(client, id, &asker) => why,
    };
    // Without an owner there is nobody left to tell.
    let _ = asker.ask(move |node| node.stream_ended(id, why)).await;
}

/// Returns why no more lists come.
async fn receive_lists(mut client: PluginClient, id: ClientId, asker: &Asker) -> String {
    let mut lists = match client.list_and_watch(Empty {}).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return rpc_error(&status),
    };
    loop {
        match lists.message().await {
            Ok(Some(list)) => {
                let told = asker.ask(move |node| node.resources.list_received(id, list.devices));
                if let Err(gone) = told.await {
                    return gone.to_string();
                }
            }
            Ok(None) => return "EOF".to_owned(),
            Err(status) => return rpc_error(&status),
        }
    }
}
