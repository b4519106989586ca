//! Booleans in environment variables, spelt as the replaced plugin took them.

/// A text that is not a boolean. The caller names the variable and its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a boolean; write true or false")]
pub struct EnvBoolError;

/// The spellings of Go's `strconv.ParseBool`, which is what manifests in use rely on; an empty
/// variable is false, as it is there.
///
/// # Errors
/// Any other spelling.
pub fn parse_env_bool(text: &str) -> Result<bool, EnvBoolError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" | "" => Ok(false),
        _ => Err(EnvBoolError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_boolean_has_the_spellings_of_go() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(parse_env_bool(text), Ok(true), "{text}");
        }
        for text in ["0", "f", "F", "FALSE", "false", "False", ""] {
            assert_eq!(parse_env_bool(text), Ok(false), "{text}");
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in ["yes", "on", "tRUE", " true", "2"] {
            assert_eq!(parse_env_bool(text), Err(EnvBoolError), "{text}");
        }
    }
}
