//! The session with the kubelet, and what probes are told of it.

pub mod probes;
pub mod session;
