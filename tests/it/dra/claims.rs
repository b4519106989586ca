//! Claims of pods: prepared, prepared again, refused, unprepared.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ix_device_plugin::daemon::dra_registration_service::DraRegistrationService;
use ix_device_plugin::daemon::socket_server::SocketServer;
use ix_device_plugin::demo::kubelet::dra::{DraContainer, DraPodSpec, RepeatedPrepare};
use ix_device_plugin::model::dra::DRIVER_NAME;
use ix_device_plugin::model::dra::claim::AllocatedDevice;
use ix_device_plugin::wire::dra_registration::plugin_info;
use ix_device_plugin::wire::dra_v1::dra_plugin_client::DraPluginClient;
use ix_device_plugin::wire::dra_v1::dra_plugin_server::{DraPlugin, DraPluginServer};
use ix_device_plugin::wire::dra_v1::{
    Claim, Device, NodePrepareResourceResponse, NodePrepareResourcesRequest,
    NodePrepareResourcesResponse, NodeUnprepareResourceResponse, NodeUnprepareResourcesRequest,
    NodeUnprepareResourcesResponse,
};
use ix_device_plugin::wire::pluginregistration_v1::registration_server::RegistrationServer;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::support::dra_rig::{DraRig, result};

const FIXTURE: &str = "bi-v150-x8";

#[tokio::test]
async fn a_pod_gets_the_cdi_names_of_the_chips_that_its_claim_was_allocated() {
    let rig = DraRig::start(FIXTURE, "").await;
    let claim = rig.allocate("one", &[0, 3]);
    let names = rig.runs("pod", &claim).await;
    assert_eq!(names, [rig.cdi_names(0), rig.cdi_names(3)].concat());
    assert_eq!(names.len(), 4);
    let spec =
        fs::read_to_string(rig.root().with_file_name("cdi").join("gpu.iluvatar.com-device.json"));
    let spec = spec.unwrap();
    for name in names {
        let (_, name) = name.split_once('=').unwrap();
        assert!(spec.contains(&format!("\"{name}\"")), "{name}");
    }
}

#[tokio::test]
async fn a_pod_that_was_created_while_the_kubelet_was_down_starts_when_it_is_back() {
    let mut rig = DraRig::start(FIXTURE, "").await;
    let claim = rig.allocate("one", &[0]);
    rig.kubelet.stop();
    assert_eq!(rig.run("pod", &claim).await.unwrap_err(), "the kubelet is down");
    rig.kubelet.restart().unwrap();
    assert_eq!(rig.runs("pod", &claim).await, rig.cdi_names(0));
}

#[tokio::test]
async fn a_prepare_that_timed_out_succeeds_later() {
    let rig = DraRig::with(FIXTURE, "", |settings| {
        settings.deadlines.call = Duration::from_millis(100);
    });
    let rig = rig.started().await;
    let claim = rig.allocate("one", &[0]);
    rig.api.send_modify(|api| api.hangs = true);
    assert_eq!(
        rig.run("pod", &claim).await.unwrap_err(),
        "NodePrepareResources: rpc error: code = DeadlineExceeded desc = context deadline exceeded"
    );
    rig.api.send_modify(|api| api.hangs = false);
    assert_eq!(rig.runs("pod", &claim).await, rig.cdi_names(0));
}

#[tokio::test]
async fn a_prepare_that_failed_succeeds_later() {
    let rig = DraRig::start(FIXTURE, "").await;
    let claim = rig.allocate("one", &[0]);
    rig.api.send_modify(|api| api.error = Some("etcd has no leader".to_owned()));
    assert_eq!(
        rig.run("pod", &claim).await.unwrap_err(),
        "NodePrepareResources failed for ResourceClaim one: etcd has no leader"
    );
    rig.api.send_modify(|api| api.error = None);
    assert_eq!(rig.runs("pod", &claim).await, rig.cdi_names(0));
}

#[tokio::test]
async fn an_unprepare_that_failed_succeeds_later_and_keeps_the_device_until_then() {
    let rig = DraRig::start(FIXTURE, "").await;
    let claim = rig.allocate("one", &[0]);
    rig.runs("pod", &claim).await;
    let lock = rig.directory().join("prepared-claims.lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let error = rig.kubelet.end_pod("pod").await.unwrap_err();
    assert!(error.contains("cannot record the claim in"), "{error}");
    assert!(rig.kubelet.state().borrow().claims.contains_key(&claim));
    fs::remove_dir(&lock).unwrap();
    rig.kubelet.end_pod("pod").await.unwrap();
    let other = rig.allocate("two", &[0]);
    assert_eq!(rig.runs("other", &other).await, rig.cdi_names(0));
}

#[tokio::test]
async fn claims_are_prepared_and_unprepared_again_after_the_kubelet_restarted() {
    let mut rig = DraRig::start(FIXTURE, "").await;
    let claim = rig.allocate("one", &[0]);
    let names = rig.runs("pod", &claim).await;
    for _ in 0..3 {
        rig.kubelet.stop();
        rig.kubelet.restart().unwrap();
        assert_eq!(rig.runs("pod", &claim).await, names);
    }
    rig.kubelet.stop();
    rig.kubelet.restart().unwrap();
    rig.until_connected().await;
    rig.kubelet.end_pod("pod").await.unwrap();
    assert!(rig.kubelet.state().borrow().claims.is_empty());
}

#[tokio::test]
async fn a_kubelet_that_appends_repeated_answers_gets_the_same_names_and_no_others() {
    let rig = DraRig::with(FIXTURE, "", |settings| settings.repeated = RepeatedPrepare::Appends);
    let mut rig = rig.started().await;
    let claim = rig.allocate("one", &[0]);
    let names = rig.runs("pod", &claim).await;
    rig.kill();
    rig.plugin = Some(rig.another_plugin("2"));
    rig.kubelet.stop();
    rig.kubelet.restart().unwrap();
    let again = rig.runs("pod", &claim).await;
    assert_eq!(again, [&names[..], &names[..]].concat());
}

#[tokio::test]
async fn a_pod_that_was_deleted_while_the_kubelet_was_down_is_unprepared_when_it_is_back() {
    let mut rig = DraRig::start(FIXTURE, "").await;
    let claim = rig.allocate("one", &[0]);
    rig.runs("pod", &claim).await;
    rig.kubelet.stop();
    rig.kubelet.force_delete("pod");
    rig.delete(&claim);
    rig.kubelet.restart().unwrap();
    rig.until("no claim", |state| state.claims.is_empty()).await;
    let other = rig.allocate("two", &[0]);
    assert_eq!(rig.runs("other", &other).await, rig.cdi_names(0));
}

#[tokio::test]
async fn one_connection_carries_all_calls() {
    let rig = DraRig::start(FIXTURE, "").await;
    for board in 0..4 {
        let claim = rig.allocate(&format!("claim-{board}"), &[board]);
        rig.runs(&format!("pod-{board}"), &claim).await;
    }
    rig.until("a health list", |state| state.health_lists > 0).await;
    for board in 0..4 {
        rig.kubelet.end_pod(&format!("pod-{board}")).await.unwrap();
    }
    assert_eq!(rig.kubelet.state().borrow().connections, 1);
}

#[tokio::test]
async fn two_pods_may_share_a_claim_and_the_last_one_frees_it() {
    let rig = DraRig::start(FIXTURE, "").await;
    let claim = rig.allocate("shared", &[0]);
    let names = rig.runs("first", &claim).await;
    assert_eq!(rig.runs("second", &claim).await, names);
    rig.kubelet.end_pod("first").await.unwrap();
    let other = rig.allocate("other", &[0]);
    rig.run("third", &other).await.unwrap_err();
    rig.kubelet.end_pod("second").await.unwrap();
    rig.delete(&claim);
    assert_eq!(rig.runs("third", &other).await, names);
}

#[tokio::test]
async fn a_device_that_another_claim_holds_is_refused_with_the_name_of_that_claim() {
    let rig = DraRig::start(FIXTURE, "").await;
    let (one, two) = (rig.allocate("one", &[0]), rig.allocate("two", &[0]));
    rig.runs("pod", &one).await;
    let device = rig.device(0);
    assert_eq!(
        rig.run("other", &two).await.unwrap_err(),
        format!(
            "NodePrepareResources failed for ResourceClaim two: {device} is held by claim \
             default/one; it is free once that claim is unprepared"
        )
    );
}

#[tokio::test]
async fn a_claim_that_was_force_deleted_while_the_plugin_was_down_holds_nothing() {
    let mut rig = DraRig::start(FIXTURE, "").await;
    let one = rig.allocate("one", &[0]);
    rig.runs("pod", &one).await;
    rig.kill();
    rig.delete(&one);
    let two = rig.allocate("two", &[0]);
    let rig = rig.started().await;
    assert_eq!(rig.runs("other", &two).await, rig.cdi_names(0));
}

#[tokio::test]
async fn a_claim_that_was_created_anew_under_its_name_holds_what_the_new_one_has() {
    let rig = DraRig::start(FIXTURE, "").await;
    let one = rig.allocate("one", &[0]);
    rig.runs("pod", &one).await;
    rig.claim("one", "another-uid", vec![result("gpu", &rig.device(1))]);
    let two = rig.allocate("two", &[0]);
    assert_eq!(rig.runs("other", &two).await, rig.cdi_names(0));
    let error = rig.run("third", &one).await.unwrap_err();
    assert!(error.contains("previous pod force-deleted"), "{error}");
}

#[tokio::test]
async fn admin_access_holds_nothing_and_is_kept_from_nothing() {
    let rig = DraRig::start(FIXTURE, "").await;
    let claim = rig.allocate("one", &[0]);
    rig.runs("pod", &claim).await;
    let watched = AllocatedDevice { admin_access: true, ..result("watch", &rig.device(0)) };
    let admin = rig.claim("admin", "uid-admin", vec![watched]);
    assert_eq!(rig.runs("exporter", &admin).await, rig.cdi_names(0));
    rig.kubelet.end_pod("pod").await.unwrap();
    let two = rig.allocate("two", &[0]);
    assert_eq!(rig.runs("next", &two).await, rig.cdi_names(0));
}

#[tokio::test]
async fn each_container_gets_the_request_that_it_names_without_its_subrequest() {
    let rig = DraRig::start(FIXTURE, "").await;
    let results = vec![result("big/first", &rig.device(0)), result("small", &rig.device(1))];
    let claim = rig.claim("one", "uid-one", results);
    let container = |name: &str, request: &str| DraContainer {
        name: name.to_owned(),
        claims: vec![(claim.clone(), Some(request.to_owned()))],
    };
    let containers = vec![container("main", "big"), container("side", "small")];
    let pod = DraPodSpec { name: "pod".to_owned(), containers };
    let names = rig.kubelet.run_pod(&pod).await.unwrap();
    assert_eq!(names["main"], rig.cdi_names(0));
    assert_eq!(names["side"], rig.cdi_names(1));
}

#[tokio::test]
async fn every_claim_of_a_call_is_answered_and_unknown_ones_are_unprepared() {
    let rig = DraRig::start(FIXTURE, "").await;
    rig.allocate("good", &[0]);
    rig.claim(
        "foreign",
        "uid-foreign",
        vec![AllocatedDevice { pool: "node-b".to_owned(), ..result("gpu", &rig.device(1)) }],
    );
    let claims: Vec<_> = ["good", "foreign", "absent"]
        .map(|name| Claim {
            namespace: "default".to_owned(),
            uid: format!("uid-{name}"),
            name: name.to_owned(),
        })
        .into();
    let channel = {
        let state = rig.kubelet.state();
        let state = state.borrow();
        state.drivers.values().next().unwrap().channel.clone().unwrap()
    };
    let mut client = DraPluginClient::new(channel);
    let request = NodePrepareResourcesRequest { claims: claims.clone() };
    let answers = client.node_prepare_resources(request).await.unwrap().into_inner().claims;
    assert_eq!(answers["uid-good"].devices[0].request_names, ["gpu"]);
    assert_eq!(answers["uid-good"].devices[0].cdi_device_ids, rig.cdi_names(0));
    assert!(answers["uid-foreign"].error.contains("this node's pool is node-a"));
    assert_eq!(answers["uid-absent"].error, "claim default/absent does not exist; retrying");
    let request = NodeUnprepareResourcesRequest { claims };
    let answers = client.node_unprepare_resources(request).await.unwrap().into_inner().claims;
    assert_eq!(answers.len(), 3);
    assert!(answers.values().all(|answer| answer.error.is_empty()));
}

// -- Two drivers in one claim

/// A driver that gives every claim one name.
struct OtherDriver;

#[tonic::async_trait]
impl DraPlugin for OtherDriver {
    async fn node_prepare_resources(
        &self,
        request: Request<NodePrepareResourcesRequest>,
    ) -> Result<Response<NodePrepareResourcesResponse>, Status> {
        let device = Device {
            device_name: "nic-0".to_owned(),
            cdi_device_ids: vec!["other.example/nic=0".to_owned()],
            ..Device::default()
        };
        let answer = NodePrepareResourceResponse { devices: vec![device], error: String::new() };
        let claims = request.into_inner().claims.into_iter();
        let claims = claims.map(|claim| (claim.uid, answer.clone())).collect();
        Ok(Response::new(NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<NodeUnprepareResourcesRequest>,
    ) -> Result<Response<NodeUnprepareResourcesResponse>, Status> {
        let claims = request.into_inner().claims.into_iter();
        let answer = NodeUnprepareResourceResponse::default();
        let claims = claims.map(|claim| (claim.uid, answer.clone())).collect();
        Ok(Response::new(NodeUnprepareResourcesResponse { claims }))
    }
}

fn serve_other_driver(rig: &DraRig) -> [SocketServer; 2] {
    let endpoint: PathBuf = rig.root().join("plugins/other.sock");
    let service = SocketServer::start(endpoint.clone(), |_| {
        Server::builder().add_service(DraPluginServer::new(OtherDriver))
    });
    let (registration, _) = DraRegistrationService::new(plugin_info("other.example", &endpoint));
    let registration = SocketServer::start(rig.registry().join("other-reg.sock"), |_| {
        Server::builder().add_service(RegistrationServer::new(registration))
    });
    [service.unwrap(), registration.unwrap()]
}

#[tokio::test]
async fn a_claim_may_have_devices_of_two_drivers() {
    let rig = DraRig::start(FIXTURE, "").await;
    let _other = serve_other_driver(&rig);
    rig.until("the other driver", |state| state.is_connected("other.example")).await;
    let nic = AllocatedDevice {
        driver: "other.example".to_owned(),
        pool: "nics".to_owned(),
        ..result("nic", "nic-0")
    };
    let claim = rig.claim("both", "uid-both", vec![nic, result("gpu", &rig.device(0))]);
    let names: BTreeSet<_> = rig.runs("pod", &claim).await.into_iter().collect();
    let expected = rig.cdi_names(0).into_iter().chain(["other.example/nic=0".to_owned()]);
    assert_eq!(names, expected.collect());
    rig.kubelet.end_pod("pod").await.unwrap();
    assert!(rig.kubelet.state().borrow().is_registered(DRIVER_NAME));
}
