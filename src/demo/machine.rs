//! A machine whose boards can be removed and broken: an unpacked `.node` file.

use std::io;
use std::sync::Arc;

use crate::host::files;
use crate::host::root::Root;
use crate::model::board::Board;
use crate::model::machine::{Entry, Machine};
use crate::model::pci::PciAddress;
use crate::parse::sysfs::{PCI_DEVICES, function_path};

/// The unpacked files, and their original contents.
#[derive(Debug)]
pub struct DemoMachine {
    original: Machine,
    root: Arc<Root>,
}

impl DemoMachine {
    /// Unpacks a machine into a temporary directory.
    ///
    /// # Errors
    /// As the calls that make files and links.
    pub fn unpack(machine: Machine) -> io::Result<Self> {
        let root = Arc::new(Root::unpack(&machine)?);
        Ok(Self { original: machine, root })
    }

    /// The root directory to scan.
    #[must_use]
    pub fn root(&self) -> Arc<Root> {
        Arc::clone(&self.root)
    }

    /// Removes everything that the kernel would remove with the board.
    ///
    /// # Errors
    /// As `unlink` and `rmdir`.
    pub fn unplug(&self, board: &Board) -> io::Result<()> {
        self.paths(board).iter().try_for_each(|path| files::remove(&self.root.path().join(path)))
    }

    /// Puts everything of the board back as it was.
    ///
    /// # Errors
    /// As the calls that make files and links.
    pub fn replug(&self, board: &Board) -> io::Result<()> {
        let paths = self.paths(board);
        let is_of_board =
            |path: &str| paths.iter().any(|of| path == of || path.starts_with(&format!("{of}/")));
        let entries = self.original.iter().filter(|(path, _)| is_of_board(path));
        for (path, entry) in entries {
            files::replace(&self.root.path().join(path), entry)?;
        }
        Ok(())
    }

    /// Makes the chip's configuration space read as that of a chip that no longer answers.
    ///
    /// # Errors
    /// As `write`.
    pub fn stop_answering(&self, chip: PciAddress) -> io::Result<()> {
        files::replace(&self.config(chip), &Entry::File(vec![0xff; 64]))
    }

    /// Makes the chip answer again.
    ///
    /// # Errors
    /// As `write`.
    pub fn answer_again(&self, chip: PciAddress) -> io::Result<()> {
        let path = format!("{}/config", function_path(&self.original, chip));
        match self.original.get(&path) {
            Some(entry) => files::replace(&self.config(chip), entry),
            None => files::remove(&self.config(chip)),
        }
    }

    fn config(&self, chip: PciAddress) -> std::path::PathBuf {
        let directory = function_path(&self.original, chip);
        self.root.path().join(directory).join("config")
    }

    /// Of each chip: its entry on the bus, its directory, its node, and the class link of the node.
    fn paths(&self, board: &Board) -> Vec<String> {
        let mut paths = Vec::new();
        for chip in &board.chips {
            paths.push(format!("{PCI_DEVICES}/{}", chip.address));
            paths.push(function_path(&self.original, chip.address));
            let Some(node) = &chip.node else { continue };
            paths.push(node.path.trim_start_matches('/').to_owned());
            let name = node.path.trim_start_matches("/dev/");
            let links = self.original.descendants("sys/class").map(|(path, _)| path);
            let of_node = links.filter(|path| path.ends_with(&format!("/{name}")));
            paths.extend(of_node.map(|path| format!("sys/class/{path}")));
        }
        paths
    }
}
