//! Nouns: what a node is made of, as plain values. Standard library and serde only;
//! nothing here reads or decides.

mod serde_text;

pub mod pci;
pub mod pci_error;

pub mod identity;
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
pub mod cordon;
pub mod dra;
pub mod health_sample;
pub mod inventory;
pub mod log_event;
pub mod observed;
pub mod pod_usage;
pub mod rescan;
pub mod session;
pub mod sysfs;
pub mod warning;

pub mod doctor;
