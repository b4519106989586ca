//! A drop-in: the manifests of the plugin that this one replaces, unmodified, describe how it runs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod configurations;

use std::path::{Path, PathBuf};

use ix_device_plugin::cli::{Cli, RunArgs, Verb};
use ix_device_plugin::decide::kubelet::socket_name::FIRST_SOCKET;
use ix_device_plugin::host::config_file::DEFAULT_PATH;
use ix_device_plugin::model::config::{Config, Granularity};
use ix_device_plugin::parse::config::parse_config;
use serde_yaml::Value;
use tempfile::TempDir;

use crate::support::binary::{Ran, run_with};
use crate::support::fixtures::GPU;
use crate::support::test_node::TestNode;

const CONFIG_MAP: &str = include_str!("configmap.yaml");
const DAEMON_SET: &str = include_str!("daemonset.yaml");

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

fn pod_spec() -> Value {
    yaml(DAEMON_SET)["spec"]["template"]["spec"].clone()
}

fn container() -> Value {
    pod_spec()["containers"][0].clone()
}

/// The text that the plugin reads.
fn mounted_config() -> String {
    yaml(CONFIG_MAP)["data"]["ix-config"].as_str().unwrap().to_owned()
}

/// The volume of each mount, by the path in the container.
fn volume_at(path: &str) -> Option<(Value, Value)> {
    let (spec, container) = (pod_spec(), container());
    let mounts = container["volumeMounts"].as_sequence().unwrap();
    let mount = mounts.iter().find(|mount| mount["mountPath"] == path)?.clone();
    let volumes = spec["volumes"].as_sequence().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == mount["name"])?.clone();
    Some((mount, volume))
}

/// What the command line means without arguments.
fn defaults() -> RunArgs {
    match Cli::from_arguments(["ix-device-plugin".into()]).unwrap().verb {
        Verb::Run(args) => args,
        other => panic!("without a verb it runs, and not {other:?}"),
    }
}

#[test]
fn the_container_has_no_arguments_and_none_are_needed() {
    assert_eq!(container()["command"], Value::Null);
    assert_eq!(container()["args"], Value::Null);
    defaults();
}

#[test]
fn the_config_map_is_mounted_where_the_plugin_reads_it() {
    let default = Path::new(DEFAULT_PATH);
    let (_, volume) = volume_at(default.parent().unwrap().to_str().unwrap()).unwrap();
    let config_map = yaml(CONFIG_MAP);
    assert_eq!(volume["configMap"]["name"], config_map["metadata"]["name"]);
    assert_eq!(yaml(DAEMON_SET)["metadata"]["namespace"], config_map["metadata"]["namespace"]);
    let key = default.file_name().unwrap().to_str().unwrap();
    assert!(config_map["data"][key].is_string(), "the file is named after the key");
}

#[test]
fn the_config_map_means_what_it_meant() {
    let config = parse_config(&mounted_config()).unwrap();
    let [resource] = &config.resources[..] else { panic!("{config:?}") };
    assert_eq!(resource.name, GPU);
    assert_eq!(resource.granularity, Granularity::Board);
    assert_eq!(resource.sharing.unwrap().replicas, 4);
    let unshared = mounted_config().replace("replicas: 4", "replicas: 0");
    assert_eq!(parse_config(&unshared), Ok(Config::default()), "and nothing else");
}

#[test]
fn both_probes_list_the_socket_that_we_place() {
    let socket = defaults().kubelet_dir.join(FIRST_SOCKET);
    for probe in ["livenessProbe", "startupProbe"] {
        let command = container()[probe]["exec"]["command"].clone();
        let command: Vec<String> = serde_yaml::from_value(command).unwrap();
        assert_eq!(command, ["ls", socket.to_str().unwrap()], "{probe}");
    }
}

#[test]
fn every_path_that_we_use_is_mounted_at_its_own_place() {
    let run = defaults();
    let on_the_host = ["sys", "dev"].map(|part| run.machine.root.join(part));
    let paths: Vec<PathBuf> = on_the_host.into_iter().chain([run.kubelet_dir.clone()]).collect();
    for path in &paths {
        let path = path.to_str().unwrap();
        let (mount, volume) = volume_at(path).unwrap_or_else(|| panic!("{path} is not mounted"));
        assert_eq!(volume["hostPath"]["path"], path);
        let is_written = Path::new(path) == run.kubelet_dir;
        assert!(!(is_written && mount["readOnly"] == true), "{path} is written to");
    }
}

#[tokio::test]
async fn the_config_map_makes_four_devices_of_each_board() {
    let node = TestNode::fixture("bi-v150-x8").config(&mounted_config()).start().await;
    assert_eq!(node.kubelet.view().borrow().allocatable(GPU), 8 * 4);
    assert!(node.file(FIRST_SOCKET).exists());
}

/// The config map's text in a file, and the arguments that name it.
fn written_config() -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("ix-config");
    std::fs::write(&file, mounted_config()).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (directory, file)
}

/// Devices that `discover` shows for the one resource, under these variables.
fn devices_discovered(variables: &[(&str, &str)]) -> usize {
    let (_directory, file) = written_config();
    let node = "--root=fixtures/nodes/bi-v150-x8.node";
    let arguments = [node, "--config", &file, "discover", "-o", "json"];
    let Ran { code, stdout, stderr } = run_with(&arguments, variables);
    assert_eq!((code, &*stderr), (Some(0), ""));
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    found["resources"][0]["devices"].as_array().unwrap().len()
}

#[test]
fn split_board_in_the_environment_overrides_the_file() {
    assert_eq!(devices_discovered(&[]), 8 * 4);
    for yes in ["true", "1", "T"] {
        assert_eq!(devices_discovered(&[("SPLIT_BOARD", yes)]), 16 * 4, "{yes}");
    }
    for no in ["false", "0", ""] {
        assert_eq!(devices_discovered(&[("SPLIT_BOARD", no)]), 8 * 4, "{no}");
    }
    let (_directory, file) = written_config();
    let Ran { code, stdout, .. } =
        run_with(&["config", "check", &file], &[("SPLIT_BOARD", "true")]);
    assert_eq!(code, Some(0));
    let effective = stdout.strip_prefix("ok\n").unwrap();
    assert_eq!(parse_config(effective).unwrap().resources[0].granularity, Granularity::Chip);
}

#[track_caller]
fn check_refused(variable: &str, value: &str, expected: &str) {
    let (_directory, file) = written_config();
    let Ran { code, stdout, stderr } = run_with(&["config", "check", &file], &[(variable, value)]);
    assert_eq!((code, &*stdout), (Some(3), ""));
    assert_eq!(stderr.replace(&file, "FILE"), format!("error: {expected}\n"));
}

#[test]
fn what_is_not_built_is_refused_by_name_when_the_environment_asks_for_it() {
    check_refused(
        "USE_VOLCANO",
        "true",
        "USE_VOLCANO=true: Volcano mode is not supported; unset it",
    );
    check_refused(
        "RESET_GPU",
        "1",
        "RESET_GPU=1: resetting a GPU before use is not supported; unset it",
    );
    let (_directory, file) = written_config();
    let off = [("USE_VOLCANO", "false"), ("RESET_GPU", "false")];
    assert_eq!(run_with(&["config", "check", &file], &off).code, Some(0));
}

#[test]
fn a_variable_that_is_no_boolean_is_named() {
    let (_directory, file) = written_config();
    let ran = run_with(&["config", "check", &file], &[("SPLIT_BOARD", "maybe")]);
    let said = "error: SPLIT_BOARD=maybe: not a boolean; write true or false\n";
    let expected = Ran { code: Some(3), stdout: String::new(), stderr: said.to_owned() };
    assert_eq!(ran, expected);
}
