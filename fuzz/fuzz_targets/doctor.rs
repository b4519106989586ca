//! Any text as each file of other people's that `doctor` reads: an answer or an error, never a
//! panic.

#![no_main]

use ix_device_plugin::model::doctor::facts::Engine;
use ix_device_plugin::parse::doctor::cdi_spec::parse_cdi_spec;
use ix_device_plugin::parse::doctor::checkpoint::parse_checkpoint;
use ix_device_plugin::parse::doctor::process::{
    is_user_namespace, parse_kubelet_root, parse_root_filesystem,
};
use ix_device_plugin::parse::doctor::runtime_settings::parse_runtime_settings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = parse_cdi_spec(text);
    let _ = parse_checkpoint(text.as_bytes());
    let _ = parse_kubelet_root(text.as_bytes());
    let _ = parse_root_filesystem(text);
    let _ = is_user_namespace(text);
    for engine in [Engine::Containerd, Engine::Crio, Engine::Docker] {
        let _ = parse_runtime_settings(engine, text);
    }
});
