//! CDI files of our kind: which one a runtime uses, and which conflict.
//!
//! Source: container-device-interface, SPEC.md and pkg/cdi/cache.go: two files of one directory
//! that name the same device make it unresolvable; across directories, /var/run/cdi wins.

use std::collections::BTreeMap;

use super::{and, count, visibility};
use crate::model::cdi::CdiKind;
use crate::model::doctor::facts::{
    CdiDirectoryFacts, CdiFile, CdiFileContent, Observed, RootFacts, Unavailable,
};
use crate::model::doctor::finding::Finding;

const KIND: &str = CdiKind::DevicePlugin.name();

/// The CDI directories that can be listed, their files, and why others cannot.
struct CdiListing<'a> {
    directories: Vec<String>,
    files: Vec<&'a CdiFile>,
    hidden: Option<Unavailable>,
}

fn listed<'a>(directories: &'a [CdiDirectoryFacts], root: &RootFacts) -> CdiListing<'a> {
    let mut listed = CdiListing { directories: Vec::new(), files: Vec::new(), hidden: None };
    for CdiDirectoryFacts { path, files } in directories {
        match files_of(path, files.as_ref(), root) {
            Ok(files) => {
                listed.directories.push(path.clone());
                listed.files.extend(files);
            }
            Err(why) => {
                listed.hidden.get_or_insert(why);
            }
        }
    }
    listed
}

fn files_of<'a>(
    path: &str,
    files: Option<&'a Result<Vec<CdiFile>, String>>,
    root: &RootFacts,
) -> Observed<&'a [CdiFile]> {
    match files {
        Some(Ok(files)) => Ok(files),
        Some(Err(error)) => Err(Unavailable(format!("cannot list {path}: {error}"))),
        None => {
            let top = if path.starts_with("/etc/") { "etc" } else { "run" };
            visibility::shows(root, top).map(|()| &[][..])
        }
    }
}

pub(super) fn cdi_specs(directories: &[CdiDirectoryFacts], root: &RootFacts) -> Vec<Finding> {
    let CdiListing { directories, files, hidden } = listed(directories, root);
    let ours_by_kind: Vec<_> = files
        .iter()
        .copied()
        .filter_map(|file| Some((file, file.spec.as_ref().ok()?)))
        .filter(|(_, spec)| spec.kind == KIND)
        .collect();
    let mut findings = conflicts(&ours_by_kind);
    findings.extend(files.iter().copied().filter_map(unreadable));
    if findings.is_empty() {
        findings.extend(foreign(&ours_by_kind));
    }
    // A hidden directory hides no conflict that was found, but may hold another.
    findings.extend(hidden.map(|Unavailable(why)| Finding::skipped(why)));
    let (files, directories) = (ours_by_kind.len(), and(&directories));
    super::or_ok(findings, || match files {
        0 => format!("no CDI file of kind {KIND} is in {directories}"),
        _ => format!(
            "{} of kind {KIND} in {directories}, all written by this plugin",
            count(files, "CDI file")
        ),
    })
}

/// Devices that several files name.
fn conflicts(specs: &[(&CdiFile, &CdiFileContent)]) -> Vec<Finding> {
    let mut named: BTreeMap<&str, Vec<&CdiFile>> = BTreeMap::new();
    for (file, spec) in specs {
        for device in &spec.devices {
            named.entry(device).or_default().push(file);
        }
    }
    // By the files, so that sixteen devices in the same two files are one finding.
    let mut by_files: BTreeMap<Vec<String>, (Vec<String>, bool)> = BTreeMap::new();
    for (device, files) in named.into_iter().filter(|(_, files)| files.len() > 1) {
        let same_directory = (1..files.len())
            .any(|at| files[..at].iter().any(|file| file.directory == files[at].directory));
        let paths = files.iter().map(|file| file.path()).collect();
        let (devices, is_same) = by_files.entry(paths).or_default();
        devices.push(format!("{KIND}={device}"));
        *is_same |= same_directory;
    }
    by_files.into_iter().map(|(paths, (devices, same))| conflict(&paths, &devices, same)).collect()
}

fn conflict(paths: &[String], devices: &[String], same_directory: bool) -> Finding {
    let (what, paths) = (and(devices), and(paths));
    let names = if devices.len() == 1 { "is defined" } else { "are defined" };
    let remedy = "keep one generator of this kind: remove the file that this plugin did not write \
                  (ix-ctk writes one with `ix-ctk cdi generate`), or set cdi.enabled: false";
    if same_directory {
        let sentence = format!(
            "{what} {names} by {paths}: a runtime resolves no name that is defined twice, and \
             containers that request one do not start"
        );
        return Finding::failure(sentence, remedy);
    }
    let sentence = format!("{what} {names} by {paths}: the file in /var/run/cdi takes precedence");
    Finding::warning(sentence, remedy)
}

/// A file that runtimes skip with an error.
fn unreadable(file: &CdiFile) -> Option<Finding> {
    let why = file.spec.as_ref().err()?;
    Some(
        Finding::note(format!("{} could not be read as a CDI specification: {why}", file.path()))
            .with_remedy("correct or remove it; runtimes skip such a file and log an error"),
    )
}

/// Files of others with our kind that conflict with none.
fn foreign(specs: &[(&CdiFile, &CdiFileContent)]) -> Option<Finding> {
    let others = specs.iter().filter(|(file, _)| file.name != CdiKind::DevicePlugin.file_name());
    let paths: Vec<_> = others.map(|(file, _)| file.path()).collect();
    let (defines, paths_shown) = (if paths.len() == 1 { "defines" } else { "define" }, and(&paths));
    (!paths.is_empty()).then(|| {
        Finding::note(format!(
            "{paths_shown} {defines} {KIND} too, with other device names, and not by this plugin"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::{self, node, shown};
    use super::*;
    use crate::model::doctor::facts::RootKind;

    fn file(path: &str, devices: &[&str]) -> CdiFile {
        let (directory, name) = path.rsplit_once('/').unwrap();
        let devices = devices.iter().map(ToString::to_string).collect();
        CdiFile {
            directory: directory.to_owned(),
            name: name.to_owned(),
            spec: Ok(CdiFileContent { kind: KIND.to_owned(), devices }),
        }
    }

    fn ours() -> CdiFile {
        file("/var/run/cdi/iluvatar.com-gpu.json", &["0000:13:00.0", "0000:16:00.0"])
    }

    const REMEDY: &str = "-> keep one generator of this kind: remove the file that this plugin did \
                          not write (ix-ctk writes one with `ix-ctk cdi generate`), or set \
                          cdi.enabled: false";

    fn directories(files: &[CdiFile]) -> Vec<CdiDirectoryFacts> {
        let directory = |path: &str| {
            let files = files.iter().filter(|file| file.directory == path).cloned().collect();
            CdiDirectoryFacts { path: path.to_owned(), files: Some(Ok(files)) }
        };
        ["/etc/cdi", "/var/run/cdi"].map(directory).to_vec()
    }

    #[track_caller]
    fn check(files: &[CdiFile], expected: &str) {
        assert_eq!(shown(&cdi_specs(&directories(files), &node())), [expected]);
    }

    #[test]
    fn files_count_though_the_other_directory_cannot_be_listed() {
        let mut hidden = directories(&[file("/etc/cdi/ix.yaml", &["0"])]);
        hidden[1].files = Some(Err("EACCES".to_owned()));
        assert_eq!(
            shown(&cdi_specs(&hidden, &node())),
            [
                "note: /etc/cdi/ix.yaml defines iluvatar.com/gpu too, with other device names, \
                 and not by this plugin",
                "skipped: cannot list /var/run/cdi: EACCES",
            ]
        );
    }

    #[test]
    fn a_root_without_either_directory_is_skipped() {
        let absent = |mut directory: CdiDirectoryFacts| {
            directory.files = None;
            directory
        };
        let absent: Vec<_> = directories(&[]).into_iter().map(absent).collect();
        let file = sample_facts::root(RootKind::NodeFile, &["var"]);
        let skipped = ["skipped: the .node file has no /etc"];
        assert_eq!(shown(&cdi_specs(&absent, &file)), skipped);
    }

    #[test]
    fn our_own_file_and_other_kinds_are_well() {
        let mut other = file("/etc/cdi/nvidia.yaml", &["0000:13:00.0"]);
        other.spec.as_mut().unwrap().kind = "nvidia.com/gpu".to_owned();
        check(&[], "ok: no CDI file of kind iluvatar.com/gpu is in /etc/cdi and /var/run/cdi");
        check(
            &[ours(), other],
            "ok: 1 CDI file of kind iluvatar.com/gpu in /etc/cdi and /var/run/cdi, all written by \
             this plugin",
        );
    }

    #[test]
    fn another_file_of_the_kind_with_other_names_is_a_note() {
        check(
            &[file("/etc/cdi/ix.yaml", &["0", "all"]), ours()],
            "note: /etc/cdi/ix.yaml defines iluvatar.com/gpu too, with other device names, and \
             not by this plugin",
        );
    }

    #[test]
    fn one_device_in_two_files_of_a_directory_is_a_failure() {
        check(
            &[file("/var/run/cdi/other.json", &["0000:13:00.0", "0000:16:00.0"]), ours()],
            &format!(
                "failure: iluvatar.com/gpu=0000:13:00.0 and iluvatar.com/gpu=0000:16:00.0 are \
                 defined by /var/run/cdi/other.json and /var/run/cdi/iluvatar.com-gpu.json: a \
                 runtime resolves no name that is defined twice, and containers that request one \
                 do not start {REMEDY}"
            ),
        );
    }

    #[test]
    fn one_device_in_both_directories_is_a_warning() {
        check(
            &[file("/etc/cdi/ix.yaml", &["0000:13:00.0"]), ours()],
            &format!(
                "warning: iluvatar.com/gpu=0000:13:00.0 is defined by /etc/cdi/ix.yaml and \
                 /var/run/cdi/iluvatar.com-gpu.json: the file in /var/run/cdi takes precedence \
                 {REMEDY}"
            ),
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_note() {
        let broken = CdiFile { spec: Err("EOF".to_owned()), ..file("/etc/cdi/x.json", &[]) };
        check(
            &[broken],
            "note: /etc/cdi/x.json could not be read as a CDI specification: EOF -> correct or \
             remove it; runtimes skip such a file and log an error",
        );
    }
}
