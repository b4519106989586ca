//! The labels of a node: what schedulers and people may know of its hardware. Health is not in them,
//! so they change only when the hardware does.

use std::collections::BTreeMap;

use crate::model::board::Board;
use crate::model::inventory::Inventory;

/// The longest value of a label (Kubernetes, `apimachinery/pkg/util/validation`).
const VALUE_LIMIT: usize = 63;

/// What a board is called that has no known model.
const UNKNOWN: &str = "unknown";

/// Labels by key, in the words of the vendor's feature discovery where it has one; none on a node
/// without chips.
#[must_use]
pub fn node_labels(inventory: &Inventory) -> BTreeMap<String, String> {
    if inventory.boards.is_empty() {
        return BTreeMap::new();
    }
    let chips = inventory.chips_by_board().count();
    let mut labels = vec![
        ("gpu.present", "true".to_owned()),
        ("gpu.boards", inventory.boards.len().to_string()),
        ("gpu.chips", chips.to_string()),
        ("gpu.count", chips.to_string()),
    ];
    if let Some((product, count)) = product(&inventory.boards) {
        labels.push(("gpu.product", product));
        labels.push(("gpu.count", count.to_string()));
    }
    labels.extend(inventory.driver_version.iter().flat_map(|version| driver_version(version)));
    let valid = labels.into_iter().filter_map(|(key, value)| Some((key, label_value(&value)?)));
    valid.map(|(key, value)| (format!("iluvatar.com/{key}"), value)).collect()
}

/// The model with the most chips, and how many it has; of equals the first by name. The vendor's
/// feature discovery also names one model of several.
fn product(boards: &[Board]) -> Option<(String, usize)> {
    let mut chips = BTreeMap::new();
    for board in boards.iter().filter(|board| board.model != UNKNOWN) {
        *chips.entry(&board.model).or_insert(0) += board.chips.len();
    }
    let most = chips.into_iter().rev().max_by_key(|(_, count)| *count);
    most.map(|(model, count)| (model.clone(), count))
}

/// The whole version, and its first three numbers.
fn driver_version(version: &str) -> Vec<(&'static str, String)> {
    let parts =
        ["ix.driver-version.major", "ix.driver-version.minor", "ix.driver-version.revision"];
    let parts = parts.into_iter().zip(version.split('.').map(str::to_owned));
    parts.chain([("ix.driver-version.full", version.to_owned())]).collect()
}

/// The text as a label can have it: other characters become `-`, and the ends are letters or digits;
/// none where nothing is left.
fn label_value(text: &str) -> Option<String> {
    let is_allowed =
        |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let allowed = text.chars().map(|it| if is_allowed(it) { it } else { '-' });
    let value: String = allowed
        .skip_while(|character| !character.is_ascii_alphanumeric())
        .take(VALUE_LIMIT)
        .collect();
    let value = value.trim_end_matches(|character: char| !character.is_ascii_alphanumeric());
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decide::node::state::snapshot_of;
    use crate::decide::scan_builder::{SINGLE, ScanBuilder, UNKNOWN as UNKNOWN_ID};
    use crate::model::config::Config;

    /// The labels as lines, without what they all begin with.
    fn lines(sample: ScanBuilder, change: impl FnOnce(&mut Inventory)) -> Vec<String> {
        let snapshot = snapshot_of(sample.scan(), &Config::default());
        let mut inventory = (*snapshot.inventory).clone();
        change(&mut inventory);
        let labels = node_labels(&inventory).into_iter();
        let lines = labels.map(|(key, value)| format!("{key}={value}"));
        lines.map(|line| line.strip_prefix("iluvatar.com/").unwrap().to_owned()).collect()
    }

    fn two_models() -> ScanBuilder {
        ScanBuilder::default()
            .dual_board("00:01.0", 0x10, UNKNOWN_ID)
            .chip("00:02.0 40:00.0", SINGLE)
    }

    #[test]
    fn a_node_has_the_labels_of_its_hardware() {
        let named = |inventory: &mut Inventory| {
            "BI-V150".clone_into(&mut inventory.boards[0].model);
            "MR-V100".clone_into(&mut inventory.boards[1].model);
            inventory.driver_version = Some("4.3.8".to_owned());
        };
        let expected = [
            "gpu.boards=2",
            "gpu.chips=3",
            "gpu.count=2",
            "gpu.present=true",
            "gpu.product=BI-V150",
            "ix.driver-version.full=4.3.8",
            "ix.driver-version.major=4",
            "ix.driver-version.minor=3",
            "ix.driver-version.revision=8",
        ];
        assert_eq!(lines(two_models(), named), expected);
    }

    #[test]
    fn what_is_not_known_has_no_label() {
        let unnamed = |inventory: &mut Inventory| {
            for board in &mut inventory.boards {
                UNKNOWN.clone_into(&mut board.model);
            }
            inventory.driver_version = None;
        };
        let expected = ["gpu.boards=2", "gpu.chips=3", "gpu.count=3", "gpu.present=true"];
        assert_eq!(lines(two_models(), unnamed), expected);
        assert_eq!(lines(ScanBuilder::default(), |_| {}), [""; 0]);
    }

    fn is_alphanumeric(byte: Option<&u8>) -> bool {
        byte.is_some_and(u8::is_ascii_alphanumeric)
    }

    /// The rule of Kubernetes for the name of a key and for a value that is not empty.
    fn is_name(text: &str) -> bool {
        let bytes = text.as_bytes();
        let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        (1..=63).contains(&bytes.len())
            && is_alphanumeric(bytes.first())
            && is_alphanumeric(bytes.last())
            && bytes.iter().all(is_inner)
    }

    proptest! {
        #[test]
        fn whatever_the_hardware_says_every_label_is_valid(
            models in prop::collection::vec(any::<String>(), 2),
            version in prop::option::of("\\PC{0,80}"),
        ) {
            let snapshot = snapshot_of(two_models().scan(), &Config::default());
            let mut inventory = (*snapshot.inventory).clone();
            for (board, model) in inventory.boards.iter_mut().zip(models) {
                board.model = model;
            }
            inventory.driver_version = version;
            for (key, value) in node_labels(&inventory) {
                let (prefix, name) = key.split_once('/').unwrap();
                prop_assert_eq!(prefix, "iluvatar.com");
                prop_assert!(is_name(name) && is_name(&value), "{}={}", key, value);
            }
        }

        #[test]
        fn a_valid_value_stays_as_it_is(value in "[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?") {
            prop_assert_eq!(label_value(&value), Some(value));
        }
    }
}
