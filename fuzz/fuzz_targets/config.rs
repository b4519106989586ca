//! Any text is a configuration or a message; a configuration survives being printed.

#![no_main]

use ix_device_plugin::parse::config::parse_config;
use ix_device_plugin::wire::config_yaml::effective_yaml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse_config(text) {
        Ok(config) => assert_eq!(parse_config(&effective_yaml(&config)), Ok(config)),
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
});
