//! `boards`: what is known of boards that /sys does not tell.

use std::collections::{BTreeMap, BTreeSet};

use super::cursor::Cursor;
use super::section::{Section, read_entries};
use crate::model::config::{BoardRules, Pairing};
use crate::model::pci::{PciAddress, PciId};

const KEYS: [&str; 4] = ["pairing", "chipsPerBoard", "pairs", "models"];

/// No board of this vendor has more than two chips; sixteen are a whole machine of today.
const CHIPS: std::ops::RangeInclusive<i128> = 1..=16;

pub(super) fn read_boards(root: &Section) -> BoardRules {
    let boards = root.section("boards", &KEYS);
    BoardRules {
        pairing: boards.find("pairing").and_then(read_pairing).unwrap_or_default(),
        chips_per_board: boards
            .find("chipsPerBoard")
            .map_or_else(BTreeMap::new, |map| read_by_id(map, read_chips)),
        pairs: boards.find("pairs").map_or_else(Vec::new, read_pairs),
        models: boards.find("models").map_or_else(BTreeMap::new, |map| {
            read_by_id(map, |model| model.text().map(str::to_owned))
        }),
    }
}

fn read_pairing(cursor: &Cursor) -> Option<Pairing> {
    if cursor.is_off() {
        return Some(Pairing::Off);
    }
    cursor.word(&[("auto", Pairing::Auto), ("off", Pairing::Off)])
}

/// A mapping from device ids.
fn read_by_id<'a, T>(
    map: &Cursor<'a>,
    read: impl Fn(&Cursor<'a>) -> Option<T>,
) -> BTreeMap<PciId, T> {
    let mut values = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (_, key, value) in read_entries(map) {
        let Some(id) = key.pci_id() else { continue };
        if !seen.insert(id) {
            key.problem(format!("`{id}` is given twice; remove one of the two"));
        }
        if let Some(value) = read(&value) {
            values.insert(id, value);
        }
    }
    values
}

fn read_chips(cursor: &Cursor) -> Option<usize> {
    let chips = cursor.integer()?;
    if !CHIPS.contains(&chips) {
        cursor.problem(format!(
            "`{chips}` chips on a board; write a number from {} to {}",
            CHIPS.start(),
            CHIPS.end()
        ));
        return None;
    }
    usize::try_from(chips).ok()
}

fn read_pairs(list: &Cursor) -> Vec<Vec<PciAddress>> {
    let mut boards = BTreeMap::new();
    list.items()
        .iter()
        .enumerate()
        .map(|(index, pair)| read_pair(pair, index, &mut boards))
        .collect()
}

/// One board's chips; `boards` tells in which entry an address was met before.
fn read_pair(
    pair: &Cursor,
    index: usize,
    boards: &mut BTreeMap<PciAddress, usize>,
) -> Vec<PciAddress> {
    let items = pair.items();
    let mut chips = Vec::new();
    for item in &items {
        let Some(address) = item.address() else {
            continue;
        };
        match boards.insert(address, index) {
            None => chips.push(address),
            Some(other) if other == index => {
                item.problem(format!("`{address}` is in the pair twice; remove one of the two"));
            }
            Some(other) => item.problem(format!(
                "`{address}` is in boards.pairs[{other}] as well; a chip is on one board only"
            )),
        }
    }
    let most = usize::try_from(*CHIPS.end()).unwrap_or(usize::MAX);
    if pair.is_list() && !(2..=most).contains(&items.len()) {
        pair.problem(format!(
            "{} addresses do not make a board; name its 2 to {most} chips",
            items.len()
        ));
    }
    chips
}
