//! Manifests as Kubernetes takes them: typed, and nothing in them that it would drop in silence.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_yaml::Value;

use super::tools::text_of;

/// One object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    ClusterRole(Box<ClusterRole>),
    ClusterRoleBinding(Box<ClusterRoleBinding>),
    ConfigMap(Box<ConfigMap>),
    DaemonSet(Box<DaemonSet>),
    Deployment(Box<Deployment>),
    DeviceClass(Box<DeviceClass>),
    NetworkPolicy(Box<NetworkPolicy>),
    Pod(Box<Pod>),
    PodMonitor(Box<Custom<PodMonitorSpec>>),
    PrometheusRule(Box<Custom<RuleFile>>),
    ResourceClaim(Box<ResourceClaim>),
    ResourceClaimTemplate(Box<ResourceClaimTemplate>),
    ServiceAccount(Box<ServiceAccount>),
    ValidatingAdmissionPolicy(Box<ValidatingAdmissionPolicy>),
    ValidatingAdmissionPolicyBinding(Box<ValidatingAdmissionPolicyBinding>),
}

/// The metadata of any object.
macro_rules! metadata_of {
    ($object:expr, $it:ident => $metadata:expr) => {
        match $object {
            Object::ClusterRole($it) => $metadata,
            Object::ClusterRoleBinding($it) => $metadata,
            Object::ConfigMap($it) => $metadata,
            Object::DaemonSet($it) => $metadata,
            Object::Deployment($it) => $metadata,
            Object::DeviceClass($it) => $metadata,
            Object::NetworkPolicy($it) => $metadata,
            Object::Pod($it) => $metadata,
            Object::PodMonitor($it) => $metadata,
            Object::PrometheusRule($it) => $metadata,
            Object::ResourceClaim($it) => $metadata,
            Object::ResourceClaimTemplate($it) => $metadata,
            Object::ServiceAccount($it) => $metadata,
            Object::ValidatingAdmissionPolicy($it) => $metadata,
            Object::ValidatingAdmissionPolicyBinding($it) => $metadata,
        }
    };
}

impl Object {
    pub(crate) fn metadata(&self) -> &ObjectMeta {
        metadata_of!(self, it => &it.metadata)
    }

    pub(crate) fn without_labels(mut self) -> Self {
        metadata_of!(&mut self, it => it.metadata.labels = None);
        self
    }
}

/// An object that Prometheus Operator defines.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Custom<Spec> {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: Spec,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PodMonitorSpec {
    pub(crate) namespace_selector: NamespaceSelector,
    pub(crate) selector: LabelSelector,
    pub(crate) pod_metrics_endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NamespaceSelector {
    pub(crate) match_names: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Endpoint {
    pub(crate) port: String,
    pub(crate) path: String,
    pub(crate) interval: String,
    pub(crate) honor_labels: bool,
    pub(crate) relabelings: Vec<Relabeling>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Relabeling {
    pub(crate) source_labels: Vec<String>,
    pub(crate) target_label: String,
}

/// Groups of rules, in a file of Prometheus or in a `PrometheusRule`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleFile {
    pub(crate) groups: Vec<RuleGroup>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleGroup {
    pub(crate) name: String,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub(crate) enum Rule {
    Alert(Alert),
    Recording(RecordingRule),
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordingRule {
    #[serde(rename = "record")]
    pub(crate) name: String,
    pub(crate) expr: String,
}

impl RuleFile {
    pub(crate) fn alerts(self) -> Vec<Alert> {
        let rules = self.groups.into_iter().flat_map(|group| group.rules);
        let alert = |rule| match rule {
            Rule::Alert(alert) => Some(alert),
            Rule::Recording(_) => None,
        };
        rules.filter_map(alert).collect()
    }

    pub(crate) fn recordings(self) -> Vec<RecordingRule> {
        let rules = self.groups.into_iter().flat_map(|group| group.rules);
        let recording = |rule| match rule {
            Rule::Alert(_) => None,
            Rule::Recording(rule) => Some(rule),
        };
        rules.filter_map(recording).collect()
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alert {
    #[serde(rename = "alert")]
    pub(crate) name: String,
    pub(crate) expr: String,
    #[serde(rename = "for")]
    pub(crate) lasting: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The objects of a manifest, in order; never none.
#[track_caller]
pub(crate) fn objects(manifest: &str) -> Vec<Object> {
    let documents = serde_yaml::Deserializer::from_str(manifest);
    let values = documents.map(|one| {
        Value::deserialize(one).unwrap_or_else(|error| {
            panic!("{error} in:\n{manifest}");
        })
    });
    let objects: Vec<_> = values.filter(|value| !value.is_null()).map(object).collect();
    assert!(!objects.is_empty(), "an empty manifest");
    objects
}

#[track_caller]
fn object(value: Value) -> Object {
    typed(value).unwrap_or_else(|problem| panic!("{problem}"))
}

fn typed(value: Value) -> Result<Object, String> {
    let kind = value["kind"].as_str().unwrap_or("nothing").to_owned();
    Ok(match kind.as_str() {
        "ClusterRole" => Object::ClusterRole(strict(value)?),
        "ClusterRoleBinding" => Object::ClusterRoleBinding(strict(value)?),
        "ConfigMap" => Object::ConfigMap(strict(value)?),
        "DaemonSet" => Object::DaemonSet(strict(value)?),
        "Deployment" => Object::Deployment(strict(value)?),
        "DeviceClass" => Object::DeviceClass(strict(value)?),
        "NetworkPolicy" => Object::NetworkPolicy(strict(value)?),
        "Pod" => Object::Pod(strict(value)?),
        "PodMonitor" => Object::PodMonitor(strict(value)?),
        "PrometheusRule" => Object::PrometheusRule(strict(value)?),
        "ResourceClaim" => Object::ResourceClaim(strict(value)?),
        "ResourceClaimTemplate" => Object::ResourceClaimTemplate(strict(value)?),
        "ServiceAccount" => Object::ServiceAccount(strict(value)?),
        "ValidatingAdmissionPolicy" => Object::ValidatingAdmissionPolicy(strict(value)?),
        "ValidatingAdmissionPolicyBinding" => {
            Object::ValidatingAdmissionPolicyBinding(strict(value)?)
        }
        other => return Err(format!("{other} is none of ours")),
    })
}

/// The value as this type, every field of it known.
pub(crate) fn strict<T: DeserializeOwned>(value: Value) -> Result<Box<T>, String> {
    let mut unknown = Vec::new();
    // `?` marks an Option, of which Kubernetes has many.
    let note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string().replace(".?", ""));
    let parsed = serde_ignored::deserialize(value, note);
    let parsed = parsed.map_err(|error| format!("not what Kubernetes wants: {error}"))?;
    if unknown.is_empty() { Ok(Box::new(parsed)) } else { Err(unknown.join(", ")) }
}

#[track_caller]
pub(crate) fn the_daemon_set(objects: &[Object]) -> &DaemonSet {
    let daemon_sets = objects.iter().filter_map(|object| match object {
        Object::DaemonSet(daemon_set) => Some(&**daemon_set),
        _ => None,
    });
    only(daemon_sets)
}

/// The text that the plugin reads, if a ConfigMap for it is among these.
pub(crate) fn configuration(objects: &[Object]) -> Option<&str> {
    objects.iter().find_map(|object| match object {
        Object::ConfigMap(map) => map.data.as_ref()?.get("ix-config").map(String::as_str),
        _ => None,
    })
}

#[track_caller]
pub(crate) fn only<T>(mut items: impl Iterator<Item = T>) -> T {
    let first = items.next().expect("one of it");
    assert!(items.next().is_none(), "there is more than one");
    first
}

#[test]
fn a_misspelt_field_deep_in_a_manifest_is_found() {
    let text = text_of("deploy/kustomize/base/daemon-set.yaml");
    let check = |text: &str| typed(serde_yaml::from_str(text).unwrap()).map(drop);
    assert_eq!(check(&text), Ok(()));
    let misspelt = text.replace("volumeMounts:", "volumeMount:");
    let place = "spec.template.spec.containers.0.volumeMount";
    assert_eq!(check(&misspelt), Err(place.to_owned()));
}
