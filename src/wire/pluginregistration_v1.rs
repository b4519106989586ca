//! The kubelet's plugin registration protocol, generated from
//! proto/pluginregistration/v1/api.proto.

#![expect(
    missing_docs,
    clippy::allow_attributes,
    unused_qualifications,
    clippy::pedantic,
    reason = "generated code; the .proto file has the documentation"
)]

include!(concat!(env!("OUT_DIR"), "/pluginregistration/v1/pluginregistration.rs"));
