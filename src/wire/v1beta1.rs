//! The kubelet's device plugin protocol, generated from proto/deviceplugin/v1beta1/api.proto.

#![expect(
    missing_docs,
    clippy::allow_attributes,
    unused_qualifications,
    clippy::pedantic,
    reason = "generated code; the .proto file has the documentation"
)]

include!(concat!(env!("OUT_DIR"), "/deviceplugin/v1beta1/v1beta1.rs"));

/// The version that a plugin registers with.
pub const VERSION: &str = "v1beta1";
