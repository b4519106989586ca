//! `discover -o yaml`: the shape of `-o json`, safe for readers of YAML 1.1.

use serde::Serialize;

use crate::model::device::DeviceId;

/// The document as YAML.
///
/// # Errors
/// The error of the serializer.
pub fn yaml(document: &impl Serialize) -> serde_yaml::Result<String> {
    let text = serde_yaml::to_string(document)?;
    Ok(text.lines().map(|line| quote_address(line) + "\n").collect())
}

/// YAML 1.1 takes `0000:41:00.0` for a number to the base of 60, and many readers still speak it;
/// the serializer knows only YAML 1.2, where that is text.
fn quote_address(line: &str) -> String {
    let value = line.rsplit([' ']).next().unwrap_or_default();
    let before = line.strip_suffix(value).unwrap_or_default();
    let is_whole_value = before.ends_with(": ") || before.trim_start() == "- ";
    if is_whole_value && value.parse::<DeviceId>().is_ok() {
        return format!("{before}'{value}'");
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        assert_eq!(quote_address(line), expected);
    }

    #[test]
    fn an_address_is_quoted_for_readers_that_would_take_it_for_a_number() {
        check("- id: 0000:41:00.0", "- id: '0000:41:00.0'");
        check("  - 0000:41:00.0", "  - '0000:41:00.0'");
        check("  - id: 0000:41:00.0::3", "  - id: '0000:41:00.0::3'");
        check(
            "  reason: virtual function of 0000:41:00.0",
            "  reason: virtual function of 0000:41:00.0",
        );
        check("  - 0000:41:00.0 is bound to no driver", "  - 0000:41:00.0 is bound to no driver");
        check("boards:", "boards:");
        check("", "");
    }
}
