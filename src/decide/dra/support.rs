//! What an API server drops of what it was sent: fields whose feature gate is off vanish without an
//! error.

use crate::model::dra::slice::{
    DraFeature, DraSlice, PublishedDevice, ServerSupport, SliceContent,
};

/// Compares what was sent with what the server stored; returns what it was not known to drop.
pub fn learn(
    support: &mut ServerSupport,
    sent: &DraSlice,
    stored: &SliceContent,
) -> Vec<DraFeature> {
    let dropped = dropped(&sent.content, stored);
    dropped.into_iter().filter(|feature| support.dropped.insert(*feature)).collect()
}

/// The server refused the slice as invalid. Before 1.35 it wanted counters in another form.
pub fn refused(support: &mut ServerSupport, sent: &DraSlice) -> Option<DraFeature> {
    let has_counters = match &sent.content {
        SliceContent::Counters(_) => true,
        SliceContent::Devices(devices) => devices.iter().any(|device| device.counter.is_some()),
    };
    let feature = has_counters.then_some(DraFeature::Partitionable)?;
    support.dropped.insert(feature).then_some(feature)
}

fn dropped(sent: &SliceContent, stored: &SliceContent) -> Vec<DraFeature> {
    match (sent, stored) {
        (SliceContent::Counters(sent), stored) if !sent.is_empty() => {
            let is_kept = matches!(stored, SliceContent::Counters(stored) if !stored.is_empty());
            if is_kept { Vec::new() } else { vec![DraFeature::Partitionable] }
        }
        (SliceContent::Devices(sent), SliceContent::Devices(stored)) => {
            let pairs: Vec<_> = sent.iter().zip(stored).collect();
            let is_dropped = |has: fn(&PublishedDevice) -> bool| {
                pairs.iter().any(|(sent, stored)| has(sent) && !has(stored))
            };
            let features = [
                (DraFeature::Taints, is_dropped(|device| !device.taints.is_empty())),
                (DraFeature::Partitionable, is_dropped(|device| device.counter.is_some())),
                (DraFeature::ConsumableCapacity, is_dropped(|device| device.slots.is_some())),
            ];
            features.into_iter().filter(|(_, dropped)| *dropped).map(|(it, _)| it).collect()
        }
        _ => Vec::new(),
    }
}
