//! The signal table, row by row: what is seen, how it is judged as time goes by, and the words.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ix_device_plugin::decide::node::removed::Retention;
use ix_device_plugin::decide::node::snapshot::NodeSnapshot;
use ix_device_plugin::decide::node::state::NodeState;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::health::ReasonCode;
use ix_device_plugin::model::health_sample::{ChipHealthSample, HealthSample};
use ix_device_plugin::model::ixml::{
    CallFailure, ChipReading, EccErrors, HealthBits, IxmlCall, IxmlReading, ReturnCode,
};
use ix_device_plugin::model::pci::PciAddress;
use ix_device_plugin::model::pci_error::PciErrorEvent;
use ix_device_plugin::parse::config::parse_config;
use ix_device_plugin::parse::node_file::parse_node_file;
use ix_device_plugin::parse::sysfs::parse_sysfs_scan;

use crate::support::fixtures::node_text;

/// The chip that falls ill, on a machine of four boards.
const CHIP: PciAddress = PciAddress { domain: 0, bus: 0x15, device: 0, function: 0 };
/// Seconds between observations; it is ill from the second to the fourth.
const INTERVAL: u64 = 5;
const ILL: std::ops::RangeInclusive<u64> = 1..=3;
const OBSERVATIONS: u64 = 12;

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

/// One observation, as the node's state takes it in.
enum Input {
    Scan(String, Box<Config>),
    Sample(HealthSample),
    Ixml(IxmlReading),
    Error(PciErrorEvent),
}

/// A scan of four boards, with these texts of its file replaced where they stand first.
fn changed(is_ill: bool, replacements: &[(&str, &str)]) -> Input {
    let mut node = node_text("mr-v100-x4");
    for (from, to) in replacements.iter().filter(|_| is_ill) {
        assert!(node.contains(from), "{from}");
        node = node.replacen(from, to, 1);
    }
    Input::Scan(node, Box::default())
}

/// Half a board, which is known as such only by the configuration.
fn half_board(is_ill: bool) -> Input {
    let known = parse_config("boards: {pairs: [[0000:15:00.0, 0000:16:00.0]]}").unwrap();
    let config = if is_ill { known } else { Config::default() };
    Input::Scan(node_text("mr-v100-x4"), Box::new(config))
}

/// The samples of the ill chip; the others are as the last scan saw them.
fn sample(of_chip: &ChipHealthSample) -> Input {
    let driver = Some("iluvatar".to_owned());
    Input::Sample(BTreeMap::from([(
        CHIP,
        ChipHealthSample { is_there: true, driver, ..of_chip.clone() },
    )]))
}

fn fatal(count: u64) -> ChipHealthSample {
    ChipHealthSample { fatal_errors: Some(count), ..ChipHealthSample::default() }
}

fn non_fatal(count: u64) -> ChipHealthSample {
    ChipHealthSample { non_fatal_errors: Some(count), ..ChipHealthSample::default() }
}

fn said(of_chip: ChipReading) -> Input {
    Input::Ixml(IxmlReading { library: "".into(), chips: BTreeMap::from([(CHIP, of_chip)]) })
}

fn answered(is_ill: bool, code: i32) -> Input {
    let failure = CallFailure { call: IxmlCall::Health, code: ReturnCode(code) };
    let now = ChipReading { failure: is_ill.then_some(failure), ..ChipReading::default() };
    said(now)
}

fn reported(is_ill: bool, bits: u64) -> Input {
    let health = Some(HealthBits(if is_ill { bits } else { 0 }));
    let now = ChipReading { health, temperature: Some(97), ..ChipReading::default() };
    said(now)
}

fn ecc(single: u64, double: u64) -> ChipReading {
    let count = |count| u32::try_from(count).unwrap();
    let ecc = EccErrors { single: count(single), double: count(double) };
    ChipReading { ecc: Some(ecc), ..ChipReading::default() }
}

/// An observation in which this signal is seen, or not. `number` counts them: a counter rises with it
/// while the chip is ill.
fn observation(code: ReasonCode, is_ill: bool, number: u64) -> Input {
    let count = number.clamp(*ILL.start() - 1, *ILL.end());
    match code {
        ReasonCode::ChipMissing => half_board(is_ill),
        ReasonCode::DriverNotBound => changed(is_ill, &[DRIVER]),
        ReasonCode::DeviceNodeUnknown => changed(is_ill, &[CLASS, ANNOUNCED, NODE]),
        ReasonCode::DeviceNodeMissing => changed(is_ill, &[NODE]),
        ReasonCode::ConfigSpaceUnreadable => changed(is_ill, &[CONFIG]),
        ReasonCode::LinkBelowMaximum => changed(is_ill, &[WIDTH]),
        ReasonCode::AerFatal => sample(&fatal(count)),
        ReasonCode::AerNonFatal => sample(&non_fatal(count)),
        ReasonCode::PcieErrorRecovery if is_ill => Input::Error(PciErrorEvent::RecoveryBegan),
        ReasonCode::PcieErrorRecovery => Input::Error(PciErrorEvent::RecoverySucceeded),
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
        ReasonCode::IxmlEccUncorrected => said(ecc(0, count)),
        ReasonCode::IxmlEccCorrected => said(ecc(count, 0)),
        ReasonCode::UuidUnknown
        | ReasonCode::Removed
        | ReasonCode::HeldByPod
        | ReasonCode::HeldByClaim
        | ReasonCode::Cordoned => {
            unreachable!("no signal of a chip")
        }
    }
}

fn take(state: &mut NodeState, input: Input, now: Duration) {
    match input {
        Input::Scan(node, config) => {
            let scan = parse_sysfs_scan(&parse_node_file(&node).unwrap(), &config.discovery);
            state.configured(Arc::new((*config).clone()), now);
            state.scanned(Arc::new(scan), &config.discovery, now);
        }
        Input::Sample(sample) => {
            let _ = state.sampled(sample, now);
        }
        Input::Ixml(reading) => state.ixml(Some(Arc::new(reading)), now),
        Input::Error(event) => state.error_event(CHIP, event, now),
    }
}

/// What becomes of the node, a line for each change.
fn story(code: ReasonCode) -> String {
    let mut state = NodeState::new(Arc::new(Config::default()), Retention::default());
    take(&mut state, changed(false, &[]), Duration::ZERO);
    let mut story = format!("{code} ({:?}, {:?})\n", code.default_severity(), code.certainty());
    let mut last = Vec::new();
    for number in 0..OBSERVATIONS {
        let now = Duration::from_secs(number * INTERVAL);
        take(&mut state, observation(code, ILL.contains(&number), number), now);
        let verdict = verdict(&state.snapshot(now).unwrap());
        if verdict != last {
            for line in &verdict {
                writeln!(story, "{:>4}s  {line}", now.as_secs()).unwrap();
            }
        }
        last = verdict;
    }
    story
}

fn verdict(snapshot: &NodeSnapshot) -> Vec<String> {
    let ill = snapshot.inventory.boards.iter().flat_map(|board| &board.reasons);
    let mut lines: Vec<_> =
        ill.map(|reason| format!("Unhealthy  {}: {}", reason.code, reason.detail)).collect();
    if lines.is_empty() {
        lines.push("Healthy".to_owned());
    }
    lines.extend(snapshot.warnings.iter().map(|warning| format!("warning    {warning}")));
    lines
}

#[test]
fn every_signal_has_the_effect_and_the_words_of_the_table() {
    let stories: Vec<_> = ReasonCode::ALL.iter().map(|code| story(*code)).collect();
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("signals", stories.join("\n")));
}

#[test]
fn every_signal_appears_under_its_name_while_it_is_seen() {
    for code in ReasonCode::ALL {
        assert!(story(*code).contains(&format!("{code}: ")), "{}", story(*code));
    }
}
