//! Everything from outside: the built binary, the public interface, real sockets and files.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the doors of the house are for the plugin, not for those who watch it"
)]

mod support;

mod architecture;
mod bad_nodes;
mod cli;
mod config;
mod config_schema;
mod cordon;
mod demo;
mod deploy;
mod doctor;
mod e2e;
mod explain;
mod golden;
mod machines;
mod messages;
mod readme;
mod repository;
mod seed;
mod udev_rules;
mod words;

mod allocate;
mod allocations;
mod authority;
mod cdi;
mod dra;
mod dra_api;
mod dra_scheduler;
mod dra_slices;
mod dra_story;
mod embedded_kubelet;
mod faults;
mod held_chips;
mod hot_config;
mod hotplug;
mod http;
mod hung_scan;
mod identities;
mod ixml;
mod kubelet_restart;
mod labels;
mod list_and_watch;
mod log_events;
mod nothing_is_lost;
mod removal;
mod session;
mod sharing;
mod shutdown;
mod signals;
mod storm;
mod verify_on_start;
