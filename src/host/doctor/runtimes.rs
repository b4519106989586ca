//! Files of container runtimes: their configuration, and CDI.

use std::path::Path;

use super::view::View;
use crate::host::files;
use crate::model::doctor::facts::{CdiFacts, CdiFile, Engine, RuntimeFile, Told};
use crate::parse::doctor::cdi_spec::parse_cdi_spec;
use crate::parse::doctor::runtime_settings::parse_runtime_settings;

/// Who has its configuration where, in the order in which it reads the files; k3s, RKE2, k0s and
/// MicroK8s bring a containerd of their own.
const RUNTIME_FILES: [(&str, Engine, &str); 10] = [
    ("containerd", Engine::Containerd, "etc/containerd/config.toml"),
    ("containerd", Engine::Containerd, "etc/containerd/conf.d/*.toml"),
    ("k3s", Engine::Containerd, "var/lib/rancher/k3s/agent/etc/containerd/config.toml"),
    ("RKE2", Engine::Containerd, "var/lib/rancher/rke2/agent/etc/containerd/config.toml"),
    ("k0s", Engine::Containerd, "etc/k0s/containerd.toml"),
    ("k0s", Engine::Containerd, "etc/k0s/containerd.d/*.toml"),
    ("MicroK8s", Engine::Containerd, "var/snap/microk8s/current/args/containerd.toml"),
    ("CRI-O", Engine::Crio, "etc/crio/crio.conf"),
    ("CRI-O", Engine::Crio, "etc/crio/crio.conf.d/*"),
    ("Docker", Engine::Docker, "etc/docker/daemon.json"),
];

/// Each CDI directory as operators know it and, for roots whose `/var/run` is an absolute link, as
/// it may be found. The second one is the stronger.
const CDI_DIRECTORIES: [(&str, &[&str]); 2] =
    [("/etc/cdi", &["etc/cdi"]), ("/var/run/cdi", &["run/cdi", "var/run/cdi"])];

pub(super) fn runtimes(view: &View<'_>) -> Told<Vec<RuntimeFile>> {
    let found = RUNTIME_FILES.iter().flat_map(|(owner, engine, pattern)| {
        let paths = files::matching(view.root.path(), pattern).unwrap_or_default();
        paths.into_iter().map(|path| runtime_file(view, owner, *engine, &path))
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        view.shows("etc")?;
    }
    Ok(found)
}

fn runtime_file(view: &View<'_>, owner: &'static str, engine: Engine, path: &Path) -> RuntimeFile {
    let text = files::read_text(path).map_err(|error| error.to_string());
    let shown = path.strip_prefix(view.root.path()).unwrap_or(path);
    RuntimeFile {
        owner,
        engine,
        path: format!("/{}", shown.display()),
        settings: text.and_then(|text| parse_runtime_settings(engine, &text)),
    }
}

pub(super) fn cdi(view: &View<'_>) -> Told<CdiFacts> {
    let mut facts = CdiFacts::default();
    let mut hidden = None;
    for (directory, places) in CDI_DIRECTORIES {
        match places.iter().find(|place| view.exists(place)) {
            Some(place) => facts.files.extend(cdi_files(view, directory, place)),
            None => {
                if let Err(why) = view.shows(places[0].split('/').next().unwrap_or_default()) {
                    hidden.get_or_insert(why);
                    continue;
                }
            }
        }
        facts.directories.push(directory.to_owned());
    }
    match hidden {
        Some(why) if facts.directories.is_empty() => Err(why),
        _ => Ok(facts),
    }
}

/// Those that a runtime reads: `.json` and `.yaml`.
fn cdi_files(view: &View<'_>, directory: &str, place: &str) -> Vec<CdiFile> {
    let listed = files::list_directory(&view.path(place)).unwrap_or_default();
    let names = listed.into_iter().map(|listed| listed.name);
    let is_read = |name: &String| {
        let extension = Path::new(name).extension();
        extension.is_some_and(|extension| extension == "json" || extension == "yaml")
    };
    names
        .filter(is_read)
        .map(|name| {
            let text = files::read_text(&view.path(place).join(&name));
            let spec = text.map_err(|error| error.to_string());
            let spec = spec.and_then(|text| parse_cdi_spec(&text));
            CdiFile { directory: directory.to_owned(), name, spec }
        })
        .collect()
}
