//! The whole output of `discover` and `topology` on every shipped machine, through the built
//! binary. A change of any conclusion shows here as a diff; read it before you accept it.

use std::path::Path;

use k8s_openapi::api::resource::v1::Device;
use serde_json::Value;

use crate::support::binary::{files, stdout_of};

/// A machine, and the configuration that it needs.
struct Case {
    name: String,
    arguments: Vec<String>,
}

/// Every machine of `fixtures/nodes` by itself, and those with a configuration beside them again
/// with it.
fn cases() -> Vec<Case> {
    files("fixtures/nodes", "node").iter().flat_map(|node| cases_of(node)).collect()
}

fn cases_of(node: &Path) -> Vec<Case> {
    let stem = node.file_stem().expect("a file").to_string_lossy().into_owned();
    let root = ["--root".to_owned(), node.display().to_string()];
    let config = node.with_extension("yaml");
    let mut cases = vec![Case { name: stem.clone(), arguments: root.to_vec() }];
    if Path::new(env!("CARGO_MANIFEST_DIR")).join(&config).is_file() {
        let config = ["--config".to_owned(), config.display().to_string()];
        let arguments = [root, config].concat();
        cases.push(Case { name: format!("{stem}-configured"), arguments });
    }
    cases
}

#[track_caller]
fn check(verb: &str, format: &str) {
    for Case { name, arguments } in cases() {
        let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
        all.extend([verb, "-o", format]);
        hold(&format!("{name}.{verb}.{format}"), &stdout_of(&all));
    }
}

fn hold(name: &str, output: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots/golden");
    settings.bind(|| insta::assert_snapshot!(name, output));
}

#[test]
fn every_machine_has_its_table() {
    check("discover", "table");
}

#[test]
fn every_machine_has_its_tree() {
    check("discover", "tree");
}

#[test]
fn every_machine_has_its_json() {
    check("discover", "json");
}

#[test]
fn every_machine_has_its_yaml() {
    check("discover", "yaml");
}

#[test]
fn every_machine_has_its_graph() {
    check("discover", "dot");
}

#[test]
fn every_machine_has_its_udev_rules() {
    check("discover", "udev");
}

#[test]
fn every_machine_has_its_matrix() {
    check("topology", "table");
}

#[test]
fn every_machine_has_its_matrix_as_json() {
    check("topology", "json");
}

const OVERLAPPING: &str = "- name: iluvatar.com/gpu\n  match: {model: MR-V100}\n\
                           - name: iluvatar.com/other\n  match: {pciId: '1e3e:0002'}\n";
const UNMATCHED: &str = "- name: iluvatar.com/gpu\n  match: {model: BI-V150}\n";

#[test]
fn what_the_configuration_gets_wrong_is_a_warning_of_discover() {
    let rules = |lines: &str| {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.yaml");
        std::fs::write(&config, format!("resources:\n{lines}")).unwrap();
        let node = "fixtures/nodes/mr-v100-x4.node";
        stdout_of(&["discover", "--root", node, "--config", config.to_str().unwrap()])
    };
    hold("overlapping-resources", &rules(OVERLAPPING));
    hold("unmatched-chips", &rules(UNMATCHED));
}

#[test]
fn the_slices_of_a_machine_are_shown_in_dra_mode() {
    let config = tempfile::tempdir().unwrap();
    let both = config.path().join("both.yaml");
    std::fs::write(&both, "dra: {devices: both}\n").unwrap();
    let both = both.to_str().unwrap();
    let node = "fixtures/nodes/bi-v150-x8.node";
    let dra = ["--root", node, "--config", both, "discover", "--mode", "dra", "-o", "json"];
    let output = stdout_of(&dra);
    let document: Value = serde_json::from_str(&output).unwrap();
    assert!(document["resources"].as_array().unwrap().is_empty());
    hold("bi-v150-x8.slices", &serde_json::to_string_pretty(&document["slices"]).unwrap());
}

/// An API server drops unknown fields without a word.
#[test]
fn every_machines_slices_have_only_fields_that_the_api_knows() {
    for Case { name, arguments } in cases() {
        for split in ["--splitboard=false", "--splitboard=true"] {
            let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
            all.extend(["discover", "--mode", "dra", split, "-o", "json"]);
            let document: Value = serde_json::from_str(&stdout_of(&all)).unwrap();
            let slices = document["slices"].as_array().unwrap();
            assert!(!slices.is_empty(), "{name}");
            for slice in slices {
                let mut unknown = Vec::new();
                let devices: Vec<Device> = serde_ignored::deserialize(&slice["devices"], |path| {
                    unknown.push(path.to_string());
                })
                .unwrap();
                assert_eq!(unknown, [""; 0], "{name}");
                assert!(devices.len() <= 64, "{name}");
            }
        }
    }
}
