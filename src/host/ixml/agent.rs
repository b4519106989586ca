//! The agent: loads the library, answers one request after the other, ends when its input does or
//! its parent dies. It judges nothing and remembers nothing but which chips it was asked about.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::library::{Device, Library};
use crate::model::ixml::{Call, CallFailure, ChipReading, CodeClass, ReturnCode, TriedLibrary};
use crate::model::pci::{PciAddress, SlotAddress};
use crate::wire::ixml_agent::{Answer, answer_line, parse_request};

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
    let mut say =
        |answer: &Answer| answers.write_all(format!("{}\n", answer_line(answer)).as_bytes());
    let (path, mut library) = match open_first(libraries) {
        Ok(opened) => opened,
        Err(tried) => return say(&Answer::NotFound(tried)),
    };
    let unusable = |failure| Answer::Unusable(path.clone(), failure);
    if let Err(code) = library.start() {
        return say(&unusable(CallFailure { call: Call::Init, code }));
    }
    say(&Answer::Ready(path.clone()))?;
    let mut asked_before = None;
    for line in requests.lines() {
        let chips = parse_request(&line?).map_err(io::Error::other)?;
        match read_anew(&mut library, &chips, &mut asked_before) {
            Ok(readings) => say(&Answer::Reading(readings))?,
            Err(failure) => return say(&unusable(failure)),
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
fn read_anew(
    library: &mut Library,
    chips: &[PciAddress],
    asked_before: &mut Option<Vec<PciAddress>>,
) -> Result<BTreeMap<PciAddress, ChipReading>, CallFailure> {
    let is_changed = asked_before.as_deref().is_some_and(|before| before != chips);
    if is_changed {
        library.restart().map_err(|code| CallFailure { call: Call::Init, code })?;
    }
    *asked_before = Some(chips.to_vec());
    let devices = Devices { library, by_place: OnceCell::new() };
    chips.iter().map(|chip| Ok((*chip, read_chip(&devices, *chip)?))).collect()
}

/// Everything that the library says of one chip.
///
/// # Errors
/// The library as a whole is of no use.
fn read_chip(devices: &Devices<'_>, chip: PciAddress) -> Result<ChipReading, CallFailure> {
    let mut refusals = Refusals::default();
    let mut reading = ChipReading::default();
    if let Some(device) = refusals.note(Call::Handle, devices.find(chip)) {
        let library = devices.library;
        reading.health = refusals.note(Call::Health, library.health(device));
        reading.ecc = refusals.note(Call::Ecc, library.ecc(device));
        reading.temperature = refusals.note(Call::Temperature, library.temperature(device));
    }
    match refusals.gravest {
        Some(failure) if failure.code.class() == CodeClass::Unusable => Err(failure),
        failure => Ok(ChipReading { failure, ..reading }),
    }
}

/// The gravest of several refusals, the first among equals.
#[derive(Default)]
struct Refusals {
    gravest: Option<CallFailure>,
}

impl Refusals {
    fn note<T>(&mut self, call: Call, result: Result<T, ReturnCode>) -> Option<T> {
        let code = match result {
            Ok(value) => return Some(value),
            Err(code) => code,
        };
        let noted = self.gravest.map_or(CodeClass::Absent, |failure| failure.code.class());
        if code.class() > noted {
            self.gravest = Some(CallFailure { call, code });
        }
        None
    }
}

/// The library's devices by where they sit.
struct Devices<'library> {
    library: &'library Library,
    /// Made only where the library cannot find a device by its address.
    by_place: OnceCell<BTreeMap<SlotAddress, Device<'library>>>,
}

impl<'library> Devices<'library> {
    /// # Errors
    /// `NOT_FOUND` where the library does not know the chip in any way.
    fn find(&self, chip: PciAddress) -> Result<Device<'library>, ReturnCode> {
        match self.library.device_by_address(chip) {
            Err(code) if matches!(code.class(), CodeClass::Absent | CodeClass::Other) => {
                let listed = self.by_place.get_or_init(|| list(self.library));
                listed.get(&chip.slot_address()).copied().ok_or(ReturnCode::NOT_FOUND)
            }
            other => other,
        }
    }
}

/// All devices that say where they sit. One that is lost may not, and is then not found.
fn list(library: &Library) -> BTreeMap<SlotAddress, Device<'_>> {
    let devices = (0..library.count().unwrap_or(0)).filter_map(|index| {
        let device = library.device_by_index(index).ok()?;
        Some((library.place(device).ok()??, device))
    });
    devices.collect()
}
