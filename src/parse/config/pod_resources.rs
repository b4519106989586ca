//! `podResources`: how often the kubelet is queried which pods hold devices.

use std::time::Duration;

use super::cursor::Cursor;
use super::keys::{self, SHORTEST_QUERY_INTERVAL};
use super::section::Section;
use crate::model::config::PodResourcesRules;

pub(super) fn read_pod_resources(root: &Section) -> PodResourcesRules {
    let pod_resources = root.section(&keys::POD_RESOURCES);
    let interval = pod_resources.find(&keys::pod_resources::INTERVAL).map(read_interval);
    PodResourcesRules { interval: interval.unwrap_or(PodResourcesRules::default().interval) }
}

fn read_interval(cursor: &Cursor) -> Option<Duration> {
    if cursor.is_off() {
        return None;
    }
    cursor.duration(SHORTEST_QUERY_INTERVAL)
}
