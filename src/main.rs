//! ix-device-plugin.
fn main() {}
