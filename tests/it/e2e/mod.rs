//! `make e2e`: what it installs is what Kubernetes reads, its scripts work on a machine, and each of its
//! checks fails when the cluster, here a simulated one, answers wrongly.

mod cluster;
mod pods;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde::Deserialize as _;
use serde_yaml::Value;

use self::cluster::{Cluster, script};
use crate::deploy::objects::{only, strict, the_daemon_set};
use crate::deploy::pod;
use crate::deploy::tools::Tool;
use crate::support::binary::{Ran, ran};

/// What `--dry-run` prints, and the same as YAML documents.
fn dry_run() -> Option<(String, Vec<Value>)> {
    let kubectl = Tool::named("kubectl")?;
    let mut run = script("run");
    run.env("KUBECTL", kubectl.path()).env("E2E_RUN", "ix-e2e-dry-run").arg("--dry-run");
    let Ran { code, stdout, stderr } = ran(&run.output().unwrap());
    assert_eq!((code, &*stderr), (Some(0), ""));
    let documents = serde_yaml::Deserializer::from_str(&stdout);
    let values = documents.map(|one| Value::deserialize(one).unwrap());
    let values = values.filter(|value| !value.is_null()).collect();
    Some((stdout, values))
}

fn of_kind(kind: &str, documents: &[Value]) -> Vec<Value> {
    documents.iter().filter(|one| one["kind"].as_str() == Some(kind)).cloned().collect()
}

#[test]
fn the_help_says_what_it_needs_and_what_it_leaves() {
    let Ran { code, stdout, stderr } = ran(&script("run").arg("--help").output().unwrap());
    assert_eq!((code, &*stderr), (Some(0), ""));
    insta::assert_snapshot!(stdout);
}

#[test]
fn an_unknown_argument_and_a_missing_image_are_refused_before_anything_is_made() {
    for arguments in [&["--dryrun"][..], &[]] {
        let cluster = Cluster::new();
        let Ran { code, stdout, stderr } =
            ran(&cluster.run("").env_remove("IMAGE").args(arguments).output().unwrap());
        assert_eq!((code, &*stdout), (Some(2), ""), "{stderr}");
        assert!(stderr.starts_with("error: "), "{stderr}");
        assert_eq!(cluster.calls(), "");
    }
}

#[test]
fn a_dry_run_prints_steps_and_manifests_that_kubernetes_reads() {
    let Some((text, documents)) = dry_run() else { return };
    let steps = text.split_once("# Steps:").unwrap().1;
    assert_eq!(steps.matches("\n#   ").count(), 26, "{steps}");
    only(of_kind("Namespace", &documents).into_iter().map(|one| strict::<Namespace>(one).unwrap()));
    let pods = of_kind("Pod", &documents);
    let pods = pods.into_iter().map(|one| strict::<Pod>(one).unwrap());
    let names: Vec<_> = pods.map(|pod| pod.metadata.name.unwrap()).collect();
    assert_eq!(names, ["helper", "pod-1"]);
    for namespaced in documents.iter().filter(|one| one["kind"].as_str() != Some("Namespace")) {
        assert_eq!(namespaced["metadata"]["namespace"].as_str(), Some("ix-e2e-dry-run"));
    }
}

#[test]
fn the_plugin_is_installed_as_it_is_shipped_but_for_image_node_and_machine() {
    let Some((_, documents)) = dry_run() else { return };
    let Some(base) = crate::deploy::kustomize::built("deploy/kustomize/base") else { return };
    for installed in of_kind("DaemonSet", &documents) {
        let installed = strict::<k8s_openapi::api::apps::v1::DaemonSet>(installed).unwrap();
        let shipped = the_daemon_set(&base);
        let mut container = pod::container(&installed).clone();
        let expected = pod::container(shipped);
        let added: Vec<_> = container.env.iter().flatten().map(|one| one.name.clone()).collect();
        assert!(added.contains(&"IX_ROOT".to_owned()), "{added:?}");
        container.env.clone_from(&expected.env);
        let mounts = container.volume_mounts.iter_mut();
        mounts.for_each(|mounts| mounts.retain(|mount| mount.name != "machine"));
        assert_eq!(&container, expected);
    }
}

#[test]
fn on_a_cluster_that_works_every_check_passes_and_everything_is_removed() {
    let cluster = Cluster::new();
    let report = cluster.report("", 0);
    assert!(report.ends_with("28 checks: 28 passed, 0 failed\n"), "{report}");
    assert_eq!(cluster.left(), [""; 0]);
}

/// The sentences of the checks that failed.
fn failed(report: &str) -> Vec<&str> {
    report.lines().filter_map(|line| line.strip_prefix("  FAIL  ")).collect()
}

/// With these faults just these checks fail, and the report has these explanations.
#[track_caller]
fn fails(faults: &str, sentences: &[&str], explanations: &[&str]) {
    let cluster = Cluster::new();
    let report = cluster.report(faults, 1);
    assert_eq!(failed(&report), sentences, "{faults}:\n{report}");
    for explanation in explanations {
        assert!(report.contains(explanation), "{explanation}:\n{report}");
    }
}

#[test]
fn a_wrong_answer_of_the_node_fails_the_check_that_asks_for_it() {
    let sentences = [
        "the board of a running pod leaves: allocatable 7",
        "its pod ends: capacity 7",
        "time-slicing: capacity 32, allocatable without the board in use 28",
        "split-board: capacity 16, allocatable without the chips in use 14",
    ];
    let explanations = ["are 8 8, not 8 7", "are 8 8, not 7 7", "are 8 8, not 32 28", "not 16 14"];
    fails("removed-board-stays overlay-is-ignored", &sentences, &explanations);
}

#[test]
fn a_wrong_answer_of_the_plugin_fails_the_check_that_asks_for_it() {
    let sentences = [
        "status names the pod that holds it (PodResources)",
        "a pod of 2 replicas is refused",
        "a configuration with an error changes nothing",
        "the metrics show devices, stream, configuration and PodResources",
    ];
    let explanations = [
        "no line of status matches",
        "pod two-replicas is Running",
        "config_current is 1.0, not 0",
        "health=\"healthy\"} is .0, not 8",
    ];
    fails(
        "no-holder two-replicas-run wrong-configuration-counts no-metrics",
        &sentences,
        &explanations,
    );
}

const KILLED: &str = "the plugin is killed and returns: the running pod is untouched";

#[test]
fn a_disturbed_pod_fails_the_update_and_the_kill() {
    let sentences = ["rolling update: the running pod is untouched", KILLED];
    let disturbed = "the pod that ran before is not as it was: Running containerd://keep 1";
    fails("container-restarts-2-0 container-restarts-2-1", &sentences, &[disturbed]);
}

#[test]
fn a_plugin_that_stays_away_and_what_stays_behind_fail_the_run() {
    let sentences = [KILLED, "the node is as before", "the namespace is removed"];
    let explanations = [
        "the killed plugin has restarted 0 times",
        "node node-1 is not cleaned",
        "still there: namespace/",
    ];
    fails("plugin-stays-dead node-stays-dirty namespace-stays", &sentences, &explanations);
}

#[test]
fn without_the_helper_pod_the_run_ends_and_cleans_up() {
    let cluster = Cluster::new();
    let report = cluster.report("image-is-missing", 1);
    assert!(report.contains("pod helper is Pending"), "{report}");
    assert!(!report.contains("the kustomize base installs"), "{report}");
    assert_eq!(cluster.left(), [""; 0]);
}

#[test]
fn a_cluster_that_must_not_be_touched_is_refused_before_anything_is_made() {
    for (fault, message) in [
        ("no-cluster", "error: the cluster does not answer: The connection"),
        ("two-nodes", "error: the cluster has several nodes; choose one with NODE=: node-1 node-2"),
        ("plugin-is-there", "error: the cluster already runs the plugin: kube-system/"),
    ] {
        let cluster = Cluster::new();
        let Ran { code, stderr, .. } = ran(&cluster.run(fault).output().unwrap());
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.starts_with(message), "{stderr}");
        assert!(!cluster.calls().contains("create"), "{}", cluster.calls());
    }
}

#[test]
fn a_signal_in_the_middle_removes_everything() {
    for (signal, code) in [(nix::sys::signal::SIGINT, 130), (nix::sys::signal::SIGTERM, 143)] {
        let cluster = Cluster::new();
        assert_eq!(cluster.interrupted(signal), Some(code));
        assert_eq!(cluster.left(), [""; 0]);
        assert!(cluster.calls().contains("/e2e/node.sh clean"), "{}", cluster.calls());
    }
}
