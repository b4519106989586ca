//! Which low-level runtimes containerd, CRI-O and Docker are configured to run.
//!
//! Sources: containerd's docs/cri/config.md (configuration versions 1 to 3), crio.conf(5), and
//! Docker's dockerd reference.

use serde_json::Value;

use crate::model::doctor::facts::{Engine, RuntimeSettings};

/// Tables of containerd's CRI plugin: versions 3, 2 and 1 of its configuration.
const CRI_PLUGINS: [&str; 3] = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri"];

/// Reads a configuration file of `engine`.
///
/// # Errors
/// The parser's error, in one line.
pub fn parse_runtime_settings(engine: Engine, text: &str) -> Result<RuntimeSettings, String> {
    let document = match engine {
        Engine::Docker => serde_json::from_str(text).map_err(|error| error.to_string())?,
        Engine::Containerd | Engine::Crio => {
            toml::from_str(text).map_err(|error: toml::de::Error| one_line(error.message()))?
        }
    };
    Ok(match engine {
        Engine::Containerd => containerd(&document),
        Engine::Crio => {
            section(&document["crio"]["runtime"], ["default_runtime", "runtimes"], |runtime| {
                &runtime["runtime_path"]
            })
        }
        Engine::Docker => {
            section(&document, ["default-runtime", "runtimes"], |runtime| &runtime["path"])
        }
    })
}

fn one_line(message: &str) -> String {
    message.lines().collect::<Vec<_>>().join(" ")
}

fn containerd(document: &Value) -> RuntimeSettings {
    let mut settings = RuntimeSettings::default();
    for plugin in CRI_PLUGINS {
        let of_plugin = section(
            &document["plugins"][plugin]["containerd"],
            ["default_runtime_name", "runtimes"],
            |runtime| &runtime["options"]["BinaryName"],
        );
        settings.cdi = settings.cdi.or(document["plugins"][plugin]["enable_cdi"].as_bool());
        settings.default = settings.default.or(of_plugin.default);
        settings.programs.extend(of_plugin.programs);
    }
    settings
}

/// A table with the name of the default runtime and a table of all of them.
fn section(
    table: &Value,
    [default, runtimes]: [&str; 2],
    program: impl Fn(&Value) -> &Value,
) -> RuntimeSettings {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let all = table[runtimes].as_object().into_iter().flatten();
    RuntimeSettings {
        cdi: None,
        default: text(&table[default]),
        programs: all.map(|(name, runtime)| (name.clone(), text(program(runtime)))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(engine: Engine, text: &str, default: Option<&str>, programs: &[(&str, Option<&str>)]) {
        let expected = RuntimeSettings {
            cdi: None,
            default: default.map(str::to_owned),
            programs: programs
                .iter()
                .map(|(name, program)| ((*name).to_owned(), program.map(str::to_owned)))
                .collect(),
        };
        assert_eq!(parse_runtime_settings(engine, text), Ok(expected));
    }

    #[test]
    fn every_version_of_containerds_configuration_is_read() {
        let program = Some("/usr/local/bin/ix-container-runtime");
        for plugin in CRI_PLUGINS {
            let text = format!(
                "version = 2\n[plugins.\"{plugin}\".containerd]\n  default_runtime_name = \
                 \"iluvatar\"\n[plugins.'{plugin}'.containerd.runtimes.iluvatar.options]\n  \
                 BinaryName = \"/usr/local/bin/ix-container-runtime\"\n"
            );
            check(Engine::Containerd, &text, Some("iluvatar"), &[("iluvatar", program)]);
        }
        check(Engine::Containerd, "version = 3\nimports = []\n", None, &[]);
    }

    #[test]
    fn cri_o_and_docker_have_their_own_keys() {
        check(
            Engine::Crio,
            "[crio.runtime]\ndefault_runtime = \"crun\"\n[crio.runtime.runtimes.iluvatar]\n\
             runtime_path = \"/x/ix-container-runtime\"\nruntime_type = \"oci\"\n",
            Some("crun"),
            &[("iluvatar", Some("/x/ix-container-runtime"))],
        );
        check(
            Engine::Docker,
            r#"{"default-runtime": "iluvatar", "runtimes": {"iluvatar": {"path": "p", "args": []}}}"#,
            Some("iluvatar"),
            &[("iluvatar", Some("p"))],
        );
        check(Engine::Docker, "{}", None, &[]);
    }

    #[test]
    fn a_runtime_need_not_name_its_program() {
        check(Engine::Crio, "[crio.runtime.runtimes.runc]\n", None, &[("runc", None)]);
    }

    #[test]
    fn a_broken_file_is_an_error_of_one_line() {
        for (engine, text) in [(Engine::Containerd, "version = \n"), (Engine::Docker, "{")] {
            let error = parse_runtime_settings(engine, text).unwrap_err();
            assert!(!error.is_empty() && !error.contains('\n'), "{error}");
        }
    }
}
