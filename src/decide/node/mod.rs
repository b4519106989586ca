//! The state of the node: every observation, and the lists for the kubelet.

pub mod pod_resources_schedule;
pub mod scan_schedule;

pub mod advertise;
pub mod holdings;
pub mod inventory;
pub mod known_uuids;
pub mod list_limit;
pub mod removed;
pub mod snapshot;

pub mod cordons;

pub mod state;
