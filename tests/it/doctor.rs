//! `doctor` as an operator runs it: its report on every shipped machine, its exit status, and what
//! only real sockets and directories can show.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use ix_device_plugin::model::doctor::check::Check;

use crate::support::binary::{Ran, files, run, stdout_of};
use crate::support::fixtures::GPU;
use crate::support::mounts::unshared;
use crate::support::node_rig::ids;
use crate::support::test_node::TestNode;

fn hold(name: &str, arguments: &[&str]) {
    let Ran { code, stdout, stderr } = run(arguments);
    assert_eq!(stderr, "", "{arguments:?}");
    let shown = format!("{stdout}[exit status {}]\n", code.expect("it ends by itself"));
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots/doctor");
    settings.bind(|| insta::assert_snapshot!(name, shown));
}

#[test]
fn every_machine_has_its_report() {
    let machines = [files("fixtures/nodes", "node"), files("fixtures/doctor", "node")].concat();
    for node in machines {
        let stem = node.file_stem().unwrap().to_string_lossy().into_owned();
        let root = ["--root", node.to_str().unwrap()];
        hold(&stem, &[&root[..], &["doctor"]].concat());
        let config = node.with_extension("yaml");
        if Path::new(env!("CARGO_MANIFEST_DIR")).join(&config).is_file() {
            let config = ["--config", config.to_str().unwrap()];
            hold(&format!("{stem}-configured"), &[&root[..], &config, &["doctor"]].concat());
        }
    }
}

#[test]
fn scripts_get_the_report_as_json() {
    let root = ["--root", "fixtures/doctor/much-is-wrong.node"];
    hold("much-is-wrong.json", &[&root[..], &["doctor", "-o", "json"]].concat());
}

/// A copy of `all-well.node` on disk, with a kubelet's live socket.
struct WellNode {
    directory: TempDir,
    listening: Vec<UnixListener>,
}

impl WellNode {
    fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let root = directory.path().to_str().expect("its path is text");
        stdout_of(&["fixture", "unpack", "fixtures/doctor/all-well.node", root]);
        let mut node = Self { directory, listening: Vec::new() };
        node.listen("var/lib/kubelet/device-plugins/kubelet.sock");
        node
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn listen(&mut self, path: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("it can be made");
        self.listening.push(UnixListener::bind(path).expect("it can be bound"));
    }

    fn with(self, path: &str, text: &str) -> Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
        self
    }

    fn run(&self, more: &[&str]) -> (Option<i32>, Value) {
        let root = ["--root", self.directory.path().to_str().expect("its path is text")];
        let Ran { code, stdout, stderr } =
            run(&[&root[..], more, &["doctor", "-o", "json"]].concat());
        assert_eq!(stderr, "");
        (code, serde_json::from_str(&stdout).expect("a document"))
    }

    /// The exit status, and level and sentence of each finding of one check.
    fn findings(&self, check: &str, more: &[&str]) -> (Option<i32>, Vec<String>) {
        let (code, report) = self.run(more);
        let of_check =
            report["checks"].as_array().expect("a list").iter().find(|it| it["name"] == check);
        let findings =
            of_check.expect("a check of this name")["findings"].as_array().expect("a list");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let shown = findings
            .iter()
            .map(|it| format!("{}: {}", text(&it["finding"]), text(&it["sentence"])));
        (code, shown.collect())
    }
}

#[track_caller]
fn check(node: &WellNode, name: &str, expected: (i32, &str)) {
    let (code, findings) = node.findings(name, &[]);
    assert_eq!((code, &*findings), (Some(expected.0), &[expected.1.to_owned()][..]));
}

#[test]
fn a_node_with_a_live_kubelet_passes_every_check() {
    let node = WellNode::new();
    let (code, report) = node.run(&[]);
    assert_eq!((code, &report["exitStatus"]), (Some(0), &Value::from(0)));
    check(
        &node,
        "kubelet-socket",
        (0, "ok: /var/lib/kubelet/device-plugins/kubelet.sock accepts connections"),
    );
}

#[tokio::test]
async fn a_pod_that_holds_a_device_that_left_is_named_by_the_kubelet() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    let id = ids(&node.admit("train", GPU, 1).await, GPU).remove(0);
    let socket = node.root().join("var/lib/kubelet/pod-resources/kubelet.sock");
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    symlink(node.pod_resources_socket(), socket).unwrap();
    let findings = async || {
        let root = node.root();
        let doctor = move || run(&["--root", root.to_str().unwrap(), "doctor", "-o", "json"]);
        // The kubelet answers in this thread.
        let Ran { stdout, .. } = tokio::task::spawn_blocking(doctor).await.unwrap();
        let report: Value = serde_json::from_str(&stdout).unwrap();
        let mut checks = report["checks"].as_array().unwrap().iter();
        checks.find(|check| check["name"] == "pods").unwrap()["findings"][0].clone()
    };
    assert_eq!(findings().await["sentence"], "pods hold 1 device, none of them unhealthy");
    node.unplug(&node.board(&id)).await;
    let sentence = format!(
        "container main of pod default/train holds {GPU} {id}, which is not on the PCI bus"
    );
    assert_eq!(findings().await["sentence"], sentence);
}

#[test]
fn a_kubelet_that_has_ended_is_known_by_its_socket() {
    let mut node = WellNode::new();
    node.listening.clear();
    let expected = "failure: /var/lib/kubelet/device-plugins/kubelet.sock refuses connections: the \
                    kubelet that made it has ended";
    check(&node, "kubelet-socket", (19, expected));
    fs::remove_dir_all(node.path("var/lib/kubelet/device-plugins")).unwrap();
    let expected = "failure: /var/lib/kubelet/device-plugins does not exist: no kubelet has run here \
                    with device plugins";
    check(&node, "kubelet-directory", (18, expected));
}

#[test]
fn a_stale_socket_is_distinguished_from_a_live_one() {
    let mut node = WellNode::new();
    node.listen("var/lib/kubelet/device-plugins/nic.sock");
    check(&node, "stale-sockets", (0, "ok: no socket is left behind"));
    node.listen("var/lib/kubelet/device-plugins/iluvatar-gpu.sock");
    drop(node.listening.pop());
    let expected = "warning: /var/lib/kubelet/device-plugins/iluvatar-gpu.sock refuses \
                    connections: the process that made it has ended; the plugin for Iluvatar GPUs is not \
                    running";
    check(&node, "stale-sockets", (24, expected));
}

#[test]
fn a_kubelet_on_another_root_is_found_by_its_sockets() {
    let mut node = WellNode::new();
    node.listen("var/lib/k0s/kubelet/pod-resources/kubelet.sock");
    let (code, findings) = node.findings("kubelet-root", &[]);
    assert_eq!(code, Some(23));
    let expected = "warning: /var/lib/k0s/kubelet has a kubelet's pod-resources socket, ";
    assert!(findings[0].starts_with(expected), "{findings:?}");
    node.listen("var/lib/kubelet/pod-resources/kubelet.sock");
    let expected = "ok: /var/lib/kubelet/pod-resources/kubelet.sock exists";
    check(&node, "kubelet-root", (0, expected));
}

#[test]
fn a_kubelet_directory_that_is_named_is_taken_as_it_is() {
    let node = WellNode::new();
    let elsewhere = node.path("elsewhere");
    let _kubelet = {
        fs::create_dir(&elsewhere).unwrap();
        UnixListener::bind(elsewhere.join("kubelet.sock")).unwrap()
    };
    let elsewhere = elsewhere.to_str().unwrap();
    let root = ["--root", "fixtures/doctor/all-well.node"];
    let stdout = stdout_of(&[&root[..], &["doctor", "--kubelet-dir", elsewhere]].concat());
    let expected = format!("{elsewhere}/kubelet.sock accepts connections");
    assert!(stdout.contains(&expected), "{stdout}");
}

#[test]
fn a_wrong_configuration_is_a_finding_and_the_other_checks_still_run() {
    let node = WellNode::new().with("config.yaml", "bords: {}\n");
    let file = node.path("config.yaml");
    let config = ["--config", file.to_str().unwrap()];
    let (code, findings) = node.findings("configuration", &config);
    assert_eq!(code, Some(10));
    assert!(findings[0].contains("bords"), "{findings:?}");
    assert_eq!(node.findings("driver", &config).1, ["ok: iluvatar 4.4.0 is loaded"]);
    let node = node.with("config.yaml", "flags: {splitboard: true}\n");
    let expected = format!("ok: {} is valid", file.display());
    assert_eq!(node.findings("configuration", &config), (Some(0), vec![expected]));
}

#[test]
fn a_machine_without_sys_is_a_finding_and_no_crash() {
    let node = WellNode::new();
    fs::remove_dir_all(node.path("sys")).unwrap();
    let (code, findings) = node.findings("sysfs", &[]);
    assert_eq!(code, Some(11));
    assert!(findings[0].contains("/sys/bus/pci/devices: No such file"), "{findings:?}");
    let skipped = "skipped: /sys could not be read";
    assert_eq!(node.findings("links", &[]).1, [skipped]);
}

#[test]
fn drop_ins_of_a_runtime_are_read() {
    let crio = "[crio.runtime]\ndefault_runtime = \"iluvatar\"\n";
    let node = WellNode::new().with("etc/crio/crio.conf.d/99-ix.conf", crio);
    let (code, findings) = node.findings("container-runtime", &[]);
    assert_eq!(code, Some(22));
    let expected = "warning: /etc/crio/crio.conf.d/99-ix.conf makes `iluvatar` the default runtime \
                    of CRI-O: ";
    assert!(findings[0].starts_with(expected), "{findings:?}");
}

/// A failure decides before a warning, though the warning's check comes first in the report.
#[test]
fn the_gravest_check_gives_the_exit_status() {
    let crio = "[crio.runtime]\ndefault_runtime = \"iluvatar\"\n";
    let node = WellNode::new().with("etc/crio/crio.conf", crio);
    fs::remove_file(node.path("sys/module/iluvatar/version")).unwrap();
    assert_eq!(node.run(&[]).0, Some(13));
    fs::remove_file(node.path("var/lib/kubelet/device-plugins/kubelet.sock")).unwrap();
    assert_eq!(node.run(&[]).0, Some(19));
}

/// In a container, /etc and /run are the image's: what they lack proves nothing.
#[test]
fn a_container_proves_nothing_of_the_node() {
    let Some(mut unshare) = unshared(&[&["--map-root-user", "--mount"]]) else { return };
    let container = "mount -t tmpfs none /etc && mount -t tmpfs none /run && \
                     touch /run/.containerenv && exec \"$0\" doctor -o json";
    let binary = env!("CARGO_BIN_EXE_ix-device-plugin");
    let output = unshare.args(["sh", "-c", container, binary]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).expect("a document");
    let sentence = |check: &str| {
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|it| it["name"] == check).unwrap();
        check["findings"][0]["sentence"].as_str().unwrap().to_owned()
    };
    for check in ["cdi-specs", "container-runtime"] {
        let expected = "a container does not show the node's /";
        assert!(sentence(check).starts_with(expected), "{}", sentence(check));
    }
    // The namespace of the fake root is one, too.
    let expected = "this is a user namespace, to which the kernel sends no uevents";
    assert!(sentence("uevents").starts_with(expected), "{}", sentence("uevents"));
}

#[test]
fn an_unreadable_file_is_distinguished_from_an_absent_one() {
    let node = WellNode::new();
    fs::create_dir_all(node.path("etc/docker/daemon.json")).unwrap();
    let expected = "note: /etc/docker/daemon.json of Docker could not be read: Is a directory (os \
                    error 21)";
    check(&node, "container-runtime", (0, expected));
    fs::remove_dir(node.path("run/cdi")).unwrap();
    let node = node.with("run/cdi", "no directory");
    let (_, findings) = node.findings("cdi-specs", &[]);
    let expected = "skipped: cannot list /var/run/cdi: Not a directory (os error 20)";
    assert_eq!(findings, [expected]);
}

/// On any machine, each check has a finding and the exit status is one of the table.
#[test]
fn this_machine_is_checked_as_it_is() {
    let Ran { code, stdout, stderr } = run(&["doctor", "-o", "json"]);
    assert_eq!(stderr, "");
    let report: Value = serde_json::from_str(&stdout).expect("a document");
    let checks = report["checks"].as_array().unwrap();
    let statuses: Vec<_> = checks.iter().map(|it| it["exitStatus"].as_i64().unwrap()).collect();
    let all: Vec<_> = Check::ALL.iter().map(|check| i64::from(check.exit_status())).collect();
    assert_eq!(statuses, all);
    assert!(checks.iter().all(|check| !check["findings"].as_array().unwrap().is_empty()));
    let code = i64::from(code.expect("it ends by itself"));
    assert!(code == 0 || statuses.contains(&code), "{code}");
    assert_eq!(report["exitStatus"], Value::from(code));
}
