//! Nouns to decisions: pure functions, time is an argument, bad input is a result and never a panic.

pub mod backoff;
#[cfg(test)]
mod scan_builder;

pub mod machine;

pub mod health;

pub mod allocation;

pub mod node;

pub mod dra;

pub mod ixml;
pub mod kubelet;

pub mod labels;

pub mod doctor;
