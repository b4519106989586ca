//! What several tests need: the built binary, generated machines, the kernel's events, and a node
//! whose boards come and go.

pub(crate) mod binary;

pub(crate) mod machines;
pub(crate) mod random_machines;

pub(crate) mod kernel;
pub(crate) mod plugged_node;
