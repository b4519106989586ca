//! The client of the Kubernetes API against the embedded API server, over real connections; and what
//! that server refuses and drops, which is what the real one does.

use std::time::Duration;

use ix_device_plugin::demo::api_server::{
    ApiFailure, ApiFault, ApiServer, ApiVerb, FaultEffect, FeatureGates, ObjectKind, ServerVersion,
};
use ix_device_plugin::host::kube_api::{
    ApiAccess, KubeApi, KubeApiError, REQUEST_TIMEOUT, SliceEvent, SliceEvents,
};
use k8s_openapi::api::resource::v1::ResourceSlice;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use crate::support::clock::{skip_ahead, soon};
use crate::support::http::exchange;

const NODE: &str = "worker-1";
const DRIVER: &str = "gpu.iluvatar.com";

async fn server() -> ApiServer {
    ApiServer::start(ServerVersion::V1_36, NODE).await.unwrap()
}

async fn client(server: &ApiServer) -> KubeApi {
    KubeApi::open(&ApiAccess::Plain(server.url())).await.unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "callers write the value in place")]
fn slice(name: &str, device: Value) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
        "metadata": { "name": name },
        "spec": {
            "driver": DRIVER, "nodeName": NODE,
            "pool": { "name": NODE, "generation": 1, "resourceSliceCount": 1 },
            "devices": [device],
        },
    })
}

fn typed(slice: Value) -> ResourceSlice {
    serde_json::from_value(slice).unwrap()
}

fn plain_device() -> Value {
    json!({ "name": "chip-0000-13-00-0", "attributes": { "chips": { "int": 1 } } })
}

/// The next event, without the beginnings and ends of lists.
async fn next(events: &mut SliceEvents) -> Result<String, KubeApiError> {
    let name = |slice: &ResourceSlice| slice.metadata.name.clone().unwrap();
    loop {
        match soon("an event", events.next()).await.unwrap()? {
            SliceEvent::Init | SliceEvent::InitDone => {}
            SliceEvent::InitApply(slice) => return Ok(format!("listed {}", name(&slice))),
            SliceEvent::Apply(slice) => return Ok(format!("applied {}", name(&slice))),
            SliceEvent::Delete(slice) => return Ok(format!("deleted {}", name(&slice))),
        }
    }
}

#[tokio::test]
async fn slices_are_created_replaced_and_deleted_by_their_version() {
    let server = server().await;
    let api = client(&server).await;
    let created = api.create_slice(&typed(slice("a", plain_device()))).await.unwrap();
    let twice = api.create_slice(&typed(slice("a", plain_device()))).await.unwrap_err();
    assert!(twice.is_conflict(), "{twice}");
    let mut changed = created.clone();
    changed.spec.pool.generation = 2;
    let replaced = api.replace_slice(&changed).await.unwrap();
    assert_ne!(replaced.metadata.resource_version, created.metadata.resource_version);
    assert_eq!(replaced.metadata.uid, created.metadata.uid);
    let stale = api.replace_slice(&created).await.unwrap_err();
    assert!(stale.is_conflict(), "{stale}");
    let old = created.metadata.resource_version.unwrap();
    assert!(api.delete_slice("a", old.clone()).await.unwrap_err().is_conflict());
    api.delete_slice("a", replaced.metadata.resource_version.unwrap()).await.unwrap();
    api.delete_slice("a", old).await.unwrap();
    assert_eq!(server.store().all::<ResourceSlice>(ObjectKind::ResourceSlice), []);
}

#[tokio::test]
async fn a_write_that_changes_nothing_makes_no_new_version() {
    let server = server().await;
    let api = client(&server).await;
    let created = api.create_slice(&typed(slice("a", plain_device()))).await.unwrap();
    assert_eq!(api.replace_slice(&created).await.unwrap(), created);
}

#[tokio::test]
async fn claims_and_the_nodes_uid_are_read() {
    let server = server().await;
    let api = client(&server).await;
    let claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": { "name": "training", "namespace": "ai" }, "spec": { "devices": {} },
    });
    let stored = server.create(ObjectKind::ResourceClaim, "ai", claim).unwrap();
    let claim = api.claim("ai", "training").await.unwrap().unwrap();
    assert_eq!(claim.metadata.uid.as_deref(), stored["metadata"]["uid"].as_str());
    assert_eq!(api.claim("ai", "another").await.unwrap(), None);
    let node = server.get(ObjectKind::Node, "", NODE).unwrap();
    assert_eq!(api.node_uid(NODE).await.unwrap(), node["metadata"]["uid"].as_str().unwrap());
    let error = api.node_uid("worker-2").await.unwrap_err().to_string();
    assert_eq!(
        error,
        "the API server refused to get the node: 404 NotFound: nodes \"worker-2\" not found"
    );
}

#[tokio::test]
async fn a_watch_lists_follows_and_survives_cut_connections_and_forgotten_versions() {
    let server = server().await;
    let api = client(&server).await;
    api.create_slice(&typed(slice("a", plain_device()))).await.unwrap();
    let mut foreign = slice("foreign", plain_device());
    foreign["spec"]["driver"] = json!("gpu.example.com");
    server.create(ObjectKind::ResourceSlice, "", foreign).unwrap();
    let mut events = api.slice_events(DRIVER, NODE);
    assert_eq!(next(&mut events).await.unwrap(), "listed a");
    server.create(ObjectKind::ResourceSlice, "", slice("b", plain_device())).unwrap();
    assert_eq!(next(&mut events).await.unwrap(), "applied b");
    server.cut_watches();
    server.delete(ObjectKind::ResourceSlice, "", "a").unwrap();
    assert_eq!(next(&mut events).await.unwrap(), "deleted a");
    server.compact();
    let gone = next(&mut events).await.unwrap_err();
    assert_eq!(gone.code(), Some(410), "{gone}");
    assert_eq!(next(&mut events).await.unwrap(), "listed b");
    server.delete_slices_of(NODE).unwrap();
    assert_eq!(next(&mut events).await.unwrap(), "deleted b");
}

#[tokio::test]
async fn a_bookmark_saves_a_list_after_versions_were_forgotten() {
    let server = server().await;
    let api = client(&server).await;
    api.create_slice(&typed(slice("a", plain_device()))).await.unwrap();
    let mut events = api.slice_events(DRIVER, NODE);
    assert_eq!(next(&mut events).await.unwrap(), "listed a");
    let lists = |server: &ApiServer| {
        let requests = server.received().into_iter();
        requests.filter(|it| it.request.verb == ApiVerb::List).count()
    };
    let before = lists(&server);
    let watch = tokio::spawn(async move {
        let event = next(&mut events).await;
        (events, event)
    });
    let is_watching = |requests: &[_]| {
        let verb = |it: &ix_device_plugin::demo::api_server::ReceivedRequest| it.request.verb;
        requests.iter().any(|it| verb(it) == ApiVerb::Watch)
    };
    soon("the watch", server.wait_for_requests(is_watching)).await;
    server.bookmark(ObjectKind::ResourceSlice);
    server.cut_watches();
    server.create(ObjectKind::ResourceSlice, "", slice("b", plain_device())).unwrap();
    let (_events, event) = soon("an event", watch).await.unwrap();
    assert_eq!(event.unwrap(), "applied b");
    assert_eq!(lists(&server), before);
}

#[tokio::test]
async fn errors_name_what_was_asked_and_when_to_ask_again() {
    let mut server = server().await;
    let api = client(&server).await;
    let busy = ApiFailure { retry_after: Some(7), ..ApiFailure::of_code(429, "too many requests") };
    server.fail(ApiFault::of_slices(ApiVerb::Create, 1, FaultEffect::Failure(busy)));
    let created = typed(slice("a", plain_device()));
    let error = api.create_slice(&created).await.unwrap_err();
    assert_eq!((error.code(), error.retry_after()), (Some(429), Some(Duration::from_secs(7))));
    assert_eq!(
        error.to_string(),
        "the API server refused to create a resourceslice: 429 TooManyRequests: too many requests"
    );
    server.fail(ApiFault::of_slices(ApiVerb::Create, 1, FaultEffect::AnswerLost));
    let error = api.create_slice(&created).await.unwrap_err();
    assert!(matches!(error, KubeApiError::Unreachable(..)), "{error}");
    assert!(api.create_slice(&created).await.unwrap_err().is_conflict());
    server.stop().await;
    let error = api.claim("ai", "training").await.unwrap_err().to_string();
    assert!(error.starts_with("cannot get a resourceclaim: "), "{error}");
    server.restart().await.unwrap();
    assert_eq!(api.claim("ai", "training").await.unwrap(), None);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_after_ten_seconds() {
    let server = server().await;
    let api = client(&server).await;
    server.fail(ApiFault { verb: None, kind: None, times: 1, effect: FaultEffect::Held });
    let claim = tokio::spawn(async move { api.claim("ai", "training").await });
    soon("the request", server.wait_for_requests(|requests| !requests.is_empty())).await;
    skip_ahead(REQUEST_TIMEOUT).await;
    let error = soon("the end of it", claim).await.unwrap().unwrap_err();
    let said = "the API server did not answer within 10s: get a resourceclaim";
    assert_eq!(error.to_string(), said);
}

#[tokio::test]
async fn an_identity_that_cannot_be_used_is_refused_with_a_remedy() {
    let open = async |access| KubeApi::open(&access).await.err().unwrap().to_string();
    let file = std::path::PathBuf::from("/nowhere/kubeconfig");
    let error = open(ApiAccess::Kubeconfig(file)).await;
    assert!(error.starts_with("kubeconfig /nowhere/kubeconfig: "), "{error}");
    let error = open(ApiAccess::Plain("https://127.0.0.1:6443".to_owned())).await;
    assert_eq!(
        error,
        "API server address \"https://127.0.0.1:6443\": the scheme is not http; it must be an \
         http:// URL"
    );
    let error = open(ApiAccess::ServiceAccount).await;
    assert!(error.starts_with("no service account: "), "{error}");
}

/// Real certificates: the TLS stack finds its provider, and reads the CA of a kubeconfig.
#[tokio::test]
async fn a_kubeconfig_with_an_https_server_is_accepted() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
        clusters:\n- name: here\n  cluster: {server: 'https://127.0.0.1:1', \
        insecure-skip-tls-verify: true}\n\
        users:\n- name: us\n  user: {token: secret}\n\
        contexts:\n- name: here\n  context: {cluster: here, user: us}\n";
    std::fs::write(&path, text).unwrap();
    let api = KubeApi::open(&ApiAccess::Kubeconfig(path)).await.unwrap();
    let error = api.node_uid(NODE).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot get the node: "), "{error}");
}

// -- What the server refuses

/// What is wrong with a slice of this device.
async fn problems(version: ServerVersion, device: Value) -> String {
    let server = ApiServer::start(version, NODE).await.unwrap();
    let refused = server.create(ObjectKind::ResourceSlice, "", slice("a", device));
    let failure = refused.unwrap_err();
    assert_eq!((failure.code, failure.reason), (422, "Invalid"));
    failure.message
}

#[tokio::test]
async fn a_version_that_is_not_semver_makes_the_whole_slice_invalid() {
    let device = json!({ "name": "a", "attributes": { "v": { "version": "4.3.0.1" } } });
    let message = problems(ServerVersion::V1_36, device).await;
    assert!(
        message.contains("must be a string compatible with semver.org spec 2.0.0"),
        "{message}"
    );
}

#[tokio::test]
async fn names_values_and_taints_must_have_their_form() {
    let taint = |effect: &str| json!({ "key": "gpu.iluvatar.com/warning", "effect": effect });
    for (version, device, expected) in [
        (ServerVersion::V1_36, json!({ "name": "0000:13:00.0" }), "must be a DNS label"),
        (
            ServerVersion::V1_36,
            json!({ "name": "a", "attributes": { "a-b": { "int": 1 } } }),
            "must be a C identifier",
        ),
        (
            ServerVersion::V1_36,
            json!({ "name": "a", "attributes": { "a": { "int": 1, "bool": true } } }),
            "exactly one value",
        ),
        (
            ServerVersion::V1_36,
            json!({ "name": "a", "attributes": { "a": { "string": "x".repeat(65) } } }),
            "at most 64 bytes",
        ),
        (
            ServerVersion::V1_36,
            json!({ "name": "a", "taints": [taint("Never")] }),
            "unsupported value",
        ),
        (
            ServerVersion::V1_36,
            json!({ "name": "a", "capacity":
                { "slots": { "value": "4", "requestPolicy": { "default": "1" } } } }),
            "needs allowMultipleAllocations",
        ),
    ] {
        let message = problems(version, device).await;
        assert!(message.contains(expected), "{message}");
    }
    let gates = FeatureGates { device_taints: true, ..ServerVersion::V1_34.default_gates() };
    let server = ApiServer::start_with(ServerVersion::V1_34, gates, NODE).await.unwrap();
    let device = json!({ "name": "a", "taints": [taint("None")] });
    let refused = server.create(ObjectKind::ResourceSlice, "", slice("a", device)).unwrap_err();
    assert!(refused.message.contains("unsupported value: \"None\""), "{refused}");
}

fn devices(count: usize, device: impl Fn(usize) -> Value) -> Value {
    let mut slice = slice("a", Value::Null);
    slice["spec"]["devices"] = (0..count).map(device).collect();
    slice
}

#[tokio::test]
async fn a_slice_has_at_most_128_devices_and_64_where_any_has_a_taint() {
    let server = server().await;
    let plain = |index: usize| json!({ "name": format!("d-{index}") });
    let tainted = |index: usize| {
        let taint = json!([{ "key": "a", "effect": "NoSchedule" }]);
        if index == 0 { json!({ "name": "d-0", "taints": taint }) } else { plain(index) }
    };
    for (slice, is_valid) in [
        (devices(128, plain), true),
        (devices(129, plain), false),
        (devices(64, tainted), true),
        (devices(65, tainted), false),
    ] {
        let created = server.create(ObjectKind::ResourceSlice, "", slice);
        assert_eq!(created.is_ok(), is_valid, "{created:?}");
        let _ = server.delete(ObjectKind::ResourceSlice, "", "a");
    }
}

#[tokio::test]
async fn counters_have_their_own_slices_and_limits() {
    let server = server().await;
    let set = |name: &str, count: usize| {
        let counters = (0..count).map(|index| (format!("c-{index}"), json!({ "value": "2" })));
        json!({ "name": name, "counters": counters.collect::<serde_json::Map<_, _>>() })
    };
    let with_sets = |sets: Vec<Value>| {
        let mut slice = slice("a", plain_device());
        slice["spec"].as_object_mut().unwrap().remove("devices");
        slice["spec"]["sharedCounters"] = json!(sets);
        slice
    };
    let mut both = slice("a", plain_device());
    both["spec"]["sharedCounters"] = json!([set("boards", 1)]);
    let eight = (0..8).map(|index| set(&format!("s-{index}"), 32)).collect();
    for (slice, is_valid) in [
        (with_sets(eight), true),
        (with_sets(vec![set("boards", 33)]), false),
        (with_sets(vec![set("boards", 0)]), false),
        (with_sets((0..9).map(|index| set(&format!("s-{index}"), 1)).collect()), false),
        (both, false),
    ] {
        let created = server.create(ObjectKind::ResourceSlice, "", slice);
        assert_eq!(created.is_ok(), is_valid, "{created:?}");
        let _ = server.delete(ObjectKind::ResourceSlice, "", "a");
    }
}

#[tokio::test]
async fn driver_pool_and_node_of_a_slice_never_change() {
    let server = server().await;
    server.create(ObjectKind::ResourceSlice, "", slice("a", plain_device())).unwrap();
    for path in ["/spec/driver", "/spec/nodeName", "/spec/pool/name"] {
        let mut changed = slice("a", plain_device());
        *changed.pointer_mut(path).unwrap() = json!("another");
        let refused = server.update(ObjectKind::ResourceSlice, "", changed).unwrap_err();
        let said = format!("{}: field is immutable", path[1..].replace('/', "."));
        assert!(refused.message.contains(&said), "{refused}");
    }
}

#[tokio::test]
async fn each_version_drops_the_fields_of_gates_that_are_off() {
    let device = json!({
        "name": "a", "allowMultipleAllocations": true,
        "capacity": { "slots": { "value": "4", "requestPolicy": { "default": "1" } } },
        "taints": [{ "key": "a", "effect": "NoSchedule" }],
        "consumesCounters": [{ "counterSet": "s", "counters": { "c": { "value": "1" } } }],
    });
    for version in ServerVersion::ALL {
        let server = ApiServer::start(version, NODE).await.unwrap();
        let stored =
            server.create(ObjectKind::ResourceSlice, "", slice("a", device.clone())).unwrap();
        let device = &stored["spec"]["devices"][0];
        let is_on = version >= ServerVersion::V1_36;
        for field in ["taints", "consumesCounters", "allowMultipleAllocations"] {
            assert_eq!(!device[field].is_null(), is_on, "{version:?} {field}");
        }
        let policy = &device["capacity"]["slots"]["requestPolicy"];
        assert_eq!((!policy.is_null(), is_on), (is_on, is_on), "{version:?}");
        let time = &device["taints"][0]["timeAdded"];
        assert_eq!(time.is_string(), is_on, "{version:?} {time}");
    }
}

#[tokio::test]
async fn slices_are_selected_by_pool_from_1_37_on_only() {
    for version in ServerVersion::ALL {
        let server = ApiServer::start(version, NODE).await.unwrap();
        let address = server.url()["http://".len()..].parse().unwrap();
        let request = format!(
            "GET /apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.pool.name%3D{NODE} \
             HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n"
        );
        let answer = exchange(address, request.as_bytes()).await;
        let is_understood = answer.starts_with("HTTP/1.1 200 ");
        assert_eq!(is_understood, version == ServerVersion::V1_37, "{version:?}: {answer}");
    }
}
