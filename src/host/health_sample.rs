//! Health samples of chips that are known: few files, few bytes, nothing that wakes a driver.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::files;
use super::kept_file::KeptFile;
use super::root::Root;
use crate::model::health_sample::{ChipHealthSample, HealthSample};
use crate::model::pci::PciAddress;
use crate::parse::attribute;
use crate::parse::sysfs::PCI_DEVICES;

/// A chip to sample, and its node's path on the host.
pub type SampledChip = (PciAddress, Option<String>);

/// The files of so many chips stay open, four of each: systemd gives a process room for 1024.
const KEPT_OPEN: usize = 64;

/// The files that health samples read, by chip. They stay open between two samples.
#[derive(Debug, Default)]
pub struct HealthFiles {
    chips: BTreeMap<PciAddress, ChipFiles>,
}

#[derive(Debug)]
struct ChipFiles {
    directory: PathBuf,
    /// The directory, open since the last sample in which it was there.
    open: Option<File>,
    config: KeptFile,
    fatal_errors: KeptFile,
    non_fatal_errors: KeptFile,
}

impl HealthFiles {
    /// Samples each of these chips. May block where a chip hangs.
    #[must_use]
    pub fn sample(&mut self, root: &Root, chips: &[SampledChip]) -> HealthSample {
        self.chips.retain(|chip, _| chips.iter().any(|(known, _)| known == chip));
        let samples = chips.iter().enumerate().map(|(index, (chip, node))| {
            let files = self.chips.entry(*chip).or_insert_with(|| ChipFiles::of(root, *chip));
            let sample = files.sample(root, node.as_deref());
            if index >= KEPT_OPEN {
                files.close();
            }
            (*chip, sample)
        });
        samples.collect()
    }
}

impl ChipFiles {
    fn of(root: &Root, chip: PciAddress) -> Self {
        let directory = root.path().join(PCI_DEVICES).join(chip.to_string());
        let file = |name: &str| KeptFile::new(directory.join(name));
        Self {
            open: None,
            config: file("config"),
            fatal_errors: file("aer_dev_fatal"),
            non_fatal_errors: file("aer_dev_nonfatal"),
            directory,
        }
    }

    fn sample(&mut self, root: &Root, node: Option<&str>) -> ChipHealthSample {
        let driver = self.driver();
        let is_absent = matches!(&driver, Err(error) if error.kind() == io::ErrorKind::NotFound);
        let driver = driver.ok().and_then(|target| Some(target.rsplit('/').next()?.to_owned()));
        ChipHealthSample {
            is_there: self.open.is_some() || !is_absent,
            driver,
            has_node: node
                .map(|node| files::exists(&root.path().join(node.trim_start_matches('/')))),
            answers: self.answers(),
            fatal_errors: error_total(&mut self.fatal_errors),
            non_fatal_errors: error_total(&mut self.non_fatal_errors),
        }
    }

    /// The target of the driver's link. Where it is not found the directory is opened by its path: an
    /// open one does not show what is there now.
    fn driver(&mut self) -> io::Result<String> {
        if let Some(open) = &self.open
            && let Ok(target) = files::read_link_in(open, "driver")
        {
            return Ok(target);
        }
        self.open = None;
        let open = files::open_directory(&self.directory)?;
        files::read_link_in(self.open.insert(open), "driver")
    }

    /// The first four bytes are vendor and device; each costs the chip a read on the bus.
    fn answers(&mut self) -> Option<bool> {
        let mut ids = [0; 4];
        let length = self.config.read_start(&mut ids).ok()?;
        Some(attribute::config_space_answers(&ids[..length]))
    }

    fn close(&mut self) {
        self.open = None;
        for file in [&mut self.config, &mut self.fatal_errors, &mut self.non_fatal_errors] {
            file.close();
        }
    }
}

fn error_total(file: &mut KeptFile) -> Option<u64> {
    let mut bytes = [0; files::PAGE];
    let length = file.read_start(&mut bytes).ok()?;
    attribute::parse_error_total(&bytes[..length])
}
