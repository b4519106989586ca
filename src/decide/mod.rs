//! Nouns to decisions: pure functions, time is an argument, bad input is an answer and never a panic.

#[cfg(test)]
mod sample;

pub mod models;

pub mod boards;
pub mod nodes;
pub mod topology;

pub mod health;
pub mod inventory;
pub mod judge;
pub mod vitals;
pub mod whole_boards;

pub mod advertise;
pub mod allocate;
pub mod cdi;
pub mod handouts;
pub mod prefer;
pub mod removal;

pub mod backoff;
pub mod ixml;
pub mod ixml_signals;
pub mod rescan;
pub mod session;

pub mod doctor;
pub mod probes;
