//! The kubelet's pod resources protocol, generated from proto/podresources/v1/api.proto.

#![expect(
    missing_docs,
    clippy::allow_attributes,
    unused_qualifications,
    clippy::pedantic,
    reason = "generated code; the .proto file has the documentation"
)]

include!(concat!(env!("OUT_DIR"), "/podresources/v1/v1.rs"));
