//! Any story of the API server, of other programs and of the hardware.

use proptest::prelude::*;

use super::holders::Node;
use super::story::{Server, device, slices_of};
use super::*;
use crate::decide::dra::reconcile::KubeletLink;
use crate::decide::dra::slices::contents;
use crate::model::dra::device::AttributeValue;
use crate::model::dra::slice::{DraSlice, PublishedDevice, SeenSlice, SliceContent};
use crate::model::pci::PciAddress;

#[derive(Clone, Debug)]
enum Event {
    /// The node wants so many slices, with this in the first and in the others.
    Want(usize, u8, u8),
    /// One write is carried out, while a kubelet is connected or not.
    Write(bool),
    /// The slice with this number is deleted by somebody.
    Delete(prop::sample::Index),
    /// A starting kubelet deletes all.
    Wipe,
    /// Another program creates a slice.
    Foreign(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1..4_usize, 0..3_u8, 0..3_u8).prop_map(|(count, a, b)| Event::Want(count, a, b)),
        8 => any::<bool>().prop_map(Event::Write),
        2 => any::<prop::sample::Index>().prop_map(Event::Delete),
        1 => Just(Event::Wipe),
        1 => (1..9_i64).prop_map(Event::Foreign),
    ]
}

fn wanted(count: usize, first: u8, others: u8) -> Vec<SliceContent> {
    let name = |index: usize| format!("d{index}-{}", if index == 0 { first } else { others });
    let names: Vec<_> = (0..count).map(name).collect();
    slices_of(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The pool as schedulers use it: only if it is complete at its highest generation.
fn visible(slices: &[SeenSlice]) -> Option<Vec<SliceContent>> {
    let highest = slices.iter().map(|slice| slice.generation).max()?;
    let mut current: Vec<_> =
        slices.iter().filter(|slice| slice.generation == highest).cloned().collect();
    let count = i64::try_from(current.len()).ok()?;
    current.sort_by(|one, other| one.name.cmp(&other.name));
    let is_complete = current.iter().all(|slice| slice.slice_count == count);
    is_complete.then(|| current.into_iter().filter_map(|slice| slice.content).collect())
}

fn foreign(generation: i64) -> DraSlice {
    DraSlice {
        name: "foreign".to_owned(),
        generation,
        slice_count: 1,
        content: SliceContent::Devices(vec![device("foreign")]),
    }
}

proptest! {
    #[test]
    fn schedulers_see_nothing_but_whole_pools_that_were_wanted(
        events in prop::collection::vec(event(), 0..60)
    ) {
        let mut server = Server::default();
        let mut now = wanted(1, 0, 0);
        let mut history = vec![now.clone(), foreign_content()];
        for event in events {
            let generation = server.last_generation;
            match event {
                Event::Want(count, first, others) => {
                    now = wanted(count, first, others);
                    history.push(now.clone());
                }
                Event::Write(is_connected) => {
                    let link =
                        if is_connected { KubeletLink::Connected } else { KubeletLink::Away };
                    if let Some(write) = server.next(&now, link) {
                        server.apply(write);
                    }
                }
                Event::Delete(index) if !server.slices.is_empty() => {
                    let at = index.index(server.slices.len());
                    server.slices.remove(at);
                }
                Event::Delete(_) => {}
                Event::Wipe => server.slices.clear(),
                Event::Foreign(generation) => server.put(foreign(generation)),
            }
            prop_assert!(server.last_generation >= generation);
            // What others delete or add, nobody can keep whole.
            let is_foreign = server.slices.iter().any(|slice| slice.name == "foreign");
            if let Some(pool) = visible(&server.slices).filter(|_| !is_foreign) {
                prop_assert!(history.contains(&pool), "{pool:?} was never wanted");
            }
        }
        server.settle(&now);
        prop_assert_eq!(visible(&server.slices), Some(now.clone()));
        prop_assert_eq!(server.slices.len(), now.len());
    }

    #[test]
    fn the_pool_equals_the_snapshot_after_any_fault_and_its_names_are_valid(
        absent in prop::collection::btree_set(0..5_usize, 0..5),
        unbound in prop::collection::btree_set(0..5_usize, 0..5),
        offer in prop::sample::select(&[DraOffer::Board, DraOffer::Chip, DraOffer::Both][..]),
    ) {
        let config = config(offer);
        let mut scan = machine().scan();
        let addresses: Vec<_> = scan.chips.iter().map(|chip| chip.function.address).collect();
        for (index, address) in addresses.iter().enumerate() {
            let Some(chip) = scan.chips.iter_mut().find(|it| it.function.address == *address) else {
                continue;
            };
            if unbound.contains(&index) {
                chip.driver = None;
            }
            if absent.contains(&index) {
                scan.chips.retain(|chip| chip.function.address != *address);
                scan.functions.retain(|function| function.address != *address);
            }
        }
        let snapshot = snapshot_of(scan, &config);
        let pool = pool_of(&snapshot);
        check_against(&snapshot, &pool, offer);
        for content in contents(&pool, &ServerSupport::default()) {
            check_valid(&content);
        }
    }

    #[test]
    fn nothing_is_prepared_for_two_holders_and_each_answer_is_given_again(
        steps in prop::collection::vec((0..6_usize, 0..7_usize, any::<bool>()), 0..40)
    ) {
        const DEVICES: [&str; 7] = [
            "board-0000-14-00-0", "chip-0000-14-00-0", "chip-0000-17-00-0", "board-0000-24-00-0",
            "chip-0000-24-00-0", "chip-0000-27-00-0", "chip-0000-90-00-0",
        ];
        let mut node = Node::new(DraOffer::Both);
        let mut held: BTreeMap<usize, Vec<PciAddress>> = BTreeMap::new();
        for (owner, device, is_prepare) in steps {
            let claim = claim(&owner.to_string(), &[DEVICES[device]]);
            if !is_prepare {
                node.holders.released(Some(&claim.uid), &claim.claim);
                held.remove(&owner);
            } else if !held.contains_key(&owner)
                && let Ok(prepared) = node.prepare(&claim)
            {
                prop_assert_eq!(node.prepare(&claim), Ok(prepared.clone()));
                let chips: Vec<_> = prepared.held.into_iter().flat_map(|it| it.chips).collect();
                let mut others = held.values().flatten();
                prop_assert!(!others.any(|chip| chips.contains(chip)), "{chips:?} is held");
                held.insert(owner, chips);
            }
        }
    }
}

fn foreign_content() -> Vec<SliceContent> {
    vec![foreign(1).content]
}

/// Every chip is offered in every form that is offered, and is tainted if and only if it is unhealthy.
fn check_against(snapshot: &NodeSnapshot, pool: &DraPool, offer: DraOffer) {
    let offered: Vec<_> = pool.devices.iter().flat_map(|device| &device.chips).copied().collect();
    for board in &snapshot.inventory.boards {
        for chip in &board.chips {
            let times = offered.iter().filter(|offered| **offered == chip.address).count();
            let is_twice = offer == DraOffer::Both && board.expected_chips > 1;
            assert_eq!(times, if is_twice { 2 } else { 1 }, "{}", chip.address);
        }
    }
    for device in &pool.devices {
        assert_eq!(device.taints.is_empty(), device.reasons.is_empty(), "{}", device.name);
        assert!(device.taints.len() <= 1, "{device:?}");
    }
    let chips = snapshot.inventory.chips().len();
    assert_eq!(offered.iter().collect::<BTreeSet<_>>().len(), chips);
}

/// The rules of the API server.
pub(super) fn check_valid(content: &SliceContent) {
    match content {
        SliceContent::Counters(sets) => {
            assert!(sets.len() <= 8);
            for set in sets {
                assert!(is_dns_label(&set.name) && (1..=32).contains(&set.counters.len()));
                assert!(set.counters.keys().all(|name| is_dns_label(name)));
            }
        }
        SliceContent::Devices(devices) => {
            let names: BTreeSet<_> = devices.iter().map(|device| &device.name).collect();
            assert_eq!(names.len(), devices.len());
            let needs_less = |it: &PublishedDevice| !it.taints.is_empty() || it.counter.is_some();
            assert!(devices.len() <= if devices.iter().any(needs_less) { 64 } else { 128 });
            for device in devices {
                assert!(is_dns_label(&device.name), "{}", device.name);
                assert!(device.taints.len() <= 4);
                assert!(device.attributes.len() + usize::from(device.slots.is_some()) <= 32);
                device.attributes.iter().for_each(|(name, value)| check_attribute(name, value));
            }
        }
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn check_attribute(name: &str, value: &AttributeValue) {
    let (domain, id) = name.split_once('/').unwrap_or(("a.b", name));
    assert!(domain.len() <= 63 && (1..=32).contains(&id.len()), "{name}");
    let is_c_identifier = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !id.starts_with(|first: char| first.is_ascii_digit());
    assert!(is_c_identifier, "{name}");
    if let AttributeValue::Text(text) | AttributeValue::Version(text) = value {
        assert!((1..=64).contains(&text.len()), "{name}={text}");
    }
}
