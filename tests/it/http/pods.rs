//! Which pod has which GPU: in `/status`, in the metrics, and how often the kubelet is asked for it.

use std::time::Duration;

use ix_device_plugin::decide::node::pod_resources_schedule::ADMISSION_DELAY;
use ix_device_plugin::decide::node::snapshot::NodeSnapshot;
use ix_device_plugin::demo::kubelet::NAMESPACE;
use serde_json::{Value, json};

use crate::support::clock::skip_ahead;
use crate::support::fixtures::GPU;
use crate::support::node_rig::{NodeRig, ids};
use crate::support::test_node::{ONLY_EVENTS, TestNode};

/// The default of `podResources.interval`.
const INTERVAL: Duration = Duration::from_secs(15);

async fn eight_boards(config: &str) -> NodeRig {
    let node = TestNode::fixture("bi-v150-x8").config(config).with_pod_resources().with_http();
    let node = node.start().await;
    node.plugin().until_snapshot("the first answer", |now| now.pod_devices.is_some()).await;
    node
}

/// Waits until so many devices are held, as the plugin knows it.
async fn until_held(node: &NodeRig, count: usize) {
    let is_so =
        |now: &NodeSnapshot| now.pod_devices.as_ref().is_some_and(|held| held.len() == count);
    node.plugin().until_snapshot(&format!("{count} held devices"), is_so).await;
}

/// What `/status` says of the pods of a device.
async fn pods_of(node: &NodeRig, id: &str) -> Value {
    let document: Value = serde_json::from_str(&node.asked("/status").await.text).unwrap();
    let devices = document["resources"][0]["devices"].as_array().unwrap();
    devices.iter().find(|device| device["id"] == id).unwrap()["pods"].clone()
}

fn series(id: &str, chip: &str) -> String {
    format!(
        "iluvatar_device_plugin_device_pods{{resource=\"{GPU}\",device=\"{id}\",chip=\"{chip}\",\
         namespace=\"{NAMESPACE}\",pod=\"train\",container=\"main\"}} 1.0"
    )
}

#[tokio::test]
async fn a_pod_is_named_with_its_device_until_it_ends() {
    let node = eight_boards("").await;
    let id = ids(&node.admit("train", GPU, 1).await, GPU).remove(0);
    skip_ahead(ADMISSION_DELAY).await;
    until_held(&node, 1).await;
    let pod = json!({"namespace": NAMESPACE, "pod": "train", "container": "main"});
    assert_eq!(pods_of(&node, &id).await, json!([pod]));
    assert_eq!(pods_of(&node, "0000:13:00.0").await, json!([]));
    let metrics = node.asked("/metrics").await.text;
    for chip in node.board(&id).chips {
        let series = series(&id, &chip.address.to_string());
        assert!(metrics.contains(&series), "{series}\nis not in\n{metrics}");
    }

    node.kubelet.remove("train").await.unwrap();
    skip_ahead(INTERVAL).await;
    until_held(&node, 0).await;
    assert_eq!(pods_of(&node, &id).await, json!([]));
    assert!(!node.asked("/metrics").await.text.contains("device_pods{"));
}

#[tokio::test]
async fn a_pod_is_still_named_after_its_device_left() {
    let node = eight_boards(ONLY_EVENTS).await;
    let id = ids(&node.admit("train", GPU, 1).await, GPU).remove(0);
    node.unplug(&node.board(&id)).await;
    until_held(&node, 1).await;
    assert_eq!(pods_of(&node, &id).await[0]["pod"], "train");
}

#[tokio::test]
async fn without_pod_resources_the_pods_are_unknown() {
    let node = TestNode::fixture("bi-v150-x8").with_http().start().await;
    let id = ids(&node.admit("train", GPU, 1).await, GPU).remove(0);
    assert_eq!(pods_of(&node, &id).await, Value::Null);
    assert!(!node.asked("/metrics").await.text.contains("device_pods{"));
}
