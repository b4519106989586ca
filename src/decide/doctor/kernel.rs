//! Checks of uevents and inotify.

use super::visibility;
use crate::model::doctor::facts::{InotifyFacts, RootFacts, UeventFacts};
use crate::model::doctor::finding::Finding;

/// The kernel's default of `fs.inotify.max_user_instances`, which busy nodes use up.
const DEFAULT_INSTANCES: u32 = 128;
/// The kernel's least default of `fs.inotify.max_user_watches`.
const DEFAULT_WATCHES: u32 = 8192;

pub(super) fn uevents(facts: Option<&UeventFacts>) -> Vec<Finding> {
    let Some(facts) = facts else {
        return vec![Finding::skipped("only the machine itself sends uevents")];
    };
    let slower = "the plugin then finds changes only by polling, every discovery.rescan";
    vec![match &facts.opened {
        Err(error) => Finding::warning(
            format!("no netlink socket for uevents can be opened: {error}; {slower}"),
            "allow AF_NETLINK in the container's seccomp profile (RuntimeDefault does)",
        ),
        Ok(()) if facts.in_user_namespace => Finding::warning(
            format!("this is a user namespace, to which the kernel sends no uevents; {slower}"),
            "do not set hostUsers: false on the plugin's pod",
        ),
        Ok(()) => Finding::ok("a netlink socket for the kernel's uevents can be opened"),
    }]
}

pub(super) fn inotify(facts: &InotifyFacts, root: &RootFacts) -> Vec<Finding> {
    let is_unknown = facts.instances.is_none() && facts.watches.is_none();
    if is_unknown && facts.opened.is_none() {
        let why = visibility::shows(root, "proc").err();
        let why = why.unwrap_or_else(|| visibility::lacks(root, "proc/sys/fs/inotify"));
        return vec![Finding::skipped(why.0)];
    }
    let (instances, watches) = (facts.instances, facts.watches);
    let shown = |limit: Option<u32>| limit.map_or("unknown".to_owned(), |limit| limit.to_string());
    let limits = format!(
        "fs.inotify.max_user_instances is {}, max_user_watches {}",
        shown(instances),
        shown(watches)
    );
    let remedy = "`sysctl -w fs.inotify.max_user_instances=1024 \
                  fs.inotify.max_user_watches=524288`, and the same in /etc/sysctl.d";
    let is_default = instances.is_some_and(|limit| limit <= DEFAULT_INSTANCES)
        || watches.is_some_and(|limit| limit <= DEFAULT_WATCHES);
    vec![match &facts.opened {
        Some(Err(error)) => Finding::warning(
            format!(
                "no directory can be watched: {error}; {limits}; the plugin then polls every \
                 second for a kubelet restart"
            ),
            remedy,
        ),
        _ if is_default => Finding::note(format!(
            "{limits}: all containers of a user share these kernel defaults, and busy nodes \
             exhaust them; the plugin then polls"
        ))
        .with_remedy(remedy),
        _ => Finding::ok(limits),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::{self, node, shown};
    use super::*;
    use crate::model::doctor::facts::RootKind;

    #[track_caller]
    fn check_uevents(opened: Result<(), &str>, in_user_namespace: bool, expected: &str) {
        let opened = opened.map_err(str::to_owned);
        assert_eq!(shown(&uevents(Some(&UeventFacts { opened, in_user_namespace }))), [expected]);
    }

    #[test]
    fn uevents_need_netlink_and_the_first_user_namespace() {
        check_uevents(
            Ok(()),
            false,
            "ok: a netlink socket for the kernel's uevents can be \
                                      opened",
        );
        check_uevents(
            Err("denied"),
            false,
            "warning: no netlink socket for uevents can be opened: denied; the plugin then finds \
             changes only by polling, every discovery.rescan -> allow AF_NETLINK in the \
             container's seccomp profile (RuntimeDefault does)",
        );
        check_uevents(
            Ok(()),
            true,
            "warning: this is a user namespace, to which the kernel sends no uevents; the plugin \
             then finds changes only by polling, every discovery.rescan -> do not set hostUsers: \
             false on the plugin's pod",
        );
    }

    #[track_caller]
    fn check_inotify(facts: (Option<u32>, Option<u32>, Option<Result<(), &str>>), expected: &str) {
        let (instances, watches, opened) = facts;
        let opened = opened.map(|opened| opened.map_err(str::to_owned));
        assert_eq!(
            shown(&inotify(&InotifyFacts { instances, watches, opened }, &node())),
            [expected]
        );
    }

    const REMEDY: &str = "-> `sysctl -w fs.inotify.max_user_instances=1024 \
                          fs.inotify.max_user_watches=524288`, and the same in /etc/sysctl.d";

    #[test]
    fn inotify_is_well_above_the_defaults_and_noted_at_them() {
        check_inotify(
            (Some(1024), Some(65536), Some(Ok(()))),
            "ok: fs.inotify.max_user_instances is 1024, max_user_watches 65536",
        );
        check_inotify(
            (Some(128), Some(65536), None),
            &format!(
                "note: fs.inotify.max_user_instances is 128, max_user_watches 65536: all \
                 containers of a user share these kernel defaults, and busy nodes exhaust them; \
                 the plugin then polls {REMEDY}"
            ),
        );
    }

    #[test]
    fn what_only_the_machine_itself_knows_is_skipped_elsewhere() {
        assert_eq!(shown(&uevents(None)), ["skipped: only the machine itself sends uevents"]);
        let unknown = InotifyFacts { instances: None, watches: None, opened: None };
        let check = |directories: &[&str]| {
            shown(&inotify(&unknown, &sample_facts::root(RootKind::NodeFile, directories)))
        };
        assert_eq!(check(&[]), ["skipped: the .node file has no /proc"]);
        assert_eq!(check(&["proc"]), ["skipped: the .node file has no /proc/sys/fs/inotify"]);
    }

    #[test]
    fn inotify_that_is_used_up_is_a_warning() {
        check_inotify(
            (Some(128), None, Some(Err("EMFILE: Too many open files"))),
            &format!(
                "warning: no directory can be watched: EMFILE: Too many open files; \
                 fs.inotify.max_user_instances is 128, max_user_watches unknown; the plugin then \
                 polls every second for a kubelet restart {REMEDY}"
            ),
        );
    }
}
