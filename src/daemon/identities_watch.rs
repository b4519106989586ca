//! The file of `discovery.identities`, followed while the daemon runs. A change leads to a scan,
//! which reads the file: the event is a hint.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::directory_follower::{CheckIntervals, CheckReason, DirectoryFollower};
use crate::host::directory_watch::DirectoryWatch;
use crate::host::files::{self, FileVersion};
use crate::model::config::Config;
use crate::model::rescan::RescanTrigger;

/// How often to check the file.
const INTERVALS: CheckIntervals = CheckIntervals {
    first: Duration::ZERO,
    polled: Duration::from_secs(1),
    watched: Duration::from_secs(10),
};

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

    /// Follows until `stop`, for a daemon that began at `started`.
    pub async fn run(mut self, started: Instant, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let path = self.config.borrow_and_update().discovery.identities.clone();
            let mut config = self.config.clone();
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = config.changed() => {}
                () = self.follow(path, started) => {}
            }
        }
    }

    /// Follows one file, and never ends.
    async fn follow(&mut self, path: Option<PathBuf>, started: Instant) {
        let Some(path) = path else { return std::future::pending().await };
        let mut follower = DirectoryFollower::new(self.inotify, started);
        let open = || DirectoryWatch::open_with_contents(path.parent()?).ok();
        loop {
            if follower.next(INTERVALS, open).await == CheckReason::Hint {
                // Two changes in one tick of the kernel's clock have the same version.
                self.seen = None;
            }
            self.check(&path).await;
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
