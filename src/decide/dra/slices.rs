//! A pool as slices: which devices are published, and how they are spread over objects.

use crate::model::dra::DRIVER_NAME;
use crate::model::dra::device::DraDevice;
use crate::model::dra::slice::{
    DraFeature, DraPool, DraSlice, NodeIdentity, PublishedDevice, ServerSupport, SliceContent,
};

/// How many devices a slice has at most. An API server takes 128, but only 64 as soon as one of them
/// has a taint; a fault must not spread the pool anew.
const DEVICES_PER_SLICE: usize = 64;

/// How many sets of counters a slice has at most.
const SETS_PER_SLICE: usize = 8;

/// The content of each slice, counters first; at least one slice, which is empty on a node without
/// devices.
#[must_use]
pub fn contents(pool: &DraPool, support: &ServerSupport) -> Vec<SliceContent> {
    let published = pool.devices.iter().filter(|device| is_published(device, support));
    let published: Vec<_> = published.map(|device| published_device(device, support)).collect();
    let counters = pool.counters.chunks(SETS_PER_SLICE).map(<[_]>::to_vec);
    let devices = published.chunks(DEVICES_PER_SLICE).map(<[_]>::to_vec);
    let mut contents: Vec<_> = counters.map(SliceContent::Counters).collect();
    contents.extend(devices.map(SliceContent::Devices));
    if contents.is_empty() {
        contents.push(SliceContent::Devices(Vec::new()));
    }
    contents
}

/// The slices of a node at one generation.
#[must_use]
pub fn slices(node: &NodeIdentity, contents: &[SliceContent], generation: i64) -> Vec<DraSlice> {
    let slice_count = i64::try_from(contents.len()).unwrap_or(i64::MAX);
    let slice = |(index, content): (usize, &SliceContent)| DraSlice {
        name: slice_name(node, index),
        generation,
        slice_count,
        content: content.clone(),
    };
    contents.iter().enumerate().map(slice).collect()
}

/// The same at each start, so that a slice whose creation was not answered is not created twice. A
/// uid is a DNS label; schedulers read slices in the order of their names.
#[must_use]
pub fn slice_name(node: &NodeIdentity, index: usize) -> String {
    format!("{index:05}-{DRIVER_NAME}-{}", node.uid)
}

/// Where taints are dropped, a device that should have one is left out, unless a claim has it.
fn is_published(device: &DraDevice, support: &ServerSupport) -> bool {
    device.taints.is_empty() || device.is_claimed || support.has(DraFeature::Taints)
}

fn published_device(device: &DraDevice, support: &ServerSupport) -> PublishedDevice {
    let taints = if support.has(DraFeature::Taints) { &device.taints[..] } else { &[] };
    PublishedDevice {
        name: device.name.to_string(),
        attributes: device.attributes.clone(),
        slots: device.slots.filter(|_| support.has(DraFeature::ConsumableCapacity)),
        counter: device.counter.clone(),
        taints: taints.to_vec(),
    }
}
