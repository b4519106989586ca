//! What several tests need: the built binary, generated machines, the kernel's events, the daemon and
//! clients for it.

pub(crate) mod binary;
pub(crate) mod clock;
pub(crate) mod daemon;
pub(crate) mod plugin_client;

pub(crate) mod machines;
pub(crate) mod mounts;
pub(crate) mod random_machines;

pub(crate) mod container;
pub(crate) mod kernel;
pub(crate) mod plugged_node;
