//! What several subjects share.

pub(crate) mod clock;
pub(crate) mod daemon;
pub(crate) mod plugin_client;
