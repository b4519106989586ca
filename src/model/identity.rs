//! The vendor's names of chips. /sys does not have them; they come from a file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::pci::PciAddress;

/// The vendor's name of a chip, as `ixsmi` prints it: `GPU-75401a56-2224-5257-8e2c-8f6dac7c37bc`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChipUuid(String);

/// A text that is not the UUID of a chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChipUuidError {
    text: String,
}

impl fmt::Display for ChipUuidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        write!(f, "`{text}` is not a UUID such as `GPU-75401a56-2224-5257-8e2c-8f6dac7c37bc`")
    }
}

impl std::error::Error for ChipUuidError {}

/// How many hexadecimal digits each group has.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

impl FromStr for ChipUuid {
    type Err = ChipUuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let groups = text.strip_prefix("GPU-").into_iter().flat_map(|rest| rest.split('-'));
        let is_hexadecimal = |group: &str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
        let lengths: Vec<_> =
            groups.map(|group| is_hexadecimal(group).then_some(group.len())).collect();
        if lengths == GROUPS.map(Some) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ChipUuidError { text: text.chars().take(80).collect() })
        }
    }
}

impl fmt::Display for ChipUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The UUIDs of chips, each chip and each UUID at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    /// By the chip's address.
    pub uuids: BTreeMap<PciAddress, ChipUuid>,
    /// Lines that name no chip or no UUID, each with its number.
    pub bad_lines: Vec<String>,
}

/// What the file at `discovery.identities` held when it was last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitiesReading {
    /// The file.
    pub path: PathBuf,
    /// Its content, or why there is none.
    pub result: Result<Identities, String>,
}
