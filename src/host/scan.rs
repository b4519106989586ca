//! One scan of the machine: what the kernel shows, parsed.

use super::root::Root;
use super::sysfs::{Capture, Detail, ScanError, capture};
use crate::model::config::DiscoveryRules;
use crate::model::sysfs::SysfsScan;
use crate::parse::sysfs::parse_sysfs_scan_at;

/// Scans the machine at `root`. Reads files: call it where blocking is allowed.
///
/// # Errors
/// [`ScanError`]: a failed scan is not a machine without GPUs.
pub fn scan(root: &Root, rules: &DiscoveryRules) -> Result<SysfsScan, ScanError> {
    let Capture { machine, places } = capture(root, rules, Detail::Discovery)?;
    Ok(parse_sysfs_scan_at(&machine, &places, rules))
}
