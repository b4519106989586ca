//! A board leaves and comes back under the whole daemon, beside a kubelet in the same process.

#![expect(clippy::disallowed_methods, reason = "a test rearranges the machine's files itself")]

mod pod_resources;

use std::fs;
use std::path::Path;

use ix_device_plugin::decide::node::snapshot::NodeSnapshot;
use ix_device_plugin::model::board::Board;
use ix_device_plugin::model::health::Health;
use ix_device_plugin::wire::v1beta1::{AllocateRequest, ContainerAllocateRequest};
use tokio::net::UnixListener;

use crate::support::clock::skip_ahead;
use crate::support::fixtures::GPU;
use crate::support::node_rig::{NodeRig, ids};
use crate::support::plugin_client::connect;
use crate::support::test_node::{TestNode, UNTIL_RELEASED};

/// Eight boards of two chips, and a plugin that learns from the kubelet which pod holds what.
async fn holding_node() -> NodeRig {
    eight_boards().with_pod_resources().start().await
}

fn eight_boards() -> TestNode {
    TestNode::fixture("bi-v150-x8")
}

/// The device and the nodes that a pod with one device gets.
async fn admit(node: &NodeRig, pod: &str) -> (String, Vec<String>) {
    let admission = node.admit(pod, GPU, 1).await;
    let nodes = admission.containers[0].injection.devices.iter();
    (ids(&admission, GPU).remove(0), nodes.map(|device| device.host_path.clone()).collect())
}

/// Health of the pod's device, as the kubelet reports it in the pod's status.
async fn status(node: &NodeRig, pod: &str) -> Health {
    let status = node.kubelet.allocated_resources_status(pod).await.unwrap();
    *status["main"][GPU].values().next().unwrap()
}

/// Waits until the plugin's list gives this reason for a device that left.
async fn until_reason(node: &NodeRig, part: &str) {
    let has_reason = |snapshot: &NodeSnapshot| {
        snapshot
            .removed()
            .any(|(_, device)| device.reasons.iter().any(|it| it.detail.contains(part)))
    };
    node.plugin().until_snapshot(part, has_reason).await;
}

#[tokio::test]
async fn a_held_board_stays_listed_as_unhealthy_until_its_pod_is_gone() {
    let node = holding_node().await;
    let (id, _) = admit(&node, "train").await;
    node.unplug(&node.board(&id)).await;
    node.until_health(&id, Some(Health::Unhealthy)).await;
    until_reason(&node, "still held by container main of pod default/train").await;
    assert_eq!(status(&node, "train").await, Health::Unhealthy);
    let view = node.kubelet.view().borrow().clone();
    assert_eq!((view.capacity(GPU), view.allocatable(GPU)), (8, 7));

    node.kubelet.remove("train").await.unwrap();
    node.until_health(&id, None).await;
}

#[tokio::test]
async fn a_removal_is_logged_once_with_the_kubelets_answer() {
    let node = holding_node().await;
    let (id, _) = admit(&node, "train").await;
    node.unplug(&node.board(&id)).await;
    until_reason(&node, "still held by container main of pod default/train").await;
    let warnings = node.log.lines("WARN");
    let of_device: Vec<_> =
        warnings.iter().filter(|line| line.starts_with("device is unhealthy")).collect();
    assert_eq!(of_device.len(), 1, "{warnings:#?}");
    assert!(of_device[0].contains("left the PCI bus; still held by"), "{of_device:?}");
}

#[tokio::test]
async fn a_board_that_nobody_holds_leaves_the_list() {
    let node = holding_node().await;
    admit(&node, "train").await;
    let board = node.board("0000:13:00.0");
    node.unplug(&board).await;
    // Long before the grace period is over.
    node.until_health("0000:13:00.0", None).await;
    let view = node.kubelet.view().borrow().clone();
    assert_eq!((view.capacity(GPU), view.allocatable(GPU)), (7, 7));
}

#[tokio::test]
async fn without_pod_resources_it_stays_for_the_grace_period() {
    let node = eight_boards().retention(UNTIL_RELEASED).start().await;
    let (id, _) = admit(&node, "train").await;
    node.unplug(&node.board(&id)).await;
    node.until_health(&id, Some(Health::Unhealthy)).await;
    assert_eq!(status(&node, "train").await, Health::Unhealthy);
    skip_ahead(UNTIL_RELEASED.unknown).await;
    node.until_health(&id, None).await;
    assert_eq!(node.kubelet.view().borrow().pod_resources_calls, 0);
}

/// What a plugin finds at the pod resources socket does not keep it from its work.
async fn harms_nothing(socket: &Path) {
    let node = eight_boards().pod_resources_at(socket).retention(UNTIL_RELEASED).start().await;
    let (id, _) = admit(&node, "train").await;
    node.start_pod("train").await.expect("it may start");
    node.unplug(&node.board(&id)).await;
    node.until_health(&id, Some(Health::Unhealthy)).await;
    assert_ne!(admit(&node, "other").await.0, id);
    skip_ahead(UNTIL_RELEASED.unknown).await;
    node.until_health(&id, None).await;
}

#[tokio::test]
async fn pod_resources_that_are_absent_harm_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("absent/kubelet.sock");
    harms_nothing(&socket).await;
}

#[tokio::test]
async fn pod_resources_that_refuse_harm_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a-file");
    fs::write(&socket, "not a socket").unwrap();
    harms_nothing(&socket).await;
}

#[tokio::test]
async fn pod_resources_that_hang_harm_nothing() {
    let elsewhere = tempfile::tempdir().unwrap();
    let socket = elsewhere.path().join("kubelet.sock");
    // The kernel connects; nobody ever accepts.
    let _listening = UnixListener::bind(&socket).unwrap();
    harms_nothing(&socket).await;
}

#[tokio::test]
async fn pod_resources_that_hang_up_harm_nothing() {
    let elsewhere = tempfile::tempdir().unwrap();
    let socket = elsewhere.path().join("kubelet.sock");
    let listening = UnixListener::bind(&socket).unwrap();
    let hang_up = async {
        loop {
            drop(listening.accept().await);
        }
    };
    tokio::select! {
        () = harms_nothing(&socket) => {}
        () = hang_up => {}
    }
}

#[tokio::test]
async fn a_held_board_that_comes_back_is_healthy_at_once() {
    let node = holding_node().await;
    let (id, _) = admit(&node, "train").await;
    let board = node.board(&id);
    node.unplug(&board).await;
    until_reason(&node, "still held").await;
    node.replug(&board).await;
    node.until_health(&id, Some(Health::Healthy)).await;
    assert_eq!(status(&node, "train").await, Health::Healthy);
    node.start_pod("train").await.unwrap();
}

#[tokio::test]
async fn another_board_in_its_place_is_a_new_device() {
    let node = holding_node().await;
    let (id, _) = admit(&node, "train").await;
    let board = node.board(&id);
    node.unplug(&board).await;
    node.until_health(&id, Some(Health::Unhealthy)).await;

    node.machine.replug(&board).unwrap();
    for chip in &board.chips {
        fs::write(node.chip_directory(chip.address).join("device"), "0x0009\n").unwrap();
    }
    node.plugin().rescan().await;
    node.until_health(&id, Some(Health::Healthy)).await;
    let error = node.start_pod("train").await.unwrap_err();
    assert!(error.contains("was allocated as 1e3e:") && error.contains("1e3e:0009"), "{error}");

    node.kubelet.remove("train").await.unwrap();
    admit(&node, "anew").await;
    node.start_pod("anew").await.unwrap();
}

/// Gives a chip that is there another minor number, as the driver does when it comes back.
fn renumber(root: &Path, chip: &Path, from: &str, to: &str) -> std::io::Result<()> {
    let class = chip.join("iluvatar-sys");
    fs::rename(class.join(from), class.join(to))?;
    let uevent = class.join(to).join("uevent");
    let told = fs::read_to_string(&uevent)?;
    let tells = told.replace(&format!("DEVNAME={from}\n"), &format!("DEVNAME={to}\n"));
    fs::write(uevent, tells)?;
    fs::rename(root.join("dev").join(from), root.join("dev").join(to))?;
    let links = root.join("sys/class/iluvatar-sys");
    let target = fs::read_link(links.join(from))?;
    fs::remove_file(links.join(from))?;
    std::os::unix::fs::symlink(target.with_file_name(to), links.join(to))
}

#[tokio::test]
async fn a_board_that_comes_back_with_other_nodes_is_given_anew_only() {
    let node = holding_node().await;
    let (id, nodes) = admit(&node, "train").await;
    let board = node.board(&id);
    node.unplug(&board).await;
    node.until_health(&id, Some(Health::Unhealthy)).await;

    node.machine.replug(&board).unwrap();
    for (number, chip) in board.chips.iter().enumerate() {
        let from = chip.node.as_ref().unwrap().path.trim_start_matches("/dev/").to_owned();
        let root = node.machine.root();
        let to = format!("iluvatar{}", 40 + number);
        renumber(root.path(), &node.chip_directory(chip.address), &from, &to).unwrap();
    }
    node.plugin().rescan().await;
    node.until_health(&id, Some(Health::Healthy)).await;
    let error = node.start_pod("train").await.unwrap_err();
    assert!(error.contains(&format!("was allocated as {} but is now", nodes[0])), "{error}");

    node.kubelet.remove("train").await.unwrap();
    let (same, nodes) = admit(&node, "anew").await;
    assert_eq!(same, id);
    assert_eq!(nodes, ["/dev/iluvatar40", "/dev/iluvatar41"]);
    node.start_pod("anew").await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_starts_after_a_held_board_left_lists_it() {
    let mut node = holding_node().await;
    let (id, _) = admit(&node, "train").await;
    let board = node.board(&id);
    node.kill();
    node.machine.unplug(&board).unwrap();
    node.start_plugin();
    until_reason(&node, "is not on the PCI bus; still held by container main").await;
    node.until("the list", |view| view.resources[GPU].registered && view.allocatable(GPU) == 7)
        .await;
    node.until_health(&id, Some(Health::Unhealthy)).await;
    assert_eq!(status(&node, "train").await, Health::Unhealthy);

    node.kubelet.remove("train").await.unwrap();
    node.until("the list", |view| view.capacity(GPU) == 7).await;
}

#[tokio::test]
async fn a_restarted_kubelet_gets_the_held_board_in_its_list_again() {
    let node = holding_node().await;
    let (id, _) = admit(&node, "train").await;
    node.unplug(&node.board(&id)).await;
    until_reason(&node, "still held").await;
    node.kubelet.restart().await.unwrap();
    node.until("the list", |view| view.allocatable(GPU) == 7 && view.capacity(GPU) == 8).await;
    assert_eq!(status(&node, "train").await, Health::Unhealthy);
    node.kubelet.remove("train").await.unwrap();
    node.until_health(&id, None).await;
}

#[tokio::test]
async fn half_a_board_is_unhealthy_under_its_own_id() {
    let node = holding_node().await;
    let board = node.board("0000:13:00.0");
    let mut lower = board.clone();
    lower.chips.truncate(1);
    node.unplug(&lower).await;
    node.until_health("0000:13:00.0", Some(Health::Unhealthy)).await;
    assert_eq!(node.kubelet.view().borrow().capacity(GPU), 8);
    assert_eq!(node.board("0000:13:00.0").reasons[0].detail, "1 of 2 chips present");
    node.replug(&lower).await;
    node.until_health("0000:13:00.0", Some(Health::Healthy)).await;
}

#[tokio::test]
async fn of_a_split_board_the_chip_that_stays_goes_on() {
    let node = eight_boards().config("flags: {splitboard: true}").with_pod_resources();
    let node = node.start().await;
    let (id, _) = admit(&node, "train").await;

    let snapshot = node.plugin().snapshots.borrow().clone().unwrap();
    let has_chip = |board: &&Board| board.chips.iter().any(|it| it.address.to_string() == id);
    let mut part = snapshot.inventory.boards.iter().find(has_chip).unwrap().clone();
    part.chips.retain(|chip| chip.address.to_string() == id);
    node.unplug(&part).await;
    node.until_health(&id, Some(Health::Unhealthy)).await;
    node.until("the list", |view| view.allocatable(GPU) == 15 && view.capacity(GPU) == 16).await;
}

#[tokio::test]
async fn allocate_names_why_a_removed_device_is_refused() {
    let node = holding_node().await;
    let (id, _) = admit(&node, "train").await;
    node.unplug(&node.board(&id)).await;
    until_reason(&node, "still held").await;

    // A kubelet asks for such a device only if the list crosses its choice.
    let container = ContainerAllocateRequest { devices_ids: vec![id.clone()] };
    let request = AllocateRequest { container_requests: vec![container] };
    let refused = connect(&node.socket()).await.allocate(request).await.unwrap_err();
    assert_eq!(
        refused.message(),
        format!(
            "iluvatar.com/gpu: device {id} is unhealthy: Removed ({id} left the PCI bus; still \
             held by container main of pod default/train)"
        )
    );
}
