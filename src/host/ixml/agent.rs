//! The agent: loads the library and answers one request after the other until its input ends or its
//! parent dies. Its only state is the chips of the last request.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::library::{Library, LibraryDevice};
use crate::model::ixml::{CallFailure, ChipReading, CodeClass, IxmlCall, ReturnCode, TriedLibrary};
use crate::model::pci::{PciAddress, SlotAddress};
use crate::wire::ixml_agent::{AgentMessage, message_line, parse_request};

/// Serves standard input until it ends.
///
/// # Errors
/// The other end of a pipe is closed, or a line is not a request.
pub fn run(libraries: &[PathBuf]) -> io::Result<()> {
    // A call that hangs would keep an orphan here, with the chips still open.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let messages = take_standard_output()?;
    serve(libraries, io::stdin().lock(), messages)
}

/// Standard output for messages alone: what the library prints goes to standard error.
fn take_standard_output() -> io::Result<File> {
    let own = io::stdout().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(io::stderr())?;
    Ok(File::from(own))
}

fn serve(libraries: &[PathBuf], requests: impl BufRead, mut messages: File) -> io::Result<()> {
    let mut send = |message: &AgentMessage| {
        messages.write_all(format!("{}\n", message_line(message)).as_bytes())
    };
    let (path, mut library) = match open_first(libraries) {
        Ok(opened) => opened,
        Err(tried) => return send(&AgentMessage::NotFound(tried)),
    };
    let unusable = |failure| AgentMessage::Unusable(path.clone(), failure);
    if let Err(code) = library.start() {
        return send(&unusable(CallFailure { call: IxmlCall::Init, code }));
    }
    send(&AgentMessage::Ready(path.clone()))?;
    let mut last_chips = None;
    for line in requests.lines() {
        let chips = parse_request(&line?).map_err(io::Error::other)?;
        match read_chips(&mut library, &chips, &mut last_chips) {
            Ok(readings) => send(&AgentMessage::Reading(readings))?,
            Err(failure) => return send(&unusable(failure)),
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

/// The library finds its devices when it is initialised and keeps them open. So it is initialised
/// again when the chips change.
fn read_chips(
    library: &mut Library,
    chips: &[PciAddress],
    last_chips: &mut Option<Vec<PciAddress>>,
) -> Result<BTreeMap<PciAddress, ChipReading>, CallFailure> {
    let is_changed = last_chips.as_deref().is_some_and(|before| before != chips);
    if is_changed {
        library.restart().map_err(|code| CallFailure { call: IxmlCall::Init, code })?;
    }
    *last_chips = Some(chips.to_vec());
    let devices = DeviceLookup { library, by_slot: OnceCell::new() };
    chips.iter().map(|chip| Ok((*chip, read_chip(&devices, *chip)?))).collect()
}

/// Everything that the library reports of one chip.
///
/// # Errors
/// The library as a whole cannot be used.
fn read_chip(devices: &DeviceLookup<'_>, chip: PciAddress) -> Result<ChipReading, CallFailure> {
    let mut failures = CallFailures::default();
    let mut reading = ChipReading::default();
    if let Some(device) = failures.note(IxmlCall::Handle, devices.find(chip)) {
        let library = devices.library;
        reading.health = failures.note(IxmlCall::Health, library.health(device));
        reading.ecc = failures.note(IxmlCall::Ecc, library.ecc(device));
        reading.temperature = failures.note(IxmlCall::Temperature, library.temperature(device));
    }
    match failures.worst {
        Some(failure) if failure.code.class() == CodeClass::Unusable => Err(failure),
        failure => Ok(ChipReading { failure, ..reading }),
    }
}

/// The most severe of several failures, the first among equals.
#[derive(Default)]
struct CallFailures {
    worst: Option<CallFailure>,
}

impl CallFailures {
    fn note<T>(&mut self, call: IxmlCall, result: Result<T, ReturnCode>) -> Option<T> {
        let code = match result {
            Ok(value) => return Some(value),
            Err(code) => code,
        };
        let noted = self.worst.map_or(CodeClass::Absent, |failure| failure.code.class());
        if code.class() > noted {
            self.worst = Some(CallFailure { call, code });
        }
        None
    }
}

/// The library's devices by PCI slot.
struct DeviceLookup<'library> {
    library: &'library Library,
    /// Listed only where the library cannot find a device by its address.
    by_slot: OnceCell<BTreeMap<SlotAddress, LibraryDevice<'library>>>,
}

impl<'library> DeviceLookup<'library> {
    /// # Errors
    /// `NOT_FOUND` where the library does not know the chip in any way.
    fn find(&self, chip: PciAddress) -> Result<LibraryDevice<'library>, ReturnCode> {
        match self.library.device_by_address(chip) {
            Err(code) if matches!(code.class(), CodeClass::Absent | CodeClass::Other) => {
                let listed = self.by_slot.get_or_init(|| list(self.library));
                listed.get(&chip.slot_address()).copied().ok_or(ReturnCode::NOT_FOUND)
            }
            other => other,
        }
    }
}

/// All devices with a known slot. A lost device may have none, and is then not found.
fn list(library: &Library) -> BTreeMap<SlotAddress, LibraryDevice<'_>> {
    let devices = (0..library.count().unwrap_or(0)).filter_map(|index| {
        let device = library.device_by_index(index).ok()?;
        Some((library.slot(device).ok()??, device))
    });
    devices.collect()
}
