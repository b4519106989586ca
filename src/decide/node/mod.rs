//! The state of the node: everything that was seen, and what the kubelet is told of it.

pub mod advertise;
pub mod pod_resources_schedule;
pub mod removed;
pub mod scan_schedule;
