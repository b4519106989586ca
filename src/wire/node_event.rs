//! Changes of health as events of the Node, in events.k8s.io/v1.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use crate::model::dra::DRIVER_NAME;
use crate::model::dra::device::DraDeviceHealth;
use crate::model::dra::slice::NodeIdentity;
use crate::model::health::Health;

/// Events of objects without a namespace live here.
const NAMESPACE: &str = "default";
/// The longest name of the instance that reports, in bytes.
const INSTANCE_LIMIT: usize = 128;
/// The longest note, in bytes.
const NOTE_LIMIT: usize = 1024;

/// The event of this change. Its name is unique for the node, the device and the time.
#[must_use]
pub fn node_event(node: &NodeIdentity, change: &DraDeviceHealth, at: SystemTime) -> Event {
    let (kind, reason) = match change.health {
        Health::Healthy => ("Normal", "GpuHealthy"),
        Health::Unhealthy => ("Warning", "GpuUnhealthy"),
    };
    let nanoseconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let device = change.device;
    let text = match change.health {
        Health::Healthy => format!("{device} is healthy"),
        Health::Unhealthy => format!("{device} is unhealthy: {}", change.message),
    };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{device}.{nanoseconds:x}.{}", node.uid)),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Timestamp::try_from(at).ok().map(MicroTime),
        type_: Some(kind.to_owned()),
        reason: Some(reason.to_owned()),
        action: Some("HealthChanged".to_owned()),
        note: Some(cut(&text, NOTE_LIMIT).to_owned()),
        reporting_controller: Some(DRIVER_NAME.to_owned()),
        reporting_instance: Some(cut(&node.name, INSTANCE_LIMIT).to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.name.clone()),
            uid: Some(node.uid.clone()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

/// At most so many bytes, whole characters.
fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_event_names_the_device_and_keeps_the_limits_of_the_api() {
        let node = NodeIdentity { name: "n".repeat(253), uid: "u".repeat(36) };
        let change = DraDeviceHealth {
            device: "chip-0000-13-00-0".parse().unwrap(),
            health: Health::Unhealthy,
            message: "ä".repeat(1024),
        };
        let event = node_event(&node, &change, UNIX_EPOCH + Duration::from_nanos(26));
        assert_eq!(event.metadata.name.unwrap(), format!("chip-0000-13-00-0.1a.{}", node.uid));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.reporting_instance.unwrap().len(), 128);
        let text = event.note.unwrap();
        assert!(text.starts_with("chip-0000-13-00-0 is unhealthy: ä"), "{text}");
        assert!(text.len() <= 1024 && text.len() >= 1022, "{}", text.len());
        assert_eq!(event.event_time.unwrap().0.as_nanosecond(), 26);
    }
}
