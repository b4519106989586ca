//! The configuration file, followed while the daemon runs. A ConfigMap volume swaps a symbolic link
//! in the file's directory; where there is a file of this node alone, that one is read instead; a good change is passed on, a bad one changes nothing and is reported.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::directory_follower::{CheckIntervals, CheckReason, DirectoryFollower};
use super::inventory_owner::SnapshotReceiver;
use super::telemetry::{Telemetry, WatchMethod};
use crate::decide::node::list_limit::oversized_under;
use crate::host::config_file::ConfigSource;
use crate::host::directory_watch::DirectoryWatch;
use crate::host::files::FileVersion;
use crate::model::config::Config;
use crate::model::log_event::LogEvent;
use crate::parse::config::keys::{MODE_WORDS, word_of};
use crate::wire::config_yaml::effective_json;

/// How often to check the file without inotify.
const POLL_INTERVAL: Duration = Duration::from_millis(800);
/// How often to check it while inotify reports its changes.
const WATCHED_INTERVAL: Duration = Duration::from_secs(10);

/// So many checks in a row trust an unchanged stamp. Its time is only as fine as the kernel's tick,
/// so two changes in one tick share a stamp.
const TRUSTED_STAMP_LIMIT: u32 = 10;

/// Follows one file.
pub struct ConfigWatch {
    source: ConfigSource,
    config: watch::Sender<Arc<Config>>,
    snapshots: SnapshotReceiver,
    /// Requests a check at once.
    requests: Arc<Notify>,
    inotify: bool,
    /// The file that was read last, and how often its stamp was trusted since.
    seen: Option<(Option<FileVersion>, u32)>,
    telemetry: Telemetry,
    /// The last problem, so that it is logged once.
    last_problem: String,
    /// Whether the file asks for another mode than the active one.
    has_other_mode: bool,
}

impl ConfigWatch {
    /// Follows `source`; every good change goes to `config`.
    #[must_use]
    pub fn new(
        source: ConfigSource,
        config: watch::Sender<Arc<Config>>,
        snapshots: SnapshotReceiver,
        requests: Arc<Notify>,
        inotify: bool,
        telemetry: Telemetry,
    ) -> Self {
        let last_problem = String::new();
        Self {
            source,
            config,
            snapshots,
            requests,
            inotify,
            seen: None,
            telemetry,
            last_problem,
            has_other_mode: false,
        }
    }

    /// Follows until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut follower = DirectoryFollower::new(self.inotify, self.telemetry.started());
        self.telemetry.config_followed(WatchMethod::Polls);
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.requests.notified() => self.seen = None,
                reason = follower.next(self.intervals(), || self.watch()) => {
                    if reason == CheckReason::Hint {
                        self.seen = None;
                    }
                }
            }
            if self.may_have_changed() {
                self.reload().await;
            }
        }
    }

    /// How often to check the file. What was refused may fit other hardware, of which inotify
    /// reports nothing.
    fn intervals(&self) -> CheckIntervals {
        let is_reported = self.source.is_within_directory() && self.last_problem.is_empty();
        let watched = if is_reported { WATCHED_INTERVAL } else { POLL_INTERVAL };
        CheckIntervals { first: POLL_INTERVAL, polled: POLL_INTERVAL, watched }
    }

    /// False where the file's version shows that nothing changed. What was refused is read again in any
    /// case: with other hardware it may fit.
    fn may_have_changed(&mut self) -> bool {
        let stamp = self.source.stamp();
        match &mut self.seen {
            Some((seen, times)) if *seen == stamp && *times < TRUSTED_STAMP_LIMIT => {
                *times += 1;
                !self.last_problem.is_empty()
            }
            _ => {
                self.seen = Some((stamp, 0));
                true
            }
        }
    }

    fn watch(&self) -> Option<DirectoryWatch> {
        let opened = DirectoryWatch::open_with_contents(self.source.directory()?);
        self.telemetry.config_followed(WatchMethod::of(&opened));
        opened.ok()
    }

    async fn reload(&mut self) {
        let source = self.source.clone();
        let loading = tokio::task::spawn_blocking(move || source.load_from());
        let Ok((path, loaded)) = loading.await else { return };
        self.telemetry.config_read(&path);
        match loaded {
            Ok(config) => self.apply(config, &path),
            Err(error) => self.refuse(error.to_string()),
        }
    }

    fn apply(&mut self, mut config: Config, path: &Path) {
        self.keep_mode(&mut config);
        if **self.config.borrow() == config {
            self.last_problem.clear();
            self.telemetry.config_is_current();
            return;
        }
        let snapshot = self.snapshots.borrow().clone();
        let problem = snapshot.and_then(|snapshot| oversized_under(&snapshot.inventory, &config));
        if let Some(problem) = problem {
            self.refuse(problem);
            return;
        }
        self.last_problem.clear();
        self.telemetry.config_applied();
        let effective = effective_json(&config);
        info!(
            event = LogEvent::ConfigurationApplied.name(), path = %path.display(),
            config = %effective, "configuration changed"
        );
        self.config.send_replace(Arc::new(config));
    }

    /// Sockets, clients and tasks are those of the mode that the daemon was started in.
    fn keep_mode(&mut self, config: &mut Config) {
        let active = self.config.borrow().mode;
        let is_other = config.mode != active;
        if is_other && !self.has_other_mode {
            let mode = word_of(&MODE_WORDS, &active);
            warn!(
                event = LogEvent::RestartNeeded.name(),
                active = mode,
                "mode changed in the configuration; restart the daemon to apply it"
            );
        }
        self.has_other_mode = is_other;
        config.mode = active;
    }

    fn refuse(&mut self, problem: String) {
        if self.last_problem == problem {
            debug!("the configuration is still invalid");
        } else {
            warn!(
                event = LogEvent::ConfigurationRefused.name(),
                "configuration refused; the last valid one stays active: {problem}"
            );
            self.telemetry.config_refused(&problem);
            self.last_problem = problem;
        }
    }
}
