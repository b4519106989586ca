//! The embedded scheduler, which is the oracle of what claims get: order, constraints, taints, counters,
//! shared devices, and pools that are not complete.

use ix_device_plugin::demo::api_server::{ApiServer, ObjectKind, ServerVersion};
use ix_device_plugin::demo::scheduler::{claim_for_extended_resource, schedule};
use serde_json::{Value, json};

const NODE: &str = "worker-1";
const DRIVER: &str = "gpu.iluvatar.com";

/// Two dual-chip boards as chips, and the classes of the chart.
async fn server(devices: Value) -> ApiServer {
    let server = ApiServer::start(ServerVersion::V1_36, NODE).await.unwrap();
    publish(&server, "a", 1, 1, devices);
    for (name, expression) in [
        ("gpu", format!("device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].wholeBoard")),
        (
            "chip",
            format!("device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].chips == 1"),
        ),
    ] {
        let resource = (name == "gpu").then_some("iluvatar.com/gpu");
        let class = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": { "name": name },
            "spec": {
                "selectors": [{ "cel": { "expression": expression } }],
                "extendedResourceName": resource,
            },
        });
        server.create(ObjectKind::DeviceClass, "", class).unwrap();
    }
    server
}

#[expect(clippy::needless_pass_by_value, reason = "callers write the value in place")]
fn publish(server: &ApiServer, name: &str, generation: i64, count: i64, devices: Value) {
    let pool = json!({ "name": NODE, "generation": generation, "resourceSliceCount": count });
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": { "name": name },
        "spec": { "driver": DRIVER, "nodeName": NODE, "pool": pool, "devices": devices },
    });
    server.create(ObjectKind::ResourceSlice, "", slice).unwrap();
}

fn chip(name: &str, board: &str) -> Value {
    json!({ "name": name, "attributes": {
        "chips": { "int": 1 }, "wholeBoard": { "bool": false }, "board": { "string": board },
    } })
}

fn chips() -> Value {
    json!([chip("a1", "a"), chip("b1", "b"), chip("a2", "a"), chip("b2", "b")])
}

fn with(mut device: Value, field: &str, value: Value) -> Value {
    device[field] = value;
    device
}

fn exactly(class: &str, count: usize) -> Value {
    json!({ "name": "gpu", "exactly": { "deviceClassName": class, "count": count } })
}

/// The devices that a claim gets, or why it gets none.
#[expect(clippy::needless_pass_by_value, reason = "callers write the value in place")]
fn claim(
    server: &ApiServer,
    name: &str,
    requests: Value,
    constraints: Value,
) -> Result<String, String> {
    let claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": { "name": name, "namespace": "ai" },
        "spec": { "devices": { "requests": requests, "constraints": constraints } },
    });
    server.create(ObjectKind::ResourceClaim, "ai", claim).unwrap();
    again(server, name)
}

fn again(server: &ApiServer, name: &str) -> Result<String, String> {
    let allocated = schedule(server, NODE, "ai", name).map_err(|error| error.to_string())?;
    let results = allocated.pointer("/status/allocation/devices/results").unwrap();
    let devices = results.as_array().unwrap().iter().map(|it| it["device"].as_str().unwrap());
    Ok(devices.collect::<Vec<_>>().join(" "))
}

#[tokio::test]
async fn devices_are_given_in_the_order_of_the_list_and_never_twice() {
    let server = server(chips()).await;
    assert_eq!(claim(&server, "x", json!([exactly("chip", 3)]), Value::Null).unwrap(), "a1 b1 a2");
    let refused = claim(&server, "y", json!([exactly("chip", 2)]), Value::Null).unwrap_err();
    assert_eq!(refused, "cannot allocate all claims; devices: 1 free, 3 in use");
    server.delete(ObjectKind::ResourceClaim, "ai", "x").unwrap();
    assert_eq!(again(&server, "y").unwrap(), "a1 b1");
    assert_eq!(again(&server, "y").unwrap(), "a1 b1", "a claim keeps what it has");
}

#[tokio::test]
async fn a_constraint_makes_the_search_go_back() {
    let server = server(chips()).await;
    let board = json!([{ "matchAttribute": "gpu.iluvatar.com/board" }]);
    assert_eq!(claim(&server, "x", json!([exactly("chip", 2)]), board.clone()).unwrap(), "a1 a2");
    assert_eq!(claim(&server, "y", json!([exactly("chip", 2)]), board.clone()).unwrap(), "b1 b2");
    assert!(claim(&server, "z", json!([exactly("chip", 2)]), board).is_err());
    let missing = json!([{ "matchAttribute": "gpu.iluvatar.com/missing" }]);
    server.delete(ObjectKind::ResourceClaim, "ai", "x").unwrap();
    assert!(claim(&server, "m", json!([exactly("chip", 1)]), missing).is_err());
}

#[tokio::test]
async fn tainted_devices_go_only_to_claims_that_tolerate_them() {
    let taint = json!([{ "key": "gpu.iluvatar.com/unhealthy", "value": "AerFatal",
        "effect": "NoSchedule" }]);
    let note = json!([{ "key": "gpu.iluvatar.com/warning", "effect": "None" }]);
    let devices =
        json!([with(chip("a1", "a"), "taints", taint), with(chip("a2", "a"), "taints", note)]);
    let server = server(devices).await;
    let mut request = exactly("chip", 2);
    let refused = claim(&server, "x", json!([request]), Value::Null).unwrap_err();
    let said = "cannot allocate all claims; devices: 1 free, 1 tainted \
                gpu.iluvatar.com/unhealthy=AerFatal";
    assert_eq!(refused, said);
    request["exactly"]["tolerations"] =
        json!([{ "key": "gpu.iluvatar.com/unhealthy", "operator": "Exists" }]);
    assert_eq!(claim(&server, "y", json!([request]), Value::Null).unwrap(), "a1 a2");
}

#[tokio::test]
async fn a_board_and_its_chips_exclude_each_other_by_their_counter() {
    let consumes = |count: &str| json!([{ "counterSet": "boards", "counters": { "b-a": { "value": count } } }]);
    let board = json!({ "name": "a", "attributes": { "wholeBoard": { "bool": true } } });
    let devices = json!([
        with(board, "consumesCounters", consumes("2")),
        with(chip("a1", "a"), "consumesCounters", consumes("1")),
        with(chip("a2", "a"), "consumesCounters", consumes("1")),
    ]);
    let server = server(json!([])).await;
    server.delete(ObjectKind::ResourceSlice, "", "a").unwrap();
    publish(&server, "1-devices", 2, 2, devices);
    let none = claim(&server, "early", json!([exactly("chip", 1)]), Value::Null).unwrap_err();
    assert_eq!(none, "cannot allocate all claims; devices: none", "the pool is not complete");
    let pool = json!({ "name": NODE, "generation": 2, "resourceSliceCount": 2 });
    let counters = json!([{ "name": "boards", "counters": { "b-a": { "value": "2" } } }]);
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
        "metadata": { "name": "0-counters" },
        "spec": { "driver": DRIVER, "nodeName": NODE, "pool": pool, "sharedCounters": counters },
    });
    server.create(ObjectKind::ResourceSlice, "", slice).unwrap();
    assert_eq!(again(&server, "early").unwrap(), "a1");
    let refused = claim(&server, "board", json!([exactly("gpu", 1)]), Value::Null).unwrap_err();
    assert!(refused.contains("1 without free counters"), "{refused}");
    server.delete(ObjectKind::ResourceClaim, "ai", "early").unwrap();
    assert_eq!(again(&server, "board").unwrap(), "a");
    assert!(claim(&server, "late", json!([exactly("chip", 1)]), Value::Null).is_err());
}

#[tokio::test]
async fn only_the_highest_generation_counts() {
    let server = server(json!([chip("old", "a")])).await;
    publish(&server, "b", 2, 1, json!([chip("new", "a")]));
    assert_eq!(claim(&server, "x", json!([exactly("chip", 1)]), Value::Null).unwrap(), "new");
}

#[tokio::test]
async fn a_shared_device_has_as_many_claims_as_slots() {
    let policy = json!({ "default": "1", "validRange": { "min": "1", "step": "1" } });
    let capacity = json!({ "slots": { "value": "2", "requestPolicy": policy } });
    let shared =
        with(with(chip("a1", "a"), "capacity", capacity), "allowMultipleAllocations", json!(true));
    let server = server(json!([shared])).await;
    for name in ["x", "y"] {
        assert_eq!(claim(&server, name, json!([exactly("chip", 1)]), Value::Null).unwrap(), "a1");
    }
    let refused = claim(&server, "z", json!([exactly("chip", 1)]), Value::Null).unwrap_err();
    assert_eq!(refused, "cannot allocate all claims; devices: 1 without a free slot");
    let share = |name: &str| {
        let claim = server.get(ObjectKind::ResourceClaim, "ai", name).unwrap();
        claim.pointer("/status/allocation/devices/results/0/shareID").unwrap().clone()
    };
    assert_ne!(share("x"), share("y"));
}

#[tokio::test]
async fn the_first_alternative_that_fits_is_named_in_the_result() {
    let server = server(chips()).await;
    let alternatives = json!([
        { "name": "whole", "deviceClassName": "gpu" },
        { "name": "chips", "deviceClassName": "chip", "count": 2 },
    ]);
    let requests = json!([{ "name": "gpu", "firstAvailable": alternatives }]);
    assert_eq!(claim(&server, "x", requests, Value::Null).unwrap(), "a1 b1");
    let claim = server.get(ObjectKind::ResourceClaim, "ai", "x").unwrap();
    let result = claim.pointer("/status/allocation/devices/results/0").unwrap();
    assert_eq!(result["request"], "gpu/chips");
}

#[tokio::test]
async fn admin_access_takes_nothing_away() {
    let server = server(json!([chip("a1", "a")])).await;
    let mut request = exactly("chip", 1);
    request["exactly"]["adminAccess"] = json!(true);
    assert_eq!(claim(&server, "monitor", json!([request]), Value::Null).unwrap(), "a1");
    assert_eq!(claim(&server, "x", json!([exactly("chip", 1)]), Value::Null).unwrap(), "a1");
}

#[tokio::test]
async fn an_extended_resource_becomes_a_claim_of_its_device_class() {
    let board =
        |name: &str| json!({ "name": name, "attributes": { "wholeBoard": { "bool": true } } });
    let server = server(json!([board("a"), board("b")])).await;
    claim_for_extended_resource(&server, "ai", "pod-1", "iluvatar.com/gpu", 2).unwrap();
    assert_eq!(again(&server, "pod-1-extended-resources").unwrap(), "a b");
    let implicit = "deviceclass.resource.kubernetes.io/gpu";
    claim_for_extended_resource(&server, "ai", "pod-2", implicit, 1).unwrap();
    assert!(again(&server, "pod-2-extended-resources").is_err());
    let error = claim_for_extended_resource(&server, "ai", "pod-3", "nvidia.com/gpu", 1);
    assert_eq!(error.unwrap_err().to_string(), "no device class serves nvidia.com/gpu");
}
