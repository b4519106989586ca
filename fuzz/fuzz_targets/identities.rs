//! Any text is a file of identities or a message, and what is read of it reads back the same.

#![no_main]

use ix_device_plugin::parse::identities::parse_identities;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(read) = parse_identities(text) else { return };
    let lines = read.uuids.iter().map(|(address, uuid)| format!("{address},{uuid}\n"));
    let written = format!("pci.bus_id,uuid\n{}", lines.collect::<String>());
    let again = parse_identities(&written).expect("what was read is valid");
    assert_eq!(again.uuids, read.uuids);
    assert!(again.bad_lines.is_empty());
});
