//! Who holds what: the last check against a device that is allocated to two claims. Schedulers
//! allocate, and have allocated a device twice.
//!
//! There are two sources: what this driver prepared, which a small file keeps across restarts, and
//! what the kubelet's PodResources lists. Both are hints. Before a claim is refused because of
//! another one, that one is fetched, and forgotten if it is gone.

use std::collections::BTreeSet;

use crate::model::dra::DRIVER_NAME;
use crate::model::dra::claim::{
    ClaimHolding, ClaimRecords, ClaimRef, ClaimUsage, ClaimedDevice, DraClaim,
};
use crate::model::dra::device::DraDeviceName;
use crate::model::dra::slice::DraPool;
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;

/// Which claims hold devices of this node, or may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimHolders {
    records: ClaimRecords,
    listed: BTreeSet<ClaimUsage>,
}

/// One device that a claim holds, or may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHolder {
    /// The claim's uid; PodResources does not list it.
    pub uid: Option<String>,
    /// The claim.
    pub claim: ClaimRef,
    /// The device.
    pub held: ClaimedDevice,
}

impl ClaimHolders {
    /// What the file kept.
    #[must_use]
    pub fn restored(records: ClaimRecords) -> Self {
        Self { records, listed: BTreeSet::new() }
    }

    /// Takes in what the file has now: another instance may have changed it.
    pub fn restore(&mut self, records: ClaimRecords) {
        self.records = records;
    }

    /// What the file should keep.
    #[must_use]
    pub fn records(&self) -> &ClaimRecords {
        &self.records
    }

    /// Takes in what PodResources lists now.
    pub fn listed(&mut self, usage: &BTreeSet<ClaimUsage>) {
        self.listed.clone_from(usage);
    }

    /// A claim was prepared. Nothing else of it is held.
    pub fn prepared(&mut self, claim: &DraClaim, devices: Vec<ClaimedDevice>) {
        let holding = ClaimHolding { claim: claim.claim.clone(), devices };
        self.records.insert(claim.uid.clone(), holding);
    }

    /// A claim was unprepared, or is gone; one that is not known changes nothing.
    pub fn released(&mut self, uid: Option<&str>, claim: &ClaimRef) {
        if let Some(uid) = uid {
            self.records.remove(uid);
        }
        let is_recorded = self.records.values().any(|holding| holding.claim == *claim);
        if !is_recorded {
            self.listed.retain(|usage| usage.claim != *claim);
        }
    }

    /// What the claim with this uid was prepared with.
    #[must_use]
    pub fn of(&self, uid: &str) -> Option<&ClaimHolding> {
        self.records.get(uid)
    }

    /// Every device that is held, and by whom. What PodResources lists of a recorded claim adds
    /// nothing.
    #[must_use]
    pub fn all(&self, inventory: &Inventory) -> Vec<ClaimHolder> {
        let recorded = self.records.iter().flat_map(|(uid, holding)| {
            holding.devices.iter().map(move |held| ClaimHolder {
                uid: Some(uid.clone()),
                claim: holding.claim.clone(),
                held: held.clone(),
            })
        });
        let names: BTreeSet<_> = self.records.values().map(|holding| &holding.claim).collect();
        let listed = self.listed.iter().filter(|usage| !names.contains(&usage.claim));
        let listed = listed.map(|usage| ClaimHolder {
            uid: None,
            claim: usage.claim.clone(),
            held: ClaimedDevice {
                device: usage.device,
                chips: chips_of(inventory, usage.device),
                is_shared: usage.is_shared,
            },
        });
        recorded.chain(listed).collect()
    }
}

/// Whether a claim, as the API server has it now, still holds what it is recorded to hold. None where it
/// is gone.
#[must_use]
pub fn still_holds(holder: &ClaimHolder, pool: &str, claim: Option<&DraClaim>) -> bool {
    let Some(claim) = claim else { return false };
    let is_same = holder.uid.as_ref().is_none_or(|uid| *uid == claim.uid);
    let name = holder.held.device.to_string();
    let results = claim.allocation.iter().flat_map(|allocation| &allocation.results);
    let mut ours = results.filter(|it| it.driver == DRIVER_NAME && it.pool == pool);
    is_same && ours.any(|result| result.device == name && !result.admin_access)
}

/// Holders that keep something from others although nobody asks for it: a device that left, that is not
/// offered any more, or whose chips are offered in another form. Nothing else would find out that such
/// a claim is gone, so they are worth a look now and then.
#[must_use]
pub fn to_verify(pool: &DraPool, holders: Vec<ClaimHolder>) -> Vec<ClaimHolder> {
    let tainted: Vec<_> = pool.devices.iter().filter(|device| !device.taints.is_empty()).collect();
    let mut holders = holders;
    holders.retain(|ClaimHolder { held, .. }| {
        tainted.iter().any(|device| {
            let shares_chips = device.chips.iter().any(|chip| held.chips.contains(chip));
            device.name == held.device || shares_chips
        })
    });
    holders
}

/// The chips behind a name; none where they are not there.
#[must_use]
pub fn chips_of(inventory: &Inventory, name: DraDeviceName) -> Vec<PciAddress> {
    match name {
        DraDeviceName::Chip(address) => {
            inventory.chip(address).map(|chip| chip.address).into_iter().collect()
        }
        DraDeviceName::Board(address) => {
            let board = inventory.boards.iter().find(|board| board.address == address);
            let chips = board.into_iter().flat_map(|board| &board.chips);
            chips.map(|chip| chip.address).collect()
        }
    }
}
