//! The file of `discovery.identities`, followed while the daemon runs. A change leads to a scan,
//! which reads the file: the event is a hint.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::host::directory_watch::DirectoryWatch;
use crate::host::files::{self, FileVersion};
use crate::model::config::Config;
use crate::model::rescan::RescanTrigger;

/// How often to check the file without inotify.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How often to check it while inotify reports its changes.
const WATCHED_INTERVAL: Duration = Duration::from_secs(10);

/// Follows the file that the configuration names.
pub struct IdentitiesWatch {
    config: watch::Receiver<Arc<Config>>,
    triggers: mpsc::Sender<RescanTrigger>,
    inotify: bool,
    /// The file that a scan has read or will read: path and version.
    seen: Option<(PathBuf, Option<FileVersion>)>,
}

impl IdentitiesWatch {
    /// Follows the file of `config`; each change is a trigger.
    #[must_use]
    pub fn new(
        config: watch::Receiver<Arc<Config>>,
        triggers: mpsc::Sender<RescanTrigger>,
        inotify: bool,
    ) -> Self {
        Self { config, triggers, inotify, seen: None }
    }

    /// Follows until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let path = self.config.borrow_and_update().discovery.identities.clone();
            let mut config = self.config.clone();
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = config.changed() => {}
                () = self.follow(path) => {}
            }
        }
    }

    /// Follows one file, and never ends.
    async fn follow(&mut self, path: Option<PathBuf>) {
        let Some(path) = path else { return std::future::pending().await };
        let mut watch = None;
        loop {
            let directory = path.parent().filter(|_| self.inotify && watch.is_none());
            watch = watch.or_else(|| DirectoryWatch::open_with_contents(directory?).ok());
            let interval = if watch.is_some() { WATCHED_INTERVAL } else { POLL_INTERVAL };
            self.check(&path).await;
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                result = DirectoryWatch::changed_or_never(watch.as_ref()) => {
                    if result.is_err() {
                        watch = None;
                    }
                    // Two changes in one tick of the kernel's clock have the same version.
                    self.seen = None;
                }
            }
        }
    }

    /// Requests a scan if the file differs from the one that was seen last.
    async fn check(&mut self, path: &Path) {
        let seen = (path.to_owned(), files::stamp(path).ok());
        if self.seen.as_ref() != Some(&seen) {
            self.seen = Some(seen);
            // It fails only while the daemon ends.
            let _ = self.triggers.send(RescanTrigger::Identities).await;
        }
    }
}
