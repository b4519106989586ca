//! Compiles the kubelet's protocols in Rust (protox), so that a build needs no protoc; passes the order of
//! functions on to the linker where there is one.

use std::error::Error;
use std::path::Path;

/// Each in a folder of its own, because two of them are of the same package, `v1`.
const PROTOCOLS: &[&str] = &[
    "deviceplugin/v1beta1",
    "podresources/v1",
    "pluginregistration/v1",
    "dra/v1",
    "dra-health/v1alpha1",
    "dra-health/v1",
];

/// Names the file with the order of functions; `.ci/build-release` sets it.
const FUNCTION_ORDER: &str = "IX_FUNCTION_ORDER";

#[expect(clippy::disallowed_methods, reason = "a build script has no other door")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-env-changed={FUNCTION_ORDER}");
    if let Ok(file) = std::env::var(FUNCTION_ORDER) {
        order_functions(&file);
    }
    let generated = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    for protocol in PROTOCOLS {
        let descriptors = protox::compile([format!("{protocol}/api.proto")], ["proto"])?;
        let folder = Path::new(&generated).join(protocol);
        std::fs::create_dir_all(&folder)?;
        let builder = tonic_prost_build::configure().build_transport(false).out_dir(folder);
        builder.compile_fds(descriptors)?;
    }
    Ok(())
}

/// Links the functions in the order of a file that names them.
fn order_functions(file: &str) {
    println!("cargo::rustc-link-arg-bins=-fuse-ld=lld");
    println!("cargo::rustc-link-arg-bins=-Wl,--symbol-ordering-file={file}");
    println!("cargo::rustc-link-arg-bins=-Wl,--no-warn-symbol-ordering");
}
