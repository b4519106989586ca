//! How the kubelet learns of the driver.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ix_device_plugin::demo::kubelet::dra::{DraNodeState, RegistrationFault};
use ix_device_plugin::host::directory_watch::DirectoryWatch;
use ix_device_plugin::model::dra::DRIVER_NAME;

use crate::support::clock::soon;
use crate::support::dra_rig::DraRig;

const FIXTURE: &str = "bi-v150-x8";

/// The sockets in a directory, with their inodes.
fn sockets(directory: &Path) -> BTreeMap<PathBuf, u64> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let sockets = entries.filter(|path| path.extension().is_some_and(|it| it == "sock"));
    sockets.map(|path| (path.clone(), fs::metadata(path).unwrap().ino())).collect()
}

fn both(rig: &DraRig) -> [BTreeMap<PathBuf, u64>; 2] {
    [sockets(&rig.directory()), sockets(&rig.registry())]
}

#[tokio::test]
async fn the_kubelet_finds_the_driver_with_its_versions_in_their_order() {
    let rig = DraRig::start(FIXTURE, "").await;
    let state = rig.kubelet.state();
    let state = state.borrow();
    let (socket, driver) = state.drivers.first_key_value().unwrap();
    assert_eq!(*socket, rig.registry().join("gpu.iluvatar.com-1-reg.sock"));
    assert_eq!(driver.endpoint, rig.directory().join("dra-1.sock"));
    assert_eq!(
        driver.versions,
        ["v1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"]
    );
}

#[tokio::test]
async fn a_kubelet_that_restarts_registers_the_driver_again_and_the_driver_does_nothing() {
    let mut rig = DraRig::start(FIXTURE, "").await;
    let before = both(&rig);
    for registrations in 2..5 {
        rig.kubelet.stop();
        rig.kubelet.restart().unwrap();
        rig.until("another registration", |state| state.registrations == registrations).await;
        rig.until_connected().await;
    }
    assert_eq!(both(&rig), before);
    assert_eq!(before.map(|sockets| sockets.len()), [1, 1]);
}

#[tokio::test]
async fn a_plugin_that_restarts_is_registered_again_and_leaves_no_socket_when_it_ends() {
    let mut rig = DraRig::start(FIXTURE, "").await;
    rig.kill();
    rig.until("the end", |state| !state.is_connected(DRIVER_NAME)).await;
    let rig_again = rig.started().await;
    let mut rig = rig_again;
    rig.until("a second registration", |state| state.registrations == 2).await;
    rig.stop().await;
    assert_eq!(both(&rig), [BTreeMap::new(), BTreeMap::new()]);
    rig.until("no driver", |state| !state.is_registered(DRIVER_NAME)).await;
    let rig = rig.started().await;
    rig.until("a third registration", |state| state.registrations == 3).await;
}

#[tokio::test]
async fn a_driver_is_registered_after_attempts_that_failed() {
    for fault in [RegistrationFault::GetInfo, RegistrationFault::Notify] {
        let rig = DraRig::new(FIXTURE, "");
        rig.kubelet.fail_registrations([fault.clone(), fault]);
        let rig = rig.started().await;
        let is_third = |state: &DraNodeState| state.attempts >= 3 && state.registrations >= 1;
        rig.until("the third attempt", is_third).await;
    }
}

#[tokio::test]
async fn a_refused_driver_tries_another_socket_name_and_the_kubelets_long_wait_ends() {
    let rig = DraRig::with(FIXTURE, "", |settings| {
        settings.deadlines.first_backoff = settings.deadlines.longest_backoff * 1000;
        settings.deadlines.longest_backoff = settings.deadlines.first_backoff;
    });
    rig.kubelet.fail_registrations([RegistrationFault::Refused("try later".to_owned())]);
    let rig = rig.started().await;
    let names: Vec<_> = sockets(&rig.registry()).into_keys().collect();
    assert_eq!(names, [rig.registry().join("gpu.iluvatar.com-1-1-reg.sock")]);
    rig.until("the next attempt", |state| state.attempts == 2).await;
}

#[tokio::test]
async fn a_socket_that_somebody_removes_is_put_back() {
    let rig = DraRig::start(FIXTURE, "").await;
    for (directory, registrations) in [(rig.registry(), 2), (rig.directory(), 2)] {
        let watch = DirectoryWatch::open(&directory).unwrap();
        let path = sockets(&directory).into_keys().next().unwrap();
        fs::remove_file(&path).unwrap();
        let is_back = async {
            while !path.exists() {
                watch.changed().await.unwrap();
            }
        };
        soon("the socket", is_back).await;
        rig.until("a registration", |it| it.registrations == registrations).await;
        rig.until_connected().await;
    }
}

#[tokio::test]
async fn slices_are_deleted_when_a_kubelet_starts_and_when_a_driver_stays_away() {
    let wipes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&wipes);
    let rig = DraRig::with(FIXTURE, "", |settings| {
        settings.wipe = Arc::new(move || match counted.fetch_add(1, Ordering::Relaxed) {
            0 => Err("the API server is away".to_owned()),
            _ => Ok(()),
        });
    });
    rig.until("the first deletion", |state| state.wipes == 1).await;
    let mut rig = rig.started().await;
    rig.kubelet.stop();
    rig.kubelet.restart().unwrap();
    rig.until_connected().await;
    rig.until("the deletion of the restart", |state| state.wipes == 2).await;
    rig.kill();
    rig.until("the deletion after the delay", |state| state.wipes == 3).await;
    assert_eq!(wipes.load(Ordering::Relaxed), 4);
}
