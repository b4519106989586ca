//! Any text as the file of prepared claims and as the name of a device: reading never panics, and what
//! was read is written so that it reads back the same. The checksum, which no random text would have,
//! is added.

#![no_main]

use ix_device_plugin::model::dra::device::DraDeviceName;
use ix_device_plugin::parse::claim_records::{parse_claim_records, write_claim_records};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<DraDeviceName>() {
        assert_eq!(name.to_string(), text);
    }
    let _ = parse_claim_records(text);
    let checksum = crc32fast::hash(text.as_bytes());
    let valid = format!("ix-device-plugin claims 1 {checksum:08x}\n{text}");
    if let Ok(records) = parse_claim_records(&valid) {
        let written = write_claim_records(&records);
        assert_eq!(parse_claim_records(&written).ok().as_ref(), Some(&records));
    }
});
