//! Remembers what was handed out: in memory at once, so that Allocate does no I/O; in a file soon
//! after, by a task of its own; and no container starts before its devices are in the file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::decide::backoff::backoff;
use crate::host::handout_file::{self, Remembered};
use crate::model::device::DeviceId;
use crate::model::handout::{Handout, Handouts};

/// How long a container's start waits for the file. A full disk must not stop it for good.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file's name in the kubelet's device plugin directory.
pub const FILE_NAME: &str = "iluvatar-gpu.handouts";

/// What is known, and how often it changed.
#[derive(Debug, Default)]
struct Known {
    handouts: Handouts,
    changes: u64,
}

/// Shared by every service; clones know the same.
#[derive(Clone, Debug)]
pub struct HandoutLedger {
    known: Arc<watch::Sender<Known>>,
    written: watch::Receiver<u64>,
}

/// Writes the file; runs as a task of its own.
#[derive(Debug)]
pub struct LedgerWriter {
    path: PathBuf,
    known: Arc<watch::Sender<Known>>,
    written: watch::Sender<u64>,
}

/// The ledger kept in `path`, and the task that writes it. Reads the file as it is now; one that
/// cannot be read or believed counts as empty, aloud.
#[must_use]
pub fn open(path: PathBuf) -> (HandoutLedger, LedgerWriter) {
    let known = Known { handouts: remembered(&path), changes: 0 };
    let known = Arc::new(watch::Sender::new(known));
    let (sender, written) = watch::channel(0);
    let ledger = HandoutLedger { known: Arc::clone(&known), written };
    (ledger, LedgerWriter { path, known, written: sender })
}

fn remembered(path: &std::path::Path) -> Handouts {
    match handout_file::read(path) {
        Ok(Remembered::Handouts(handouts)) => return handouts,
        Ok(Remembered::Damaged(error, aside)) => {
            let (path, aside) = (path.display(), aside.display());
            warn!(%path, %aside, "what was handed out is forgotten, the file is damaged: {error}");
        }
        // The directory may come later; it is looked for again when there is something to write.
        Err(error) => debug!(path = %path.display(), %error, "cannot read what was handed out"),
    }
    Handouts::new()
}

impl HandoutLedger {
    /// Remembers what a container is given.
    pub fn record(&self, resource: &str, handouts: impl IntoIterator<Item = (DeviceId, Handout)>) {
        self.known.send_modify(|known| {
            known.handouts.entry(resource.to_owned()).or_default().extend(handouts);
            known.changes += 1;
        });
    }

    /// What was last handed out with an id.
    #[must_use]
    pub fn find(&self, resource: &str, id: DeviceId) -> Option<Handout> {
        self.known.borrow().handouts.get(resource)?.get(&id).cloned()
    }

    /// Waits until all that was recorded so far is in the file; gives up aloud after five seconds.
    pub async fn settled(&self) {
        let changes = self.known.borrow().changes;
        let mut written = self.written.clone();
        let waited =
            tokio::time::timeout(PATIENCE, written.wait_for(|done| *done >= changes)).await;
        if !matches!(waited, Ok(Ok(_))) {
            warn!("what was handed out could not be written; after a restart it is not known");
        }
    }
}

impl LedgerWriter {
    /// Writes after every change, and once more at the end, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut changed = self.known.subscribe();
        let mut failures: u32 = 0;
        loop {
            let is_behind = changed.borrow_and_update().changes > *self.written.borrow();
            if is_behind {
                failures = if self.write().await { 0 } else { failures.saturating_add(1) };
            }
            let seed = u64::from(std::process::id());
            tokio::select! {
                () = stop.cancelled() => break,
                _ = changed.changed() => {}
                () = tokio::time::sleep(backoff(failures, seed)), if failures > 0 => {}
            }
        }
        if self.known.borrow().changes > *self.written.borrow() {
            self.write().await;
        }
    }

    /// True once the file holds all that was known when writing began. What another instance wrote
    /// in the meantime is kept, unless we know better.
    async fn write(&self) -> bool {
        let (ours, changes) = {
            let known = self.known.borrow();
            (known.handouts.clone(), known.changes)
        };
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut all = remembered(&path);
            for (resource, devices) in ours {
                all.entry(resource).or_default().extend(devices);
            }
            handout_file::write(&path, &all)
        });
        match written.await {
            Ok(Ok(())) => {
                self.written.send_replace(changes);
                true
            }
            Ok(Err(error)) => {
                debug!(path = %self.path.display(), %error, "cannot write what was handed out");
                false
            }
            Err(_) => false,
        }
    }
}
