//! The kubelet's pod resources socket: who holds which devices. Absent on some nodes, and none of
//! our work depends on it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::net::UnixStream;

use super::kubelet::channel_over;
use crate::model::pod_usage::HeldDevices;
use crate::wire::pod_resources;
use crate::wire::podresources_v1::ListPodResourcesRequest;
use crate::wire::podresources_v1::pod_resources_lister_client::PodResourcesListerClient;

/// The most that is read of an answer, in bytes. The kubelet's own tests read as much (kubernetes,
/// `test/e2e_node/util.go`, `defaultPodResourcesMaxSize`).
const RESPONSE_SIZE_LIMIT: usize = 16 * 1024 * 1024;

/// Why it is not known who holds what.
#[derive(Debug, Error)]
pub enum PodResourcesError {
    /// There is no such socket, or no process accepts.
    #[error("cannot connect to {0}: {1}")]
    Connect(PathBuf, #[source] io::Error),
    /// It answered with an error, for example because it answers others already.
    #[error("the kubelet refused to list pod resources: {}", .0.message())]
    Refused(#[source] Box<tonic::Status>),
    /// It did not answer.
    #[error("the kubelet did not list pod resources within {0:?}")]
    Silent(Duration),
}

impl PodResourcesError {
    /// Nothing is at the path: the operator did not mount it, or the kubelet is not up yet.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Connect(_, error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Queries the kubelet that listens on `socket` which pods hold which devices.
///
/// # Errors
/// [`PodResourcesError`], after `time_limit` at the latest.
pub async fn list(socket: &Path, time_limit: Duration) -> Result<HeldDevices, PodResourcesError> {
    let call = async {
        let cannot_connect = |error| PodResourcesError::Connect(socket.to_owned(), error);
        let stream = UnixStream::connect(socket).await.map_err(cannot_connect)?;
        let channel = channel_over(stream).await;
        let channel =
            channel.map_err(|error| cannot_connect(io::Error::other(error.to_string())))?;
        let mut client =
            PodResourcesListerClient::new(channel).max_decoding_message_size(RESPONSE_SIZE_LIMIT);
        let answer = client.list(ListPodResourcesRequest {}).await;
        let answer = answer.map_err(|status| PodResourcesError::Refused(Box::new(status)))?;
        Ok(pod_resources::holders(answer.into_inner()))
    };
    tokio::time::timeout(time_limit, call)
        .await
        .unwrap_or(Err(PodResourcesError::Silent(time_limit)))
}
