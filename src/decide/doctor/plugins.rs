//! Checks of other plugins: those that offer the same GPUs, and the stale sockets of ended ones.

use super::kubelet::{DirectoryState, directory_state};
use super::{and, count, findings_on, or_ok};
use crate::model::config::ResourceRule;
use crate::model::device::DeviceId;
use crate::model::doctor::facts::{
    KubeletFacts, Observed, Registered, RootFacts, SocketFile, SocketState, Unavailable,
};
use crate::model::doctor::finding::Finding;

/// The start of our sockets' names; the plugin that this one replaces has `iluvatar-gpu.sock` too.
const OURS: &str = "iluvatar-gpu";
/// A part of the names of the vendor's sockets and resources.
const VENDOR: &str = "iluvatar";

pub(super) fn other_plugin(
    kubelet: &KubeletFacts,
    root: &RootFacts,
    rules: &[ResourceRule],
) -> Vec<Finding> {
    let path = &kubelet.directory.path;
    findings_on(directory_state(&kubelet.directory, root), |state| match state {
        DirectoryState::Absent => vec![Finding::ok("no kubelet, so no other plugin")],
        DirectoryState::Listed { sockets, checkpoint } => {
            let mut findings = match checkpoint {
                Some(Ok(registered)) => of_checkpoint(registered, rules),
                Some(Err(why)) => vec![Finding::note(format!(
                    "{path}/kubelet_internal_checkpoint could not be read: {why}"
                ))],
                None => Vec::new(),
            };
            findings.extend(by_sockets(path, sockets, checkpoint.is_some()));
            or_ok(findings, || "no other plugin offers these GPUs".to_owned())
        }
    })
}

/// What the sockets show; a checkpoint is enough without them.
fn by_sockets(
    directory: &str,
    sockets: Observed<&[SocketFile]>,
    has_checkpoint: bool,
) -> Option<Finding> {
    match sockets {
        Ok(sockets) => of_sockets(directory, sockets),
        Err(_) if has_checkpoint => None,
        Err(Unavailable(why)) => Some(Finding::skipped(why)),
    }
}

/// Resources that the kubelet knows with ids that are not ours, and those of the vendor's other
/// plugins.
fn of_checkpoint(registered: &Registered, rules: &[ResourceRule]) -> Vec<Finding> {
    let finding = |(resource, ids): (&String, &Vec<String>)| {
        let foreign: Vec<_> = ids.iter().filter(|id| id.parse::<DeviceId>().is_err()).collect();
        let first = foreign.first()?;
        let (number, remedy) = (
            count(foreign.len(), "device"),
            "remove the other plugin's DaemonSet (`kubectl get daemonsets -A | grep -i -e \
             iluvatar -e ix-`); the kubelet drops its devices five minutes after it ends",
        );
        if rules.iter().any(|rule| rule.name == **resource) {
            return Some(Finding::failure(
                format!(
                    "another plugin offers {resource} to this kubelet: {number} such as \
                     `{first}`, while this plugin's ids are PCI addresses"
                ),
                remedy,
            ));
        }
        resource.starts_with(VENDOR).then(|| {
            Finding::warning(
                format!(
                    "another plugin offers {resource} to this kubelet, {number} such as \
                     `{first}`: the same GPUs may be allocated twice"
                ),
                remedy,
            )
        })
    };
    registered.iter().filter_map(finding).collect()
}

fn of_sockets(directory: &str, sockets: &[SocketFile]) -> Option<Finding> {
    let is_other = |name: &str| name.contains(VENDOR) && !name.starts_with(OURS);
    let live = sockets.iter().filter(|socket| socket.state == SocketState::Accepts);
    let others: Vec<_> = live
        .filter(|socket| is_other(&socket.name))
        .map(|socket| format!("{directory}/{}", socket.name))
        .collect();
    (!others.is_empty()).then(|| {
        Finding::warning(
            format!("another plugin of the vendor listens at {}", and(&others)),
            "find its process with `ss -xlp`, and let only one plugin offer the GPUs",
        )
    })
}

pub(super) fn stale_sockets(kubelet: &KubeletFacts, root: &RootFacts) -> Vec<Finding> {
    let path = &kubelet.directory.path;
    findings_on(directory_state(&kubelet.directory, root), |state| match state {
        DirectoryState::Absent => vec![Finding::ok("no kubelet directory, so no sockets")],
        DirectoryState::Listed { sockets, .. } => {
            findings_on(sockets, |sockets| stale(path, sockets))
        }
    })
}

/// The kubelet's own socket has a check of its own.
fn stale(directory: &str, sockets: &[SocketFile]) -> Vec<Finding> {
    let dead: Vec<_> = sockets
        .iter()
        .filter(|socket| socket.name != "kubelet.sock" && socket.state == SocketState::Refuses)
        .map(|socket| format!("{directory}/{}", socket.name))
        .collect();
    if dead.is_empty() {
        return vec![Finding::ok("no socket is left behind")];
    }
    let (verb, is_ours) = (
        if dead.len() == 1 { "refuses" } else { "refuse" },
        dead.iter().any(|path| path.starts_with(&format!("{directory}/{OURS}"))),
    );
    let whose = if is_ours { "; the plugin for Iluvatar GPUs is not running" } else { "" };
    vec![Finding::warning(
        format!("{} {verb} connections: the process that made it has ended{whose}", and(&dead)),
        format!(
            "start its plugin again, or remove it with `rm {}`; a kubelet removes \
             every socket there when it starts",
            dead.join(" ")
        ),
    )]
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::shown;
    use super::*;
    use crate::decide::doctor::sample_facts::{self, node};
    use crate::model::doctor::facts::PluginDirectoryContent;

    fn kubelet(
        sockets: &[(&str, SocketState)],
        registered: Option<&[(&str, &[&str])]>,
    ) -> KubeletFacts {
        let sockets = sockets
            .iter()
            .map(|(name, state)| SocketFile { name: (*name).to_owned(), state: state.clone() });
        let owned = |ids: &[&str]| ids.iter().map(ToString::to_string).collect();
        let checkpoint = registered.map(|registered| {
            Ok(registered.iter().map(|(name, ids)| ((*name).to_owned(), owned(ids))).collect())
        });
        let sockets = sockets.collect();
        sample_facts::kubelet(PluginDirectoryContent::Listed { sockets, checkpoint })
    }

    const REMEDY: &str = "-> remove the other plugin's DaemonSet (`kubectl get daemonsets -A | \
                          grep -i -e iluvatar -e ix-`); the kubelet drops its devices five \
                          minutes after it ends";

    #[track_caller]
    fn check_other(kubelet: &KubeletFacts, expected: &str) {
        assert_eq!(shown(&other_plugin(kubelet, &node(), &[ResourceRule::default()])), [expected]);
    }

    #[test]
    fn our_own_registration_is_no_other_plugin() {
        let ours: &[(&str, &[&str])] = &[
            ("iluvatar.com/gpu", &["0000:13:00.0", "0000:16:00.0::3"]),
            ("example.com/nic", &["eth0"]),
            ("iluvatar.ai/gpu", &[]),
        ];
        let ok = "ok: no other plugin offers these GPUs";
        check_other(&kubelet(&[("iluvatar-gpu.sock", SocketState::Accepts)], Some(ours)), ok);
        check_other(&kubelet(&[], None), ok);
    }

    #[test]
    fn a_plugin_with_the_same_resource_is_a_failure() {
        check_other(
            &kubelet(&[], Some(&[("iluvatar.com/gpu", &["GPU-1", "GPU-2"])])),
            &format!(
                "failure: another plugin offers iluvatar.com/gpu to this kubelet: 2 devices such \
                 as `GPU-1`, while this plugin's ids are PCI addresses {REMEDY}"
            ),
        );
    }

    #[test]
    fn a_plugin_with_another_resource_of_the_vendor_is_a_warning() {
        check_other(
            &kubelet(&[], Some(&[("iluvatar.ai/BI-V150-vgpu", &["x"])])),
            &format!(
                "warning: another plugin offers iluvatar.ai/BI-V150-vgpu to this kubelet, 1 \
                 device such as `x`: the same GPUs may be allocated twice {REMEDY}"
            ),
        );
    }

    #[test]
    fn another_live_socket_of_the_vendor_is_a_warning() {
        let sockets = [
            ("iluvatar-vgpu.sock", SocketState::Accepts),
            ("iluvatar-old.sock", SocketState::Refuses),
            ("nic.sock", SocketState::Accepts),
        ];
        check_other(
            &kubelet(&sockets, None),
            "warning: another plugin of the vendor listens at /k/iluvatar-vgpu.sock -> find its \
             process with `ss -xlp`, and let only one plugin offer the GPUs",
        );
    }

    #[test]
    fn a_checkpoint_that_cannot_be_read_is_a_note() {
        let mut kubelet = kubelet(&[], None);
        let content = &mut kubelet.directory.content;
        let PluginDirectoryContent::Listed { checkpoint, .. } = content else {
            panic!("it is listed")
        };
        *checkpoint = Some(Err("EOF".to_owned()));
        check_other(&kubelet, "note: /k/kubelet_internal_checkpoint could not be read: EOF");
    }

    #[test]
    fn sockets_that_refuse_are_left_behind() {
        let stale = |sockets: &[(&str, SocketState)]| {
            shown(&stale_sockets(&kubelet(sockets, None), &node()))
        };
        let live = ("iluvatar-gpu.sock", SocketState::Accepts);
        let kubelets = ("kubelet.sock", SocketState::Refuses);
        assert_eq!(stale(&[live, kubelets]), ["ok: no socket is left behind"]);
        assert_eq!(
            stale(&[("iluvatar-gpu.sock", SocketState::Refuses), ("b.sock", SocketState::Refuses)]),
            ["warning: /k/iluvatar-gpu.sock and /k/b.sock refuse connections: the process that \
                 made it has ended; the plugin for Iluvatar GPUs is not running -> start its \
                 plugin again, or remove it with `rm /k/iluvatar-gpu.sock /k/b.sock`; a kubelet \
                 removes every socket there when it starts"]
        );
        assert_eq!(
            stale(&[("b.sock", SocketState::Refuses)]),
            ["warning: /k/b.sock refuses connections: the process that made it has ended -> \
                 start its plugin again, or remove it with `rm /k/b.sock`; a kubelet removes \
                 every socket there when it starts"]
        );
    }
}
