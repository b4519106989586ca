//! Loops that own something. Each waits for `stop`; none holds a lock or a borrow across an await.

pub mod directory_follower;
pub mod dra_telemetry;
pub mod slow;
pub mod telemetry;
pub mod timer;

pub mod allocation_store;
pub mod cdi_writer;
pub mod config_watch;
pub mod cordon_watch;
pub mod health_sampler;
pub mod identities_watch;
pub mod inventory_inputs;
pub mod inventory_owner;
pub mod ixml_monitor;
pub mod ixml_source;
pub mod label_writer;
pub mod log_changes;
pub mod pod_resources_watch;
pub mod scanner;
pub mod uevent_listener;

pub mod plugin_service;
pub mod plugin_session;
pub mod sessions;

pub mod dra_registration_service;
pub mod socket_server;

pub mod claim_ledger;
pub mod claim_reader;
pub mod dra_health_stream;
pub mod dra_service;
pub mod dra_session;

pub mod node_events;
pub mod slice_publisher;

pub mod http;
pub mod status_service;
