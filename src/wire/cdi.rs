//! The CDI spec as JSON, in the lowest version of the specification that has what it uses: 0.5.0
//! allows names that begin with a digit. Runtimes refuse unknown versions, so a lower
//! version works with more of them; annotations, for example, require 0.6.0.
//!
//! Nodes are given by path only. The runtime looks up their numbers when it creates the container,
//! so the file holds no numbers that could be outdated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::cdi::{CdiKind, CdiName, CdiSpec};

const VERSION: &str = "0.5.0";

/// Not `m`: a container need not create device nodes. Without the field a runtime takes `rwm`.
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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
#[expect(clippy::missing_panics_doc, reason = "structs of strings always serialise")]
pub fn spec_json(spec: &CdiSpec) -> String {
    let devices = spec.devices.iter().map(|(name, nodes)| TypedDevice {
        name: name.to_string(),
        container_edits: typed_edits(&[], nodes),
    });
    let env = spec.kind.env();
    let typed = TypedSpec {
        cdi_version: VERSION.to_owned(),
        kind: spec.kind.name().to_owned(),
        devices: devices.collect(),
        container_edits: (!spec.common.is_empty() || !env.is_empty())
            .then(|| typed_edits(env, &spec.common)),
    };
    serde_json::to_string_pretty(&typed).expect("structs of strings always serialise") + "\n"
}

fn typed_edits(env: &[&str], nodes: &[String]) -> TypedEdits {
    let node =
        |path: &String| TypedNode { path: path.clone(), permissions: PERMISSIONS.to_owned() };
    TypedEdits {
        env: env.iter().map(|&variable| variable.to_owned()).collect(),
        device_nodes: nodes.iter().map(node).collect(),
    }
}

/// The spec in a file that this program wrote, compared byte by byte: a file that was edited since
/// belongs to whoever edited it. Files of earlier releases must still be recognised.
#[must_use]
pub fn parse_own_spec(text: &str) -> Option<CdiSpec> {
    let typed: TypedSpec = serde_json::from_str(text).ok()?;
    let paths = |edits: TypedEdits| edits.device_nodes.into_iter().map(|node| node.path).collect();
    let common: Vec<String> = typed.container_edits.map(paths).unwrap_or_default();
    let device = |device: TypedDevice| {
        let name = device.name.parse::<CdiName>().ok()?;
        Some((name, paths(device.container_edits)))
    };
    let devices: BTreeMap<_, Vec<String>> =
        typed.devices.into_iter().map(device).collect::<Option<_>>()?;
    let kinds = [CdiKind::DevicePlugin, CdiKind::Dra];
    let kind = kinds.into_iter().find(|kind| kind.name() == typed.kind)?;
    let spec = CdiSpec { kind, common, devices };
    (!spec.devices.is_empty() && spec_json(&spec) == text).then_some(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As every release writes it: a node has such a file when it is updated.
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
            kind: CdiKind::DevicePlugin,
            common: vec!["/dev/itrctl".to_owned()],
            devices: BTreeMap::from([(
                "0000:13:00.0".parse().unwrap(),
                vec!["/dev/iluvatar0".to_owned()],
            )]),
        }
    }

    #[test]
    fn a_spec_is_written_in_the_known_form_and_recognised() {
        assert_eq!(spec_json(&written()), WRITTEN);
        assert_eq!(parse_own_spec(WRITTEN), Some(written()));
    }

    #[test]
    fn names_of_claims_are_of_their_own_kind_and_keep_the_vendors_runtime_from_adding_gpus() {
        let spec = CdiSpec { kind: CdiKind::Dra, ..written() };
        let text = spec_json(&spec);
        assert!(text.contains("\"kind\": \"gpu.iluvatar.com/device\""), "{text}");
        assert!(text.contains("\"env\": [\n      \"IX_VISIBLE_DEVICES=void\"\n    ]"), "{text}");
        assert_eq!(parse_own_spec(&text), Some(spec.clone()));
        // Without control nodes too.
        let spec = CdiSpec { common: Vec::new(), ..spec };
        let text = spec_json(&spec);
        assert!(text.contains("IX_VISIBLE_DEVICES=void"), "{text}");
        assert_eq!(parse_own_spec(&text), Some(spec));
    }

    #[test]
    fn without_control_nodes_there_are_no_common_edits() {
        let spec = CdiSpec { common: Vec::new(), ..written() };
        let text = spec_json(&spec);
        assert_eq!(text.matches("containerEdits").count(), 1);
        assert_eq!(parse_own_spec(&text), Some(spec));
    }

    #[test]
    fn a_file_that_differs_in_any_byte_is_not_ours() {
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
            assert_eq!(parse_own_spec(&WRITTEN.replace(from, to)), None, "{to}");
        }
        assert_eq!(parse_own_spec(""), None);
    }
}
