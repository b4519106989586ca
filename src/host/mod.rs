//! The only code that touches the machine. What decides something belongs further down.

pub mod cdi_dir;
pub mod claim_file;
pub mod clock;
pub mod config_file;
pub mod cordon_file;
pub mod cpu_affinity;
pub mod files;
pub mod kept_file;
pub mod own_file;
pub mod root;
pub mod state_file;
pub mod sysfs;
pub mod unpacked;

pub mod health_sample;
pub mod identities;
pub mod scan;

mod readiness;

pub mod abortable_stream;
pub mod accept;

pub mod authority_stream;
pub mod directory_watch;
pub mod http_client;
pub mod kube_api;
pub mod kubelet;
pub mod other_mode;
pub mod pod_resources;
pub mod sockets;
pub mod uevents;

pub mod ixml;

pub mod doctor;
