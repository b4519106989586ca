//! `boards`: what is known of boards that /sys does not show.

use std::collections::{BTreeMap, BTreeSet};

use super::cursor::Cursor;
use super::keys::{self, CHIPS_PER_BOARD, CHIPS_PER_PAIR, PAIRING_WORDS};
use super::section::{Section, read_entries};
use crate::model::config::{BoardRules, Pairing};
use crate::model::pci::{PciAddress, PciId};

pub(super) fn read_boards(root: &Section) -> BoardRules {
    let boards = root.section(&keys::BOARDS);
    let find = |key| boards.find(key);
    BoardRules {
        pairing: find(&keys::boards::PAIRING).and_then(read_pairing).unwrap_or_default(),
        chips_per_board: find(&keys::boards::CHIPS_PER_BOARD)
            .map_or_else(BTreeMap::new, |map| read_by_id(map, read_chips)),
        pairs: find(&keys::boards::PAIRS).map_or_else(Vec::new, read_pairs),
        models: find(&keys::boards::MODELS).map_or_else(BTreeMap::new, |map| {
            read_by_id(map, |model| model.text().map(str::to_owned))
        }),
    }
}

fn read_pairing(cursor: &Cursor) -> Option<Pairing> {
    if cursor.is_off() {
        return Some(Pairing::Off);
    }
    cursor.word(&PAIRING_WORDS)
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
    let number = cursor.integer()?;
    let chips = u32::try_from(number).ok().filter(|chips| CHIPS_PER_BOARD.contains(chips));
    if chips.is_none() {
        let (least, most) = CHIPS_PER_BOARD.into_inner();
        cursor.problem(format!(
            "`{number}` chips on a board are not possible; write a number from {least} to {most}"
        ));
    }
    usize::try_from(chips?).ok()
}

fn read_pairs(list: &Cursor) -> Vec<Vec<PciAddress>> {
    let mut boards = BTreeMap::new();
    list.items()
        .iter()
        .enumerate()
        .map(|(index, pair)| read_pair(pair, index, &mut boards))
        .collect()
}

/// One board's chips; `boards` has the entry in which each address was found before.
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
    if pair.is_list() && !CHIPS_PER_PAIR.contains(&items.len()) {
        let (least, most) = CHIPS_PER_PAIR.into_inner();
        let addresses = match items.len() {
            1 => "1 address does".to_owned(),
            count => format!("{count} addresses do"),
        };
        pair.problem(format!("{addresses} not make a board; name its {least} to {most} chips"));
    }
    chips
}
