//! What a kubelet gets when it asks for devices, over the socket and with an ordinary client.

use ix_device_plugin::model::config::{
    Config, ContainerRules, ResourceRule, Sharing, SharingPolicy, VisibleDevices,
};
use ix_device_plugin::wire::v1beta1::device_plugin_client::DevicePluginClient;
use ix_device_plugin::wire::v1beta1::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, DeviceSpec, Empty, PreStartContainerRequest,
    PreferredAllocationRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::clock::soon;
use crate::support::fixtures::GPU;
use crate::support::node_rig::NodeRig;
use crate::support::plugin_client::connect;
use crate::support::test_node::TestNode;

/// Boards of one chip each, and a control node.
const FOUR_BOARDS: &str = "mr-v100-x4";
/// Boards of two chips each, without a control node.
const EIGHT_BOARDS: &str = "bi-v150-x8";

struct Plugin {
    client: DevicePluginClient<Channel>,
    node: NodeRig,
}

impl Plugin {
    async fn start(fixture: &str, config: Config) -> Self {
        let node = TestNode::fixture(fixture).configured(config).start().await;
        Self { client: connect(&node.socket()).await, node }
    }

    async fn allocate(
        &self,
        containers: &[&[&str]],
    ) -> Result<Vec<ContainerAllocateResponse>, Status> {
        let containers = containers.iter().map(|ids| ContainerAllocateRequest {
            devices_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        });
        let request = AllocateRequest { container_requests: containers.collect() };
        let answer = self.client.clone().allocate(request).await?;
        Ok(answer.into_inner().container_responses)
    }

    async fn check_refused(&self, containers: &[&[&str]], code: Code, message: &str) {
        let status = self.allocate(containers).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message), "{containers:?}");
    }

    /// Asks for `size` of `available`, with `must` among them.
    async fn prefer(&self, available: &[&str], must: &[&str], size: i32) -> Vec<String> {
        let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let container = ContainerPreferredAllocationRequest {
            available_device_i_ds: owned(available),
            must_include_device_i_ds: owned(must),
            allocation_size: size,
        };
        let request = PreferredAllocationRequest { container_requests: vec![container] };
        let answer = self.client.clone().get_preferred_allocation(request).await;
        let mut containers = answer.expect("it never fails").into_inner().container_responses;
        assert_eq!(containers.len(), 1);
        containers.remove(0).device_i_ds
    }
}

fn shared(fail_requests_greater_than_one: bool) -> Config {
    let policy = SharingPolicy::Spread;
    let sharing = Some(Sharing { replicas: 3, fail_requests_greater_than_one, policy });
    Config {
        resources: vec![ResourceRule { sharing, ..ResourceRule::default() }],
        ..Config::default()
    }
}

fn node(path: &str) -> DeviceSpec {
    let path = path.to_owned();
    DeviceSpec { container_path: path.clone(), host_path: path, permissions: "rw".to_owned() }
}

#[track_caller]
fn check_env(response: &ContainerAllocateResponse, visible: &str, replicas: &str) {
    let mut envs: Vec<_> = response.envs.iter().map(|(name, value)| (&**name, &**value)).collect();
    envs.sort_unstable();
    assert_eq!(envs, [("IX_REPLICA_DEVICES", replicas), ("IX_VISIBLE_DEVICES", visible),]);
}

#[tokio::test]
async fn a_board_comes_with_the_nodes_of_all_its_chips() {
    let plugin = Plugin::start(EIGHT_BOARDS, Config::default()).await;
    let granted = plugin.allocate(&[&["0000:27:00.0"]]).await.unwrap();
    assert_eq!(granted[0].devices, [node("/dev/iluvatar4"), node("/dev/iluvatar5")]);
    check_env(&granted[0], "0000:27:00.0,0000:2a:00.0", "0000:27:00.0");
}

#[tokio::test]
async fn the_control_nodes_that_exist_come_last_and_once() {
    let plugin = Plugin::start(FOUR_BOARDS, Config::default()).await;
    let granted = plugin.allocate(&[&["0000:ad:00.0", "0000:15:00.0"]]).await.unwrap();
    let nodes = [node("/dev/iluvatar3"), node("/dev/iluvatar0"), node("/dev/itrctl")];
    assert_eq!(granted[0].devices, nodes);
    check_env(&granted[0], "0000:15:00.0,0000:ad:00.0", "0000:15:00.0,0000:ad:00.0");
}

#[tokio::test]
async fn every_container_of_a_request_gets_its_own() {
    let plugin = Plugin::start(FOUR_BOARDS, Config::default()).await;
    let granted = plugin.allocate(&[&["0000:ad:00.0"], &["0000:15:00.0"]]).await.unwrap();
    assert_eq!(granted.len(), 2);
    check_env(&granted[0], "0000:ad:00.0", "0000:ad:00.0");
    check_env(&granted[1], "0000:15:00.0", "0000:15:00.0");
}

#[tokio::test]
async fn replicas_of_one_device_give_its_nodes_once() {
    let plugin = Plugin::start(FOUR_BOARDS, shared(false)).await;
    let ids: &[&str] = &["0000:15:00.0::2", "0000:15:00.0::0"];
    let granted = plugin.allocate(&[ids]).await.unwrap();
    assert_eq!(granted[0].devices, [node("/dev/iluvatar3"), node("/dev/itrctl")]);
    check_env(&granted[0], "0000:15:00.0", "0000:15:00.0::0,0000:15:00.0::2");
}

#[tokio::test]
async fn void_keeps_the_runtime_from_adding_gpus() {
    let container =
        ContainerRules { visible_devices: VisibleDevices::Void, ..ContainerRules::default() };
    let plugin = Plugin::start(FOUR_BOARDS, Config { container, ..Config::default() }).await;
    let granted = plugin.allocate(&[&["0000:15:00.0"]]).await.unwrap();
    check_env(&granted[0], "void", "0000:15:00.0");
}

#[tokio::test]
async fn a_refused_allocation_names_the_device() {
    let plugin = Plugin::start(FOUR_BOARDS, Config::default()).await;
    let empty = "iluvatar.com/gpu: the request names no device";
    plugin.check_refused(&[&[]], Code::InvalidArgument, empty).await;
    for unknown in ["0000:99:00.0", "0000:15:00.0::0", "0", "", "../dev/sda"] {
        let message = format!(
            "iluvatar.com/gpu: there is no device `{unknown}`; it may have been removed \
             since the last list"
        );
        plugin.check_refused(&[&[unknown]], Code::NotFound, &message).await;
    }
    let twice = "iluvatar.com/gpu: device 0000:15:00.0 is requested twice for one container";
    let ids: &[&str] = &["0000:15:00.0", "0000:15:00.0"];
    plugin.check_refused(&[ids], Code::InvalidArgument, twice).await;
}

#[tokio::test]
async fn a_device_that_broke_since_the_list_is_refused_with_the_reason() {
    let plugin = Plugin::start(FOUR_BOARDS, Config::default()).await;
    plugin.node.machine.stop_answering("0000:15:00.0".parse().unwrap()).unwrap();
    plugin.node.plugin().rescan().await;
    soon("it to break", plugin.node.kubelet.wait_for(|view| view.allocatable(GPU) == 3))
        .await
        .unwrap();
    let message = "iluvatar.com/gpu: device 0000:15:00.0 is unhealthy: ConfigSpaceUnreadable \
                   (0000:15:00.0 does not answer: its configuration space is empty or all ones)";
    plugin.check_refused(&[&["0000:15:00.0"]], Code::FailedPrecondition, message).await;
}

#[tokio::test]
async fn a_device_that_was_removed_since_the_list_is_refused() {
    let plugin = Plugin::start(FOUR_BOARDS, Config::default()).await;
    let board = plugin.node.plugin().last_board().await;
    plugin.node.unplug(&board).await;
    plugin
        .check_refused(
            &[&["0000:ad:00.0"]],
            Code::NotFound,
            "iluvatar.com/gpu: there is no device `0000:ad:00.0`; it may have been removed \
             since the last list",
        )
        .await;
}

#[tokio::test]
async fn more_than_one_replica_is_refused_where_so_configured() {
    let plugin = Plugin::start(FOUR_BOARDS, shared(true)).await;
    plugin
        .check_refused(
            &[&["0000:15:00.0::0", "0000:2d:00.0::0"]],
            Code::InvalidArgument,
            "iluvatar.com/gpu: 2 replicas are requested, but a container may have one: more \
             replicas do not give it more of a GPU (sharing.timeSlicing.failRequestsGreaterThanOne is \
             set)",
        )
        .await;
    assert_eq!(plugin.allocate(&[&["0000:15:00.0::0"]]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn one_refused_container_refuses_the_whole_request() {
    let plugin = Plugin::start(FOUR_BOARDS, Config::default()).await;
    plugin
        .check_refused(
            &[&["0000:15:00.0"], &[]],
            Code::InvalidArgument,
            "iluvatar.com/gpu: the request names no device",
        )
        .await;
}

#[tokio::test]
async fn no_preferred_allocation_fails() {
    let plugin = Plugin::start(FOUR_BOARDS, Config::default()).await;
    let all = ["0000:15:00.0", "0000:2d:00.0", "0000:95:00.0", "0000:ad:00.0"];
    let garbage = ["", "gpu-7", "0000:99:00.0", "0000:15:00.0", "0000:15:00.0", "0000:15:00.0::1"];
    for size in [i32::MIN, -1, 0] {
        assert!(plugin.prefer(&all, &[], size).await.is_empty(), "{size}");
    }
    assert_eq!(plugin.prefer(&all, &[], i32::MAX).await, all);
    assert_eq!(plugin.prefer(&garbage, &[], 1).await, ["0000:15:00.0"]);
    assert_eq!(plugin.prefer(&garbage, &garbage, 2).await, ["0000:15:00.0"]);
    assert!(plugin.prefer(&[], &[], 2).await.is_empty());
}

#[tokio::test]
async fn a_preferred_allocation_has_the_required_devices_and_the_closest_others() {
    let plugin = Plugin::start(FOUR_BOARDS, Config::default()).await;
    let all = ["0000:15:00.0", "0000:2d:00.0", "0000:95:00.0", "0000:ad:00.0"];
    assert_eq!(plugin.prefer(&all, &["0000:ad:00.0"], 2).await, ["0000:95:00.0", "0000:ad:00.0"]);
}

#[tokio::test]
async fn the_options_announce_preferred_allocation() {
    let plugin = Plugin::start(FOUR_BOARDS, Config::default()).await;
    let options = plugin.client.clone().get_device_plugin_options(Empty {}).await.unwrap();
    assert!(options.into_inner().get_preferred_allocation_available);
    let start = PreStartContainerRequest { devices_ids: vec!["0000:15:00.0".to_owned()] };
    plugin.client.clone().pre_start_container(start).await.unwrap();
}
