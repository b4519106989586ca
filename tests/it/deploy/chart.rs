//! The Helm chart, rendered and linted by Helm itself.

use std::collections::BTreeSet;
use std::path::Path;

use ix_device_plugin::model::config::{Config, Granularity};
use k8s_openapi::api::apps::v1::DaemonSet;

use super::kustomize::{built, check_account_without_token, config_check};
use super::objects::{Object, configuration, objects, only, the_daemon_set};
use super::pod::{self, HTTP_PORT, Right};
use super::tools::{Tool, text_of};
use crate::support::binary::{Ran, files};

pub(super) const CHART: &str = "deploy/helm/ix-device-plugin";
const VALUES: &str = "tests/it/deploy/values";

/// `helm template` with a file of values.
pub(super) fn template(helm: &Tool, values: &Path) -> Ran {
    let values = values.to_str().unwrap();
    helm.run(&["template", "iluvatar", CHART, "--namespace", "kube-system", "--values", values])
}

/// What Helm makes of a file of values.
#[track_caller]
fn manifest(name: &str) -> Option<String> {
    let values = format!("{VALUES}/{name}.yaml");
    let Ran { code, stdout, stderr } = template(&Tool::named("helm")?, values.as_ref());
    assert_eq!((code, &*stderr), (Some(0), ""), "{name}");
    Some(stdout)
}

#[track_caller]
pub(super) fn rendered(name: &str) -> Option<Vec<Object>> {
    Some(objects(&manifest(name)?))
}

/// The dashboard's JSON is long, and a file of its own.
fn without_dashboard(manifest: &str) -> String {
    let (before, after) =
        manifest.split_once("ix-device-plugin.json: |\n").unwrap_or((manifest, ""));
    let rest = after.split_once("\n---\n").map_or("", |(_, rest)| rest);
    if after.is_empty() { before.to_owned() } else { format!("{before}[...]\n---\n{rest}") }
}

#[test]
fn every_file_of_values_gives_the_manifest_that_it_gave() {
    for file in files(VALUES, "yaml") {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let Some(manifest) = manifest(name) else { return };
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.set_snapshot_path("../snapshots/chart");
        settings.bind(|| insta::assert_snapshot!(name, without_dashboard(&manifest)));
    }
}

#[test]
fn helm_has_nothing_to_say_against_the_chart() {
    let Some(helm) = Tool::named("helm") else { return };
    for values in files(VALUES, "yaml") {
        let said = helm.stdout(&["lint", "--strict", CHART, "--values", values.to_str().unwrap()]);
        assert!(said.contains("1 chart(s) linted, 0 chart(s) failed"), "{said}");
    }
}

/// Every manifest is valid, holds what the plugin needs, and has a configuration that it reads.
#[track_caller]
fn check(name: &str, rights: &[Right]) -> Option<(Vec<Object>, Config)> {
    let objects = rendered(name)?;
    pod::check(the_daemon_set(&objects), rights);
    let config = config_check(configuration(&objects).expect("a configuration"));
    Some((objects, config))
}

#[test]
fn the_defaults_are_those_of_the_kustomize_base() {
    let Some((chart, config)) = check("defaults", &[]) else { return };
    let Some(base) = built("deploy/kustomize/base") else { return };
    assert_eq!(config, config_check(configuration(&base).unwrap()));
    let without_labels = |objects: &[Object]| {
        let mut daemon_set: DaemonSet = the_daemon_set(objects).clone();
        daemon_set.metadata.labels = None;
        daemon_set
    };
    assert_eq!(without_labels(&chart), without_labels(&base));
    check_account_without_token(&chart);
}

#[test]
fn a_second_release_has_names_a_namespace_and_labels_of_its_own() {
    let (Some(second), Some(first)) = (rendered("names"), rendered("defaults")) else { return };
    let names = |objects: &[Object]| -> BTreeSet<_> {
        objects.iter().map(|object| object.metadata().name.clone().unwrap()).collect()
    };
    assert!(names(&second).is_disjoint(&names(&first)), "{:?}", names(&second));
    let of_pod = the_daemon_set(&second).spec.as_ref().unwrap().template.metadata.as_ref();
    for metadata in second.iter().map(Object::metadata).chain(of_pod) {
        let labels = metadata.labels.as_ref().unwrap();
        assert_eq!(labels["example.com/team"], "gpu", "{metadata:?}");
        assert!([None, Some("gpu-system")].contains(&metadata.namespace.as_deref()));
    }
    let policy = only(second.iter().filter_map(|object| match object {
        Object::NetworkPolicy(policy) => policy.spec.as_ref(),
        _ => None,
    }));
    let selector = &the_daemon_set(&second).spec.as_ref().unwrap().selector;
    assert_eq!(policy.pod_selector.as_ref(), Some(selector), "it protects our pods");
}

#[test]
fn each_term_of_the_affinity_asks_for_a_gpu_and_for_what_it_asked_before() {
    let Some(objects) = rendered("nfd") else { return };
    let affinity = pod::spec(the_daemon_set(&objects)).affinity.as_ref().unwrap();
    let node = affinity.node_affinity.as_ref().unwrap();
    let required = node.required_during_scheduling_ignored_during_execution.as_ref().unwrap();
    let keys = required.node_selector_terms.iter().map(|term| {
        let requirements = term.match_expressions.iter().chain(&term.match_fields).flatten();
        requirements.map(|requirement| &*requirement.key).collect::<Vec<_>>()
    });
    let (mode, gpu) = ("iluvatar.com/gpu.mode", "feature.node.kubernetes.io/pci-1200_1e3e.present");
    assert_eq!(
        keys.collect::<Vec<_>>(),
        [vec!["example.com/pool", mode, gpu], vec![mode, gpu, "metadata.name"]],
        "a node needs only one of them"
    );
}

#[test]
fn cdi_takes_the_right_to_write_its_directory() {
    check("cdi", &[Right::CdiDirectory]);
}

#[test]
fn labels_take_the_right_to_write_feature_files() {
    check("labels", &[Right::FeatureDirectory]);
}

#[test]
fn ixml_takes_all_devices() {
    check("ixml", &[Right::Privileged]);
}

#[test]
fn everything_at_once_is_still_valid() {
    let Some((objects, config)) = check("everything", &[Right::CdiDirectory, Right::Privileged])
    else {
        return;
    };
    pod::check_http_probes(the_daemon_set(&objects), 9999);
    assert_eq!(config.resources[0].sharing.map(|sharing| sharing.replicas), Some(2));
    let monitor = only(objects.iter().filter_map(|object| match object {
        Object::PodMonitor(monitor) => Some(monitor),
        _ => None,
    }));
    let labels = &the_daemon_set(&objects).spec.as_ref().unwrap().selector;
    assert_eq!(&monitor.spec.selector, labels, "it watches our pods");
    assert_eq!(only(monitor.spec.pod_metrics_endpoints.iter()).port, "http");
}

#[test]
fn without_http_the_probe_lists_the_socket() {
    let Some((objects, _)) = check("no-http", &[]) else { return };
    pod::check_socket_probe(the_daemon_set(&objects));
}

#[test]
fn with_http_the_probes_ask_over_http() {
    let Some((objects, _)) = check("defaults", &[]) else { return };
    pod::check_http_probes(the_daemon_set(&objects), HTTP_PORT);
}

#[test]
fn uuids_are_written_as_the_overlay_writes_them() {
    let Some((chart, config)) = check("nodes", &[Right::UuidsByInitContainer]) else { return };
    let Some(overlay) = built("deploy/kustomize/overlays/uuids") else { return };
    let writer = |objects| pod::spec(the_daemon_set(objects)).init_containers.clone();
    assert_eq!(writer(&chart), writer(&overlay));
    let of_overlay = config_check(configuration(&overlay).unwrap());
    assert_eq!(config.discovery, of_overlay.discovery);
}

#[test]
fn a_node_can_have_a_configuration_of_its_own() {
    let Some(objects) = rendered("nodes") else { return };
    let of_node = objects.iter().find_map(|object| match object {
        Object::ConfigMap(map) => map.data.as_ref()?.get("ix-config.node-7"),
        _ => None,
    });
    let of_node = config_check(of_node.expect("a key for the node"));
    let of_all = config_check(configuration(&objects).unwrap());
    assert_eq!(of_node.discovery, of_all.discovery, "and what other values set");
    let granularities = [&of_node, &of_all].map(|config| config.resources[0].granularity);
    assert_eq!(granularities, [Granularity::Chip, Granularity::Board]);
}

#[test]
fn a_configuration_of_yours_is_not_made_again() {
    let Some(objects) = rendered("existing-config-map") else { return };
    assert_eq!(configuration(&objects), None);
    let mounts = pod::mounts(the_daemon_set(&objects));
    let (_, volume) = mounts[Path::new("/ixconfig")];
    assert_eq!(volume.config_map.as_ref().map(|source| &*source.name), Some("mine"));
}

#[test]
fn the_chart_has_the_version_of_the_plugin() {
    let chart: serde_yaml::Value =
        serde_yaml::from_str(&text_of(format!("{CHART}/Chart.yaml"))).unwrap();
    for key in ["version", "appVersion"] {
        assert_eq!(chart[key].as_str(), Some(env!("CARGO_PKG_VERSION")), "{key}");
    }
}
