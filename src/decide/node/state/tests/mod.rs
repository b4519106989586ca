//! The snapshot after each story; `holders` are stories of pods, `random` any story at all.

mod cordons;
mod holders;
mod random;

use std::collections::BTreeMap;

use super::*;
use crate::decide::scan_builder::{SINGLE, ScanBuilder, UNKNOWN, at};
use crate::model::allocation::AllocationRecords;
use crate::model::config::{Granularity, ResourceRule, Sharing, SharingPolicy};
use crate::model::function::ChipFunction;
use crate::model::health::{ReasonCode, Severity};
use crate::model::health_sample::ChipHealthSample;
use crate::model::ixml::{CallFailure, ChipReading, IxmlCall, ReturnCode};
use crate::model::pod_usage::{HeldDevices, Holder, KubeletInstance, PodDevice};
use crate::model::warning::WarningCode;

pub(super) const GPU: &str = "iluvatar.com/gpu";

pub(super) fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Boards of one chip at these buses, each with its node.
fn singles(buses: &[u8]) -> SysfsScan {
    buses
        .iter()
        .fold(ScanBuilder::default(), |sample, bus| {
            let minor = u32::from(*bus);
            let name = format!("iluvatar{bus}");
            sample
                .chip(&format!("{:02x}:01.0 {bus:02x}:00.0", bus.wrapping_add(0x80)), SINGLE)
                .class_device(&name, minor, Some(&format!("{bus:02x}:00.0")))
                .node(&format!("/dev/{name}"), minor)
        })
        .scan()
}

/// Boards of two chips; their lower chips are at these buses, the upper ones three above.
pub(super) fn duals(buses: &[u8]) -> SysfsScan {
    let node = |sample: ScanBuilder, bus: u8| {
        let (name, minor) = (format!("iluvatar{bus}"), u32::from(bus));
        let chip = format!("{bus:02x}:00.0");
        sample.class_device(&name, minor, Some(&chip)).node(&format!("/dev/{name}"), minor)
    };
    buses
        .iter()
        .fold(ScanBuilder::default(), |sample, bus| {
            let above = format!("{:02x}:01.0", bus.wrapping_add(0x80));
            let sample = sample.dual_board(&above, bus - 4, UNKNOWN);
            node(node(sample, *bus), bus + 3)
        })
        .scan()
}

/// A node that was scanned in second 0.
pub(super) fn scanned(scan: SysfsScan) -> NodeState {
    let config = Arc::new(Config::default());
    let mut state = NodeState::new(Arc::clone(&config), Retention::default());
    state.scanned(Arc::new(scan), &config.discovery, second(0));
    state
}

/// Lines of the lists: resource where it is not the usual one, id, and codes of the reasons.
pub(super) fn lines(state: &mut NodeState, now: Duration) -> Vec<String> {
    let snapshot = state.snapshot(now).unwrap();
    let line =
        |(resource, device): (&crate::model::device::Resource, &crate::model::device::Device)| {
            let resource = if resource.name == GPU { "" } else { &resource.name };
            let codes = device.reasons.iter().map(|reason| format!(" {}", reason.code));
            format!("{resource}{}{}", device.id, codes.collect::<String>())
        };
    snapshot.devices().map(line).collect()
}

fn codes(state: &mut NodeState, now: Duration) -> Vec<&'static str> {
    let snapshot = state.snapshot(now).unwrap();
    snapshot.warnings.iter().map(|warning| warning.code.name()).collect()
}

fn lost(chips: &[&str]) -> Arc<IxmlReading> {
    let failure = CallFailure { call: IxmlCall::Health, code: ReturnCode(15) };
    let reading = ChipReading { failure: Some(failure), ..ChipReading::default() };
    let chips = chips.iter().map(|chip| (at(chip), reading.clone())).collect();
    Arc::new(IxmlReading { library: "".into(), chips })
}

/// A sample in which every chip is as it should be.
fn well(scan: &SysfsScan) -> HealthSample {
    let chips = scan.chips.iter().map(|chip| {
        let sample = ChipHealthSample {
            is_there: true,
            driver: chip.driver.clone(),
            has_node: Some(true),
            answers: Some(true),
            ..ChipHealthSample::default()
        };
        (chip.function.address, sample)
    });
    chips.collect()
}

#[test]
fn before_the_first_scan_there_is_no_snapshot() {
    let mut state = NodeState::new(Arc::new(Config::default()), Retention::default());
    let _ = state.sampled(HealthSample::new(), second(1));
    state.ixml(None, second(2));
    state.configured(Arc::new(Config::default()), second(3));
    state.pods_unavailable(second(4));
    assert_eq!(state.snapshot(second(5)), None);
}

#[test]
fn a_board_whose_chips_are_both_lost_is_unhealthy() {
    let mut state = scanned(duals(&[0x14]));
    state.ixml(Some(lost(&["14:00.0", "17:00.0"])), second(1));
    assert_eq!(lines(&mut state, second(1)), ["0000:14:00.0 IxmlGpuLost IxmlGpuLost"]);
    assert_eq!(codes(&mut state, second(1)), Vec::<&str>::new());
}

#[test]
fn a_chip_that_left_is_off_the_list_before_any_scan() {
    let mut state = scanned(singles(&[3, 4, 5]));
    state.chip_left(at("04:00.0"), second(1));
    let after = lines(&mut state, second(1));
    assert_eq!(after, ["0000:03:00.0", "0000:04:00.0 Removed", "0000:05:00.0"]);
    state.scanned(Arc::new(singles(&[3, 5])), &DiscoveryRules::default(), second(2));
    assert_eq!(lines(&mut state, second(2)), after);
}

#[test]
fn half_of_a_board_that_left_makes_the_board_unhealthy_before_any_scan() {
    let mut state = scanned(duals(&[0x14, 0x34]));
    state.chip_left(at("17:00.0"), second(1));
    assert_eq!(lines(&mut state, second(1)), ["0000:14:00.0 ChipMissing", "0000:34:00.0"]);
}

#[test]
fn where_nodes_are_inferred_a_chip_that_left_waits_for_the_scan() {
    let scan = ScanBuilder::default()
        .chip("00:01.0 03:00.0", SINGLE)
        .chip("00:02.0 04:00.0", SINGLE)
        .node("/dev/iluvatar0", 0)
        .node("/dev/iluvatar1", 1)
        .scan();
    let mut state = scanned(scan);
    let before = lines(&mut state, second(0));
    state.chip_left(at("03:00.0"), second(1));
    state.chip_left(at("09:00.0"), second(1));
    assert_eq!(lines(&mut state, second(1)), before);
}

#[test]
fn libixml_readings_count_while_no_scan_ends() {
    let mut state = scanned(duals(&[0x14, 0x34]));
    // A scan hangs from second 1 on: it is no input, so nothing of it is here.
    state.ixml(Some(lost(&["14:00.0"])), second(2));
    let _ = state.sampled(well(&duals(&[0x14, 0x34])), second(3));
    assert_eq!(lines(&mut state, second(4)), ["0000:14:00.0 IxmlGpuLost", "0000:34:00.0"]);
}

#[test]
fn a_configuration_applies_while_no_scan_ends_unless_more_has_to_be_read() {
    let mut state = scanned(duals(&[0x14]));
    let mut split = Config::default();
    split.resources[0].granularity = Granularity::Chip;
    state.configured(Arc::new(split.clone()), second(1));
    assert_eq!(lines(&mut state, second(1)), ["0000:14:00.0", "0000:17:00.0"]);

    let mut other = Config::default();
    other.discovery.vendor_ids = vec![0x10de];
    state.configured(Arc::new(other.clone()), second(2));
    assert_eq!(lines(&mut state, second(2)), ["0000:14:00.0", "0000:17:00.0"]);
    assert_eq!(**state.config(), split);
    state.scanned(Arc::new(SysfsScan::default()), &other.discovery, second(3));
    assert_eq!(**state.config(), other);
    assert_eq!(state.snapshot(second(3)).unwrap().inventory.boards, []);
}

#[test]
fn a_scan_under_an_older_configuration_is_not_paired_with_a_newer_one() {
    let mut state = NodeState::new(Arc::new(Config::default()), Retention::default());
    let mut other = Config::default();
    other.discovery.vendor_ids = vec![0x10de];
    state.configured(Arc::new(other.clone()), second(1));
    state.scanned(Arc::new(singles(&[3])), &Config::default().discovery, second(2));
    assert_eq!(state.snapshot(second(2)), None);
    state.scanned(Arc::new(SysfsScan::default()), &other.discovery, second(3));
    assert_eq!(lines(&mut state, second(3)), Vec::<String>::new());
}

#[test]
fn a_node_of_another_number_is_unhealthy_and_leads_to_no_scan_after_scan() {
    let announced = |chip: &mut ChipFunction| chip.driver = Some("iluvatar".to_owned());
    let scan = ScanBuilder::default()
        .chip("00:01.0 03:00.0", SINGLE)
        .with(announced)
        .class_device("iluvatar0", 7, Some("03:00.0"))
        .node("/dev/iluvatar0", 0)
        .scan();
    let mut state = scanned(scan.clone());
    assert_eq!(lines(&mut state, second(0)), ["0000:03:00.0 DeviceNodeMissing"]);
    for now in 1..4 {
        let advice = state.sampled(well(&scan), second(5 * now));
        assert_eq!(advice, RescanAdvice::NotNeeded);
    }
}

#[test]
fn a_sample_that_differs_from_the_scan_asks_for_another() {
    let scan = singles(&[3, 4]);
    let differs = |change: fn(&mut ChipHealthSample)| {
        let mut sample = well(&scan);
        change(sample.get_mut(&at("03:00.0")).unwrap());
        scanned(scan.clone()).sampled(sample, second(1))
    };
    assert_eq!(differs(|_| ()), RescanAdvice::NotNeeded);
    assert_eq!(differs(|sample| sample.is_there = false), RescanAdvice::Rescan);
    assert_eq!(differs(|sample| sample.driver = None), RescanAdvice::Rescan);
    assert_eq!(differs(|sample| sample.has_node = Some(false)), RescanAdvice::Rescan);
}

#[test]
fn a_chip_that_the_kernel_recovers_is_unhealthy_at_once_and_until_it_was_well_for_a_while() {
    let mut state = scanned(singles(&[3, 4]));
    let chip = at("03:00.0");
    state.error_event(chip, PciErrorEvent::RecoveryBegan, second(10));
    let ill = ["0000:03:00.0 PcieErrorRecovery", "0000:04:00.0"];
    assert_eq!(lines(&mut state, second(10)), ill);
    // Neither samples nor scans see it, and neither ends it.
    let _ = state.sampled(well(&singles(&[3, 4])), second(15));
    state.scanned(Arc::new(singles(&[3, 4])), &DiscoveryRules::default(), second(20));
    assert_eq!(lines(&mut state, second(1000)), ill);
    state.error_event(chip, PciErrorEvent::RecoverySucceeded, second(1000));
    assert_eq!(lines(&mut state, second(1000)), ill);
    assert_eq!(lines(&mut state, second(1030)), ["0000:03:00.0", "0000:04:00.0"]);
}

#[test]
fn a_failed_recovery_counts_until_the_chip_or_its_driver_comes_anew() {
    let chip = at("03:00.0");
    let failed = || {
        let mut state = scanned(singles(&[3, 4]));
        state.error_event(chip, PciErrorEvent::RecoveryBegan, second(1));
        state.error_event(chip, PciErrorEvent::RecoveryFailed, second(2));
        state
    };
    let ill = ["0000:03:00.0 PcieErrorRecovery", "0000:04:00.0"];
    assert_eq!(lines(&mut failed(), second(1000)), ill);

    let mut state = failed();
    state.error_event(chip, PciErrorEvent::Restarted, second(1000));
    assert_eq!(lines(&mut state, second(1001)), ill);
    assert_eq!(lines(&mut state, second(1030)), ["0000:03:00.0", "0000:04:00.0"]);

    let mut state = failed();
    let rules = DiscoveryRules::default();
    state.scanned(Arc::new(singles(&[4])), &rules, second(1000));
    state.scanned(Arc::new(singles(&[3, 4])), &rules, second(1001));
    assert_eq!(lines(&mut state, second(1001)), ["0000:03:00.0", "0000:04:00.0"]);
}

#[test]
fn a_recovery_that_was_announced_before_the_first_scan_counts_with_it() {
    let config = Arc::new(Config::default());
    let mut state = NodeState::new(Arc::clone(&config), Retention::default());
    state.error_event(at("03:00.0"), PciErrorEvent::RecoveryFailed, second(1));
    assert_eq!(state.snapshot(second(1)), None);
    state.scanned(Arc::new(singles(&[3])), &config.discovery, second(2));
    assert_eq!(lines(&mut state, second(2)), ["0000:03:00.0 PcieErrorRecovery"]);
}

#[test]
fn chips_that_no_resource_offers_are_a_warning() {
    let mut config = Config::default();
    config.resources[0].selector.model = Some("BI-V100".to_owned());
    let mut state = scanned(singles(&[3, 4]));
    state.configured(Arc::new(config), second(1));
    assert_eq!(codes(&mut state, second(1)), ["ChipsNotOffered"]);
    assert_eq!(state.snapshot(second(1)).unwrap().unoffered, [at("03:00.0"), at("04:00.0")]);
}

#[test]
fn a_list_that_hotplug_makes_too_large_keeps_the_devices_that_fit() {
    let mut config = Config::default();
    let replicas = crate::decide::node::list_limit::largest_replicas(2);
    config.resources[0].sharing = Some(Sharing {
        replicas,
        fail_requests_greater_than_one: false,
        policy: SharingPolicy::Spread,
    });
    let config = Arc::new(config);
    let mut state = NodeState::new(Arc::clone(&config), Retention::default());
    state.scanned(Arc::new(singles(&[3, 5])), &config.discovery, second(0));
    state.scanned(Arc::new(singles(&[3, 4, 5])), &config.discovery, second(1));
    assert_eq!(lines(&mut state, second(1)), ["0000:03:00.0", "0000:05:00.0"]);
    assert_eq!(codes(&mut state, second(1)), ["ListTooLarge"]);
    // Those that stay are as healthy as they are.
    state.ixml(Some(lost(&["05:00.0"])), second(2));
    assert_eq!(lines(&mut state, second(2)), ["0000:03:00.0", "0000:05:00.0 IxmlGpuLost"]);
    state.scanned(Arc::new(singles(&[3, 5])), &config.discovery, second(3));
    assert_eq!(codes(&mut state, second(3)), Vec::<&str>::new());
}

#[test]
fn a_fault_ends_at_its_own_time_however_late_it_is_asked() {
    let mut state = scanned(singles(&[3, 4, 5]));
    state.ixml(Some(lost(&["03:00.0"])), second(10));
    state.ixml(
        Some(Arc::new(IxmlReading { library: "".into(), chips: BTreeMap::new() })),
        second(15),
    );
    assert_eq!(state.next_deadline(), Some(second(40)));
    let late = state.snapshot(second(1000)).unwrap();
    assert_eq!(late.since(GPU, DeviceId::whole(at("03:00.0"))), Some(second(40)));
    assert_eq!(state.next_deadline(), None);
}

#[test]
fn a_signal_that_is_only_a_warning_makes_no_device_unhealthy() {
    let mut config = Config::default();
    config.health.signals.insert(ReasonCode::IxmlGpuLost, Severity::Warn);
    let mut state = scanned(singles(&[3]));
    state.configured(Arc::new(config), second(1));
    state.ixml(Some(lost(&["03:00.0"])), second(2));
    assert_eq!(lines(&mut state, second(2)), ["0000:03:00.0"]);
    let snapshot = state.snapshot(second(2)).unwrap();
    assert_eq!(snapshot.warnings[0].code, WarningCode::Signal(ReasonCode::IxmlGpuLost));
}

/// The configuration with these resources: name, granularity, replicas.
pub(super) fn config_of(resources: &[(&str, Granularity, Option<u32>)]) -> Arc<Config> {
    let rule = |(name, granularity, replicas): &(&str, Granularity, Option<u32>)| ResourceRule {
        name: (*name).to_owned(),
        granularity: *granularity,
        sharing: replicas.map(|replicas| Sharing {
            replicas,
            fail_requests_greater_than_one: false,
            policy: SharingPolicy::Spread,
        }),
        ..ResourceRule::default()
    };
    Arc::new(Config { resources: resources.iter().map(rule).collect(), ..Config::default() })
}

/// An answer of a kubelet that runs for long, in which pods hold these: resource and id. The pod is
/// called after the id.
pub(super) fn usage(asked: Duration, held: &[(&str, &str)]) -> PodUsage {
    let mut devices = HeldDevices::default();
    for (resource, id) in held {
        let holder = Holder {
            namespace: "team".to_owned(),
            pod: format!("pod-{id}"),
            container: "main".to_owned(),
        };
        devices.insert(resource, (*id).to_owned(), holder);
    }
    let kubelet = KubeletInstance { id: (1, 1), knows_its_pods: true };
    PodUsage { queried_at: asked, kubelet, held: devices }
}

/// The records after these ids were allocated as the snapshot offers them, in second `now`.
pub(super) fn allocated(
    before: &Allocations,
    snapshot: &NodeSnapshot,
    resource: &str,
    ids: &[&str],
    now: Duration,
) -> Allocations {
    use crate::decide::allocation::records::{NodeDelivery, record};
    let mut after = before.clone();
    let records: &mut AllocationRecords = Arc::make_mut(&mut after.records);
    let times = Arc::make_mut(&mut after.allocated_at);
    for id in ids {
        let id: DeviceId = id.parse().unwrap();
        let device = snapshot.resource(resource).unwrap().find(id).unwrap();
        let record = record(&snapshot.inventory, device, NodeDelivery::DeviceNodes);
        records.entry(resource.to_owned()).or_default().insert(id, record);
        times.entry(resource.to_owned()).or_default().insert(id, now);
    }
    after
}
