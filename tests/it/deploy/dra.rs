//! Mode dra: what the overlay and the chart install, and the examples that use it.

use std::collections::BTreeSet;
use std::path::Path;

use ix_device_plugin::cli::{Cli, Verb};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::api::resource::v1::{DeviceClaim, DeviceClass};

use super::chart::rendered;
use super::kustomize::built;
use super::objects::{Object, configuration, objects, only, the_daemon_set};
use super::pod::{self, HTTP_PORT, Right};
use super::tools::text_of;
use crate::support::binary::{Ran, files, run_with};

const OVERLAY: &str = "deploy/kustomize/overlays/dra";
/// The class of another driver, in the examples.
const FOREIGN_CLASS: &str = "nic.example.com";

/// What kustomize and Helm make of mode dra.
fn both() -> Option<[Vec<Object>; 2]> {
    Some([built(OVERLAY)?, rendered("dra")?])
}

/// Without what only Helm writes, and without the two that are compared by their parts.
fn comparable(objects: Vec<Object>) -> Vec<Object> {
    let mut objects: Vec<_> = objects.into_iter().map(Object::without_labels).collect();
    objects.retain(|object| {
        !matches!(object, Object::DaemonSet(_) | Object::ValidatingAdmissionPolicy(_))
            && configuration(std::slice::from_ref(object)).is_none()
    });
    objects.sort_by_key(|object| format!("{object:?}"));
    objects
}

#[test]
fn the_driver_has_the_rights_of_its_mode_and_no_others() {
    let Some(both) = both() else { return };
    for objects in both {
        let daemon_set = the_daemon_set(&objects);
        pod::check(daemon_set, &[Right::Dra]);
        pod::check_http_probes(daemon_set, HTTP_PORT);
        pod::check_image(daemon_set);
    }
}

#[test]
fn the_defaults_of_the_chart_are_those_of_the_overlay() {
    let Some([overlay, chart]) = both() else { return };
    let spec = |objects| pod::spec(the_daemon_set(objects)).clone();
    let (mut of_chart, mut of_overlay) = (spec(&chart), spec(&overlay));
    for spec in [&mut of_chart, &mut of_overlay] {
        spec.volumes.as_mut().unwrap().sort_by(|one, other| one.name.cmp(&other.name));
        let container = &mut spec.containers[0];
        container.volume_mounts.as_mut().unwrap().sort_by(|one, other| one.name.cmp(&other.name));
        container.env.as_mut().unwrap().sort_by(|one, other| one.name.cmp(&other.name));
    }
    assert_eq!(of_chart, of_overlay);
    assert_eq!(comparable(chart), comparable(overlay));
}

#[test]
fn the_program_takes_the_arguments_of_the_manifest() {
    let Some(both) = both() else { return };
    for objects in both {
        let arguments = pod::container(the_daemon_set(&objects)).args.clone().unwrap();
        let arguments = ["ix-device-plugin".to_owned()].into_iter().chain(arguments);
        let parsed = Cli::from_arguments(arguments.map(Into::into)).unwrap();
        let Verb::Run(run) = parsed.verb else { panic!("it runs") };
        assert_eq!(run.config.overrides.mode.unwrap().text, "dra");
    }
}

#[test]
fn a_new_pod_serves_before_the_old_one_stops() {
    let Some(both) = both() else { return };
    for objects in both {
        let strategy = the_daemon_set(&objects).spec.as_ref().unwrap().update_strategy.as_ref();
        let rolling = strategy.unwrap().rolling_update.as_ref().unwrap();
        let text = |value: &Option<_>| format!("{value:?}");
        assert_eq!(text(&rolling.max_surge), "Some(Int(1))");
        assert_eq!(text(&rolling.max_unavailable), "Some(Int(0))");
    }
}

#[test]
fn the_sockets_have_one_path_on_the_host_and_in_the_container() {
    let Some(objects) = rendered("dra-everything") else { return };
    let mounts = pod::mounts(the_daemon_set(&objects));
    for path in ["/data/kubelet/plugins/gpu.iluvatar.com", "/data/kubelet/plugins_registry"] {
        let (_, volume) = mounts[Path::new(path)];
        let host_path = volume.host_path.as_ref().map(|source| &*source.path);
        assert_eq!(host_path, Some(path), "the kubelet opens what the driver reports");
    }
    let env = pod::container(the_daemon_set(&objects)).env.iter().flatten();
    let directory = env.filter(|variable| variable.name == "IX_KUBELET_DIR");
    assert_eq!(only(directory).value.as_deref(), Some("/data/kubelet/device-plugins"));
}

/// Group, resource and verbs of each rule.
fn rules(objects: &[Object]) -> BTreeSet<(String, String, Vec<String>)> {
    let cluster_roles = objects.iter().filter_map(|object| match object {
        Object::ClusterRole(role) => role.rules.clone(),
        _ => None,
    });
    let rules = cluster_roles.flatten().map(|mut rule| {
        rule.verbs.sort();
        (rule.api_groups.unwrap().concat(), rule.resources.unwrap().concat(), rule.verbs)
    });
    rules.collect()
}

#[test]
fn the_role_has_the_verbs_that_the_driver_uses() {
    let Some([overlay, _]) = both() else { return };
    let rule = |group: &str, resource: &str, verbs: &[&str]| {
        let verbs = verbs.iter().map(|verb| (*verb).to_owned()).collect();
        (group.to_owned(), resource.to_owned(), verbs)
    };
    let expected = [
        rule("", "nodes", &["get"]),
        rule("events.k8s.io", "events", &["create"]),
        rule("resource.k8s.io", "resourceclaims", &["get"]),
        rule("resource.k8s.io", "resourceslices", &["create", "delete", "list", "update", "watch"]),
    ];
    assert_eq!(rules(&overlay), BTreeSet::from(expected));
}

/// What the admission policy says, and about whom.
#[track_caller]
fn check_policy(objects: &[Object], driver: &str) {
    let policy = only(objects.iter().filter_map(|object| match object {
        Object::ValidatingAdmissionPolicy(policy) => policy.spec.as_ref(),
        _ => None,
    }));
    assert_eq!(policy.failure_policy.as_deref(), Some("Fail"));
    let rules = policy.match_constraints.as_ref().unwrap().resource_rules.as_ref().unwrap();
    let rule = only(rules.iter());
    assert_eq!(rule.operations.as_ref().unwrap(), &["CREATE", "UPDATE", "DELETE"]);
    assert_eq!(rule.resources.as_ref().unwrap(), &["resourceslices"]);
    let condition = only(policy.match_conditions.iter().flatten());
    assert_eq!(condition.expression, format!("request.userInfo.username{driver}"));
    let node = policy.variables.iter().flatten().find(|variable| variable.name == "node").unwrap();
    assert!(node.expression.contains("authentication.kubernetes.io/node-name"));
    let validations: Vec<_> =
        policy.validations.iter().flatten().map(|validation| &*validation.expression).collect();
    assert!(validations.iter().any(|it| it.contains("spec.nodeName == variables.node")));
    let binding = only(objects.iter().filter_map(|object| match object {
        Object::ValidatingAdmissionPolicyBinding(binding) => Some(binding),
        _ => None,
    }));
    let binding = binding.spec.as_ref().unwrap();
    assert_eq!(binding.validation_actions.as_deref(), Some(&["Deny".to_owned()][..]));
}

#[test]
fn the_admission_policy_ties_the_service_account_to_its_node() {
    let Some([overlay, chart]) = both() else { return };
    let any_namespace = ".matches('^system:serviceaccount:[^:]+:iluvatar-dra-driver$')";
    check_policy(&overlay, any_namespace);
    check_policy(&chart, " == 'system:serviceaccount:kube-system:iluvatar-dra-driver'");
    let Some(other) = rendered("dra-everything") else { return };
    check_policy(&other, " == 'system:serviceaccount:gpu-system:gpu-driver-account'");
}

fn classes(objects: &[Object]) -> Vec<&DeviceClass> {
    let classes = objects.iter().filter_map(|object| match object {
        Object::DeviceClass(class) => Some(&**class),
        _ => None,
    });
    classes.collect()
}

#[test]
fn an_extended_resource_is_served_only_where_it_is_wanted() {
    let (Some(default), Some(wanted)) = (both(), rendered("dra-everything")) else { return };
    let served = |objects: &[Object]| -> Vec<_> {
        let classes = classes(objects).into_iter();
        classes.filter_map(|class| class.spec.extended_resource_name.clone()).collect()
    };
    for objects in default {
        assert_eq!((classes(&objects).len(), served(&objects)), (2, vec![]));
    }
    assert_eq!(served(&wanted), ["iluvatar.com/gpu"]);
}

/// The attributes that constraints name, of classes that exist.
#[track_caller]
fn check_claim(claim: &DeviceClaim, known: &BTreeSet<String>) -> Vec<String> {
    let requests = claim.requests.as_ref().expect("requests");
    for request in requests {
        let exact = request.exactly.iter().map(|exact| &exact.device_class_name);
        let alternatives = request.first_available.iter().flatten();
        let alternatives = alternatives.map(|alternative| &alternative.device_class_name);
        for class in exact.chain(alternatives) {
            assert!(known.contains(class) || class == FOREIGN_CLASS, "{class}");
        }
    }
    let constraints = claim.constraints.iter().flatten();
    constraints.filter_map(|constraint| constraint.match_attribute.clone()).collect()
}

/// Each container uses a claim of its pod.
#[track_caller]
fn check_claims_are_used(pod: &PodSpec) {
    let claims: Vec<_> = pod.resource_claims.iter().flatten().map(|claim| &claim.name).collect();
    for container in &pod.containers {
        let resources = container.resources.as_ref().expect("resources");
        let used: Vec<_> = resources.claims.iter().flatten().map(|claim| &claim.name).collect();
        assert_eq!(used, claims, "{}", container.name);
    }
}

#[test]
fn the_examples_request_classes_that_are_installed_and_use_their_claims() {
    let classes = objects(&text_of(format!("{OVERLAY}/device-classes.yaml")));
    let known = classes.iter().map(|class| class.metadata().name.clone().unwrap()).collect();
    let mut attributes = BTreeSet::new();
    for file in files("deploy/examples/dra", "yaml") {
        for object in objects(&text_of(&file)) {
            match object {
                Object::ResourceClaim(claim) => {
                    attributes.extend(check_claim(&claim.spec.devices.unwrap(), &known));
                }
                Object::ResourceClaimTemplate(template) => {
                    let devices = template.spec.spec.devices.unwrap();
                    attributes.extend(check_claim(&devices, &known));
                }
                Object::Pod(pod) => check_claims_are_used(&pod.spec.unwrap()),
                Object::Deployment(deployment) => {
                    check_claims_are_used(&deployment.spec.unwrap().template.spec.unwrap());
                }
                other => panic!("{other:?} is no example"),
            }
        }
    }
    let expected = [
        "gpu.iluvatar.com/board",
        "gpu.iluvatar.com/pcieSwitch",
        "resource.kubernetes.io/pcieRoot",
    ];
    assert_eq!(attributes, BTreeSet::from(expected.map(str::to_owned)));
}

/// Machines on which the examples can be met, and how their GPUs are offered there.
const MET: [(&str, &str, &[&str]); 5] = [
    ("one-gpu", "bi-v150-x8", &[]),
    ("shared-claim", "bi-v150-x8", &[]),
    ("two-chips-of-one-board", "bi-v150-x8", &["--splitboard"]),
    ("boards-or-chips", "bi-v150-x8", &[]),
    ("four-below-one-switch", "bi-v100-pix", &[]),
];

#[test]
fn each_example_without_a_foreign_device_is_met_on_a_shipped_machine() {
    let directory = tempfile::TempDir::new().unwrap();
    assert_eq!(files("deploy/examples/dra", "yaml").len(), MET.len() + 1);
    for (example, machine, flags) in MET {
        let text = text_of(format!("deploy/examples/dra/{example}.yaml"));
        let claim = directory.path().join(example);
        std::fs::write(&claim, text.split("\n---\n").next().unwrap()).unwrap();
        let root = format!("fixtures/nodes/{machine}.node");
        let arguments = ["explain", "claim", "--mode", "dra", claim.to_str().unwrap()];
        let arguments = [&arguments[..], flags].concat();
        let Ran { code, stdout, stderr } = run_with(&arguments, &[("IX_ROOT", &root)]);
        assert_eq!((code, &*stderr), (Some(0), ""), "{example}: {stdout}");
    }
}
