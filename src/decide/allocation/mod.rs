//! What a container gets for the devices that the kubelet chose, and which ones it should choose.

pub mod allocate;
pub mod cdi;
pub mod prefer;
pub mod records;
