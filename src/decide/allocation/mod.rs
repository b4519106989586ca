//! What a container gets for the devices that the kubelet chose, and which ones it should choose.

pub mod records;

pub mod cdi;

mod environment;

pub mod allocate;

pub mod prefer;
