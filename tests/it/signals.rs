//! The signal table, row by row: what is seen, how it is judged as time goes by, and the words.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use ix_device_plugin::decide::health::tracker::{ChipReasons, HealthTracker};
use ix_device_plugin::decide::health::{
    ixml_signals, sample_signals as vitals, scan_signals as health,
};
use ix_device_plugin::decide::machine::observe::{facts, judged, seen};
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::health::ReasonCode;
use ix_device_plugin::model::health_sample::ChipHealthSample;
use ix_device_plugin::model::inventory::Inventory;
use ix_device_plugin::model::ixml::{
    Call, CallFailure, ChipReading, EccErrors, HealthBits, IxmlReading, ReturnCode,
};
use ix_device_plugin::model::pci::PciAddress;
use ix_device_plugin::parse::config::parse_config;
use ix_device_plugin::parse::node_file::parse_node_file;
use ix_device_plugin::parse::sysfs::parse_sysfs_scan;

use crate::support::fixtures::node_text;

/// The chip that falls ill, on a machine of four boards.
const CHIP: PciAddress = PciAddress { domain: 0, bus: 0x15, device: 0, function: 0 };
/// It is looked at so often, ill from the second look to the fourth.
const INTERVAL: u64 = 5;
const ILL: std::ops::RangeInclusive<u64> = 1..=3;
const LOOKS: u64 = 12;

/// What of the machine's file tells that the chip is well, and what stands there when it is not. It
/// is the first of the file's chips.
const DRIVER: (&str, &str) = ("driver -> ../../../../bus/pci/drivers/iluvatar\n", "");
const NODE: (&str, &str) = ("iluvatar3 : c 508:3\n", "");
const CLASS: (&str, &str) = ("iluvatar3 -> ../../devices/", "elsewhere -> ../../devices/");
const ANNOUNCED: (&str, &str) = (
    "[sys/devices/pci0000:14/0000:14:02.0/0000:15:00.0/iluvatar-sys/iluvatar3]",
    "[sys/devices/virtual/iluvatar-sys/elsewhere]",
);
const CONFIG: (&str, &str) = ("config = hex:3e1e0200", "config = hex:ffffffff");
/// Of the chip, not of the port above it: only the chip has these counters behind it.
const WIDTH: (&str, &str) =
    ("max_link_width = 16\naer_dev_correctable", "max_link_width = 32\naer_dev_correctable");

/// The signals that a look could see, what it saw, and the machine that it was of.
type Look = (&'static [ReasonCode], ChipReasons, Inventory);

fn conclude(node: &str, config: &Config) -> Inventory {
    let machine = parse_node_file(node).unwrap();
    facts(&parse_sysfs_scan(&machine, &config.discovery), config)
}

fn scanned(node: &str, config: &Config) -> Look {
    let facts = conclude(node, config);
    (health::SCOPE, seen(&facts).1, facts)
}

/// A scan of four boards, with these texts of its file replaced where they stand first.
fn changed(is_ill: bool, replacements: &[(&str, &str)]) -> Look {
    let mut node = node_text("mr-v100-x4");
    for (from, to) in replacements.iter().filter(|_| is_ill) {
        assert!(node.contains(from), "{from}");
        node = node.replacen(from, to, 1);
    }
    scanned(&node, &Config::default())
}

/// Half a board, which is known as such only by the configuration.
fn half_board(is_ill: bool) -> Look {
    let known = parse_config("boards: {chipsPerBoard: {\"1e3e:0003\": 2}}").unwrap();
    scanned(&node_text("half-board"), &if is_ill { known } else { Config::default() })
}

/// Two short looks, one after the other.
fn counted(before: ChipHealthSample, now: ChipHealthSample) -> Look {
    let vitals = |it| BTreeMap::from([(CHIP, ChipHealthSample { is_there: true, ..it })]);
    let facts = conclude(&node_text("mr-v100-x4"), &Config::default());
    (vitals::SCOPE, vitals::findings(&vitals(before), &vitals(now)), facts)
}

fn fatal(count: u64) -> ChipHealthSample {
    ChipHealthSample { fatal_errors: Some(count), ..ChipHealthSample::default() }
}

fn non_fatal(count: u64) -> ChipHealthSample {
    ChipHealthSample { non_fatal_errors: Some(count), ..ChipHealthSample::default() }
}

/// Two answers of libixml, one after the other.
fn said(before: ChipReading, now: ChipReading) -> Look {
    let reading = |chip| IxmlReading { library: "".into(), chips: BTreeMap::from([(CHIP, chip)]) };
    let facts = conclude(&node_text("mr-v100-x4"), &Config::default());
    let findings = ixml_signals::findings(Some(&reading(before)), &reading(now));
    (ixml_signals::SCOPE, findings, facts)
}

fn answered(is_ill: bool, code: i32) -> Look {
    let failure = CallFailure { call: Call::Health, code: ReturnCode(code) };
    let now = ChipReading { failure: is_ill.then_some(failure), ..ChipReading::default() };
    said(ChipReading::default(), now)
}

fn reported(is_ill: bool, bits: u64) -> Look {
    let health = Some(HealthBits(if is_ill { bits } else { 0 }));
    let now = ChipReading { health, temperature: Some(97), ..ChipReading::default() };
    said(ChipReading::default(), now)
}

fn ecc(single: u64, double: u64) -> ChipReading {
    let count = |count| u32::try_from(count).unwrap();
    let ecc = EccErrors { single: count(single), double: count(double) };
    ChipReading { ecc: Some(ecc), ..ChipReading::default() }
}

/// One look at a machine where this signal is to be seen, or not. `number` counts the looks, so
/// that counters can go on rising.
fn look(code: ReasonCode, is_ill: bool, number: u64) -> Look {
    let risen = if is_ill { number + 1 } else { number };
    match code {
        ReasonCode::ChipMissing => half_board(is_ill),
        ReasonCode::DriverNotBound => changed(is_ill, &[DRIVER]),
        ReasonCode::DeviceNodeUnknown => changed(is_ill, &[CLASS, ANNOUNCED, NODE]),
        ReasonCode::DeviceNodeMissing => changed(is_ill, &[NODE]),
        ReasonCode::ConfigSpaceUnreadable => changed(is_ill, &[CONFIG]),
        ReasonCode::LinkBelowMaximum => changed(is_ill, &[WIDTH]),
        ReasonCode::AerFatal => counted(fatal(number), fatal(risen)),
        ReasonCode::AerNonFatal => counted(non_fatal(number), non_fatal(risen)),
        ReasonCode::IxmlGpuLost => answered(is_ill, 15),
        ReasonCode::IxmlResetRequired => answered(is_ill, 16),
        ReasonCode::IxmlCallFailed => answered(is_ill, 10),
        ReasonCode::IxmlSyshub => reported(is_ill, 0x01),
        ReasonCode::IxmlMemoryController => reported(is_ill, 0x02),
        ReasonCode::IxmlOverTemperature => reported(is_ill, 0x04),
        ReasonCode::IxmlOverVoltage => reported(is_ill, 0x08),
        ReasonCode::IxmlEcc => reported(is_ill, 0x10),
        ReasonCode::IxmlMemory => reported(is_ill, 0x20),
        ReasonCode::IxmlPcie => reported(is_ill, 0x40),
        ReasonCode::IxmlUnknownBit => reported(is_ill, 0x80),
        ReasonCode::IxmlEccUncorrected => said(ecc(0, number), ecc(0, risen)),
        ReasonCode::IxmlEccCorrected => said(ecc(number, 0), ecc(risen, 0)),
        ReasonCode::Removed => unreachable!("no signal of a chip that is there"),
    }
}

/// What becomes of the node, a line for each change.
fn story(code: ReasonCode) -> String {
    let rules = Config::default().health;
    let mut judge = HealthTracker::default();
    let mut story = format!("{code} ({:?}, {:?})\n", code.default_severity(), code.certainty());
    let mut last = Vec::new();
    for number in 0..LOOKS {
        let (scope, findings, facts) = look(code, ILL.contains(&number), number);
        let now = Duration::from_secs(number * INTERVAL);
        judge.observe(now, &seen(&facts).0, scope, &findings, &rules);
        let verdict = verdict(&judged(&facts, &judge.judge(now, &rules), &rules));
        if verdict != last {
            for line in &verdict {
                writeln!(story, "{:>4}s  {line}", now.as_secs()).unwrap();
            }
        }
        last = verdict;
    }
    story
}

fn verdict(inventory: &Inventory) -> Vec<String> {
    let ill = inventory.boards.iter().flat_map(|board| &board.reasons);
    let mut lines: Vec<_> =
        ill.map(|reason| format!("Unhealthy  {}: {}", reason.code, reason.detail)).collect();
    if lines.is_empty() {
        lines.push("Healthy".to_owned());
    }
    lines.extend(inventory.warnings.iter().map(|warning| format!("warning    {warning}")));
    lines
}

#[test]
fn every_signal_is_judged_and_worded_as_the_table_says() {
    let stories: Vec<_> = ReasonCode::ALL.iter().map(|code| story(*code)).collect();
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("signals", stories.join("\n")));
}

#[test]
fn every_signal_is_told_by_its_name_while_it_is_seen() {
    for code in ReasonCode::ALL {
        assert!(story(*code).contains(&format!("{code}: ")), "{}", story(*code));
    }
}
