//! The effective configuration as YAML: every active value, in the form that reads back as the same
//! configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::model::config::{
    BoardRules, CdiRules, Config, ContainerRules, DiscoveryRules, DraRules, Granularity,
    HealthRules, LabelRules, PodResourcesRules, ResourceRule, Selector, ServingMode, Sharing,
    StartVerification,
};
use crate::model::ixml::IxmlChoice;
use crate::model::pci::PciAddress;
use crate::parse::config::key::ConfigKey;
use crate::parse::config::keys::{
    self, DRA_DEVICES_WORDS, DRA_FALLBACK_WORDS, MODE_WORDS, PAIRING_WORDS, POLICY_WORDS,
    SEVERITY_WORDS, VISIBLE_DEVICES_WORDS, boards, cdi, container, discovery, dra, health, labels,
    pod_resources, resource, selector, time_slicing, word_of,
};

/// The configuration with all defaults, resources in the form of the list, names as the kubelet
/// has them.
///
/// In the file `failRequestsGreaterThanOne` and `policy` are the same for all resources; those of
/// the first shared one are written.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "a JSON value always serialises")]
pub fn effective_yaml(config: &Config) -> String {
    serde_yaml::to_string(&effective_json(config)).expect("a JSON value always serialises")
}

/// The same as JSON, which is YAML as well.
#[must_use]
pub fn effective_json(config: &Config) -> Value {
    let sharing = config.resources.iter().find_map(|rule| rule.sharing).map(sharing_value);
    // The other mode's keys would only distract.
    let is_dra = config.mode == ServingMode::Dra;
    let mode = is_dra.then(|| word_of(&MODE_WORDS, &config.mode).into());
    let is_given = is_dra || config.dra != DraRules::default();
    mapping([
        (&keys::MODE, mode),
        (&keys::SHARING, sharing),
        (&keys::RESOURCES, Some(config.resources.iter().map(resource_value).collect())),
        (&keys::BOARDS, Some(boards_value(&config.boards))),
        (&keys::DISCOVERY, Some(discovery_value(&config.discovery))),
        (&keys::CONTAINER, Some(container_value(config.container))),
        (&keys::HEALTH, Some(health_value(&config.health))),
        (&keys::CDI, Some(cdi_value(&config.cdi))),
        (&keys::DRA, is_given.then(|| dra_value(&config.dra))),
        (&keys::POD_RESOURCES, Some(pod_resources_value(config.pod_resources))),
        (&keys::LABELS, Some(labels_value(&config.labels))),
    ])
}

/// A mapping in this order, without the keys that have no value.
fn mapping<const N: usize>(entries: [(&'static ConfigKey, Option<Value>); N]) -> Value {
    let entries = entries.into_iter().filter_map(|(key, value)| Some((key.name, value?)));
    entries.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
}

/// Nothing where a list or mapping is empty.
fn some(value: Value) -> Option<Value> {
    let is_empty =
        value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
    (!is_empty).then_some(value)
}

fn sharing_value(sharing: Sharing) -> Value {
    let fail = sharing.fail_requests_greater_than_one;
    let slicing = mapping([
        (&time_slicing::FAIL_REQUESTS_GREATER_THAN_ONE, Some(fail.into())),
        (&time_slicing::POLICY, Some(word_of(&POLICY_WORDS, &sharing.policy).into())),
    ]);
    mapping([(&keys::sharing::TIME_SLICING, Some(slicing))])
}

fn resource_value(rule: &ResourceRule) -> Value {
    mapping([
        (&resource::NAME, Some(json!(rule.name))),
        (&resource::MATCH, some(match_value(&rule.selector))),
        (&resource::SPLITBOARD, Some(json!(rule.granularity == Granularity::Chip))),
        (&resource::REPLICAS, rule.sharing.map(|sharing| sharing.replicas.into())),
    ])
}

fn match_value(conditions: &Selector) -> Value {
    let model = conditions.model.as_deref();
    mapping([
        (&selector::MODEL, model.map(Value::from)),
        (&selector::PCI_ID, conditions.pci_id.map(|id| id.to_string().into())),
        (&selector::ADDRESSES, some(texts(&conditions.addresses))),
    ])
}

fn boards_value(rules: &BoardRules) -> Value {
    let BoardRules { pairing, chips_per_board, pairs, models } = rules;
    mapping([
        (&boards::PAIRING, Some(word_of(&PAIRING_WORDS, pairing).into())),
        (&boards::CHIPS_PER_BOARD, some(by_name(chips_per_board))),
        (&boards::PAIRS, some(pairs.iter().map(|pair| texts(pair)).collect())),
        (&boards::MODELS, some(by_name(models))),
    ])
}

fn discovery_value(rules: &DiscoveryRules) -> Value {
    let DiscoveryRules { vendor_ids, drivers, control_nodes, rescan, identities } = rules;
    let vendor_ids = vendor_ids.iter().map(|vendor| format!("{vendor:#06x}"));
    mapping([
        (&discovery::VENDOR_IDS, Some(vendor_ids.collect())),
        (&discovery::DRIVERS, Some(json!(drivers))),
        (&discovery::CONTROL_NODES, Some(json!(control_nodes))),
        (&discovery::RESCAN, Some(duration(*rescan))),
        (&discovery::IDENTITIES, identities.as_ref().map(|path| path.to_string_lossy().into())),
    ])
}

fn container_value(rules: ContainerRules) -> Value {
    let word = word_of(&VISIBLE_DEVICES_WORDS, &rules.visible_devices);
    let verifies = rules.start_verification == StartVerification::On;
    mapping([
        (&container::VISIBLE_DEVICES, Some(word.into())),
        (&container::LEGACY_VARIABLES, Some(rules.legacy_variables.into())),
        (&container::VERIFY_ON_START, Some(verifies.into())),
    ])
}

fn health_value(rules: &HealthRules) -> Value {
    let HealthRules { interval, recovery, ixml, signals } = rules;
    let ixml = match ixml {
        IxmlChoice::Auto => "auto".into(),
        IxmlChoice::Off => "off".into(),
        IxmlChoice::Path(path) => path.to_string_lossy(),
    };
    let severity = |severity| Value::from(word_of(&SEVERITY_WORDS, severity));
    let signals = signals.iter().map(|(code, taken)| (code.name().to_owned(), severity(taken)));
    mapping([
        (&health::INTERVAL, Some(duration(*interval))),
        (&health::RECOVERY, Some(duration(*recovery))),
        (&health::IXML, Some(ixml.into())),
        (&health::SIGNALS, some(signals.collect::<Map<_, _>>().into())),
    ])
}

fn cdi_value(rules: &CdiRules) -> Value {
    let CdiRules { enabled, spec_dir, device_specs } = rules;
    mapping([
        (&cdi::ENABLED, Some(json!(enabled))),
        (&cdi::SPEC_DIR, Some(json!(spec_dir.to_string_lossy()))),
        (&cdi::DEVICE_SPECS, Some(json!(device_specs))),
    ])
}

fn dra_value(rules: &DraRules) -> Value {
    let evict: Value = rules.evict.iter().map(|code| code.name()).collect();
    mapping([
        (&dra::DEVICES, Some(word_of(&DRA_DEVICES_WORDS, &rules.devices).into())),
        (&dra::FALLBACK, Some(word_of(&DRA_FALLBACK_WORDS, &rules.fallback).into())),
        (&dra::SLOTS, rules.slots.map(Value::from)),
        (&dra::EVICT, some(evict)),
        (&dra::EVENTS, Some(rules.events.into())),
    ])
}

fn pod_resources_value(rules: PodResourcesRules) -> Value {
    let interval = rules.interval.map_or("off".into(), duration);
    mapping([(&pod_resources::INTERVAL, Some(interval))])
}

fn labels_value(rules: &LabelRules) -> Value {
    let LabelRules { enabled, directory } = rules;
    mapping([
        (&labels::ENABLED, Some(json!(enabled))),
        (&labels::DIRECTORY, Some(json!(directory.to_string_lossy()))),
    ])
}

/// Whole seconds where they are, as people write them.
fn duration(duration: Duration) -> Value {
    let text = match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    };
    text.into()
}

fn by_name<T: Clone + Into<Value>>(values: &BTreeMap<impl ToString, T>) -> Value {
    let values = values.iter().map(|(name, value)| (name.to_string(), value.clone().into()));
    values.collect::<Map<_, _>>().into()
}

fn texts(addresses: &[PciAddress]) -> Value {
    addresses.iter().map(ToString::to_string).collect()
}
