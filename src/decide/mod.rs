//! Nouns to decisions: pure functions, time is an argument, bad input is an answer and never a panic.

pub mod models;

pub mod boards;
pub mod nodes;
pub mod topology;

pub mod health;
pub mod inventory;

pub mod advertise;
pub mod allocate;
pub mod handouts;
pub mod prefer;

pub mod backoff;
pub mod ixml;
pub mod session;
