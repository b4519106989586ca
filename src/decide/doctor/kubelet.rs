//! Checks of the kubelet: its plugin directory, its socket, its root.

use super::{and, findings_on, visibility};
use crate::model::doctor::facts::{
    KnownRoots, KubeletFacts, KubeletProcess, Observed, PathSource, PluginDirectory,
    PluginDirectoryContent, Registered, RootFacts, RootKind, SocketFile, SocketState, Unavailable,
};
use crate::model::doctor::finding::Finding;

/// The kubelet's root, unless `--root-dir` names another.
const DEFAULT_ROOT: &str = "/var/lib/kubelet";
/// Below its root: where plugins register, and where it reports the pods' devices.
const PLUGINS: &str = "device-plugins";
const POD_RESOURCES: &str = "pod-resources/kubelet.sock";
const KUBELET_SOCKET: &str = "kubelet.sock";

/// What is known of the plugin directory.
pub(super) enum DirectoryState<'a> {
    /// It does not exist.
    Absent,
    /// It exists.
    Listed {
        sockets: Observed<&'a [SocketFile]>,
        checkpoint: Option<&'a Result<Registered, String>>,
    },
}

/// What the directory's content proves on this root.
pub(super) fn directory_state<'a>(
    directory: &'a PluginDirectory,
    root: &RootFacts,
) -> Observed<DirectoryState<'a>> {
    let is_default = directory.source == PathSource::Default;
    match &directory.content {
        PluginDirectoryContent::Absent => {
            // The plugin itself needs the directory, so a container must show it too.
            if is_default && root.kind != RootKind::ThisMachine {
                visibility::shows(root, "var")?;
            }
            Ok(DirectoryState::Absent)
        }
        PluginDirectoryContent::Unreadable(error) => {
            Err(Unavailable(format!("cannot list {}: {error}", directory.path)))
        }
        PluginDirectoryContent::Listed { sockets, checkpoint } => {
            let holds_none = is_default && root.kind == RootKind::NodeFile;
            let unavailable = || Unavailable("a .node file holds no sockets".to_owned());
            let sockets = if holds_none { Err(unavailable()) } else { Ok(&**sockets) };
            Ok(DirectoryState::Listed { sockets, checkpoint: checkpoint.as_ref() })
        }
    }
}

pub(super) fn directory(kubelet: &KubeletFacts, root: &RootFacts) -> Vec<Finding> {
    let path = &kubelet.directory.path;
    findings_on(directory_state(&kubelet.directory, root), |state| match state {
        DirectoryState::Listed { .. } => vec![Finding::ok(format!("{path} exists"))],
        DirectoryState::Absent => vec![absent(kubelet)],
    })
}

fn absent(kubelet: &KubeletFacts) -> Finding {
    let path = &kubelet.directory.path;
    let KnownRoots { with_plugins, with_pod_resources } = &kubelet.roots;
    let elsewhere = if with_plugins.is_empty() { with_pod_resources } else { with_plugins };
    if elsewhere.is_empty() {
        return Finding::failure(
            format!("{path} does not exist: no kubelet has run here with device plugins"),
            "start the kubelet; in a container, mount the node's \
             /var/lib/kubelet/device-plugins at the same path",
        );
    }
    Finding::failure(
        format!("{path} does not exist, but {} has sockets of a kubelet", and(elsewhere)),
        format!(
            "upstream kubelets use {DEFAULT_ROOT}/{PLUGINS} wherever their root is, so mount \
             that; for a distribution that moves it, set --kubelet-dir {}/{PLUGINS}",
            elsewhere[0]
        ),
    )
}

pub(super) fn socket(kubelet: &KubeletFacts, root: &RootFacts) -> Vec<Finding> {
    let path = &kubelet.directory.path;
    findings_on(directory_state(&kubelet.directory, root), |state| match state {
        DirectoryState::Absent => {
            vec![Finding::note(format!("{path} does not exist, so no socket does"))]
        }
        DirectoryState::Listed { sockets, .. } => {
            findings_on(sockets, |sockets| vec![of_socket(path, sockets)])
        }
    })
}

fn of_socket(directory: &str, sockets: &[SocketFile]) -> Finding {
    let path = format!("{directory}/{KUBELET_SOCKET}");
    let start = "start the kubelet (`systemctl status kubelet`, `journalctl -u kubelet`)";
    let socket = sockets.iter().find(|socket| socket.name == KUBELET_SOCKET);
    match socket.map(|socket| &socket.state) {
        None => Finding::failure(format!("{path} does not exist: no kubelet listens"), start),
        Some(SocketState::Accepts) => Finding::ok(format!("{path} accepts connections")),
        Some(SocketState::Refuses) => Finding::failure(
            format!("{path} refuses connections: the kubelet that made it has ended"),
            start,
        ),
        Some(SocketState::Unclear(why)) => {
            Finding::note(format!("{path} exists, but cannot be tried: {why}"))
        }
    }
}

pub(super) fn root(kubelet: &KubeletFacts, root: &RootFacts) -> Vec<Finding> {
    let with_pod_resources = &kubelet.roots.with_pod_resources;
    if with_pod_resources.iter().any(|root| root == DEFAULT_ROOT) {
        return vec![Finding::ok(format!("{DEFAULT_ROOT}/{POD_RESOURCES} exists"))];
    }
    let by_process = findings_on(processes(kubelet, root), of_processes);
    match with_pod_resources.first() {
        // A command line is better evidence than a socket.
        Some(root) if by_process.iter().all(|finding| finding.remedy.is_none()) => {
            vec![moved(&format!("{root} has a kubelet's pod-resources socket"), root)]
        }
        _ => by_process,
    }
}

fn processes<'a>(kubelet: &'a KubeletFacts, root: &RootFacts) -> Observed<&'a [KubeletProcess]> {
    if kubelet.kubelets.is_empty() {
        visibility::shows(root, "proc")?;
    }
    if kubelet.processes == 0 {
        return Err(Unavailable("the root's /proc shows no processes".to_owned()));
    }
    Ok(&kubelet.kubelets)
}

fn of_processes(processes: &[KubeletProcess]) -> Vec<Finding> {
    let moved = processes.iter().filter_map(|KubeletProcess { pid, root_directory }| {
        let root = root_directory.as_ref()?.trim_end_matches('/');
        let root_is = format!(
            "the kubelet (process {pid}) runs with --root-dir={root}: its \
                               pod-resources socket is there"
        );
        (root != DEFAULT_ROOT).then(|| moved(&root_is, root))
    });
    let moved: Vec<_> = moved.collect();
    match (&*moved, processes) {
        ([], []) => vec![Finding::note("no kubelet process found")],
        ([], _) => vec![Finding::ok("no kubelet process sets --root-dir to another directory")],
        _ => moved,
    }
}

fn moved(root_is: &str, root: &str) -> Finding {
    Finding::warning(
        format!(
            "{root_is}, and {DEFAULT_ROOT} has none; device plugins still register in \
             {DEFAULT_ROOT}/{PLUGINS}, which is fixed in kubelets"
        ),
        format!(
            "set --pod-resources-socket {root}/{POD_RESOURCES} and mount that directory; leave \
             --kubelet-dir as it is"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::{self, kubelet, node, shown};
    use super::*;

    fn with_sockets(sockets: &[(&str, SocketState)]) -> KubeletFacts {
        let sockets = sockets
            .iter()
            .map(|(name, state)| SocketFile { name: (*name).to_owned(), state: state.clone() });
        kubelet(PluginDirectoryContent::Listed { sockets: sockets.collect(), checkpoint: None })
    }

    fn without_directory(roots: &[&str]) -> KubeletFacts {
        let mut kubelet = kubelet(PluginDirectoryContent::Absent);
        kubelet.roots.with_plugins = roots.iter().map(ToString::to_string).collect();
        kubelet
    }

    type KubeletCheck = fn(&KubeletFacts, &RootFacts) -> Vec<Finding>;

    #[track_caller]
    fn check(check: KubeletCheck, kubelet: &KubeletFacts, expected: &str) {
        assert_eq!(shown(&check(kubelet, &node())), [expected]);
    }

    #[test]
    fn an_absent_directory_is_a_failure() {
        check(directory, &with_sockets(&[]), "ok: /k exists");
        check(
            directory,
            &without_directory(&[]),
            "failure: /k does not exist: no kubelet has run here with device plugins -> start the \
             kubelet; in a container, mount the node's /var/lib/kubelet/device-plugins at the \
             same path",
        );
    }

    #[test]
    fn an_absent_directory_names_where_a_kubelet_is() {
        check(
            directory,
            &without_directory(&["/var/lib/k0s/kubelet"]),
            "failure: /k does not exist, but /var/lib/k0s/kubelet has sockets of a kubelet -> \
             upstream kubelets use /var/lib/kubelet/device-plugins wherever their root is, so \
             mount that; for a distribution that moves it, set --kubelet-dir \
             /var/lib/k0s/kubelet/device-plugins",
        );
    }

    #[test]
    fn the_kubelets_socket_must_accept() {
        let start = "-> start the kubelet (`systemctl status kubelet`, `journalctl -u kubelet`)";
        let with = |state| with_sockets(&[("kubelet.sock", state)]);
        check(socket, &with(SocketState::Accepts), "ok: /k/kubelet.sock accepts connections");
        check(
            socket,
            &with(SocketState::Refuses),
            &format!(
                "failure: /k/kubelet.sock refuses connections: the kubelet that made it has ended \
                 {start}"
            ),
        );
        check(
            socket,
            &with_sockets(&[]),
            &format!("failure: /k/kubelet.sock does not exist: no kubelet listens {start}"),
        );
        check(
            socket,
            &with(SocketState::Unclear("no rights".to_owned())),
            "note: /k/kubelet.sock exists, but cannot be tried: no rights",
        );
        check(socket, &without_directory(&[]), "note: /k does not exist, so no socket does");
    }

    fn with_process(root: Option<&str>) -> KubeletFacts {
        let root_directory = root.map(str::to_owned);
        let kubelets = vec![KubeletProcess { pid: 812, root_directory }];
        KubeletFacts { kubelets, ..with_sockets(&[]) }
    }

    const MOVED: &str = ", and /var/lib/kubelet has none; device plugins still register in \
                         /var/lib/kubelet/device-plugins, which is fixed in kubelets -> set \
                         --pod-resources-socket /data/pod-resources/kubelet.sock and mount that \
                         directory; leave --kubelet-dir as it is";

    #[test]
    fn a_kubelet_with_another_root_is_a_warning() {
        check(
            root,
            &with_process(Some("/data/")),
            &format!(
                "warning: the kubelet (process 812) runs with --root-dir=/data: its pod-resources \
                 socket is there{MOVED}"
            ),
        );
        let ok = "ok: no kubelet process sets --root-dir to another directory";
        check(root, &with_process(Some("/var/lib/kubelet/")), ok);
        check(root, &with_process(None), ok);
        check(root, &with_sockets(&[]), "note: no kubelet process found");
    }

    #[test]
    fn sockets_elsewhere_count_where_no_process_is_visible() {
        let mut kubelet = with_sockets(&[]);
        kubelet.processes = 0;
        check(root, &kubelet, "skipped: the root's /proc shows no processes");
        kubelet.roots.with_pod_resources = vec!["/data".to_owned()];
        let sentence = format!("warning: /data has a kubelet's pod-resources socket{MOVED}");
        check(root, &kubelet, &sentence);
    }

    #[test]
    fn a_root_elsewhere_that_is_linked_from_the_default_is_well() {
        let mut kubelet = with_process(Some("/data"));
        kubelet.roots.with_pod_resources = vec!["/var/lib/kubelet".to_owned(), "/data".to_owned()];
        check(root, &kubelet, "ok: /var/lib/kubelet/pod-resources/kubelet.sock exists");
    }

    #[test]
    fn a_directory_that_the_root_does_not_show_is_skipped() {
        let file = sample_facts::root(RootKind::NodeFile, &[]);
        let skipped = ["skipped: the .node file has no /var"];
        assert_eq!(shown(&directory(&without_directory(&[]), &file)), skipped);
        let named =
            PluginDirectory { source: PathSource::Operator, ..without_directory(&[]).directory };
        let named = KubeletFacts { directory: named, ..without_directory(&[]) };
        assert!(shown(&directory(&named, &file))[0].starts_with("failure: /k does not exist"));
    }

    #[test]
    fn a_directory_that_cannot_be_listed_is_skipped() {
        let unreadable = kubelet(PluginDirectoryContent::Unreadable("EACCES".to_owned()));
        check(directory, &unreadable, "skipped: cannot list /k: EACCES");
    }

    #[test]
    fn the_sockets_of_a_node_file_are_skipped() {
        let file = sample_facts::root(RootKind::NodeFile, &["var"]);
        let skipped = ["skipped: a .node file holds no sockets"];
        assert_eq!(shown(&socket(&with_sockets(&[]), &file)), skipped);
    }
}
