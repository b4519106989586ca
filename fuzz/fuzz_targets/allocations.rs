//! Any text as the file of allocation records: reading it never panics, and what was read is written
//! so that it reads back the same. The checksum, which no random text would have, is added.

#![no_main]

use ix_device_plugin::parse::allocations::{parse_allocations, write_allocations};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = parse_allocations(text);
    let checksum = crc32fast::hash(text.as_bytes());
    let valid = format!("ix-device-plugin allocations 1 {checksum:08x}\n{text}");
    if let Ok(records) = parse_allocations(&valid) {
        let written = write_allocations(&records);
        assert_eq!(parse_allocations(&written).ok().as_ref(), Some(&records));
    }
});
