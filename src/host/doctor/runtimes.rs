//! Files of container runtimes: their configuration, and CDI.

use std::io::ErrorKind;

use super::view::View;
use crate::host::files::{self, Listed};
use crate::model::doctor::facts::{CdiFacts, CdiFile, Engine, Observed, RuntimeFile, Unavailable};
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

pub(super) fn runtimes(view: &View<'_>) -> Observed<Vec<RuntimeFile>> {
    let found = RUNTIME_FILES.iter().flat_map(|(owner, engine, place)| {
        let file = |(path, text)| RuntimeFile {
            owner,
            engine: *engine,
            path,
            settings: Result::and_then(text, |text: String| parse_runtime_settings(*engine, &text)),
        };
        texts(view, place).into_iter().map(file)
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        view.shows("etc")?;
    }
    Ok(found)
}

/// Each file at a place, by the node's own path, with its text or why there is none. Nothing is
/// there only where that is certain.
fn texts(view: &View<'_>, place: &str) -> Vec<(String, Result<String, String>)> {
    let paths = match place.rsplit_once('/') {
        Some((directory, name)) if name.contains('*') => {
            match files::list_directory(&view.path(directory)) {
                Ok(listed) => drop_ins(directory, name.trim_start_matches('*'), listed),
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                Err(error) => return vec![(format!("/{directory}"), Err(error.to_string()))],
            }
        }
        _ => vec![place.to_owned()],
    };
    let read = |path: String| match files::read_text(&view.path(&path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        text => Some((format!("/{path}"), text.map_err(|error| error.to_string()))),
    };
    paths.into_iter().filter_map(read).collect()
}

fn drop_ins(directory: &str, suffix: &str, listed: Vec<Listed>) -> Vec<String> {
    let names = listed.into_iter().filter(|it| !it.is_directory && it.name.ends_with(suffix));
    names.map(|it| format!("{directory}/{}", it.name)).collect()
}

pub(super) fn cdi(view: &View<'_>) -> CdiFacts {
    let mut facts = CdiFacts::default();
    for (directory, places) in CDI_DIRECTORIES {
        match cdi_files(view, directory, places) {
            Ok(files) => {
                facts.files.extend(files);
                facts.directories.push(directory.to_owned());
            }
            Err(why) => {
                facts.hidden.get_or_insert(why);
            }
        }
    }
    facts
}

/// Those that a runtime reads: `.json` and `.yaml`.
fn cdi_files(view: &View<'_>, directory: &str, places: &[&str]) -> Observed<Vec<CdiFile>> {
    let Some(place) = places.iter().find(|place| view.exists(place)) else {
        let (top, _) = places[0].split_once('/').unwrap_or_default();
        return view.shows(top).map(|()| Vec::new());
    };
    files::list_directory(&view.path(place))
        .map_err(|error| Unavailable(format!("cannot list {directory}: {error}")))?;
    let json = texts(view, &format!("{place}/*.json"));
    let yaml = texts(view, &format!("{place}/*.yaml"));
    let file = |(path, text): (String, Result<String, String>)| CdiFile {
        directory: directory.to_owned(),
        name: path.rsplit('/').next().unwrap_or_default().to_owned(),
        spec: text.and_then(|text| parse_cdi_spec(&text)),
    };
    Ok(json.into_iter().chain(yaml).map(file).collect())
}
