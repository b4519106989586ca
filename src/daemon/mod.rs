//! Loops that own something. Each waits for `stop`; none holds a lock or a borrow across an await.

pub mod overdue;
pub mod telemetry;
pub mod until;

pub mod announce;
pub mod cdi_writer;
pub mod config_watch;
pub mod handout_ledger;
pub mod health_monitor;
pub mod holders_watch;
pub mod inventory_owner;
pub mod ixml_monitor;
pub mod ixml_source;
pub mod uevent_pump;

pub mod plugin_service;
pub mod plugin_session;
pub mod sessions;

pub mod front_desk;
pub mod http;
