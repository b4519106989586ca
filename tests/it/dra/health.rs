//! The health of devices, as it reaches the status of pods.

use std::time::Duration;

use ix_device_plugin::demo::kubelet::dra::{DraNodeState, DraPodSpec, HealthService};
use ix_device_plugin::model::dra::DRIVER_NAME;
use ix_device_plugin::model::dra::claim::AllocatedDevice;

use crate::support::clock::{skip_ahead, soon};
use crate::support::dra_rig::{DraRig, NODE, result};

const FIXTURE: &str = "bi-v150-x8";

fn health(state: &DraNodeState, device: &str) -> (&'static str, String) {
    state.health_of(DRIVER_NAME, NODE, device)
}

async fn until_health(rig: &DraRig, device: &str, wanted: &str) {
    rig.until(wanted, |state| health(state, device).0 == wanted).await;
}

#[tokio::test]
async fn a_change_reaches_the_status_of_the_pod_with_its_reason_in_either_version() {
    for version in [HealthService::Alpha, HealthService::Listed] {
        let rig = DraRig::with(FIXTURE, "", |settings| settings.health = version);
        let rig = rig.started().await;
        let claim = rig.allocate("one", &[0]);
        rig.runs("pod", &claim).await;
        let device = rig.device(0);
        until_health(&rig, &device, "Healthy").await;
        rig.machine.unplug(&rig.boards[0]).unwrap();
        rig.rescan().await;
        until_health(&rig, &device, "Unhealthy").await;
        let state = rig.kubelet.state();
        let status = state.borrow().allocated_status(&DraPodSpec::single("pod", &claim));
        assert_eq!((&*status[0].name, status[0].health), ("claim:one", "Unhealthy"));
        assert_eq!(status[0].resource_id, rig.cdi_names(0)[0]);
        assert!(status[0].message.contains("remedy: "), "{}", status[0].message);
        rig.machine.replug(&rig.boards[0]).unwrap();
        rig.rescan().await;
        until_health(&rig, &device, "Healthy").await;
    }
}

#[tokio::test]
async fn a_plugin_that_stops_leaves_the_health_unknown_until_the_next_one_reports_it() {
    let mut rig = DraRig::start(FIXTURE, "").await;
    let device = rig.device(0);
    until_health(&rig, &device, "Healthy").await;
    rig.stop().await;
    until_health(&rig, &device, "Unknown").await;
    let rig = rig.started().await;
    until_health(&rig, &device, "Healthy").await;
}

#[tokio::test]
async fn the_list_is_sent_again_every_ten_seconds_although_nothing_changed() {
    let rig = DraRig::start(FIXTURE, "").await;
    rig.until("the first list", |state| state.health_lists > 0).await;
    let before = rig.kubelet.state().borrow().health_lists;
    for _ in 0..3 {
        skip_ahead(Duration::from_secs(10)).await;
        soon("a moment", tokio::task::yield_now()).await;
    }
    rig.until("the list again", |state| state.health_lists > before).await;
    let device = rig.device(0);
    until_health(&rig, &device, "Healthy").await;
}

#[tokio::test]
async fn the_kubelet_connects_again_after_its_connection_was_cut() {
    let mut rig = DraRig::start(FIXTURE, "").await;
    let device = rig.device(0);
    until_health(&rig, &device, "Healthy").await;
    // A service socket that is put back has lost its connections.
    let socket = rig.directory().join("dra-1.sock");
    std::fs::remove_file(socket).unwrap();
    rig.until("another connection", |state| state.connections == 2).await;
    rig.until_connected().await;
    until_health(&rig, &device, "Healthy").await;
    assert_eq!(rig.kubelet.state().borrow().registrations, 1);
    rig.kill();
}

#[tokio::test]
async fn claims_that_share_a_device_see_its_health_and_get_their_share_ids_back() {
    let rig = DraRig::start(FIXTURE, "dra: {slots: 2}\n").await;
    let device = rig.device(0);
    let mut pods = Vec::new();
    for name in ["one", "two"] {
        let share =
            AllocatedDevice { share_id: Some(format!("share-{name}")), ..result("gpu", &device) };
        let claim = rig.claim(name, &format!("uid-{name}"), vec![share]);
        assert_eq!(rig.runs(name, &claim).await, rig.cdi_names(0));
        pods.push((name, DraPodSpec::single(name, &claim), claim));
    }
    until_health(&rig, &device, "Healthy").await;
    let state = rig.kubelet.state();
    let state = state.borrow();
    for (name, pod, claim) in pods {
        assert_eq!(state.allocated_status(&pod)[0].health, "Healthy");
        let share = &state.claims[&claim].devices[DRIVER_NAME][0].share_id;
        assert_eq!(*share, Some(format!("share-{name}")));
    }
}
