//! Prepared claims and the health of devices, as the kubelet's DRA protocols write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::dra_v1::{Device, NodePrepareResourceResponse, NodeUnprepareResourceResponse};
use super::{dra_health_v1, dra_health_v1alpha1};
use crate::model::dra::claim::PreparedDevice;
use crate::model::dra::device::DraDeviceHealth;
use crate::model::health::Health;

/// How long the kubelet keeps an entry of the list; afterwards the health is unknown to it.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(30);

/// The answer about one claim: its devices, or why it has none.
#[must_use]
pub fn prepare_response(
    prepared: Result<Vec<PreparedDevice>, String>,
) -> NodePrepareResourceResponse {
    match prepared {
        Ok(devices) => NodePrepareResourceResponse {
            devices: devices.into_iter().map(device).collect(),
            error: String::new(),
        },
        Err(error) => NodePrepareResourceResponse { devices: Vec::new(), error },
    }
}

fn device(prepared: PreparedDevice) -> Device {
    Device {
        request_names: vec![prepared.request],
        pool_name: prepared.pool,
        device_name: prepared.device,
        cdi_device_ids: prepared.cdi_ids,
        share_id: prepared.share_id,
    }
}

/// The answer about one claim that is no longer used.
#[must_use]
pub fn unprepare_response(released: Result<(), String>) -> NodeUnprepareResourceResponse {
    NodeUnprepareResourceResponse { error: released.err().unwrap_or_default() }
}

/// The complete list, at this time, of the pool of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthMessage {
    /// The pool.
    pub pool: String,
    /// Every device.
    pub devices: Vec<DraDeviceHealth>,
    /// When it was made.
    pub at: SystemTime,
}

macro_rules! health_message {
    ($version:ident) => {
        impl From<HealthMessage> for $version::NodeWatchResourcesResponse {
            fn from(message: HealthMessage) -> Self {
                let at = message.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let devices = message.devices.into_iter().map(|device| $version::DeviceHealth {
                    device: Some($version::DeviceIdentifier {
                        pool_name: message.pool.clone(),
                        device_name: device.device.to_string(),
                    }),
                    health: match device.health {
                        Health::Healthy => $version::HealthStatus::Healthy,
                        Health::Unhealthy => $version::HealthStatus::Unhealthy,
                    }
                    .into(),
                    last_updated_time: i64::try_from(at).unwrap_or(i64::MAX),
                    health_check_timeout_seconds: HEALTH_TIMEOUT.as_secs().cast_signed(),
                    message: device.message,
                });
                Self { devices: devices.collect() }
            }
        }
    };
}

health_message!(dra_health_v1);
health_message!(dra_health_v1alpha1);
