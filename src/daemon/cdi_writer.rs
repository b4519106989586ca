//! Keeps the CDI spec on disk up to date, and publishes what a container runtime finds there.
//!
//! Allocate gives a container a name only if the published spec has it, and the spec is published only
//! once it is on disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::inventory_owner::SnapshotReceiver;
use crate::decide::allocation::cdi::{self, SpecAction};
use crate::host::cdi_dir;
use crate::host::directory_watch::DirectoryWatch;
use crate::host::own_file::{Existing, OwnFile};
use crate::model::cdi::{CdiDirectory, CdiKind, CdiSpec};
use crate::model::log_event::LogEvent;

/// How often the directory is read while inotify reports its changes.
const WATCHED_INTERVAL: Duration = Duration::from_secs(30);
/// How often it is read without inotify, or after a problem.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The spec that a runtime finds; none where it finds none of ours or cannot use it.
pub type CdiView = watch::Receiver<Option<Arc<CdiSpec>>>;

/// Owns our file in the spec directory.
pub struct CdiWriter {
    snapshots: SnapshotReceiver,
    inotify: bool,
    published: watch::Sender<Option<Arc<CdiSpec>>>,
    /// The directory of the file, and the file's kind; none while CDI is off.
    directory: Option<(PathBuf, CdiKind)>,
    watch: Option<DirectoryWatch>,
    own: Option<Arc<OwnFile>>,
    /// What this instance last wrote; a spec without names where it removed the file.
    last: Option<CdiSpec>,
    /// The problems at the last check; each is logged once.
    problems: Vec<String>,
}

impl CdiWriter {
    /// A writer that has not written yet, and the published spec.
    #[must_use]
    pub fn new(snapshots: SnapshotReceiver, inotify: bool) -> (Self, CdiView) {
        let (published, receiver) = watch::channel(None);
        let writer = Self {
            snapshots,
            inotify,
            published,
            directory: None,
            watch: None,
            own: None,
            last: None,
            problems: Vec::new(),
        };
        (writer, receiver)
    }

    /// Keeps the file up to date until `stop`, then removes it if this instance wrote it.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let next_check = self.update().await;
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.snapshots.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(next_check) => {}
                result = DirectoryWatch::changed_or_never(self.watch.as_ref()) => {
                    if result.is_err() {
                        self.watch = None;
                    }
                }
            }
        }
        self.remove_own().await;
        stop.cancelled().await;
    }

    /// Brings the file up to date with the latest snapshot; returns when to check it again.
    async fn update(&mut self) -> Duration {
        let Some(snapshot) = self.snapshots.borrow_and_update().clone() else {
            return Duration::MAX;
        };
        let directory =
            snapshot.cdi_spec.as_ref().map(|spec| (snapshot.cdi.spec_dir.clone(), spec.kind));
        if self.directory != directory {
            self.remove_own().await;
            self.directory.clone_from(&directory);
        }
        let (Some((directory, _)), Some(wanted)) = (directory, &snapshot.cdi_spec) else {
            return Duration::MAX;
        };
        if self.watch.is_none() && self.inotify {
            // Before the directory is read, so that no later change is missed.
            self.watch = DirectoryWatch::open(&directory).ok();
        }
        match self.update_file(&directory, wanted).await {
            Ok(problems) => self.log_problems(problems),
            Err(error) => self.failed(&directory, &error),
        }
        let is_watched = self.watch.is_some() && self.problems.is_empty();
        if is_watched { WATCHED_INTERVAL } else { POLL_INTERVAL }
    }

    /// Returns the problems that an operator has to solve.
    async fn update_file(&mut self, directory: &Path, wanted: &CdiSpec) -> io::Result<Vec<String>> {
        let found = self.read(directory, wanted.kind).await;
        self.publish(found.as_ref().ok().and_then(cdi::resolvable));
        let found = found?;
        match cdi::spec_action(wanted, &found, self.last.as_ref()) {
            SpecAction::Keep => {}
            SpecAction::Create => self.write(directory, wanted, Existing::Refuse).await?,
            SpecAction::Replace => self.write(directory, wanted, Existing::Replace).await?,
            SpecAction::Remove => self.remove(directory, wanted).await?,
        }
        Ok(cdi::problems(wanted, &found, directory))
    }

    async fn read(&self, directory: &Path, kind: CdiKind) -> io::Result<CdiDirectory> {
        let (directory, own) = (directory.to_owned(), self.own.clone());
        blocking(move || cdi_dir::read_directory(&directory, kind, own.as_deref())).await
    }

    async fn write(
        &mut self,
        directory: &Path,
        spec: &CdiSpec,
        existing: Existing,
    ) -> io::Result<()> {
        let (path, content) = (directory.to_owned(), spec.clone());
        let own = blocking(move || cdi_dir::write(&path, &content, existing)).await?;
        self.own = Some(Arc::new(own));
        self.last = Some(spec.clone());
        self.publish(Some(spec));
        info!(
            event = LogEvent::CdiSpecWritten.name(), directory = %directory.display(),
            names = spec.devices.len(), "CDI spec written"
        );
        Ok(())
    }

    async fn remove(&mut self, directory: &Path, wanted: &CdiSpec) -> io::Result<()> {
        self.publish(None);
        let (path, kind) = (directory.to_owned(), wanted.kind);
        blocking(move || cdi_dir::remove(&path, kind)).await?;
        self.last = Some(wanted.clone());
        let directory = directory.display();
        info!(event = LogEvent::CdiSpecRemoved.name(), %directory, "CDI spec removed");
        Ok(())
    }

    /// Removes the file if it is still the one that this instance wrote.
    async fn remove_own(&mut self) {
        self.publish(None);
        (self.watch, self.last) = (None, None);
        self.problems.clear();
        let (Some((directory, kind)), Some(own)) = (self.directory.take(), self.own.take()) else {
            return;
        };
        let path = directory.clone();
        let directory = directory.display();
        match blocking(move || cdi_dir::remove_own(&path, kind, &own)).await {
            Ok(true) => {
                info!(event = LogEvent::CdiSpecRemoved.name(), %directory, "CDI spec removed");
            }
            Ok(false) => debug!("CDI spec was written by another instance; keeping it"),
            Err(error) => {
                warn!(
                    event = LogEvent::CdiFailed.name(), %directory, %error,
                    "cannot remove the CDI spec"
                );
            }
        }
    }

    fn publish(&self, spec: Option<&CdiSpec>) {
        self.published.send_if_modified(|published| {
            let changed = published.as_deref() != spec;
            if changed {
                *published = spec.cloned().map(Arc::new);
            }
            changed
        });
    }

    fn failed(&mut self, directory: &Path, error: &io::Error) {
        // A failed attempt causes events itself; watching them would mean retrying without a pause.
        self.watch = None;
        self.log_problems(vec![format!(
            "cannot write the CDI spec to {}: {error}; allocating plain device nodes; mount the \
             host's directory there, writable, create it if it is missing, or set cdi.enabled: false",
            directory.display()
        )]);
    }

    fn log_problems(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            warn!(event = LogEvent::CdiFailed.name(), "{problem}");
        }
        if problems.is_empty() && !self.problems.is_empty() {
            info!(event = LogEvent::CdiRecovered.name(), "problems of the CDI spec are solved");
        }
        self.problems = problems;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
