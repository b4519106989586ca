//! Whether a container runtime gives GPUs to containers that asked for none.
//!
//! The vendor's ix-container-runtime adds every GPU to a container in which `IX_VISIBLE_DEVICES` is
//! not set. As a node's default runtime it does so for every pod, and no device plugin can prevent
//! it.

use std::collections::BTreeMap;

use super::toolkits::{Toolkit, toolkits};
use super::{and, visibility};
use crate::model::config::ContainerRules;
use crate::model::doctor::facts::{Engine, RootFacts, RuntimeFile};
use crate::model::doctor::finding::Finding;

/// One owner's files, taken together as the owner takes them.
struct Configured<'a> {
    engine: Engine,
    default: Option<(&'a str, &'a str)>,
    programs: BTreeMap<&'a str, Option<&'a str>>,
    paths: Vec<String>,
}

impl Configured<'_> {
    fn is_vendors(&self, runtime: &str) -> bool {
        let program = self.programs.get(runtime).copied().flatten();
        Toolkit::of(runtime, program) == Some(Toolkit::IxContainerToolkit)
    }
}

pub(super) fn container_runtime(
    files: &[RuntimeFile],
    directories: &[String],
    rules: ContainerRules,
    root: &RootFacts,
) -> Vec<Finding> {
    if files.is_empty()
        && directories.is_empty()
        && let Err(why) = visibility::shows(root, "etc")
    {
        return vec![Finding::skipped(why.0)];
    }
    let mut findings: Vec<_> = files.iter().filter_map(unreadable).collect();
    for (owner, configured) in by_owner(files) {
        findings.extend(of_owner(owner, &configured));
    }
    findings.extend(toolkits(files, directories, rules));
    let paths: Vec<_> = files.iter().map(|file| file.path.clone()).collect();
    super::or_ok(findings, || match &*paths {
        [] => "no container runtime has a configuration file".to_owned(),
        paths => format!("{} does not configure the vendor's runtime", and(paths)),
    })
}

fn unreadable(file: &RuntimeFile) -> Option<Finding> {
    let why = file.settings.as_ref().err()?;
    Some(Finding::note(format!("{} of {} could not be read: {why}", file.path, file.owner)))
}

fn by_owner(files: &[RuntimeFile]) -> BTreeMap<&str, Configured<'_>> {
    let mut owners: BTreeMap<&str, Configured<'_>> = BTreeMap::new();
    for file in files {
        let Ok(settings) = &file.settings else { continue };
        let configured = owners.entry(file.owner).or_insert_with(|| Configured {
            engine: file.engine,
            default: None,
            programs: BTreeMap::new(),
            paths: Vec::new(),
        });
        // Later files override earlier ones, as drop-in directories are read.
        if let Some(default) = &settings.default {
            configured.default = Some((default, &file.path));
        }
        let programs = settings.programs.iter();
        configured.programs.extend(programs.map(|(name, program)| (&**name, program.as_deref())));
        configured.paths.push(file.path.clone());
    }
    owners
}

fn of_owner(owner: &str, configured: &Configured<'_>) -> Option<Finding> {
    if let Some((runtime, path)) = configured.default
        && configured.is_vendors(runtime)
    {
        return Some(Finding::warning(
            format!(
                "{path} makes `{runtime}` the default runtime of {owner}: it gives every GPU to a \
                 container in which IX_VISIBLE_DEVICES is not set, whatever the kubelet granted"
            ),
            format!(
                "make runc the default again ({}), restart {owner}, and use a RuntimeClass in \
                 pods that need the vendor's runtime; until then set IX_VISIBLE_DEVICES=void in \
                 pods without a GPU",
                key(configured.engine)
            ),
        ));
    }
    let names = configured.programs.keys();
    let vendors: Vec<_> = names.filter(|name| configured.is_vendors(name)).collect();
    let name = vendors.first()?;
    Some(Finding::note(format!(
        "`{name}` of {} is available by RuntimeClass: pods that use it without a GPU should set \
         IX_VISIBLE_DEVICES=void",
        and(&configured.paths)
    )))
}

fn key(engine: Engine) -> &'static str {
    match engine {
        Engine::Containerd => "default_runtime_name = \"runc\"",
        Engine::Crio => "default_runtime = \"runc\"",
        Engine::Docker => "\"default-runtime\": \"runc\"",
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::{node, shown};
    use super::*;
    use crate::model::doctor::facts::RuntimeSettings;
    use crate::model::doctor::finding::Level;

    fn file(
        engine: Engine,
        path: &str,
        default: Option<&str>,
        runtime: Option<(&str, Option<&str>)>,
    ) -> RuntimeFile {
        let programs = runtime.map(|(name, program)| (name.to_owned(), program.map(str::to_owned)));
        let settings = RuntimeSettings {
            cdi: None,
            default: default.map(str::to_owned),
            programs: programs.into_iter().collect(),
        };
        let owner = match engine {
            Engine::Containerd => "containerd",
            Engine::Crio => "CRI-O",
            Engine::Docker => "Docker",
        };
        RuntimeFile { owner, engine, path: path.to_owned(), settings: Ok(settings) }
    }

    /// The findings; those on what the runtime makes of the variables are last.
    fn found(files: &[RuntimeFile]) -> Vec<Finding> {
        container_runtime(files, &[], ContainerRules::default(), &node())
    }

    #[track_caller]
    fn check(files: &[RuntimeFile], expected: &str) {
        assert_eq!(shown(&found(files)[..1]), [expected]);
    }

    #[test]
    fn a_node_without_the_vendors_runtime_is_well() {
        let plain = file(Engine::Containerd, "/c", Some("runc"), Some(("runc", None)));
        check(&[plain], "ok: /c does not configure the vendor's runtime");
        check(&[], "ok: no container runtime has a configuration file");
    }

    #[test]
    fn the_vendors_runtime_as_default_is_a_warning_whatever_its_name() {
        let named =
            |name: &str, program| file(Engine::Containerd, "/c", Some(name), Some((name, program)));
        for (name, program) in
            [("iluvatar", None), ("gpu", Some("/usr/local/bin/ix-container-runtime"))]
        {
            check(
                &[named(name, program)],
                &format!(
                    "warning: /c makes `{name}` the default runtime of containerd: it gives every \
                     GPU to a container in which IX_VISIBLE_DEVICES is not set, whatever the \
                     kubelet granted -> make runc the default again (default_runtime_name = \
                     \"runc\"), restart containerd, and use a RuntimeClass in pods that need the \
                     vendor's runtime; until then set IX_VISIBLE_DEVICES=void in pods without a \
                     GPU"
                ),
            );
        }
        check(
            &[named("iluvatar", Some("/usr/bin/crun"))],
            "ok: /c does not configure the vendor's runtime",
        );
    }

    #[test]
    fn drop_ins_are_taken_together_and_the_last_one_counts() {
        let runtime = Some(("gpu", Some("/x/ix-container-runtime")));
        let files = [
            file(Engine::Crio, "/a.conf", Some("gpu"), None),
            file(Engine::Crio, "/b.conf", None, runtime),
        ];
        let finding = &found(&files)[0];
        assert!(finding.sentence.starts_with("/a.conf makes `gpu` the default runtime of CRI-O"));
        let calmed = [&files[..], &[file(Engine::Crio, "/z.conf", Some("runc"), None)]].concat();
        check(
            &calmed,
            "note: `gpu` of /a.conf, /b.conf and /z.conf is available by RuntimeClass: pods that \
             use it without a GPU should set IX_VISIBLE_DEVICES=void",
        );
    }

    #[test]
    fn one_owners_default_hides_nobody_elses() {
        let k3s = file(Engine::Containerd, "/k3s.toml", Some("runc"), None);
        let files = [
            file(Engine::Containerd, "/c", Some("iluvatar"), None),
            RuntimeFile { owner: "k3s", ..k3s },
        ];
        let levels: Vec<_> = found(&files).iter().map(|it| it.level).collect();
        assert_eq!(levels, [Level::Warning]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_note() {
        let mut broken = file(Engine::Docker, "/d.json", None, None);
        broken.settings = Err("EOF".to_owned());
        check(&[broken], "note: /d.json of Docker could not be read: EOF");
    }
}
