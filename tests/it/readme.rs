//! What the README says, held against the product: every command runs, every table is whole, every
//! link leads somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ix_device_plugin::model::health::{Certainty, ReasonCode, Severity};
use ix_device_plugin::model::warning::WarningCode;
use ix_device_plugin::wire::{log_events, metrics};

use crate::http::cli::answering;
use crate::support::binary::{Ran, binary, ran, run, stdout_of};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn readme() -> String {
    fs::read_to_string(repository("README.md")).unwrap()
}

/// The commands of every console block, without prompt and comment.
fn commands() -> Vec<String> {
    let text = readme();
    let blocks = text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("$ "));
    lines.map(|line| line.split(" #").next().unwrap().trim().to_owned()).collect()
}

/// The words of the commands of one program.
fn words_of(program: &str) -> Vec<Vec<String>> {
    let commands = commands();
    let commands = commands.iter().filter_map(|it| it.strip_prefix(program)?.strip_prefix(' '));
    let words: Vec<Vec<_>> =
        commands.map(|it| it.split_whitespace().map(str::to_owned).collect()).collect();
    assert!(!words.is_empty(), "the README has no command of {program}");
    words
}

/// Cells of the table rows that begin with this many cells.
fn row(cells: &[&str]) -> String {
    format!("\n| {} |", cells.join(" | "))
}

fn needs_a_daemon(words: &[String]) -> bool {
    ["status", "probe"].contains(&&*words[0])
}

#[test]
fn every_command_that_only_reads_runs_on_a_shipped_machine() {
    let directory = tempfile::TempDir::new().unwrap();
    symlink(repository("fixtures"), directory.path().join("fixtures")).unwrap();
    for words in words_of("ix-device-plugin").iter().filter(|words| !needs_a_daemon(words)) {
        let mut command = binary();
        command.current_dir(directory.path()).args(words);
        command.env("IX_ROOT", repository("fixtures/nodes/bi-v150-x8.node"));
        if words[0].ends_with("cordon") {
            command.env("IX_KUBELET_DIR", directory.path());
        }
        let Ran { code, stdout, stderr } = ran(&command.output().unwrap());
        assert_eq!((code, &*stderr), (Some(0), ""), "{words:?}");
        assert!(!stdout.is_empty() || words.contains(&"snapshot".to_owned()), "{words:?}");
    }
}

#[tokio::test]
async fn every_command_that_asks_a_running_plugin_is_answered() {
    let (_node, daemon, address) = answering().await;
    daemon.counts("open_streams", "", 1).await;
    let all = words_of("ix-device-plugin");
    let asking: Vec<_> = all.iter().filter(|words| needs_a_daemon(words)).collect();
    assert!(asking.len() >= 2, "{asking:?}");
    for words in asking {
        let mut arguments: Vec<_> = words.iter().map(String::as_str).collect();
        arguments.extend(["--http", &address]);
        let Ran { code, stderr, .. } = run(&arguments);
        assert_eq!((code, &*stderr), (Some(0), ""), "{words:?}");
    }
}

#[test]
fn every_command_of_make_is_in_the_makefile() {
    let makefile = fs::read_to_string(repository("Makefile")).unwrap();
    for words in words_of("make") {
        assert!(makefile.contains(&format!("\n{}:", words[0])), "make {}", words[0]);
    }
}

#[test]
fn what_is_installed_is_there_to_be_installed() {
    let installers = ["kubectl", "helm"].map(words_of).concat();
    let paths: Vec<_> =
        installers.iter().flatten().filter(|it| it.starts_with("deploy/")).collect();
    assert!(!paths.is_empty(), "{installers:?}");
    for path in paths {
        assert!(repository(path).exists(), "{path}");
    }
}

#[test]
fn every_link_leads_to_a_file_or_a_heading() {
    for page in [
        "README.md",
        "CHANGELOG.md",
        "deploy/seed-compat/README.md",
        "deploy/helm/ix-device-plugin/README.md",
    ] {
        let text = fs::read_to_string(repository(page)).unwrap();
        let headings: BTreeSet<_> = text.lines().filter_map(anchor).collect();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("https://")) {
            let found = match target.strip_prefix('#') {
                Some(heading) => headings.contains(heading),
                None => repository(page).parent().unwrap().join(target).exists(),
            };
            assert!(found, "{page}: {target}");
        }
    }
}

fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').trim();
    Some(heading.to_lowercase().replace(' ', "-"))
}

#[test]
fn the_table_of_signals_has_every_signal_with_its_default_and_its_kind() {
    let text = readme();
    for code in ReasonCode::ALL {
        let default = match code.default_severity() {
            Severity::Ignore => "ignore",
            Severity::Warn => "warn",
            Severity::Unhealthy => "unhealthy",
        };
        let kind = match code.certainty() {
            Certainty::State => "state",
            Certainty::Hard => "hard",
            Certainty::Reported => "report",
            Certainty::Soft => "soft",
        };
        let row = row(&[&format!("`{code}`"), default, kind]);
        let (_, rest) = text.split_once(&row).unwrap_or_else(|| panic!("no row {row}"));
        let remedy = format!(" | {} |", code.remedy());
        assert!(rest.lines().next().unwrap().ends_with(&remedy), "{code} has no {remedy}");
    }
}

#[test]
fn the_table_of_warnings_has_every_code_and_a_remedy() {
    let text = readme();
    for code in WarningCode::NAMES {
        let row = row(&[&format!("`{code}`")]);
        let (_, rest) = text.split_once(&row).unwrap_or_else(|| panic!("no row {row}"));
        assert_eq!(rest.lines().next().unwrap().matches(" | ").count(), 1, "{code}");
    }
}

/// Every key of the annotated file, with its place.
fn keys() -> BTreeSet<String> {
    let file = repository("fixtures/configs/good/annotated.yaml");
    let mut above: Vec<(usize, String)> = Vec::new();
    let mut leaves = BTreeSet::new();
    for line in fs::read_to_string(file).unwrap().lines() {
        let Some((key, value)) = line.split_once(':').filter(|_| !line.trim().starts_with('#'))
        else {
            continue;
        };
        let depth = key.len() - key.trim_start().len();
        above.retain(|(other, _)| *other < depth);
        above.push((depth, key.trim().to_owned()));
        if !value.trim().is_empty() {
            let path: Vec<_> = above.iter().map(|(_, key)| &**key).collect();
            leaves.insert(path.join("."));
        }
    }
    leaves
}

#[test]
fn the_reference_of_the_configuration_has_every_key() {
    let text = readme();
    assert!(keys().len() > 20, "{:?}", keys());
    for key in keys() {
        assert!(text.contains(&row(&[&format!("`{key}`")])), "{key}");
    }
}

#[test]
fn the_flags_of_run_and_their_variables_are_listed() {
    let (text, help) = (readme(), stdout_of(&["run", "--help"]));
    let own = [
        "--kubelet-dir",
        "--pod-resources-socket",
        "--node-name",
        "--pod-uid",
        "--kubeconfig",
        "--http",
        "--log-format",
    ];
    for flag in own {
        let (_, rest) = help.split_once(flag).unwrap();
        let (_, variable) = rest.split_once("[env: ").unwrap();
        let variable = variable.split('=').next().unwrap();
        let told = row(&[&format!("`{flag}`"), &format!("`{variable}`")]);
        assert!(text.contains(&told), "{told}");
    }
}

#[test]
fn the_table_of_metrics_is_the_one_that_they_are_served_from() {
    assert!(readme().contains(&metrics::markdown_table()), "{}", metrics::markdown_table());
}

#[test]
fn the_table_of_log_events_is_the_one_of_the_code() {
    assert!(readme().contains(&log_events::markdown_table()), "{}", log_events::markdown_table());
}

#[test]
fn the_exit_statuses_of_doctor_are_those_of_its_help() {
    let help = stdout_of(&["doctor", "--help"]);
    let (_, statuses) = help.split_once("Exit codes: ").unwrap();
    let rows: Vec<_> = statuses.lines().filter(|line| line.starts_with("  ")).collect();
    assert!(rows.len() >= 20, "{rows:?}");
    assert!(readme().contains(&rows.join("\n")), "{}", rows.join("\n"));
}

#[test]
fn the_version_is_the_one_of_the_crate() {
    let version = run(&["--version"]).stdout;
    let version = version.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(readme().contains(&format!("ix-device-plugin:{version}")), "{version}");
}
