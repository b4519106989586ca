//! What the CDI spec says, when it is written, and who gets devices by its names.

use std::collections::BTreeMap;
use std::path::Path;

use super::allocate::Grant;
use crate::decide::node::advertise::NodeSnapshot;
use crate::model::board::{Board, Chip};
use crate::model::cdi::{CdiDirectory, CdiName, CdiSpec, FILE_NAME, KIND, OtherSpec, Place};
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;

/// Everything of the machine that has a node, offered or not and whatever its health: a container
/// that restarts must find the names that it was given.
#[must_use]
pub fn spec(inventory: &Inventory) -> CdiSpec {
    let chip = |chip: &Chip| Some((CdiName::Chip(chip.address), vec![node(chip)?]));
    let mut devices: BTreeMap<_, _> = inventory.chips().into_iter().filter_map(chip).collect();
    devices.extend(inventory.boards.iter().filter_map(whole_board));
    let common = inventory.control_nodes.iter().map(|node| node.path.clone()).collect();
    CdiSpec { common, devices }
}

/// A board of one chip has that chip's name; half a board has none.
fn whole_board(board: &Board) -> Option<(CdiName, Vec<String>)> {
    let is_whole = board.chips.len() > 1 && board.chips.len() == board.expected_chips;
    let nodes: Option<Vec<_>> = board.chips.iter().map(node).collect();
    is_whole.then_some((CdiName::Board(board.address), nodes?))
}

fn node(chip: &Chip) -> Option<String> {
    chip.node.as_ref().map(|node| node.path.clone())
}

/// The same grant by the names of its chips, where `there`, the spec that a runtime would find,
/// gives each of them the nodes that it has now; else as it was, by its nodes. A name that does
/// not resolve, or resolves to something else, would be worse than none.
///
/// Chips, never boards: should boards be paired otherwise later, a restarted container still gets
/// what it was given.
#[must_use]
pub fn named(grant: Grant, snapshot: &NodeSnapshot, there: Option<&CdiSpec>) -> Grant {
    if !snapshot.cdi.enabled || !there.is_some_and(|there| resolves(&grant, snapshot, there)) {
        return grant;
    }
    let names = grant.chips.iter().map(|chip| CdiName::Chip(*chip)).collect();
    let nodes = if snapshot.cdi.device_specs { grant.nodes } else { Vec::new() };
    Grant { cdi_names: names, nodes, ..grant }
}

fn resolves(grant: &Grant, snapshot: &NodeSnapshot, there: &CdiSpec) -> bool {
    let now = spec(&snapshot.inventory);
    let is_same = |chip: &PciAddress| {
        let name = CdiName::Chip(*chip);
        now.devices.contains_key(&name) && now.devices.get(&name) == there.devices.get(&name)
    };
    there.common == now.common && grant.chips.iter().all(is_same)
}

/// What to do with our file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAction {
    /// Nothing.
    Keep,
    /// Write it where there is none.
    Create,
    /// Write it in the place of one of ours.
    Replace,
    /// Take it away.
    Remove,
}

/// What to do where `wanted` is to be said, `found` is there, and `last` is what this instance
/// last brought about.
///
/// Of two instances each acts on the other's file when it starts and when it has something new to
/// say, and never otherwise: so they cannot go on writing against each other.
#[must_use]
pub fn step(wanted: &CdiSpec, found: &CdiDirectory, last: Option<&CdiSpec>) -> FileAction {
    let is_silent = wanted.devices.is_empty() || is_shared(wanted, found);
    match &found.place {
        Place::Foreign => FileAction::Keep,
        Place::Empty if is_silent => FileAction::Keep,
        Place::Empty => FileAction::Create,
        Place::Ours { own: false, .. } if last == Some(wanted) => FileAction::Keep,
        Place::Ours { .. } if is_silent => FileAction::Remove,
        Place::Ours { spec, own: true } if spec == wanted => FileAction::Keep,
        Place::Ours { .. } => FileAction::Replace,
    }
}

/// The names that a runtime resolves in this directory. One that two files define it does not.
#[must_use]
pub fn resolvable(found: &CdiDirectory) -> Option<&CdiSpec> {
    match &found.place {
        Place::Ours { spec, .. } if !is_shared(spec, found) => Some(spec),
        _ => None,
    }
}

/// What an operator should know of the directory, each a sentence with its remedy.
#[must_use]
pub fn complaints(wanted: &CdiSpec, found: &CdiDirectory, directory: &Path) -> Vec<String> {
    let foreign = (found.place == Place::Foreign).then(|| {
        let path = directory.join(FILE_NAME);
        format!(
            "{} is there and not as this plugin writes it: it is left alone, and containers get \
             plain device nodes; remove it or set cdi.enabled: false",
            path.display()
        )
    });
    let others = found.others.iter().map(|other| {
        let path = other.path.display();
        match shared_name(wanted, other) {
            Some(name) => format!(
                "{path} also defines {}, and a name that is defined twice is resolved by no \
                 runtime: our spec is not written, and containers get plain device nodes; remove \
                 that file or set cdi.enabled: false",
                name.qualified()
            ),
            None => {
                format!("{path} is also of the kind {KIND}; its names are others, so both stay")
            }
        }
    });
    foreign.into_iter().chain(others).collect()
}

fn is_shared(spec: &CdiSpec, found: &CdiDirectory) -> bool {
    found.others.iter().any(|other| shared_name(spec, other).is_some())
}

/// The first name of ours that another file has too.
fn shared_name(spec: &CdiSpec, other: &OtherSpec) -> Option<CdiName> {
    spec.devices.keys().copied().find(|name| other.names.contains(&name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::allocate::allocate;
    use super::*;
    use crate::decide::machine::observe::build;
    use crate::decide::sample::{SINGLE, Sample, UNKNOWN, at};
    use crate::model::config::Config;

    /// A board of the chips 14:00.0 and 17:00.0, an MR-V100 at 20:00.0, a control node.
    fn sample() -> Sample {
        Sample::default()
            .dual_board("00:01.0", 0x10, UNKNOWN)
            .chip("00:02.0 20:00.0", SINGLE)
            .class_device("iluvatar0", 0, Some("14:00.0"))
            .class_device("iluvatar1", 1, Some("17:00.0"))
            .node("/dev/iluvatar0", 0)
            .node("/dev/iluvatar1", 1)
            .node("/dev/itrctl", 9)
    }

    fn whole() -> Sample {
        sample().class_device("iluvatar2", 2, Some("20:00.0")).node("/dev/iluvatar2", 2)
    }

    fn inventory(sample: Sample) -> Inventory {
        build(&sample.survey(), &Config::default())
    }

    /// `NAME: NODE NODE`.
    fn shown(spec: &CdiSpec) -> Vec<String> {
        let device =
            |(name, nodes): (&CdiName, &Vec<String>)| format!("{name}: {}", nodes.join(" "));
        spec.devices.iter().map(device).collect()
    }

    #[test]
    fn chips_have_their_addresses_and_boards_of_several_a_name_that_no_chip_can_have() {
        let spec = spec(&inventory(whole()));
        assert_eq!(
            shown(&spec),
            [
                "0000:14:00.0: /dev/iluvatar0",
                "0000:17:00.0: /dev/iluvatar1",
                "0000:20:00.0: /dev/iluvatar2",
                "board-0000:14:00.0: /dev/iluvatar0 /dev/iluvatar1",
            ]
        );
        assert_eq!(spec.common, ["/dev/itrctl"]);
    }

    #[test]
    fn what_has_no_node_has_no_name() {
        let spec_of = |sample| shown(&spec(&inventory(sample)));
        let without_the_last = spec_of(sample());
        assert_eq!(without_the_last.len(), 3);
        assert!(!without_the_last.iter().any(|line| line.starts_with("0000:20:00.0")));
        let half = Sample::default()
            .dual_board("00:01.0", 0x10, UNKNOWN)
            .class_device("iluvatar0", 0, Some("14:00.0"))
            .node("/dev/iluvatar0", 0);
        assert_eq!(spec_of(half), ["0000:14:00.0: /dev/iluvatar0"]);
        assert_eq!(spec_of(Sample::default().node("/dev/itrctl", 9)), [""; 0]);
    }

    fn snapshot(device_specs: bool) -> NodeSnapshot {
        let mut config = Config::default();
        config.cdi.enabled = true;
        config.cdi.device_specs = device_specs;
        NodeSnapshot::new(inventory(whole()), &config)
    }

    fn grant(snapshot: &NodeSnapshot, id: &str) -> Grant {
        let nodes = &snapshot.inventory.control_nodes;
        allocate(&snapshot.resources[0], nodes, snapshot.container, &[id.to_owned()]).unwrap()
    }

    #[track_caller]
    fn check_named(snapshot: &NodeSnapshot, there: Option<&CdiSpec>, names: &[&str], nodes: usize) {
        let grant = named(grant(snapshot, "0000:14:00.0"), snapshot, there);
        let given: Vec<_> = grant.cdi_names.iter().map(ToString::to_string).collect();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        assert_eq!((given, grant.nodes.len()), (names, nodes));
    }

    #[test]
    fn a_board_is_handed_out_by_the_names_of_its_chips() {
        let there = Some(spec(&snapshot(false).inventory));
        let chips = ["0000:14:00.0", "0000:17:00.0"];
        check_named(&snapshot(false), there.as_ref(), &chips, 0);
        check_named(&snapshot(true), there.as_ref(), &chips, 3);
    }

    #[test]
    fn without_a_spec_that_says_the_same_it_is_handed_out_by_its_nodes() {
        let there = spec(&snapshot(false).inventory);
        check_named(&snapshot(false), None, &[], 3);
        let mut renumbered = there.clone();
        renumbered.devices.insert(CdiName::Chip(at("17:00.0")), vec!["/dev/iluvatar7".to_owned()]);
        check_named(&snapshot(false), Some(&renumbered), &[], 3);
        let mut without = there.clone();
        without.devices.remove(&CdiName::Chip(at("14:00.0")));
        check_named(&snapshot(false), Some(&without), &[], 3);
        check_named(
            &snapshot(false),
            Some(&CdiSpec { common: Vec::new(), ..there.clone() }),
            &[],
            3,
        );
        let mut off = snapshot(false);
        off.cdi.enabled = false;
        check_named(&off, Some(&there), &[], 3);
        // Another chip's node is of no concern.
        let mut elsewhere = there;
        elsewhere.devices.remove(&CdiName::Chip(at("20:00.0")));
        check_named(&snapshot(false), Some(&elsewhere), &["0000:14:00.0", "0000:17:00.0"], 0);
    }

    fn named_spec(name: &str) -> CdiSpec {
        let name = name.parse().unwrap();
        CdiSpec { common: Vec::new(), devices: [(name, vec!["/dev/x".to_owned()])].into() }
    }

    fn found(place: Place, others: &[(&str, &str)]) -> CdiDirectory {
        let other = |(path, name): &(&str, &str)| OtherSpec {
            path: path.into(),
            names: [(*name).to_owned()].into(),
        };
        CdiDirectory { place, others: others.iter().map(other).collect() }
    }

    #[test]
    fn the_file_is_written_when_there_is_something_new_to_say_and_never_over_anothers() {
        let (old, new) = (named_spec("0000:14:00.0"), named_spec("0000:17:00.0"));
        let nothing = CdiSpec::default();
        let ours = |own| Place::Ours { spec: old.clone(), own };
        let cases = [
            // This instance's.
            (&new, Place::Empty, None, FileAction::Create),
            (&new, Place::Empty, Some(&new), FileAction::Create),
            (&old, ours(true), Some(&old), FileAction::Keep),
            (&new, ours(true), Some(&old), FileAction::Replace),
            (&nothing, ours(true), Some(&old), FileAction::Remove),
            // Another instance's, before us or beside us.
            (&old, ours(false), None, FileAction::Replace),
            (&new, ours(false), Some(&old), FileAction::Replace),
            (&new, ours(false), Some(&new), FileAction::Keep),
            (&nothing, ours(false), None, FileAction::Remove),
            (&nothing, ours(false), Some(&nothing), FileAction::Keep),
            // Somebody else's.
            (&new, Place::Foreign, None, FileAction::Keep),
            (&nothing, Place::Foreign, Some(&old), FileAction::Keep),
            (&nothing, Place::Empty, None, FileAction::Keep),
        ];
        for (number, (wanted, place, last, expected)) in cases.into_iter().enumerate() {
            assert_eq!(step(wanted, &found(place, &[]), last), expected, "case {number}");
        }
    }

    #[test]
    fn a_name_that_another_file_has_keeps_ours_away_and_is_not_handed_out() {
        let spec = named_spec("0000:14:00.0");
        let ours = || Place::Ours { spec: spec.clone(), own: true };
        let same = [("/c/ix.yaml", "0000:14:00.0")];
        let different = [("/c/ix.yaml", "0")];
        assert_eq!(step(&spec, &found(Place::Empty, &same), None), FileAction::Keep);
        assert_eq!(step(&spec, &found(ours(), &same), Some(&spec)), FileAction::Remove);
        assert_eq!(resolvable(&found(ours(), &same)), None);
        assert_eq!(step(&spec, &found(Place::Empty, &different), None), FileAction::Create);
        assert_eq!(resolvable(&found(ours(), &different)), Some(&spec));
        assert_eq!(resolvable(&found(Place::Foreign, &[])), None);
    }

    #[test]
    fn what_is_in_the_way_is_named_with_its_remedy() {
        let spec = named_spec("0000:14:00.0");
        let others = [("/c/a.json", "0000:14:00.0"), ("/c/b.yaml", "all")];
        let complaints = complaints(&spec, &found(Place::Foreign, &others), Path::new("/c"));
        assert_eq!(
            complaints,
            [
                "/c/iluvatar.com-gpu.json is there and not as this plugin writes it: it is left \
                 alone, and containers get plain device nodes; remove it or set cdi.enabled: false",
                "/c/a.json also defines iluvatar.com/gpu=0000:14:00.0, and a name that is defined \
                 twice is resolved by no runtime: our spec is not written, and containers get \
                 plain device nodes; remove that file or set cdi.enabled: false",
                "/c/b.yaml is also of the kind iluvatar.com/gpu; its names are others, so both stay",
            ]
        );
    }
}
