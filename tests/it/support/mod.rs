//! What several tests need: the built binary and generated machines.

pub(crate) mod binary;

pub(crate) mod machines;
pub(crate) mod random_machines;
