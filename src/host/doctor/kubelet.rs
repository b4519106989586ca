//! The kubelet's directories, sockets and processes.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::view::View;
use crate::host::files::{self, Listed};
use crate::host::sockets;
use crate::model::doctor::facts::{
    DirectoryContent, KnownRoots, KubeletFacts, KubeletProcess, Observed, Registered, SocketFile,
    Unavailable,
};
use crate::parse::doctor::checkpoint::{CHECKPOINT, parse_checkpoint};
use crate::parse::doctor::process::parse_kubelet_root;

const DIRECTORY: &str = "var/lib/kubelet/device-plugins";

/// Roots that kubelets are known to have: by default; of k0s, MicroK8s, k3s before 1.0, and RKE on
/// systems with a read-only /var/lib.
const ROOTS: [&str; 5] = [
    "/var/lib/kubelet",
    "/var/lib/k0s/kubelet",
    "/var/snap/microk8s/common/var/lib/kubelet",
    "/var/lib/rancher/k3s/agent/kubelet",
    "/opt/rke/var/lib/kubelet",
];

/// Longest command line that is read.
const LONGEST_COMMAND_LINE: u64 = 1 << 16;
/// Longest checkpoint that is read: one id is at most 63 characters.
const LONGEST_CHECKPOINT: u64 = 64 << 20;

pub(super) fn kubelet(view: &View<'_>, directory: Option<&Path>) -> KubeletFacts {
    let shown = directory.map_or(format!("/{DIRECTORY}"), |path| path.display().to_string());
    KubeletFacts {
        directory: shown,
        content: content(view, directory),
        processes: processes(view),
        roots: KnownRoots {
            with_plugins: roots(view, "device-plugins/kubelet.sock"),
            with_pod_resources: roots(view, "pod-resources/kubelet.sock"),
        },
    }
}

fn content(view: &View<'_>, named: Option<&Path>) -> Observed<DirectoryContent> {
    let directory = named.map_or_else(|| view.path(DIRECTORY), PathBuf::from);
    match files::list_directory(&directory) {
        Ok(listed) => {
            let found = || sockets_of(&directory, listed);
            let holds_sockets = named.is_some() || !view.root.is_unpacked();
            Ok(DirectoryContent::There {
                sockets: holds_sockets
                    .then(found)
                    .ok_or_else(|| Unavailable("a .node file holds no sockets".to_owned())),
                checkpoint: checkpoint(&directory.join(CHECKPOINT)),
            })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // The plugin needs it here, so that even a container's view tells.
            if named.is_none() && !view.root.is_this_machine() {
                view.shows("var")?;
            }
            Ok(DirectoryContent::Absent)
        }
        Err(error) => Err(Unavailable(format!("cannot list {}: {error}", directory.display()))),
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
    match files::read_start(path, LONGEST_CHECKPOINT) {
        Ok(bytes) => Some(parse_checkpoint(&bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(Err(error.to_string())),
    }
}

fn processes(view: &View<'_>) -> Observed<Vec<KubeletProcess>> {
    let listed = files::list_directory(&view.path("proc")).unwrap_or_default();
    let pids: Vec<u32> = listed.iter().filter_map(|listed| listed.name.parse().ok()).collect();
    let kubelet = |pid: &u32| {
        let path = view.path(&format!("proc/{pid}/cmdline"));
        let command_line = files::read_start(&path, LONGEST_COMMAND_LINE).ok()?;
        Some(KubeletProcess { pid: *pid, root_directory: parse_kubelet_root(&command_line)? })
    };
    let kubelets: Vec<_> = pids.iter().filter_map(kubelet).collect();
    if kubelets.is_empty() {
        view.shows("proc")?;
    }
    if pids.is_empty() {
        return Err(Unavailable("the root's /proc shows no processes".to_owned()));
    }
    Ok(kubelets)
}

/// Known roots with a socket of this name below.
fn roots(view: &View<'_>, socket: &str) -> Vec<String> {
    let has_socket =
        |root: &&str| sockets::is_socket(&view.path(root.trim_start_matches('/')).join(socket));
    ROOTS.iter().copied().filter(has_socket).map(str::to_owned).collect()
}
