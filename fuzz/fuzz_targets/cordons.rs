//! Any text as the file of cordons: reading it never panics, and what was read is written so that it
//! reads back the same. The checksum, which no random text would have, is added.

#![no_main]

use ix_device_plugin::parse::cordons::{parse_cordons, write_cordons};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = parse_cordons(text);
    let checksum = crc32fast::hash(text.as_bytes());
    let valid = format!("ix-device-plugin cordons 1 {checksum:08x}\n{text}");
    if let Ok(cordons) = parse_cordons(&valid) {
        let written = write_cordons(&cordons);
        assert_eq!(parse_cordons(&written).ok().as_ref(), Some(&cordons));
    }
});
