//! The log lines of a changed snapshot: one line for each device, board and warning.

use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use crate::decide::node::snapshot::NodeSnapshot;
use crate::model::board::Board;
use crate::model::cordon::CordonUsage;
use crate::model::device::{Device, Resource};
use crate::model::health::{Health, Reason};
use crate::model::log_event::LogEvent;
use crate::model::observed::ObservedNode;

/// Logs what differs in `now`; `clocks` are the daemon's clock and the time of day.
pub fn log_changes(
    last: Option<&NodeSnapshot>,
    now: &NodeSnapshot,
    clocks: (Duration, SystemTime),
) {
    log_boards(last, now);
    log_devices(last, now, clocks);
    log_drained(last, now);
    let known = last.map_or(&[][..], |last| &last.warnings);
    for warning in &now.warnings {
        if !known.iter().any(|known| known.is_same(warning)) {
            warn!(event = warning.code.name(), "{warning}");
        }
    }
}

/// Logs that a scan found no chips, if there were some, or if it is the first.
pub fn log_no_chips(had_chips: bool, node: Option<&ObservedNode>) {
    if let Some(node) = node.filter(|node| had_chips && node.boards.is_empty()) {
        info!(
            event = LogEvent::NoChips.name(),
            functions = node.functions_seen,
            "no Iluvatar chips found; waiting for one"
        );
    }
}

/// Cordons that no pod holds any more, also those that none held.
fn log_drained(last: Option<&NodeSnapshot>, now: &NodeSnapshot) {
    let before = last.map_or(&[][..], |last| &last.cordons);
    for state in now.cordons.iter().filter(|state| state.usage == CordonUsage::Drained) {
        if !before.contains(state) {
            info!(
                event = LogEvent::CordonDrained.name(), device = %state.id,
                "no pod holds the cordoned device"
            );
        }
    }
}

/// Boards that came and went; their health is logged with their devices.
fn log_boards(last: Option<&NodeSnapshot>, now: &NodeSnapshot) {
    let before = last.map_or(&[][..], |snapshot| &snapshot.inventory.boards);
    let after = &now.inventory.boards;
    let is_in =
        |boards: &[Board], board: &Board| boards.iter().any(|it| it.address == board.address);
    for board in after.iter().filter(|board| !is_in(before, board)) {
        let Board { address, model, evidence, chips, .. } = board;
        let chips = chips.len();
        info!(
            event = LogEvent::BoardFound.name(), board = %address, model, chips, %evidence,
            "board found"
        );
    }
    for board in before.iter().filter(|board| !is_in(after, board)) {
        let Board { address, model, .. } = board;
        warn!(event = LogEvent::BoardLeft.name(), board = %address, model, "board left");
    }
}

/// Devices whose health or reasons changed, that are new and not healthy, or listed no longer.
fn log_devices(last: Option<&NodeSnapshot>, now: &NodeSnapshot, clocks: (Duration, SystemTime)) {
    for (resource, device) in now.devices().filter(|(_, device)| is_settled(device)) {
        let before = last.and_then(|last| Some((last, device_of(last, resource, device)?)));
        match before {
            Some((last, old)) if (old.health, &old.reasons) != (device.health, &device.reasons) => {
                let since = last.since(&resource.name, old.id);
                let since = since.map(|since| wall_time(since, clocks));
                log_health(resource, device, Some(old.health), since.as_deref());
            }
            None if device.health == Health::Unhealthy => log_health(resource, device, None, None),
            _ => {}
        }
    }
    for (resource, device) in last.into_iter().flat_map(NodeSnapshot::devices) {
        if device_of(now, resource, device).is_none() {
            let (resource, device) = (&resource.name, device.id);
            info!(
                event = LogEvent::DeviceDelisted.name(), resource, %device,
                "device is no longer listed"
            );
        }
    }
}

/// Whether the health of the device is final: the kubelet's answer about one that left, or about
/// one that is withheld, comes within milliseconds and is logged instead.
fn is_settled(device: &Device) -> bool {
    !device.awaits_kubelet
}

fn wall_time(since: Duration, (now, time_of_day): (Duration, SystemTime)) -> String {
    let since = time_of_day - now.saturating_sub(since);
    humantime::format_rfc3339_seconds(since).to_string()
}

/// `since` is when the device became what it was until now.
fn log_health(resource: &Resource, device: &Device, before: Option<Health>, since: Option<&str>) {
    let (resource, reasons, to) = (&resource.name, shown(&device.reasons), device.health);
    let from = before.map_or("none".to_owned(), |health| health.to_string());
    let device = device.id;
    match to {
        Health::Healthy => info!(
            event = LogEvent::DeviceHealthy.name(), resource, %device, %from, since, %to,
            "device is healthy again"
        ),
        Health::Unhealthy => warn!(
            event = LogEvent::DeviceUnhealthy.name(), resource, %device, %from, since, %to, reasons,
            "device is unhealthy"
        ),
    }
}

fn device_of<'a>(
    snapshot: &'a NodeSnapshot,
    resource: &Resource,
    device: &Device,
) -> Option<&'a Device> {
    let resource = snapshot.resource(&resource.name)?;
    resource.devices.iter().find(|other| other.id == device.id)
}

fn shown(reasons: &[Reason]) -> String {
    let reasons = reasons.iter().map(|it| format!("{}: {}", it.code, it.detail));
    reasons.collect::<Vec<_>>().join("; ")
}
