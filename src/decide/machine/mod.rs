//! What a scan shows: boards, device nodes, distances and models.

pub mod models;

pub mod boards;
pub mod device_nodes;
pub mod topology;

pub mod observe;
