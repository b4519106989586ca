//! Files that keep state across restarts: a line with a name and a checksum, then JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Why a text is not such a file.
#[derive(Debug, Error)]
pub enum StateFileError {
    /// Another file, or one of another version.
    #[error("it does not begin with `{0}`")]
    Unknown(&'static str),
    /// Truncated or changed.
    #[error("its checksum is {actual:08x}, but its header has {expected}")]
    Damaged {
        /// The checksum of the JSON.
        actual: u32,
        /// The checksum in the header.
        expected: String,
    },
    /// The checksum is right, but the JSON is not what this version writes.
    #[error("its content is invalid: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Parses what [`write_state`] wrote under one of these headers.
///
/// # Errors
/// [`StateFileError`], which names the first header; such a text is refused as a whole.
pub(super) fn parse_state<T: DeserializeOwned>(
    text: &str,
    headers: &[&'static str],
) -> Result<T, StateFileError> {
    let unknown = || StateFileError::Unknown(headers.first().copied().unwrap_or_default());
    let (first, body) = text.split_once('\n').ok_or_else(unknown)?;
    let rest = headers.iter().find_map(|header| first.strip_prefix(header));
    let expected = rest.and_then(|rest| rest.strip_prefix(' ')).ok_or_else(unknown)?;
    let actual = crc32fast::hash(body.as_bytes());
    if expected != format!("{actual:08x}") {
        return Err(StateFileError::Damaged { actual, expected: expected.to_owned() });
    }
    Ok(serde_json::from_str(body)?)
}

/// Writes a text that [`parse_state`] parses. The state is made of maps, lists and texts.
pub(super) fn write_state(header: &str, state: &impl Serialize) -> String {
    let body = serde_json::to_string_pretty(state).expect("maps of strings always serialise");
    let body = body + "\n";
    format!("{header} {:08x}\n{body}", crc32fast::hash(body.as_bytes()))
}
