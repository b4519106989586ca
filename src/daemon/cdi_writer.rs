//! Keeps the CDI spec in step with the machine, and tells what a container runtime would find.
//!
//! Nobody is handed out by a name before it is in the file: Allocate asks the view of this loop,
//! and the view follows the file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::inventory_owner::SnapshotReceiver;
use crate::decide::allocation::cdi::{self, FileAction};
use crate::host::cdi_dir::{self, OwnFile};
use crate::host::directory_watch::DirectoryWatch;
use crate::model::cdi::{CdiDirectory, CdiSpec};

/// How often to look at the directory while it tells of its changes.
const WATCHED: Duration = Duration::from_secs(30);
/// How often where it does not, or where something went wrong.
const UNWATCHED: Duration = Duration::from_secs(2);

/// The spec that a runtime would find; none where it finds none of ours, or must not use it.
pub type CdiView = watch::Receiver<Option<Arc<CdiSpec>>>;

/// Owns our file.
pub struct CdiWriter {
    snapshots: SnapshotReceiver,
    inotify: bool,
    view: watch::Sender<Option<Arc<CdiSpec>>>,
    /// Where the file belongs; none while it is not wanted.
    directory: Option<PathBuf>,
    watch: Option<DirectoryWatch>,
    own: Option<Arc<OwnFile>>,
    /// What this instance last brought about.
    last: Option<CdiSpec>,
    /// What was wrong at the last look, so that it is said once.
    complaints: Vec<String>,
}

impl CdiWriter {
    /// A writer that has not written yet, and what a runtime finds.
    #[must_use]
    pub fn new(snapshots: SnapshotReceiver, inotify: bool) -> (Self, CdiView) {
        let (view, receiver) = watch::channel(None);
        let writer = Self {
            snapshots,
            inotify,
            view,
            directory: None,
            watch: None,
            own: None,
            last: None,
            complaints: Vec::new(),
        };
        (writer, receiver)
    }

    /// Keeps in step until `stop`, then takes the file away if it is still this instance's.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let again = self.keep_in_step().await;
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.snapshots.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(again) => {}
                result = DirectoryWatch::changed_or_never(self.watch.as_ref()) => {
                    if result.is_err() {
                        self.watch = None;
                    }
                }
            }
        }
        self.leave().await;
        stop.cancelled().await;
    }

    /// How long all is well without another look.
    async fn keep_in_step(&mut self) -> Duration {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let Some(snapshot) = snapshot else { return Duration::MAX };
        let wanted_there = snapshot.cdi.enabled.then(|| snapshot.cdi.spec_dir.clone());
        if self.directory != wanted_there {
            self.leave().await;
            self.directory = wanted_there;
        }
        let Some(directory) = self.directory.clone() else { return Duration::MAX };
        if self.watch.is_none() && self.inotify {
            // Before the look: what changes after it must be noticed.
            self.watch = DirectoryWatch::open(&directory).ok();
        }
        let wanted = cdi::spec(&snapshot.inventory);
        match self.bring_in_step(&directory, &wanted).await {
            Ok(complaints) => self.complain(complaints),
            Err(error) => self.failed(&directory, &error),
        }
        if self.watch.is_some() && self.complaints.is_empty() { WATCHED } else { UNWATCHED }
    }

    /// What is left to be complained of.
    async fn bring_in_step(
        &mut self,
        directory: &Path,
        wanted: &CdiSpec,
    ) -> io::Result<Vec<String>> {
        let found = self.look(directory).await;
        self.show(found.as_ref().ok().and_then(cdi::resolvable));
        let found = found?;
        match cdi::step(wanted, &found, self.last.as_ref()) {
            FileAction::Keep => {}
            FileAction::Create => self.write(directory, wanted, false).await?,
            FileAction::Replace => self.write(directory, wanted, true).await?,
            FileAction::Remove => self.remove(directory, wanted).await?,
        }
        Ok(cdi::complaints(wanted, &found, directory))
    }

    async fn look(&self, directory: &Path) -> io::Result<CdiDirectory> {
        let (directory, own) = (directory.to_owned(), self.own.clone());
        blocking(move || cdi_dir::look(&directory, own.as_deref())).await
    }

    async fn write(&mut self, directory: &Path, spec: &CdiSpec, replace: bool) -> io::Result<()> {
        let (path, text) = (directory.to_owned(), spec.clone());
        let own = blocking(move || cdi_dir::write(&path, &text, replace)).await?;
        self.own = Some(Arc::new(own));
        self.last = Some(spec.clone());
        self.show(Some(spec));
        info!(directory = %directory.display(), names = spec.devices.len(), "CDI spec written");
        Ok(())
    }

    async fn remove(&mut self, directory: &Path, wanted: &CdiSpec) -> io::Result<()> {
        self.show(None);
        let path = directory.to_owned();
        blocking(move || cdi_dir::remove(&path)).await?;
        self.last = Some(wanted.clone());
        info!(directory = %directory.display(), "CDI spec removed");
        Ok(())
    }

    /// Takes the file away if it is still the one that this instance wrote.
    async fn leave(&mut self) {
        self.show(None);
        (self.watch, self.last) = (None, None);
        self.complaints.clear();
        let (Some(directory), Some(own)) = (self.directory.take(), self.own.take()) else { return };
        let path = directory.clone();
        match blocking(move || cdi_dir::remove_own(&path, &own)).await {
            Ok(true) => info!(directory = %directory.display(), "CDI spec removed"),
            Ok(false) => debug!("the CDI spec is another's by now and stays"),
            Err(error) => {
                warn!(directory = %directory.display(), "cannot remove the CDI spec: {error}");
            }
        }
    }

    fn show(&self, spec: Option<&CdiSpec>) {
        self.view.send_if_modified(|view| {
            let changed = view.as_deref() != spec;
            if changed {
                *view = spec.cloned().map(Arc::new);
            }
            changed
        });
    }

    fn failed(&mut self, directory: &Path, error: &io::Error) {
        // An attempt that fails leaves events of its own; to hear them would be to try without end.
        self.watch = None;
        self.complain(vec![format!(
            "cannot keep the CDI spec in {}: {error}; containers get plain device nodes. Mount the \
             host's directory there, writable, make it if it is missing, or set cdi.enabled: false",
            directory.display()
        )]);
    }

    fn complain(&mut self, complaints: Vec<String>) {
        for complaint in complaints.iter().filter(|it| !self.complaints.contains(it)) {
            warn!("{complaint}");
        }
        if complaints.is_empty() && !self.complaints.is_empty() {
            info!("nothing is in the way of the CDI spec any more");
        }
        self.complaints = complaints;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
