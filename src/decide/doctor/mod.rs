//! Facts of a node to findings: what is wrong, by which rule, and what to do. One check is one
//! small function; what cannot be told is said, never guessed.

mod cdi_specs;
mod chips;
mod container_runtime;
mod driver;
mod kernel;
mod kubelet;
mod nodes;
mod plugins;

use std::cmp::Reverse;

use crate::model::doctor::check::Check;
use crate::model::doctor::facts::{
    ConfigurationFile, ConfigurationState, Facts, Hardware, Observed, Unavailable,
};
use crate::model::doctor::finding::{Diagnosis, Finding};

/// Every check, in the order of [`Check::ALL`]; of each, the gravest findings first.
#[must_use]
pub fn diagnose(facts: &Facts) -> Vec<Diagnosis> {
    Check::ALL
        .iter()
        .map(|check| {
            let mut findings = findings(*check, facts);
            findings.sort_by_key(|finding| Reverse(finding.level));
            Diagnosis { check: *check, findings }
        })
        .collect()
}

fn findings(check: Check, facts: &Facts) -> Vec<Finding> {
    let of_hardware = |judge: fn(&Hardware, &Facts) -> Vec<Finding>| match &facts.hardware {
        Ok(hardware) => judge(hardware, facts),
        Err(_) => vec![untold(&Unavailable("/sys could not be read".to_owned()))],
    };
    match check {
        Check::Configuration => vec![configuration(&facts.configuration)],
        Check::Sysfs => vec![sysfs(facts.hardware.as_ref().err())],
        Check::Chips => of_hardware(chips::chips),
        Check::Driver => of_hardware(driver::driver),
        Check::Binding => of_hardware(driver::binding),
        Check::ConfigSpace => of_hardware(chips::config_space),
        Check::DeviceNodes => of_hardware(nodes::device_nodes),
        Check::Boards => of_hardware(chips::boards),
        Check::KubeletDirectory => kubelet::directory(&facts.kubelet),
        Check::KubeletSocket => kubelet::socket(&facts.kubelet),
        Check::OtherPlugin => plugins::other_plugin(&facts.kubelet, &facts.config.resources),
        Check::CdiSpecs => cdi_specs::cdi_specs(&facts.cdi),
        Check::ContainerRuntime => {
            told(&facts.runtimes, |files| container_runtime::container_runtime(files))
        }
        Check::KubeletRoot => kubelet::root(&facts.kubelet),
        Check::StaleSockets => plugins::stale_sockets(&facts.kubelet),
        Check::DeviceLinks => told(&facts.device_links, |links| nodes::device_links(links)),
        Check::Numa => of_hardware(chips::numa),
        Check::Links => of_hardware(chips::links),
        Check::Uevents => told(&facts.uevents, kernel::uevents),
        Check::Inotify => told(&facts.inotify, kernel::inotify),
    }
}

/// The findings on a fact, or a note that it cannot be told.
fn told<T>(fact: &Observed<T>, judge: impl Fn(&T) -> Vec<Finding>) -> Vec<Finding> {
    match fact {
        Ok(fact) => judge(fact),
        Err(why) => vec![untold(why)],
    }
}

fn untold(why: &Unavailable) -> Finding {
    Finding::note(format!("cannot be told from here: {why}"))
}

/// The findings, or this one where there are none.
fn or_ok(findings: Vec<Finding>, ok: impl FnOnce() -> String) -> Vec<Finding> {
    if findings.is_empty() { vec![Finding::ok(ok())] } else { findings }
}

/// `a, b and c`.
fn and(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// `1 chip`, `2 chips`.
fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

fn configuration(file: &ConfigurationFile) -> Finding {
    let path = &file.path;
    match &file.state {
        ConfigurationState::Right => Finding::ok(format!("{path} is right")),
        ConfigurationState::Absent => {
            Finding::ok(format!("{path} is not there, so the defaults hold"))
        }
        ConfigurationState::Wrong(problems) => Finding::failure(
            format!("{problems}; the checks below go by the defaults"),
            format!("correct it and run `ix-device-plugin config check {path}` until it says ok"),
        ),
    }
}

fn sysfs(error: Option<&String>) -> Finding {
    match error {
        None => Finding::ok("/sys and /dev can be read"),
        Some(error) => Finding::failure(
            error.clone(),
            "mount the node's /sys read-only into the container; check its seccomp and SELinux \
             rules where it is mounted already",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(state: ConfigurationState, sentence: &str, remedy: Option<&str>) {
        let finding = configuration(&ConfigurationFile { path: "/c".to_owned(), state });
        assert_eq!((&*finding.sentence, finding.remedy.as_deref()), (sentence, remedy));
    }

    #[test]
    fn a_configuration_is_right_absent_or_wrong() {
        check(ConfigurationState::Right, "/c is right", None);
        check(ConfigurationState::Absent, "/c is not there, so the defaults hold", None);
        check(
            ConfigurationState::Wrong("/c has 1 problem".to_owned()),
            "/c has 1 problem; the checks below go by the defaults",
            Some("correct it and run `ix-device-plugin config check /c` until it says ok"),
        );
    }

    #[test]
    fn a_sys_that_cannot_be_read_is_a_failure_with_the_systems_words() {
        let finding = sysfs(Some(&"cannot read /sys/bus/pci/devices: no".to_owned()));
        assert_eq!(finding.sentence, "cannot read /sys/bus/pci/devices: no");
    }

    #[test]
    fn names_are_joined_as_people_do() {
        let names =
            |text: &str| and(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!([names("a"), names("a b"), names("a b c")], ["a", "a and b", "a, b and c"]);
    }
}

/// What the tests of the checks share.
#[cfg(test)]
mod sample_facts {
    use std::collections::BTreeMap;

    use super::*;
    use crate::decide::machine::observe;
    use crate::decide::sample::{SINGLE, Sample};
    use crate::model::config::Config;
    use crate::model::doctor::facts::{CdiFacts, KnownRoots, KubeletFacts};
    use crate::model::health::ReasonCode;

    /// The hardware of a survey, with the driver loaded.
    pub(super) fn hardware(sample: Sample) -> Hardware {
        let survey = sample.survey();
        Hardware {
            inventory: observe::facts(&survey, &Config::default()),
            survey,
            modules: vec!["iluvatar".to_owned()],
            numa_nodes: 1,
            node_modes: BTreeMap::new(),
        }
    }

    /// One single-chip board, alone.
    pub(super) fn one() -> Sample {
        Sample::default().chip("00:01.0 03:00.0", SINGLE)
    }

    /// What a check of the hardware finds, under the default configuration.
    #[track_caller]
    pub(super) fn check(
        judge: fn(&Hardware, &Facts) -> Vec<Finding>,
        hardware: &Hardware,
        expected: &[&str],
    ) {
        assert_eq!(shown(&judge(hardware, &facts(hardware.clone()))), expected);
    }

    /// Facts of which nothing but this hardware can be told.
    pub(super) fn facts(hardware: Hardware) -> Facts {
        let untold = || Unavailable("a test".to_owned());
        Facts {
            configuration: ConfigurationFile {
                path: "/c".to_owned(),
                state: ConfigurationState::Absent,
            },
            config: Config::default(),
            hardware: Ok(hardware),
            device_links: Err(untold()),
            kubelet: KubeletFacts {
                directory: "/kubelet".to_owned(),
                content: Err(untold()),
                processes: Err(untold()),
                roots: KnownRoots::default(),
            },
            cdi: CdiFacts { hidden: Some(untold()), ..CdiFacts::default() },
            runtimes: Err(untold()),
            uevents: Err(untold()),
            inotify: Err(untold()),
        }
    }

    /// The whole text of findings: level, sentence, and the remedy after an arrow.
    pub(super) fn shown(findings: &[Finding]) -> Vec<String> {
        let remedy = |finding: &Finding| {
            finding.remedy.as_ref().map_or_else(String::new, |remedy| format!(" -> {remedy}"))
        };
        let line = |finding: &Finding| {
            format!("{}: {}{}", finding.level, finding.sentence, remedy(finding))
        };
        findings.iter().map(line).collect()
    }

    /// A sentence with the remedy of a reason.
    pub(super) fn with_remedy(sentence: &str, code: ReasonCode) -> String {
        format!("{sentence} -> {}", code.remedy())
    }

    #[test]
    fn what_cannot_be_told_is_a_note_on_each_check() {
        let mut facts = facts(hardware(Sample::default()));
        facts.hardware = Err("no".to_owned());
        let report = diagnose(&facts);
        let untold = report.iter().filter(|diagnosis| {
            diagnosis.findings[0].sentence.starts_with("cannot be told from here: ")
        });
        // All but the configuration and /sys, which are known here.
        assert_eq!(untold.count(), Check::ALL.len() - 2);
    }
}
