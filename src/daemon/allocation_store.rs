//! Keeps allocation records: in memory at once, so that Allocate does no I/O; in a file soon after,
//! by a task of its own. No container starts before its records are in the file.
//!
//! The file is read and written as rarely as possible:
//!
//! - Allocate requests a check of the file's version; also for a record that repeats a known one, so
//!   that it is not taken for newer than what another instance allocates later.
//! - PreStartContainer requests the same, and waits for it. The file is read again only if its version
//!   is neither the one last read nor the one last written here, that is, if another instance wrote it
//!   during a rolling update.
//! - Then the file's records replace the known ones, because they may be newer, except for those that
//!   this instance allocated since it last read the file: these are newer, and are written if they
//!   differ. So a record that was overwritten by another instance's write at the same moment is
//!   restored before its container starts.
//!
//! An overwritten record whose container has started already is restored with the next write. If the
//! plugin stops before that, a restart of that container is not verified; it is never refused.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::decide::allocation::records::{contains, forget, merge};
use crate::decide::backoff::backoff;
use crate::host::files::{self, FileVersion};
use crate::host::state_file::{self, StateFile};
use crate::model::allocation::{AllocationRecord, AllocationRecords, Allocations};
use crate::model::device::DeviceId;
use crate::model::log_event::LogEvent;
use crate::parse::allocations::{parse_allocations, write_allocations};

/// How long a container's start waits for the file. A full disk must not block it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The file's name in the kubelet's device plugin directory.
pub const FILE_NAME: &str = "iluvatar-gpu.allocations";

/// The former name of the file. It is read once and removed.
pub const FORMER_FILE_NAME: &str = "iluvatar-gpu.handouts";

/// Where allocation records are kept.
#[derive(Clone, Debug)]
pub struct AllocationPaths {
    /// The file.
    pub current: PathBuf,
    /// Where a plugin under the former name kept it.
    pub former: PathBuf,
}

impl AllocationPaths {
    /// In the kubelet's device plugin directory.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self { current: directory.join(FILE_NAME), former: directory.join(FORMER_FILE_NAME) }
    }
}

#[derive(Debug, Default)]
struct Known {
    allocations: Allocations,
    /// Allocated here since the file was last read or written.
    unconfirmed: AllocationRecords,
}

impl Known {
    /// Adds allocations made now.
    fn add(&mut self, newer: &AllocationRecords, now: Duration) {
        let Allocations { records, allocated_at } = &mut self.allocations;
        let allocated_at = Arc::make_mut(allocated_at);
        for (resource, devices) in newer {
            let times = allocated_at.entry(resource.clone()).or_default();
            times.extend(devices.keys().map(|id| (*id, now)));
        }
        merge(&mut self.unconfirmed, newer);
        if !contains(records, newer) {
            merge(Arc::make_mut(records), newer);
        }
    }

    /// Adopts the file's records; returns whether one differs from the known ones.
    fn adopt(&mut self, on_disk: &Arc<AllocationRecords>, confirmed: &AllocationRecords) -> bool {
        forget(&mut self.unconfirmed, confirmed);
        let mut records = Arc::clone(on_disk);
        if !self.unconfirmed.is_empty() {
            merge(Arc::make_mut(&mut records), &self.unconfirmed);
        }
        let differs = records != self.allocations.records;
        self.allocations.records = records;
        differs
    }
}

/// Shared by every service; clones share the same records.
#[derive(Clone, Debug)]
pub struct AllocationStore {
    started: Instant,
    known: Arc<watch::Sender<Known>>,
    /// The number of the last request to check the file.
    requests: Arc<watch::Sender<u64>>,
    /// The last request that was done.
    done: watch::Receiver<u64>,
}

/// Reports changes of the known allocations.
#[derive(Clone, Debug)]
pub struct AllocationsReceiver(watch::Receiver<Known>);

impl AllocationsReceiver {
    /// Waits for the next allocation, or for records of another instance; never ends where the store
    /// is gone.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The allocations known now; marks them as seen.
    pub fn borrow_and_update(&mut self) -> Allocations {
        self.0.borrow_and_update().allocations.clone()
    }
}

/// What the file holds, as last read or written.
#[derive(Clone, Debug, Default)]
struct OnDisk {
    version: Option<FileVersion>,
    records: Arc<AllocationRecords>,
}

/// Reads and writes the file; runs as a task of its own.
#[derive(Debug)]
pub struct AllocationWriter {
    path: PathBuf,
    /// The file under its former name, until its records are in the present one.
    former: Option<PathBuf>,
    on_disk: OnDisk,
    known: Arc<watch::Sender<Known>>,
    requests: Arc<watch::Sender<u64>>,
    done: watch::Sender<u64>,
    failures: u32,
}

/// A store of what is in the file now, and the task that keeps the file. A file that cannot be read
/// or is damaged counts as empty, with a warning. Times count from `started`.
#[must_use]
pub fn open(paths: AllocationPaths, started: Instant) -> (AllocationStore, AllocationWriter) {
    let AllocationPaths { current, former } = paths;
    let (on_disk, former_file) = (load(&current), load(&former));
    let mut records = former_file.records;
    merge(Arc::make_mut(&mut records), &on_disk.records);
    let allocations = Allocations { records, ..Allocations::default() };
    let known = Arc::new(watch::Sender::new(Known { allocations, ..Known::default() }));
    // A file under the former name is a reason to write the present one.
    let former = former_file.version.is_some().then_some(former);
    let requests = Arc::new(watch::Sender::new(u64::from(former.is_some())));
    let (done, last_done) = watch::channel(0);
    let store = AllocationStore {
        started,
        known: Arc::clone(&known),
        requests: Arc::clone(&requests),
        done: last_done,
    };
    let (path, failures) = (current, 0);
    let writer = AllocationWriter { path, former, on_disk, known, requests, done, failures };
    (store, writer)
}

fn load(path: &Path) -> OnDisk {
    read(path, OnDisk::default()).unwrap_or_else(|error| {
        let path = path.display();
        warn!(event = LogEvent::RecordsUnreadable.name(), %path, %error, "cannot read allocation records");
        OnDisk::default()
    })
}

/// The file as it is now, where `last` is what it was.
fn read(path: &Path, last: OnDisk) -> io::Result<OnDisk> {
    Ok(match state_file::read(path, last.version, parse_allocations)? {
        None => last,
        Some(StateFile::Absent) => OnDisk::default(),
        Some(StateFile::Valid(version, records)) => {
            OnDisk { version: Some(version), records: Arc::new(records) }
        }
        Some(StateFile::Damaged(error)) => {
            let moved_to = state_file::set_aside(path)?;
            let (path, moved_to) = (path.display(), moved_to.display());
            warn!(
                event = LogEvent::RecordsDamaged.name(), %path, %moved_to, %error,
                "allocation records are damaged; file moved aside"
            );
            OnDisk::default()
        }
    })
}

/// Reads the file if it changed, and writes it if it lacks something; returns what it holds then.
fn synchronise(
    path: &Path,
    last: OnDisk,
    known: &AllocationRecords,
    unconfirmed: &AllocationRecords,
) -> io::Result<OnDisk> {
    let on_disk = read(path, last).unwrap_or_else(|error| {
        debug!(path = %path.display(), %error, "cannot read allocation records");
        OnDisk::default()
    });
    let mut records = known.clone();
    merge(&mut records, &on_disk.records);
    merge(&mut records, unconfirmed);
    if records == *on_disk.records {
        return Ok(on_disk);
    }
    let version = state_file::write(path, &write_allocations(&records))?;
    Ok(OnDisk { version: Some(version), records: Arc::new(records) })
}

impl AllocationStore {
    /// Records what a container is allocated. Does no I/O.
    pub fn record(&self, resource: &str, devices: BTreeMap<DeviceId, AllocationRecord>) {
        let newer = AllocationRecords::from([(resource.to_owned(), devices)]);
        let now = self.started.elapsed();
        self.known.send_modify(|known| known.add(&newer, now));
        self.request();
    }

    /// Requests a check of the file.
    fn request(&self) -> u64 {
        self.requests.send_modify(|requests| *requests += 1);
        *self.requests.borrow()
    }

    /// The last allocation of an id.
    #[must_use]
    pub fn find(&self, resource: &str, id: DeviceId) -> Option<AllocationRecord> {
        self.known.borrow().allocations.records.get(resource)?.get(&id).cloned()
    }

    /// All known allocations.
    #[must_use]
    pub fn allocations(&self) -> Allocations {
        self.known.borrow().allocations.clone()
    }

    /// The known allocations from now on.
    #[must_use]
    pub fn subscribe(&self) -> AllocationsReceiver {
        AllocationsReceiver(self.known.subscribe())
    }

    /// Waits until everything recorded so far is in the file, and what another instance wrote there is
    /// known here; gives up after five seconds, with a warning.
    pub async fn synchronised(&self) {
        let request = self.request();
        let mut done = self.done.clone();
        let waited =
            tokio::time::timeout(WRITE_TIMEOUT, done.wait_for(|done| *done >= request)).await;
        if !matches!(waited, Ok(Ok(_))) {
            warn!(
                event = LogEvent::StartUnrecorded.name(),
                waited = ?WRITE_TIMEOUT,
                "container starts before its allocation records are in the file; if the plugin \
                 restarts, further starts of this container are not verified"
            );
        }
    }
}

impl AllocationWriter {
    /// Synchronises the file at every request until `stop`, and then what is left.
    pub async fn run(mut self, stop: CancellationToken) {
        let seed = u64::from(std::process::id());
        let mut requests = self.requests.subscribe();
        loop {
            let request = *requests.borrow_and_update();
            if request > *self.done.borrow() {
                self.synchronise(request).await;
            }
            let wait = backoff(self.failures, seed);
            tokio::select! {
                () = stop.cancelled() => break,
                // More requests do not shorten the wait after a failure.
                _ = requests.changed(), if self.failures == 0 => {}
                () = tokio::time::sleep(wait), if self.failures > 0 => {}
            }
        }
        let request = *requests.borrow();
        if request > *self.done.borrow() {
            self.synchronise(request).await;
        }
    }

    async fn synchronise(&mut self, request: u64) {
        let (known, unconfirmed) = {
            let known = self.known.borrow();
            (Arc::clone(&known.allocations.records), known.unconfirmed.clone())
        };
        if self.is_synchronised(&known, &unconfirmed) {
            self.succeeded(self.on_disk.clone(), &unconfirmed);
            self.done.send_replace(request);
            return;
        }
        let (path, last) = (self.path.clone(), self.on_disk.clone());
        let synchronised = blocking(move || {
            let on_disk = synchronise(&path, last, &known, &unconfirmed)?;
            Ok((on_disk, unconfirmed))
        });
        match synchronised.await {
            Ok((on_disk, confirmed)) => {
                self.succeeded(on_disk, &confirmed);
                self.remove_former().await;
                self.done.send_replace(request);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Whether the file has all of it, and nobody wrote it since: one `stat`, for which no thread is
    /// woken.
    fn is_synchronised(
        &self,
        known: &Arc<AllocationRecords>,
        unconfirmed: &AllocationRecords,
    ) -> bool {
        let OnDisk { version, records } = &self.on_disk;
        self.failures == 0
            && self.former.is_none()
            && version.is_some()
            && known == records
            && contains(records, unconfirmed)
            && files::stamp(&self.path).ok() == *version
    }

    fn succeeded(&mut self, on_disk: OnDisk, confirmed: &AllocationRecords) {
        if self.failures > 0 {
            info!(
                event = LogEvent::RecordsWritten.name(), path = %self.path.display(),
                "allocation records written after failures"
            );
        }
        self.failures = 0;
        self.known.send_if_modified(|known| known.adopt(&on_disk.records, confirmed));
        self.on_disk = on_disk;
    }

    async fn remove_former(&mut self) {
        let Some(path) = self.former.take() else { return };
        let former = path.clone();
        match blocking(move || files::remove(&former)).await {
            Ok(()) => info!(
                event = LogEvent::RecordsWritten.name(),
                path = %path.display(),
                "allocation records moved to the new file"
            ),
            Err(error) => warn!(
                event = LogEvent::RecordsFailed.name(),
                path = %path.display(),
                %error,
                "cannot remove the former file of allocation records; remove it by hand"
            ),
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.failures = self.failures.saturating_add(1);
        let path = self.path.display();
        if self.failures == 1 {
            warn!(
                event = LogEvent::RecordsFailed.name(), %path, %error,
                "cannot write allocation records; retrying"
            );
        } else {
            debug!(%path, %error, failures = self.failures, "cannot write allocation records");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
