//! `status -o table`: the document as a person reads it.

use super::columns::columns;
use super::cordon_status::cordon_line;
use super::dra_status::dra_lines;
use super::paint::Paint;
use super::status::{ConfigStatus, DeviceStatus, PodStatus, ResourceStatus, SourceStatus, Status};
use super::table::{remedies, section};
use crate::model::health::Health;

const DEVICE_HEADING: &[&str] =
    &["DEVICE", "RESOURCE", "HEALTH", "SINCE", "NUMA", "CHIPS", "NODES", "POD"];
const HEALTH_COLUMN: usize = 2;
const RESOURCE_HEADING: &[&str] =
    &["RESOURCE", "SESSION", "STREAMS", "LISTS", "FIRST LIST", "DEVICES", "HEALTHY"];

/// The document as text.
#[must_use]
pub fn status_table(status: &Status, paint: Paint) -> String {
    let mut text = headline(status, paint);
    text.push('\n');
    text.push_str(&resources(status, paint));
    text.push_str(&devices(status, paint));
    text.push_str(&section("Unhealthy", unhealthy(status), paint));
    text.push_str(&section("Remedies", remedies(reasons(status)), paint));
    text.push_str(&section("Cordoned", status.cordons.iter().map(cordon_line), paint));
    let dra = status.dra.iter().flat_map(dra_lines);
    text.push_str(&section("Dynamic resource allocation", dra, paint));
    text.push_str(&section("Warnings", warnings(status), paint));
    text.push_str(&section("Configuration", configuration(&status.configuration), paint));
    text.push_str(&section("Machine", machine(status), paint));
    text.push_str(&section("Sources", sources(status), paint));
    text
}

fn headline(status: &Status, paint: Paint) -> String {
    let (version, revision) = (&status.build.version, &status.build.revision);
    let (ready, health) =
        if status.ready { ("ready", Health::Healthy) } else { ("not ready", Health::Unhealthy) };
    let ready = paint.health(health, ready);
    let up = elapsed(status.uptime_seconds);
    let mut text = format!("ix-device-plugin {version} ({revision}), up {up}, {ready}\n");
    for sentence in &status.readiness {
        text.push_str(&format!("  {sentence}\n"));
    }
    text
}

/// The two largest units: `3 d 4 h`, `5 min 6 s`.
fn elapsed(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

fn resources(status: &Status, paint: Paint) -> String {
    let rows: Vec<_> = status.resources.iter().map(resource_row).collect();
    columns(RESOURCE_HEADING, &rows, paint, |_, _, cell| cell.to_owned())
}

fn resource_row(resource: &ResourceStatus) -> Vec<String> {
    let ResourceStatus { name, replicas, session, devices } = resource;
    let session = match session {
        None => ["none", "-", "-", "-"].map(str::to_owned),
        Some(session) => [
            session.progress.clone(),
            session.open_streams.to_string(),
            session.lists_sent.to_string(),
            session.first_list_seconds.map_or("-".to_owned(), |it| format!("{:.0} ms", it * 1e3)),
        ],
    };
    let times = replicas.map_or(String::new(), |replicas| format!(" x {replicas}"));
    let healthy = devices.iter().filter(|device| is_healthy(device)).count();
    let counts = [format!("{}{times}", devices.len()), format!("{healthy}{times}")];
    [name.clone()].into_iter().chain(session).chain(counts).collect()
}

fn unhealthy(status: &Status) -> impl Iterator<Item = String> {
    each_device(status).flat_map(|(_, device)| {
        let DeviceStatus { id, reasons, .. } = device;
        reasons.iter().map(move |reason| format!("{id}  {}: {}", reason.code, reason.detail))
    })
}

fn reasons(status: &Status) -> impl Iterator<Item = (&str, &str)> {
    let reasons = each_device(status).flat_map(|(_, device)| &device.reasons);
    let known = reasons.filter(|reason| !reason.remedy.is_empty());
    known.map(|reason| (&*reason.code, &*reason.remedy))
}

fn warnings(status: &Status) -> impl Iterator<Item = String> {
    status.machine.warnings.iter().map(|warning| warning.message.clone())
}

fn each_device(status: &Status) -> impl Iterator<Item = (&ResourceStatus, &DeviceStatus)> {
    let resources = status.resources.iter();
    resources.flat_map(|resource| resource.devices.iter().map(move |device| (resource, device)))
}

fn is_healthy(device: &DeviceStatus) -> bool {
    device.health == Health::Healthy.to_string()
}

fn devices(status: &Status, paint: Paint) -> String {
    let healths: Vec<_> = each_device(status).map(|(_, device)| is_healthy(device)).collect();
    let has_uuids = each_device(status).any(|(_, device)| !device.uuids.is_empty());
    let uuids = |device: &DeviceStatus| has_uuids.then(|| or_dash(device.uuids.join(",")));
    let rows: Vec<_> = each_device(status)
        .map(|(resource, device)| {
            device_row(resource, device).into_iter().chain(uuids(device)).collect()
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let heading: Vec<_> =
        DEVICE_HEADING.iter().copied().chain(has_uuids.then_some("UUIDS")).collect();
    let table = columns(&heading, &rows, paint, |row, column, cell| match column {
        HEALTH_COLUMN if healths[row] => paint.health(Health::Healthy, cell),
        HEALTH_COLUMN => paint.health(Health::Unhealthy, cell),
        _ => cell.to_owned(),
    });
    format!("\n{table}")
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn device_row(resource: &ResourceStatus, device: &DeviceStatus) -> Vec<String> {
    let numa: Vec<_> = device.numa_nodes.iter().map(ToString::to_string).collect();
    vec![
        device.id.clone(),
        resource.name.clone(),
        device.health.clone(),
        or_dash(device.since.clone().unwrap_or_default()),
        or_dash(numa.join(",")),
        or_dash(device.chips.join(",")),
        or_dash(device.nodes.join(",")),
        pods(device.pods.as_deref()),
    ]
}

/// `NAMESPACE/POD/CONTAINER`, comma-separated; `-` where no container holds the device.
fn pods(pods: Option<&[PodStatus]>) -> String {
    let path = |it: &PodStatus| format!("{}/{}/{}", it.namespace, it.pod, it.container);
    match pods {
        None => "unknown".to_owned(),
        Some([]) => "-".to_owned(),
        Some(pods) => pods.iter().map(path).collect::<Vec<_>>().join(","),
    }
}

fn configuration(status: &ConfigStatus) -> impl Iterator<Item = String> {
    let file = status.file.as_deref().unwrap_or("set at startup");
    let refused = status.refused.iter().map(|refused| {
        format!("refused since {}: {}", refused.since, refused.text.replace('\n', "\n  "))
    });
    [if status.current { format!("{file}: active") } else { format!("{file}: not active") }]
        .into_iter()
        .chain(refused)
}

fn machine(status: &Status) -> impl Iterator<Item = String> {
    let machine = &status.machine;
    let scanned = match (&machine.scanned_at, machine.scan_seconds) {
        (Some(at), Some(took)) => format!("scanned at {at}, in {:.1} ms", took * 1e3),
        _ => "not scanned yet".to_owned(),
    };
    let scanning = machine.scanning_seconds.filter(|seconds| *seconds >= 1.0);
    let scanning = scanning.map(|seconds| format!("a scan has been running for {seconds:.0} s"));
    let error = machine.error.iter();
    let error = error.map(|it| format!("scans fail since {}: {}", it.since, it.text));
    let driver = machine.driver_version.iter().map(|version| format!("driver version {version}"));
    let skipped = machine.skipped.iter().map(|it| format!("{}  {}", it.address, it.reason));
    [scanned].into_iter().chain(scanning).chain(error).chain(driver).chain(skipped)
}

fn sources(status: &Status) -> impl Iterator<Item = String> {
    status.sources.iter().map(|(name, source)| {
        let SourceStatus { state, detail, since } = source;
        let since = since.as_ref().map_or(String::new(), |since| format!(" since {since}"));
        let detail = detail.as_ref().map_or(String::new(), |detail| format!(": {detail}"));
        format!("{name}: {state}{since}{detail}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_in_its_two_largest_units() {
        let read = [0, 59, 61, 3661, 90_000].map(elapsed);
        assert_eq!(read, ["0 s", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }
}
