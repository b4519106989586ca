//! What the kernel grants this process, and its limits.

use std::io;

use super::view::View;
use crate::host::directory_watch::DirectoryWatch;
use crate::host::files;
use crate::host::uevents::Uevents;
use crate::model::doctor::facts::{InotifyFacts, Observed, UeventFacts, Unavailable};
use crate::parse::attribute::parse_text;
use crate::parse::doctor::process::is_user_namespace;

pub(super) fn uevents(view: &View<'_>) -> Observed<UeventFacts> {
    if !view.root.is_this_machine() {
        return Err(Unavailable("only the machine itself sends uevents".to_owned()));
    }
    let uid_map = files::read_attribute(&view.path("proc/self/uid_map")).unwrap_or_default();
    let uid_map = String::from_utf8_lossy(&uid_map);
    Ok(UeventFacts {
        opened: Uevents::probe().map_err(|error| error.to_string()),
        in_user_namespace: !uid_map.is_empty() && is_user_namespace(&uid_map),
    })
}

pub(super) fn inotify(view: &View<'_>) -> Observed<InotifyFacts> {
    let limit = |name: &str| {
        let bytes = files::read_attribute(&view.path(&format!("proc/sys/fs/inotify/{name}")));
        parse_text(&bytes.ok()?).ok()?.parse().ok()
    };
    let (instances, watches) = (limit("max_user_instances"), limit("max_user_watches"));
    let is_here = view.root.is_this_machine();
    if instances.is_none() && watches.is_none() && !is_here {
        view.shows("proc")?;
        return Err(view.lacks("proc/sys/fs/inotify"));
    }
    let watch =
        || DirectoryWatch::probe(view.root.path()).map_err(|error: io::Error| error.to_string());
    Ok(InotifyFacts { instances, watches, opened: is_here.then(watch) })
}
