//! Any text as a slice, a claim and a quantity of the API server: reading never panics, and a slice's
//! content is written so that it reads back the same.

#![no_main]

use ix_device_plugin::parse::quantity::{parse_count, write_count};
use ix_device_plugin::wire::dra_objects::{claim, content_objects, slice_content};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSliceSpec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(count) = parse_count(text) {
        assert_eq!(parse_count(&write_count(count)), Some(count));
    }
    if let Ok(read) = serde_json::from_str::<ResourceClaim>(text) {
        let _ = claim(&read);
    }
    let Ok(mut spec) = serde_json::from_str::<ResourceSliceSpec>(text) else { return };
    if let Some(content) = slice_content(&spec) {
        (spec.devices, spec.shared_counters) = content_objects(&content, None);
        assert_eq!(slice_content(&spec), Some(content));
    }
});
