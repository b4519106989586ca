//! Two instances beside each other during an update.

use std::time::Duration;

use ix_device_plugin::demo::kubelet::dra::DraNodeState;
use ix_device_plugin::model::dra::DRIVER_NAME;

use crate::support::clock::{eventually, skip_ahead};
use crate::support::dra_rig::{DraRig, NODE, stop};

const FIXTURE: &str = "bi-v150-x8";

#[tokio::test]
async fn during_an_update_a_driver_is_always_registered_and_claims_stay_known() {
    let mut rig = DraRig::start(FIXTURE, "").await;
    let claim = rig.allocate("one", &[0]);
    rig.runs("pod", &claim).await;
    let old = rig.plugin.take().unwrap();
    let mut seen = rig.kubelet.state();
    rig.plugin = Some(rig.another_plugin("2"));
    rig.until("both instances", |state| state.drivers.len() == 2).await;
    // The new instance knows what the old one prepared.
    let other = rig.allocate("two", &[0]);
    rig.until("both connections", |state| state.connections == 2).await;
    let error = rig.run("other", &other).await.unwrap_err();
    assert!(error.contains("is held by claim default/one"), "{error}");
    seen.mark_unchanged();
    stop(old).await;
    rig.until("one instance", |state| state.drivers.len() == 1).await;
    assert!(rig.kubelet.state().borrow().is_connected(DRIVER_NAME));
    rig.kubelet.end_pod("pod").await.unwrap();
    assert_eq!(rig.runs("other", &other).await, rig.cdi_names(0));
}

/// A kubelet forgets the health of a driver's devices when the stream of any of its instances ends.
#[tokio::test]
async fn health_that_the_end_of_the_old_instance_took_along_is_reported_again() {
    let mut rig = DraRig::start(FIXTURE, "").await;
    let device = rig.device(0);
    let old = rig.plugin.take().unwrap();
    rig.plugin = Some(rig.another_plugin("2"));
    rig.until("both connections", |state| state.connections == 2).await;
    rig.until("a health list of each", |state| state.health_lists >= 2).await;
    stop(old).await;
    rig.until("one instance", |state| state.drivers.len() == 1).await;
    skip_ahead(Duration::from_secs(10)).await;
    let is_healthy =
        |state: &DraNodeState| state.health_of(DRIVER_NAME, NODE, &device).0 == "Healthy";
    rig.until("its health", is_healthy).await;
}

#[tokio::test]
async fn an_update_that_fails_leaves_the_old_instance_serving() {
    let rig = DraRig::start(FIXTURE, "").await;
    let new = rig.another_plugin("2");
    rig.until("both instances", |state| state.drivers.len() == 2).await;
    // It dies without removing its sockets.
    drop(new);
    rig.until("one connection", |state| {
        state.drivers.values().filter(|driver| driver.channel.is_some()).count() == 1
    })
    .await;
    let claim = rig.allocate("one", &[0]);
    assert_eq!(rig.runs("pod", &claim).await, rig.cdi_names(0));
}

#[tokio::test]
async fn without_pod_uids_the_newer_instance_takes_over_and_the_older_one_is_not_in_its_way() {
    let mut rig = DraRig::new(FIXTURE, "");
    let old = rig.plugin_named(None);
    rig.until_connected().await;
    rig.plugin = Some(rig.plugin_named(None));
    let socket = rig.registry().join("gpu.iluvatar.com-reg.sock");
    rig.until("another registration", |state| state.registrations == 2).await;
    stop(old).await;
    assert!(socket.exists());
    rig.until_connected().await;
    let claim = rig.allocate("one", &[0]);
    let names = eventually("an answer", async || rig.run("pod", &claim).await.ok()).await;
    assert_eq!(names, rig.cdi_names(0));
}
