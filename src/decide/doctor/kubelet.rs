//! Checks of the kubelet: its plugin directory, its socket, its root.

use super::{and, told, untold};
use crate::model::doctor::facts::{
    DirectoryContent, KnownRoots, KubeletFacts, KubeletProcess, Observed, SocketFile, SocketState,
};
use crate::model::doctor::finding::Finding;

/// The kubelet's root, unless `--root-dir` says otherwise.
const DEFAULT_ROOT: &str = "/var/lib/kubelet";
/// Below its root: where plugins register, and where it tells of pods.
const PLUGINS: &str = "device-plugins";
const POD_RESOURCES: &str = "pod-resources/kubelet.sock";
const KUBELET_SOCKET: &str = "kubelet.sock";

pub(super) fn directory(kubelet: &KubeletFacts) -> Vec<Finding> {
    let directory = &kubelet.directory;
    told(&kubelet.content, |content| match content {
        DirectoryContent::There { .. } => vec![Finding::ok(format!("{directory} is there"))],
        DirectoryContent::Absent => vec![absent(kubelet)],
    })
}

fn absent(kubelet: &KubeletFacts) -> Finding {
    let directory = &kubelet.directory;
    let KnownRoots { with_plugins, with_pod_resources } = &kubelet.roots;
    let elsewhere = if with_plugins.is_empty() { with_pod_resources } else { with_plugins };
    if elsewhere.is_empty() {
        return Finding::failure(
            format!("{directory} is not there: no kubelet has run here with device plugins"),
            "start the kubelet; in a container, mount the node's \
             /var/lib/kubelet/device-plugins at the same path",
        );
    }
    Finding::failure(
        format!("{directory} is not there, but {} has sockets of a kubelet", and(elsewhere)),
        format!(
            "upstream kubelets keep {DEFAULT_ROOT}/{PLUGINS} wherever their root is, so mount that \
             one; a distribution that moves it needs --kubelet-dir {}/{PLUGINS}",
            elsewhere[0]
        ),
    )
}

pub(super) fn socket(kubelet: &KubeletFacts) -> Vec<Finding> {
    told(&kubelet.content, |content| match content {
        DirectoryContent::Absent => {
            vec![Finding::note(format!("{} is not there, so no socket is", kubelet.directory))]
        }
        DirectoryContent::There { sockets, .. } => of_socket(&kubelet.directory, sockets),
    })
}

fn of_socket(directory: &str, sockets: &Observed<Vec<SocketFile>>) -> Vec<Finding> {
    let sockets = match sockets {
        Ok(sockets) => sockets,
        Err(why) => return vec![untold(why)],
    };
    let path = format!("{directory}/{KUBELET_SOCKET}");
    let start = "start the kubelet (`systemctl status kubelet`, `journalctl -u kubelet`)";
    let socket = sockets.iter().find(|socket| socket.name == KUBELET_SOCKET);
    vec![match socket.map(|socket| &socket.state) {
        None => Finding::failure(format!("{path} is not there: no kubelet listens"), start),
        Some(SocketState::Accepts) => Finding::ok(format!("{path} accepts connections")),
        Some(SocketState::Refuses) => Finding::failure(
            format!("{path} refuses connections: the kubelet that made it is gone"),
            start,
        ),
        Some(SocketState::Unclear(why)) => {
            Finding::note(format!("{path} is there, but could not be tried: {why}"))
        }
    }]
}

pub(super) fn root(kubelet: &KubeletFacts) -> Vec<Finding> {
    let with_pod_resources = &kubelet.roots.with_pod_resources;
    if with_pod_resources.iter().any(|root| root == DEFAULT_ROOT) {
        return vec![Finding::ok(format!("{DEFAULT_ROOT}/{POD_RESOURCES} is there"))];
    }
    let by_process = told(&kubelet.processes, |processes| of_processes(processes));
    match with_pod_resources.first() {
        // A process that tells is the better witness.
        Some(root) if by_process.iter().all(|finding| finding.remedy.is_none()) => {
            vec![moved(&format!("{root} has a kubelet's pod-resources socket"), root)]
        }
        _ => by_process,
    }
}

fn of_processes(processes: &[KubeletProcess]) -> Vec<Finding> {
    let moved = processes.iter().filter_map(|KubeletProcess { pid, root_directory }| {
        let root = root_directory.as_ref()?.trim_end_matches('/');
        let root_is = format!("the kubelet (process {pid}) runs with --root-dir={root}: its pod-resources socket is there");
        (root != DEFAULT_ROOT).then(|| moved(&root_is, root))
    });
    let moved: Vec<_> = moved.collect();
    match (&*moved, processes) {
        ([], []) => vec![Finding::note("no kubelet process is to be seen")],
        ([], _) => vec![Finding::ok("no kubelet names a root directory of its own")],
        _ => moved,
    }
}

fn moved(root_is: &str, root: &str) -> Finding {
    Finding::warning(
        format!(
            "{root_is}, and {DEFAULT_ROOT} has none; device plugins still register in \
             {DEFAULT_ROOT}/{PLUGINS}, which kubelets have fixed"
        ),
        format!(
            "set --pod-resources-socket {root}/{POD_RESOURCES} and mount that directory; leave \
             --kubelet-dir as it is"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::shown;
    use super::*;
    use crate::model::doctor::facts::Unavailable;

    fn with_sockets(sockets: &[(&str, SocketState)]) -> KubeletFacts {
        let sockets = sockets
            .iter()
            .map(|(name, state)| SocketFile { name: (*name).to_owned(), state: state.clone() });
        KubeletFacts {
            directory: "/k".to_owned(),
            content: Ok(DirectoryContent::There {
                sockets: Ok(sockets.collect()),
                checkpoint: None,
            }),
            processes: Ok(Vec::new()),
            roots: KnownRoots::default(),
        }
    }

    fn without_directory(roots: &[&str]) -> KubeletFacts {
        let mut kubelet = with_sockets(&[]);
        kubelet.content = Ok(DirectoryContent::Absent);
        kubelet.roots.with_plugins = roots.iter().map(ToString::to_string).collect();
        kubelet
    }

    type Judge = fn(&KubeletFacts) -> Vec<Finding>;

    #[track_caller]
    fn check(judge: Judge, kubelet: &KubeletFacts, expected: &str) {
        assert_eq!(shown(&judge(kubelet)), [expected]);
    }

    #[test]
    fn an_absent_directory_is_a_failure() {
        check(directory, &with_sockets(&[]), "ok: /k is there");
        check(
            directory,
            &without_directory(&[]),
            "failure: /k is not there: no kubelet has run here with device plugins -> start the \
             kubelet; in a container, mount the node's /var/lib/kubelet/device-plugins at the same \
             path",
        );
    }

    #[test]
    fn an_absent_directory_names_where_a_kubelet_is() {
        check(
            directory,
            &without_directory(&["/var/lib/k0s/kubelet"]),
            "failure: /k is not there, but /var/lib/k0s/kubelet has sockets of a kubelet -> \
             upstream kubelets keep /var/lib/kubelet/device-plugins wherever their root is, so \
             mount that one; a distribution that moves it needs --kubelet-dir \
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
                "failure: /k/kubelet.sock refuses connections: the kubelet that made it is gone \
                 {start}"
            ),
        );
        check(
            socket,
            &with_sockets(&[]),
            &format!("failure: /k/kubelet.sock is not there: no kubelet listens {start}"),
        );
        check(
            socket,
            &with(SocketState::Unclear("no rights".to_owned())),
            "note: /k/kubelet.sock is there, but could not be tried: no rights",
        );
        check(socket, &without_directory(&[]), "note: /k is not there, so no socket is");
    }

    fn with_process(root: Option<&str>) -> KubeletFacts {
        let root_directory = root.map(str::to_owned);
        let processes = Ok(vec![KubeletProcess { pid: 812, root_directory }]);
        KubeletFacts { processes, ..with_sockets(&[]) }
    }

    const MOVED: &str = ", and /var/lib/kubelet has none; device plugins still register in \
                         /var/lib/kubelet/device-plugins, which kubelets have fixed -> set \
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
        let ok = "ok: no kubelet names a root directory of its own";
        check(root, &with_process(Some("/var/lib/kubelet/")), ok);
        check(root, &with_process(None), ok);
        check(root, &with_sockets(&[]), "note: no kubelet process is to be seen");
    }

    #[test]
    fn sockets_elsewhere_tell_where_no_process_does() {
        let mut kubelet = with_sockets(&[]);
        kubelet.processes = Err(Unavailable("a test".to_owned()));
        check(root, &kubelet, "note: cannot be told from here: a test");
        kubelet.roots.with_pod_resources = vec!["/data".to_owned()];
        let sentence = format!("warning: /data has a kubelet's pod-resources socket{MOVED}");
        check(root, &kubelet, &sentence);
    }

    #[test]
    fn a_root_elsewhere_that_is_linked_from_the_default_is_well() {
        let mut kubelet = with_process(Some("/data"));
        kubelet.roots.with_pod_resources = vec!["/var/lib/kubelet".to_owned(), "/data".to_owned()];
        check(root, &kubelet, "ok: /var/lib/kubelet/pod-resources/kubelet.sock is there");
    }
}
