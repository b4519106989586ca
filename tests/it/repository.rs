//! The repository itself: versions in one place, scripts and workflows linted, the changelog's format,
//! and guides that name what is there.

use std::path::PathBuf;
use std::process::Command;

use serde_yaml::Value;

use crate::deploy::tools::{Tool, text_of, top};
use crate::support::binary::{Ran, files, ran};
use crate::support::skip;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Each place that has the version, as text before it.
const VERSIONED: [(&str, &str); 11] = [
    ("deploy/helm/ix-device-plugin/Chart.yaml", "\nversion: "),
    ("deploy/helm/ix-device-plugin/Chart.yaml", "\nappVersion: "),
    ("deploy/kustomize/base/daemon-set.yaml", "image: ix-device-plugin:"),
    ("Dockerfile", "ARG VERSION="),
    ("Dockerfile", "--tag ix-device-plugin:"),
    ("README.md", "--tag registry.example.com/ix-device-plugin:"),
    ("README.md", "make e2e IMAGE=ix-device-plugin:"),
    ("CONTRIBUTING.md", "IMAGE=ix-device-plugin:"),
    ("deploy/seed-compat/README.md", "iluvatar-device-plugin=ix-device-plugin:"),
    ("tests/e2e/run", "make e2e IMAGE=ix-device-plugin:"),
    ("tests/e2e/run", "${IMAGE:-ix-device-plugin:"),
];

#[test]
fn every_place_has_the_version_of_cargo_toml() {
    for (file, before) in VERSIONED {
        let text = text_of(file);
        let (_, after) = text.split_once(before).unwrap_or_else(|| panic!("{file}: no {before}"));
        assert!(after.starts_with(VERSION), "{file}: {before} is not {VERSION}");
    }
}

#[test]
fn the_changelog_has_the_sections_of_keep_a_changelog() {
    let text = text_of("CHANGELOG.md");
    let versions: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(versions.first(), Some(&"Unreleased"));
    let kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    for kind in text.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(kinds.contains(&kind), "{kind}");
    }
    for released in &versions[1..] {
        let (version, date) = released.split_once("] - ").unwrap_or_else(|| panic!("{released}"));
        assert!(version.starts_with('[') && date.len() == "2026-01-31".len(), "{released}");
    }
}

fn workflows() -> Vec<PathBuf> {
    files(".github/workflows", "yml")
}

/// actionlint's verdict on these files; none where it is not installed.
fn actionlint(files: &[PathBuf]) -> Option<Ran> {
    if !top().join("target/tools/actionlint/main.wasm").exists() {
        skip("no actionlint: `make test-tools` fetches it");
        return None;
    }
    let mut node = Command::new("node");
    node.current_dir(top()).arg(".ci/actionlint.cjs").args(files);
    Some(ran(&node.output().expect("`make test-tools` needs Node.js too")))
}

#[test]
fn actionlint_has_nothing_to_say_against_the_workflows() {
    let Some(Ran { code, stdout, stderr }) = actionlint(&workflows()) else { return };
    assert_eq!((code, &*stdout, &*stderr), (Some(0), "", ""));
}

#[test]
fn actionlint_finds_a_misspelt_expression() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("wrong.yml");
    let text = text_of(".github/workflows/ci.yml").replace("github.event_name", "githb.event_name");
    std::fs::write(&file, text).unwrap();
    let Some(Ran { code, stdout, .. }) = actionlint(&[file]) else { return };
    assert_eq!(code, Some(1));
    assert!(stdout.contains("undefined variable \"githb\""), "{stdout}");
}

/// What the steps and jobs of a workflow use.
fn used(value: &Value) -> Vec<String> {
    match value {
        Value::Mapping(map) => {
            let here = map.get("uses").and_then(Value::as_str).map(str::to_owned);
            here.into_iter().chain(map.values().flat_map(used)).collect()
        }
        Value::Sequence(list) => list.iter().flat_map(used).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_action_is_pinned_by_major_version_or_commit() {
    for workflow in workflows() {
        let text = text_of(&workflow);
        let used = used(&serde_yaml::from_str(&text).unwrap());
        assert!(!used.is_empty(), "{}", workflow.display());
        for action in used.iter().filter(|action| !action.starts_with("./")) {
            let (_, version) = action.split_once('@').unwrap_or_else(|| panic!("{action}"));
            let is_digits =
                |text: &str| !text.is_empty() && text.chars().all(|it| it.is_ascii_digit());
            let is_major = version.strip_prefix('v').is_some_and(is_digits);
            let is_commit = version.len() == 40 && version.chars().all(|it| it.is_ascii_hexdigit());
            assert!(is_major || is_commit, "{action}");
        }
    }
}

#[test]
fn only_the_release_may_write_and_no_workflow_names_a_registry() {
    for workflow in workflows() {
        let text = text_of(&workflow);
        let parsed: Value = serde_yaml::from_str(&text).unwrap();
        let expected: Value = serde_yaml::from_str("contents: read").unwrap();
        assert_eq!(parsed["permissions"], expected, "{}", workflow.display());
        let writes = text.matches(": write").count();
        assert_eq!(writes, if workflow.ends_with("release.yml") { 2 } else { 0 });
        for host in ["ghcr.", "quay.", "docker.io", "gcr.", "azurecr.", "amazonaws."] {
            assert!(!text.contains(host), "{}: {host}", workflow.display());
        }
    }
}

#[test]
fn a_bug_report_asks_for_the_snapshot_and_the_diagnosis() {
    let form: Value = serde_yaml::from_str(&text_of(".github/ISSUE_TEMPLATE/bug.yml")).unwrap();
    let required = |command: &str| {
        form["body"].as_sequence().unwrap().iter().any(|field| {
            let asks = serde_yaml::to_string(&field["attributes"]).unwrap().contains(command);
            asks && field["validations"]["required"].as_bool() == Some(true)
        })
    };
    assert!(required("ix-device-plugin snapshot"));
    assert!(required("ix-device-plugin doctor -o json"));
    assert!(!required("ix-device-plugin dance"));
}

/// Every shell script of the repository.
fn scripts() -> Vec<PathBuf> {
    let found = ["tests/e2e", "tests/e2e/pods"].iter().flat_map(|directory| files(directory, "sh"));
    let named = [
        ".ci/run",
        ".ci/setup",
        ".ci/setup-arm64",
        ".ci/test-tools",
        ".ci/arm64",
        "deploy/image/assemble-root",
        "tests/e2e/run",
        "tests/it/e2e/kubectl",
    ];
    found.chain(named.map(PathBuf::from)).collect()
}

#[test]
fn shellcheck_has_nothing_to_say_against_the_scripts() {
    let Some(shellcheck) = Tool::named("shellcheck") else { return };
    let scripts = scripts();
    let arguments =
        ["--external-sources"].into_iter().chain(scripts.iter().map(|it| it.to_str().unwrap()));
    let Ran { code, stdout, stderr } = shellcheck.run(&arguments.collect::<Vec<_>>());
    assert_eq!((code, &*stdout, &*stderr), (Some(0), "", ""));
}

/// Words between backticks that look like paths of the repository.
fn paths(guide: &str) -> Vec<String> {
    let text = text_of(guide);
    let quoted = text.split('`').skip(1).step_by(2).map(str::to_owned);
    let tops = ["src/", "tests/", "fixtures/", "deploy/", ".ci/"];
    let paths = quoted.filter(|word| tops.iter().any(|top| word.starts_with(top)));
    paths.map(|word| word.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn the_guide_for_contributors_names_files_and_types_that_are_there() {
    let paths = paths("CONTRIBUTING.md");
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths {
        assert!(top().join(&path).exists(), "there is no {path}");
    }
    for (file, name) in [
        ("src/model/health.rs", "enum ReasonCode"),
        ("src/model/doctor/check.rs", "enum Check"),
        ("src/decide/node/state.rs", "struct NodeState"),
    ] {
        assert!(text_of(file).contains(name), "{file} has no {name}");
    }
}
