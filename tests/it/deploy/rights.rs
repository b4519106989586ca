//! The rights of the base DaemonSet are enough: the image's file system, read-only; the mounts of the
//! manifest and no others; root without a capability; and boards that come and go all the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ix_device_plugin::host::config_file::DEFAULT_PATH;
use tempfile::TempDir;

use super::image::Image;
use super::objects::{objects, the_daemon_set};
use super::pod;
use super::tools::text_of;
use crate::support::kernel::{Kernel, in_a_network_of_its_own};
use crate::support::plugged_node::{Daemon, HINT, PluggedNode, QUIET};

const MANIFEST: &str = "deploy/kustomize/base/daemon-set.yaml";

/// Four boards whose nodes have the numbers of devices that every machine has: nobody may make nodes
/// in a namespace, but nodes that are there can be mounted under another name.
const STAND_INS: [(&str, &str, &str); 4] =
    [("0", "null", "1:3"), ("1", "zero", "1:5"), ("2", "full", "1:7"), ("3", "random", "1:8")];

fn node_with_stand_ins() -> String {
    let text = text_of("fixtures/nodes/mr-v100-x4.node");
    STAND_INS.iter().fold(text, |text, (index, _, number)| {
        let (major, minor) = number.split_once(':').unwrap();
        text.replace(
            &format!("iluvatar{index} : c 508:{index}"),
            &format!("iluvatar{index} : c {number}"),
        )
        .replace(&format!("dev = 508:{index}"), &format!("dev = {number}"))
        .replace(
            &format!("MAJOR=508\\nMINOR={index}\\n"),
            &format!("MAJOR={major}\\nMINOR={minor}\\n"),
        )
    })
}

/// The container that a runtime would make of the manifest.
struct Jail {
    image: Image,
    /// What is mounted for which path of the manifest.
    sources: BTreeMap<PathBuf, PathBuf>,
    _own: TempDir,
}

impl Jail {
    fn of(node: &PluggedNode, config: &str) -> Option<Self> {
        let image = Image::assembled()?;
        let own = TempDir::new().unwrap();
        let made = |name: &str| {
            let directory = own.path().join(name);
            fs::create_dir(&directory).unwrap();
            directory
        };
        let default = Path::new(DEFAULT_PATH);
        let configuration = made("config");
        fs::write(configuration.join(default.file_name().unwrap()), config).unwrap();
        let sources = BTreeMap::from([
            (default.parent().unwrap().to_owned(), configuration),
            (pod::defaults().kubelet_dir, node.kubelet_directory()),
            // This node has neither a udev nor a kubelet that tells of pods.
            (PathBuf::from("/run/udev"), made("udev")),
            (PathBuf::from("/var/lib/kubelet/pod-resources"), made("pod-resources")),
            (PathBuf::from("/sys"), node.root().join("sys")),
            (PathBuf::from("/dev"), node.root().join("dev")),
        ]);
        add_setpriv(image.root());
        Some(Self { image, sources, _own: own })
    }

    /// Mounts as the manifest says, then becomes the plugin, without arguments but `-v`.
    fn command(&self) -> Command {
        let root = self.image.root().display();
        let mut script = format!("set -e\nmount --bind {root} {root}\n");
        let dev = self.sources[Path::new("/dev")].display();
        for (index, name, _) in STAND_INS {
            script += &format!("mount --bind /dev/{name} {dev}/iluvatar{index}\n");
        }
        let manifest = objects(&text_of(MANIFEST));
        for (path, (mount, _)) in pod::mounts(the_daemon_set(&manifest)) {
            let source =
                self.sources.get(&path).unwrap_or_else(|| panic!("what is {}?", path.display()));
            let (source, target) = (source.display(), format!("{root}{}", path.display()));
            script += &format!("mkdir -p {target}\nmount --rbind {source} {target}\n");
            if mount.read_only == Some(true) {
                script += &format!("mount -o remount,bind,ro {target}\n");
            }
        }
        script += &format!(
            "mount --rbind /proc {root}/proc\nmount -o remount,bind,ro {root}\nexec chroot {root} \
             /usr/bin/setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all \
             /usr/bin/ix-device-plugin -v\n"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }
}

/// The program that drops the capabilities must be inside, where only the plugin's libraries are.
fn add_setpriv(root: &Path) {
    let program = Path::new("/usr/bin/setpriv");
    fs::copy(program, root.join("usr/bin/setpriv")).unwrap();
    let listed = Command::new("ldd").arg(program).output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    let library = listed.lines().find_map(|line| line.trim().strip_prefix("libcap-ng.so.0 => "));
    let library = library.and_then(|line| line.split(' ').next()).expect("Debian's setpriv has it");
    fs::copy(library, root.join("usr/lib").join(Path::new(library).file_name().unwrap())).unwrap();
}

/// The field of the process that the kernel shows in /proc.
fn status(daemon: &Daemon, field: &str) -> String {
    let status = daemon.proc("status");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap_or_else(|| panic!("no {field}")).trim_start_matches(':').trim().to_owned()
}

/// No capability, no way to one, and one place to write to.
#[track_caller]
fn check_confined(daemon: &Daemon) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(daemon, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(daemon, "NoNewPrivs"), "1");
    assert_eq!(status(daemon, "Uid"), "0\t0\t0\t0");
    let mounts = daemon.proc("mountinfo");
    let mounts = mounts.lines().map(|line| line.split(' ').collect());
    let is_writable = |mount: &Vec<&str>| mount[5].split(',').any(|option| option == "rw");
    let writable = mounts.filter(is_writable).map(|mount| mount[4].to_owned());
    // The kernel's own, and devices, which a mount does not guard.
    let is_file = |path: &String| !path.starts_with("/proc") && !path.starts_with("/dev/iluvatar");
    let expected = pod::defaults().kubelet_dir.to_str().unwrap().to_owned();
    assert_eq!(writable.filter(is_file).collect::<Vec<_>>(), [expected]);
}

#[test]
fn the_rights_of_the_daemon_set_are_enough_for_boards_that_come_and_go() {
    in_a_network_of_its_own(async || {
        let node = PluggedNode::of(&node_with_stand_ins(), "").await;
        let Some(jail) = Jail::of(&node, QUIET) else { return };
        let kernel = Kernel::open();
        let daemon = Daemon::start(&mut jail.command());
        daemon.said(HINT, 1).await;
        node.sees("every board", |healthy| healthy.len() == node.boards.len()).await;

        check_confined(&daemon);
        // It lacks nothing of which it would have to say so.
        assert_eq!(daemon.count("WARN") + daemon.count("ERROR"), 0, "{}", daemon.log());

        let board = &node.boards[2];
        node.machine.unplug(board).unwrap();
        node.chips(board).left(&kernel);
        node.sees_board(board, false).await;
    });
}
