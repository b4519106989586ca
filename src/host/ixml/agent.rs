//! The agent: loads the library, answers one request after the other, ends when its input does or
//! its parent dies. It keeps no state but the chips of the last request.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::library::{DeviceRef, Library};
use crate::model::ixml::{
    CallFailure, ChipReading, CodeClass, LibraryCall, ReturnCode, TriedLibrary,
};
use crate::model::pci::{PciAddress, SlotAddress};
use crate::wire::ixml_agent::{AgentReply, parse_request, reply_line};

/// Serves standard input until it ends.
///
/// # Errors
/// The other side of a pipe is gone, or sent what is no request.
pub fn run(libraries: &[PathBuf]) -> io::Result<()> {
    // A call that hangs would keep an orphan here, with the chips still open.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let answers = own_standard_output()?;
    serve(libraries, io::stdin().lock(), answers)
}

/// Standard output for answers alone: what the library prints goes to standard error.
fn own_standard_output() -> io::Result<File> {
    let own = io::stdout().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(io::stderr())?;
    Ok(File::from(own))
}

fn serve(libraries: &[PathBuf], requests: impl BufRead, mut answers: File) -> io::Result<()> {
    let mut reply =
        |answer: &AgentReply| answers.write_all(format!("{}\n", reply_line(answer)).as_bytes());
    let (path, mut library) = match open_first(libraries) {
        Ok(opened) => opened,
        Err(tried) => return reply(&AgentReply::NotFound(tried)),
    };
    let unusable = |failure| AgentReply::Unusable(path.clone(), failure);
    if let Err(code) = library.start() {
        return reply(&unusable(CallFailure { call: LibraryCall::Init, code }));
    }
    reply(&AgentReply::Ready(path.clone()))?;
    let mut last_chips = None;
    for line in requests.lines() {
        let chips = parse_request(&line?).map_err(io::Error::other)?;
        match read_chips(&mut library, &chips, &mut last_chips) {
            Ok(readings) => reply(&AgentReply::Reading(readings))?,
            Err(failure) => return reply(&unusable(failure)),
        }
    }
    Ok(())
}

fn open_first(libraries: &[PathBuf]) -> Result<(PathBuf, Library), Vec<TriedLibrary>> {
    let mut tried = Vec::new();
    for path in libraries {
        match Library::open(path) {
            Ok(library) => return Ok((path.clone(), library)),
            Err(error) => tried.push(TriedLibrary { path: path.clone(), error }),
        }
    }
    Err(tried)
}

/// The library finds its devices when it starts and holds them open from then on. So it starts
/// again when chips came or went.
fn read_chips(
    library: &mut Library,
    chips: &[PciAddress],
    last_chips: &mut Option<Vec<PciAddress>>,
) -> Result<BTreeMap<PciAddress, ChipReading>, CallFailure> {
    let is_changed = last_chips.as_deref().is_some_and(|before| before != chips);
    if is_changed {
        library.restart().map_err(|code| CallFailure { call: LibraryCall::Init, code })?;
    }
    *last_chips = Some(chips.to_vec());
    let devices = Devices { library, by_slot: OnceCell::new() };
    chips.iter().map(|chip| Ok((*chip, read_chip(&devices, *chip)?))).collect()
}

/// Everything that the library reports of one chip.
///
/// # Errors
/// The library as a whole is of no use.
fn read_chip(devices: &Devices<'_>, chip: PciAddress) -> Result<ChipReading, CallFailure> {
    let mut failures = WorstFailure::default();
    let mut reading = ChipReading::default();
    if let Some(device) = failures.record(LibraryCall::Handle, devices.find(chip)) {
        let library = devices.library;
        reading.health = failures.record(LibraryCall::Health, library.health(device));
        reading.ecc = failures.record(LibraryCall::Ecc, library.ecc(device));
        reading.temperature =
            failures.record(LibraryCall::Temperature, library.temperature(device));
    }
    match failures.worst {
        Some(failure) if failure.code.class() == CodeClass::Unusable => Err(failure),
        failure => Ok(ChipReading { failure, ..reading }),
    }
}

/// The most severe of several failures, the first among equals.
#[derive(Default)]
struct WorstFailure {
    worst: Option<CallFailure>,
}

impl WorstFailure {
    fn record<T>(&mut self, call: LibraryCall, result: Result<T, ReturnCode>) -> Option<T> {
        let code = match result {
            Ok(value) => return Some(value),
            Err(code) => code,
        };
        let known = self.worst.map_or(CodeClass::Absent, |failure| failure.code.class());
        if code.class() > known {
            self.worst = Some(CallFailure { call, code });
        }
        None
    }
}

/// The library's devices by slot.
struct Devices<'library> {
    library: &'library Library,
    /// Made only where the library cannot find a device by its address.
    by_slot: OnceCell<BTreeMap<SlotAddress, DeviceRef<'library>>>,
}

impl<'library> Devices<'library> {
    /// # Errors
    /// `NOT_FOUND` where the library does not find the chip in any way.
    fn find(&self, chip: PciAddress) -> Result<DeviceRef<'library>, ReturnCode> {
        match self.library.device_by_address(chip) {
            Err(code) if matches!(code.class(), CodeClass::Absent | CodeClass::Other) => {
                let listed = self.by_slot.get_or_init(|| list(self.library));
                listed.get(&chip.slot_address()).copied().ok_or(ReturnCode::NOT_FOUND)
            }
            other => other,
        }
    }
}

/// All devices with a PCI address. A lost one may have none and is then not found.
fn list(library: &Library) -> BTreeMap<SlotAddress, DeviceRef<'_>> {
    let devices = (0..library.count().unwrap_or(0)).filter_map(|index| {
        let device = library.device_by_index(index).ok()?;
        Some((library.place(device).ok()??, device))
    });
    devices.collect()
}
