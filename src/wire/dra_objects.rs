//! `ResourceSlices` and `ResourceClaims` of the Kubernetes API, and what they mean here.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, Counter, CounterSet, Device,
    DeviceAttribute, DeviceCapacity, DeviceCounterConsumption, DeviceRequestAllocationResult,
    DeviceTaint, ResourceClaim, ResourcePool, ResourceSlice, ResourceSliceSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::model::dra::DRIVER_NAME;
use crate::model::dra::claim::{AllocatedDevice, ClaimRef, DraAllocation, DraClaim, OpaqueConfig};
use crate::model::dra::device::{
    AttributeValue, CounterUse, DraTaint, SharedCounters, TaintEffect,
};
use crate::model::dra::slice::{DraSlice, NodeIdentity, PublishedDevice, SeenSlice, SliceContent};
use crate::parse::quantity::parse_count;

/// The capacity that claims share.
const SLOTS: &str = "slots";

/// A slice as it is sent. `replaced` is what the server has: its version, and the times of its
/// taints, which the server sets.
#[must_use]
pub fn slice_object(
    slice: &DraSlice,
    node: &NodeIdentity,
    replaced: Option<&ResourceSlice>,
) -> ResourceSlice {
    let (devices, counters) = content_objects(&slice.content, replaced);
    ResourceSlice {
        metadata: ObjectMeta {
            name: Some(slice.name.clone()),
            owner_references: Some(vec![owner(node)]),
            resource_version: replaced.and_then(|slice| slice.metadata.resource_version.clone()),
            ..ObjectMeta::default()
        },
        spec: ResourceSliceSpec {
            driver: DRIVER_NAME.to_owned(),
            node_name: Some(node.name.clone()),
            pool: ResourcePool {
                name: node.name.clone(),
                generation: slice.generation,
                resource_slice_count: slice.slice_count,
            },
            devices,
            shared_counters: counters,
            ..ResourceSliceSpec::default()
        },
    }
}

/// What is in a slice, as it is sent: devices or counters.
#[must_use]
pub fn content_objects(
    content: &SliceContent,
    replaced: Option<&ResourceSlice>,
) -> (Option<Vec<Device>>, Option<Vec<CounterSet>>) {
    match content {
        SliceContent::Devices(devices) => {
            (Some(devices.iter().map(|it| device_object(it, replaced)).collect()), None)
        }
        SliceContent::Counters(sets) => (None, Some(sets.iter().map(counter_set).collect())),
    }
}

/// The Node: whoever deletes it deletes its slices.
fn owner(node: &NodeIdentity) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.name.clone(),
        uid: node.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn device_object(device: &PublishedDevice, replaced: Option<&ResourceSlice>) -> Device {
    let attributes = device.attributes.iter();
    let attributes = attributes.map(|(name, value)| (name.clone(), attribute(value)));
    let times = replaced.and_then(|slice| {
        slice.spec.devices.iter().flatten().find(|known| known.name == device.name)
    });
    let taints = device.taints.iter().map(|taint| taint_object(taint, times));
    Device {
        name: device.name.clone(),
        attributes: some_map(attributes.collect()),
        capacity: device.slots.map(|slots| BTreeMap::from([(SLOTS.to_owned(), capacity(slots))])),
        allow_multiple_allocations: device.slots.map(|_| true),
        consumes_counters: device.counter.as_ref().map(|it| vec![consumption(it)]),
        taints: some_list(taints.collect()),
        ..Device::default()
    }
}

fn some_map<V>(map: BTreeMap<String, V>) -> Option<BTreeMap<String, V>> {
    (!map.is_empty()).then_some(map)
}

fn some_list<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn attribute(value: &AttributeValue) -> DeviceAttribute {
    let mut attribute = DeviceAttribute::default();
    match value {
        AttributeValue::Bool(value) => attribute.bool = Some(*value),
        AttributeValue::Int(value) => attribute.int = Some(*value),
        AttributeValue::Text(value) => attribute.string = Some(value.clone()),
        AttributeValue::Version(value) => attribute.version = Some(value.clone()),
    }
    attribute
}

/// A request that names no capacity gets one slot.
fn capacity(slots: u32) -> DeviceCapacity {
    let one = || Quantity("1".to_owned());
    let range = CapacityRequestPolicyRange { min: one(), max: None, step: Some(one()) };
    DeviceCapacity {
        value: Quantity(slots.to_string()),
        request_policy: Some(CapacityRequestPolicy {
            default: Some(one()),
            valid_range: Some(range),
            valid_values: None,
        }),
    }
}

fn counter(value: u32) -> Counter {
    Counter { value: Quantity(value.to_string()) }
}

fn consumption(used: &CounterUse) -> DeviceCounterConsumption {
    DeviceCounterConsumption {
        counter_set: used.set.clone(),
        counters: BTreeMap::from([(used.counter.clone(), counter(used.chips))]),
    }
}

fn counter_set(set: &SharedCounters) -> CounterSet {
    let counters = set.counters.iter();
    let counters = counters.map(|(name, value)| (name.clone(), counter(*value)));
    CounterSet { name: set.name.clone(), counters: counters.collect() }
}

fn taint_object(taint: &DraTaint, known: Option<&Device>) -> DeviceTaint {
    let known = known.and_then(|device| {
        let mut taints = device.taints.iter().flatten();
        taints.find(|known| parse_taint(known).as_ref() == Some(taint))
    });
    DeviceTaint {
        key: taint.key.clone(),
        value: Some(taint.value.clone()),
        effect: taint.effect.to_string(),
        time_added: known.and_then(|known| known.time_added.clone()),
    }
}

/// A slice of our driver as the server has it.
#[must_use]
pub fn seen_slice(slice: &ResourceSlice, node: &NodeIdentity) -> SeenSlice {
    let spec = &slice.spec;
    SeenSlice {
        name: slice.metadata.name.clone().unwrap_or_default(),
        resource_version: slice.metadata.resource_version.clone().unwrap_or_default(),
        generation: spec.pool.generation,
        slice_count: spec.pool.resource_slice_count,
        content: is_ours(slice, node).then(|| slice_content(spec)).flatten(),
    }
}

fn is_ours(slice: &ResourceSlice, node: &NodeIdentity) -> bool {
    let spec = &slice.spec;
    let owners = slice.metadata.owner_references.iter().flatten();
    spec.driver == DRIVER_NAME
        && spec.pool.name == node.name
        && spec.node_name.as_ref() == Some(&node.name)
        && owners.into_iter().any(|owner| owner.kind == "Node" && owner.uid == node.uid)
}

/// What is in a slice; none where it has what this version never sends. What the server dropped is
/// absent.
#[must_use]
pub fn slice_content(spec: &ResourceSliceSpec) -> Option<SliceContent> {
    match (&spec.devices, &spec.shared_counters) {
        (devices, Some(sets)) if !sets.is_empty() => {
            let sets: Option<_> = sets.iter().map(parse_counter_set).collect();
            devices.as_ref().is_none_or(Vec::is_empty).then_some(SliceContent::Counters(sets?))
        }
        (devices, _) => {
            let devices: Option<_> = devices.iter().flatten().map(parse_device).collect();
            Some(SliceContent::Devices(devices?))
        }
    }
}

fn parse_device(device: &Device) -> Option<PublishedDevice> {
    let attributes = device.attributes.iter().flatten();
    let attributes: Option<BTreeMap<_, _>> =
        attributes.map(|(name, value)| Some((name.clone(), parse_attribute(value)?))).collect();
    let taints: Option<Vec<_>> = device.taints.iter().flatten().map(parse_taint).collect();
    // Only together are they a device that claims share.
    let is_shared = device.allow_multiple_allocations == Some(true);
    let slots = device.capacity.iter().flatten().find(|(name, _)| *name == SLOTS);
    let slots = slots.filter(|(_, capacity)| is_shared && capacity.request_policy.is_some());
    let counters = device.consumes_counters.iter().flatten().next();
    Some(PublishedDevice {
        name: device.name.clone(),
        attributes: attributes?,
        slots: slots.and_then(|(_, capacity)| parse_count(&capacity.value.0)),
        counter: counters.and_then(parse_consumption),
        taints: taints?,
    })
}

fn parse_attribute(attribute: &DeviceAttribute) -> Option<AttributeValue> {
    match attribute {
        DeviceAttribute { bool: Some(value), .. } => Some(AttributeValue::Bool(*value)),
        DeviceAttribute { int: Some(value), .. } => Some(AttributeValue::Int(*value)),
        DeviceAttribute { string: Some(value), .. } => Some(AttributeValue::Text(value.clone())),
        DeviceAttribute { version: Some(value), .. } => {
            Some(AttributeValue::Version(value.clone()))
        }
        _ => None,
    }
}

fn parse_taint(taint: &DeviceTaint) -> Option<DraTaint> {
    let effects = [TaintEffect::NoSchedule, TaintEffect::NoExecute];
    Some(DraTaint {
        key: taint.key.clone(),
        value: taint.value.clone().unwrap_or_default(),
        effect: effects.into_iter().find(|effect| effect.to_string() == taint.effect)?,
    })
}

fn parse_consumption(used: &DeviceCounterConsumption) -> Option<CounterUse> {
    let (counter, value) = used.counters.first_key_value()?;
    let chips = parse_count(&value.value.0)?;
    Some(CounterUse { set: used.counter_set.clone(), counter: counter.clone(), chips })
}

fn parse_counter_set(set: &CounterSet) -> Option<SharedCounters> {
    let counters = set.counters.iter();
    let counters: Option<_> = counters
        .map(|(name, counter)| Some((name.clone(), parse_count(&counter.value.0)?)))
        .collect();
    Some(SharedCounters { name: set.name.clone(), counters: counters? })
}

/// A claim as the server has it.
#[must_use]
pub fn claim(claim: &ResourceClaim) -> DraClaim {
    let metadata = &claim.metadata;
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let devices = allocation.map(|allocation| allocation.devices.clone().unwrap_or_default());
    let allocation = devices.map(|devices| DraAllocation {
        results: devices.results.into_iter().flatten().map(allocated_device).collect(),
        configs: devices
            .config
            .into_iter()
            .flatten()
            .filter_map(|config| {
                let requests = config.requests.unwrap_or_default();
                Some(OpaqueConfig { driver: config.opaque?.driver, requests })
            })
            .collect(),
    });
    DraClaim {
        uid: metadata.uid.clone().unwrap_or_default(),
        claim: ClaimRef {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        },
        allocation,
    }
}

fn allocated_device(result: DeviceRequestAllocationResult) -> AllocatedDevice {
    AllocatedDevice {
        request: result.request,
        driver: result.driver,
        pool: result.pool,
        device: result.device,
        admin_access: result.admin_access == Some(true),
        share_id: result.share_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn node() -> NodeIdentity {
        NodeIdentity { name: "gpu-node-1".to_owned(), uid: "5f0c9a52".to_owned() }
    }

    fn device() -> PublishedDevice {
        let attributes = [
            ("chips", AttributeValue::Int(1)),
            ("driverVersion", AttributeValue::Version("4.3.8".to_owned())),
            ("model", AttributeValue::Text("BI-V150".to_owned())),
            ("wholeBoard", AttributeValue::Bool(false)),
        ];
        PublishedDevice {
            name: "chip-0000-13-00-0".to_owned(),
            attributes: attributes.into_iter().map(|(name, it)| (name.to_owned(), it)).collect(),
            slots: None,
            counter: Some(CounterUse {
                set: "boards-0".to_owned(),
                counter: "b-0000-13-00-0".to_owned(),
                chips: 1,
            }),
            taints: vec![DraTaint {
                key: "gpu.iluvatar.com/unhealthy".to_owned(),
                value: "AerFatal".to_owned(),
                effect: TaintEffect::NoSchedule,
            }],
        }
    }

    fn slice(content: SliceContent) -> DraSlice {
        DraSlice {
            name: "00000-gpu.iluvatar.com-5f0c9a52".to_owned(),
            generation: 3,
            slice_count: 2,
            content,
        }
    }

    fn contents() -> Vec<SliceContent> {
        let shared = PublishedDevice { slots: Some(4), counter: None, ..device() };
        let counters = BTreeMap::from([("b-0000-13-00-0".to_owned(), 2)]);
        vec![
            SliceContent::Devices(Vec::new()),
            SliceContent::Devices(vec![device()]),
            SliceContent::Devices(vec![shared]),
            SliceContent::Counters(vec![SharedCounters { name: "boards-0".to_owned(), counters }]),
        ]
    }

    /// What an API server reads of what is sent: no field may be unknown to it.
    fn read_strictly<T: DeserializeOwned>(value: &Value) -> T {
        let mut ignored = Vec::new();
        let read =
            serde_ignored::deserialize(value, |path| ignored.push(path.to_string())).unwrap();
        assert_eq!(ignored, [""; 0]);
        read
    }

    #[test]
    fn what_is_sent_is_read_without_an_unknown_field_and_means_the_same() {
        for content in contents() {
            let slice = slice(content.clone());
            let value = serde_json::to_value(slice_object(&slice, &node(), None)).unwrap();
            let read: ResourceSlice = read_strictly(&value);
            let seen = seen_slice(&read, &node());
            assert_eq!(seen.content, Some(content));
            assert_eq!((seen.name, seen.generation, seen.slice_count), (slice.name, 3, 2));
        }
    }

    #[test]
    fn a_slice_belongs_to_its_node() {
        let object = slice_object(&slice(SliceContent::Devices(vec![device()])), &node(), None);
        let value = serde_json::to_value(&object).unwrap();
        assert_eq!(value["apiVersion"], "resource.k8s.io/v1");
        assert_eq!(value["spec"]["nodeName"], "gpu-node-1");
        let pool = json!({ "name": "gpu-node-1", "generation": 3, "resourceSliceCount": 2 });
        assert_eq!(value["spec"]["pool"], pool);
        let owner = json!([{
            "apiVersion": "v1", "kind": "Node", "name": "gpu-node-1", "uid": "5f0c9a52",
            "controller": true,
        }]);
        assert_eq!(value["metadata"]["ownerReferences"], owner);
        let other = NodeIdentity { uid: "another".to_owned(), ..node() };
        assert_eq!(seen_slice(&object, &other).content, None);
    }

    #[test]
    fn an_update_keeps_the_version_and_the_time_of_a_taint_that_stays() {
        let slice = slice(SliceContent::Devices(vec![device()]));
        let mut stored = slice_object(&slice, &node(), None);
        stored.metadata.resource_version = Some("77".to_owned());
        let added = "2026-08-01T10:00:00Z";
        let taints = |object: &mut ResourceSlice| {
            object.spec.devices.as_mut().unwrap()[0].taints.take().unwrap()
        };
        let mut value = serde_json::to_value(&stored).unwrap();
        value["spec"]["devices"][0]["taints"][0]["timeAdded"] = json!(added);
        stored = serde_json::from_value(value).unwrap();
        let mut sent = slice_object(&slice, &node(), Some(&stored));
        assert_eq!(sent.metadata.resource_version.as_deref(), Some("77"));
        assert_eq!(taints(&mut sent), taints(&mut stored));
    }

    #[test]
    fn what_a_server_drops_is_missing_in_what_is_read() {
        let shared = PublishedDevice { slots: Some(4), counter: None, ..device() };
        let object = slice_object(&slice(SliceContent::Devices(vec![shared])), &node(), None);
        let mut value = serde_json::to_value(&object).unwrap();
        let device = value["spec"]["devices"][0].as_object_mut().unwrap();
        device.remove("allowMultipleAllocations");
        device.remove("taints");
        device["capacity"]["slots"].as_object_mut().unwrap().remove("requestPolicy");
        let read: ResourceSlice = serde_json::from_value(value).unwrap();
        let Some(SliceContent::Devices(devices)) = slice_content(&read.spec) else { panic!() };
        assert_eq!((devices[0].slots, &devices[0].taints[..]), (None, &[][..]));
    }

    #[test]
    fn a_claim_is_read_with_the_results_of_all_drivers() {
        let value = json!({
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaim",
            "metadata": { "name": "train", "namespace": "team", "uid": "u1" },
            "spec": {},
            "status": { "allocation": { "devices": {
                "results": [
                    { "request": "gpu/second", "driver": "gpu.iluvatar.com", "pool": "gpu-node-1",
                      "device": "chip-0000-13-00-0", "adminAccess": true, "shareID": "s1" },
                    { "request": "nic", "driver": "dra.net", "pool": "x", "device": "eth0" },
                ],
                "config": [
                    { "source": "FromClass", "requests": ["nic"],
                      "opaque": { "driver": "dra.net", "parameters": {} } },
                ],
            } } },
        });
        let read = claim(&read_strictly(&value));
        assert_eq!((read.uid.as_str(), read.claim.to_string().as_str()), ("u1", "team/train"));
        let allocation = read.allocation.unwrap();
        let first = &allocation.results[0];
        assert_eq!((first.admin_access, first.share_id.as_deref()), (true, Some("s1")));
        assert_eq!(allocation.results[1].driver, "dra.net");
        assert_eq!(allocation.configs[0].requests, ["nic"]);
        let unallocated = json!({ "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": { "name": "train" }, "spec": {} });
        assert_eq!(claim(&read_strictly(&unallocated)).allocation, None);
    }
    fn attributes() -> impl Strategy<Value = BTreeMap<String, AttributeValue>> {
        let value = prop_oneof![
            any::<bool>().prop_map(AttributeValue::Bool),
            any::<i64>().prop_map(AttributeValue::Int),
            ".{0,8}".prop_map(AttributeValue::Text),
            ".{0,8}".prop_map(AttributeValue::Version),
        ];
        proptest::collection::btree_map("[a-z]{1,8}", value, 0..4)
    }

    fn published_device() -> impl Strategy<Value = PublishedDevice> {
        let effect = prop_oneof![Just(TaintEffect::NoSchedule), Just(TaintEffect::NoExecute)];
        let taint = (".{0,8}", ".{0,8}", effect).prop_map(|(key, value, effect)| DraTaint {
            key,
            value,
            effect,
        });
        let counter = (".{0,8}", ".{0,8}", any::<u32>())
            .prop_map(|(set, counter, chips)| CounterUse { set, counter, chips });
        let slots = proptest::option::of(any::<u32>());
        let counter = proptest::option::of(counter);
        let taints = proptest::collection::vec(taint, 0..3);
        (".{0,8}", attributes(), slots, counter, taints).prop_map(
            |(name, attributes, slots, counter, taints)| PublishedDevice {
                name,
                attributes,
                slots,
                counter,
                taints,
            },
        )
    }

    fn content() -> impl Strategy<Value = SliceContent> {
        let counters = proptest::collection::btree_map(".{0,8}", any::<u32>(), 0..4);
        let sets =
            (".{0,8}", counters).prop_map(|(name, counters)| SharedCounters { name, counters });
        prop_oneof![
            proptest::collection::vec(published_device(), 0..4).prop_map(SliceContent::Devices),
            proptest::collection::vec(sets, 1..3).prop_map(SliceContent::Counters),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_published_is_read_back_as_it_was(content in content()) {
            let object = slice_object(&slice(content.clone()), &node(), None);
            let text = serde_json::to_string(&object).unwrap();
            let read: ResourceSlice = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(seen_slice(&read, &node()).content, Some(content));
        }
    }
}
