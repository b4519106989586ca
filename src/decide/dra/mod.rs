//! Dynamic resource allocation: the registration with the kubelet.

pub mod registration;
pub mod socket_paths;
