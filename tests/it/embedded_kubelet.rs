//! The embedded kubelet against a scripted plugin, over real sockets: each rule of a kubelet's
//! device manager, as far as it needs a socket to be seen. The rest is proved beside the code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use ix_device_plugin::demo::kubelet::{
    Admission, AdmissionCause, ContainerRequest, EmbeddedKubelet, KubeletError, KubeletSettings,
    OwnSocket, PodRequest, RegisterBehaviour, StartError,
};
use ix_device_plugin::model::health::Health;
use ix_device_plugin::wire::v1beta1::{Device, NumaNode, TopologyInfo};
use tempfile::TempDir;

use self::scripted_plugin::{Call, Script, ScriptedPlugin, register};
use crate::support::clock::soon;

const GPU: &str = "iluvatar.com/gpu";

async fn kubelet(directory: &TempDir, settings: KubeletSettings) -> EmbeddedKubelet {
    EmbeddedKubelet::start(directory.path(), settings).await.expect("the directory is ours")
}

fn healthy(ids: &[&str]) -> Vec<Device> {
    ids.iter().map(|id| device(id, "Healthy", &[])).collect()
}

fn device(id: &str, health: &str, numa_nodes: &[i64]) -> Device {
    let nodes: Vec<_> = numa_nodes.iter().map(|&id| NumaNode { id }).collect();
    let topology = (!nodes.is_empty()).then_some(TopologyInfo { nodes });
    Device { id: id.to_owned(), health: health.to_owned(), topology }
}

/// A kubelet of the default kind with one plugin of two devices, `a` and `b`, both counted.
async fn node_with_two_gpus(
    directory: &TempDir,
    script: Script,
) -> (EmbeddedKubelet, ScriptedPlugin) {
    let kubelet = kubelet(directory, KubeletSettings::default()).await;
    let plugin = plugin_with(directory, &kubelet, script, &["a", "b"]).await;
    (kubelet, plugin)
}

async fn plugin_with(
    directory: &TempDir,
    kubelet: &EmbeddedKubelet,
    script: Script,
    ids: &[&str],
) -> ScriptedPlugin {
    let plugin = ScriptedPlugin::serve(&directory.path().join("gpu.sock"), script);
    plugin.list(healthy(ids));
    register(directory.path(), "gpu.sock", GPU).await.expect("the kubelet accepts");
    counts(kubelet, ids.len(), ids.len()).await;
    plugin
}

/// Waits until the node counts so many devices.
async fn counts(kubelet: &EmbeddedKubelet, capacity: usize, allocatable: usize) {
    let wanted = (capacity, allocatable);
    let seen = kubelet.wait_for(|view| (view.capacity(GPU), view.allocatable(GPU)) == wanted);
    soon(&format!("capacity and allocatable {wanted:?}"), seen).await.unwrap();
}

fn ids(admission: &Admission) -> Vec<&str> {
    admission.containers[0].devices[GPU].iter().map(String::as_str).collect()
}

async fn refusal(kubelet: &EmbeddedKubelet, pod: PodRequest) -> AdmissionCause {
    kubelet.admit(pod).await.expect_err("the pod must be refused").cause
}

#[tokio::test]
async fn the_kubelet_asks_for_options_before_register_returns() {
    let directory = TempDir::new().unwrap();
    let _kubelet = kubelet(&directory, KubeletSettings::default()).await;
    let (script, gate) = Script::default().with_options_held_back();
    let plugin = ScriptedPlugin::serve(&directory.path().join("gpu.sock"), script);
    plugin.list(healthy(&["a"]));

    let mut registration = Box::pin(register(directory.path(), "gpu.sock", GPU));
    tokio::select! {
        answer = &mut registration => panic!("answered before the options were known: {answer:?}"),
        () = plugin.called(|calls| calls.contains(&Call::Options)) => {}
    }
    drop(gate);

    registration.await.unwrap();
    plugin.called(|calls| calls.contains(&Call::ListAndWatch)).await;
    assert_eq!(plugin.calls(), [Call::Options, Call::ListAndWatch]);
}

#[tokio::test]
async fn the_authority_of_a_call_is_localhost() {
    let directory = TempDir::new().unwrap();
    let (_kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    assert_eq!(plugin.authorities(), BTreeSet::from(["localhost".to_owned()]));
}

#[tokio::test]
async fn a_registration_of_a_socket_that_nobody_serves_fails_after_the_bound() {
    let directory = TempDir::new().unwrap();
    let settings =
        KubeletSettings { dial_timeout: Duration::from_millis(20), ..KubeletSettings::default() };
    let kubelet = kubelet(&directory, settings).await;
    let refused = register(directory.path(), "gpu.sock", GPU).await.unwrap_err();
    assert_eq!(refused.message(), "failed to dial device plugin: context deadline exceeded");
    assert!(kubelet.view().borrow().resources.is_empty());
}

#[tokio::test]
async fn a_name_that_is_no_extended_resource_is_refused() {
    let directory = TempDir::new().unwrap();
    let kubelet = kubelet(&directory, KubeletSettings::default()).await;
    let refused = register(directory.path(), "gpu.sock", "gpu").await.unwrap_err();
    assert_eq!(refused.message(), "the ResourceName \"gpu\" is invalid");
    assert_eq!(kubelet.view().borrow().register_calls, 1);
}

#[tokio::test]
async fn a_registration_can_be_refused() {
    let directory = TempDir::new().unwrap();
    let (kubelet, _plugin) = node_with_two_gpus(&directory, Script::default()).await;
    let refuse = RegisterBehaviour::Refuse("not today".to_owned());
    kubelet.set_register_behaviour(refuse).await.unwrap();
    let refused = register(directory.path(), "gpu.sock", GPU).await.unwrap_err();
    assert_eq!(refused.message(), "not today");
    assert_eq!(kubelet.view().borrow().resources[GPU].registrations, 1);
}

#[tokio::test]
async fn a_registration_that_hangs_ends_with_the_kubelet() {
    let directory = TempDir::new().unwrap();
    let kubelet = kubelet(&directory, KubeletSettings::default()).await;
    kubelet.set_register_behaviour(RegisterBehaviour::Hang).await.unwrap();
    let mut hanging = Box::pin(register(directory.path(), "gpu.sock", GPU));
    tokio::select! {
        answer = &mut hanging => panic!("answered: {answer:?}"),
        _ = kubelet.wait_for(|view| view.register_calls == 1) => {}
    }
    kubelet.restart().await.unwrap();
    let ended = soon("the end of the call", hanging).await;
    assert!(ended.is_err());
}

#[tokio::test]
async fn a_slow_registration_is_a_registration() {
    let directory = TempDir::new().unwrap();
    let kubelet = kubelet(&directory, KubeletSettings::default()).await;
    let delay = RegisterBehaviour::Delay(Duration::from_millis(1));
    kubelet.set_register_behaviour(delay).await.unwrap();
    let _plugin = plugin_with(&directory, &kubelet, Script::default(), &["a"]).await;
}

#[tokio::test]
async fn a_kubelet_registers_a_plugin_that_gave_up_waiting() {
    let directory = TempDir::new().unwrap();
    let kubelet = kubelet(&directory, KubeletSettings::default()).await;
    let (script, gate) = Script::default().with_options_held_back();
    let plugin = ScriptedPlugin::serve(&directory.path().join("gpu.sock"), script);
    plugin.list(healthy(&["a"]));

    tokio::select! {
        answer = register(directory.path(), "gpu.sock", GPU) => panic!("answered: {answer:?}"),
        () = plugin.called(|calls| calls.contains(&Call::Options)) => {}
    }
    drop(gate);

    counts(&kubelet, 1, 1).await;
}

#[tokio::test]
async fn a_list_replaces_the_one_before_it() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    plugin.list(vec![device("c", "Healthy", &[1]), device("d", "Unhealthy", &[])]);
    counts(&kubelet, 2, 1).await;

    let view = kubelet.view().borrow().clone();
    let devices = &view.resources[GPU].devices;
    assert_eq!(devices.keys().collect::<Vec<_>>(), ["c", "d"]);
    assert_eq!(devices["c"].numa_nodes, [1]);
    assert_eq!(devices["d"].health, Health::Unhealthy);
    assert_eq!(view.resources[GPU].lists_received, 2);
}

#[tokio::test]
async fn a_lost_stream_leaves_capacity_and_takes_allocatable() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    plugin.end_streams();
    counts(&kubelet, 2, 0).await;

    let view = kubelet.view().borrow().resources[GPU].clone();
    assert!(!view.registered);
    assert_eq!(view.streams_open, 0);
    assert_eq!(view.last_stream_end.as_deref(), Some("EOF"));
}

#[tokio::test]
async fn after_the_grace_period_the_capacity_is_gone() {
    let directory = TempDir::new().unwrap();
    let settings =
        KubeletSettings { grace: Duration::from_millis(20), ..KubeletSettings::default() };
    let kubelet = kubelet(&directory, settings).await;
    let plugin = plugin_with(&directory, &kubelet, Script::default(), &["a"]).await;
    plugin.end_streams();
    counts(&kubelet, 0, 0).await;
    let unregistered = AdmissionCause::Unregistered { resource: GPU.to_owned() };
    assert_eq!(refusal(&kubelet, PodRequest::single("pod", GPU, 1)).await, unregistered);
}

#[tokio::test]
async fn a_stream_dropped_by_the_kubelet_disconnects_the_plugin_and_leaves_its_socket() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    kubelet.drop_stream(GPU).await.unwrap();
    plugin.called(|calls| calls.contains(&Call::StreamEnded)).await;
    counts(&kubelet, 2, 0).await;

    register(directory.path(), "gpu.sock", GPU).await.unwrap();
    counts(&kubelet, 2, 2).await;
    assert_eq!(kubelet.view().borrow().resources[GPU].registrations, 2);
}

#[tokio::test]
async fn a_list_above_4_mib_ends_the_stream() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    // A device with an id of 60 characters is 73 bytes: the id, `Healthy`, a tag and a length for
    // each of them and for the device.
    let list_of = |bytes: usize| -> Vec<Device> {
        (0..bytes / 73).map(|index| device(&format!("{index:060}"), "Healthy", &[])).collect()
    };
    let limit = 4 * 1024 * 1024;
    let most = limit / 73;

    plugin.list(list_of(limit));
    counts(&kubelet, most, most).await;
    plugin.list(list_of(limit + 73));
    counts(&kubelet, most, 0).await;

    let end = kubelet.view().borrow().resources[GPU].last_stream_end.clone().unwrap();
    assert!(end.starts_with("rpc error: code = OutOfRange"), "{end}");
}

#[tokio::test]
async fn a_restart_wipes_sockets_and_keeps_files() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    let state = directory.path().join("state");
    tokio::fs::write(&state, "kept").await.unwrap();

    kubelet.restart().await.unwrap();

    assert!(state.exists());
    assert!(!directory.path().join("gpu.sock").exists());
    assert!(directory.path().join("kubelet.sock").exists());
    let view = kubelet.view().borrow().clone();
    assert_eq!((view.capacity(GPU), view.allocatable(GPU)), (0, 0));
    assert!(view.serving && !view.resources[GPU].registered);
    plugin.called(|calls| calls.contains(&Call::StreamEnded)).await;
}

#[tokio::test]
async fn a_kubelet_that_was_killed_leaves_a_socket_that_refuses() {
    let directory = TempDir::new().unwrap();
    let kubelet = kubelet(&directory, KubeletSettings::default()).await;
    let socket = directory.path().join("kubelet.sock");

    kubelet.stop(OwnSocket::LeftBehind).await.unwrap();
    assert!(!kubelet.view().borrow().serving);
    let refused = tokio::net::UnixStream::connect(&socket).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    kubelet.restart().await.unwrap();
    tokio::net::UnixStream::connect(&socket).await.unwrap();
    kubelet.stop(OwnSocket::Removed).await.unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_missing_directory_is_made_and_a_file_in_its_place_is_an_error() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("var/lib");
    let kubelet = EmbeddedKubelet::start(&missing, KubeletSettings::default()).await.unwrap();
    assert!(missing.join("kubelet.sock").exists());
    kubelet.shutdown().await;

    let file = directory.path().join("file");
    tokio::fs::write(&file, "").await.unwrap();
    let refused = EmbeddedKubelet::start(&file, KubeletSettings::default()).await;
    assert!(matches!(refused, Err(KubeletError::Directory(_))));
}

#[tokio::test]
async fn a_shutdown_ends_streams_and_removes_the_socket() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    kubelet.shutdown().await;
    plugin.called(|calls| calls.contains(&Call::StreamEnded)).await;
    assert!(!directory.path().join("kubelet.sock").exists());
}

#[tokio::test]
async fn a_dropped_kubelet_ends_streams_too() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    drop(kubelet);
    plugin.called(|calls| calls.contains(&Call::StreamEnded)).await;
}

/// An older instance on `gpu.sock` and a newer one on `newer.sock`; the older one's stream ends.
async fn takeover(directory: &TempDir, takeover_bug: bool) -> (EmbeddedKubelet, ScriptedPlugin) {
    let settings = KubeletSettings { takeover_bug, ..KubeletSettings::default() };
    let kubelet = kubelet(directory, settings).await;
    let older = plugin_with(directory, &kubelet, Script::default(), &["a"]).await;
    let newer = ScriptedPlugin::serve(&directory.path().join("newer.sock"), Script::default());
    newer.list(healthy(&["a", "b"]));
    register(directory.path(), "newer.sock", GPU).await.expect("the kubelet accepts");
    counts(&kubelet, 2, 2).await;
    assert_eq!(kubelet.view().borrow().resources[GPU].streams_open, 2);

    older.end_streams();
    let ended = kubelet.wait_for(|view| view.resources[GPU].streams_open < 2);
    ended.await.expect("the kubelet runs");
    (kubelet, newer)
}

#[tokio::test]
async fn the_takeover_bug_disconnects_the_newer_instance() {
    let directory = TempDir::new().unwrap();
    let (kubelet, newer) = takeover(&directory, true).await;
    newer.called(|calls| calls.contains(&Call::StreamEnded)).await;
    counts(&kubelet, 2, 0).await;
}

#[tokio::test]
async fn without_the_takeover_bug_the_newer_instance_stays() {
    let directory = TempDir::new().unwrap();
    let (kubelet, newer) = takeover(&directory, false).await;
    newer.list(healthy(&["a", "b", "c"]));
    counts(&kubelet, 3, 3).await;
    assert!(!newer.calls().contains(&Call::StreamEnded));
}

#[tokio::test]
async fn pods_get_distinct_devices_until_none_is_left() {
    let directory = TempDir::new().unwrap();
    let (kubelet, _plugin) = node_with_two_gpus(&directory, Script::default()).await;
    let one = kubelet.admit(PodRequest::single("one", GPU, 1)).await.unwrap();
    let two = kubelet.admit(PodRequest::single("two", GPU, 1)).await.unwrap();
    assert_eq!((ids(&one), ids(&two)), (vec!["a"], vec!["b"]));

    let refused = kubelet.admit(PodRequest::single("three", GPU, 1)).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "UnexpectedAdmissionError: Allocate failed due to requested number of devices unavailable \
         for iluvatar.com/gpu. Requested: 1, Available: 0, which is unexpected"
    );
    kubelet.remove("one").await.unwrap();
    let three = kubelet.admit(PodRequest::single("three", GPU, 1)).await.unwrap();
    assert_eq!(ids(&three), ["a"]);
}

#[tokio::test]
async fn a_container_gets_what_the_plugin_answered() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    let pod = kubelet.admit(PodRequest::single("pod", GPU, 2)).await.unwrap();
    let injection = &pod.containers[0].injection;
    assert_eq!(injection.envs["DEVICES"], "a,b");
    assert_eq!(injection.cdi_devices, ["iluvatar.com/gpu=a", "iluvatar.com/gpu=b"]);
    assert!(plugin.calls().contains(&Call::Allocate(vec!["a".to_owned(), "b".to_owned()])));
}

#[tokio::test]
async fn a_refused_pod_keeps_nothing() {
    let directory = TempDir::new().unwrap();
    let (kubelet, _plugin) = node_with_two_gpus(&directory, Script::default()).await;
    let container = |name: &str, count| ContainerRequest {
        name: name.to_owned(),
        resource: GPU.to_owned(),
        count,
    };
    let containers = vec![container("first", 1), container("second", 2)];
    let greedy = PodRequest { name: "greedy".to_owned(), containers };
    let too_few = AdmissionCause::TooFew { resource: GPU.to_owned(), requested: 2, available: 1 };
    assert_eq!(refusal(&kubelet, greedy).await, too_few);
    kubelet.admit(PodRequest::single("pod", GPU, 2)).await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_refuses_allocate_refuses_the_pod() {
    let directory = TempDir::new().unwrap();
    let gone = tonic::Status::not_found("a is gone");
    let script = Script { allocate: Err(gone), ..Script::default() };
    let (kubelet, _plugin) = node_with_two_gpus(&directory, script).await;
    let refused = kubelet.admit(PodRequest::single("pod", GPU, 1)).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "UnexpectedAdmissionError: Allocate failed due to rpc error: code = NotFound desc = a is \
         gone, which is unexpected"
    );
}

fn with_preference(preferred: Result<&[&str], tonic::Status>) -> Script {
    let preferred = preferred.map(owned);
    Script { preferred, ..Script::default() }.with_preferred_allocation()
}

fn owned(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}

#[tokio::test]
async fn the_plugins_preference_decides() {
    let directory = TempDir::new().unwrap();
    let (kubelet, _plugin) = node_with_two_gpus(&directory, with_preference(Ok(&["b", "x"]))).await;
    let pod = kubelet.admit(PodRequest::single("pod", GPU, 1)).await.unwrap();
    assert_eq!(ids(&pod), ["b"]);
}

#[tokio::test]
async fn a_failed_preference_refuses_the_pod() {
    let directory = TempDir::new().unwrap();
    let failing = with_preference(Err(tonic::Status::internal("confused")));
    let (kubelet, _plugin) = node_with_two_gpus(&directory, failing).await;
    let error = "rpc error: code = Internal desc = confused".to_owned();
    let refused = refusal(&kubelet, PodRequest::single("pod", GPU, 1)).await;
    assert_eq!(refused, AdmissionCause::Preference { error });
}

fn preferences_asked_of(plugin: &ScriptedPlugin) -> Vec<Call> {
    let calls = plugin.calls().into_iter();
    calls.filter(|call| matches!(call, Call::Preferred { .. })).collect()
}

fn preferred(available: &[&str], must_include: &[&str], size: i32) -> Call {
    Call::Preferred { available: owned(available), must_include: owned(must_include), size }
}

#[tokio::test]
async fn a_plugin_without_the_option_is_not_asked_for_a_preference() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    kubelet.admit(PodRequest::single("pod", GPU, 1)).await.unwrap();
    assert_eq!(preferences_asked_of(&plugin), []);
}

/// Two devices near NUMA node 0, one near node 1; the topology manager wants node 0.
async fn preferences_asked_near_node_0(count: usize) -> Vec<Call> {
    let directory = TempDir::new().expect("a temporary directory");
    let settings =
        KubeletSettings { numa_affinity: Some([0].into()), ..KubeletSettings::default() };
    let kubelet = kubelet(&directory, settings).await;
    let plugin = plugin_with(&directory, &kubelet, with_preference(Ok(&[])), &["x"]).await;
    let listed = [("a", 0), ("b", 0), ("c", 1)];
    plugin.list(listed.map(|(id, node)| device(id, "Healthy", &[node])).to_vec());
    counts(&kubelet, 3, 3).await;
    kubelet.admit(PodRequest::single("pod", GPU, count)).await.expect("there are enough");
    preferences_asked_of(&plugin)
}

#[tokio::test]
async fn preferred_allocation_is_asked_only_when_there_is_a_choice() {
    assert_eq!(preferences_asked_near_node_0(1).await, [preferred(&["a", "b"], &[], 1)]);
    assert_eq!(preferences_asked_near_node_0(2).await, []);
    let the_rest = preferred(&["a", "b", "c"], &["a", "b"], 3);
    assert_eq!(preferences_asked_near_node_0(3).await, [the_rest]);
}

#[tokio::test]
async fn without_a_topology_manager_preferred_allocation_is_always_asked() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, with_preference(Ok(&[]))).await;
    kubelet.admit(PodRequest::single("pod", GPU, 2)).await.unwrap();
    assert_eq!(preferences_asked_of(&plugin), [preferred(&["a", "b"], &[], 2)]);
}

#[tokio::test]
async fn a_pod_that_asks_for_an_unknown_resource_is_refused() {
    let directory = TempDir::new().unwrap();
    let kubelet = kubelet(&directory, KubeletSettings::default()).await;
    let refused = refusal(&kubelet, PodRequest::single("pod", GPU, 1)).await;
    assert_eq!(refused, AdmissionCause::Unregistered { resource: GPU.to_owned() });
}

#[tokio::test]
async fn a_pod_whose_device_broke_is_not_admitted_again() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    kubelet.admit(PodRequest::single("pod", GPU, 1)).await.unwrap();
    plugin.list(vec![device("a", "Unhealthy", &[]), device("b", "Healthy", &[])]);
    counts(&kubelet, 2, 1).await;
    let refused = refusal(&kubelet, PodRequest::single("pod", GPU, 1)).await;
    assert_eq!(refused, AdmissionCause::HeldUnhealthy { resource: GPU.to_owned() });
}

#[tokio::test]
async fn without_its_plugin_a_resource_is_refused() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    plugin.end_streams();
    counts(&kubelet, 2, 0).await;
    let refused = refusal(&kubelet, PodRequest::single("pod", GPU, 1)).await;
    assert_eq!(refused, AdmissionCause::NoneHealthy { resource: GPU.to_owned() });
}

#[tokio::test]
async fn an_admitted_pod_is_admitted_again_with_what_it_holds() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    let first = kubelet.admit(PodRequest::single("pod", GPU, 1)).await.unwrap();
    let again = kubelet.admit(PodRequest::single("pod", GPU, 1)).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(plugin.calls()[2..], [Call::Allocate(owned(&["a"]))]);
}

#[tokio::test]
async fn each_start_of_a_container_is_announced_and_uses_the_first_answer() {
    let directory = TempDir::new().unwrap();
    let script = Script::default().with_pre_start();
    let (kubelet, plugin) = node_with_two_gpus(&directory, script).await;
    let pod = kubelet.admit(PodRequest::single("pod", GPU, 1)).await.unwrap();
    for _ in 0..2 {
        let started = kubelet.start_container("pod", "main").await.unwrap();
        assert_eq!(started, pod.containers[0].injection);
    }
    let pre_start = Call::PreStart(owned(&["a"]));
    let expected = [Call::Allocate(owned(&["a"])), pre_start.clone(), pre_start];
    assert_eq!(plugin.calls()[2..], expected);
}

#[tokio::test]
async fn a_plugin_that_refuses_pre_start_keeps_the_container_from_starting() {
    let directory = TempDir::new().unwrap();
    let refusing = Err(tonic::Status::failed_precondition("a is another chip now"));
    let script = Script { pre_start: refusing, ..Script::default() }.with_pre_start();
    let (kubelet, _plugin) = node_with_two_gpus(&directory, script).await;
    kubelet.admit(PodRequest::single("pod", GPU, 1)).await.unwrap();
    let refused = kubelet.start_container("pod", "main").await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "device plugin PreStartContainer rpc failed with err: rpc error: code = FailedPrecondition \
         desc = a is another chip now"
    );
}

#[tokio::test]
async fn a_pre_start_that_hangs_fails_after_the_bound() {
    let directory = TempDir::new().unwrap();
    let settings = KubeletSettings {
        pre_start_timeout: Duration::from_millis(20),
        ..KubeletSettings::default()
    };
    let kubelet = kubelet(&directory, settings).await;
    let (script, _gate) = Script::default().with_pre_start().with_pre_start_held_back();
    let _plugin = plugin_with(&directory, &kubelet, script, &["a"]).await;
    kubelet.admit(PodRequest::single("pod", GPU, 1)).await.unwrap();
    let error = "rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned();
    let late = kubelet.start_container("pod", "main").await.unwrap_err();
    assert_eq!(late, StartError::PreStart { error });
}

#[tokio::test]
async fn a_container_without_devices_is_not_ours_to_start() {
    let directory = TempDir::new().unwrap();
    let kubelet = kubelet(&directory, KubeletSettings::default()).await;
    let unknown = kubelet.start_container("pod", "main").await.unwrap_err();
    assert_eq!(unknown.to_string(), "pod pod has no container main with devices");
}

#[tokio::test]
async fn a_restarted_kubelet_starts_containers_from_its_checkpoint() {
    let directory = TempDir::new().unwrap();
    let script = Script::default().with_pre_start();
    let (kubelet, plugin) = node_with_two_gpus(&directory, script.clone()).await;
    let pod = kubelet.admit(PodRequest::single("pod", GPU, 1)).await.unwrap();
    kubelet.restart().await.unwrap();

    // The plugin is not back: its options are not known, so nobody is asked.
    let started = kubelet.start_container("pod", "main").await.unwrap();
    assert_eq!(started, pod.containers[0].injection);
    let pre_start = Call::PreStart(owned(&["a"]));
    assert!(!plugin.calls().contains(&pre_start));

    // It is back: the pod's device is still in use, and its answer still the first one.
    let plugin = plugin_with(&directory, &kubelet, script, &["a", "b"]).await;
    let other = kubelet.admit(PodRequest::single("other", GPU, 1)).await.unwrap();
    assert_eq!(ids(&other), ["b"]);
    assert_eq!(kubelet.start_container("pod", "main").await.unwrap(), started);
    assert!(plugin.calls().contains(&pre_start));
}

#[tokio::test]
async fn a_device_absent_from_the_last_list_is_reported_healthy() {
    let directory = TempDir::new().unwrap();
    let (kubelet, plugin) = node_with_two_gpus(&directory, Script::default()).await;
    kubelet.admit(PodRequest::single("pod", GPU, 2)).await.unwrap();
    plugin.list(vec![device("a", "Unhealthy", &[])]);
    counts(&kubelet, 1, 0).await;

    let status = kubelet.allocated_resources_status("pod").await.unwrap();
    let expected = [("a", Health::Unhealthy), ("b", Health::Healthy)];
    let expected = BTreeMap::from(expected.map(|(id, health)| (id.to_owned(), health)));
    assert_eq!(status["main"][GPU], expected);
    assert!(kubelet.allocated_resources_status("other").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_hanging_allocate_holds_up_every_pod_behind_it() {
    let directory = TempDir::new().unwrap();
    let (script, gate) = Script::default().with_allocate_held_back();
    let (kubelet, plugin) = node_with_two_gpus(&directory, script).await;
    let mut first = Box::pin(kubelet.admit(PodRequest::single("one", GPU, 1)));
    let mut second = Box::pin(kubelet.admit(PodRequest::single("two", "iluvatar.com/other", 1)));
    tokio::select! {
        biased;
        one = &mut first => panic!("admitted without an answer: {one:?}"),
        two = &mut second => panic!("judged out of order: {two:?}"),
        () = plugin.called(|calls| calls.contains(&Call::Allocate(owned(&["a"])))) => {}
    }
    drop(gate);
    let (one, two) = tokio::join!(first, second);
    assert!(one.is_ok() && two.is_err());
}

mod scripted_plugin {
    //! A device plugin that answers as its script says and writes down what it was asked.

    use std::pin::Pin;

    use hyper_util::rt::TokioIo;
    use ix_device_plugin::wire::device_plugin::VERSION;
    use ix_device_plugin::wire::v1beta1::device_plugin_server::{DevicePlugin, DevicePluginServer};
    use ix_device_plugin::wire::v1beta1::registration_client::RegistrationClient;
    use ix_device_plugin::wire::v1beta1::{
        AllocateRequest, AllocateResponse, CdiDevice, ContainerAllocateResponse,
        ContainerPreferredAllocationResponse, DevicePluginOptions, Empty, ListAndWatchResponse,
        PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
        PreferredAllocationResponse, RegisterRequest,
    };
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::watch;
    use tokio::task::JoinSet;
    use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
    use tokio_stream::{Stream, StreamExt};
    use tonic::codegen::http;
    use tonic::transport::{Endpoint, Server, Uri};
    use tonic::{Request, Response, Status};
    use tower::util::MapRequestLayer;

    use super::{BTreeSet, Device, GPU, Path, soon};

    /// Something the kubelet did.
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) enum Call {
        Options,
        ListAndWatch,
        StreamEnded,
        Preferred { available: Vec<String>, must_include: Vec<String>, size: i32 },
        Allocate(Vec<String>),
        PreStart(Vec<String>),
    }

    /// Holds an answer back until the sender is dropped.
    type Gate = Option<watch::Receiver<()>>;

    /// What the plugin answers.
    #[derive(Clone)]
    pub(crate) struct Script {
        pub(crate) options: DevicePluginOptions,
        pub(crate) options_gate: Gate,
        pub(crate) allocate_gate: Gate,
        pub(crate) pre_start_gate: Gate,
        pub(crate) preferred: Result<Vec<String>, Status>,
        pub(crate) allocate: Result<(), Status>,
        pub(crate) pre_start: Result<(), Status>,
    }

    impl Default for Script {
        fn default() -> Self {
            Self {
                options: DevicePluginOptions::default(),
                options_gate: None,
                allocate_gate: None,
                pre_start_gate: None,
                preferred: Ok(Vec::new()),
                allocate: Ok(()),
                pre_start: Ok(()),
            }
        }
    }

    impl Script {
        pub(crate) fn with_preferred_allocation(mut self) -> Self {
            self.options.get_preferred_allocation_available = true;
            self
        }

        pub(crate) fn with_pre_start(mut self) -> Self {
            self.options.pre_start_required = true;
            self
        }

        pub(crate) fn with_options_held_back(mut self) -> (Self, watch::Sender<()>) {
            let gate = hold_back(&mut self.options_gate);
            (self, gate)
        }

        pub(crate) fn with_allocate_held_back(mut self) -> (Self, watch::Sender<()>) {
            let gate = hold_back(&mut self.allocate_gate);
            (self, gate)
        }

        pub(crate) fn with_pre_start_held_back(mut self) -> (Self, watch::Sender<()>) {
            let gate = hold_back(&mut self.pre_start_gate);
            (self, gate)
        }
    }

    fn hold_back(gate: &mut Gate) -> watch::Sender<()> {
        let (sender, receiver) = watch::channel(());
        *gate = Some(receiver);
        sender
    }

    async fn pass(gate: &Gate) {
        if let Some(mut gate) = gate.clone() {
            while gate.changed().await.is_ok() {}
        }
    }

    /// A plugin that listens; takes no more connections once it is dropped.
    pub(crate) struct ScriptedPlugin {
        lists: watch::Sender<Option<Vec<Device>>>,
        calls: watch::Sender<Vec<Call>>,
        authorities: watch::Receiver<BTreeSet<String>>,
        _server: JoinSet<()>,
    }

    impl ScriptedPlugin {
        /// Listens when this returns. Each new stream starts with the list that was set last.
        pub(crate) fn serve(socket: &Path, script: Script) -> Self {
            let listener = UnixListener::bind(socket).expect("the socket is free");
            let (lists, calls) = (watch::Sender::default(), watch::Sender::default());
            let (authority, authorities) = watch::channel(BTreeSet::new());
            let plugin = Plugin { script, lists: lists.clone(), calls: calls.clone() };
            let note_authority = move |request: http::Request<tonic::body::Body>| {
                let name = request.uri().authority().map(ToString::to_string);
                authority.send_modify(|seen| seen.extend(name));
                request
            };
            let server = Server::builder()
                .layer(MapRequestLayer::new(note_authority))
                .add_service(DevicePluginServer::new(plugin))
                .serve_with_incoming(UnixListenerStream::new(listener));
            let mut tasks = JoinSet::new();
            tasks.spawn(async { server.await.expect("the socket stays") });
            Self { lists, calls, authorities, _server: tasks }
        }

        /// Sends a new list to every open stream.
        pub(crate) fn list(&self, devices: Vec<Device>) {
            self.lists.send_replace(Some(devices));
        }

        /// Ends every open stream from the plugin's side.
        pub(crate) fn end_streams(&self) {
            self.lists.send_replace(None);
        }

        /// What the kubelet did so far.
        pub(crate) fn calls(&self) -> Vec<Call> {
            self.calls.borrow().clone()
        }

        /// Every `:authority` that was seen.
        pub(crate) fn authorities(&self) -> BTreeSet<String> {
            self.authorities.borrow().clone()
        }

        /// Waits until the calls are as `wanted`.
        pub(crate) async fn called(&self, mut wanted: impl FnMut(&[Call]) -> bool) {
            let mut calls = self.calls.subscribe();
            let called = calls.wait_for(|calls| wanted(calls));
            soon("a call by the kubelet", called).await.unwrap();
        }
    }

    /// Registers as a plugin does; the kubelet's answer.
    pub(crate) async fn register(
        directory: &Path,
        endpoint: &str,
        resource: &str,
    ) -> Result<(), Status> {
        let socket = directory.join("kubelet.sock");
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let kubelet = Endpoint::from_static("http://localhost");
        let channel = kubelet.connect_with_connector(connector).await;
        let mut client = RegistrationClient::new(channel.expect("the kubelet listens"));
        let request = RegisterRequest {
            version: VERSION.to_owned(),
            endpoint: endpoint.to_owned(),
            resource_name: resource.to_owned(),
            options: None,
        };
        client.register(request).await.map(drop)
    }

    struct Plugin {
        script: Script,
        lists: watch::Sender<Option<Vec<Device>>>,
        calls: watch::Sender<Vec<Call>>,
    }

    impl Plugin {
        fn note(&self, call: Call) {
            self.calls.send_modify(|calls| calls.push(call));
        }
    }

    /// Notes the end of a stream, whoever ends it.
    struct NoteEnd(watch::Sender<Vec<Call>>);

    impl Drop for NoteEnd {
        fn drop(&mut self) {
            self.0.send_modify(|calls| calls.push(Call::StreamEnded));
        }
    }

    #[tonic::async_trait]
    impl DevicePlugin for Plugin {
        type ListAndWatchStream =
            Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

        async fn get_device_plugin_options(
            &self,
            _: Request<Empty>,
        ) -> Result<Response<DevicePluginOptions>, Status> {
            self.note(Call::Options);
            pass(&self.script.options_gate).await;
            Ok(Response::new(self.script.options))
        }

        async fn list_and_watch(
            &self,
            _: Request<Empty>,
        ) -> Result<Response<Self::ListAndWatchStream>, Status> {
            self.note(Call::ListAndWatch);
            let note_end = NoteEnd(self.calls.clone());
            let lists = WatchStream::new(self.lists.subscribe()).map_while(|list| list);
            let answers = lists.map(move |devices| {
                let _open = &note_end;
                Ok(ListAndWatchResponse { devices })
            });
            Ok(Response::new(Box::pin(answers)))
        }

        async fn get_preferred_allocation(
            &self,
            request: Request<PreferredAllocationRequest>,
        ) -> Result<Response<PreferredAllocationResponse>, Status> {
            let asked = request.into_inner().container_requests.remove(0);
            self.note(Call::Preferred {
                available: asked.available_device_i_ds,
                must_include: asked.must_include_device_i_ds,
                size: asked.allocation_size,
            });
            let device_i_ds = self.script.preferred.clone()?;
            let container_responses = vec![ContainerPreferredAllocationResponse { device_i_ds }];
            Ok(Response::new(PreferredAllocationResponse { container_responses }))
        }

        async fn allocate(
            &self,
            request: Request<AllocateRequest>,
        ) -> Result<Response<AllocateResponse>, Status> {
            let ids = request.into_inner().container_requests.remove(0).devices_ids;
            self.note(Call::Allocate(ids.clone()));
            pass(&self.script.allocate_gate).await;
            self.script.allocate.clone()?;
            let cdi = |id| CdiDevice { name: format!("{GPU}={id}") };
            let response = ContainerAllocateResponse {
                envs: [("DEVICES".to_owned(), ids.join(","))].into(),
                cdi_devices: ids.iter().map(cdi).collect(),
                ..Default::default()
            };
            Ok(Response::new(AllocateResponse { container_responses: vec![response] }))
        }

        async fn pre_start_container(
            &self,
            request: Request<PreStartContainerRequest>,
        ) -> Result<Response<PreStartContainerResponse>, Status> {
            self.note(Call::PreStart(request.into_inner().devices_ids));
            pass(&self.script.pre_start_gate).await;
            self.script.pre_start.clone()?;
            Ok(Response::new(PreStartContainerResponse {}))
        }
    }
}
