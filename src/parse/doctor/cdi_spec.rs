//! A CDI specification: its kind and the names of its devices.
//!
//! Source: cncf-tags/container-device-interface, SPEC.md. JSON is YAML, so one reader does.

use serde::Deserialize;

use crate::model::doctor::facts::CdiFileContent;

#[derive(Deserialize)]
struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<DeviceEntry>,
}

#[derive(Deserialize)]
struct DeviceEntry {
    name: String,
}

/// Reads a specification, as JSON or as YAML.
///
/// # Errors
/// The parser's error, in one line.
pub fn parse_cdi_spec(text: &str) -> Result<CdiFileContent, String> {
    let Spec { kind, devices } =
        serde_yaml::from_str(text).map_err(|error| one_line(&error.to_string()))?;
    Ok(CdiFileContent { kind, devices: devices.into_iter().map(|device| device.name).collect() })
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, kind: &str, devices: &[&str]) {
        let devices = devices.iter().map(ToString::to_string).collect();
        assert_eq!(parse_cdi_spec(text), Ok(CdiFileContent { kind: kind.to_owned(), devices }));
    }

    #[test]
    fn json_and_yaml_are_both_read() {
        check(
            r#"{"cdiVersion": "0.5.0", "kind": "iluvatar.com/gpu", "devices": [{"name": "0"}]}"#,
            "iluvatar.com/gpu",
            &["0"],
        );
        check(
            "cdiVersion: 0.5.0\nkind: iluvatar.com/gpu\ndevices:\n- name: \"0\"\n- name: all\n",
            "iluvatar.com/gpu",
            &["0", "all"],
        );
        check("kind: a.b/c\n", "a.b/c", &[]);
    }

    #[test]
    fn what_is_no_specification_is_refused_with_the_reason() {
        let error = parse_cdi_spec("devices: []\n").unwrap_err();
        assert!(error.contains("kind"), "{error}");
        assert!(!error.contains('\n'), "{error}");
        assert!(parse_cdi_spec("\0").is_err());
    }
}
