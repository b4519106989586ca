//! Container runtimes that read the variables which name a container's devices, and whether
//! `container.visibleDevices` suits them.
//!
//! Sources: ix-container-toolkit 1.0.0, and the public code and notes of accelerator-toolkit.

use crate::model::config::{ContainerRules, VisibleDevices};
use crate::model::doctor::facts::RuntimeFile;
use crate::model::doctor::finding::Finding;

/// A set of runtime, hook and configuration that is installed as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Toolkit {
    /// The vendor's. It reads `IX_VISIBLE_DEVICES`: 1.0 takes `all`, `none`, `void` and indices and
    /// ignores anything else; newer ones take UUIDs too.
    IxContainerToolkit,
    /// Reads `ILUVATAR_COREX_VISIBLE_DEVICES`: `all`, `none`, indices and UUIDs. Anything else ends
    /// the container's start; without the variable it adds nothing.
    AcceleratorToolkit,
}

impl Toolkit {
    const ALL: [Self; 2] = [Self::IxContainerToolkit, Self::AcceleratorToolkit];

    fn name(self) -> &'static str {
        match self {
            Self::IxContainerToolkit => "ix-container-toolkit",
            Self::AcceleratorToolkit => "accelerator-toolkit",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::IxContainerToolkit => "ix-container-runtime",
            Self::AcceleratorToolkit => "accelerator-container-runtime",
        }
    }

    /// The names that its installers give the runtime.
    fn handlers(self) -> &'static [&'static str] {
        match self {
            Self::IxContainerToolkit => &["iluvatar"],
            Self::AcceleratorToolkit => &["ix", "iluvatar-bi-v150", "xpu-runtime"],
        }
    }

    fn directory(self) -> &'static str {
        match self {
            Self::IxContainerToolkit => "/etc/iluvatarcorex",
            Self::AcceleratorToolkit => "/etc/accelerator-toolkit",
        }
    }

    /// The toolkit of a runtime. The program decides; the name does where no file names the program.
    pub(super) fn of(runtime: &str, program: Option<&str>) -> Option<Self> {
        Self::ALL.into_iter().find(|toolkit| match program {
            Some(program) => program.rsplit('/').next() == Some(toolkit.program()),
            None => toolkit.handlers().contains(&runtime),
        })
    }
}

/// Whether the variables suit each toolkit of this node.
pub(super) fn toolkits(
    files: &[RuntimeFile],
    directories: &[String],
    rules: ContainerRules,
) -> Vec<Finding> {
    let found = |toolkit| Some((toolkit, evidence(toolkit, files, directories)?));
    let found = Toolkit::ALL.into_iter().filter_map(found);
    found.map(|(toolkit, evidence)| suits(toolkit, &evidence, rules)).collect()
}

/// Where the toolkit shows; none where it does not.
fn evidence(toolkit: Toolkit, files: &[RuntimeFile], directories: &[String]) -> Option<String> {
    let configured = files.iter().find_map(|file| {
        let mut programs = file.settings.as_ref().ok()?.programs.iter();
        let is_its = |(name, program): &(&String, &Option<String>)| {
            Toolkit::of(name, program.as_deref()) == Some(toolkit)
        };
        let (name, _) = programs.find(is_its)?;
        Some(format!("`{name}` of {}", file.path))
    });
    let directory = directories.iter().find(|path| *path == toolkit.directory());
    configured.or_else(|| directory.cloned())
}

fn suits(toolkit: Toolkit, evidence: &str, rules: ContainerRules) -> Finding {
    match toolkit {
        Toolkit::IxContainerToolkit => ix_container_toolkit(evidence, rules.visible_devices),
        Toolkit::AcceleratorToolkit => accelerator_toolkit(evidence, rules),
    }
}

fn ix_container_toolkit(evidence: &str, visible: VisibleDevices) -> Finding {
    let toolkit = Toolkit::IxContainerToolkit.name();
    Finding::note(match visible {
        VisibleDevices::Uuids => format!(
            "{toolkit} ({evidence}) gets UUIDs in IX_VISIBLE_DEVICES: 1.0 ignores them and adds no \
             GPU, newer ones take them"
        ),
        VisibleDevices::Addresses => format!(
            "{toolkit} ({evidence}) gets PCI addresses in IX_VISIBLE_DEVICES: 1.0 ignores them and \
             adds no GPU; newer ones need container.visibleDevices: uuids"
        ),
        VisibleDevices::None | VisibleDevices::Void => {
            format!("{toolkit} ({evidence}) adds no GPU, as container.visibleDevices asks")
        }
    })
}

const USE_UUIDS: &str = "set container.visibleDevices: uuids, and discovery.identities to the file \
                         that has them (deploy/kustomize/overlays/uuids)";

fn accelerator_toolkit(evidence: &str, rules: ContainerRules) -> Finding {
    let subject = format!("{} ({evidence})", Toolkit::AcceleratorToolkit.name());
    let variable = "ILUVATAR_COREX_VISIBLE_DEVICES";
    match (rules.legacy_variables, rules.visible_devices) {
        (true, VisibleDevices::Uuids) => {
            Finding::note(format!("{subject} gets UUIDs in {variable}, which it takes"))
        }
        (true, VisibleDevices::None) => Finding::warning(
            format!("{subject} gets `none` in {variable}: it adds no driver libraries"),
            USE_UUIDS,
        ),
        (true, VisibleDevices::Addresses | VisibleDevices::Void) => Finding::failure(
            format!(
                "{subject} takes all, none, indices or UUIDs in {variable}: with anything else \
                 containers that use it fail to start"
            ),
            USE_UUIDS,
        ),
        (false, VisibleDevices::Uuids) => Finding::warning(
            format!("{subject} reads {variable}, which is not set: it adds no driver libraries"),
            "remove container.legacyVariables: false",
        ),
        (false, _) => Finding::warning(
            format!("{subject} reads {variable}, which is not set: it adds no driver libraries"),
            USE_UUIDS,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::shown;
    use super::*;
    use crate::model::doctor::facts::{Engine, RuntimeSettings};

    fn containerd(handler: &str, program: Option<&str>) -> RuntimeFile {
        let program = program.map(str::to_owned);
        let programs = [(handler.to_owned(), program)].into();
        let settings = Ok(RuntimeSettings { programs, ..RuntimeSettings::default() });
        let path = "/c".to_owned();
        RuntimeFile { owner: "containerd", engine: Engine::Containerd, path, settings }
    }

    fn found(files: &[RuntimeFile], directories: &[&str]) -> Vec<String> {
        let directories: Vec<_> = directories.iter().map(|path| (*path).to_owned()).collect();
        shown(&toolkits(files, &directories, ContainerRules::default()))
    }

    #[test]
    fn a_toolkit_shows_by_its_program_its_handler_or_its_directory() {
        assert_eq!(found(&[], &[]), [""; 0]);
        assert_eq!(found(&[containerd("runc", None)], &[]), [""; 0]);
        assert_eq!(found(&[containerd("ix", Some("/usr/bin/crun"))], &[]), [""; 0]);
        for (files, directories, evidence) in [
            (vec![containerd("ix", None)], &[][..], "accelerator-toolkit (`ix` of /c)"),
            (
                vec![containerd("gpu", Some("/usr/local/bin/accelerator-container-runtime"))],
                &[],
                "accelerator-toolkit (`gpu` of /c)",
            ),
            (
                vec![],
                &["/etc/accelerator-toolkit"],
                "accelerator-toolkit (/etc/accelerator-toolkit)",
            ),
            (vec![containerd("iluvatar", None)], &[], "ix-container-toolkit (`iluvatar` of /c)"),
            (vec![], &["/etc/iluvatarcorex"], "ix-container-toolkit (/etc/iluvatarcorex)"),
        ] {
            let found = found(&files, directories);
            assert!(found.len() == 1 && found[0].contains(evidence), "{found:?}");
        }
    }

    #[track_caller]
    fn check(handler: &str, visible_devices: VisibleDevices, legacy: bool, expected: &str) {
        let rules = ContainerRules {
            visible_devices,
            legacy_variables: legacy,
            ..ContainerRules::default()
        };
        let findings = toolkits(&[containerd(handler, None)], &[], rules);
        assert_eq!(shown(&findings), [expected]);
    }

    #[test]
    fn accelerator_toolkit_needs_uuids_under_the_old_names() {
        use VisibleDevices::{Addresses, None, Uuids, Void};
        let to_uuids = " -> set container.visibleDevices: uuids, and discovery.identities to the \
                        file that has them (deploy/kustomize/overlays/uuids)";
        let subject = "accelerator-toolkit (`ix` of /c)";
        let variable = "ILUVATAR_COREX_VISIBLE_DEVICES";
        let unset = format!(
            "warning: {subject} reads {variable}, which is not set: it adds no driver libraries"
        );
        let fails = format!(
            "failure: {subject} takes all, none, indices or UUIDs in {variable}: with anything \
             else containers that use it fail to start{to_uuids}"
        );
        let takes = format!("note: {subject} gets UUIDs in {variable}, which it takes");
        check("ix", Uuids, true, &takes);
        check("ix", Uuids, false, &format!("{unset} -> remove container.legacyVariables: false"));
        for visible in [Addresses, Void] {
            check("ix", visible, true, &fails);
            check("ix", visible, false, &format!("{unset}{to_uuids}"));
        }
        let none =
            format!("warning: {subject} gets `none` in {variable}: it adds no driver libraries");
        check("ix", None, true, &format!("{none}{to_uuids}"));
    }

    #[test]
    fn the_vendors_toolkit_says_what_it_makes_of_each_value() {
        use VisibleDevices::{Addresses, None, Uuids, Void};
        let subject = "note: ix-container-toolkit (`iluvatar` of /c)";
        let gets = |what: &str, then: &str| {
            format!("{subject} gets {what} in IX_VISIBLE_DEVICES: 1.0 ignores them and {then}")
        };
        let newer = "adds no GPU, newer ones take them";
        check("iluvatar", Uuids, true, &gets("UUIDs", newer));
        let newer = "adds no GPU; newer ones need container.visibleDevices: uuids";
        check("iluvatar", Addresses, false, &gets("PCI addresses", newer));
        for visible in [None, Void] {
            let expected = "adds no GPU, as container.visibleDevices asks";
            check("iluvatar", visible, false, &format!("{subject} {expected}"));
        }
    }
}
