//! Values that the chart refuses, each with the remedy: contradictions, misspelt ones, and those of the
//! replaced chart.

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::chart::{CHART, template};
use super::tools::Tool;
use crate::support::binary::Ran;

/// Values of the replaced chart that have no meaning here, and what the message names instead.
const REPLACED: [(&str, &str); 9] = [
    ("cfgName", "use configMapName, or existingConfigMap"),
    ("ixConfig", "use config, which has the same keys: config.flags.splitboard"),
    ("livenessProbe", "the probes follow http.enabled"),
    ("podSecurityContext", "seLinuxOptions is a value of its own"),
    ("resourceName", "use config.resourceName"),
    ("securityContext", "except those that cdi.enabled and ixml.enabled explain"),
    ("startupProbe", "the probes follow http.enabled"),
    ("volumeMounts", "extraVolumeMounts adds others"),
    ("volumes", "extraVolumes adds others"),
];

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
        &json!({"existingConfigMap": "mine", "nodeConfigs": {"node-7": {}}}),
        "nodeConfigs and existingConfigMap are both set",
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
fn configurations_of_single_nodes_are_checked_too() {
    check_refused(
        &json!({"nodeConfigs": {"node-7": {"flags": {"splitbord": true}}}}),
        "at '/nodeConfigs/node-7/flags': additional properties 'splitbord' not allowed",
    );
    check_refused(
        &json!({"nodeConfigs": {"node-7": {"flags": {"usevolcano": true}}}}),
        "nodeConfigs.node-7.flags.usevolcano is true: Volcano mode is not supported.",
    );
    check_refused(
        &json!({"identities": {"image": "corex"}, "config": {"discovery": {"identities": "/a"}}}),
        "config.discovery.identities and identities.image are both set",
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
    check_refused(
        &json!({"podMonitor": {"enabled": true}, "networkPolicy": {"enabled": true}}),
        "networkPolicy.ingressFrom is empty: Prometheus could not read the metrics.",
    );
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
        &json!({"commonLabels": {"app.kubernetes.io/version": "1"}}),
        "commonLabels sets app.kubernetes.io/version, which the chart sets itself: remove it.",
    );
    check_refused(
        &json!({"commonLabels": {"a": "b"}, "podLabels": {"a": "c"}}),
        "commonLabels and podLabels both set a: set it in one of them.",
    );
    check_refused(
        &json!({"extraVolumeMounts": [{"name": "dev", "mountPath": "/dev"}]}),
        "extraVolumeMounts mounts /dev, which the chart mounts itself: remove it.",
    );
    check_refused(
        &json!({"extraEnv": [{"name": "IX_HTTP", "value": "off"}]}),
        "extraEnv sets IX_HTTP, which would override the chart's own value: use http.",
    );
    check_refused(
        &json!({"podLabels": {"app.kubernetes.io/name": "mine"}}),
        "podLabels sets app.kubernetes.io/name, which the DaemonSet's selector uses: set nameOverride instead.",
    );
    check_refused(
        &json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}}),
        "updateStrategy.rollingUpdate has both maxSurge and maxUnavailable",
    );
}

#[test]
fn a_misspelt_value_is_refused_in_the_configuration_too() {
    check_refused(&json!({"tolerance": []}), "'tolerance' not allowed");
    check_refused(
        &json!({"config": {"flags": {"splitbord": true}}}),
        "at '/config/flags': additional properties 'splitbord' not allowed",
    );
    check_refused(&json!({"config": {"health": {"interval": 5}}}), "/config/health/interval");
    check_refused(&json!({"http": {"port": "9476"}}), "/http/port");
}

#[test]
fn what_mode_dra_cannot_do_is_refused() {
    let refused = |mut values: Value, sentence| {
        values["mode"] = json!("dra");
        check_refused(&values, sentence);
    };
    check_refused(&json!({"config": {"mode": "dra"}}), "config.mode is set: use mode");
    refused(json!({"http": {"enabled": false}}), "http.enabled is false, but mode is dra");
    refused(json!({"cdi": {"enabled": true}}), "cdi.enabled is true, but mode is dra");
    refused(json!({"serviceAccount": {"create": false}}), "would get the driver's rights");
    let resource = "iluvatar.com/gpu";
    refused(
        json!({"dra": {"boardResource": resource, "chipResource": resource}}),
        "are both iluvatar.com/gpu: only one class can serve a resource.",
    );
    refused(
        json!({"dra": {"boardResource": resource, "deviceClasses": false}}),
        "no class would serve it.",
    );
}

#[test]
fn mode_dra_needs_a_kubernetes_that_has_it() {
    let Some(helm) = Tool::named("helm") else { return };
    let template = |version| {
        helm.run(&["template", "x", CHART, "--set", "mode=dra", "--kube-version", version])
    };
    assert_eq!(template("1.34.0-rc.1").code, Some(0));
    assert_eq!(template("v1.36.2+k3s1").code, Some(0));
    let sentence = "mode is dra, which needs Kubernetes 1.34; this is v1.33.9.";
    assert!(template("v1.33.9").stderr.contains(sentence), "{sentence}");
}

#[test]
fn each_value_of_the_replaced_chart_is_refused_by_name_with_what_replaces_it() {
    for (name, remedy) in REPLACED {
        check_refused(&json!({name: {}}), &format!("{name} is a value of the replaced chart: "));
        check_refused(&json!({name: {}}), remedy);
    }
}

#[test]
fn all_values_of_the_replaced_chart_are_named_at_once() {
    let values = REPLACED.map(|(name, _)| (name.to_owned(), json!([])));
    let values = Value::Object(values.into_iter().collect());
    for (name, _) in REPLACED {
        check_refused(&values, &format!("{name} is a value of the replaced chart: "));
    }
}

#[test]
fn values_that_the_replaced_chart_had_too_are_taken() {
    let Some(helm) = Tool::named("helm") else { return };
    let values = json!({
        "image": {"repository": "corex/ix-device-plugin", "tag": "4.3.0", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "resources": {},
        "podAnnotations": {"a": "b"},
        "podLabels": {"a": "b"},
        "nodeSelector": {"a": "b"},
        "affinity": {},
        "tolerations": [],
        "nameOverride": "",
        "fullnameOverride": "ix-device-plugin",
    });
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), values.to_string()).unwrap();
    let Ran { code, stderr, .. } = template(&helm, file.path());
    assert_eq!((code, &*stderr), (Some(0), ""));
}
