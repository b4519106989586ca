//! Decisions to and from other people's formats; pure.

/// Modules of protocols that build.rs generates.
macro_rules! protocols {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {$(
        $(#[$doc])*
        #[expect(
            missing_docs,
            clippy::allow_attributes,
            unused_qualifications,
            clippy::pedantic,
            reason = "generated code; the .proto file has the documentation"
        )]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), $file));
        }
    )*};
}

protocols! {
    /// The kubelet's device plugin protocol, generated from proto/deviceplugin/v1beta1/api.proto.
    v1beta1 = "/deviceplugin/v1beta1/v1beta1.rs";
    /// The kubelet's pod resources protocol, generated from proto/podresources/v1/api.proto.
    podresources_v1 = "/podresources/v1/v1.rs";
    /// The kubelet's plugin registration protocol, generated from
    /// proto/pluginregistration/v1/api.proto.
    pluginregistration_v1 = "/pluginregistration/v1/pluginregistration.rs";
    /// The kubelet's DRA protocol, generated from proto/dra/v1/api.proto.
    dra_v1 = "/dra/v1/k8s.io.kubelet.pkg.apis.dra.v1.rs";
    /// The kubelet's device health protocol, generated from proto/dra-health/v1/api.proto.
    dra_health_v1 = "/dra-health/v1/v1.rs";
    /// The kubelet's device health protocol, generated from proto/dra-health/v1alpha1/api.proto.
    dra_health_v1alpha1 = "/dra-health/v1alpha1/v1alpha1.rs";
}

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
pub mod http2;
pub mod log_events;
pub mod metrics;
pub mod node_event;
pub mod pod_resources;
pub mod report;
