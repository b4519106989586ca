//! The CDI spec as JSON, in the specification's lowest version that has what we use: 0.5.0 let
//! names begin with a digit. Runtimes refuse a version that they do not know, so every step less
//! is a runtime more; annotations, for one, would cost 0.6.0.
//!
//! Nodes are given by path alone. The runtime looks up their numbers when it makes the container,
//! so no number in the file can be outdated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::cdi::{CdiName, CdiSpec, KIND};

const VERSION: &str = "0.5.0";

/// Never `m`: a container has no need to make nodes. Without the field a runtime takes `rwm`.
const PERMISSIONS: &str = "rw";

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TypedSpec {
    cdi_version: String,
    kind: String,
    devices: Vec<TypedDevice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    container_edits: Option<TypedEdits>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TypedDevice {
    name: String,
    container_edits: TypedEdits,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TypedEdits {
    device_nodes: Vec<TypedNode>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TypedNode {
    path: String,
    permissions: String,
}

/// The whole file.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "structs of texts always serialise")]
pub fn spec_json(spec: &CdiSpec) -> String {
    let devices = spec.devices.iter().map(|(name, nodes)| TypedDevice {
        name: name.to_string(),
        container_edits: typed_edits(nodes),
    });
    let typed = TypedSpec {
        cdi_version: VERSION.to_owned(),
        kind: KIND.to_owned(),
        devices: devices.collect(),
        container_edits: (!spec.common.is_empty()).then(|| typed_edits(&spec.common)),
    };
    serde_json::to_string_pretty(&typed).expect("structs of texts always serialise") + "\n"
}

fn typed_edits(nodes: &[String]) -> TypedEdits {
    let node =
        |path: &String| TypedNode { path: path.clone(), permissions: PERMISSIONS.to_owned() };
    TypedEdits { device_nodes: nodes.iter().map(node).collect() }
}

/// What a file says, if it is one of ours to the byte: nobody else writes this very form, and
/// whoever edits our file makes it theirs. What former releases wrote must stay known here.
#[must_use]
pub fn read_own(text: &str) -> Option<CdiSpec> {
    let typed: TypedSpec = serde_json::from_str(text).ok()?;
    let paths = |edits: TypedEdits| edits.device_nodes.into_iter().map(|node| node.path).collect();
    let common: Vec<String> = typed.container_edits.map(paths).unwrap_or_default();
    let device = |device: TypedDevice| {
        let name = device.name.parse::<CdiName>().ok()?;
        Some((name, paths(device.container_edits)))
    };
    let devices: BTreeMap<_, Vec<String>> =
        typed.devices.into_iter().map(device).collect::<Option<_>>()?;
    let spec = CdiSpec { common, devices };
    (!spec.devices.is_empty() && spec_json(&spec) == text).then_some(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As releases wrote it: a running node has such a file when it is updated.
    const WRITTEN: &str = r#"{
  "cdiVersion": "0.5.0",
  "kind": "iluvatar.com/gpu",
  "devices": [
    {
      "name": "0000:13:00.0",
      "containerEdits": {
        "deviceNodes": [
          {
            "path": "/dev/iluvatar0",
            "permissions": "rw"
          }
        ]
      }
    }
  ],
  "containerEdits": {
    "deviceNodes": [
      {
        "path": "/dev/itrctl",
        "permissions": "rw"
      }
    ]
  }
}
"#;

    fn written() -> CdiSpec {
        CdiSpec {
            common: vec!["/dev/itrctl".to_owned()],
            devices: BTreeMap::from([(
                "0000:13:00.0".parse().unwrap(),
                vec!["/dev/iluvatar0".to_owned()],
            )]),
        }
    }

    #[test]
    fn the_form_that_was_once_written_is_written_and_known_for_ever() {
        assert_eq!(spec_json(&written()), WRITTEN);
        assert_eq!(read_own(WRITTEN), Some(written()));
    }

    #[test]
    fn without_control_nodes_nothing_is_common() {
        let spec = CdiSpec { common: Vec::new(), ..written() };
        let text = spec_json(&spec);
        assert_eq!(text.matches("containerEdits").count(), 1);
        assert_eq!(read_own(&text), Some(spec));
    }

    #[test]
    fn what_differs_in_anything_is_not_ours() {
        let differs = [
            ("0.5.0", "0.6.0"),
            ("iluvatar.com/gpu", "iluvatar.com/npu"),
            ("0000:13:00.0", "0"),
            ("\"rw\"", "\"rwm\""),
            ("\"path\"", "\"hostPath\": \"/dev/x\", \"path\""),
            ("  \"kind\"", "    \"kind\""),
            ("}\n", "}"),
        ];
        for (from, to) in differs {
            assert_eq!(read_own(&WRITTEN.replace(from, to)), None, "{to}");
        }
        assert_eq!(read_own(""), None);
    }
}
