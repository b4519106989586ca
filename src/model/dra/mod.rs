//! Dynamic resource allocation: what the node offers as devices of `ResourceSlices`, and what
//! claims hold of it.

pub mod claim;
pub mod device;
pub mod slice;

/// The driver's name: in slices, in claims and in the kubelet's registration. Attributes without a
/// domain belong to it.
pub const DRIVER_NAME: &str = "gpu.iluvatar.com";
