//! The content of the CDI spec, when to write it, and which devices can be allocated by its names.

use std::collections::BTreeSet;
use std::path::Path;

use super::records::NodeDelivery;
use crate::model::board::{Board, Chip};
use crate::model::cdi::{CdiDirectory, CdiKind, CdiName, CdiSpec, OtherSpec, SpecFile, SpecWriter};
use crate::model::config::CdiRules;
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;

/// Everything on the machine that has a device node, listed in a resource or not and whatever its
/// health: a container that restarts must find the names that it was given.
#[must_use]
pub fn spec(inventory: &Inventory, kind: CdiKind) -> CdiSpec {
    let chips = inventory.chips_by_board().filter_map(chip_names);
    let devices = chips.chain(inventory.boards.iter().filter_map(board_names)).collect();
    let common = inventory.control_nodes.iter().map(|node| node.path.clone()).collect();
    CdiSpec { kind, common, devices }
}

fn chip_names(chip: &Chip) -> Option<(CdiName, Vec<String>)> {
    Some((CdiName::Chip(chip.address), vec![node(chip)?]))
}

/// A board of one chip has that chip's name; an incomplete board has none.
fn board_names(board: &Board) -> Option<(CdiName, Vec<String>)> {
    let is_whole = board.chips.len() > 1 && board.chips.len() == board.expected_chips;
    let nodes: Option<Vec<_>> = board.chips.iter().map(node).collect();
    is_whole.then_some((CdiName::Board(board.address), nodes?))
}

fn node(chip: &Chip) -> Option<String> {
    chip.node.as_ref().map(|node| node.path.clone())
}

/// The names that containers can be given: those that a runtime resolves to the nodes that the chips
/// have now. A name that resolves to nothing or to other nodes would be worse than none.
///
/// Names of chips, never of boards: if chips are assigned to boards differently later, a restarted
/// container still gets what it was allocated.
#[derive(Clone, Copy, Debug)]
pub struct CdiNames<'a> {
    now: &'a CdiSpec,
    on_disk: &'a CdiSpec,
    /// What containers get besides the names.
    pub delivery: NodeDelivery,
}

impl<'a> CdiNames<'a> {
    /// Of a machine as `now` describes it, where a runtime finds `on_disk`. None where one of them is
    /// missing, or the nodes that go with every name differ.
    #[must_use]
    pub fn new(
        rules: &CdiRules,
        now: Option<&'a CdiSpec>,
        on_disk: Option<&'a CdiSpec>,
    ) -> Option<Self> {
        let delivery =
            if rules.device_specs { NodeDelivery::DeviceNodes } else { NodeDelivery::CdiNames };
        let names = Self { now: now?, on_disk: on_disk?, delivery };
        let is_same =
            |one: &CdiSpec, other: &CdiSpec| one.kind == other.kind && one.common == other.common;
        is_same(names.now, names.on_disk).then_some(names)
    }

    /// Whether a runtime resolves the names of all these chips rightly.
    #[must_use]
    pub fn resolve(&self, chips: &BTreeSet<PciAddress>) -> bool {
        chips.iter().all(|chip| {
            let name = CdiName::Chip(*chip);
            let now = self.now.devices.get(&name);
            now.is_some() && now == self.on_disk.devices.get(&name)
        })
    }
}

/// What to do with our spec file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecAction {
    /// Leave it as it is.
    Keep,
    /// Write it where there is no file.
    Create,
    /// Write it over one of ours.
    Replace,
    /// Remove it.
    Remove,
}

/// What to do where the file should hold `wanted`, the directory holds `found`, and this instance
/// last wrote `last`.
///
/// Of two instances, each changes the other's file when it starts and when its own spec changes, and
/// never otherwise, so they cannot overwrite each other endlessly.
#[must_use]
pub fn spec_action(wanted: &CdiSpec, found: &CdiDirectory, last: Option<&CdiSpec>) -> SpecAction {
    use SpecWriter::{AnotherInstance, ThisInstance};
    let wants_none = wanted.devices.is_empty() || is_shared(wanted, found);
    match &found.spec_file {
        SpecFile::Foreign => SpecAction::Keep,
        SpecFile::Absent if wants_none => SpecAction::Keep,
        SpecFile::Absent => SpecAction::Create,
        SpecFile::Ours { writer: AnotherInstance, .. } if last == Some(wanted) => SpecAction::Keep,
        SpecFile::Ours { .. } if wants_none => SpecAction::Remove,
        SpecFile::Ours { spec, writer: ThisInstance } if spec == wanted => SpecAction::Keep,
        SpecFile::Ours { .. } => SpecAction::Replace,
    }
}

/// The names that a runtime resolves in this directory. It resolves no name that two files define.
#[must_use]
pub fn resolvable(found: &CdiDirectory) -> Option<&CdiSpec> {
    match &found.spec_file {
        SpecFile::Ours { spec, .. } if !is_shared(spec, found) => Some(spec),
        _ => None,
    }
}

/// Problems of the directory for an operator, each with its remedy.
#[must_use]
pub fn problems(wanted: &CdiSpec, found: &CdiDirectory, directory: &Path) -> Vec<String> {
    let foreign = (found.spec_file == SpecFile::Foreign).then(|| {
        let path = directory.join(wanted.kind.file_name());
        format!(
            "{} was not written by this plugin; keeping it and allocating plain device nodes; \
             remove it or set cdi.enabled: false",
            path.display()
        )
    });
    let others = found.others.iter().map(|other| other_problem(wanted, other));
    foreign.into_iter().chain(others).collect()
}

fn other_problem(wanted: &CdiSpec, other: &OtherSpec) -> String {
    let path = other.path.display();
    let Some(name) = shared_name(wanted, other) else {
        return format!(
            "{path} is another spec of kind {}; it has other names, so both are kept",
            wanted.kind
        );
    };
    format!(
        "{path} also defines {}, and runtimes do not resolve a name that is defined twice; writing \
         no spec and allocating plain device nodes; remove that file or set cdi.enabled: false",
        name.qualified(wanted.kind)
    )
}

fn is_shared(spec: &CdiSpec, found: &CdiDirectory) -> bool {
    found.others.iter().any(|other| shared_name(spec, other).is_some())
}

/// The first of our names that another file also defines.
fn shared_name(spec: &CdiSpec, other: &OtherSpec) -> Option<CdiName> {
    spec.devices.keys().copied().find(|name| other.names.contains(&name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::allocate::{AllocationContext, Grant, allocate};
    use super::SpecWriter::{AnotherInstance, ThisInstance};
    use super::*;
    use crate::decide::node::snapshot::NodeSnapshot;
    use crate::decide::node::state::snapshot_of;
    use crate::decide::scan_builder::{SINGLE, ScanBuilder, UNKNOWN, at};
    use crate::model::config::Config;

    /// A board of the chips 14:00.0 and 17:00.0, an MR-V100 at 20:00.0, a control node.
    fn sample() -> ScanBuilder {
        ScanBuilder::default()
            .dual_board("00:01.0", 0x10, UNKNOWN)
            .chip("00:02.0 20:00.0", SINGLE)
            .class_device("iluvatar0", 0, Some("14:00.0"))
            .class_device("iluvatar1", 1, Some("17:00.0"))
            .node("/dev/iluvatar0", 0)
            .node("/dev/iluvatar1", 1)
            .node("/dev/itrctl", 9)
    }

    fn whole() -> ScanBuilder {
        sample().class_device("iluvatar2", 2, Some("20:00.0")).node("/dev/iluvatar2", 2)
    }

    fn inventory(sample: ScanBuilder) -> Inventory {
        (*snapshot_of(sample.scan(), &Config::default()).inventory).clone()
    }

    /// `NAME: NODE NODE`.
    fn shown(spec: &CdiSpec) -> Vec<String> {
        let device =
            |(name, nodes): (&CdiName, &Vec<String>)| format!("{name}: {}", nodes.join(" "));
        spec.devices.iter().map(device).collect()
    }

    #[test]
    fn chips_have_their_addresses_and_boards_of_several_a_name_that_no_chip_can_have() {
        let spec = spec(&inventory(whole()), CdiKind::DevicePlugin);
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
        let spec_of = |sample| shown(&spec(&inventory(sample), CdiKind::DevicePlugin));
        let without_the_last = spec_of(sample());
        assert_eq!(without_the_last.len(), 3);
        assert!(!without_the_last.iter().any(|line| line.starts_with("0000:20:00.0")));
        let half = ScanBuilder::default()
            .dual_board("00:01.0", 0x10, UNKNOWN)
            .class_device("iluvatar0", 0, Some("14:00.0"))
            .node("/dev/iluvatar0", 0);
        assert_eq!(spec_of(half), ["0000:14:00.0: /dev/iluvatar0"]);
        assert_eq!(spec_of(ScanBuilder::default().node("/dev/itrctl", 9)), [""; 0]);
    }

    fn snapshot(device_specs: bool) -> NodeSnapshot {
        let mut config = Config::default();
        config.cdi.enabled = true;
        config.cdi.device_specs = device_specs;
        NodeSnapshot::new(inventory(whole()), &config)
    }

    fn grant(snapshot: &NodeSnapshot, id: &str, on_disk: Option<&CdiSpec>) -> Grant {
        let context = AllocationContext {
            resource: &snapshot.resources[0],
            inventory: &snapshot.inventory,
            container: snapshot.container,
            cdi: CdiNames::new(&snapshot.cdi, snapshot.cdi_spec.as_ref(), on_disk),
        };
        allocate(&context, &[id.to_owned()]).unwrap()
    }

    #[track_caller]
    fn check_named(
        snapshot: &NodeSnapshot,
        on_disk: Option<&CdiSpec>,
        names: &[&str],
        nodes: usize,
    ) {
        let grant = grant(snapshot, "0000:14:00.0", on_disk);
        let given: Vec<_> = grant.cdi_names.iter().map(ToString::to_string).collect();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        assert_eq!((given, grant.nodes.len()), (names, nodes));
        let mut chips = grant.records.values().flat_map(|record| &record.chips);
        assert!(chips.all(|chip| chip.node.is_some() == (nodes > 0)), "{grant:?}");
    }

    #[test]
    fn a_board_is_allocated_by_the_names_of_its_chips() {
        let on_disk = Some(spec(&snapshot(false).inventory, CdiKind::DevicePlugin));
        let chips = ["0000:14:00.0", "0000:17:00.0"];
        check_named(&snapshot(false), on_disk.as_ref(), &chips, 0);
        check_named(&snapshot(true), on_disk.as_ref(), &chips, 3);
    }

    #[test]
    fn without_a_spec_that_resolves_its_names_a_board_is_allocated_by_its_nodes() {
        let on_disk = spec(&snapshot(false).inventory, CdiKind::DevicePlugin);
        check_named(&snapshot(false), None, &[], 3);
        let mut renumbered = on_disk.clone();
        renumbered.devices.insert(CdiName::Chip(at("17:00.0")), vec!["/dev/iluvatar7".to_owned()]);
        check_named(&snapshot(false), Some(&renumbered), &[], 3);
        let mut without = on_disk.clone();
        without.devices.remove(&CdiName::Chip(at("14:00.0")));
        check_named(&snapshot(false), Some(&without), &[], 3);
        check_named(
            &snapshot(false),
            Some(&CdiSpec { common: Vec::new(), ..on_disk.clone() }),
            &[],
            3,
        );
        let off = NodeSnapshot::new(inventory(whole()), &Config::default());
        check_named(&off, Some(&on_disk), &[], 3);
        // The names of other chips do not matter.
        let mut elsewhere = on_disk;
        elsewhere.devices.remove(&CdiName::Chip(at("20:00.0")));
        check_named(&snapshot(false), Some(&elsewhere), &["0000:14:00.0", "0000:17:00.0"], 0);
    }

    fn named_spec(name: &str) -> CdiSpec {
        let name = name.parse().unwrap();
        CdiSpec { devices: [(name, vec!["/dev/x".to_owned()])].into(), ..CdiSpec::default() }
    }

    fn found(spec_file: SpecFile, others: &[(&str, &str)]) -> CdiDirectory {
        let other = |(path, name): &(&str, &str)| OtherSpec {
            path: path.into(),
            names: [(*name).to_owned()].into(),
        };
        CdiDirectory { spec_file, others: others.iter().map(other).collect() }
    }

    #[test]
    fn the_file_is_written_when_its_content_changes_and_never_over_a_foreign_one() {
        let (old, new) = (named_spec("0000:14:00.0"), named_spec("0000:17:00.0"));
        let nothing = CdiSpec::default();
        let ours = |writer| SpecFile::Ours { spec: old.clone(), writer };
        let cases = [
            // This instance's.
            (&new, SpecFile::Absent, None, SpecAction::Create),
            (&new, SpecFile::Absent, Some(&new), SpecAction::Create),
            (&old, ours(ThisInstance), Some(&old), SpecAction::Keep),
            (&new, ours(ThisInstance), Some(&old), SpecAction::Replace),
            (&nothing, ours(ThisInstance), Some(&old), SpecAction::Remove),
            // Another instance's, before us or beside us.
            (&old, ours(AnotherInstance), None, SpecAction::Replace),
            (&new, ours(AnotherInstance), Some(&old), SpecAction::Replace),
            (&new, ours(AnotherInstance), Some(&new), SpecAction::Keep),
            (&nothing, ours(AnotherInstance), None, SpecAction::Remove),
            (&nothing, ours(AnotherInstance), Some(&nothing), SpecAction::Keep),
            // Somebody else's.
            (&new, SpecFile::Foreign, None, SpecAction::Keep),
            (&nothing, SpecFile::Foreign, Some(&old), SpecAction::Keep),
            (&nothing, SpecFile::Absent, None, SpecAction::Keep),
        ];
        for (number, (wanted, spec_file, last, expected)) in cases.into_iter().enumerate() {
            assert_eq!(
                spec_action(wanted, &found(spec_file, &[]), last),
                expected,
                "case {number}"
            );
        }
    }

    #[test]
    fn a_name_that_another_file_defines_prevents_ours_and_is_not_allocated() {
        let spec = named_spec("0000:14:00.0");
        let ours = || SpecFile::Ours { spec: spec.clone(), writer: ThisInstance };
        let same = [("/c/ix.yaml", "0000:14:00.0")];
        let different = [("/c/ix.yaml", "0")];
        assert_eq!(spec_action(&spec, &found(SpecFile::Absent, &same), None), SpecAction::Keep);
        assert_eq!(spec_action(&spec, &found(ours(), &same), Some(&spec)), SpecAction::Remove);
        assert_eq!(resolvable(&found(ours(), &same)), None);
        assert_eq!(
            spec_action(&spec, &found(SpecFile::Absent, &different), None),
            SpecAction::Create
        );
        assert_eq!(resolvable(&found(ours(), &different)), Some(&spec));
        assert_eq!(resolvable(&found(SpecFile::Foreign, &[])), None);
    }

    #[test]
    fn a_problem_names_the_file_and_the_remedy() {
        let spec = named_spec("0000:14:00.0");
        let others = [("/c/a.json", "0000:14:00.0"), ("/c/b.yaml", "all")];
        let problems = problems(&spec, &found(SpecFile::Foreign, &others), Path::new("/c"));
        assert_eq!(
            problems,
            [
                "/c/iluvatar.com-gpu.json was not written by this plugin; keeping it and allocating \
                 plain device nodes; remove it or set cdi.enabled: false",
                "/c/a.json also defines iluvatar.com/gpu=0000:14:00.0, and runtimes do not resolve a \
                 name that is defined twice; writing no spec and allocating plain device nodes; \
                 remove that file or set cdi.enabled: false",
                "/c/b.yaml is another spec of kind iluvatar.com/gpu; it has other names, so both are \
                 kept",
            ]
        );
    }
}
