//! What the vendor's library libixml reports of chips: health bits, counters, and failed calls. It is
//! a source of health alone; which chips exist, and their names, come from /sys.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize, Serializer};

use super::pci::PciAddress;

/// Which library to load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IxmlChoice {
    /// None.
    Off,
    /// The first that loads of the usual places.
    #[default]
    Auto,
    /// This one alone.
    Path(PathBuf),
}

/// The state of the source, and its last reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IxmlState {
    /// The configuration does not use it.
    Off,
    /// No library could be loaded; what was tried, in order.
    NotFound(Arc<[TriedLibrary]>),
    /// It answered the last request.
    Reading(Arc<IxmlReading>),
    /// It does not answer the last request.
    Stalled {
        /// When the first request without an answer was sent.
        since: Instant,
        /// The last reading.
        last: Option<Arc<IxmlReading>>,
    },
    /// It cannot be used, for this reason; retried with a growing delay.
    Unusable(String),
}

/// A library that did not load.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct TriedLibrary {
    /// As it was given to the dynamic loader.
    #[serde(serialize_with = "serialize_path")]
    pub path: PathBuf,
    /// The loader's message. It names the missing file, which may be a dependency.
    pub error: String,
}

/// Writes a path that is only shown; what is not UTF-8 becomes replacement characters.
///
/// # Errors
/// As the serializer.
pub fn serialize_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

impl fmt::Display for TriedLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The loader begins most of its errors with the path.
        let path = self.path.display().to_string();
        match self.error.strip_prefix(&path) {
            Some(_) => f.write_str(&self.error),
            None => write!(f, "{path}: {}", self.error),
        }
    }
}

impl fmt::Display for IxmlState {
    /// A sentence for logs; the same as long as nothing changed that an operator would care about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("libixml is off"),
            Self::NotFound(tried) => {
                let tried: Vec<_> = tried.iter().map(ToString::to_string).collect();
                write!(f, "libixml could not be loaded, tried: {}", tried.join("; "))
            }
            Self::Reading(reading) => write!(f, "{} answers", reading.library.display()),
            Self::Stalled { last: Some(_), .. } => {
                f.write_str("libixml does not answer; its last reading stays valid")
            }
            Self::Stalled { last: None, .. } => f.write_str("libixml does not answer"),
            Self::Unusable(reason) => write!(f, "libixml cannot be used: {reason}"),
        }
    }
}

/// One reading of all chips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IxmlReading {
    /// The library that was loaded, as it was given to the dynamic loader.
    pub library: PathBuf,
    /// Every chip of the request.
    pub chips: BTreeMap<PciAddress, ChipReading>,
}

/// What the library reports of one chip. A counter that it lacks, or that could not be read, is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct ChipReading {
    /// `ixmlDeviceGetHealth`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthBits>,
    /// `ixmlDeviceGetEccErros`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc: Option<EccErrors>,
    /// `nvmlDeviceGetTemperature`, of the chip, in degrees Celsius.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<u32>,
    /// The most severe failure of the calls. A counter that this library or chip does not have is no
    /// failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<CallFailure>,
}

/// What `ixmlDeviceGetHealth` reports: one bit for each failed part.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize,
)]
#[serde(transparent)]
pub struct HealthBits(pub u64);

impl HealthBits {
    /// Known bits and their names, as the library's header has them.
    pub const NAMES: [(u64, &'static str); 7] = [
        (0x01, "SYSHUB"),
        (0x02, "MC"),
        (Self::OVER_TEMPERATURE, "OVER_TEMPERATURE"),
        (0x08, "OVER_VOLTAGE"),
        (0x10, "ECC"),
        (0x20, "MEMORY"),
        (0x40, "PCIE"),
    ];

    /// Too hot.
    pub const OVER_TEMPERATURE: u64 = 0x04;

    /// True without any bit, known or not.
    #[must_use]
    pub fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// The bits that are set, one by one from the lowest, each with its name if it has one.
    pub fn set_bits(self) -> impl Iterator<Item = (u64, Option<&'static str>)> {
        let name = |bit| Self::NAMES.iter().find(|(known, _)| *known == bit).map(|(_, name)| *name);
        (0..u64::BITS)
            .map(|shift| 1 << shift)
            .filter(move |bit| self.0 & bit != 0)
            .map(move |bit| (bit, name(bit)))
    }
}

impl fmt::Display for HealthBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ok() {
            return f.pad("OK");
        }
        let words =
            self.set_bits().map(|(bit, name)| name.map_or(format!("{bit:#x}"), str::to_owned));
        f.pad(&words.collect::<Vec<_>>().join(", "))
    }
}

/// Errors that the chip's memory corrected (single bit) and could not correct (double bit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct EccErrors {
    /// Corrected.
    pub single: u32,
    /// Not corrected.
    pub double: u32,
}

/// A call of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum IxmlCall {
    /// Initialise.
    Init,
    /// Find the handle of a chip.
    Handle,
    /// Read the health bits.
    Health,
    /// Read the ECC counters.
    Ecc,
    /// Read the temperature.
    Temperature,
}

impl IxmlCall {
    /// The library's own name for it, without the version that some have.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "nvmlInit",
            Self::Handle => "nvmlDeviceGetHandleByPciBusId",
            Self::Health => "ixmlDeviceGetHealth",
            // The header spells it so.
            Self::Ecc => "ixmlDeviceGetEccErros",
            Self::Temperature => "nvmlDeviceGetTemperature",
        }
    }
}

/// A call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct CallFailure {
    /// Which call.
    pub call: IxmlCall,
    /// What it returned.
    pub code: ReturnCode,
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, code } = self;
        write!(f, "{} answered {code}", call.name())
    }
}

/// What a call returned, as the library numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub struct ReturnCode(pub i32);

/// What a return code means for health; the most severe last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CodeClass {
    /// No failure.
    Success,
    /// This library or chip does not support the call.
    Absent,
    /// Unrelated to health: an argument, a permission, a chip that the library does not know.
    Other,
    /// May pass by itself; counts only several times in a row.
    Transient,
    /// The chip is lost.
    Fatal,
    /// The library itself cannot work: a fault of the installation, not of a chip.
    Unusable,
}

impl ReturnCode {
    /// Success.
    pub const SUCCESS: Self = Self(0);
    /// The chip does not have it.
    pub const NOT_SUPPORTED: Self = Self(3);
    /// Initialised before; as good as success.
    pub const ALREADY_INITIALIZED: Self = Self(5);
    /// The chip must be reset.
    pub const RESET_REQUIRED: Self = Self(16);
    /// The library does not know the chip.
    pub const NOT_FOUND: Self = Self(6);
    /// The library does not have the function.
    pub const FUNCTION_NOT_FOUND: Self = Self(13);

    const NAMES: [&'static str; 27] = [
        "SUCCESS",
        "UNINITIALIZED",
        "INVALID_ARGUMENT",
        "NOT_SUPPORTED",
        "NO_PERMISSION",
        "ALREADY_INITIALIZED",
        "NOT_FOUND",
        "INSUFFICIENT_SIZE",
        "INSUFFICIENT_POWER",
        "DRIVER_NOT_LOADED",
        "TIMEOUT",
        "IRQ_ISSUE",
        "LIBRARY_NOT_FOUND",
        "FUNCTION_NOT_FOUND",
        "CORRUPTED_INFOROM",
        "GPU_IS_LOST",
        "RESET_REQUIRED",
        "OPERATING_SYSTEM",
        "LIB_RM_VERSION_MISMATCH",
        "IN_USE",
        "MEMORY",
        "NO_DATA",
        "VGPU_ECC_NOT_SUPPORTED",
        "INSUFFICIENT_RESOURCES",
        "FREQ_NOT_SUPPORTED",
        "ARGUMENT_VERSION_MISMATCH",
        "DEPRECATED",
    ];

    /// The header's name without its prefix; none for a number that the header does not have.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self.0 {
            999 => Some("UNKNOWN"),
            code => Self::NAMES.get(usize::try_from(code).ok()?).copied(),
        }
    }

    /// What it means for health.
    #[must_use]
    pub fn class(self) -> CodeClass {
        match self.0 {
            0 => CodeClass::Success,
            3 | 13 => CodeClass::Absent,
            10 | 11 | 17 | 19 | 999 => CodeClass::Transient,
            15 | 16 => CodeClass::Fatal,
            1 | 9 | 18 => CodeClass::Unusable,
            _ => CodeClass::Other,
        }
    }

    /// What an operator can do about it, where that is known.
    #[must_use]
    pub fn remedy(self) -> Option<&'static str> {
        match self.0 {
            9 => Some("load the kernel driver"),
            18 => Some("mount the library of the driver that this host runs"),
            _ => None,
        }
    }

    /// Success, or the code as an error.
    ///
    /// # Errors
    /// Every code but 0.
    pub fn check(self) -> Result<(), Self> {
        if self == Self::SUCCESS { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for ReturnCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "the unknown code {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_code(code: i32, text: &str, class: CodeClass) {
        let code = ReturnCode(code);
        assert_eq!((code.to_string().as_str(), code.class()), (text, class));
    }

    #[test]
    fn a_return_code_has_its_name_and_its_meaning() {
        check_code(0, "SUCCESS (0)", CodeClass::Success);
        check_code(1, "UNINITIALIZED (1)", CodeClass::Unusable);
        check_code(3, "NOT_SUPPORTED (3)", CodeClass::Absent);
        check_code(6, "NOT_FOUND (6)", CodeClass::Other);
        check_code(9, "DRIVER_NOT_LOADED (9)", CodeClass::Unusable);
        check_code(10, "TIMEOUT (10)", CodeClass::Transient);
        check_code(11, "IRQ_ISSUE (11)", CodeClass::Transient);
        check_code(13, "FUNCTION_NOT_FOUND (13)", CodeClass::Absent);
        check_code(15, "GPU_IS_LOST (15)", CodeClass::Fatal);
        check_code(16, "RESET_REQUIRED (16)", CodeClass::Fatal);
        check_code(17, "OPERATING_SYSTEM (17)", CodeClass::Transient);
        check_code(18, "LIB_RM_VERSION_MISMATCH (18)", CodeClass::Unusable);
        check_code(19, "IN_USE (19)", CodeClass::Transient);
        check_code(26, "DEPRECATED (26)", CodeClass::Other);
        check_code(27, "the unknown code 27", CodeClass::Other);
        check_code(-1, "the unknown code -1", CodeClass::Other);
        check_code(999, "UNKNOWN (999)", CodeClass::Transient);
    }

    #[test]
    fn health_bits_are_spelt_out_unknown_ones_included() {
        assert_eq!(HealthBits(0).to_string(), "OK");
        assert_eq!(HealthBits(0x11).to_string(), "SYSHUB, ECC");
        assert_eq!(
            HealthBits(0x7f).to_string(),
            "SYSHUB, MC, OVER_TEMPERATURE, OVER_VOLTAGE, ECC, MEMORY, PCIE"
        );
        assert_eq!(HealthBits(1 << 63 | 0x40).to_string(), "PCIE, 0x8000000000000000");
    }

    #[test]
    fn the_state_is_a_sentence_that_names_each_path_once_with_the_loaders_message() {
        let tried =
            |path: &str, error: &str| TriedLibrary { path: path.into(), error: error.to_owned() };
        let state = IxmlState::NotFound(Arc::new([
            tried("/a/libixml.so", "/a/libixml.so: cannot open shared object file"),
            tried("/b/libixml.so", "libixthunk.so: cannot open shared object file"),
        ]));
        assert_eq!(
            state.to_string(),
            "libixml could not be loaded, tried: /a/libixml.so: cannot open shared object file; \
             /b/libixml.so: libixthunk.so: cannot open shared object file"
        );
    }
}
