//! Durations as people write them in the configuration: `500ms`, `30s`, `5m`.

use std::time::Duration;

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No unit, or one that is not known.
    #[error("`{0}` is not a duration; write a number and ms, s, m or h, such as 500ms, 30s, 5m")]
    Malformed(String),
    /// More milliseconds than 64 bits hold.
    #[error("`{0}` is longer than any clock runs; write a shorter one, such as 5m")]
    TooLong(String),
}

/// A whole number and its unit without a space between: `ms`, `s`, `m` or `h`.
///
/// Zero is `0s`: a bare number is refused, as its reader would have to guess the unit.
///
/// # Errors
/// Names the text, with examples of what would do.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(DurationError::Malformed(text.to_owned())),
    };
    if number.is_empty() {
        return Err(DurationError::Malformed(text.to_owned()));
    }
    number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(scale))
        .map(Duration::from_millis)
        .ok_or_else(|| DurationError::TooLong(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, millis: u64) {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
    }

    #[test]
    fn a_duration_is_a_number_and_its_unit() {
        check("500ms", 500);
        check("30s", 30_000);
        check("5m", 300_000);
        check("1h", 3_600_000);
        check("0s", 0);
        check("007s", 7_000);
    }

    #[test]
    fn a_duration_without_a_unit_is_refused_with_examples() {
        for text in ["", "5", "s", "5 s", "-5s", "1.5s", "5S", "5sec", "5m30s", "٣s"] {
            let error = parse_duration(text).unwrap_err().to_string();
            let rest =
                "is not a duration; write a number and ms, s, m or h, such as 500ms, 30s, 5m";
            assert_eq!(error, format!("`{text}` {rest}"));
        }
    }

    #[test]
    fn a_duration_beyond_64_bits_is_refused() {
        for text in ["99999999999999999999ms", "18446744073709551615h"] {
            let error = parse_duration(text).unwrap_err().to_string();
            let rest = "is longer than any clock runs; write a shorter one, such as 5m";
            assert_eq!(error, format!("`{text}` {rest}"));
        }
    }
}
