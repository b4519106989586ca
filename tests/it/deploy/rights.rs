//! The rights of the base DaemonSet are enough: the image's file system, read-only; the mounts of the
//! manifest and no others; root without a capability. The plugin runs as its manifest runs it, on a
//! machine whose boards come and go by uevents of the real kernel.

use std::path::{Path, PathBuf};

use ix_device_plugin::demo::kubelet::{EmbeddedKubelet, NodeView, PodRequest, Settings};
use ix_device_plugin::demo::machine::PlayMachine;
use ix_device_plugin::host::scan::scan;
use ix_device_plugin::model::board::Board;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::machine::Machine;
use ix_device_plugin::parse::node_file::parse_node_file;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::image::Image;
use super::objects::{objects, the_daemon_set};
use super::pod;
use super::tools::text_of;
use crate::stage::{node_text, within};
use crate::support::container::Container;
use crate::support::kernel::{Chips, Kernel, in_a_network_of_its_own};
use crate::support::plugged_node::{Daemon, FOR_EVER, GPU, HINT, QUIET, healthy};

const MANIFEST: &str = "deploy/kustomize/base/daemon-set.yaml";
/// What the CDI overlay mounts too.
const CDI: &str = "/var/run/cdi";

/// Nobody may make nodes in a user namespace, so nodes that every machine has stand in for those of
/// the chips: they count as real ones, and their numbers are what the machine says.
const STAND_INS: [(&str, &str, &str, &str); 5] = [
    ("iluvatar0", "508:0", "/dev/null", "1:3"),
    ("iluvatar1", "508:1", "/dev/zero", "1:5"),
    ("iluvatar2", "508:2", "/dev/full", "1:7"),
    ("iluvatar3", "508:3", "/dev/random", "1:8"),
    ("itrctl", "507:0", "/dev/urandom", "1:9"),
];

/// A host as the manifest expects it, and a kubelet on it.
struct Node {
    host: TempDir,
    machine: PlayMachine,
    at_first: Machine,
    boards: Vec<Board>,
    kubelet: EmbeddedKubelet,
}

impl Node {
    async fn start(config: &str) -> Self {
        let text = STAND_INS
            .iter()
            .fold(node_text("mr-v100-x4"), |text, (_, ours, _, real)| text.replace(ours, real));
        let at_first = parse_node_file(&text).unwrap();
        let machine = PlayMachine::unpack(at_first.clone()).unwrap();
        let boards = scan(&machine.root(), &Config::default()).unwrap().inventory.boards;
        let host = TempDir::new().unwrap();
        for directory in ["dev", "udev", "config", "device-plugins", "pod-resources", "cdi"] {
            std::fs::create_dir(host.path().join(directory)).unwrap();
        }
        for (name, ..) in STAND_INS {
            std::fs::write(host.path().join("dev").join(name), "").unwrap();
        }
        std::fs::write(host.path().join("config/ix-config"), config).unwrap();
        let settings = Settings {
            pod_resources_socket: Some(host.path().join("pod-resources/kubelet.sock")),
            ..Settings::default()
        };
        let directory = host.path().join("device-plugins");
        let kubelet = EmbeddedKubelet::start(&directory, settings).await.unwrap();
        Self { host, machine, at_first, boards, kubelet }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    /// What this host has in the place of the paths that the manifest mounts.
    fn source(&self, path: &Path) -> PathBuf {
        match path.to_str() {
            Some("/sys") => self.machine.root().path().join("sys"),
            Some("/run/udev") => self.at("udev"),
            Some("/ixconfig") => self.at("config"),
            _ => self.at(path.file_name().unwrap().to_str().unwrap()),
        }
    }

    /// The container of the manifest.
    fn container(&self) -> Container {
        let image = Image::assembled().map(Image::into_directory);
        let container = image.map_or_else(Container::of_libraries, Container::of);
        let container = mounts_of_the_manifest().into_iter().fold(
            container,
            |container, (path, is_writable)| {
                let source = self.source(Path::new(&path));
                if is_writable {
                    container.writable(&source, &path)
                } else {
                    container.read_only(&source, &path)
                }
            },
        );
        STAND_INS.iter().fold(container, |container, (name, _, real, _)| {
            container.read_only(Path::new(real), &format!("/dev/{name}"))
        })
    }

    /// The daemon, listening, its list at the kubelet. It lives no longer than the container:
    /// with the image go its mounts.
    async fn daemon(&self, container: &Container) -> Daemon {
        let daemon = Daemon::start(container.command().args(["-v", "run"]));
        daemon.said(HINT, 1).await;
        self.sees("four boards", |view| healthy(view).len() == 4, &daemon).await;
        daemon
    }

    async fn sees(&self, what: &str, wanted: impl FnMut(&NodeView) -> bool, daemon: &Daemon) {
        let seen = tokio::time::timeout(FOR_EVER, self.kubelet.wait_for(wanted));
        assert!(seen.await.is_ok(), "never saw {what}:\n{}", daemon.log());
    }

    /// The nodes and the names that a container gets, once it was let in and started.
    async fn run_pod(&self, name: &str) -> (Vec<String>, Vec<String>) {
        let request = PodRequest::single(name, GPU, 1);
        within("an admission", self.kubelet.admit(request)).await.unwrap();
        let started = within("a start", self.kubelet.start_container(name, "main")).await.unwrap();
        let nodes = started.devices.into_iter().map(|device| device.host_path);
        (nodes.collect(), started.cdi_devices)
    }
}

/// Path in the container, and whether it can be written; what is below comes later.
fn mounts_of_the_manifest() -> Vec<(String, bool)> {
    let manifest = objects(&text_of(MANIFEST));
    let mounts = pod::mounts(the_daemon_set(&manifest));
    let mounts = mounts.into_iter().map(|(path, (mount, _))| {
        (path.to_str().unwrap().to_owned(), mount.read_only != Some(true))
    });
    mounts.collect()
}

/// What the kernel says of a process: `CapEff:` gives its effective capabilities.
fn said_of(daemon: &Daemon, key: &str) -> String {
    let status = daemon.proc("status");
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_else(|| panic!("no {key}:\n{status}")).trim().to_owned()
}

/// Mount points of a process, and whether each can be written; without those of its runtime.
fn mounts(daemon: &Daemon) -> Vec<(String, bool)> {
    let mounts = daemon.proc("mountinfo");
    let mut mounts: Vec<_> = mounts
        .lines()
        .map(|line| {
            // As proc(5): the fifth field is the mount point, the sixth its options.
            let fields: Vec<_> = line.split(' ').collect();
            (fields[4].to_owned(), fields[5].split(',').any(|option| option == "rw"))
        })
        .filter(|(path, _)| !Path::new(path).starts_with("/proc"))
        .collect();
    mounts.sort();
    mounts
}

/// Warnings and errors, without the time.
fn complaints(daemon: &Daemon) -> Vec<String> {
    let log = daemon.log();
    let lines = log.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR"));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_process_has_no_capability_and_can_write_in_one_directory_only() {
    in_a_network_of_its_own(async || {
        let node = Node::start(QUIET).await;
        let container = node.container();
        let daemon = node.daemon(&container).await;
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(said_of(&daemon, set), "0000000000000000", "{set}");
        }
        assert_eq!(said_of(&daemon, "NoNewPrivs:"), "1");
        assert_eq!(said_of(&daemon, "Uid:").split_whitespace().next(), Some("0"));
        let stand_ins = STAND_INS.iter().map(|(name, ..)| (format!("/dev/{name}"), false));
        let mut expected = mounts_of_the_manifest();
        expected.push(("/".to_owned(), false));
        expected.extend(stand_ins);
        expected.sort();
        assert_eq!(mounts(&daemon), expected);
    });
}

#[test]
fn it_registers_allocates_and_starts_containers_without_a_complaint() {
    in_a_network_of_its_own(async || {
        let node = Node::start(QUIET).await;
        let container = node.container();
        let daemon = node.daemon(&container).await;
        let (nodes, _) = node.run_pod("pod").await;
        assert_eq!(nodes, ["/dev/iluvatar3", "/dev/itrctl"]);
        assert!(node.at("device-plugins/iluvatar-gpu.allocations").exists());
        assert_eq!(complaints(&daemon), [""; 0], "{}", daemon.log());
    });
}

#[test]
fn it_follows_boards_that_come_and_go_by_uevents_alone() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (Node::start(QUIET).await, Kernel::open());
        let container = node.container();
        let daemon = node.daemon(&container).await;
        let board = &node.boards[1];
        let id = board.address.to_string();
        let chips = Chips::of(board, &node.at_first);
        for _ in 0..3 {
            node.machine.unplug(board).unwrap();
            chips.left(&kernel);
            node.sees("it gone", |view| !healthy(view).contains(&id), &daemon).await;
            node.machine.replug(board).unwrap();
            chips.came(&kernel);
            node.sees("it back", |view| healthy(view).contains(&id), &daemon).await;
        }
        assert_eq!(daemon.count("no uevents from the kernel"), 0, "{}", daemon.log());
    });
}

#[test]
fn it_is_back_after_the_kubelet_restarted_and_ends_in_good_order() {
    in_a_network_of_its_own(async || {
        let node = Node::start(QUIET).await;
        let container = node.container();
        let daemon = node.daemon(&container).await;
        let registered = |view: &NodeView| view.resources.get(GPU).map_or(0, |it| it.registrations);
        let before = registered(&node.kubelet.view().borrow());

        node.kubelet.restart().await.unwrap();

        let is_back = |view: &NodeView| registered(view) > before && healthy(view).len() == 4;
        node.sees("the list again", is_back, &daemon).await;
        node.run_pod("pod").await;
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.ends().await, Some(0));
        assert!(!node.at("device-plugins/iluvatar-gpu.sock").exists());
    });
}

#[test]
fn it_hears_from_the_kubelet_that_a_board_that_left_is_still_held() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (Node::start(QUIET).await, Kernel::open());
        let container = node.container();
        let daemon = node.daemon(&container).await;
        node.run_pod("holder").await;
        let board = &node.boards[0];
        node.machine.unplug(board).unwrap();
        Chips::of(board, &node.at_first).left(&kernel);
        daemon.said("left the PCI bus; still held by", 1).await;
    });
}

/// Configuration, with the directory of CDI specs where the overlay mounts it.
fn with_cdi() -> String {
    format!("{QUIET}cdi: {{enabled: true}}\n")
}

#[test]
fn with_the_directory_of_specs_mounted_it_writes_them_too() {
    in_a_network_of_its_own(async || {
        let node = Node::start(&with_cdi()).await;
        let container = node.container().writable(&node.at("cdi"), CDI);
        let daemon = node.daemon(&container).await;
        daemon.said("CDI spec written", 1).await;
        let (nodes, names) = node.run_pod("pod").await;
        assert_eq!((nodes, names), (vec![], vec!["iluvatar.com/gpu=0000:15:00.0".to_owned()]));
        assert_eq!(complaints(&daemon), [""; 0], "{}", daemon.log());
        let file = node.at("cdi/iluvatar.com-gpu.json");
        assert!(file.exists());
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.ends().await, Some(0));
        assert!(!file.exists());
    });
}

async fn names_what_is_wrong(node: &Node, container: &Container, why: &str) {
    let daemon = node.daemon(container).await;
    daemon.said("cannot write the CDI spec to /var/run/cdi", 1).await;
    let complaints = complaints(&daemon);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains(why), "{complaints:?}");
    assert!(complaints[0].contains("mount the host's directory there, writable"));
}

#[test]
fn a_directory_of_specs_that_is_not_mounted_or_not_writable_is_named_with_the_remedy() {
    in_a_network_of_its_own(async || {
        let node = Node::start(&with_cdi()).await;
        names_what_is_wrong(&node, &node.container(), "No such file or directory").await;
        let read_only = node.container().read_only(&node.at("cdi"), CDI);
        names_what_is_wrong(&node, &read_only, "Read-only file system").await;
        // Containers get what they need all the same.
        let daemon = node.daemon(&read_only).await;
        assert_eq!(node.run_pod("pod").await.0, ["/dev/iluvatar3", "/dev/itrctl"]);
        drop(daemon);
    });
}
