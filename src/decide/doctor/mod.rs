//! Facts of a node to findings: what is wrong, by which rule, and what to do. Each check is one
//! small function. A check that cannot run is reported as skipped, with the reason.

mod cdi_specs;
mod chips;
mod container_runtime;
mod driver;
mod kernel;
mod kubelet;
mod mode;
mod nodes;
mod plugins;
mod pods;
mod toolkits;
mod visibility;

use std::cmp::Reverse;

use crate::decide::machine::observe::observe;
use crate::decide::node::advertise::{advertise, unoffered_warning};
use crate::decide::node::inventory::as_seen;
use crate::decide::node::known_uuids::KnownUuids;
use crate::model::config::Config;
use crate::model::doctor::check::Check;
use crate::model::doctor::facts::{
    ConfigurationFile, ConfigurationState, HardwareFacts, NodeFacts, Observed, Unavailable,
};
use crate::model::doctor::finding::{Diagnosis, Finding};
use crate::model::inventory::Inventory;

/// The hardware facts and what one scan concludes from them. There is no health history: a chip's
/// reasons are everything that was seen against it.
#[derive(Clone, Debug)]
struct Hardware {
    facts: HardwareFacts,
    inventory: Inventory,
}

impl Hardware {
    fn new(facts: HardwareFacts, config: &Config) -> Self {
        Self {
            inventory: as_seen(
                &observe(&facts.scan, config),
                &KnownUuids::of(facts.identities.clone()),
                config,
            ),
            facts,
        }
    }
}

/// Runs every check, in the order of [`Check::ALL`]; of each, the gravest findings first.
#[must_use]
pub fn diagnose(facts: &NodeFacts) -> Vec<Diagnosis> {
    let hardware = facts.hardware.as_ref().ok();
    let hardware = hardware.map(|hardware| Hardware::new(hardware.clone(), &facts.config));
    let diagnose = |check: &Check| {
        let mut findings = findings(*check, facts, hardware.as_ref());
        findings.sort_by_key(|finding| Reverse(finding.level));
        Diagnosis { check: *check, findings }
    };
    Check::ALL.iter().map(diagnose).collect()
}

/// Chips that no resource of the configuration offers.
fn unoffered(hardware: &Hardware, config: &Config) -> Option<Finding> {
    let unoffered = advertise(&hardware.inventory, &config.resources).unoffered;
    let warning = unoffered_warning(&unoffered)?;
    Some(Finding::warning(warning.detail, "correct `match`, or add a resource for these chips"))
}

fn findings(check: Check, facts: &NodeFacts, hardware: Option<&Hardware>) -> Vec<Finding> {
    let of_hardware = |check: fn(&Hardware, &Config) -> Vec<Finding>| match hardware {
        Some(hardware) => check(hardware, &facts.config),
        None => vec![Finding::skipped(NO_SYS)],
    };
    let NodeFacts { root, kubelet, config, .. } = facts;
    match check {
        Check::Configuration => configured(facts, hardware),
        Check::Sysfs => vec![sysfs(facts.hardware.as_ref().err())],
        Check::Chips => of_hardware(chips::chips),
        Check::Driver => of_hardware(driver::driver),
        Check::Binding => of_hardware(driver::binding),
        Check::ConfigSpace => of_hardware(chips::config_space),
        Check::DeviceNodes => of_hardware(nodes::device_nodes),
        Check::Boards => of_hardware(chips::boards),
        Check::Pods => match hardware {
            Some(hardware) => pods::pods(kubelet, hardware, &config.resources),
            None => vec![Finding::skipped(NO_SYS)],
        },
        Check::KubeletDirectory => kubelet::directory(kubelet, root),
        Check::KubeletSocket => kubelet::socket(kubelet, root),
        Check::OtherPlugin => plugins::other_plugin(kubelet, root, &config.resources),
        Check::Mode => mode::mode(facts),
        Check::CdiSpecs => cdi_specs::cdi_specs(&facts.cdi, root),
        Check::ContainerRuntime => container_runtimes(facts),
        Check::KubeletRoot => kubelet::root(kubelet, root),
        Check::StaleSockets => plugins::stale_sockets(kubelet, root),
        Check::DeviceLinks if hardware.is_none() => vec![Finding::skipped(NO_SYS)],
        Check::DeviceLinks => nodes::device_links(&facts.device_links, root),
        Check::Numa => of_hardware(chips::numa),
        Check::Links => of_hardware(chips::links),
        Check::Uevents => kernel::uevents(facts.uevents.as_ref()),
        Check::Inotify => kernel::inotify(&facts.inotify, root),
    }
}

/// The file, what it leaves out of the hardware, and the UUIDs that it asks for.
fn configured(facts: &NodeFacts, hardware: Option<&Hardware>) -> Vec<Finding> {
    let unoffered = hardware.and_then(|hardware| unoffered(hardware, &facts.config));
    let uuids = hardware.map(|hardware| chips::uuids(hardware, &facts.config));
    let file = configuration(&facts.configuration);
    [file].into_iter().chain(unoffered).chain(uuids.into_iter().flatten()).collect()
}

fn container_runtimes(facts: &NodeFacts) -> Vec<Finding> {
    let NodeFacts { runtimes, toolkit_directories, config, root, .. } = facts;
    container_runtime::container_runtime(runtimes, toolkit_directories, config.container, root)
}

/// Why every check of the hardware is skipped.
const NO_SYS: &str = "/sys could not be read";

/// The findings on a fact; skipped where it is unavailable.
fn findings_on<T>(fact: Observed<T>, check: impl FnOnce(T) -> Vec<Finding>) -> Vec<Finding> {
    match fact {
        Ok(fact) => check(fact),
        Err(Unavailable(why)) => vec![Finding::skipped(why)],
    }
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
        ConfigurationState::Valid => Finding::ok(format!("{path} is valid")),
        ConfigurationState::Absent => {
            Finding::ok(format!("{path} does not exist; the defaults are active"))
        }
        ConfigurationState::Invalid(problems) => Finding::failure(
            format!("{problems}; the checks below use the defaults"),
            format!("correct it and check it with `ix-device-plugin config check {path}`"),
        ),
    }
}

fn sysfs(error: Option<&String>) -> Finding {
    match error {
        None => Finding::ok("/sys and /dev can be read"),
        Some(error) => Finding::failure(
            error.clone(),
            "mount the node's /sys read-only into the container; if it is mounted, check the \
             container's seccomp and SELinux rules",
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
    fn a_configuration_is_valid_absent_or_invalid() {
        check(ConfigurationState::Valid, "/c is valid", None);
        check(ConfigurationState::Absent, "/c does not exist; the defaults are active", None);
        check(
            ConfigurationState::Invalid("/c has 1 problem".to_owned()),
            "/c has 1 problem; the checks below use the defaults",
            Some("correct it and check it with `ix-device-plugin config check /c`"),
        );
    }

    #[test]
    fn a_sys_that_cannot_be_read_is_a_failure_with_the_systems_words() {
        let finding = sysfs(Some(&"cannot read /sys/bus/pci/devices: no".to_owned()));
        assert_eq!(finding.sentence, "cannot read /sys/bus/pci/devices: no");
    }

    #[test]
    fn names_are_joined_with_commas_and_an_and() {
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
    use crate::decide::scan_builder::{SINGLE, ScanBuilder};
    use crate::model::doctor::facts::{
        DeviceLinks, InotifyFacts, KnownRoots, KubeletFacts, PathSource, PluginDirectory,
        PluginDirectoryContent, RootFacts, RootKind,
    };
    use crate::model::doctor::finding::Level;
    use crate::model::health::ReasonCode;

    /// The hardware of a sample, with the driver loaded.
    pub(super) fn hardware(sample: ScanBuilder) -> Hardware {
        let facts = HardwareFacts {
            scan: sample.scan(),
            identities: None,
            modules: vec!["iluvatar".to_owned()],
            numa_nodes: 1,
            node_modes: BTreeMap::new(),
        };
        Hardware::new(facts, &Config::default())
    }

    /// One single-chip board, alone.
    pub(super) fn one() -> ScanBuilder {
        ScanBuilder::default().chip("00:01.0 03:00.0", SINGLE)
    }

    /// What a check of the hardware finds, under the default configuration.
    #[track_caller]
    pub(super) fn check(
        check: fn(&Hardware, &Config) -> Vec<Finding>,
        hardware: &Hardware,
        expected: &[&str],
    ) {
        assert_eq!(shown(&check(hardware, &Config::default())), expected);
    }

    /// A root with these directories at its top.
    pub(super) fn root(kind: RootKind, directories: &[&str]) -> RootFacts {
        RootFacts {
            kind,
            has_container_mark: false,
            filesystem: None,
            directories: directories.iter().map(ToString::to_string).collect(),
        }
    }

    /// A whole node.
    pub(super) fn node() -> RootFacts {
        root(RootKind::ThisMachine, &["dev", "etc", "proc", "run", "var"])
    }

    /// A kubelet with this in its plugin directory `/k`.
    pub(super) fn kubelet(content: PluginDirectoryContent) -> KubeletFacts {
        let source = PathSource::Default;
        KubeletFacts {
            directory: PluginDirectory { path: "/k".to_owned(), source, content },
            registry: PluginDirectory {
                path: "/r".to_owned(),
                source,
                content: PluginDirectoryContent::Absent,
            },
            processes: 1,
            kubelets: Vec::new(),
            roots: KnownRoots::default(),
            held: None,
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
    fn a_check_that_cannot_run_is_skipped() {
        let facts = NodeFacts {
            root: root(RootKind::NodeFile, &[]),
            configuration: ConfigurationFile {
                path: "/c".to_owned(),
                state: ConfigurationState::Absent,
            },
            config: Config::default(),
            hardware: Err("no".to_owned()),
            device_links: DeviceLinks::default(),
            kubelet: KubeletFacts { processes: 0, ..kubelet(PluginDirectoryContent::Absent) },
            cdi: Vec::new(),
            toolkit_directories: Vec::new(),
            runtimes: Vec::new(),
            uevents: None,
            inotify: InotifyFacts { instances: None, watches: None, opened: None },
            driver: Ok(None),
        };
        let report = diagnose(&facts);
        let others: Vec<_> = report
            .iter()
            .filter(|diagnosis| diagnosis.level() != Level::Skipped)
            .map(|diagnosis| diagnosis.check)
            .collect();
        assert_eq!(others, [Check::Configuration, Check::Sysfs, Check::CdiSpecs]);
    }
}
