//! The kubelet's pod resources, from both ends.

use std::path::Path;
use std::time::Duration;

use ix_device_plugin::demo::kubelet::NAMESPACE;
use ix_device_plugin::host::kubelet::channel_over;
use ix_device_plugin::host::pod_resources::{PodResourcesError, list};
use ix_device_plugin::wire::podresources_v1::pod_resources_lister_client::PodResourcesListerClient;
use ix_device_plugin::wire::podresources_v1::pod_resources_lister_server::{
    PodResourcesLister, PodResourcesListerServer,
};
use ix_device_plugin::wire::podresources_v1::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, GetPodResourcesRequest,
    GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse, PodResources,
};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};

use super::{admit, holding_node};
use crate::support::clock::LIVENESS_LIMIT;
use crate::support::fixtures::GPU;

async fn client(socket: &Path) -> PodResourcesListerClient<Channel> {
    let stream = UnixStream::connect(socket).await.expect("it listens");
    PodResourcesListerClient::new(channel_over(stream).await.expect("it speaks HTTP/2"))
}

#[tokio::test]
async fn the_embedded_kubelet_reports_who_holds_what() {
    let node = holding_node().await;
    let (id, _) = admit(&node, "train").await;
    let socket = node.pod_resources_socket();

    let holders = list(&socket, LIVENESS_LIMIT).await.unwrap();
    let held: Vec<_> =
        holders.of_resource(GPU).map(|(id, holder)| (id, holder.to_string())).collect();
    assert_eq!(held, [(&id[..], "container main of pod default/train".to_owned())]);

    let mut client = client(&socket).await;
    let allocatable = client.get_allocatable_resources(AllocatableResourcesRequest {}).await;
    assert_eq!(allocatable.unwrap().into_inner().devices.len(), 8);
    let get = |pod: &str| GetPodResourcesRequest {
        pod_name: pod.to_owned(),
        pod_namespace: NAMESPACE.to_owned(),
    };
    let pod = client.get(get("train")).await.unwrap().into_inner().pod_resources.unwrap();
    let devices = &pod.containers[0].devices[0];
    assert_eq!((&devices.resource_name[..], &devices.device_ids[..]), (GPU, &[id][..]));
    assert!(devices.topology.is_some());
    assert_eq!(client.get(get("other")).await.unwrap_err().code(), Code::Unknown);

    node.kubelet.remove("train").await.unwrap();
    assert_eq!(list(&socket, LIVENESS_LIMIT).await.unwrap().of_resource(GPU).count(), 0);
}

#[tokio::test]
async fn a_missing_socket_is_not_the_same_as_one_that_fails() {
    let directory = tempfile::tempdir().unwrap();
    let absent = list(&directory.path().join("absent.sock"), LIVENESS_LIMIT).await.unwrap_err();
    assert!(absent.is_absent());
    let stale = directory.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let refused = list(&stale, LIVENESS_LIMIT).await.unwrap_err();
    assert!(matches!(refused, PodResourcesError::Connect(..)) && !refused.is_absent());
}

#[tokio::test]
async fn a_kubelet_that_stays_silent_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("silent.sock");
    let _listening = UnixListener::bind(&socket).unwrap();
    let error = list(&socket, Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(error.to_string(), "the kubelet did not list pod resources within 20ms");
}

/// Lists pods with long names.
struct LongListLister {
    bytes: usize,
}

#[tonic::async_trait]
impl PodResourcesLister for LongListLister {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        let pod = PodResources { name: "x".repeat(self.bytes), ..PodResources::default() };
        Ok(Response::new(ListPodResourcesResponse { pod_resources: vec![pod] }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get(
        &self,
        _: Request<GetPodResourcesRequest>,
    ) -> Result<Response<GetPodResourcesResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tokio::test]
async fn an_answer_is_read_up_to_16_mebibytes() {
    for (bytes, is_read) in [(15 << 20, true), (17 << 20, false)] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("lengthy.sock");
        let connections = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let server = Server::builder()
            .add_service(PodResourcesListerServer::new(LongListLister { bytes }))
            .serve_with_incoming(connections);
        tokio::select! {
            ended = server => panic!("the server ended: {ended:?}"),
            listed = list(&socket, LIVENESS_LIMIT) => assert_eq!(listed.is_ok(), is_read, "{listed:?}"),
        }
    }
}
