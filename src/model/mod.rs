//! Nouns: what a node is made of, as plain values. Standard library only; nothing here reads or decides.

pub mod pci;

pub mod machine;

pub mod health;
pub mod ixml;

pub mod config;

pub mod device;
pub mod function;

pub mod board;
pub mod topology;

pub mod allocation;
pub mod cdi;
pub mod health_sample;
pub mod inventory;
pub mod list_size;
pub mod pod_usage;
pub mod session;
pub mod sysfs;

pub mod doctor;
