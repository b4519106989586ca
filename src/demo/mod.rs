//! A node without a cluster: an embedded kubelet, an embedded API server with a scheduler, a machine
//! whose boards can be removed, and the story that `demo` plays on them.

pub mod api_server;
pub mod kubelet;
pub mod scheduler;

pub mod machine;
pub mod timeline;

mod daemon;
mod dra_story;
pub mod story;
