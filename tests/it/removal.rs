//! A board leaves and comes back under the whole daemon, beside a kubelet in the same process.

#![expect(clippy::disallowed_methods, reason = "a test rearranges the machine's files itself")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ix_device_plugin::app::{self, Bound, Settings};
use ix_device_plugin::daemon::inventory_owner::Trigger;
use ix_device_plugin::decide::removal::{GRACE, removed};
use ix_device_plugin::demo::kubelet::{
    EmbeddedKubelet, NodeView, PodRequest, Settings as KubeletSettings,
};
use ix_device_plugin::demo::machine::PlayMachine;
use ix_device_plugin::host::kubelet::channel_over;
use ix_device_plugin::model::board::Board;
use ix_device_plugin::model::config::{Config, Granularity};
use ix_device_plugin::model::health::Health;
use ix_device_plugin::model::pci::PciAddress;
use ix_device_plugin::parse::node_file::parse_node_file;
use ix_device_plugin::parse::survey::PCI_DEVICES;
use ix_device_plugin::wire::v1beta1::device_plugin_client::DevicePluginClient;
use ix_device_plugin::wire::v1beta1::{AllocateRequest, ContainerAllocateRequest};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

const GPU: &str = "iluvatar.com/gpu";

/// Eight boards of two chips.
const X8: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/nodes/bi-v150-x8.node"));

/// Longer than anything here takes; a test that waits for this has failed.
const FOR_EVER: Duration = Duration::from_secs(30);

/// The kubelet's pod resources, where it serves them.
fn pod_resources(directory: &TempDir) -> PathBuf {
    directory.path().join("pod-resources/kubelet.sock")
}

struct Node {
    directory: TempDir,
    machine: PlayMachine,
    kubelet: EmbeddedKubelet,
    plugin: Option<Bound>,
    config: Config,
    socket: Option<PathBuf>,
    grace: Duration,
}

impl Node {
    /// The kubelet tells who holds what, and the plugin asks it.
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = Some(pod_resources(&directory));
        Self::start_with(directory, Config::default(), socket, GRACE).await
    }

    /// With a plugin that asks at `socket`.
    async fn start_with(
        directory: TempDir,
        config: Config,
        socket: Option<PathBuf>,
        grace: Duration,
    ) -> Self {
        let settings = KubeletSettings {
            pod_resources_socket: Some(pod_resources(&directory)),
            ..KubeletSettings::default()
        };
        let kubelet = EmbeddedKubelet::start(directory.path(), settings).await.unwrap();
        let machine = PlayMachine::unpack(parse_node_file(X8).unwrap()).unwrap();
        let mut node = Self { directory, machine, kubelet, plugin: None, config, socket, grace };
        node.start_plugin();
        node.until(|view| view.allocatable(GPU) >= 8).await;
        node
    }

    fn start_plugin(&mut self) {
        self.plugin = Some(app::build(Settings {
            root: self.machine.root(),
            config: self.config.clone(),
            config_source: None,
            kubelet_directory: self.directory.path().to_owned(),
            pod_resources_socket: self.socket.clone(),
            removal_grace: self.grace,
            inotify: true,
            uevents: false,
        }));
    }

    fn plugin(&self) -> &Bound {
        self.plugin.as_ref().expect("the plugin runs")
    }

    async fn until(&self, seen: impl FnMut(&NodeView) -> bool) -> NodeView {
        let view = timeout(FOR_EVER, self.kubelet.wait_for(seen)).await;
        view.expect("the kubelet never saw it").unwrap()
    }

    async fn until_health(&self, id: &str, health: Option<Health>) {
        self.until(|view| {
            let devices = &view.resources[GPU].devices;
            devices.get(id).map(|device| device.health) == health
        })
        .await;
    }

    /// Waits until the plugin's list gives this reason for a device that left.
    async fn until_reason(&self, part: &str) {
        let mut offers = self.plugin().offers.clone();
        let gives = offers.wait_for(|offer| {
            let mut removed = offer.iter().flat_map(|offer| removed(offer));
            removed.any(|(_, device)| device.reasons.iter().any(|it| it.detail.contains(part)))
        });
        timeout(FOR_EVER, gives).await.expect("the reason never came").unwrap();
    }

    async fn look(&self) {
        self.plugin().triggers.send(Trigger::Uevent).await.unwrap();
    }

    fn board(&self, id: &str) -> Board {
        let offer = self.plugin().offers.borrow().clone().unwrap();
        let address: PciAddress = id.parse().unwrap();
        let board = offer.inventory.boards.iter().find(|board| board.address == address);
        board.unwrap().clone()
    }

    async fn unplug(&self, board: &Board) {
        self.machine.unplug(board).unwrap();
        self.look().await;
    }

    async fn replug(&self, board: &Board) {
        self.machine.replug(board).unwrap();
        self.look().await;
    }

    /// The device and the nodes that a pod with one device gets.
    async fn admit(&self, pod: &str) -> (String, Vec<String>) {
        let admission = self.kubelet.admit(PodRequest::single(pod, GPU, 1)).await.unwrap();
        let container = &admission.containers[0];
        let nodes = container.injection.devices.iter().map(|device| device.host_path.clone());
        (container.devices[GPU][0].clone(), nodes.collect())
    }

    async fn status(&self, pod: &str) -> Health {
        let status = self.kubelet.allocated_resources_status(pod).await.unwrap();
        *status["main"][GPU].values().next().unwrap()
    }

    async fn start_container(&self, pod: &str) -> Result<(), String> {
        let started = self.kubelet.start_container(pod, "main").await;
        started.map(drop).map_err(|error| error.to_string())
    }

    /// Where the machine has the chip's own files.
    fn directory_of(&self, chip: PciAddress) -> PathBuf {
        let listed = self.machine.root().path().join(PCI_DEVICES).join(chip.to_string());
        fs::canonicalize(listed).unwrap()
    }
}

#[tokio::test]
async fn a_held_board_stays_listed_as_unhealthy_until_its_pod_is_gone() {
    let node = Node::start().await;
    let (id, _) = node.admit("train").await;
    node.unplug(&node.board(&id)).await;
    node.until_health(&id, Some(Health::Unhealthy)).await;
    node.until_reason("still held by container main of pod default/train").await;
    assert_eq!(node.status("train").await, Health::Unhealthy);
    let view = node.kubelet.view().borrow().clone();
    assert_eq!((view.capacity(GPU), view.allocatable(GPU)), (8, 7));

    node.kubelet.remove("train").await.unwrap();
    node.until_health(&id, None).await;
}

#[tokio::test]
async fn a_board_that_nobody_holds_leaves_the_list() {
    let node = Node::start().await;
    node.admit("train").await;
    let board = node.board("0000:13:00.0");
    node.unplug(&board).await;
    // Long before the grace period is over.
    node.until_health("0000:13:00.0", None).await;
    let view = node.kubelet.view().borrow().clone();
    assert_eq!((view.capacity(GPU), view.allocatable(GPU)), (7, 7));
}

#[tokio::test]
async fn without_pod_resources_it_stays_for_the_grace_period() {
    let directory = tempfile::tempdir().unwrap();
    let grace = Duration::from_millis(500);
    let node = Node::start_with(directory, Config::default(), None, grace).await;
    let (id, _) = node.admit("train").await;
    node.unplug(&node.board(&id)).await;
    node.until_health(&id, Some(Health::Unhealthy)).await;
    assert_eq!(node.status("train").await, Health::Unhealthy);
    node.until_health(&id, None).await;
    assert_eq!(node.kubelet.view().borrow().pod_resources_calls, 0);
}

/// What a plugin finds at the pod resources socket does not keep it from its work.
async fn harms_nothing(directory: TempDir, socket: PathBuf) {
    let grace = Duration::from_millis(500);
    let node = Node::start_with(directory, Config::default(), Some(socket), grace).await;
    let (id, _) = node.admit("train").await;
    node.start_container("train").await.unwrap();
    node.unplug(&node.board(&id)).await;
    node.until_health(&id, Some(Health::Unhealthy)).await;
    assert_ne!(node.admit("other").await.0, id);
    node.until_health(&id, None).await;
}

#[tokio::test]
async fn pod_resources_that_are_absent_harm_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("absent/kubelet.sock");
    harms_nothing(directory, socket).await;
}

#[tokio::test]
async fn pod_resources_that_refuse_harm_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a-file");
    fs::write(&socket, "not a socket").unwrap();
    harms_nothing(directory, socket).await;
}

#[tokio::test]
async fn pod_resources_that_hang_harm_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let socket = elsewhere.path().join("kubelet.sock");
    // The kernel connects; nobody ever accepts.
    let _listening = UnixListener::bind(&socket).unwrap();
    harms_nothing(directory, socket).await;
}

#[tokio::test]
async fn pod_resources_that_hang_up_harm_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let socket = elsewhere.path().join("kubelet.sock");
    let listening = UnixListener::bind(&socket).unwrap();
    let hang_up = async {
        loop {
            drop(listening.accept().await);
        }
    };
    tokio::select! {
        () = harms_nothing(directory, socket) => {}
        () = hang_up => {}
    }
}

#[tokio::test]
async fn a_held_board_that_comes_back_is_healthy_at_once() {
    let node = Node::start().await;
    let (id, _) = node.admit("train").await;
    let board = node.board(&id);
    node.unplug(&board).await;
    node.until_reason("still held").await;
    node.replug(&board).await;
    node.until_health(&id, Some(Health::Healthy)).await;
    assert_eq!(node.status("train").await, Health::Healthy);
    node.start_container("train").await.unwrap();
}

#[tokio::test]
async fn another_board_in_its_place_is_a_new_device() {
    let node = Node::start().await;
    let (id, _) = node.admit("train").await;
    let board = node.board(&id);
    node.unplug(&board).await;
    node.until_health(&id, Some(Health::Unhealthy)).await;

    node.machine.replug(&board).unwrap();
    for chip in &board.chips {
        fs::write(node.directory_of(chip.address).join("device"), "0x0009\n").unwrap();
    }
    node.look().await;
    node.until_health(&id, Some(Health::Healthy)).await;
    let error = node.start_container("train").await.unwrap_err();
    assert!(error.contains("another chip is at") && error.contains("1e3e:0009"), "{error}");

    node.kubelet.remove("train").await.unwrap();
    node.admit("anew").await;
    node.start_container("anew").await.unwrap();
}

/// Gives a chip that is there another minor number, as the driver does when it comes back.
fn renumber(root: &Path, chip: &Path, from: &str, to: &str) {
    let class = chip.join("iluvatar-sys");
    fs::rename(class.join(from), class.join(to)).unwrap();
    let uevent = class.join(to).join("uevent");
    let told = fs::read_to_string(&uevent).unwrap();
    fs::write(uevent, told.replace(&format!("DEVNAME={from}\n"), &format!("DEVNAME={to}\n")))
        .unwrap();
    fs::rename(root.join("dev").join(from), root.join("dev").join(to)).unwrap();
    let links = root.join("sys/class/iluvatar-sys");
    let target = fs::read_link(links.join(from)).unwrap();
    fs::remove_file(links.join(from)).unwrap();
    std::os::unix::fs::symlink(target.with_file_name(to), links.join(to)).unwrap();
}

#[tokio::test]
async fn a_board_that_comes_back_with_other_nodes_is_given_anew_only() {
    let node = Node::start().await;
    let (id, nodes) = node.admit("train").await;
    let board = node.board(&id);
    node.unplug(&board).await;
    node.until_health(&id, Some(Health::Unhealthy)).await;

    node.machine.replug(&board).unwrap();
    for (number, chip) in board.chips.iter().enumerate() {
        let from = chip.node.as_ref().unwrap().path.trim_start_matches("/dev/").to_owned();
        let root = node.machine.root();
        let to = format!("iluvatar{}", 40 + number);
        renumber(root.path(), &node.directory_of(chip.address), &from, &to);
    }
    node.look().await;
    node.until_health(&id, Some(Health::Healthy)).await;
    let error = node.start_container("train").await.unwrap_err();
    assert!(error.contains(&format!("was handed out as {} and is", nodes[0])), "{error}");

    node.kubelet.remove("train").await.unwrap();
    let (same, nodes) = node.admit("anew").await;
    assert_eq!(same, id);
    assert_eq!(nodes, ["/dev/iluvatar40", "/dev/iluvatar41"]);
    node.start_container("anew").await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_starts_after_a_held_board_left_lists_it() {
    let mut node = Node::start().await;
    let (id, _) = node.admit("train").await;
    let board = node.board(&id);
    // As a kill: its tasks end where they are, its socket stays.
    node.plugin = None;
    node.machine.unplug(&board).unwrap();
    node.start_plugin();
    node.until_reason("is not on the PCI bus; still held by container main").await;
    node.until(|view| view.resources[GPU].registered && view.allocatable(GPU) == 7).await;
    node.until_health(&id, Some(Health::Unhealthy)).await;
    assert_eq!(node.status("train").await, Health::Unhealthy);

    node.kubelet.remove("train").await.unwrap();
    node.until(|view| view.capacity(GPU) == 7).await;
}

#[tokio::test]
async fn a_kubelet_that_restarts_is_told_of_the_held_board_again() {
    let node = Node::start().await;
    let (id, _) = node.admit("train").await;
    node.unplug(&node.board(&id)).await;
    node.until_reason("still held").await;
    node.kubelet.restart().await.unwrap();
    node.until(|view| view.allocatable(GPU) == 7 && view.capacity(GPU) == 8).await;
    assert_eq!(node.status("train").await, Health::Unhealthy);
    node.kubelet.remove("train").await.unwrap();
    node.until_health(&id, None).await;
}

#[tokio::test]
async fn half_a_board_is_unhealthy_under_its_own_id() {
    let node = Node::start().await;
    let board = node.board("0000:13:00.0");
    let mut lower = board.clone();
    lower.chips.truncate(1);
    node.unplug(&lower).await;
    node.until_health("0000:13:00.0", Some(Health::Unhealthy)).await;
    assert_eq!(node.kubelet.view().borrow().capacity(GPU), 8);
    assert_eq!(node.board("0000:13:00.0").reasons[0].detail, "1 of 2 chips are there");
    node.replug(&lower).await;
    node.until_health("0000:13:00.0", Some(Health::Healthy)).await;
}

#[tokio::test]
async fn of_a_split_board_the_chip_that_stays_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let socket = Some(pod_resources(&directory));
    let mut config = Config::default();
    config.resources[0].granularity = Granularity::Chip;
    let node = Node::start_with(directory, config, socket, GRACE).await;
    node.until(|view| view.allocatable(GPU) == 16).await;
    let (id, _) = node.admit("train").await;

    let offer = node.plugin().offers.borrow().clone().unwrap();
    let has_chip = |board: &&Board| board.chips.iter().any(|it| it.address.to_string() == id);
    let mut part = offer.inventory.boards.iter().find(has_chip).unwrap().clone();
    part.chips.retain(|chip| chip.address.to_string() == id);
    node.unplug(&part).await;
    node.until_health(&id, Some(Health::Unhealthy)).await;
    node.until(|view| view.allocatable(GPU) == 15 && view.capacity(GPU) == 16).await;
}

#[tokio::test]
async fn allocate_names_why_a_removed_device_is_refused() {
    let node = Node::start().await;
    let (id, _) = node.admit("train").await;
    node.unplug(&node.board(&id)).await;
    node.until_reason("still held").await;

    // A kubelet asks for such a device only if the list crosses its choice.
    let socket = node.directory.path().join("iluvatar-gpu.sock");
    let channel = channel_over(UnixStream::connect(socket).await.unwrap()).await.unwrap();
    let container = ContainerAllocateRequest { devices_ids: vec![id.clone()] };
    let request = AllocateRequest { container_requests: vec![container] };
    let refused = DevicePluginClient::new(channel).allocate(request).await.unwrap_err();
    assert_eq!(
        refused.message(),
        format!(
            "iluvatar.com/gpu: device {id} is unhealthy: Removed ({id} left the PCI bus; still \
             held by container main of pod default/train)"
        )
    );
}
