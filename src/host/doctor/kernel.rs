//! What the kernel grants this process, and its limits.

use std::io;

use super::root::below;
use crate::host::directory_watch::DirectoryWatch;
use crate::host::files;
use crate::host::root::Root;
use crate::host::uevents::Uevents;
use crate::model::doctor::facts::{InotifyFacts, UeventFacts};
use crate::parse::attribute::parse_text;
use crate::parse::doctor::process::is_user_namespace;

pub(super) fn uevents(root: &Root) -> Option<UeventFacts> {
    if !root.is_this_machine() {
        return None;
    }
    let uid_map = files::read_attribute(&below(root, "proc/self/uid_map")).unwrap_or_default();
    let uid_map = String::from_utf8_lossy(&uid_map);
    Some(UeventFacts {
        opened: Uevents::probe().map_err(|error| error.to_string()),
        in_user_namespace: !uid_map.is_empty() && is_user_namespace(&uid_map),
    })
}

pub(super) fn inotify(root: &Root) -> InotifyFacts {
    let limit = |name: &str| {
        let path = below(root, &format!("proc/sys/fs/inotify/{name}"));
        parse_text(&files::read_attribute(&path).ok()?).ok()?.parse().ok()
    };
    let watch = || DirectoryWatch::probe(root.path()).map_err(|error: io::Error| error.to_string());
    InotifyFacts {
        instances: limit("max_user_instances"),
        watches: limit("max_user_watches"),
        opened: root.is_this_machine().then(watch),
    }
}
