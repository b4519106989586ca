//! A health sample of known chips: few files, few bytes, nothing that wakes a driver.

use std::io;

use super::files;
use super::root::Root;
use crate::model::health_sample::{ChipHealthSample, HealthSample};
use crate::model::pci::PciAddress;
use crate::parse::attribute;
use crate::parse::sysfs::PCI_DEVICES;

/// A chip to sample, and its node's path on the host.
pub type SampledChip = (PciAddress, Option<String>);

/// Samples each chip.
#[must_use]
pub fn sample(root: &Root, chips: &[SampledChip]) -> HealthSample {
    chips.iter().map(|(chip, node)| (*chip, look_at(root, *chip, node.as_deref()))).collect()
}

fn look_at(root: &Root, chip: PciAddress, node: Option<&str>) -> ChipHealthSample {
    let directory = root.path().join(PCI_DEVICES).join(chip.to_string());
    let driver = files::read_link(&directory.join("driver"));
    let driver = driver.ok().and_then(|target| Some(target.rsplit('/').next()?.to_owned()));
    // The first four bytes are vendor and device; each costs the chip a read on the bus.
    let config = files::read_start(&directory.join("config"), 4);
    let is_gone = matches!(&config, Err(error) if error.kind() == io::ErrorKind::NotFound);
    let errors = |name: &str| {
        let bytes = files::read_attribute(&directory.join(name)).ok()?;
        attribute::parse_error_total(&bytes)
    };
    ChipHealthSample {
        is_there: !is_gone || files::is_directory(&directory).unwrap_or(false),
        driver,
        has_node: node.map(|node| files::exists(&root.path().join(node.trim_start_matches('/')))),
        answers: config.ok().map(|bytes| attribute::config_space_answers(&bytes)),
        fatal_errors: errors("aer_dev_fatal"),
        non_fatal_errors: errors("aer_dev_nonfatal"),
    }
}
