//! The effective configuration as YAML: every value that is in force, in the form that reads back
//! as the same configuration.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::model::config::{
    BoardRules, CdiRules, Config, DiscoveryRules, Granularity, HealthRules, Pairing, ResourceRule,
    Selector, Sharing, SharingPolicy, VisibleDevices,
};
use crate::model::health::Severity;
use crate::model::ixml::IxmlChoice;
use crate::model::pci::PciAddress;

/// The configuration with all defaults, resources in the form of the list, names as the kubelet
/// has them.
///
/// In the file `failRequestsGreaterThanOne` and `policy` are the same for all resources; those of
/// the first shared one are written.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "structs of texts and numbers always serialise")]
pub fn effective_yaml(config: &Config) -> String {
    serde_yaml::to_string(&typed(config)).expect("structs of texts and numbers always serialise")
}

/// The same in one line, for a log: JSON, which is YAML as well.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "structs of texts and numbers always serialise")]
pub fn effective_json(config: &Config) -> serde_json::Value {
    serde_json::to_value(typed(config)).expect("structs of texts and numbers always serialise")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TypedConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sharing: Option<TypedSharing>,
    resources: Vec<TypedResource<'a>>,
    boards: TypedBoards<'a>,
    discovery: TypedDiscovery<'a>,
    container: TypedContainer,
    health: TypedHealth<'a>,
    cdi: TypedCdi<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TypedSharing {
    time_slicing: TypedSlicing,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TypedSlicing {
    fail_requests_greater_than_one: bool,
    policy: &'static str,
}

#[derive(Serialize)]
struct TypedResource<'a> {
    name: &'a str,
    #[serde(rename = "match", skip_serializing_if = "TypedMatch::is_empty")]
    selector: TypedMatch<'a>,
    splitboard: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TypedMatch<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pci_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
}

impl TypedMatch<'_> {
    fn is_empty(&self) -> bool {
        self.model.is_none() && self.pci_id.is_none() && self.addresses.is_empty()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TypedBoards<'a> {
    pairing: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    chips_per_board: BTreeMap<String, usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    models: BTreeMap<String, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TypedDiscovery<'a> {
    vendor_ids: Vec<String>,
    drivers: &'a [String],
    control_nodes: &'a [String],
    rescan: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TypedContainer {
    visible_devices: &'static str,
}

#[derive(Serialize)]
struct TypedHealth<'a> {
    interval: String,
    recovery: String,
    ixml: Cow<'a, str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    signals: BTreeMap<&'static str, &'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TypedCdi<'a> {
    enabled: bool,
    spec_dir: &'a Path,
    device_specs: bool,
}

fn typed(config: &Config) -> TypedConfig<'_> {
    TypedConfig {
        sharing: config.resources.iter().find_map(|rule| rule.sharing).map(typed_sharing),
        resources: config.resources.iter().map(typed_resource).collect(),
        boards: typed_boards(&config.boards),
        discovery: typed_discovery(&config.discovery),
        health: typed_health(&config.health),
        cdi: typed_cdi(&config.cdi),
        container: TypedContainer {
            visible_devices: match config.container.visible_devices {
                VisibleDevices::Addresses => "addresses",
                VisibleDevices::Void => "void",
            },
        },
    }
}

fn typed_sharing(sharing: Sharing) -> TypedSharing {
    TypedSharing {
        time_slicing: TypedSlicing {
            fail_requests_greater_than_one: sharing.fail_requests_greater_than_one,
            policy: match sharing.policy {
                SharingPolicy::Spread => "spread",
                SharingPolicy::Pack => "pack",
            },
        },
    }
}

fn typed_resource(rule: &ResourceRule) -> TypedResource<'_> {
    TypedResource {
        name: &rule.name,
        selector: typed_match(&rule.selector),
        splitboard: rule.granularity == Granularity::Chip,
        replicas: rule.sharing.map(|sharing| sharing.replicas),
    }
}

fn typed_match(selector: &Selector) -> TypedMatch<'_> {
    TypedMatch {
        model: selector.model.as_deref(),
        pci_id: selector.pci_id.map(|id| id.to_string()),
        addresses: texts(&selector.addresses),
    }
}

fn typed_boards(boards: &BoardRules) -> TypedBoards<'_> {
    TypedBoards {
        pairing: match boards.pairing {
            Pairing::Auto => "auto",
            Pairing::Off => "off",
        },
        chips_per_board: boards
            .chips_per_board
            .iter()
            .map(|(id, chips)| (id.to_string(), *chips))
            .collect(),
        pairs: boards.pairs.iter().map(|pair| texts(pair)).collect(),
        models: boards.models.iter().map(|(id, model)| (id.to_string(), model.as_str())).collect(),
    }
}

fn typed_discovery(discovery: &DiscoveryRules) -> TypedDiscovery<'_> {
    TypedDiscovery {
        vendor_ids: discovery.vendor_ids.iter().map(|vendor| format!("{vendor:#06x}")).collect(),
        drivers: &discovery.drivers,
        control_nodes: &discovery.control_nodes,
        rescan: duration(discovery.rescan),
    }
}

fn typed_health(health: &HealthRules) -> TypedHealth<'_> {
    let word = |severity: &Severity| match severity {
        Severity::Ignore => "ignore",
        Severity::Warn => "warn",
        Severity::Unhealthy => "unhealthy",
    };
    TypedHealth {
        interval: duration(health.interval),
        recovery: duration(health.recovery),
        ixml: match &health.ixml {
            IxmlChoice::Auto => "auto".into(),
            IxmlChoice::Off => "off".into(),
            IxmlChoice::Path(path) => path.to_string_lossy(),
        },
        signals: health.signals.iter().map(|(code, it)| (code.name(), word(it))).collect(),
    }
}

fn typed_cdi(cdi: &CdiRules) -> TypedCdi<'_> {
    let CdiRules { enabled, spec_dir, device_specs } = cdi;
    TypedCdi { enabled: *enabled, spec_dir, device_specs: *device_specs }
}

/// Whole seconds where they are, as people write them.
fn duration(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

fn texts(addresses: &[PciAddress]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}
