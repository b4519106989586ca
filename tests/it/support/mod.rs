//! What several tests need: the built binary and generated machines.

pub(crate) mod binary;
