//! Dynamic resource allocation: the registration with the kubelet, the snapshot as devices of
//! `ResourceSlices`, and what claims get of it.

pub mod registration;
pub mod socket_paths;

mod attributes;
mod order;
mod taints;

pub mod claims;
pub mod pool;

pub mod slices;

pub mod publication;
pub mod reconcile;
pub mod support;

pub mod health_events;
pub mod health_list;
pub mod prepare;

#[cfg(test)]
mod tests;
