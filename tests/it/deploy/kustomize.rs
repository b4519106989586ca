//! The manifests for kubectl, built by the kustomize inside it.

use ix_device_plugin::model::config::{Config, Granularity, LabelRules, VisibleDevices};
use ix_device_plugin::parse::config::parse_config;
use ix_device_plugin::parse::identities::parse_identities;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::objects::{Object, configuration, objects, only, the_daemon_set};
use super::pod::{self, HTTP_PORT, Right};
use super::tools::{Tool, text_of};
use crate::support::binary::{files, stdout_of};

const BASE: &str = "deploy/kustomize/base";
const OVERLAYS: &str = "deploy/kustomize/overlays";

/// What kubectl would send of this directory; none where there is no kubectl.
pub(crate) fn built(directory: &str) -> Option<Vec<Object>> {
    let manifest = Tool::named("kubectl")?.stdout(&["kustomize", directory]);
    Some(objects(&manifest))
}

/// The text passes `config check`, as an operator would ask.
#[track_caller]
pub(super) fn config_check(text: &str) -> Config {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("ix-config");
    std::fs::write(&file, text).unwrap();
    let said = stdout_of(&["config", "check", file.to_str().unwrap()]);
    assert!(said.starts_with("ok\n"), "{said}");
    parse_config(text).unwrap()
}

#[track_caller]
fn check(directory: &str, rights: &[Right]) -> Option<Config> {
    let objects = built(directory)?;
    let daemon_set = the_daemon_set(&objects);
    pod::check(daemon_set, rights);
    pod::check_http_probes(daemon_set, HTTP_PORT);
    pod::check_image(daemon_set);
    Some(config_check(configuration(&objects).expect("a configuration")))
}

#[test]
fn the_base_may_do_next_to_nothing_and_means_the_defaults() {
    let Some(config) = check(BASE, &[]) else { return };
    assert_eq!(config, Config::default());
}

#[test]
fn split_board_offers_chips() {
    let Some(config) = check(&format!("{OVERLAYS}/split-board"), &[]) else { return };
    assert_eq!(config.resources[0].granularity, Granularity::Chip);
}

#[test]
fn time_slicing_offers_each_device_four_times() {
    let Some(config) = check(&format!("{OVERLAYS}/time-slicing"), &[]) else { return };
    assert_eq!(config.resources[0].sharing.map(|sharing| sharing.replicas), Some(4));
}

#[test]
fn split_board_and_time_slicing_change_only_the_configuration() {
    let Some(base) = built(BASE) else { return };
    for overlay in ["split-board", "time-slicing"] {
        let built = built(&format!("{OVERLAYS}/{overlay}")).unwrap();
        assert_eq!(the_daemon_set(&built), the_daemon_set(&base), "{overlay}");
    }
}

#[test]
fn cdi_may_write_its_directory_and_no_more() {
    let Some(_) = check(&format!("{OVERLAYS}/cdi"), &[Right::CdiDirectory]) else { return };
}

#[test]
fn labels_may_write_feature_files_and_no_more() {
    let overlay = format!("{OVERLAYS}/labels");
    let Some(config) = check(&overlay, &[Right::FeatureDirectory]) else { return };
    let labels = LabelRules { enabled: true, ..LabelRules::default() };
    assert_eq!(config, Config { labels, ..Config::default() });
}

#[test]
fn ixml_health_is_privileged_and_sees_the_drivers_libraries() {
    let directory = format!("{OVERLAYS}/ixml-health");
    let Some(_) = check(&directory, &[Right::Privileged]) else { return };
    let objects = built(&directory).unwrap();
    let mounts = pod::mounts(the_daemon_set(&objects));
    assert!(mounts.keys().any(|path| path.as_os_str() == "/usr/local"), "{mounts:?}");
}

/// The init container of the overlay with UUIDs.
fn writer_of_uuids(daemon_set: &DaemonSet) -> &Container {
    only(pod::spec(daemon_set).init_containers.iter().flatten())
}

#[test]
fn uuids_change_no_right_of_the_plugin() {
    let directory = format!("{OVERLAYS}/uuids");
    let Some(config) = check(&directory, &[Right::UuidsByInitContainer]) else { return };
    assert_eq!(config.container.visible_devices, VisibleDevices::Uuids);
    let (objects, base) = (built(&directory).unwrap(), built(BASE).unwrap());
    let (overlay, base) = (the_daemon_set(&objects), the_daemon_set(&base));
    let mut plugin = pod::container(overlay).clone();
    let mounts = plugin.volume_mounts.as_mut().unwrap();
    let file = config.discovery.identities.unwrap();
    let own = mounts.iter().position(|mount| file.starts_with(&mount.mount_path));
    let own = mounts.remove(own.expect("the file is in a mount"));
    assert_eq!(own.read_only, Some(true));
    assert_eq!(plugin, *pod::container(base), "nothing else differs");
    let [mount] = &writer_of_uuids(overlay).volume_mounts.as_ref().unwrap()[..] else {
        panic!("the init container has one mount")
    };
    assert_eq!((&mount.name, &mount.mount_path), (&own.name, &own.mount_path));
}

/// Runs the init container's script with this `ixsmi`; the file that it leaves.
fn written_with(ixsmi: &str) -> Option<String> {
    let objects = objects(&text_of(format!("{OVERLAYS}/uuids/daemon-set.yaml")));
    let command = writer_of_uuids(the_daemon_set(&objects)).command.clone().unwrap();
    let [shell, dash_c, script] = &command[..] else { panic!("{command:?}") };
    let directory = tempfile::TempDir::new().unwrap();
    let program = directory.path().join("ixsmi");
    std::fs::write(&program, format!("#!/bin/sh\n{ixsmi}\n")).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let place = directory.path().to_str().unwrap();
    let script = script.replace("/run/ix-identities", place);
    let path = format!("{place}:{}", std::env::var("PATH").unwrap());
    let status = std::process::Command::new(shell)
        .args([dash_c, &script])
        .env("PATH", path)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "it never keeps the plugin from starting");
    std::fs::read_to_string(directory.path().join("identities.csv")).ok()
}

#[test]
fn the_file_of_uuids_is_what_ixsmi_prints_or_is_not_there() {
    let asked = "[ \"$*\" = \"--query-gpu=index,uuid,pci.bus_id --format=csv\" ] || exit 1";
    let prints =
        format!("{asked}\ncat {}/fixtures/identities/bi-v150-x8.csv", env!("CARGO_MANIFEST_DIR"));
    let written = written_with(&prints).expect("a file");
    assert_eq!(parse_identities(&written).unwrap().uuids.len(), 16);
    assert_eq!(written_with("echo index, uuid, pci.bus_id; exit 9"), None);
}

#[test]
fn the_manifests_of_the_base_also_work_without_kustomize() {
    let Some(base) = built(BASE) else { return };
    let files = ["service-account", "config-map", "daemon-set"];
    let plain = files.map(|name| text_of(format!("{BASE}/{name}.yaml")));
    let plain: Vec<_> = plain.iter().flat_map(|text| objects(text)).collect();
    assert_eq!(plain, base);
}

/// An account of its own, for which no token is made, and nothing that gives it rights.
#[track_caller]
pub(super) fn check_account_without_token(objects: &[Object]) {
    let accounts = objects.iter().filter_map(|object| match object {
        Object::ServiceAccount(account) => Some(account),
        _ => None,
    });
    let account = only(accounts);
    assert_eq!(account.automount_service_account_token, Some(false));
    let spec = pod::spec(the_daemon_set(objects));
    assert_eq!(account.metadata.name, spec.service_account_name);
    let others = objects.iter().filter(|object| !matches!(object, Object::ServiceAccount(_)));
    let is_expected = |object| matches!(object, &Object::ConfigMap(_) | &Object::DaemonSet(_));
    assert!({ others }.all(is_expected), "{objects:?}");
}

#[test]
fn the_pods_have_an_account_of_their_own_without_token_or_rights() {
    let overlays = ["split-board", "time-slicing", "cdi", "ixml-health"];
    for directory in overlays.map(|name| format!("{OVERLAYS}/{name}")) {
        let Some(objects) = built(&directory) else { return };
        check_account_without_token(&objects);
    }
}

#[track_caller]
fn check_limits(pod: &PodSpec) {
    let default = Config::default();
    for container in &pod.containers {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        let limits = limits.unwrap_or_else(|| panic!("{} asks for nothing", container.name));
        assert!(limits.contains_key(&default.resources[0].name), "{limits:?}");
    }
}

#[test]
fn the_examples_ask_for_what_the_plugin_offers() {
    for file in files("deploy/examples", "yaml") {
        for object in objects(&text_of(&file)) {
            match object {
                Object::Pod(pod) => check_limits(pod.spec.as_ref().unwrap()),
                Object::Deployment(deployment) => {
                    check_limits(deployment.spec.unwrap().template.spec.as_ref().unwrap());
                }
                other => panic!("{other:?} is no example"),
            }
        }
    }
}
