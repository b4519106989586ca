//! A configuration change gives chips other ids while pods hold them: nobody else is given them.

#![expect(clippy::disallowed_methods, reason = "a test writes the configuration file itself")]

use std::fs;
use std::path::PathBuf;

use ix_device_plugin::host::config_file::ConfigSource;
use ix_device_plugin::model::health::{Health, ReasonCode};
use ix_device_plugin::model::warning::WarningCode;
use ix_device_plugin::parse::config::Overrides;
use tempfile::TempDir;

use crate::support::fixtures::GPU;
use crate::support::node_rig::{NodeRig, ids};
use crate::support::test_node::TestNode;

/// A node of two-chip boards that follows a configuration file.
struct ReconfiguredNode {
    rig: NodeRig,
    file: PathBuf,
    _directory: TempDir,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PodResourcesSocket {
    Mounted,
    Absent,
}

impl ReconfiguredNode {
    async fn start(config: &str, pod_resources: PodResourcesSocket) -> Self {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("config.yaml");
        fs::write(&file, config).unwrap();
        let source = ConfigSource::new(Some(&file), Overrides::default());
        let node = TestNode::fixture("bi-v150-x8").config_file(&source);
        let node = match pod_resources {
            PodResourcesSocket::Mounted => node.with_pod_resources(),
            PodResourcesSocket::Absent => node,
        };
        Self { rig: node.start().await, file, _directory: directory }
    }

    fn chips(&self, board: &str) -> Vec<String> {
        let board = self.rig.board(board);
        board.chips.iter().map(|chip| chip.address.to_string()).collect()
    }

    fn configure(&self, config: &str) {
        fs::write(&self.file, config).unwrap();
        self.rig.plugin().reload.notify_one();
    }
}

/// A pod holds a board while boards are split: both of its chips are withheld until it ends.
#[tokio::test]
async fn the_chips_of_a_held_board_are_given_to_nobody_until_its_pod_ends() {
    let node = ReconfiguredNode::start("", PodResourcesSocket::Mounted).await;
    let held = ids(&node.rig.admit("train", GPU, 1).await, GPU).remove(0);
    let chips = node.chips(&held);
    node.configure("flags: {splitboard: true}");
    for chip in &chips {
        node.rig.until_health(chip, Some(Health::Unhealthy)).await;
    }
    node.rig.until("every chip", |view| view.capacity(GPU) == 16).await;
    node.rig.until_healthy(14).await;
    let names_the_pod = |reason: &str| reason.contains("container main of pod default/train");
    let snapshot = node.rig.plugin().until_snapshot("the pod's name", |snapshot| {
        let mut reasons = snapshot.withheld().flat_map(|(_, device)| &device.reasons);
        reasons.all(|reason| names_the_pod(&reason.detail)) && snapshot.withheld().count() == 2
    });
    let snapshot = snapshot.await;
    let codes = snapshot.withheld().map(|(_, device)| device.reasons[0].code);
    assert_eq!(codes.collect::<Vec<_>>(), [ReasonCode::HeldByPod; 2]);
    let others = ids(&node.rig.admit("rest", GPU, 14).await, GPU);
    assert!(chips.iter().all(|chip| !others.contains(chip)), "{chips:?} in {others:?}");

    node.rig.kubelet.remove("train").await.unwrap();
    for chip in &chips {
        node.rig.until_health(chip, Some(Health::Healthy)).await;
    }
}

#[tokio::test]
async fn a_plugin_that_starts_with_another_configuration_withholds_what_is_held() {
    let mut node = ReconfiguredNode::start("", PodResourcesSocket::Mounted).await;
    let held = ids(&node.rig.admit("train", GPU, 1).await, GPU).remove(0);
    // What was allocated is in the file once its container starts.
    node.rig.start_pod("train").await.unwrap();
    node.rig.kill();
    fs::write(&node.file, "sharing: {timeSlicing: {replicas: 4}}").unwrap();
    node.rig.reconfigure("sharing: {timeSlicing: {replicas: 4}}");
    node.rig.start_again().await;
    let replica = format!("{held}::0");
    node.rig.until_health(&replica, Some(Health::Unhealthy)).await;
    node.rig.kubelet.remove("train").await.unwrap();
    node.rig.until_health(&replica, Some(Health::Healthy)).await;
}

#[tokio::test]
async fn without_pod_resources_the_change_applies_and_a_warning_names_the_chips() {
    let node = ReconfiguredNode::start("", PodResourcesSocket::Absent).await;
    let held = ids(&node.rig.admit("train", GPU, 1).await, GPU).remove(0);
    node.configure("flags: {splitboard: true}");
    node.rig.until_healthy(16).await;
    let snapshot = node.rig.plugin().snapshot().await;
    let warnings = snapshot.warnings.iter();
    let at_risk: Vec<_> = warnings
        .filter(|warning| warning.code == WarningCode::HolderUnknown)
        .map(|warning| warning.subject.to_string())
        .collect();
    assert_eq!(at_risk, node.chips(&held));
}
