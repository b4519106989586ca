//! Who holds what, by claims: what this driver prepared, and what PodResources lists.
//!
//! One task decides about all claims, one after the other, so that no device is allocated to two. The
//! file is the record that two instances share: it is read before each decision, and written before
//! the answer.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::cdi_writer::CdiView;
use super::inventory_owner::SnapshotReceiver;
use crate::decide::dra::claims::ClaimHolders;
use crate::decide::dra::prepare::{PrepareContext, PrepareError, prepare};
use crate::host::claim_file::{CLAIM_FILE, ClaimFile, LockedClaimFile};
use crate::model::dra::claim::{ClaimRecords, ClaimRef, DraClaim, PreparedDevice};
use crate::model::log_event::LogEvent;

/// Requests that may wait.
const QUEUE: usize = 64;
/// How long the file may take. Another instance has its lock for milliseconds.
const FILE_TIMEOUT: Duration = Duration::from_secs(5);

/// Who holds what now.
pub type HoldersView = watch::Receiver<Arc<ClaimHolders>>;

/// Why nothing was decided or recorded about a claim.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The claim cannot be prepared.
    #[error(transparent)]
    Refused(#[from] PrepareError),
    /// The machine has not been scanned.
    #[error("the machine has not been scanned yet; retrying")]
    NotScanned,
    /// The file cannot be read or written.
    #[error(
        "cannot record the claim in {0}: {1}; make the directory writable for the plugin; retrying"
    )]
    File(PathBuf, #[source] io::Error),
    /// The daemon ends.
    #[error("the plugin is stopping; retrying with the next instance")]
    Stopping,
}

/// What the task is asked.
enum LedgerRequest {
    Prepare {
        claim: DraClaim,
        uid: String,
        answer: oneshot::Sender<Result<Vec<PreparedDevice>, LedgerError>>,
    },
    Release {
        uid: Option<String>,
        claim: ClaimRef,
        answer: oneshot::Sender<Result<(), LedgerError>>,
    },
}

/// Asks the task. Clones ask the same one.
#[derive(Clone)]
pub struct ClaimLedger {
    requests: mpsc::Sender<LedgerRequest>,
}

impl ClaimLedger {
    /// Decides what the claim gets, and records it before it returns. Two calls give the same.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing of it is recorded.
    pub async fn prepare(
        &self,
        claim: DraClaim,
        uid: String,
    ) -> Result<Vec<PreparedDevice>, LedgerError> {
        self.ask(|answer| LedgerRequest::Prepare { claim, uid, answer }).await
    }

    /// Records that the claim holds nothing any more; one that is not known changes nothing.
    ///
    /// # Errors
    /// [`LedgerError`]: the file cannot be written.
    pub async fn release(&self, uid: Option<String>, claim: ClaimRef) -> Result<(), LedgerError> {
        self.ask(|answer| LedgerRequest::Release { uid, claim, answer }).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, LedgerError>>) -> LedgerRequest,
    ) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| LedgerError::Stopping)?;
        answered.await.unwrap_or(Err(LedgerError::Stopping))
    }
}

/// The task.
pub struct LedgerTask {
    directory: PathBuf,
    pool: String,
    snapshots: SnapshotReceiver,
    cdi: CdiView,
    requests: mpsc::Receiver<LedgerRequest>,
    holders: watch::Sender<Arc<ClaimHolders>>,
}

impl LedgerTask {
    /// A ledger of the file in `directory`, for the pool of this name.
    #[must_use]
    pub fn new(
        directory: PathBuf,
        pool: String,
        snapshots: SnapshotReceiver,
        cdi: CdiView,
    ) -> (Self, ClaimLedger, HoldersView) {
        let (sender, requests) = mpsc::channel(QUEUE);
        let (holders, view) = watch::channel(Arc::default());
        let task = Self { directory, pool, snapshots, cdi, requests, holders };
        (task, ClaimLedger { requests: sender }, view)
    }

    /// Reads the file, then answers until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        if let Err(error) = self.restore().await {
            let event = LogEvent::RecordsUnreadable.name();
            warn!(event, %error, "cannot read the prepared claims; continuing without");
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(request) = self.requests.recv() => self.answer(request).await,
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        return stop.cancelled().await;
                    }
                    self.list_usage();
                }
            }
        }
    }

    /// What PodResources lists, as the latest snapshot has it.
    fn list_usage(&mut self) {
        let Some(snapshot) = self.snapshots.borrow_and_update().clone() else { return };
        self.publish(|holders| holders.listed(&snapshot.claimed));
    }

    fn publish(&self, change: impl FnOnce(&mut ClaimHolders)) {
        self.holders.send_if_modified(|holders| {
            let before = Arc::clone(holders);
            change(Arc::make_mut(holders));
            before != *holders
        });
    }

    async fn answer(&mut self, request: LedgerRequest) {
        // Who asked may have stopped waiting.
        match request {
            LedgerRequest::Prepare { claim, uid, answer } => {
                let _ = answer.send(self.prepare(&claim, &uid).await);
            }
            LedgerRequest::Release { uid, claim, answer } => {
                let _ = answer.send(self.release(uid.as_deref(), &claim).await);
            }
        }
    }

    async fn prepare(
        &mut self,
        claim: &DraClaim,
        uid: &str,
    ) -> Result<Vec<PreparedDevice>, LedgerError> {
        let snapshot = self.snapshots.borrow().clone().ok_or(LedgerError::NotScanned)?;
        let cdi = self.cdi.borrow().clone();
        let (pool, claim, uid) = (self.pool.clone(), claim.clone(), uid.to_owned());
        let decided = self.with_holders(move |holders| {
            holders.listed(&snapshot.claimed);
            let context = PrepareContext {
                pool: &pool,
                snapshot: &snapshot,
                cdi_on_disk: cdi.as_deref(),
                holders,
            };
            let prepared = prepare(&context, &claim, &uid)?;
            holders.prepared(&claim, prepared.held);
            Ok(prepared.devices)
        });
        decided.await?
    }

    async fn release(&mut self, uid: Option<&str>, claim: &ClaimRef) -> Result<(), LedgerError> {
        let (uid, claim) = (uid.map(ToOwned::to_owned), claim.clone());
        self.with_holders(move |holders| holders.released(uid.as_deref(), &claim)).await
    }

    /// Changes who holds what, under the lock of the file, and writes the file if its records changed.
    async fn with_holders<T: Send + 'static>(
        &mut self,
        change: impl FnOnce(&mut ClaimHolders) -> T + Send + 'static,
    ) -> Result<T, LedgerError> {
        let mut holders = (**self.holders.borrow()).clone();
        let (changed, result) = self
            .locked(move |file| {
                let records = read(file)?;
                holders.restore(records.clone());
                let result = change(&mut holders);
                if *holders.records() != records {
                    file.write(holders.records())?;
                }
                Ok((holders, result))
            })
            .await?;
        self.publish(|holders| *holders = changed);
        Ok(result)
    }

    /// Takes in what the file has.
    async fn restore(&mut self) -> Result<(), LedgerError> {
        let records = self.locked(read).await?;
        self.publish(|holders| holders.restore(records));
        Ok(())
    }

    async fn locked<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LockedClaimFile) -> io::Result<T> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let directory = self.directory.clone();
        let blocking =
            tokio::task::spawn_blocking(move || work(&LockedClaimFile::lock(&directory)?));
        let done = match tokio::time::timeout(FILE_TIMEOUT, blocking).await {
            Ok(done) => done.unwrap_or_else(|error| Err(error.into())),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "another process has its lock")),
        };
        done.map_err(|error| LedgerError::File(self.directory.join(CLAIM_FILE), error))
    }
}

fn read(file: &LockedClaimFile) -> io::Result<ClaimRecords> {
    Ok(match file.read()? {
        ClaimFile::Absent => ClaimRecords::new(),
        ClaimFile::Valid(records) => records,
        ClaimFile::Damaged(error, aside) => {
            let (event, moved_to) = (LogEvent::RecordsDamaged.name(), aside.display());
            warn!(event, %error, %moved_to, "the prepared claims are damaged");
            ClaimRecords::new()
        }
    })
}
