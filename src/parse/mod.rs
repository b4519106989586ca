//! Text and bytes to nouns; no I/O, no clock. Nothing here panics on any input.

pub mod attribute;
pub mod duration;
pub mod env_bool;
pub mod identities;
pub mod ixml_bus_id;
pub mod quantity;
pub mod uevent;

pub mod state_file;

pub mod allocations;
pub mod claim_records;
pub mod config;
pub mod cordons;
pub mod node_file;
pub mod sysfs;

pub mod doctor;
