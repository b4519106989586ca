//! The file of cordons, followed while the daemon runs.
//!
//! It is read before the first list is made, so that no cordoned device is offered after a restart. A
//! damaged file is set aside; what was known of it is written again. A file that cannot be read
//! changes nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::directory_follower::{CheckIntervals, DirectoryFollower};
use crate::host::cordon_file::{self, FILE_NAME};
use crate::host::directory_watch::DirectoryWatch;
use crate::host::files::{self, FileVersion};
use crate::host::state_file::{StateFile, aside_of};
use crate::model::cordon::{CordonList, Cordons};
use crate::model::log_event::LogEvent;

/// How often to check the file's version.
const INTERVALS: CheckIntervals = CheckIntervals {
    first: Duration::from_millis(500),
    polled: Duration::from_millis(500),
    watched: Duration::from_secs(60),
};

/// Follows the file.
#[derive(Debug)]
pub struct CordonWatch {
    path: PathBuf,
    inotify: bool,
    /// Of the file that was read last.
    version: Option<FileVersion>,
    cordons: watch::Sender<CordonList>,
}

impl CordonWatch {
    /// Reads the file in the kubelet's device plugin directory; what is in it from then on is received.
    #[must_use]
    pub fn open(directory: &Path, inotify: bool) -> (Self, watch::Receiver<CordonList>) {
        let path = directory.join(FILE_NAME);
        let (cordons, receiver) = watch::channel(CordonList::default());
        let mut watch = Self { path, inotify, version: None, cordons };
        let list = watch.read();
        watch.publish(list);
        (watch, receiver)
    }

    /// Follows until `stop`, for a daemon that began at `started`.
    pub async fn run(mut self, started: Instant, stop: CancellationToken) {
        let mut follower = DirectoryFollower::new(self.inotify, started);
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = follower.next(INTERVALS, || self.watch()) => {}
            }
            let reading = tokio::task::spawn_blocking(move || {
                let list = self.read();
                (self, list)
            });
            let (read, list) = match reading.await {
                Ok(read) => read,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            self = read;
            self.publish(list);
        }
    }

    fn watch(&self) -> Option<DirectoryWatch> {
        DirectoryWatch::open(self.path.parent()?).ok()
    }

    /// Sends what is new.
    fn publish(&self, list: CordonList) {
        self.cordons.send_if_modified(|last| {
            if let Some(problem) = list.problem.as_ref().filter(|_| last.problem != list.problem) {
                warn!(event = LogEvent::CordonFileUnusable.name(), "{problem}");
            }
            let is_new = *last != list;
            *last = list;
            is_new
        });
    }

    /// Reads the file if it changed.
    fn read(&mut self) -> CordonList {
        match self.read_cordons() {
            Ok(cordons) => CordonList { cordons, problem: self.lost() },
            Err(error) => CordonList { cordons: self.known(), problem: Some(self.kept(&error)) },
        }
    }

    fn known(&self) -> Cordons {
        self.cordons.borrow().cordons.clone()
    }

    fn read_cordons(&mut self) -> io::Result<Cordons> {
        let (version, cordons) = match cordon_file::read(&self.path, self.version)? {
            None => (self.version, self.known()),
            Some(StateFile::Absent) => (None, Cordons::new()),
            Some(StateFile::Valid(version, cordons)) => (Some(version), cordons),
            Some(StateFile::Damaged(_)) => (None, self.restore()?),
        };
        self.version = version;
        Ok(cordons)
    }

    /// Sets a damaged file aside and writes the known cordons again. A command may have done the first
    /// in the meantime; its cordons stay.
    fn restore(&self) -> io::Result<Cordons> {
        let known = self.known();
        let update = cordon_file::update(&self.path, |cordons| {
            for (id, cordon) in known {
                cordons.entry(id).or_insert(cordon);
            }
        })?;
        Ok(update.cordons)
    }

    /// What to do about a damaged file; none where there is none.
    fn lost(&self) -> Option<String> {
        let aside = aside_of(&self.path);
        files::exists(&aside).then(|| {
            format!(
                "the file of cordons was damaged and moved to {0}, so a cordon may be lost: compare \
                 with `cordon --list`, cordon again what is missing, then delete {0} on the node",
                aside.display()
            )
        })
    }

    fn kept(&self, error: &io::Error) -> String {
        let path = self.path.display();
        format!("cannot read the cordons in {path}: {error}; the last known ones stay active")
    }
}
