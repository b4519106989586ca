//! The kubelet's DRA protocol, generated from proto/dra/v1/api.proto.

#![expect(
    missing_docs,
    clippy::allow_attributes,
    unused_qualifications,
    clippy::pedantic,
    reason = "generated code; the .proto file has the documentation"
)]

include!(concat!(env!("OUT_DIR"), "/dra/v1/k8s.io.kubelet.pkg.apis.dra.v1.rs"));
