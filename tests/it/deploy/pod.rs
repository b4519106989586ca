//! What any DaemonSet of ours must be, however it was made: it has every path and port that the
//! plugin uses by default, and no right beyond those that its overlay explains.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ix_device_plugin::cli::{Cli, RunArgs, Verb};
use ix_device_plugin::decide::kubelet::socket_name::FIRST_SOCKET;
use ix_device_plugin::host::config_file::DEFAULT_PATH;
use ix_device_plugin::model::config::LabelRules;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, PodSpec, Probe, SecurityContext, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::objects::only;

/// Where the plugin serves probes and metrics.
pub(crate) const HTTP_PORT: i32 = 9476;
/// Name of the DaemonSet and of the label that selects its pods, as users have them.
pub(crate) const NAME: &str = "iluvatar-device-plugin";
/// The same in mode dra, so that both can be in one cluster.
pub(crate) const DRA_NAME: &str = "iluvatar-dra-driver";
const NAME_LABEL: &str = "app.kubernetes.io/name";
/// Label of the nodes whose GPUs are served by DRA.
const MODE_LABEL: &str = "iluvatar.com/gpu.mode";
/// Directory of the driver's service socket, the same on the host and in the container.
const PLUGIN: &str = "/var/lib/kubelet/plugins/gpu.iluvatar.com";
/// Directory of its registration socket.
const REGISTRY: &str = "/var/lib/kubelet/plugins_registry";

/// A right that only an overlay takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Every device of the host, for libixml.
    Privileged,
    /// To write CDI specifications.
    CdiDirectory,
    /// Mode dra: a token, the driver's sockets and CDI specifications.
    Dra,
    /// An init container that gets UUIDs from the vendor's tool.
    UuidsByInitContainer,
    /// To write feature files of NFD.
    FeatureDirectory,
}

/// The settings where nobody types anything.
pub(crate) fn defaults() -> RunArgs {
    match Cli::from_arguments(["ix-device-plugin".into()]).expect("nothing is required").verb {
        Verb::Run(args) => args,
        other => panic!("without a verb it runs, and not {other:?}"),
    }
}

pub(crate) fn spec(daemon_set: &DaemonSet) -> &PodSpec {
    daemon_set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).expect("a pod")
}

pub(crate) fn container(daemon_set: &DaemonSet) -> &Container {
    only(spec(daemon_set).containers.iter())
}

/// All that holds for every DaemonSet of ours, with just these rights.
#[track_caller]
pub(crate) fn check(daemon_set: &DaemonSet, rights: &[Right]) {
    names_are_those_that_users_have(daemon_set, name_with(rights));
    only_nodes_of_the_mode_are_served(daemon_set, rights);
    every_path_of_the_plugin_is_there(daemon_set);
    only_its_own_directories_are_writable(daemon_set, rights);
    a_missing_directory_does_not_block(daemon_set);
    nothing_is_granted_beyond(daemon_set, rights);
    resources_fit_what_was_measured(daemon_set);
}

fn name_with(rights: &[Right]) -> &'static str {
    if rights.contains(&Right::Dra) { DRA_NAME } else { NAME }
}

/// No node is served in both modes at once, whatever is installed.
#[track_caller]
fn only_nodes_of_the_mode_are_served(daemon_set: &DaemonSet, rights: &[Right]) {
    let affinity = spec(daemon_set).affinity.as_ref().and_then(|it| it.node_affinity.as_ref());
    let required =
        affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    let operator = if rights.contains(&Right::Dra) { "In" } else { "NotIn" };
    for term in &required.expect("required terms").node_selector_terms {
        let mode = term.match_expressions.iter().flatten().find(|it| it.key == MODE_LABEL);
        let mode = mode.expect("the node's mode");
        assert_eq!((&*mode.operator, &mode.values), (operator, &Some(vec!["dra".to_owned()])));
    }
}

#[track_caller]
fn names_are_those_that_users_have(daemon_set: &DaemonSet, name: &str) {
    let label = BTreeMap::from([(NAME_LABEL.to_owned(), name.to_owned())]);
    let spec = daemon_set.spec.as_ref().expect("a spec");
    assert_eq!(daemon_set.metadata.name.as_deref(), Some(name));
    assert_eq!(daemon_set.metadata.namespace.as_deref(), Some("kube-system"));
    // A DaemonSet's selector cannot be changed, so it must be the one that clusters have.
    assert_eq!(spec.selector.match_labels.as_ref(), Some(&label));
    let pod_labels = spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    assert_eq!(pod_labels.and_then(|labels| labels.get(NAME_LABEL)), label.get(NAME_LABEL));
    assert_eq!(container(daemon_set).name, NAME);
}

/// Each mount by its path in the container, with its volume.
pub(crate) fn mounts(daemon_set: &DaemonSet) -> BTreeMap<PathBuf, (&VolumeMount, &Volume)> {
    let volumes = spec(daemon_set).volumes.iter().flatten();
    let volumes: BTreeMap<_, _> = volumes.map(|volume| (&*volume.name, volume)).collect();
    let mounts = container(daemon_set).volume_mounts.iter().flatten();
    let mounts: BTreeMap<_, _> = mounts
        .map(|mount| (mount.mount_path.clone().into(), (mount, volumes[&*mount.name])))
        .collect();
    assert_eq!(mounts.len(), volumes.len(), "each volume is mounted once");
    mounts
}

fn host_path(volume: &Volume) -> Option<&str> {
    volume.host_path.as_ref().map(|source| &*source.path)
}

#[track_caller]
fn every_path_of_the_plugin_is_there(daemon_set: &DaemonSet) {
    let (mounts, run) = (mounts(daemon_set), defaults());
    let pod_resources = run.pod_resources_socket.parent().expect("a directory");
    for path in
        [&*run.kubelet_dir, pod_resources, "/sys".as_ref(), "/dev".as_ref(), "/run/udev".as_ref()]
    {
        let (_, volume) =
            mounts.get(path).unwrap_or_else(|| panic!("{} is not mounted", path.display()));
        assert_eq!(host_path(volume), path.to_str(), "at its own place");
    }
    let (_, configuration) = mounts[Path::new(DEFAULT_PATH).parent().expect("a directory")];
    let configuration = configuration.config_map.as_ref().expect("the configuration");
    assert_eq!((&*configuration.name, configuration.optional), ("ix-config", Some(true)));
}

#[track_caller]
fn only_its_own_directories_are_writable(daemon_set: &DaemonSet, rights: &[Right]) {
    let is_dra = rights.contains(&Right::Dra);
    let mut expected = BTreeSet::from([defaults().kubelet_dir]);
    if is_dra {
        expected.extend([PLUGIN, REGISTRY].map(PathBuf::from));
    }
    if is_dra || rights.contains(&Right::CdiDirectory) {
        expected.insert("/var/run/cdi".into());
    }
    if rights.contains(&Right::FeatureDirectory) {
        expected.insert(LabelRules::default().directory);
    }
    let writable =
        mounts(daemon_set).into_iter().filter(|(_, (mount, _))| mount.read_only != Some(true));
    assert_eq!(writable.map(|(path, _)| path).collect::<BTreeSet<_>>(), expected);
}

/// Hosts without udev, and kubelets without the directory of pod resources, run the plugin too.
#[track_caller]
fn a_missing_directory_does_not_block(daemon_set: &DaemonSet) {
    let always_there = ["/sys", "/dev", "/usr/local", REGISTRY].map(PathBuf::from);
    let always_there = [&[defaults().kubelet_dir], &always_there[..]].concat();
    for (path, (_, volume)) in mounts(daemon_set) {
        let Some(source) = &volume.host_path else { continue };
        let expected = if always_there.contains(&path) { "Directory" } else { "DirectoryOrCreate" };
        assert_eq!(source.type_.as_deref(), Some(expected), "{}", path.display());
    }
}

#[track_caller]
fn nothing_is_granted_beyond(daemon_set: &DaemonSet, rights: &[Right]) {
    let (spec, container) = (spec(daemon_set), container(daemon_set));
    let is_privileged = rights.contains(&Right::Privileged);
    let context = container.security_context.as_ref().expect("a security context");
    let SecurityContext { capabilities, privileged, allow_privilege_escalation, .. } = context;
    let dropped = capabilities.as_ref().and_then(|capabilities| capabilities.drop.clone());
    assert_eq!(dropped, Some(vec!["ALL".to_owned()]));
    assert_eq!(capabilities.as_ref().and_then(|capabilities| capabilities.add.clone()), None);
    assert_eq!(*privileged, Some(is_privileged));
    // Kubernetes refuses `false` in a privileged container.
    assert_eq!(*allow_privilege_escalation, (!is_privileged).then_some(false));
    assert_eq!(context.read_only_root_filesystem, Some(true));
    let of_pod = spec.security_context.as_ref().expect("a security context");
    assert_eq!(
        of_pod.seccomp_profile.as_ref().map(|profile| &*profile.type_),
        Some("RuntimeDefault")
    );
    assert_eq!(of_pod.run_as_user, Some(0), "the kubelet's directories belong to root");
    assert_eq!(spec.automount_service_account_token, Some(rights.contains(&Right::Dra)));
    assert_eq!(spec.host_network, None);
    assert_eq!((spec.host_pid, spec.host_ipc), (None, None));
    let has_init_containers = spec.init_containers.is_some();
    assert_eq!(has_init_containers, rights.contains(&Right::UuidsByInitContainer));
    assert_eq!(spec.priority_class_name.as_deref(), Some("system-node-critical"));
    // With the host's /dev mounted read-only, the runtime could not make the default one there.
    let message = container.termination_message_path.as_deref().expect("a place");
    assert!(!Path::new(message).starts_with("/dev"), "{message}");
}

/// Resident memory at its peak was 8 MB with 16 chips on 8 boards, each offered 100 times.
#[track_caller]
fn resources_fit_what_was_measured(daemon_set: &DaemonSet) {
    let resources = container(daemon_set).resources.as_ref().expect("resources");
    let mebibytes = |quantities: &Option<BTreeMap<String, _>>| {
        let quantities: &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity> =
            quantities.as_ref().expect("quantities");
        quantities["memory"]
            .0
            .strip_suffix("Mi")
            .expect("mebibytes")
            .parse::<u64>()
            .expect("a number")
    };
    let (requested, limit) = (mebibytes(&resources.requests), mebibytes(&resources.limits));
    assert!(requested >= 16 && limit >= 4 * requested, "{requested} to {limit}");
    assert!(resources.requests.as_ref().is_some_and(|requests| requests.contains_key("cpu")));
}

/// Probes over HTTP, at the port and the paths that the plugin serves.
#[track_caller]
pub(crate) fn check_http_probes(daemon_set: &DaemonSet, port: i32) {
    let container = container(daemon_set);
    let declared = only(container.ports.iter().flatten());
    assert_eq!((declared.name.as_deref(), declared.container_port), (Some("http"), port));
    let path = |probe: &Option<Probe>| {
        let get = probe.as_ref().and_then(|probe| probe.http_get.as_ref()).expect("an HTTP probe");
        assert_eq!(get.port, IntOrString::String("http".to_owned()));
        get.path.clone().expect("a path")
    };
    assert_eq!(path(&container.liveness_probe), "/livez");
    assert_eq!(path(&container.startup_probe), "/livez");
    assert_eq!(path(&container.readiness_probe), "/readyz");
}

/// Without HTTP: the probe that the replaced plugin's users know.
#[track_caller]
pub(crate) fn check_socket_probe(daemon_set: &DaemonSet) {
    let container = container(daemon_set);
    assert_eq!((&container.ports, &container.liveness_probe), (&None, &None));
    let probe = container.readiness_probe.as_ref().and_then(|probe| probe.exec.as_ref());
    let command = probe.and_then(|probe| probe.command.clone()).expect("a command");
    let socket = defaults().kubelet_dir.join(FIRST_SOCKET);
    assert_eq!(command, ["ls", socket.to_str().expect("text")]);
}

/// The image is the one of this version.
#[track_caller]
pub(crate) fn check_image(daemon_set: &DaemonSet) {
    let expected = concat!("ix-device-plugin:", env!("CARGO_PKG_VERSION"));
    assert_eq!(container(daemon_set).image.as_deref(), Some(expected));
}
