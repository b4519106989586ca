//! DRA mode in the status document: the registration, the slices as the API server has them, and what
//! it does not support.

use std::time::SystemTime;

use humantime::format_rfc3339_seconds;
use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::decide::dra::publication::PublishedSlices;
use crate::model::doctor::facts::{DroppedFeature, RunningDriver};
use crate::model::dra::DRIVER_NAME;
use crate::model::dra::slice::{DraFeature, SeenSlice, SliceContent};

/// DRA mode.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DraStatus {
    pub(super) driver: String,
    pub(super) registered: bool,
    /// Since when; absent while the kubelet does not accept the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) registered_since: Option<String>,
    pub(super) kubelet_connected: bool,
    /// Why the kubelet does not accept the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) registration_error: Option<String>,
    /// Absent until the API server was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) slices: Option<Vec<PublishedSliceStatus>>,
    /// Whether the slices are what the node offers.
    pub(super) slices_current: bool,
    /// Why the API server cannot be read or written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) api_server_error: Option<String>,
    pub(super) unsupported: Vec<UnsupportedFeature>,
}

/// Of a status document, what doctor concludes from; none in device plugin mode.
///
/// # Errors
/// The text is not such a document.
pub fn running_driver(text: &str) -> serde_json::Result<Option<RunningDriver>> {
    let status: Status = serde_json::from_str(text)?;
    Ok(status.dra.map(|dra| RunningDriver {
        dropped: dra.unsupported.into_iter().map(dropped).collect(),
        api_server_error: dra.api_server_error,
        registration_error: dra.registration_error,
    }))
}

fn dropped(feature: UnsupportedFeature) -> DroppedFeature {
    let UnsupportedFeature { feature, feature_gate, fallback } = feature;
    DroppedFeature { name: feature, gate: feature_gate, fallback }
}

/// A slice as the API server has it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedSliceStatus {
    pub(super) name: String,
    pub(super) generation: i64,
    pub(super) devices: usize,
    pub(super) tainted: usize,
    pub(super) counter_sets: usize,
}

/// What the API server drops, and what happens instead.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnsupportedFeature {
    pub(super) feature: String,
    pub(super) feature_gate: String,
    pub(super) fallback: String,
}

/// The registration with the kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraRegistrationStatus {
    /// When the kubelet accepted the driver; none while it does not.
    pub registered: Option<SystemTime>,
    /// Whether it is connected to the service.
    pub is_connected: bool,
    /// The last error since the last success.
    pub last_error: Option<String>,
}

/// The part of the document.
#[must_use]
pub fn dra_status(registration: DraRegistrationStatus, published: &PublishedSlices) -> DraStatus {
    let slices = published.slices.as_ref();
    let dropped = published.support.dropped.iter();
    DraStatus {
        driver: DRIVER_NAME.to_owned(),
        registered: registration.registered.is_some(),
        registered_since: registration.registered.map(|at| format_rfc3339_seconds(at).to_string()),
        kubelet_connected: registration.is_connected,
        registration_error: registration.last_error,
        slices: slices.map(|slices| slices.iter().map(slice_status).collect()),
        slices_current: published.is_current,
        api_server_error: published.last_error.clone(),
        unsupported: dropped.map(|feature| unsupported(*feature)).collect(),
    }
}

fn slice_status(slice: &SeenSlice) -> PublishedSliceStatus {
    let (devices, counter_sets) = match &slice.content {
        Some(SliceContent::Devices(devices)) => (&devices[..], 0),
        Some(SliceContent::Counters(sets)) => (&[][..], sets.len()),
        None => (&[][..], 0),
    };
    PublishedSliceStatus {
        name: slice.name.clone(),
        generation: slice.generation,
        devices: devices.len(),
        tainted: devices.iter().filter(|device| !device.taints.is_empty()).count(),
        counter_sets,
    }
}

fn unsupported(feature: DraFeature) -> UnsupportedFeature {
    UnsupportedFeature {
        feature: feature.name().to_owned(),
        feature_gate: feature.gate().to_owned(),
        fallback: feature.fallback().to_owned(),
    }
}

/// Lines of the table.
pub(super) fn dra_lines(status: &DraStatus) -> Vec<String> {
    let is = |is: bool, yes: &str, no: &str| if is { yes.to_owned() } else { no.to_owned() };
    let since = status.registered_since.as_ref().map(|since| format!("registered since {since}"));
    let registered = since.unwrap_or_else(|| is(status.registered, "registered", "not registered"));
    let connected = is(status.kubelet_connected, "connected", "not connected");
    let mut lines = vec![format!("driver {}: {registered}, kubelet {connected}", status.driver)];
    lines.extend(status.registration_error.iter().map(|error| format!("registration: {error}")));
    lines.extend(status.slices.iter().flatten().map(slice_line));
    let is_behind = !status.slices_current;
    lines.extend(is_behind.then(|| "the slices are not what the node offers".to_owned()));
    lines.extend(status.api_server_error.iter().map(|error| format!("API server: {error}")));
    lines.extend(status.unsupported.iter().map(|it| {
        let UnsupportedFeature { feature, feature_gate, fallback } = it;
        format!("the API server does not support {feature} ({feature_gate}): {fallback}")
    }));
    lines
}

fn slice_line(slice: &PublishedSliceStatus) -> String {
    let PublishedSliceStatus { name, generation, devices, tainted, counter_sets } = slice;
    match counter_sets {
        0 => {
            format!("slice {name}: generation {generation}, {devices} devices, {tainted} tainted")
        }
        sets => format!("slice {name}: generation {generation}, {sets} counter sets"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::dra::slice::ServerSupport;

    #[test]
    fn the_table_names_slices_errors_and_what_the_server_drops() {
        let slice = SeenSlice {
            name: "00000-gpu.iluvatar.com-u".to_owned(),
            resource_version: "1".to_owned(),
            generation: 3,
            slice_count: 1,
            content: Some(SliceContent::Devices(Vec::new())),
        };
        let published = PublishedSlices {
            slices: Some(vec![slice]),
            is_current: false,
            support: ServerSupport { dropped: BTreeSet::from([DraFeature::Taints]) },
            last_error: Some("503".to_owned()),
        };
        let registered = Some(SystemTime::UNIX_EPOCH);
        let registration =
            DraRegistrationStatus { registered, is_connected: false, last_error: None };
        let lines = dra_lines(&dra_status(registration, &published));
        assert_eq!(
            lines,
            [
                "driver gpu.iluvatar.com: registered since 1970-01-01T00:00:00Z, kubelet not connected",
                "slice 00000-gpu.iluvatar.com-u: generation 3, 0 devices, 0 tainted",
                "the slices are not what the node offers",
                "API server: 503",
                "the API server does not support taints (DRADeviceTaints): unhealthy devices leave \
                 the slices unless a claim holds them",
            ]
        );
    }
}
