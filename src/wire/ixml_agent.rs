//! The protocol of the daemon and its agent, the child process that loads libixml: one JSON value a
//! line. The daemon validates every line, because the agent shares its memory with a foreign library.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::ixml::{CallFailure, ChipReading, TriedLibrary, serialize_path};
use crate::model::pci::PciAddress;

/// The longest line of either side, in bytes; sixteen chips need two thousand.
pub const LINE_LIMIT: usize = 256 * 1024;

/// A message of the agent. The first is one of the first three; then one [`AgentMessage::Reading`]
/// follows for each request. After [`AgentMessage::NotFound`] and [`AgentMessage::Unusable`] the
/// agent exits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AgentMessage {
    /// This library is loaded and initialised.
    Ready(#[serde(serialize_with = "serialize_path")] PathBuf),
    /// No library could be loaded.
    NotFound(Vec<TriedLibrary>),
    /// The library cannot be used.
    Unusable(#[serde(serialize_with = "serialize_path")] PathBuf, CallFailure),
    /// The reading of every chip of the request.
    Reading(BTreeMap<PciAddress, ChipReading>),
}

/// A line that is not JSON, or JSON of another shape.
#[derive(Debug, Error)]
#[error("not a line of this version: {0}")]
pub struct MalformedLine(#[from] serde_json::Error);

/// The request for these chips, without the end of the line.
#[must_use]
pub fn request_line(chips: &[PciAddress]) -> String {
    serde_json::json!(chips).to_string()
}

/// The chips of a request.
///
/// # Errors
/// [`MalformedLine`]
pub fn parse_request(line: &str) -> Result<Vec<PciAddress>, MalformedLine> {
    Ok(serde_json::from_str(line)?)
}

/// The message, without the end of the line.
#[must_use]
pub fn message_line(message: &AgentMessage) -> String {
    serde_json::json!(message).to_string()
}

/// The message of a line.
///
/// # Errors
/// [`MalformedLine`]
pub fn parse_message(line: &str) -> Result<AgentMessage, MalformedLine> {
    Ok(serde_json::from_str(line)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ixml::{EccErrors, HealthBits, IxmlCall, ReturnCode};
    use proptest::prelude::*;

    const CALLS: [IxmlCall; 5] =
        [IxmlCall::Init, IxmlCall::Handle, IxmlCall::Health, IxmlCall::Ecc, IxmlCall::Temperature];

    fn address() -> impl Strategy<Value = PciAddress> {
        (any::<u32>(), any::<u8>(), 0u8..32, 0u8..8).prop_map(|(domain, bus, device, function)| {
            PciAddress { domain, bus, device, function }
        })
    }

    fn failure() -> impl Strategy<Value = CallFailure> {
        (prop::sample::select(CALLS.to_vec()), any::<i32>())
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

    fn message() -> impl Strategy<Value = AgentMessage> {
        let tried = (".*", ".*")
            .prop_map(|(path, error): (String, String)| TriedLibrary { path: path.into(), error });
        prop_oneof![
            ".*".prop_map(|path: String| AgentMessage::Ready(path.into())),
            prop::collection::vec(tried, 0..3).prop_map(AgentMessage::NotFound),
            (".*", failure()).prop_map(|(path, failure): (String, _)| AgentMessage::Unusable(
                path.into(),
                failure
            )),
            prop::collection::btree_map(address(), reading(), 0..4).prop_map(AgentMessage::Reading),
        ]
    }

    #[test]
    fn a_line_is_json_that_a_person_can_read() {
        let chip: PciAddress = "0000:13:00.0".parse().unwrap();
        assert_eq!(request_line(&[chip]), r#"["0000:13:00.0"]"#);
        let lost = CallFailure { call: IxmlCall::Health, code: ReturnCode(15) };
        let reading =
            ChipReading { temperature: Some(45), failure: Some(lost), ..ChipReading::default() };
        assert_eq!(
            message_line(&AgentMessage::Reading([(chip, reading)].into())),
            r#"{"reading":{"0000:13:00.0":{"temperature":45,"failure":{"call":"health","code":15}}}}"#
        );
    }

    #[test]
    fn a_line_of_another_shape_is_refused_with_what_is_wrong_in_it() {
        let check = |line: &str, expected: &str| {
            assert_eq!(parse_message(line).unwrap_err().to_string(), expected);
        };
        check(
            r#"{"reading":{"13:00.0":{}}}"#,
            "not a line of this version: `13:00.0` is not a PCI address such as `0000:13:00.0` at \
             line 1 column 21",
        );
        check(
            r#"{"unusable":["x",{"call":"shutdown","code":1}]}"#,
            "not a line of this version: unknown variant `shutdown`, expected one of `init`, \
             `handle`, `health`, `ecc`, `temperature` at line 1 column 35",
        );
        check("", "not a line of this version: EOF while parsing a value at line 1 column 0");
    }

    proptest! {
        #[test]
        fn every_message_reads_back(message in message()) {
            let line = message_line(&message);
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(parse_message(&line).unwrap(), message);
        }

        #[test]
        fn every_request_reads_back(chips in prop::collection::vec(address(), 0..40)) {
            let line = request_line(&chips);
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(parse_request(&line).unwrap(), chips);
        }

        #[test]
        fn no_line_makes_either_side_panic(line in ".*") {
            let _ = (parse_message(&line), parse_request(&line));
        }

        #[test]
        fn no_damaged_line_makes_either_side_panic(
            message in message(), at: prop::sample::Index, to in any::<char>()
        ) {
            let mut line: Vec<char> = message_line(&message).chars().collect();
            let at = at.index(line.len());
            line[at] = to;
            let line = String::from_iter(line);
            let _ = (parse_message(&line), parse_request(&line));
        }
    }
}
