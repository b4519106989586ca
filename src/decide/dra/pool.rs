//! What a node offers: its boards and chips as devices.

use std::collections::{BTreeMap, BTreeSet};

use super::attributes::{Part, attributes};
use super::claims::{ClaimHolder, ClaimHolders};
use super::order::by_distance;
use super::taints;
use crate::decide::node::snapshot::NodeSnapshot;
use crate::model::board::{Board, Chip};
use crate::model::config::{DraOffer, DraRules, Granularity};
use crate::model::dra::device::{CounterUse, DnsAddress, DraDevice, DraDeviceName, SharedCounters};
use crate::model::dra::slice::{DraFeature, DraPool, ServerSupport};
use crate::model::health::{Reason, ReasonCode};
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;

/// The most counters of one set.
const COUNTERS_PER_SET: usize = 32;

/// What a node offers to an API server that supports so much, while claims hold so much of it.
#[must_use]
pub fn pool(snapshot: &NodeSnapshot, claims: &ClaimHolders, support: &ServerSupport) -> DraPool {
    let inventory = &*snapshot.inventory;
    let holders = claims.all(inventory);
    let offer = effective_offer(&snapshot.dra, support);
    let boards = by_distance(inventory);
    let counters = Counters::new(offer, &boards);
    let mut devices = Vec::new();
    let claimed: BTreeSet<_> = holders.iter().map(|holder| holder.held.device).collect();
    for board in boards {
        for part in parts(inventory, board, offer, &claimed) {
            let mut device = device(&part, &snapshot.dra, &counters);
            add_holders(&mut device, snapshot, &holders, &part, offer);
            devices.push(device);
        }
    }
    let offered: BTreeSet<_> = devices.iter().map(|device| device.name).collect();
    let gone = holders.iter().filter(|holder| !offered.contains(&holder.held.device));
    let gone: BTreeMap<_, _> = gone.map(|holder| (holder.held.device, holder)).collect();
    devices.extend(gone.into_values().map(removed));
    DraPool { devices, counters: counters.sets }
}

/// What a device is: without support for counters never boards and their chips at once.
#[must_use]
pub fn effective_offer(rules: &DraRules, support: &ServerSupport) -> DraOffer {
    match (rules.devices, rules.fallback) {
        (DraOffer::Both, _) if support.has(DraFeature::Partitionable) => DraOffer::Both,
        (DraOffer::Both, Granularity::Board) => DraOffer::Board,
        (DraOffer::Both, Granularity::Chip) => DraOffer::Chip,
        (offer, _) => offer,
    }
}

/// One device to be: a board, or one chip of it.
struct BoardPart<'a> {
    inventory: &'a Inventory,
    board: &'a Board,
    name: DraDeviceName,
    chips: Vec<&'a Chip>,
    /// False where it is there only because a claim holds it.
    is_offered: bool,
}

/// The devices of a board: what is offered, and what claims hold under another name.
fn parts<'a>(
    inventory: &'a Inventory,
    board: &'a Board,
    offer: DraOffer,
    claimed: &BTreeSet<DraDeviceName>,
) -> Vec<BoardPart<'a>> {
    let is_single = board.expected_chips == 1;
    let name = if is_single { DraDeviceName::Chip } else { DraDeviceName::Board };
    let whole = (name(board.address), board.chips.iter().collect::<Vec<_>>());
    let chips = board.chips.iter().filter(|_| !is_single);
    let chips = chips.map(|chip| (DraDeviceName::Chip(chip.address), vec![chip]));
    let is_offered = |index: usize| match offer {
        _ if is_single => true,
        DraOffer::Board => index == 0,
        DraOffer::Chip => index > 0,
        DraOffer::Both => true,
    };
    let parts = std::iter::once(whole).chain(chips).enumerate();
    let parts = parts.map(|(index, (name, chips))| {
        let is_offered = is_offered(index);
        BoardPart { inventory, board, name, chips, is_offered }
    });
    parts.filter(|part| part.is_offered || claimed.contains(&part.name)).collect()
}

fn device(part: &BoardPart<'_>, rules: &DraRules, counters: &Counters) -> DraDevice {
    let BoardPart { inventory, board, name, ref chips, .. } = *part;
    let is_whole_board = board.expected_chips == 1 || matches!(name, DraDeviceName::Board(_));
    let reasons = match (is_whole_board, &chips[..]) {
        (false, [chip]) => chip.reasons.clone(),
        _ => board.reasons.clone(),
    };
    DraDevice {
        name,
        chips: chips.iter().map(|chip| chip.address).collect(),
        attributes: attributes(Part { inventory, board, chips, is_whole_board }),
        slots: rules.slots.filter(|_| counters.sets.is_empty()),
        counter: counters.consumed(board, name),
        taints: taints::unhealthy(&reasons, &rules.evict).into_iter().collect(),
        reasons,
        is_claimed: false,
    }
}

/// Adds who holds the device, and a taint where its chips are held in a way that a scheduler does not
/// see: by the device plugin's pods, or by claims under another name.
fn add_holders(
    device: &mut DraDevice,
    snapshot: &NodeSnapshot,
    holders: &[ClaimHolder],
    part: &BoardPart<'_>,
    offer: DraOffer,
) {
    device.is_claimed = holders.iter().any(|holder| holder.held.device == device.name);
    let pod = device.chips.iter().find_map(|chip| snapshot.held_by_pods.get(chip));
    let is_shared = device.slots.is_some();
    let is_hidden = |holder: &ClaimHolder| {
        let held = &holder.held;
        let has_same_name = held.device == device.name;
        let shares_chips = device.chips.iter().any(|chip| held.chips.contains(chip));
        // Counters keep a board and its chips apart.
        shares_chips && !has_same_name && offer != DraOffer::Both
            || has_same_name && held.is_shared != is_shared
    };
    let by = match pod {
        Some(held) => Some(held.resource.as_str()),
        None if holders.iter().any(is_hidden) => Some("claim"),
        None if !part.is_offered => Some("not-offered"),
        None => None,
    };
    if let Some(by) = by {
        // By key: `held` before `unhealthy`.
        device.taints.insert(0, taints::held(by));
    }
}

/// A device that left while a claim holds it.
fn removed(holder: &ClaimHolder) -> DraDevice {
    let detail = format!("its hardware left while claim {} holds it", holder.claim);
    let reasons = vec![Reason { code: ReasonCode::Removed, detail }];
    DraDevice {
        name: holder.held.device,
        chips: Vec::new(),
        attributes: BTreeMap::new(),
        slots: None,
        counter: None,
        taints: taints::unhealthy(&reasons, &BTreeSet::new()).into_iter().collect(),
        reasons,
        is_claimed: true,
    }
}

/// The counters of all boards that have several chips; none unless boards and chips are both
/// offered.
struct Counters {
    sets: Vec<SharedCounters>,
    set_of: BTreeMap<PciAddress, String>,
}

impl Counters {
    fn new(offer: DraOffer, boards: &[&Board]) -> Self {
        let counted = boards.iter().filter(|board| board.expected_chips > 1);
        let mut counted: Vec<_> = counted.filter(|_| offer == DraOffer::Both).collect();
        counted.sort_by_key(|board| board.address);
        let (mut sets, mut set_of) = (Vec::new(), BTreeMap::new());
        for (index, boards) in counted.chunks(COUNTERS_PER_SET).enumerate() {
            let name = format!("boards-{index}");
            set_of.extend(boards.iter().map(|board| (board.address, name.clone())));
            let counters = boards.iter().map(|board| {
                (counter_name(board.address), u32::try_from(board.expected_chips).unwrap_or(1))
            });
            sets.push(SharedCounters { name, counters: counters.collect() });
        }
        Self { sets, set_of }
    }

    /// A board takes all of its counter, a chip one.
    fn consumed(&self, board: &Board, name: DraDeviceName) -> Option<CounterUse> {
        let set = self.set_of.get(&board.address)?.clone();
        let chips = match name {
            DraDeviceName::Board(_) => u32::try_from(board.expected_chips).unwrap_or(1),
            DraDeviceName::Chip(_) => 1,
        };
        Some(CounterUse { set, counter: counter_name(board.address), chips })
    }
}

fn counter_name(board: PciAddress) -> String {
    format!("b-{}", DnsAddress(board))
}
