//! The kubelet's directories, sockets and processes.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::block_on;
use super::root::below;
use crate::decide::dra::socket_paths;
use crate::host::files::{self, Listed};
use crate::host::root::Root;
use crate::host::{pod_resources, sockets};
use crate::model::doctor::facts::{
    KnownRoots, KubeletFacts, KubeletProcess, PathSource, PluginDirectory, PluginDirectoryContent,
    Registered, SocketFile,
};
use crate::model::pod_usage::HeldDevices;
use crate::parse::doctor::checkpoint::{CHECKPOINT, parse_checkpoint};
use crate::parse::doctor::process::parse_kubelet_root;

/// Below a root directory of a kubelet.
const POD_RESOURCES: &str = "pod-resources/kubelet.sock";
/// How long the kubelet may take to list its pods.
const POD_RESOURCES_TIMEOUT: Duration = Duration::from_secs(2);

const DIRECTORY: &str = "var/lib/kubelet/device-plugins";
const REGISTRY: &str = "var/lib/kubelet/plugins_registry";

/// Usual root directories of kubelets: the default; those of k0s, MicroK8s, k3s before 1.0, and RKE
/// on systems with a read-only /var/lib.
const ROOTS: [&str; 5] = [
    "/var/lib/kubelet",
    "/var/lib/k0s/kubelet",
    "/var/snap/microk8s/common/var/lib/kubelet",
    "/var/lib/rancher/k3s/agent/kubelet",
    "/opt/rke/var/lib/kubelet",
];

/// Longest command line that is read.
const COMMAND_LINE_LIMIT: u64 = 1 << 16;
/// Longest checkpoint that is read: one id is at most 63 characters.
const CHECKPOINT_LIMIT: u64 = 64 << 20;

pub(super) fn kubelet(root: &Root, directory: Option<&Path>) -> KubeletFacts {
    let (processes, kubelets) = processes(root);
    let beside = |directory: &Path| Some(directory.parent()?.join(socket_paths::REGISTRY));
    let registry = directory.and_then(beside);
    let with_pod_resources = roots(root, POD_RESOURCES);
    KubeletFacts {
        directory: plugin_directory(root, directory, DIRECTORY),
        registry: plugin_directory(root, registry.as_deref(), REGISTRY),
        processes,
        kubelets,
        roots: KnownRoots {
            with_plugins: roots(root, "device-plugins/kubelet.sock"),
            with_pod_resources: with_pod_resources.clone(),
        },
        held: with_pod_resources.first().map(|kubelet| held(root, kubelet)),
    }
}

fn plugin_directory(root: &Root, named: Option<&Path>, usual: &str) -> PluginDirectory {
    match named {
        Some(path) => PluginDirectory {
            path: path.display().to_string(),
            source: PathSource::Operator,
            content: content(path),
        },
        None => PluginDirectory {
            path: format!("/{usual}"),
            source: PathSource::Default,
            content: content(&below(root, usual)),
        },
    }
}

fn content(directory: &Path) -> PluginDirectoryContent {
    match files::list_directory(directory) {
        Ok(listed) => PluginDirectoryContent::Listed {
            sockets: sockets_of(directory, listed),
            checkpoint: checkpoint(&directory.join(CHECKPOINT)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => PluginDirectoryContent::Absent,
        Err(error) => PluginDirectoryContent::Unreadable(error.to_string()),
    }
}

fn sockets_of(directory: &Path, listed: Vec<Listed>) -> Vec<SocketFile> {
    listed
        .into_iter()
        .filter_map(|Listed { name, .. }| {
            let path = directory.join(&name);
            sockets::is_socket(&path).then(|| SocketFile { name, state: sockets::probe(&path) })
        })
        .collect()
}

fn checkpoint(path: &Path) -> Option<Result<Registered, String>> {
    match files::read_start(path, CHECKPOINT_LIMIT) {
        Ok(bytes) => Some(parse_checkpoint(&bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(Err(error.to_string())),
    }
}

/// Which pods hold which devices, by the kubelet with this root directory.
fn held(root: &Root, kubelet: &str) -> Result<HeldDevices, String> {
    let socket = below(root, kubelet.trim_start_matches('/')).join(POD_RESOURCES);
    let listed = block_on(pod_resources::list(&socket, POD_RESOURCES_TIMEOUT));
    listed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// How many processes there are, and which of them are kubelets.
fn processes(root: &Root) -> (usize, Vec<KubeletProcess>) {
    let listed = files::list_directory(&below(root, "proc")).unwrap_or_default();
    let pids: Vec<u32> = listed.iter().filter_map(|listed| listed.name.parse().ok()).collect();
    let kubelet = |pid: &u32| {
        let path = below(root, &format!("proc/{pid}/cmdline"));
        let command_line = files::read_start(&path, COMMAND_LINE_LIMIT).ok()?;
        Some(KubeletProcess { pid: *pid, root_directory: parse_kubelet_root(&command_line)? })
    };
    (pids.len(), pids.iter().filter_map(kubelet).collect())
}

/// Usual roots with a socket of this name below.
fn roots(root: &Root, socket: &str) -> Vec<String> {
    let has_socket = |directory: &&str| {
        sockets::is_socket(&below(root, directory.trim_start_matches('/')).join(socket))
    };
    ROOTS.iter().copied().filter(has_socket).map(str::to_owned).collect()
}
