//! Models by device id. The table has one row: no public `lspci` output shows another model.

use crate::model::board::UNKNOWN_MODEL;
use crate::model::config::BoardRules;
use crate::model::function::ChipFunction;
use crate::model::pci::PciId;

struct KnownModel {
    id: PciId,
    name: &'static str,
    chips: usize,
}

/// MR-V100, seen on two hosts: `Processing accelerators [1200]: Device [1e3e:0002] (rev 01)`.
const KNOWN_MODELS: &[KnownModel] =
    &[KnownModel { id: PciId { vendor: 0x1e3e, device: 0x0002 }, name: "MR-V100", chips: 1 }];

fn known_model(id: PciId) -> Option<&'static KnownModel> {
    KNOWN_MODELS.iter().find(|model| model.id == id)
}

/// How many chips a board of this id has: configuration first, then the table; none if neither
/// knows.
#[must_use]
pub fn chips_per_board(id: PciId, rules: &BoardRules) -> Option<usize> {
    let configured = rules.chips_per_board.get(&id).copied();
    configured.or_else(|| known_model(id).map(|model| model.chips))
}

/// The model's name: from the configuration, the table, or the host's hardware database (udev), in
/// this order; [`UNKNOWN_MODEL`] where none has the id.
#[must_use]
pub fn model_name(chip: &ChipFunction, rules: &BoardRules) -> String {
    let id = chip.id;
    let configured = rules.models.get(&id).cloned();
    configured
        .or_else(|| known_model(id).map(|model| model.name.to_owned()))
        .or_else(|| chip.udev_model.clone())
        .unwrap_or_else(|| UNKNOWN_MODEL.to_owned())
}
