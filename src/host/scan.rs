//! One look at the machine: capture, survey, inventory.

use super::root::Root;
use super::sysfs::{self as capture, Detail, ScanError};
use crate::decide::machine::observe;
use crate::model::config::Config;
use crate::model::inventory::Inventory;
use crate::parse::sysfs;

/// What one look found.
#[derive(Clone, Debug)]
pub struct Scan {
    /// What is concluded, health included, as far as one look can tell.
    pub inventory: Inventory,
    /// What was seen, not yet judged: for whoever knows what was seen before.
    pub facts: Inventory,
    /// How many PCI functions were listed.
    pub functions_seen: usize,
}

/// Looks at the machine at `root`. Reads files: call it where blocking is allowed.
///
/// # Errors
/// [`ScanError`]: a failed look says nothing of the machine, least of all that it has no GPU.
pub fn scan(root: &Root, config: &Config) -> Result<Scan, ScanError> {
    let machine = capture::capture(root, &config.discovery, Detail::Discovery)?;
    let survey = sysfs::parse_sysfs_scan(&machine, &config.discovery);
    let facts = observe::facts(&survey, config);
    let inventory = observe::judged_once(&facts, config);
    Ok(Scan { inventory, facts, functions_seen: survey.functions.len() })
}
