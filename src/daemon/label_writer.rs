//! Keeps the node's labels in a feature file of Node Feature Discovery, which needs no API token.
//!
//! The file expires, so that labels do not outlive a plugin that was killed; it is written anew well
//! before that.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::inventory_owner::SnapshotReceiver;
use crate::decide::labels::node_labels;
use crate::host::clock::time_of_day;
use crate::host::files;
use crate::host::own_file::{self, Existing, OwnFile};
use crate::model::config::Config;
use crate::model::log_event::LogEvent;
use crate::wire::feature_file::{FILE_NAME, feature_file};

/// How long NFD uses a file.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// How old a file becomes before it is written anew.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// How often to check that the file is there.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Owns our file in NFD's directory.
#[derive(Debug)]
pub struct LabelWriter {
    config: watch::Receiver<Arc<Config>>,
    snapshots: SnapshotReceiver,
    written: Option<WrittenLabels>,
    /// Whether the last attempt failed, so that it is logged once.
    has_failed: bool,
}

/// What this instance wrote last.
#[derive(Debug)]
struct WrittenLabels {
    directory: PathBuf,
    labels: BTreeMap<String, String>,
    file: OwnFile,
    /// When its life began.
    at: Instant,
}

impl LabelWriter {
    /// A writer that has not written yet.
    #[must_use]
    pub fn new(config: watch::Receiver<Arc<Config>>, snapshots: SnapshotReceiver) -> Self {
        Self { config, snapshots, written: None, has_failed: false }
    }

    /// Keeps the file up to date until `stop`, then removes it if this instance wrote it.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            // From before the update: however long it takes, the next one is not later for it.
            let checked = Instant::now();
            let is_enabled = self.update().await;
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = self.config.changed() => {}
                Ok(()) = self.snapshots.changed(), if is_enabled => {}
                () = sleep_until(checked + CHECK_INTERVAL), if is_enabled => {}
            }
        }
        self.remove_own().await;
    }

    /// Brings the file up to date; returns whether labels are enabled.
    async fn update(&mut self) -> bool {
        let rules = self.config.borrow_and_update().labels.clone();
        let moved =
            |written: &WrittenLabels| !rules.enabled || written.directory != rules.directory;
        if self.written.as_ref().is_some_and(moved) {
            self.remove_own().await;
        }
        let snapshot = self.snapshots.borrow_and_update().clone();
        if let Some(snapshot) = snapshot.filter(|_| rules.enabled) {
            let labels = node_labels(&snapshot.inventory);
            let updated = self.write_if_due(rules.directory.clone(), labels).await;
            self.log(&rules.directory, &updated);
        }
        rules.enabled
    }

    async fn write_if_due(
        &mut self,
        directory: PathBuf,
        labels: BTreeMap<String, String>,
    ) -> io::Result<()> {
        let path = directory.join(FILE_NAME);
        if labels.is_empty() {
            self.written = None;
            return blocking(move || files::remove(&path)).await;
        }
        let before = self.written.as_ref();
        let is_news = before.is_none_or(|written| written.labels != labels);
        let is_young = before.is_some_and(|written| written.at.elapsed() < REFRESH_INTERVAL);
        if !is_news && is_young && files::exists(&path) {
            return Ok(());
        }
        let (at, text) = (Instant::now(), feature_file(&labels, time_of_day() + LIFETIME));
        let place = directory.clone();
        let write = move || own_file::write(&place, FILE_NAME, text.as_bytes(), Existing::Replace);
        let file = blocking(write).await?;
        if is_news {
            info!(event = LogEvent::LabelsWritten.name(), path = %path.display(), ?labels, "node labels written");
        }
        self.written = Some(WrittenLabels { directory, labels, file, at });
        Ok(())
    }

    fn log(&mut self, directory: &Path, updated: &io::Result<()>) {
        if let Err(error) = updated {
            let directory = directory.display();
            if self.has_failed {
                debug!(%directory, %error, "node labels still cannot be written");
            } else {
                warn!(
                    event = LogEvent::LabelsFailed.name(), %directory, %error,
                    "cannot write node labels; retrying; mount the host's directory there, \
                     writable, or set labels.enabled: false"
                );
            }
        }
        self.has_failed = updated.is_err();
    }

    /// Removes the file if it is still the one that this instance wrote: a newer instance may have
    /// written it since.
    async fn remove_own(&mut self) {
        let Some(WrittenLabels { directory, file, .. }) = self.written.take() else { return };
        let place = directory.clone();
        let directory = directory.display();
        match blocking(move || own_file::remove(&place, FILE_NAME, &file)).await {
            Ok(true) => {
                info!(event = LogEvent::LabelsRemoved.name(), %directory, "node labels removed");
            }
            Ok(false) => debug!("node labels were written by another instance; keeping them"),
            Err(error) => {
                warn!(event = LogEvent::LabelsFailed.name(), %directory, %error, "cannot remove node labels");
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
