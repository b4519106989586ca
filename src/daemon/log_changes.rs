//! What the log says when the offer changes: one line for each device, board and warning.

use std::time::SystemTime;

use tracing::{info, warn};

use crate::decide::node::advertise::NodeSnapshot;
use crate::model::board::Board;
use crate::model::device::{Device, Resource};
use crate::model::health::{Health, Reason};

/// Says what is different in `now`.
pub fn log_changes(last: Option<&NodeSnapshot>, now: &NodeSnapshot) {
    announce_boards(last, now);
    announce_devices(last, now);
    let warned: Vec<_> = last.into_iter().flat_map(NodeSnapshot::warnings).collect();
    for warning in now.warnings().filter(|warning| !warned.contains(warning)) {
        warn!("{warning}");
    }
}

/// Boards that came and went; how they are, their devices tell.
fn announce_boards(last: Option<&NodeSnapshot>, now: &NodeSnapshot) {
    let before = last.map_or(&[][..], |snapshot| &snapshot.inventory.boards);
    let after = &now.inventory.boards;
    let is_in =
        |boards: &[Board], board: &Board| boards.iter().any(|it| it.address == board.address);
    for board in after.iter().filter(|board| !is_in(before, board)) {
        let Board { address, model, evidence, chips, .. } = board;
        info!(board = %address, model, chips = chips.len(), %evidence, "board found");
    }
    for board in before.iter().filter(|board| !is_in(after, board)) {
        warn!(board = %board.address, model = board.model, "board left");
    }
}

/// Devices whose health or reasons changed, that are new and not healthy, or listed no longer.
fn announce_devices(last: Option<&NodeSnapshot>, now: &NodeSnapshot) {
    for (resource, device) in now.devices() {
        match last.and_then(|last| device_of(last, resource, device).map(|old| (last, old))) {
            Some((last, old)) if (old.health, &old.reasons) != (device.health, &device.reasons) => {
                let since = last.since(&resource.name, old.id);
                announce_health(resource, device, Some((old.health, since)));
            }
            None if device.health == Health::Unhealthy => announce_health(resource, device, None),
            _ => {}
        }
    }
    for (resource, device) in last.into_iter().flat_map(NodeSnapshot::devices) {
        if device_of(now, resource, device).is_none() {
            info!(resource = resource.name, device = %device.id, "device is no longer listed");
        }
    }
}

/// `since` is when the device became what it was until now.
fn announce_health(
    resource: &Resource,
    device: &Device,
    before: Option<(Health, Option<SystemTime>)>,
) {
    let (resource, reasons, to) = (&resource.name, shown(&device.reasons), device.health);
    let from = before.map_or("none".to_owned(), |(health, _)| health.to_string());
    let since = before.and_then(|(_, since)| since);
    let since = since.map(|since| humantime::format_rfc3339_seconds(since).to_string());
    match to {
        Health::Healthy => {
            info!(resource, device = %device.id, %from, since, %to, "device is healthy again");
        }
        Health::Unhealthy => {
            warn!(resource, device = %device.id, %from, since, %to, reasons, "device is unhealthy");
        }
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
