//! `/livez` and `/readyz`: what each says, and when.

use std::fs;

use ix_device_plugin::demo::kubelet::{OwnSocket, RegisterBehaviour};

use super::four_boards;
use crate::support::fixtures::GPU;
use crate::support::node_rig::{NodeRig, is_streaming};
use crate::support::test_node::TestNode;

const READY: &str = "ready\niluvatar.com/gpu: the kubelet has its list\n";
const NO_KUBELET: &str =
    "not ready\niluvatar.com/gpu: not registered: there is no kubelet on this node\n";
const LIVE: &str = "live\nthe inventory loop is making progress\n";

/// A daemon at a kubelet that behaves like this.
async fn at_a_kubelet_that(behaves: RegisterBehaviour) -> NodeRig {
    let mut stage = TestNode::fixture("mr-v100-x4").with_http().prepare().await;
    stage.kubelet.set_register_behaviour(behaves).await.unwrap();
    stage.start_plugin();
    stage
}

async fn check(stage: &NodeRig, page: &str, code: u16, text: &str) {
    let answer = stage.asked(page).await;
    assert_eq!((answer.code, &*answer.text), (code, text), "{page}");
}

#[tokio::test]
async fn it_is_ready_once_the_kubelet_has_the_list() {
    let stage = four_boards("").await;
    stage.shows("/readyz", READY).await;
    check(&stage, "/readyz", 200, READY).await;
    stage.shows("/livez", LIVE).await;
}

#[tokio::test]
async fn every_resource_must_be_with_the_kubelet() {
    const TWO: &str = "resources: [{name: a.b/one, match: {addresses: ['0000:15:00.0']}}, \
                       {name: a.b/two, match: {addresses: ['0000:2d:00.0']}}]";
    let stage = four_boards(TWO).await;
    stage
        .until("both", |view| is_streaming(view, "a.b/one") && is_streaming(view, "a.b/two"))
        .await;
    let ready = "ready\na.b/one: the kubelet has its list\na.b/two: the kubelet has its list\n";
    stage.shows("/readyz", ready).await;
}

#[tokio::test]
async fn a_refusal_is_quoted_and_it_still_lives() {
    let stage = at_a_kubelet_that(RegisterBehaviour::Refuse("not today".to_owned())).await;
    let expected = "not ready\niluvatar.com/gpu: not registered with the kubelet: cannot register: \
                    the kubelet refused: not today; trying again\n";
    stage.shows("/readyz", expected).await;
    check(&stage, "/readyz", 503, expected).await;
    stage.shows("/livez", LIVE).await;
    stage.kubelet.set_register_behaviour(RegisterBehaviour::Accept).await.unwrap();
    stage.shows("/readyz", READY).await;
}

#[tokio::test]
async fn a_kubelet_that_does_not_answer_is_missing() {
    let stage = at_a_kubelet_that(RegisterBehaviour::Hang).await;
    let expected = "not ready\niluvatar.com/gpu: not registered with the kubelet: cannot register: \
                    the kubelet did not answer within 500ms; trying again\n";
    stage.shows("/readyz", expected).await;
}

#[tokio::test]
async fn without_a_kubelet_it_is_not_ready_but_live_and_ready_once_one_has_the_list() {
    for leaves in [OwnSocket::Removed, OwnSocket::LeftBehind] {
        let stage = four_boards("").await;
        stage.kubelet.stop(leaves).await.unwrap();
        stage.shows("/readyz", NO_KUBELET).await;
        check(&stage, "/readyz", 503, NO_KUBELET).await;
        check(&stage, "/livez", 200, LIVE).await;
        stage.kubelet.restart().await.unwrap();
        stage.until("the stream", |view| is_streaming(view, GPU)).await;
        stage.shows("/readyz", READY).await;
    }
}

#[tokio::test]
async fn where_no_kubelet_was_ever_it_is_not_ready() {
    let mut stage = TestNode::fixture("mr-v100-x4").with_http().prepare().await;
    stage.kubelet.stop(OwnSocket::Removed).await.unwrap();
    stage.start_plugin();
    stage.shows("/readyz", NO_KUBELET).await;
    check(&stage, "/readyz", 503, NO_KUBELET).await;
    check(&stage, "/livez", 200, LIVE).await;
    stage.kubelet.restart().await.unwrap();
    stage.shows("/readyz", READY).await;
}

#[tokio::test]
async fn a_machine_that_cannot_be_scanned_is_named_until_it_can() {
    let mut stage = TestNode::fixture("mr-v100-x4").with_http().prepare().await;
    let (sys, away) = (stage.root().join("sys"), stage.root().join("away"));
    fs::rename(&sys, &away).unwrap();
    stage.start_plugin();
    let expected = format!(
        "not ready\nthe machine cannot be scanned: cannot read {}/bus/pci/devices: No such file \
         or directory (os error 2); is /sys mounted here?\n",
        sys.display()
    );
    stage.shows("/readyz", &expected).await;
    stage.shows("/livez", LIVE).await;
    fs::rename(&away, &sys).unwrap();
    stage.shows("/readyz", READY).await;
}
