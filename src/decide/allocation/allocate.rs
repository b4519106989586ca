//! What a container gets for the devices that the kubelet chose, from one snapshot, without I/O and
//! without waiting: the kubelet admits pods one at a time, and each waits for this.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::cdi::CdiNames;
use super::environment::{MissingUuid, environment};
use super::records::{NodeDelivery, record};
use crate::model::allocation::AllocationRecord;
use crate::model::cdi::CdiName;
use crate::model::config::ContainerRules;
use crate::model::device::{Device, DeviceId, DeviceNode, Resource};
use crate::model::health::{Health, ReasonCode};
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;

/// What devices are allocated from.
#[derive(Clone, Copy, Debug)]
pub struct AllocationContext<'a> {
    /// The requested resource.
    pub resource: &'a Resource,
    /// The machine behind it.
    pub inventory: &'a Inventory,
    /// The configured environment.
    pub container: ContainerRules,
    /// The CDI names that can be given; none where CDI is off or its spec is not usable.
    pub cdi: Option<CdiNames<'a>>,
}

/// What one container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The kubelet's ids, ascending, with what is to be recorded for each.
    pub records: BTreeMap<DeviceId, AllocationRecord>,
    /// The chips' device nodes in the order of the chips, then the control nodes; each once. Empty
    /// where the runtime resolves the CDI names instead.
    pub nodes: Vec<DeviceNode>,
    /// Names of the chips for the runtime; empty where it gets device nodes only.
    pub cdi_names: Vec<CdiName>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
}

/// Why nothing is allocated to a container.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AllocateError {
    /// The request has no id.
    #[error("{resource}: the request names no device")]
    Empty {
        /// The requested resource.
        resource: String,
    },
    /// No device of this resource has the id, or none has it any more.
    #[error("{resource}: there is no device `{id}`; it may have been removed since the last list")]
    Unknown {
        /// The requested resource.
        resource: String,
        /// As in the request.
        id: String,
    },
    /// The same id more than once.
    #[error("{resource}: device {id} is requested twice for one container")]
    Repeated {
        /// The requested resource.
        resource: String,
        /// The device.
        id: DeviceId,
    },
    /// The device became unhealthy after the kubelet chose it.
    #[error("{resource}: device {id} is unhealthy: {reasons}")]
    Unhealthy {
        /// The requested resource.
        resource: String,
        /// The device.
        id: DeviceId,
        /// Their codes and details.
        reasons: String,
    },
    /// `container.visibleDevices` is `uuids`, and no UUID of the chip is known.
    #[error("{resource}: the UUID of {chip} is not known: {remedy}", remedy = ReasonCode::UuidUnknown.remedy())]
    UuidUnknown {
        /// The requested resource.
        resource: String,
        /// The chip.
        chip: PciAddress,
    },
    /// `failRequestsGreaterThanOne` is set.
    #[error(
        "{resource}: {count} replicas are requested, but a container may have one: more replicas do \
         not give it more of a GPU (sharing.timeSlicing.failRequestsGreaterThanOne is set)"
    )]
    ManyReplicas {
        /// The requested resource.
        resource: String,
        /// How many are requested.
        count: usize,
    },
}

/// Allocates `ids` to one container.
///
/// # Errors
/// The first id that cannot be allocated; nothing is allocated then.
pub fn allocate(context: &AllocationContext<'_>, ids: &[String]) -> Result<Grant, AllocateError> {
    check_count(context.resource, ids.len())?;
    let mut devices = BTreeMap::new();
    for text in ids {
        let (id, device) = find_healthy(context.resource, text)?;
        if devices.insert(id, device).is_some() {
            return Err(AllocateError::Repeated { resource: context.resource.name.clone(), id });
        }
    }
    grant(context, &devices)
}

fn check_count(resource: &Resource, count: usize) -> Result<(), AllocateError> {
    let name = || resource.name.clone();
    let refuses_many =
        resource.sharing.is_some_and(|sharing| sharing.fail_requests_greater_than_one);
    match count {
        0 => Err(AllocateError::Empty { resource: name() }),
        2.. if refuses_many => Err(AllocateError::ManyReplicas { resource: name(), count }),
        _ => Ok(()),
    }
}

fn find_healthy<'a>(
    resource: &'a Resource,
    text: &str,
) -> Result<(DeviceId, &'a Device), AllocateError> {
    let name = || resource.name.clone();
    let found = text.parse().ok().and_then(|id| Some((id, resource.find(id)?)));
    let Some((id, device)) = found else {
        return Err(AllocateError::Unknown { resource: name(), id: text.to_owned() });
    };
    if device.health == Health::Healthy {
        return Ok((id, device));
    }
    let reasons =
        device.reasons.iter().map(|reason| format!("{} ({})", reason.code, reason.detail));
    let reasons = reasons.collect::<Vec<_>>().join(", ");
    Err(AllocateError::Unhealthy { resource: name(), id, reasons })
}

fn grant(
    context: &AllocationContext<'_>,
    devices: &BTreeMap<DeviceId, &Device>,
) -> Result<Grant, AllocateError> {
    let mut distinct: Vec<_> = devices.values().collect();
    // Replicas of one device are neighbours.
    distinct.dedup_by_key(|device| device.id);
    let chips: BTreeSet<_> = distinct.iter().flat_map(|device| &device.chips).copied().collect();
    let cdi = context.cdi.filter(|cdi| cdi.resolve(&chips));
    let delivery = cdi.map_or(NodeDelivery::DeviceNodes, |cdi| cdi.delivery);
    let nodes = distinct.iter().flat_map(|device| &device.nodes);
    let nodes = nodes.chain(&context.inventory.control_nodes);
    let records =
        devices.iter().map(|(id, device)| (*id, record(context.inventory, device, delivery)));
    let env = environment(context.container, context.inventory, devices);
    Ok(Grant {
        env: env.map_err(|MissingUuid(chip)| AllocateError::UuidUnknown {
            resource: context.resource.name.clone(),
            chip,
        })?,
        records: records.collect(),
        nodes: match delivery {
            NodeDelivery::DeviceNodes => nodes.cloned().collect(),
            NodeDelivery::CdiNames => Vec::new(),
        },
        cdi_names: match cdi {
            Some(_) => chips.iter().map(|chip| CdiName::Chip(*chip)).collect(),
            None => Vec::new(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::node::state::snapshot_of;
    use crate::decide::scan_builder::{SINGLE, ScanBuilder, UNKNOWN, at, node};
    use crate::model::allocation::AllocatedChip;
    use crate::model::config::{Config, Sharing, SharingPolicy, VisibleDevices};
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
            awaits_kubelet: false,
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

    /// The machine behind the healthy devices of [`resource`].
    fn inventory() -> Inventory {
        let sample = ScanBuilder::default()
            .dual_board("00:01.0", 0x10, UNKNOWN)
            .chip("00:02.0 20:00.0", SINGLE)
            .class_device("iluvatar0", 0, Some("17:00.0"))
            .class_device("iluvatar1", 1, Some("14:00.0"))
            .class_device("iluvatar5", 5, Some("20:00.0"))
            .node("/dev/iluvatar0", 0)
            .node("/dev/iluvatar1", 1)
            .node("/dev/iluvatar5", 5)
            .node("/dev/itrctl", 0);
        (*snapshot_of(sample.scan(), &Config::default()).inventory).clone()
    }

    fn ask_with(
        rules: ContainerRules,
        resource: &Resource,
        ids: &[&str],
    ) -> Result<Grant, AllocateError> {
        let ids: Vec<_> = ids.iter().map(|id| (*id).to_owned()).collect();
        let inventory = &inventory();
        allocate(&AllocationContext { resource, inventory, container: rules, cdi: None }, &ids)
    }

    fn ask(resource: &Resource, ids: &[&str]) -> Result<Grant, AllocateError> {
        ask_with(ContainerRules::default(), resource, ids)
    }

    fn paths(grant: &Grant) -> Vec<&str> {
        grant.nodes.iter().map(|node| &*node.path).collect()
    }

    /// `ID: CHIP=NODE CHIP=NODE`.
    fn records(grant: &Grant) -> Vec<String> {
        let record = |(id, record): (&DeviceId, &AllocationRecord)| {
            let chip = |chip: &AllocatedChip| {
                format!(" {}={}", chip.address, chip.node.as_deref().unwrap_or("none"))
            };
            format!("{id}:{}", record.chips.iter().map(chip).collect::<String>())
        };
        grant.records.iter().map(record).collect()
    }

    #[test]
    fn a_container_gets_every_chips_node_then_the_control_nodes() {
        let grant = ask(&resource(), &["0000:20:00.0", "0000:14:00.0"]).unwrap();
        let nodes = ["/dev/iluvatar1", "/dev/iluvatar0", "/dev/iluvatar5", "/dev/itrctl"];
        assert_eq!(paths(&grant), nodes);
        assert_eq!(grant.cdi_names, []);
    }

    #[test]
    fn the_environment_names_chips_and_ids() {
        let grant = ask(&resource(), &["0000:20:00.0", "0000:14:00.0"]).unwrap();
        let env: Vec<_> = grant.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            env,
            [
                "IX_REPLICA_DEVICES=0000:14:00.0,0000:20:00.0",
                "IX_VISIBLE_DEVICES=0000:14:00.0,0000:17:00.0,0000:20:00.0",
            ]
        );
    }

    #[test]
    fn a_uuid_that_is_not_known_is_never_replaced_by_another_name() {
        let visible_devices = VisibleDevices::Uuids;
        let rules = ContainerRules { visible_devices, ..ContainerRules::default() };
        let error = ask_with(rules, &resource(), &["0000:20:00.0"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "iluvatar.com/gpu: the UUID of 0000:20:00.0 is not known: add the chip to the file of \
             discovery.identities, which `ixsmi --query-gpu=index,uuid,pci.bus_id --format=csv` \
             prints; or set container.visibleDevices to another value"
        );
    }

    #[test]
    fn a_grant_records_the_chips_and_nodes_behind_each_id() {
        let grant = ask(&resource(), &["0000:20:00.0", "0000:14:00.0"]).unwrap();
        assert_eq!(
            records(&grant),
            [
                "0000:14:00.0: 0000:14:00.0=/dev/iluvatar1 0000:17:00.0=/dev/iluvatar0",
                "0000:20:00.0: 0000:20:00.0=/dev/iluvatar5",
            ]
        );
        let grant = ask(&shared(false), &["0000:20:00.0::1", "0000:20:00.0::3"]).unwrap();
        assert_eq!(
            records(&grant),
            [
                "0000:20:00.0::1: 0000:20:00.0=/dev/iluvatar5",
                "0000:20:00.0::3: 0000:20:00.0=/dev/iluvatar5",
            ]
        );
    }

    #[test]
    fn replicas_of_one_device_give_its_nodes_once() {
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
    fn a_refused_allocation_names_its_reason() {
        check_error(&resource(), &[], "iluvatar.com/gpu: the request names no device");
        check_error(
            &resource(),
            &["0000:14:00.0", "0000:14:00.0"],
            "iluvatar.com/gpu: device 0000:14:00.0 is requested twice for one container",
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
            "iluvatar.com/gpu: 2 replicas are requested, but a container may have one: more \
             replicas do not give it more of a GPU (sharing.timeSlicing.failRequestsGreaterThanOne \
             is set)",
        );
    }

    #[test]
    fn an_id_that_is_not_the_resources_is_unknown() {
        let unknown = |id: &str| {
            format!(
                "iluvatar.com/gpu: there is no device `{id}`; it may have been removed since the \
                 last list"
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
    fn one_replica_is_allocated_where_more_are_refused() {
        assert!(ask(&shared(true), &["0000:14:00.0::2"]).is_ok());
    }
}
