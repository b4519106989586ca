//! `container.verifyOnStart`: what it gives and what it costs while the plugin is down.

use std::fs;
use std::path::PathBuf;

use ix_device_plugin::demo::kubelet::NodeView;
use ix_device_plugin::host::config_file::ConfigSource;
use ix_device_plugin::model::config::ContainerRules;
use ix_device_plugin::parse::config::Overrides;
use tempfile::TempDir;

use crate::support::fixtures::GPU;
use crate::support::node_rig::{NodeRig, is_streaming};
use crate::support::test_node::TestNode;

const OFF: &str = "container: {verifyOnStart: false}";

/// A node that follows a configuration file, and a pod that was admitted and has started.
struct PodRig {
    rig: NodeRig,
    file: PathBuf,
    nodes: Vec<String>,
    _directory: TempDir,
}

impl PodRig {
    async fn with_a_pod(config: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("config.yaml");
        fs::write(&file, config).unwrap();
        let source = ConfigSource::new(Some(&file), Overrides::default());
        let rig = TestNode::fixture("mr-v100-x4").config_file(&source).start().await;
        rig.admit("train", GPU, 1).await;
        let nodes = rig.start_pod("train").await.unwrap();
        Self { rig, file, nodes, _directory: directory }
    }

    /// Waits until the kubelet has registered the resource so often.
    async fn registered(&self, times: u64) {
        let is_registered =
            |view: &NodeView| view.resources[GPU].registrations == times && is_streaming(view, GPU);
        self.rig.until("another registration", is_registered).await;
    }

    async fn configure(&self, config: &str, registrations: u64) {
        fs::write(&self.file, config).unwrap();
        self.rig.plugin().reload.notify_one();
        self.registered(registrations).await;
    }
}

#[tokio::test]
async fn by_default_no_container_starts_while_the_plugin_is_down_and_all_do_once_it_is_back() {
    let mut node = PodRig::with_a_pod("").await;
    node.rig.kill();
    node.rig.start_pod("train").await.unwrap_err();
    node.rig.start_again().await;
    assert_eq!(node.rig.start_pod("train").await.unwrap(), node.nodes);
}

#[tokio::test]
async fn without_verification_containers_start_while_the_plugin_is_down() {
    let mut node = PodRig::with_a_pod(OFF).await;
    node.rig.kill();
    assert_eq!(node.rig.start_pod("train").await.unwrap(), node.nodes);
}

#[tokio::test]
async fn a_change_is_registered_anew_in_both_directions_and_no_other_change_is() {
    let mut node = PodRig::with_a_pod("").await;
    node.configure(OFF, 2).await;
    assert_eq!(node.rig.start_pod("train").await.unwrap(), node.nodes);
    node.configure("", 3).await;
    fs::write(&node.file, "container: {visibleDevices: void}").unwrap();
    node.rig.plugin().reload.notify_one();
    node.rig
        .plugin()
        .until_snapshot("the change", |it| it.container != ContainerRules::default())
        .await;
    node.registered(3).await;
    node.rig.kill();
    node.rig.start_pod("train").await.unwrap_err();
}
