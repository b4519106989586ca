//! The kubelet's device health protocol, generated from
//! proto/dra-health/v1alpha1/api.proto.

#![expect(
    missing_docs,
    clippy::allow_attributes,
    unused_qualifications,
    clippy::pedantic,
    reason = "generated code; the .proto file has the documentation"
)]

include!(concat!(env!("OUT_DIR"), "/dra-health/v1alpha1/v1alpha1.rs"));
