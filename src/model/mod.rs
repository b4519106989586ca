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

pub mod cdi;
pub mod handout;
pub mod holders;
pub mod inventory;
pub mod list_size;
pub mod survey;
pub mod vitals;

pub mod doctor;
