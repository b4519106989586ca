//! Remembers what was handed out: in memory at once, so that Allocate does no I/O; in a file soon
//! after, by a task of its own; and no container starts before its devices are in the file.
//!
//! During a rolling update two instances share the file. Each adds what it handed out itself and
//! adopts what the other wrote. Should both write at the same moment, one entry may be lost until
//! its instance writes again; its container would start unchecked, never be refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::decide::allocation::records::{forget, merge};
use crate::decide::backoff::backoff;
use crate::host::allocation_file::{self, Remembered};
use crate::model::allocation::{AllocationRecord, AllocationRecords};
use crate::model::device::DeviceId;

/// How long a container's start waits for the file. A full disk must not stop it for good.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file's name in the kubelet's device plugin directory.
pub const FILE_NAME: &str = "iluvatar-gpu.handouts";

/// What is known, and what of it the file may not have.
#[derive(Debug, Default)]
struct Known {
    records: AllocationRecords,
    /// Recorded here and not written yet.
    unwritten: AllocationRecords,
    /// How often there was a reason to look at the file.
    requests: u64,
}

/// Shared by every service; clones know the same.
#[derive(Clone, Debug)]
pub struct AllocationStore {
    known: Arc<watch::Sender<Known>>,
    /// The last request that was done.
    done: watch::Receiver<u64>,
}

/// Reads and writes the file; runs as a task of its own.
#[derive(Debug)]
pub struct AllocationWriter {
    path: PathBuf,
    known: Arc<watch::Sender<Known>>,
    done: watch::Sender<u64>,
    failures: u32,
}

/// The ledger kept in `path`, and the task that keeps it there. Reads the file as it is now; one
/// that cannot be read or believed counts as empty, aloud.
#[must_use]
pub fn open(path: PathBuf) -> (AllocationStore, AllocationWriter) {
    let records = believed(&path, allocation_file::read(&path));
    let known = Known { records, ..Known::default() };
    let known = Arc::new(watch::Sender::new(known));
    let (sender, done) = watch::channel(0);
    let store = AllocationStore { known: Arc::clone(&known), done };
    (store, AllocationWriter { path, known, done: sender, failures: 0 })
}

fn believed(path: &Path, read: std::io::Result<Remembered>) -> AllocationRecords {
    let path = path.display();
    match read {
        Ok(Remembered::AllocationRecords(records)) => return records,
        Ok(Remembered::Damaged(error, aside)) => {
            let aside = aside.display();
            warn!(%path, %aside, "the file of what was handed out is damaged and set aside: {error}");
        }
        Err(error) => warn!(%path, "cannot read what was handed out: {error}"),
    }
    AllocationRecords::new()
}

impl AllocationStore {
    /// Remembers what a container is given.
    pub fn record(
        &self,
        resource: &str,
        records: impl IntoIterator<Item = (DeviceId, AllocationRecord)>,
    ) {
        let records = records.into_iter().collect();
        self.known.send_modify(|known| {
            let given = AllocationRecords::from([(resource.to_owned(), records)]);
            merge(&mut known.records, &given);
            merge(&mut known.unwritten, &given);
            known.requests += 1;
        });
    }

    /// What was last handed out with an id.
    #[must_use]
    pub fn find(&self, resource: &str, id: DeviceId) -> Option<AllocationRecord> {
        self.known.borrow().records.get(resource)?.get(&id).cloned()
    }

    /// Waits until all that was recorded so far is in the file, and what another instance wrote
    /// there is known here; gives up aloud after five seconds.
    pub async fn settled(&self) {
        let mut request = 0;
        self.known.send_modify(|known| {
            known.requests += 1;
            request = known.requests;
        });
        let mut done = self.done.clone();
        let waited = tokio::time::timeout(PATIENCE, done.wait_for(|done| *done >= request)).await;
        if !matches!(waited, Ok(Ok(_))) {
            warn!(
                waited = ?PATIENCE,
                "a container starts before what it was given is in the file; should the plugin \
                 restart, that container's devices are not checked again"
            );
        }
    }
}

impl AllocationWriter {
    /// Brings file and memory together at every request, and once more at the end, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut requested = self.known.subscribe();
        let seed = u64::from(std::process::id());
        loop {
            if requested.borrow_and_update().requests > *self.done.borrow() {
                self.bring_together().await;
            }
            let wait = backoff(self.failures, seed);
            tokio::select! {
                () = stop.cancelled() => break,
                // A failure is not tried again faster because more is asked for.
                _ = requested.changed(), if self.failures == 0 => {}
                () = tokio::time::sleep(wait), if self.failures > 0 => {}
            }
        }
        let is_behind = !self.known.borrow().unwritten.is_empty();
        if is_behind {
            self.bring_together().await;
        }
    }

    async fn bring_together(&mut self) {
        let (mut known, unwritten, requests) = {
            let known = self.known.borrow();
            (known.records.clone(), known.unwritten.clone(), known.requests)
        };
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || allocation_file::read(&path));
        let there = match read.await {
            Ok(Err(error)) => {
                debug!(path = %self.path.display(), %error, "cannot read what was handed out");
                AllocationRecords::new()
            }
            Ok(read) => believed(&self.path, read),
            Err(error) => return self.failed(&error.into()),
        };
        merge(&mut known, &there);
        merge(&mut known, &unwritten);
        match self.write_unless(&known, &there).await {
            Ok(()) => self.came_together(known, &unwritten, requests),
            Err(error) => self.failed(&error),
        }
    }

    async fn write_unless(
        &self,
        all: &AllocationRecords,
        there: &AllocationRecords,
    ) -> std::io::Result<()> {
        if all == there {
            return Ok(());
        }
        let (path, all) = (self.path.clone(), all.clone());
        tokio::task::spawn_blocking(move || allocation_file::write(&path, &all)).await?
    }

    fn came_together(
        &mut self,
        all: AllocationRecords,
        written: &AllocationRecords,
        requests: u64,
    ) {
        if self.failures > 0 {
            info!(path = %self.path.display(), "what was handed out is written again");
        }
        self.failures = 0;
        self.known.send_if_modified(|known| {
            forget(&mut known.unwritten, written);
            known.records = all;
            merge(&mut known.records, &known.unwritten);
            false
        });
        self.done.send_replace(requests);
    }

    fn failed(&mut self, error: &std::io::Error) {
        self.failures = self.failures.saturating_add(1);
        let path = self.path.display();
        if self.failures == 1 {
            warn!(%path, "cannot write what was handed out: {error}; trying again");
        } else {
            debug!(%path, %error, failures = self.failures, "still cannot write what was handed out");
        }
    }
}
