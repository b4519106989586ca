//! A Kubernetes device plugin for Iluvatar CoreX GPUs.

pub mod daemon;
pub mod decide;
pub mod demo;
pub mod host;
pub mod model;
pub mod parse;
pub mod wire;
