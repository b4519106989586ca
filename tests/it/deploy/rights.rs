//! The rights of the base DaemonSet are enough: the image's file system, read-only; the mounts of the
//! manifest and no others; root without a capability. The plugin runs as its manifest runs it, on a
//! machine whose boards come and go by uevents of the real kernel.

use std::path::{Path, PathBuf};

use ix_device_plugin::demo::kubelet::NodeView;
use nix::sys::signal::Signal;

use super::image::Image;
use super::objects::{objects, the_daemon_set};
use super::pod;
use super::tools::text_of;
use crate::support::clock::{eventually, soon};
use crate::support::container::Container;
use crate::support::fixtures::{GPU, node_text};
use crate::support::kernel::{Kernel, in_a_network_of_its_own};
use crate::support::node_rig::{NodeRig, healthy};
use crate::support::process::PluginProcess;
use crate::support::test_node::{ONLY_EVENTS, TestNode};

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
struct ManifestHost(NodeRig);

impl ManifestHost {
    async fn start(config: &str) -> Self {
        let text = STAND_INS
            .iter()
            .fold(node_text("mr-v100-x4"), |text, (_, ours, _, real)| text.replace(ours, real));
        let rig = TestNode::new(&text).prepare().await;
        for directory in ["dev", "udev", "config", "cdi"] {
            std::fs::create_dir(rig.at(directory)).unwrap();
        }
        for (name, ..) in STAND_INS {
            std::fs::write(rig.at("dev").join(name), "").unwrap();
        }
        std::fs::write(rig.at("config/ix-config"), config).unwrap();
        Self(rig)
    }

    /// What this host has in the place of the paths that the manifest mounts.
    fn source(&self, path: &Path) -> PathBuf {
        match path.to_str() {
            Some("/sys") => self.0.root().join("sys"),
            Some("/run/udev") => self.0.at("udev"),
            Some("/ixconfig") => self.0.at("config"),
            _ => self.0.at(path.file_name().unwrap().to_str().unwrap()),
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

    /// The plugin, which receives uevents and whose list the kubelet has. It lives no longer than the
    /// container: with the image go its mounts.
    async fn process(&self, container: &Container) -> PluginProcess {
        let command = &mut container.command();
        let process = PluginProcess::start(command.args(["--log-format", "json", "run"]));
        process.counts("source_up", "netlink", 1).await;
        self.0.until_healthy(4).await;
        process
    }

    /// The nodes and the names that a container gets, once it was let in and started.
    async fn run_pod(&self, name: &str) -> (Vec<String>, Vec<String>) {
        self.0.admit(name, GPU, 1).await;
        let started = self.0.kubelet.start_container(name, "main");
        let started = soon("a start", started).await.unwrap();
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
fn said_of(daemon: &PluginProcess, key: &str) -> String {
    let status = daemon.proc("status");
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_else(|| panic!("no {key}:\n{status}")).trim().to_owned()
}

/// Mount points of a process, and whether each can be written; without those of its runtime.
fn mounts(daemon: &PluginProcess) -> Vec<(String, bool)> {
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

#[test]
fn the_process_has_no_capability_and_can_write_in_one_directory_only() {
    in_a_network_of_its_own(async || {
        let node = ManifestHost::start(ONLY_EVENTS).await;
        let container = node.container();
        let daemon = node.process(&container).await;
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
        let node = ManifestHost::start(ONLY_EVENTS).await;
        let container = node.container();
        let daemon = node.process(&container).await;
        let (nodes, _) = node.run_pod("pod").await;
        assert_eq!(nodes, ["/dev/iluvatar3", "/dev/itrctl"]);
        assert!(node.0.at("device-plugins/iluvatar-gpu.allocations").exists());
        assert!(daemon.warnings().is_empty(), "{:#?}", daemon.log());
    });
}

#[test]
fn it_follows_boards_that_come_and_go_by_uevents_alone() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (ManifestHost::start(ONLY_EVENTS).await, Kernel::open());
        let container = node.container();
        let daemon = node.process(&container).await;
        let (rig, board) = (&node.0, &node.0.boards[1]);
        for _ in 0..3 {
            rig.machine.unplug(board).unwrap();
            rig.chips(board).left(&kernel);
            rig.until_board(board, false).await;
            rig.machine.replug(board).unwrap();
            rig.chips(board).came(&kernel);
            rig.until_board(board, true).await;
        }
        assert_eq!(daemon.metric("source_up", "netlink").await, 1);
    });
}

#[test]
fn it_is_back_after_the_kubelet_restarted_and_ends_in_good_order() {
    in_a_network_of_its_own(async || {
        let node = ManifestHost::start(ONLY_EVENTS).await;
        let container = node.container();
        let mut daemon = node.process(&container).await;
        let registered = |view: &NodeView| view.resources.get(GPU).map_or(0, |it| it.registrations);
        let before = registered(&node.0.kubelet.view().borrow());

        node.0.kubelet.restart().await.unwrap();

        let is_back = |view: &NodeView| registered(view) > before && healthy(view).count() == 4;
        node.0.until("the list again", is_back).await;
        node.run_pod("pod").await;
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.ends().await, Some(0));
        assert!(!node.0.at("device-plugins/iluvatar-gpu.sock").exists());
    });
}

#[test]
fn the_kubelet_reports_that_a_removed_board_is_still_held() {
    in_a_network_of_its_own(async || {
        let (node, kernel) = (ManifestHost::start(ONLY_EVENTS).await, Kernel::open());
        let container = node.container();
        let daemon = node.process(&container).await;
        node.run_pod("holder").await;
        let (rig, board) = (&node.0, &node.0.boards[0]);
        rig.machine.unplug(board).unwrap();
        rig.chips(board).left(&kernel);
        let held = "still held by container main of pod default/holder";
        daemon.until_status(held, |status| status.to_string().contains(held)).await;
    });
}

/// Configuration, with the directory of CDI specs where the overlay mounts it.
fn with_cdi() -> String {
    format!("{ONLY_EVENTS}cdi: {{enabled: true}}\n")
}

#[test]
fn with_the_directory_of_specs_mounted_it_writes_them_too() {
    in_a_network_of_its_own(async || {
        let node = ManifestHost::start(&with_cdi()).await;
        let container = node.container().writable(&node.0.at("cdi"), CDI);
        let mut daemon = node.process(&container).await;
        let file = node.0.at("cdi/iluvatar.com-gpu.json");
        eventually("the spec", async || file.exists().then_some(())).await;
        daemon.event("the spec", |event| event["event"] == "CdiSpecWritten").await;
        let (nodes, names) = node.run_pod("pod").await;
        assert_eq!((nodes, names), (vec![], vec!["iluvatar.com/gpu=0000:15:00.0".to_owned()]));
        assert!(daemon.warnings().is_empty(), "{:#?}", daemon.log());
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.ends().await, Some(0));
        assert!(!file.exists());
    });
}

async fn names_what_is_wrong(node: &ManifestHost, container: &Container, why: &str) {
    let daemon = node.process(container).await;
    let warning = daemon.warning().await["message"].as_str().unwrap().to_owned();
    assert_eq!(daemon.warnings().len(), 1, "{:#?}", daemon.log());
    assert!(warning.starts_with("cannot write the CDI spec to /var/run/cdi"), "{warning}");
    assert!(warning.contains(why), "{warning}");
    assert!(warning.contains("mount the host's directory there, writable"), "{warning}");
}

#[test]
fn a_directory_of_specs_that_is_not_mounted_or_not_writable_is_named_with_the_remedy() {
    in_a_network_of_its_own(async || {
        let node = ManifestHost::start(&with_cdi()).await;
        names_what_is_wrong(&node, &node.container(), "No such file or directory").await;
        let read_only = node.container().read_only(&node.0.at("cdi"), CDI);
        names_what_is_wrong(&node, &read_only, "Read-only file system").await;
        // Containers get what they need all the same.
        let daemon = node.process(&read_only).await;
        assert_eq!(node.run_pod("pod").await.0, ["/dev/iluvatar3", "/dev/itrctl"]);
        drop(daemon);
    });
}
