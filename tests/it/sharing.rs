//! Devices that are offered several times, and several resources on one node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ix_device_plugin::decide::allocation::prefer::{DeviceSupply, PreferenceRequest, prefer};
use ix_device_plugin::decide::node::advertise::advertise;
use ix_device_plugin::decide::node::snapshot::NodeSnapshot;
use ix_device_plugin::demo::kubelet::{NodeView, PodRequest};
use ix_device_plugin::host::config_file::ConfigSource;
use ix_device_plugin::model::config::{
    Config, Granularity, ResourceRule, Selector, Sharing, SharingPolicy,
};
use ix_device_plugin::model::device::DeviceId;
use ix_device_plugin::model::inventory::Inventory;
use ix_device_plugin::parse::config::Overrides;
use ix_device_plugin::wire::v1beta1::{
    ContainerPreferredAllocationRequest, PreferredAllocationRequest,
};
use proptest::prelude::*;
use prost::bytes::Bytes;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::support::binary::{Ran, run};
use crate::support::fixtures::{GPU, inventory_of, node_text};
use crate::support::node_rig::{NodeRig, ids, is_streaming};
use crate::support::test_node::TestNode;

/// Four chips, each a board.
const CHIPS: [&str; 4] = ["0000:15:00.0", "0000:2d:00.0", "0000:95:00.0", "0000:ad:00.0"];

async fn shared(slicing: &str) -> NodeRig {
    let yaml = format!("sharing: {{timeSlicing: {{{slicing}}}}}");
    TestNode::fixture("mr-v100-x4").config(&yaml).start().await
}

fn replicas(count: usize) -> Vec<String> {
    let of = |chip: &&str| (0..count).map(|index| format!("{chip}::{index}")).collect::<Vec<_>>();
    CHIPS.iter().flat_map(of).collect()
}

#[tokio::test]
async fn each_device_is_listed_once_for_each_replica() {
    let stage = shared("replicas: 3").await;
    let view = stage.kubelet.view().borrow().clone();
    let listed: Vec<_> = view.resources[GPU].devices.keys().cloned().collect();
    assert_eq!(listed, replicas(3));
    assert_eq!(view.resources[GPU].devices["0000:ad:00.0::2"].numa_nodes, [1]);
}

#[tokio::test]
async fn a_shared_resource_can_have_a_name_that_shows_it() {
    let stage = shared("replicas: 2, renameByDefault: true").await;
    let view = stage.kubelet.view().borrow().clone();
    assert_eq!(view.resources.keys().collect::<Vec<_>>(), ["iluvatar.com/gpu.shared"]);
    assert_eq!(view.capacity("iluvatar.com/gpu.shared"), 8);
}

#[tokio::test]
async fn one_replica_is_no_sharing() {
    let stage = shared("replicas: 1, renameByDefault: true").await;
    let view = stage.kubelet.view().borrow().clone();
    assert_eq!(view.resources[GPU].devices.keys().collect::<Vec<_>>(), CHIPS);
}

#[tokio::test]
async fn more_than_one_replica_is_refused_where_the_operator_wants_that() {
    let stage = shared("replicas: 2, failRequestsGreaterThanOne: true").await;
    let refusal = stage.kubelet.admit(PodRequest::single("two", GPU, 2)).await.unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "UnexpectedAdmissionError: Allocate failed due to rpc error: code = InvalidArgument desc = \
         iluvatar.com/gpu: 2 replicas are requested, but a container may have one: more replicas \
         do not give it more of a GPU (sharing.timeSlicing.failRequestsGreaterThanOne is set), \
         which is unexpected"
    );
    let one = stage.admit("one", GPU, 1).await;
    assert_eq!(one.containers[0].injection.envs["IX_REPLICA_DEVICES"], "0000:15:00.0::0");
    assert_eq!(one.containers[0].injection.envs["IX_VISIBLE_DEVICES"], "0000:15:00.0");
}

#[tokio::test]
async fn two_replicas_of_one_device_hand_out_its_node_once() {
    let stage = shared("replicas: 2, policy: pack").await;
    let given = stage.admit("two", GPU, 2).await;
    assert_eq!(ids(&given, GPU), ["0000:15:00.0::0", "0000:15:00.0::1"]);
    let nodes = given.containers[0].injection.devices.iter().map(|device| &*device.host_path);
    assert_eq!(nodes.collect::<Vec<_>>(), ["/dev/iluvatar3", "/dev/itrctl"]);
}

/// What each of these pods, one after the other, holds.
async fn given_to_pods(policy: &str, sizes: &[usize]) -> Vec<Vec<String>> {
    let stage = shared(&format!("replicas: 2, policy: {policy}")).await;
    let mut given = Vec::new();
    for (index, size) in sizes.iter().enumerate() {
        given.push(ids(&stage.admit(&format!("pod-{index}"), GPU, *size).await, GPU));
    }
    given
}

#[tokio::test]
async fn spread_gives_each_pod_the_least_shared_devices() {
    let given = given_to_pods("spread", &[1, 2, 1, 2]).await;
    let expected: [&[&str]; 4] = [
        &["0000:15:00.0::0"],
        &["0000:95:00.0::0", "0000:ad:00.0::0"],
        &["0000:2d:00.0::0"],
        &["0000:15:00.0::1", "0000:2d:00.0::1"],
    ];
    assert_eq!(given, expected);
}

#[tokio::test]
async fn pack_gives_each_pod_the_most_shared_device() {
    let given = given_to_pods("pack", &[1, 1, 2, 1]).await;
    let expected: [&[&str]; 4] = [
        &["0000:15:00.0::0"],
        &["0000:15:00.0::1"],
        &["0000:2d:00.0::0", "0000:2d:00.0::1"],
        &["0000:95:00.0::0"],
    ];
    assert_eq!(given, expected);
}

#[tokio::test]
async fn a_preference_over_the_socket_is_valid_whatever_is_asked() {
    let stage = shared("replicas: 2").await;
    let mut client = stage.client("iluvatar-gpu.sock").await;
    let owned = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
    let request = |available: &[&str], must_include: &[&str], allocation_size| {
        ContainerPreferredAllocationRequest {
            available_device_i_ds: owned(available),
            must_include_device_i_ds: owned(must_include),
            allocation_size,
        }
    };
    let free = ["0000:15:00.0::0", "0000:15:00.0::1", "0000:ad:00.0::1"];
    let container_requests = vec![
        request(&free, &[], 2),
        request(&free, &["0000:15:00.0::1"], 2),
        request(&free, &[], 99),
        request(&["no id", "0000:15:00.0", "0000:15:00.0::7"], &[], 1),
        request(&free, &[], -1),
        request(&[], &[], 0),
    ];
    let request = PreferredAllocationRequest { container_requests };
    let answer = client.get_preferred_allocation(request).await.unwrap().into_inner();
    let chosen = answer.container_responses.into_iter().map(|it| it.device_i_ds);
    let expected: [&[&str]; 6] = [
        &["0000:15:00.0::0", "0000:ad:00.0::1"],
        &["0000:15:00.0::1", "0000:ad:00.0::1"],
        &free,
        &[],
        &[],
        &[],
    ];
    assert_eq!(chosen.collect::<Vec<_>>(), expected);
}

const TWO_RESOURCES: &str = "
sharing: {timeSlicing: {replicas: 2}}
resources:
- {name: example.com/fast, match: {addresses: ['0000:15:00.0', '0000:2d:00.0']}, replicas: 0}
- {name: example.com/rest, match: {model: MR-V100}}
";

#[tokio::test]
async fn each_resource_has_a_socket_a_session_and_devices_of_its_own() {
    let stage = TestNode::fixture("mr-v100-x4").config(TWO_RESOURCES).start().await;
    let view = stage.until("the rest", |view| is_streaming(view, "example.com/rest")).await;
    let listed =
        |resource: &str| view.resources[resource].devices.keys().cloned().collect::<Vec<_>>();
    assert_eq!(listed("example.com/fast"), CHIPS[..2]);
    assert_eq!(listed("example.com/rest"), replicas(2)[4..]);
    assert!(stage.file("iluvatar-gpu.sock").exists());
    assert!(stage.file("iluvatar-gpu-example.com_rest.sock").exists());

    let warned = CHIPS[..2].iter().map(|chip| {
        format!(
            "{chip}: example.com/rest also matches, but example.com/fast offers it already; make \
             the matches exclude each other event=\"OverlappingResources\""
        )
    });
    assert_eq!(stage.log.lines("WARN"), warned.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_resource_does_not_hand_out_what_another_one_offers() {
    let stage = TestNode::fixture("mr-v100-x4").config(TWO_RESOURCES).start().await;
    stage.until("the rest", |view| is_streaming(view, "example.com/rest")).await;
    let mut rest = stage.client("iluvatar-gpu-example.com_rest.sock").await;
    let asked = |id: &str| ix_device_plugin::wire::v1beta1::AllocateRequest {
        container_requests: vec![ix_device_plugin::wire::v1beta1::ContainerAllocateRequest {
            devices_ids: vec![id.to_owned()],
        }],
    };
    let refusal = rest.allocate(asked("0000:15:00.0::0")).await.unwrap_err();
    assert_eq!(
        refusal.message(),
        "example.com/rest: there is no device `0000:15:00.0::0`; it may have been removed since \
         the last list"
    );
    assert!(rest.allocate(asked("0000:95:00.0::0")).await.is_ok());
}

/// A node whose configuration is `before` at first, and the file that it follows.
async fn with_config_file(before: &str) -> (NodeRig, TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, before).unwrap();
    let source = ConfigSource::new(Some(&file), Overrides::default());
    let node = TestNode::fixture("mr-v100-x4").config_file(&source).start().await;
    (node, directory, file)
}

/// A client whose call is incomplete: the server must wait for the rest of the request, or cut it.
struct IncompleteCall {
    _request: h2::SendStream<Bytes>,
    connection: JoinSet<Result<(), h2::Error>>,
}

impl IncompleteCall {
    async fn begin(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.unwrap();
        let (client, running) = h2::client::handshake(stream).await.unwrap();
        let mut connection = JoinSet::new();
        connection.spawn(running);
        let call = |name: &str| {
            http::Request::post(format!("http://localhost/v1beta1.DevicePlugin/{name}"))
                .header("content-type", "application/grpc")
                .body(())
                .unwrap()
        };
        let mut client = client.ready().await.unwrap();
        let (_, request) = client.send_request(call("Allocate"), false).unwrap();
        // Once this is answered, the server has the call before it.
        let mut client = client.ready().await.unwrap();
        let (answer, _) = client.send_request(call("GetDevicePluginOptions"), true).unwrap();
        answer.await.unwrap();
        Self { _request: request, connection }
    }
}

#[tokio::test]
async fn a_resource_registers_under_another_socket_only_after_its_old_session_has_closed() {
    let (node, _directory, file) = with_config_file(TWO_RESOURCES).await;
    node.until("the rest", |view| is_streaming(view, "example.com/rest")).await;
    let old_socket = node.kubelet_directory().join("iluvatar-gpu-example.com_rest.sock");
    let mut call = IncompleteCall::begin(&old_socket).await;

    std::fs::write(&file, "resources: [{name: example.com/rest}]").unwrap();
    node.plugin().reload.notify_one();

    let registered_again = |view: &NodeView| view.resources["example.com/rest"].registrations == 2;
    node.until("the second registration", registered_again).await;
    assert!(!old_socket.exists(), "the old session still has its socket");
    assert!(call.connection.join_next().await.is_some());
    let view = node.until("a stream", |view| is_streaming(view, "example.com/rest")).await;
    assert_eq!(view.resources["example.com/rest"].streams_open, 1);
    assert_eq!(view.resources["example.com/fast"].streams_open, 0);
}

#[test]
fn more_replicas_than_a_kubelet_reads_end_the_start_with_code_3() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, "sharing: {timeSlicing: {replicas: 70000}}").unwrap();
    let arguments = [
        "run",
        "--root=fixtures/nodes/mr-v100-x4.node",
        "--config",
        file.to_str().unwrap(),
        "--kubelet-dir",
        directory.path().to_str().unwrap(),
    ];
    let Ran { code, stdout, stderr } = run(&arguments);
    assert_eq!((code, &*stdout), (Some(3), ""));
    assert_eq!(
        stderr.lines().last().unwrap(),
        "error: iluvatar.com/gpu: 70000 replicas of each of 4 devices make a list above the \
         kubelet's limit of 4 MiB; at most 18922 fit"
    );
}

/// What is found on each shipped machine.
fn inventories() -> Vec<Inventory> {
    let machines = ["bi-v150-x8", "mr-v100-x4", "bi-v100-pix", "half-board", "vfio-and-unbound"];
    let found = |name: &&str| inventory_of(&node_text(name), &Config::default());
    machines.iter().map(found).collect()
}

/// Any rule: conditions on the model, the id and the address, each set or not.
fn arb_rule(inventory: &Inventory, number: usize) -> impl Strategy<Value = ResourceRule> + use<> {
    let chips = inventory.chips();
    let addresses: Vec<_> = chips.iter().map(|chip| chip.address).collect();
    let ids: Vec<_> = chips.iter().map(|chip| chip.id).collect();
    let models: Vec<_> = inventory.boards.iter().map(|board| board.model.clone()).collect();
    let selector = (
        prop::option::weighted(0.2, prop::sample::select(models)),
        prop::option::weighted(0.2, prop::sample::select(ids)),
        prop_oneof![
            Just(Vec::new()),
            prop::sample::subsequence(addresses.clone(), 1..=addresses.len())
        ],
    );
    let granularity = prop_oneof![Just(Granularity::Board), Just(Granularity::Chip)];
    (selector, granularity, prop::option::of(2_u32..5)).prop_map(
        move |((model, pci_id, addresses), granularity, replicas)| ResourceRule {
            name: format!("example.com/r{number}"),
            selector: Selector { model, pci_id, addresses },
            granularity,
            sharing: replicas.map(spread),
        },
    )
}

fn spread(replicas: u32) -> Sharing {
    Sharing { replicas, fail_requests_greater_than_one: false, policy: SharingPolicy::Spread }
}

fn arb_node() -> impl Strategy<Value = (Inventory, Vec<ResourceRule>)> {
    prop::sample::select(inventories()).prop_flat_map(|inventory| {
        let rules: Vec<_> = (0..4).map(|number| arb_rule(&inventory, number)).collect();
        (Just(inventory), rules)
    })
}

proptest! {
    #[test]
    fn a_chip_is_offered_by_one_resource_or_by_none((inventory, rules) in arb_node()) {
        let mut offered = BTreeSet::new();
        for resource in advertise(&inventory, &rules).resources {
            for device in &resource.devices {
                for chip in &device.chips {
                    prop_assert!(offered.insert(*chip), "{} is offered twice", chip);
                }
            }
        }
    }

    #[test]
    fn a_device_that_a_rule_wants_is_offered_or_warned_about((inventory, rules) in arb_node()) {
        let config = Config { resources: rules.clone(), ..Config::default() };
        let snapshot = NodeSnapshot::new(inventory.clone(), &config);
        for rule in &rules {
            let alone = advertise(&inventory, std::slice::from_ref(rule)).resources.remove(0);
            let resource = snapshot.resource(&rule.name).unwrap();
            let missing = alone.devices.iter().filter(|it| resource.find(DeviceId {
                replica: rule.sharing.map(|_| 0),
                ..it.id
            }).is_none());
            let mut warned: Vec<_> = missing
                .map(|it| format!("{}: {} also matches, but ", it.id, rule.name))
                .collect();
            warned.retain(|start| !snapshot.warnings.iter().any(|it| it.to_string().starts_with(start)));
            prop_assert!(warned.is_empty(), "not warned about: {warned:?}");
        }
    }

    #[test]
    fn spread_doubles_up_only_when_every_device_with_a_free_replica_is_taken(
        inventory in prop::sample::select(inventories()),
        replicas in 2_u32..6,
        in_use in prop::collection::vec(any::<prop::sample::Index>(), 0..24),
        size in 1_usize..12,
    ) {
        let rule = ResourceRule { sharing: Some(spread(replicas)), ..ResourceRule::default() };
        let resource = advertise(&inventory, &[rule]).resources.remove(0);
        let mut free: Vec<_> = resource.listed().map(|(id, _)| id).collect();
        for index in in_use {
            if !free.is_empty() {
                free.swap_remove(index.index(free.len()));
            }
        }
        let supply = DeviceSupply {
            tree: &inventory.tree,
            devices: &resource.devices,
            sharing: resource.sharing,
        };
        let request = PreferenceRequest { available: &free, must_include: &[], size };
        let chosen = prefer(&supply, &request).ids;
        prop_assert_eq!(chosen.len(), size.min(free.len()));
        let mut taken: BTreeMap<_, usize> = free.iter().map(|id| (id.address, 0)).collect();
        for id in &chosen {
            *taken.get_mut(&id.address).unwrap() += 1;
        }
        let doubled = taken.values().any(|count| *count > 1);
        let untouched = taken.values().any(|count| *count == 0);
        prop_assert!(!(doubled && untouched), "{chosen:?} of {free:?}");
    }
}
