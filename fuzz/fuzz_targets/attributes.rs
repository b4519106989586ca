//! Any bytes as each attribute: no parser panics, and what it accepts stays within its range.

#![no_main]

use ix_device_plugin::parse::attribute::{
    config_space_answers, parse_class, parse_device_number, parse_id, parse_link_speed,
    parse_link_width, parse_numa_node, parse_text, udev_model, uevent_value,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = parse_id(bytes);
    let _ = parse_link_speed(bytes);
    let _ = config_space_answers(bytes);
    if let Ok(class) = parse_class(bytes) {
        assert!(class.0 <= 0xff_ffff);
    }
    if let Ok(Some(node)) = parse_numa_node(bytes) {
        assert!(i32::try_from(node).is_ok());
    }
    if let Ok(Some(width)) = parse_link_width(bytes) {
        assert!(!matches!(width, 0 | 255));
    }
    if let Ok(number) = parse_device_number(bytes) {
        assert_eq!(parse_device_number(number.to_string().as_bytes()), Ok(number));
    }
    if let Ok(text) = parse_text(bytes) {
        assert_eq!(text, text.trim());
        assert!(!text.is_empty());
    }
    if let Some(value) = uevent_value(bytes, "DEVNAME") {
        assert!(!value.contains('\n'));
    }
    if let Some(model) = udev_model(bytes) {
        assert!(model.len() <= 64 && !model.contains(char::is_control));
    }
    for error in [parse_id(bytes).err(), parse_class(bytes).err()].into_iter().flatten() {
        assert!(error.to_string().len() < 120, "{error}");
    }
});
