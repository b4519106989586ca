//! What is refused before YAML is parsed, because parsing it takes too long.

use super::node::SyntaxError;

/// A `ConfigMap` holds at most 1 MiB.
const TEXT_LIMIT: usize = 1 << 20;

/// libyaml checks every open bracket for every token, which is quadratic: 1 MiB of `{a: ` takes
/// it minutes, with this limit a second. It counts all brackets, closed or not, as telling which
/// are closed would take a YAML parser.
const BRACKET_LIMIT: usize = 1024;

/// Refuses what is too large, has too many brackets, or has directives.
pub(super) fn check_text(text: &str) -> Result<(), SyntaxError> {
    if text.len() > TEXT_LIMIT {
        return Err(SyntaxError {
            line: None,
            message: format!("{} bytes are too many; a ConfigMap holds at most 1 MiB", text.len()),
        });
    }
    let brackets = text.bytes().filter(|byte| matches!(byte, b'[' | b'{'));
    if brackets.count() > BRACKET_LIMIT {
        return Err(SyntaxError {
            line: None,
            message: format!(
                "more than {BRACKET_LIMIT} opening brackets; write lists with `-` instead"
            ),
        });
    }
    // Each %TAG is compared with all before it, quadratic again; no configuration needs one.
    match text.lines().position(|line| line.starts_with('%')) {
        None => Ok(()),
        Some(index) => Err(SyntaxError {
            line: Some(index + 1),
            message: "a line that starts with `%` is a YAML directive; remove it".to_owned(),
        }),
    }
}
