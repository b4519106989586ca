//! Any text as a `.node` file: reading it never panics, and what was read is written so that it
//! reads back the same. Discovery on it never panics either.

#![no_main]

use ix_device_plugin::decide::machine::observe::observe;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::parse::node_file::{parse_node_file, write_node_file};
use ix_device_plugin::parse::sysfs::parse_sysfs_scan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(machine) = parse_node_file(text) else {
        return;
    };
    assert_eq!(parse_node_file(&write_node_file(&machine)).as_ref(), Ok(&machine));
    let config = Config::default();
    let _ = observe(&parse_sysfs_scan(&machine, &config.discovery), &config);
});
