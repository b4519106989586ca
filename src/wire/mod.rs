//! Decisions to and from other people's formats; pure.

pub mod v1beta1;

pub mod config_yaml;
