//! The protocol between the daemon and its agent, the child process that has libixml loaded: one
//! JSON value a line. The daemon believes nothing of it unread: the agent shares its memory with a
//! foreign library.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::ixml::{
    CallFailure, ChipReading, EccErrors, HealthBits, LibraryCall, ReturnCode, TriedLibrary,
};
use crate::model::pci::PciAddress;

/// The longest line of either side, in bytes; sixteen chips need two thousand.
pub const LONGEST_LINE: usize = 256 * 1024;

/// A reply of the agent. First one of the first three, then a [`AgentReply::Reading`] for each request;
/// after [`AgentReply::NotFound`] and [`AgentReply::Unusable`] it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentReply {
    /// This library is loaded and ready.
    Ready(PathBuf),
    /// No library could be loaded.
    NotFound(Vec<TriedLibrary>),
    /// The library is of no use.
    Unusable(PathBuf, CallFailure),
    /// What it reports of every requested chip.
    Reading(BTreeMap<PciAddress, ChipReading>),
}

/// A line that neither side would write.
#[derive(Debug, Error)]
pub enum LineError {
    /// Not JSON, or JSON of another shape.
    #[error("not a line of this version: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A text where an address belongs.
    #[error("`{0}` is not a PCI address")]
    BadAddress(String),
    /// A call that is none of ours.
    #[error("`{0}` is not a call of the library")]
    BadCall(String),
}

/// The request for these chips, without the end of the line.
#[must_use]
pub fn request_line(chips: &[PciAddress]) -> String {
    let chips: Vec<_> = chips.iter().map(ToString::to_string).collect();
    serde_json::Value::from(chips).to_string()
}

/// The requested chips.
///
/// # Errors
/// [`LineError`]
pub fn parse_request(line: &str) -> Result<Vec<PciAddress>, LineError> {
    let chips: Vec<String> = serde_json::from_str(line)?;
    chips.into_iter().map(parse_address).collect()
}

/// The answer, without the end of the line.
#[must_use]
pub fn reply_line(answer: &AgentReply) -> String {
    serde_json::json!(AnswerRecord::from(answer.clone())).to_string()
}

/// The reply of the agent.
///
/// # Errors
/// [`LineError`]
pub fn parse_reply(line: &str) -> Result<AgentReply, LineError> {
    serde_json::from_str::<AnswerRecord>(line)?.try_into()
}

fn parse_address(text: String) -> Result<PciAddress, LineError> {
    text.parse().map_err(|_| LineError::BadAddress(text))
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum AnswerRecord {
    Ready(String),
    NotFound(Vec<TriedRecord>),
    Unusable { library: String, failure: FailureRecord },
    Reading(BTreeMap<String, ChipRecord>),
}

#[derive(Deserialize, Serialize)]
struct TriedRecord {
    path: String,
    error: String,
}

#[derive(Deserialize, Serialize)]
struct FailureRecord {
    call: String,
    code: i32,
}

#[derive(Deserialize, Serialize)]
struct ChipRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<u64>,
    /// Single, double.
    #[serde(skip_serializing_if = "Option::is_none")]
    ecc: Option<[u32; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureRecord>,
}

impl From<AgentReply> for AnswerRecord {
    fn from(answer: AgentReply) -> Self {
        // A path that is no UTF-8 is spelt with replacement characters: it is only shown.
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        match answer {
            AgentReply::Ready(library) => Self::Ready(text(library)),
            AgentReply::NotFound(tried) => Self::NotFound(
                tried
                    .into_iter()
                    .map(|tried| TriedRecord { path: text(tried.path), error: tried.error })
                    .collect(),
            ),
            AgentReply::Unusable(library, failure) => {
                Self::Unusable { library: text(library), failure: failure.into() }
            }
            AgentReply::Reading(chips) => Self::Reading(
                chips
                    .into_iter()
                    .map(|(chip, reading)| (chip.to_string(), reading.into()))
                    .collect(),
            ),
        }
    }
}

impl TryFrom<AnswerRecord> for AgentReply {
    type Error = LineError;

    fn try_from(record: AnswerRecord) -> Result<Self, LineError> {
        Ok(match record {
            AnswerRecord::Ready(library) => Self::Ready(library.into()),
            AnswerRecord::NotFound(tried) => Self::NotFound(
                tried
                    .into_iter()
                    .map(|tried| TriedLibrary { path: tried.path.into(), error: tried.error })
                    .collect(),
            ),
            AnswerRecord::Unusable { library, failure } => {
                Self::Unusable(library.into(), failure.try_into()?)
            }
            AnswerRecord::Reading(chips) => Self::Reading(
                chips
                    .into_iter()
                    .map(|(chip, record)| Ok((parse_address(chip)?, record.try_into()?)))
                    .collect::<Result<_, LineError>>()?,
            ),
        })
    }
}

impl From<CallFailure> for FailureRecord {
    fn from(failure: CallFailure) -> Self {
        Self { call: failure.call.name().to_owned(), code: failure.code.0 }
    }
}

impl TryFrom<FailureRecord> for CallFailure {
    type Error = LineError;

    fn try_from(record: FailureRecord) -> Result<Self, LineError> {
        let call = LibraryCall::ALL.into_iter().find(|call| call.name() == record.call);
        let call = call.ok_or(LineError::BadCall(record.call))?;
        Ok(Self { call, code: ReturnCode(record.code) })
    }
}

impl From<ChipReading> for ChipRecord {
    fn from(reading: ChipReading) -> Self {
        Self {
            health: reading.health.map(|bits| bits.0),
            ecc: reading.ecc.map(|errors| [errors.single, errors.double]),
            temperature: reading.temperature,
            failure: reading.failure.map(Into::into),
        }
    }
}

impl TryFrom<ChipRecord> for ChipReading {
    type Error = LineError;

    fn try_from(record: ChipRecord) -> Result<Self, LineError> {
        Ok(Self {
            health: record.health.map(HealthBits),
            ecc: record.ecc.map(|[single, double]| EccErrors { single, double }),
            temperature: record.temperature,
            failure: record.failure.map(TryInto::try_into).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> impl Strategy<Value = PciAddress> {
        (any::<u32>(), any::<u8>(), 0u8..32, 0u8..8).prop_map(|(domain, bus, device, function)| {
            PciAddress { domain, bus, device, function }
        })
    }

    fn failure() -> impl Strategy<Value = CallFailure> {
        (prop::sample::select(LibraryCall::ALL.to_vec()), any::<i32>())
            .prop_map(|(call, code)| CallFailure { call, code: ReturnCode(code) })
    }

    fn reading() -> impl Strategy<Value = ChipReading> {
        let ecc = prop::option::of((any::<u32>(), any::<u32>()));
        (any::<Option<u64>>(), ecc, any::<Option<u32>>(), prop::option::of(failure())).prop_map(
            |(health, ecc, temperature, failure)| ChipReading {
                health: health.map(HealthBits),
                ecc: ecc.map(|(single, double)| EccErrors { single, double }),
                temperature,
                failure,
            },
        )
    }

    fn answer() -> impl Strategy<Value = AgentReply> {
        let tried = (".*", ".*")
            .prop_map(|(path, error): (String, String)| TriedLibrary { path: path.into(), error });
        prop_oneof![
            ".*".prop_map(|path: String| AgentReply::Ready(path.into())),
            prop::collection::vec(tried, 0..3).prop_map(AgentReply::NotFound),
            (".*", failure()).prop_map(|(path, failure): (String, _)| AgentReply::Unusable(
                path.into(),
                failure
            )),
            prop::collection::btree_map(address(), reading(), 0..4).prop_map(AgentReply::Reading),
        ]
    }

    #[test]
    fn a_line_is_json_that_a_person_can_read() {
        let chip: PciAddress = "0000:13:00.0".parse().unwrap();
        assert_eq!(request_line(&[chip]), r#"["0000:13:00.0"]"#);
        let lost = CallFailure { call: LibraryCall::Health, code: ReturnCode(15) };
        let reading =
            ChipReading { temperature: Some(45), failure: Some(lost), ..ChipReading::default() };
        assert_eq!(
            reply_line(&AgentReply::Reading([(chip, reading)].into())),
            r#"{"reading":{"0000:13:00.0":{"temperature":45,"failure":{"call":"ixmlDeviceGetHealth","code":15}}}}"#
        );
    }

    #[test]
    fn a_line_of_another_shape_is_refused_with_what_is_wrong_in_it() {
        let check = |line: &str, expected: &str| {
            assert_eq!(parse_reply(line).unwrap_err().to_string(), expected);
        };
        check(r#"{"reading":{"13:00.0":{}}}"#, "`13:00.0` is not a PCI address");
        check(
            r#"{"unusable":{"library":"x","failure":{"call":"nvmlShutdown","code":1}}}"#,
            "`nvmlShutdown` is not a call of the library",
        );
        check("", "not a line of this version: EOF while parsing a value at line 1 column 0");
    }

    proptest! {
        #[test]
        fn every_answer_reads_back(answer in answer()) {
            let line = reply_line(&answer);
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(parse_reply(&line).unwrap(), answer);
        }

        #[test]
        fn every_request_reads_back(chips in prop::collection::vec(address(), 0..40)) {
            let line = request_line(&chips);
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(parse_request(&line).unwrap(), chips);
        }

        #[test]
        fn no_line_makes_either_side_panic(line in ".*") {
            let _ = (parse_reply(&line), parse_request(&line));
        }

        #[test]
        fn no_damaged_line_makes_either_side_panic(
            answer in answer(), at: prop::sample::Index, to in any::<char>()
        ) {
            let mut line: Vec<char> = reply_line(&answer).chars().collect();
            let at = at.index(line.len());
            line[at] = to;
            let line = String::from_iter(line);
            let _ = (parse_reply(&line), parse_request(&line));
        }
    }
}
