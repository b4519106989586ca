//! Sessions with the kubelet, and what probes report about them.

pub mod probes;
pub mod session;

pub mod session_log;

pub mod socket_name;

pub mod session_plan;
