//! Files of container runtimes: their configuration, and CDI.

use std::io::ErrorKind;

use super::root::below;
use crate::host::files::{self, Listed};
use crate::host::root::Root;
use crate::model::doctor::facts::{CdiDirectoryFacts, CdiFile, Engine, RuntimeFile};
use crate::parse::doctor::cdi_spec::parse_cdi_spec;
use crate::parse::doctor::runtime_settings::parse_runtime_settings;

/// Configuration files by the program that reads them, in its order; k3s, RKE2, k0s and MicroK8s
/// bring a containerd of their own.
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

/// Configuration directories of toolkits that bring a runtime of their own.
const TOOLKIT_DIRECTORIES: [&str; 2] = ["etc/iluvatarcorex", "etc/accelerator-toolkit"];

/// Each CDI directory as operators know it and, for roots whose `/var/run` is an absolute link, as
/// it may be found. The second one is the stronger.
const CDI_DIRECTORIES: [(&str, &[&str]); 2] =
    [("/etc/cdi", &["etc/cdi"]), ("/var/run/cdi", &["run/cdi", "var/run/cdi"])];

pub(super) fn runtimes(root: &Root) -> Vec<RuntimeFile> {
    let found = RUNTIME_FILES.iter().flat_map(|(owner, engine, place)| {
        let file = |(path, text)| RuntimeFile {
            owner,
            engine: *engine,
            path,
            settings: Result::and_then(text, |text: String| parse_runtime_settings(*engine, &text)),
        };
        texts(root, place).into_iter().map(file)
    });
    found.collect()
}

/// Each file at a place, by the node's own path, with its text or the error. A file that does not
/// exist is left out; one that cannot be read is not.
fn texts(root: &Root, place: &str) -> Vec<(String, Result<String, String>)> {
    let paths = match place.rsplit_once('/') {
        Some((directory, name)) if name.contains('*') => {
            match files::list_directory(&below(root, directory)) {
                Ok(listed) => drop_ins(directory, name.trim_start_matches('*'), listed),
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                Err(error) => return vec![(format!("/{directory}"), Err(error.to_string()))],
            }
        }
        _ => vec![place.to_owned()],
    };
    let read = |path: String| match files::read_text(&below(root, &path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        text => Some((format!("/{path}"), text.map_err(|error| error.to_string()))),
    };
    paths.into_iter().filter_map(read).collect()
}

fn drop_ins(directory: &str, suffix: &str, listed: Vec<Listed>) -> Vec<String> {
    let names = listed.into_iter().filter(|it| !it.is_directory && it.name.ends_with(suffix));
    names.map(|it| format!("{directory}/{}", it.name)).collect()
}

pub(super) fn toolkit_directories(root: &Root) -> Vec<String> {
    let found = TOOLKIT_DIRECTORIES.iter().filter(|place| files::exists(&below(root, place)));
    found.map(|place| format!("/{place}")).collect()
}

pub(super) fn cdi(root: &Root) -> Vec<CdiDirectoryFacts> {
    let directory = |(path, places): (&str, &[&str])| {
        let place = places.iter().find(|place| files::exists(&below(root, place)));
        CdiDirectoryFacts {
            path: path.to_owned(),
            files: place.map(|place| cdi_files(root, path, place)),
        }
    };
    CDI_DIRECTORIES.into_iter().map(directory).collect()
}

/// Those that a runtime reads: `.json` and `.yaml`.
fn cdi_files(root: &Root, directory: &str, place: &str) -> Result<Vec<CdiFile>, String> {
    files::list_directory(&below(root, place)).map_err(|error| error.to_string())?;
    let json = texts(root, &format!("{place}/*.json"));
    let yaml = texts(root, &format!("{place}/*.yaml"));
    let file = |(path, text): (String, Result<String, String>)| CdiFile {
        directory: directory.to_owned(),
        name: path.rsplit('/').next().unwrap_or_default().to_owned(),
        spec: text.and_then(|text| parse_cdi_spec(&text)),
    };
    Ok(json.into_iter().chain(yaml).map(file).collect())
}
