//! Decisions to and from other people's formats; pure.

pub mod dra_health_v1;
pub mod dra_health_v1alpha1;
pub mod dra_v1;
pub mod http2;
pub mod pluginregistration_v1;
pub mod podresources_v1;
pub mod v1beta1;

pub mod ixml_agent;

pub mod cdi;
pub mod config_schema;
pub mod config_yaml;
pub mod counted;
pub mod device_plugin;
pub mod dra_objects;
pub mod dra_registration;
pub mod dra_service;
pub mod feature_file;
pub mod log_events;
pub mod metrics;
pub mod node_event;
pub mod pod_resources;
pub mod report;
