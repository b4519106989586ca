//! The state of the node: everything that was seen, and what the kubelet is told of it.

pub mod pod_resources_schedule;
pub mod scan_schedule;

pub mod advertise;
pub mod holdings;
pub mod inventory;
pub mod list_limit;
pub mod removed;
pub mod snapshot;

pub mod state;
