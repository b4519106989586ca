//! Text and bytes to nouns; no I/O, no clock.

pub mod duration;
pub mod env_bool;

pub mod config;
