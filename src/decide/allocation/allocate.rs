//! What a container gets for the devices that the kubelet chose: nodes and environment, from one
//! snapshot, without I/O and without waiting. The kubelet admits pods one by one behind this.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::model::cdi::CdiName;
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
    /// Their nodes in the chips' order, then the control nodes; each once. None where the runtime
    /// finds them by name.
    pub nodes: Vec<DeviceNode>,
    /// Names that the runtime resolves to the same nodes; empty where it need not.
    pub cdi_names: Vec<CdiName>,
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
        cdi_names: Vec::new(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::sample::{at, node};
    use crate::model::config::{Sharing, SharingPolicy};
    use crate::model::health::{Reason, ReasonCode};

    fn device(address: &str, chips: &[(&str, u32)]) -> Device {
        Device {
            id: DeviceId::whole(at(address)),
            chips: chips.iter().map(|(chip, _)| at(chip)).collect(),
            nodes: chips
                .iter()
                .map(|(_, minor)| node(&format!("/dev/iluvatar{minor}"), *minor))
                .collect(),
            health: Health::Healthy,
            reasons: Vec::new(),
            numa_nodes: Vec::new(),
        }
    }

    /// A board of two chips, a board of one, and one that is unhealthy for two reasons.
    fn resource() -> Resource {
        let mut ill = device("30:00.0", &[("30:00.0", 9)]);
        ill.health = Health::Unhealthy;
        let reason = |code, detail: &str| Reason { code, detail: detail.to_owned() };
        ill.reasons = vec![
            reason(ReasonCode::ChipMissing, "1 of 2 chips are there"),
            reason(ReasonCode::DriverNotBound, "it has no driver"),
        ];
        Resource {
            name: "iluvatar.com/gpu".to_owned(),
            sharing: None,
            devices: vec![
                device("14:00.0", &[("14:00.0", 1), ("17:00.0", 0)]),
                device("20:00.0", &[("20:00.0", 5)]),
                ill,
            ],
        }
    }

    fn shared(fail_requests_greater_than_one: bool) -> Resource {
        let sharing =
            Sharing { replicas: 4, fail_requests_greater_than_one, policy: SharingPolicy::Spread };
        Resource { sharing: Some(sharing), ..resource() }
    }

    fn ask(resource: &Resource, ids: &[&str]) -> Result<Grant, AllocateError> {
        let control = [node("/dev/itrctl", 0)];
        let ids: Vec<_> = ids.iter().map(|id| (*id).to_owned()).collect();
        allocate(resource, &control, ContainerRules::default(), &ids)
    }

    fn paths(grant: &Grant) -> Vec<&str> {
        grant.nodes.iter().map(|node| &*node.path).collect()
    }

    #[test]
    fn a_container_gets_every_chips_node_then_the_control_nodes() {
        let grant = ask(&resource(), &["0000:20:00.0", "0000:14:00.0"]).unwrap();
        let nodes = ["/dev/iluvatar1", "/dev/iluvatar0", "/dev/iluvatar5", "/dev/itrctl"];
        assert_eq!(paths(&grant), nodes);
        assert_eq!(grant.ids_text(), "0000:14:00.0,0000:20:00.0");
    }

    #[test]
    fn the_environment_names_chips_and_ids_under_new_and_old_names() {
        let grant = ask(&resource(), &["0000:20:00.0", "0000:14:00.0"]).unwrap();
        let env: Vec<_> = grant.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            env,
            [
                "ILUVATAR_COREX_REPLICA_DEVICES=0000:14:00.0,0000:20:00.0",
                "ILUVATAR_COREX_VISIBLE_DEVICES=0000:14:00.0,0000:17:00.0,0000:20:00.0",
                "IX_REPLICA_DEVICES=0000:14:00.0,0000:20:00.0",
                "IX_VISIBLE_DEVICES=0000:14:00.0,0000:17:00.0,0000:20:00.0",
            ]
        );
    }

    #[test]
    fn an_operator_can_keep_the_runtime_from_adding_anything() {
        let rules = ContainerRules { visible_devices: VisibleDevices::Void };
        let grant = allocate(&resource(), &[], rules, &["0000:20:00.0".to_owned()]).unwrap();
        assert_eq!(grant.env["IX_VISIBLE_DEVICES"], "void");
        assert_eq!(grant.env["ILUVATAR_COREX_VISIBLE_DEVICES"], "void");
        assert_eq!(grant.env["IX_REPLICA_DEVICES"], "0000:20:00.0");
    }

    #[test]
    fn replicas_of_one_device_hand_out_its_nodes_once() {
        let ids = ["0000:14:00.0::3", "0000:14:00.0::0", "0000:20:00.0::1"];
        let grant = ask(&shared(false), &ids).unwrap();
        let nodes = ["/dev/iluvatar1", "/dev/iluvatar0", "/dev/iluvatar5", "/dev/itrctl"];
        assert_eq!(paths(&grant), nodes);
        assert_eq!(grant.env["IX_VISIBLE_DEVICES"], "0000:14:00.0,0000:17:00.0,0000:20:00.0");
        let replicas = "0000:14:00.0::0,0000:14:00.0::3,0000:20:00.0::1";
        assert_eq!(grant.env["IX_REPLICA_DEVICES"], replicas);
    }

    #[track_caller]
    fn check_error(resource: &Resource, ids: &[&str], message: &str) {
        assert_eq!(ask(resource, ids).unwrap_err().to_string(), message);
    }

    #[test]
    fn what_cannot_be_granted_says_why() {
        check_error(&resource(), &[], "iluvatar.com/gpu: the request names no device");
        check_error(
            &resource(),
            &["0000:14:00.0", "0000:14:00.0"],
            "iluvatar.com/gpu: device 0000:14:00.0 is asked for twice in one container",
        );
        check_error(
            &resource(),
            &["0000:14:00.0", "0000:30:00.0"],
            "iluvatar.com/gpu: device 0000:30:00.0 is unhealthy: ChipMissing (1 of 2 chips are \
             there), DriverNotBound (it has no driver)",
        );
        check_error(
            &shared(true),
            &["0000:14:00.0::0", "0000:20:00.0::0"],
            "iluvatar.com/gpu: 2 replicas are asked for, but a container may have one: more \
             replicas are not more of a GPU (sharing.timeSlicing.failRequestsGreaterThanOne is set)",
        );
    }

    #[test]
    fn an_id_that_is_not_the_resources_is_unknown() {
        let unknown = |id: &str| {
            format!(
                "iluvatar.com/gpu: there is no device `{id}`; it may have left since the list was \
                 sent"
            )
        };
        for id in ["", "0", "0000:17:00.0", "0000:14:00.0::0", "0000:99:00.0"] {
            check_error(&resource(), &[id], &unknown(id));
        }
        for id in ["0000:14:00.0", "0000:14:00.0::4", "0000:14:00.0::x"] {
            check_error(&shared(false), &[id], &unknown(id));
        }
    }

    #[test]
    fn one_replica_is_granted_where_more_are_refused() {
        assert!(ask(&shared(true), &["0000:14:00.0::2"]).is_ok());
    }
}
