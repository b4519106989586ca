//! Checks of what the kernel lets us hear.

use crate::model::doctor::facts::{InotifyFacts, UeventFacts};
use crate::model::doctor::finding::Finding;

/// The kernel's default of `fs.inotify.max_user_instances`, which busy nodes use up.
const DEFAULT_INSTANCES: u32 = 128;
/// The kernel's least default of `fs.inotify.max_user_watches`.
const DEFAULT_WATCHES: u32 = 8192;

pub(super) fn uevents(facts: &UeventFacts) -> Vec<Finding> {
    let slower = "the plugin then finds changes only by looking, each discovery.rescan";
    vec![match &facts.opened {
        Err(error) => Finding::warning(
            format!("no netlink socket for uevents can be opened: {error}; {slower}"),
            "allow AF_NETLINK in the container's seccomp profile (RuntimeDefault does)",
        ),
        Ok(()) if facts.in_user_namespace => Finding::warning(
            format!("this is a user namespace, to which the kernel sends no uevents; {slower}"),
            "leave hostUsers at true for the plugin's pod",
        ),
        Ok(()) => Finding::ok("a netlink socket for the kernel's uevents can be opened"),
    }]
}

pub(super) fn inotify(facts: &InotifyFacts) -> Vec<Finding> {
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
                "no directory can be watched: {error}; {limits}; the plugin then looks each second \
                 for a kubelet that has restarted"
            ),
            remedy,
        ),
        _ if is_default => Finding::note(format!(
            "{limits}: all containers of one user share them, and busy nodes use the kernel's \
             defaults up; the plugin does without, more slowly"
        ))
        .with_remedy(remedy),
        _ => Finding::ok(limits),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::shown;
    use super::*;

    #[track_caller]
    fn check_uevents(opened: Result<(), &str>, in_user_namespace: bool, expected: &str) {
        let opened = opened.map_err(str::to_owned);
        assert_eq!(shown(&uevents(&UeventFacts { opened, in_user_namespace })), [expected]);
    }

    #[test]
    fn uevents_need_netlink_and_the_first_user_namespace() {
        check_uevents(Ok(()), false, "ok: a netlink socket for the kernel's uevents can be opened");
        check_uevents(
            Err("denied"),
            false,
            "warning: no netlink socket for uevents can be opened: denied; the plugin then finds \
             changes only by looking, each discovery.rescan -> allow AF_NETLINK in the container's \
             seccomp profile (RuntimeDefault does)",
        );
        check_uevents(
            Ok(()),
            true,
            "warning: this is a user namespace, to which the kernel sends no uevents; the plugin \
             then finds changes only by looking, each discovery.rescan -> leave hostUsers at true \
             for the plugin's pod",
        );
    }

    #[track_caller]
    fn check_inotify(facts: (Option<u32>, Option<u32>, Option<Result<(), &str>>), expected: &str) {
        let (instances, watches, opened) = facts;
        let opened = opened.map(|opened| opened.map_err(str::to_owned));
        assert_eq!(shown(&inotify(&InotifyFacts { instances, watches, opened })), [expected]);
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
                "note: fs.inotify.max_user_instances is 128, max_user_watches 65536: all containers \
                 of one user share them, and busy nodes use the kernel's defaults up; the plugin \
                 does without, more slowly {REMEDY}"
            ),
        );
    }

    #[test]
    fn inotify_that_is_used_up_is_a_warning() {
        check_inotify(
            (Some(128), None, Some(Err("EMFILE: Too many open files"))),
            &format!(
                "warning: no directory can be watched: EMFILE: Too many open files; \
                 fs.inotify.max_user_instances is 128, max_user_watches unknown; the plugin then \
                 looks each second for a kubelet that has restarted {REMEDY}"
            ),
        );
    }
}
