//! Which chips pods hold, under whatever id they got them, so that no other pod gets them.
//!
//! A change of the configuration gives chips other ids (board or chip, shared or not, another
//! resource), while pods keep what they hold under the old ones, and the kubelet compares ids alone.
//! So a device is withheld while a pod holds its chips in another way than the device offers them:
//! an exclusive holder keeps all others away, holders of replicas keep away exclusive ids and
//! other granularities. What the kubelet itself keeps apart (the same id) is left to it.
//!
//! There are two sources. The allocation records name every id that was ever allocated,
//! at once and without the pod; PodResources names those that are held now, with the pod, a moment
//! later. A record counts as held until an answer proves it free.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::decide::allocation::records::{RenumberedChip, renumbered};
use crate::decide::dra::claims::chips_of;
use crate::model::allocation::{AllocationRecord, Allocations};
use crate::model::cordon::CordonUsage;
use crate::model::device::{Device, DeviceId, Resource};
use crate::model::dra::claim::ClaimUsage;
use crate::model::health::{Health, Reason, ReasonCode};
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;
use crate::model::pod_usage::{HeldDevice, Holder, KubeletInstance, PodDevice, PodUsage};
use crate::model::warning::{Subject, Warning, WarningCode};

/// An allocation younger than this may be missing in an answer: the kubelet lists a pod's devices
/// only when its admission is over.
pub const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether PodResources answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodResourcesState {
    /// No answer yet.
    #[default]
    Pending,
    /// It answered, and is expected to answer again.
    Answering,
    /// There is no such socket, or it never answered.
    Unavailable,
}

/// What pods hold or may hold. Times are on the daemon's clock.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    source: PodResourcesState,
    /// By resource and by id as the kubelet has it.
    held: BTreeMap<(String, DeviceId), Holding>,
    /// The allocations that are accounted for, held or not.
    known: Allocations,
    /// What claims hold, as PodResources last listed it.
    claimed: BTreeSet<ClaimUsage>,
}

#[derive(Clone, Debug)]
struct Holding {
    /// None where the id was allocated before there were records, or by another plugin.
    record: Option<AllocationRecord>,
    /// When it was allocated, if by this process.
    allocated: Option<Duration>,
    /// Who holds it, and which kubelet last reported it.
    confirmed: Option<(Holder, KubeletInstance)>,
}

impl Holdings {
    /// Whether PodResources answers.
    #[must_use]
    pub fn source(&self) -> PodResourcesState {
        self.source
    }

    /// Takes in the allocations: those that are new since the last call count as held.
    pub fn recorded(&mut self, allocations: &Allocations) {
        if Arc::ptr_eq(&self.known.records, &allocations.records)
            && Arc::ptr_eq(&self.known.allocated_at, &allocations.allocated_at)
        {
            return;
        }
        let known = std::mem::replace(&mut self.known, allocations.clone());
        for (resource, ids) in &*allocations.records {
            for (id, record) in ids {
                let at = time_of(allocations, resource, *id);
                let before = known.records.get(resource).and_then(|ids| ids.get(id));
                if before != Some(record) || time_of(&known, resource, *id) != at {
                    let record = Some(record.clone());
                    let holding = Holding { record, allocated: at, confirmed: None };
                    self.held.insert((resource.clone(), *id), holding);
                }
            }
        }
    }

    /// Takes in an answer: what it shows is held, what it proves free is not.
    pub fn answered(&mut self, usage: &PodUsage) {
        self.source = PodResourcesState::Answering;
        // A kubelet that has just started does not prove a claim free.
        if usage.kubelet.knows_its_pods {
            self.claimed.clear();
        }
        self.claimed.extend(usage.held.claimed.iter().cloned());
        let held = usage.held.all().filter_map(|(resource, id, holder)| {
            Some(((resource.to_owned(), id.parse::<DeviceId>().ok()?), holder))
        });
        let mut shown: BTreeMap<_, _> = held.collect();
        self.held.retain(|key, holding| match shown.remove(key) {
            Some(holder) => {
                holding.confirmed = Some((holder.clone(), usage.kubelet));
                true
            }
            None => !holding.is_free(usage),
        });
        self.held.extend(shown.into_iter().map(|(key, holder)| {
            let confirmed = Some((holder.clone(), usage.kubelet));
            (key, Holding { record: None, allocated: None, confirmed })
        }));
    }

    /// What claims hold, as PodResources last listed it.
    #[must_use]
    pub fn claimed(&self) -> &BTreeSet<ClaimUsage> {
        &self.claimed
    }

    /// Each chip that a pod holds through the device plugin, or may. Where the kubelet does not report
    /// pods, only drained nodes change their mode.
    #[must_use]
    pub fn held_chips(&self, inventory: &Inventory) -> BTreeMap<PciAddress, HeldDevice> {
        let is_answered = self.source != PodResourcesState::Unavailable;
        let held = self.held.iter();
        let held = held.filter(|(_, holding)| is_answered || holding.confirmed.is_some());
        let held = held.flat_map(|((resource, id), holding)| {
            let holder = holding.confirmed.as_ref().map(|(holder, _)| holder.clone());
            let device = HeldDevice { resource: resource.clone(), id: *id, holder };
            let chips = holding.chips(*id, inventory);
            chips.into_iter().map(move |chip| (chip, device.clone()))
        });
        held.collect()
    }

    /// PodResources is unavailable and never answered.
    pub fn unavailable(&mut self) {
        if self.source == PodResourcesState::Pending {
            self.source = PodResourcesState::Unavailable;
        }
    }

    /// Who holds any of these chips, under whatever id. What was allocated and is not confirmed yet
    /// counts as unknown.
    #[must_use]
    pub fn usage(&self, chips: &BTreeSet<PciAddress>, inventory: &Inventory) -> CordonUsage {
        if self.source != PodResourcesState::Answering {
            return CordonUsage::Unknown;
        }
        let held = self.held.iter().filter(|((_, id), holding)| {
            holding.chips(*id, inventory).iter().any(|chip| chips.contains(chip))
        });
        let holders = held.map(|(_, holding)| Some(holding.confirmed.as_ref()?.0.clone()));
        match holders.collect::<Option<BTreeSet<_>>>() {
            None => CordonUsage::Unknown,
            Some(holders) if holders.is_empty() => CordonUsage::Drained,
            Some(holders) => CordonUsage::Held(holders),
        }
    }

    /// The devices of this node that containers hold, ascending; none until PodResources answered.
    /// Ids of other plugins may be PCI addresses too, so only the node's own chips count.
    #[must_use]
    pub fn pod_devices(
        &self,
        resources: &[Resource],
        inventory: &Inventory,
    ) -> Option<Vec<PodDevice>> {
        let devices = resources.iter().flat_map(|resource| &resource.devices);
        let listed = devices.flat_map(|device| device.chips.iter().copied());
        let present = inventory.chips_by_board().map(|chip| chip.address);
        let ours: BTreeSet<PciAddress> = listed.chain(present).collect();
        let held = self.held.iter().filter_map(|((resource, id), holding)| {
            let (holder, _) = holding.confirmed.as_ref()?;
            let chips = holding.chips(*id, inventory);
            Some(PodDevice {
                resource: resource.clone(),
                device: DeviceId::whole(id.address),
                chips: chips.into_iter().filter(|chip| ours.contains(chip)).collect(),
                holder: holder.clone(),
            })
        });
        // A container may hold several replicas of one device.
        let held: BTreeSet<_> = held.filter(|device| !device.chips.is_empty()).collect();
        (self.source == PodResourcesState::Answering).then(|| held.into_iter().collect())
    }

    /// Makes every device unhealthy whose chips a pod holds, or may hold, in another way. Where the
    /// kubelet does not report pods, what may be held is a warning instead.
    pub fn withhold(
        &self,
        resources: &mut [Resource],
        inventory: &Inventory,
        warnings: &mut Vec<Warning>,
    ) {
        let chips: Vec<_> = self
            .held
            .iter()
            .map(|(key, holding)| (key, holding, holding.chips(key.1, inventory)))
            .collect();
        let mut at_risk = BTreeMap::new();
        for resource in resources {
            let (name, is_shared) = (resource.name.clone(), resource.sharing.is_some());
            for device in &mut resource.devices {
                let offered = Offered { resource: &name, is_shared, device, inventory };
                let other = chips.iter().find(|((held_as, id), _, chips)| {
                    offered.conflicts_with(&HeldId { resource: held_as, id: *id, chips })
                });
                if let Some(reason) = self.claim_reason(device, inventory) {
                    device.reasons.push(reason);
                    device.health = Health::Unhealthy;
                }
                let Some(((held_as, id), holding, _)) = other else { continue };
                let is_certain = holding.confirmed.is_some();
                if is_certain || self.source != PodResourcesState::Unavailable {
                    device.reasons.push(holding.reason(held_as, *id));
                    device.health = Health::Unhealthy;
                    device.awaits_kubelet = !is_certain;
                } else {
                    at_risk.insert(device.id.address, (held_as.clone(), *id));
                }
            }
        }
        warnings
            .extend(at_risk.iter().map(|(address, (held_as, id))| risk(*address, held_as, *id)));
        warnings.extend(self.reassigned(inventory));
    }

    /// The first claim that holds chips of a device: the node served claims before.
    fn claim_reason(&self, device: &Device, inventory: &Inventory) -> Option<Reason> {
        let usage = self.claimed.iter().find(|usage| {
            let held = chips_of(inventory, usage.device);
            held.iter().any(|chip| device.chips.contains(chip))
        })?;
        let detail = format!("its chips are held as {} by claim {}", usage.device, usage.claim);
        Some(Reason { code: ReasonCode::HeldByClaim, detail })
    }

    /// Device nodes that pods hold and that belong to another chip now: the pod's device cgroup
    /// goes on allowing them.
    fn reassigned(&self, inventory: &Inventory) -> Vec<Warning> {
        let renumbered = renumbered(&self.known.records, inventory).into_iter();
        let warnings = renumbered.filter_map(|chip| {
            let holding = self.held.get(&(chip.resource.clone(), chip.id))?;
            reassigned(&chip, holding)
        });
        warnings.collect()
    }
}

impl Holding {
    /// An answer to a query sent after the pod's admission, of a kubelet that knows its pods:
    /// by its age, or because it showed this one before.
    fn is_free(&self, usage: &PodUsage) -> bool {
        let is_admitted =
            self.allocated.is_none_or(|at| usage.queried_at >= at + ADMISSION_TIMEOUT);
        let was_shown = self.confirmed.as_ref().is_some_and(|(_, by)| by.id == usage.kubelet.id);
        was_shown || is_admitted && usage.kubelet.knows_its_pods
    }

    /// As recorded; without a record, the whole board where the id is a board's.
    fn chips(&self, id: DeviceId, inventory: &Inventory) -> BTreeSet<PciAddress> {
        if let Some(record) = &self.record {
            return record.chips.iter().map(|chip| chip.address).collect();
        }
        let board = inventory.boards.iter().find(|board| board.address == id.address);
        let of_board = board.into_iter().flat_map(|board| &board.chips).map(|chip| chip.address);
        of_board.chain([id.address]).collect()
    }

    fn reason(&self, held_as: &str, id: DeviceId) -> Reason {
        let detail = match &self.confirmed {
            Some((holder, _)) => format!("its chips are held as {held_as} {id} by {holder}"),
            None => format!(
                "its chips were allocated as {held_as} {id}; asking the kubelet whether a pod \
                 still holds them"
            ),
        };
        Reason { code: ReasonCode::HeldByPod, detail }
    }
}

fn time_of(allocations: &Allocations, resource: &str, id: DeviceId) -> Option<Duration> {
    allocations.allocated_at.get(resource)?.get(&id).copied()
}

/// A device as it is offered now.
struct Offered<'a> {
    resource: &'a str,
    is_shared: bool,
    device: &'a Device,
    inventory: &'a Inventory,
}

/// An id that a pod holds, and the chips behind it.
struct HeldId<'a> {
    resource: &'a str,
    id: DeviceId,
    chips: &'a BTreeSet<PciAddress>,
}

impl Offered<'_> {
    /// Whether the holder keeps the device from being allocated. The kubelet itself keeps the same
    /// id from being allocated twice.
    fn conflicts_with(&self, held: &HeldId<'_>) -> bool {
        if !self.device.chips.iter().any(|chip| held.chips.contains(chip)) {
            return false;
        }
        let is_same_size = is_same_size(self.device, held.chips, self.inventory);
        let is_same_id = held.resource == self.resource
            && held.id.address == self.device.id.address
            && held.id.replica.is_some() == self.is_shared;
        let both_share = held.id.replica.is_some() && self.is_shared;
        !(is_same_size && (is_same_id || both_share))
    }
}

/// Whether the held chips are those of the device; a board that lost one is still the same board.
fn is_same_size(device: &Device, chips: &BTreeSet<PciAddress>, inventory: &Inventory) -> bool {
    let present = device.chips.iter().all(|chip| chips.contains(chip));
    let board = inventory.boards.iter().find(|board| board.address == device.id.address);
    let is_half = board.is_some_and(|board| {
        board.chips.len() < board.expected_chips && board.chips.len() == device.chips.len()
    });
    present && (chips.len() == device.chips.len() || is_half)
}

fn risk(address: PciAddress, held_as: &str, id: DeviceId) -> Warning {
    let detail = format!(
        "was allocated as {held_as} {id}, and a pod may still hold it: the kubelet's PodResources \
         is unavailable, so it may be allocated twice; mount the pod-resources directory, or drain \
         the node before you change what a device is"
    );
    Warning { code: WarningCode::HolderUnknown, subject: Subject::Chip(address), detail }
}

fn reassigned(chip: &RenumberedChip, holding: &Holding) -> Option<Warning> {
    let RenumberedChip { resource, id, was, .. } = chip;
    let owner = chip.now_at_old_path?;
    let holder = match &holding.confirmed {
        Some((holder, _)) => holder.to_string(),
        None => "a container".to_owned(),
    };
    let detail = format!(
        "{holder} was given {was} for this chip as {resource} {id}, but {was} is {owner} now, and \
         the container can still open it; delete that pod"
    );
    let subject = Subject::Chip(chip.chip);
    Some(Warning { code: WarningCode::DeviceNodeReassigned, subject, detail })
}
