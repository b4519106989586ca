//! What a container gets for the devices that the kubelet chose: nodes and environment, from one
//! snapshot, without I/O and without waiting. The kubelet admits pods one by one behind this.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::model::config::{ContainerRules, VisibleDevices};
use crate::model::device::{Device, DeviceId, DeviceNode, Resource};
use crate::model::health::Health;
use crate::model::pci::PciAddress;

/// What one container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The kubelet's ids, ascending.
    pub ids: Vec<DeviceId>,
    /// Chips behind them, ascending, each once.
    pub chips: Vec<PciAddress>,
    /// Their nodes in the chips' order, then the control nodes; each once.
    pub nodes: Vec<DeviceNode>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
}

impl Grant {
    /// The ids as one text, for the log.
    #[must_use]
    pub fn ids_text(&self) -> String {
        let ids: Vec<_> = self.ids.iter().map(ToString::to_string).collect();
        ids.join(",")
    }
}

/// Why a container gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AllocateError {
    /// No id at all.
    #[error("{resource}: the request names no device")]
    Empty {
        /// The resource asked.
        resource: String,
    },
    /// Not an id of this resource, or no longer.
    #[error("{resource}: there is no device `{id}`; it may have left since the list was sent")]
    Unknown {
        /// The resource asked.
        resource: String,
        /// As the kubelet wrote it.
        id: String,
    },
    /// The same id more than once.
    #[error("{resource}: device {id} is asked for twice in one container")]
    Repeated {
        /// The resource asked.
        resource: String,
        /// Which one.
        id: DeviceId,
    },
    /// Its health changed since the kubelet chose it.
    #[error("{resource}: device {id} is unhealthy: {reasons}")]
    Unhealthy {
        /// The resource asked.
        resource: String,
        /// Which one.
        id: DeviceId,
        /// Codes and sentences.
        reasons: String,
    },
    /// `failRequestsGreaterThanOne` is set.
    #[error(
        "{resource}: {count} replicas are asked for, but a container may have one: more replicas \
         are not more of a GPU (sharing.timeSlicing.failRequestsGreaterThanOne is set)"
    )]
    ManyReplicas {
        /// The resource asked.
        resource: String,
        /// How many were asked for.
        count: usize,
    },
}

/// Grants `ids` of `resource` to one container.
///
/// # Errors
/// The first id that cannot be granted; nothing is granted then.
pub fn allocate(
    resource: &Resource,
    control_nodes: &[DeviceNode],
    rules: ContainerRules,
    ids: &[String],
) -> Result<Grant, AllocateError> {
    let ids = checked_ids(resource, ids)?;
    let devices: BTreeMap<DeviceId, &Device> = ids
        .iter()
        .map(|id| Ok((DeviceId::whole(id.address), healthy_device(resource, *id)?)))
        .collect::<Result<_, AllocateError>>()?;
    let chips: BTreeSet<_> = devices.values().flat_map(|device| &device.chips).copied().collect();
    let nodes = devices.values().flat_map(|device| &device.nodes).chain(control_nodes);
    let env = environment(&ids, &chips, rules);
    Ok(Grant {
        nodes: nodes.cloned().collect(),
        chips: chips.into_iter().collect(),
        ids: ids.into_iter().collect(),
        env,
    })
}

fn checked_ids(resource: &Resource, ids: &[String]) -> Result<BTreeSet<DeviceId>, AllocateError> {
    let name = || resource.name.clone();
    if ids.is_empty() {
        return Err(AllocateError::Empty { resource: name() });
    }
    let refuses_many =
        resource.sharing.is_some_and(|sharing| sharing.fail_requests_greater_than_one);
    if refuses_many && ids.len() > 1 {
        return Err(AllocateError::ManyReplicas { resource: name(), count: ids.len() });
    }
    let mut checked = BTreeSet::new();
    for text in ids {
        let id = text.parse::<DeviceId>().ok().filter(|id| resource.find(*id).is_some());
        let Some(id) = id else {
            return Err(AllocateError::Unknown { resource: name(), id: text.clone() });
        };
        if !checked.insert(id) {
            return Err(AllocateError::Repeated { resource: name(), id });
        }
    }
    Ok(checked)
}

fn healthy_device(resource: &Resource, id: DeviceId) -> Result<&Device, AllocateError> {
    let name = resource.name.clone();
    let Some(device) = resource.find(id) else {
        return Err(AllocateError::Unknown { resource: name, id: id.to_string() });
    };
    if device.health == Health::Healthy {
        return Ok(device);
    }
    let reasons =
        device.reasons.iter().map(|reason| format!("{} ({})", reason.code, reason.detail));
    let reasons = reasons.collect::<Vec<_>>().join(", ");
    Err(AllocateError::Unhealthy { resource: name, id, reasons })
}

/// Names before and since plugin 4.4. The values are never integers, which the vendor's container
/// toolkit would take for its own indices, and never missing, which it would take for "all".
fn environment(
    ids: &BTreeSet<DeviceId>,
    chips: &BTreeSet<PciAddress>,
    rules: ContainerRules,
) -> BTreeMap<String, String> {
    let visible = match rules.visible_devices {
        VisibleDevices::Addresses => join(chips),
        VisibleDevices::Void => "void".to_owned(),
    };
    let replicas = join(ids);
    [
        ("IX_VISIBLE_DEVICES", &visible),
        ("IX_REPLICA_DEVICES", &replicas),
        ("ILUVATAR_COREX_VISIBLE_DEVICES", &visible),
        ("ILUVATAR_COREX_REPLICA_DEVICES", &replicas),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.clone()))
    .collect()
}

fn join<T: ToString>(items: &BTreeSet<T>) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
