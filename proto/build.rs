//! Compiles the kubelet's protocols in Rust (protox), so that a build needs no protoc.

use std::error::Error;

const PROTOCOLS: &[&str] = &["deviceplugin/v1beta1/api.proto", "podresources/v1/api.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOCOLS, ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
