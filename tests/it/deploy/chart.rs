//! The Helm chart, rendered and linted by Helm itself.

use std::path::Path;

use ix_device_plugin::model::config::Config;
use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

use super::kustomize::{built, config_check};
use super::objects::{Object, configuration, objects, only, the_daemon_set};
use super::pod::{self, HTTP_PORT, Right};
use super::tools::{Tool, text_of};
use crate::support::binary::{Ran, files};

pub(super) const CHART: &str = "deploy/helm/ix-device-plugin";
const VALUES: &str = "tests/it/deploy/values";

/// `helm template` with a file of values.
fn template(helm: &Tool, values: &Path) -> Ran {
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
}

#[test]
fn cdi_takes_the_right_to_write_its_directory() {
    check("cdi", &[Right::CdiDirectory]);
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

#[test]
fn every_value_is_in_the_schema_and_has_a_default() {
    let values: Map<_, _> = serde_yaml::from_str(&text_of(format!("{CHART}/values.yaml"))).unwrap();
    let schema: Value =
        serde_json::from_str(&text_of(format!("{CHART}/values.schema.json"))).unwrap();
    let mut known = schema["properties"].as_object().unwrap().clone();
    assert!(known.remove("global").is_some(), "Helm gives it to every chart");
    let sorted = |keys: &Map<String, Value>| {
        let mut keys: Vec<_> = keys.keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(sorted(&known), sorted(&values));
}

#[track_caller]
fn check_refused(values: &Value, sentence: &str) {
    let Some(helm) = Tool::named("helm") else { return };
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), serde_json::to_string(values).unwrap()).unwrap();
    let Ran { code, stdout, stderr } = template(&helm, file.path());
    assert_eq!((code, &*stdout), (Some(1), ""), "{values}: {stderr}");
    assert!(stderr.contains(sentence), "{values}: {stderr}");
}

#[test]
fn two_configurations_are_refused() {
    check_refused(
        &json!({"existingConfigMap": "mine", "config": {"flags": {"splitboard": true}}}),
        "config and existingConfigMap are both set: the plugin reads only one of them.",
    );
    check_refused(
        &json!({"existingConfigMap": "mine", "configMapName": "theirs"}),
        "configMapName and existingConfigMap are both set: with existingConfigMap the chart creates no \
         ConfigMap.",
    );
}

#[test]
fn rights_and_configuration_have_to_agree() {
    check_refused(
        &json!({"config": {"cdi": {"enabled": true}}}),
        "config.cdi is set: use cdi.enabled, cdi.specDir and cdi.deviceSpecs, which also mount the \
         directory.",
    );
    check_refused(
        &json!({"ixml": {"enabled": true}, "config": {"health": {"ixml": "off"}}}),
        "ixml.enabled is true, but config.health.ixml is off: the library would not be loaded.",
    );
    check_refused(
        &json!({"config": {"health": {"ixml": "/opt/libixml.so"}}}),
        "config.health.ixml names a library, but ixml.enabled is false: the container could neither \
         read it nor open a GPU.",
    );
}

#[test]
fn what_the_plugin_does_not_support_is_refused_before_it_is_installed() {
    check_refused(
        &json!({"config": {"flags": {"usevolcano": true}}}),
        "config.flags.usevolcano is true: Volcano mode is not supported.",
    );
    check_refused(
        &json!({"config": {"flags": {"reset_gpu": true}}}),
        "config.flags.reset_gpu is true: GPU reset before an allocation is not supported.",
    );
    check_refused(
        &json!({"config": {"sharing": {"mps": {"replicas": 2}}}}),
        "config.sharing.mps is set: MPS is not supported.",
    );
    check_refused(
        &json!({"config": {"resourceName": "a.b/c", "resources": [{"name": "a.b/d"}]}}),
        "config.resources and config.resourceName are both set",
    );
}

#[test]
fn monitoring_needs_what_it_monitors() {
    for monitoring in ["podMonitor", "prometheusRule", "dashboard"] {
        check_refused(
            &json!({"http": {"enabled": false}, monitoring: {"enabled": true}}),
            "podMonitor, prometheusRule and dashboard need the metrics that http serves",
        );
    }
    check_refused(
        &json!({"prometheusRule": {"disabled": ["IluvatarMoon"]}}),
        "prometheusRule.disabled names IluvatarMoon, which is not an alert. Alerts: \
         IluvatarDeviceUnhealthy,",
    );
}

#[test]
fn what_the_chart_sets_itself_is_not_set_twice() {
    check_refused(
        &json!({"extraEnv": [{"name": "IX_HTTP", "value": "off"}]}),
        "extraEnv sets IX_HTTP, which would override the chart's own value: use http.",
    );
    check_refused(
        &json!({"podLabels": {"app.kubernetes.io/name": "mine"}}),
        "podLabels sets app.kubernetes.io/name, which the DaemonSet's selector uses: set nameOverride instead.",
    );
    check_refused(
        &json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}),
        "updateStrategy.rollingUpdate has both maxSurge and maxUnavailable",
    );
}

#[test]
fn a_misspelt_value_is_refused() {
    check_refused(&json!({"tolerance": []}), "'tolerance' not allowed");
    check_refused(&json!({"http": {"port": "9476"}}), "/http/port");
}
