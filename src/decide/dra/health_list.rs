//! The health of every device, as the kubelet shows it in the status of pods.

use super::attributes::cut;
use crate::model::dra::device::{DraDevice, DraDeviceHealth};
use crate::model::dra::slice::DraPool;
use crate::model::health::Health;

/// The longest message that a kubelet keeps whole, in bytes.
const MESSAGE_LIMIT: usize = 1024;

/// The complete list. Who holds a device is not a matter of its health.
#[must_use]
pub fn health_list(pool: &DraPool) -> Vec<DraDeviceHealth> {
    pool.devices.iter().map(device_health).collect()
}

fn device_health(device: &DraDevice) -> DraDeviceHealth {
    let sentences = device.reasons.iter().map(|reason| {
        format!("{}: {} (remedy: {})", reason.code, reason.detail, reason.code.remedy())
    });
    let message = sentences.collect::<Vec<_>>().join("; ");
    DraDeviceHealth {
        device: device.name,
        health: Health::of(&device.reasons),
        message: shortened(message),
    }
}

fn shortened(message: String) -> String {
    if message.len() <= MESSAGE_LIMIT {
        return message;
    }
    format!("{}...", cut(&message, MESSAGE_LIMIT - 3))
}
