//! Hints that the entries of a directory changed, through inotify.
//!
//! Only hints: inotify instances and watches are scarce on busy nodes (`fs.inotify.*`), so a
//! caller must also poll.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use super::readiness::readiness;

/// Entries that come, go or are replaced, and the end of the directory itself.
const ENTRIES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// An inotify instance with one watch.
#[derive(Debug)]
pub struct DirectoryWatch {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
}

impl DirectoryWatch {
    /// Watches a directory for entries that come, go or are replaced.
    ///
    /// # Errors
    /// As `inotify_init1` and `inotify_add_watch`: `EMFILE` and `ENOSPC` where the node's limits
    /// are used up, `ENOENT` where the directory is not there.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Self::open_for(directory, ENTRIES)
    }

    /// The same, and for files that were written in place.
    ///
    /// # Errors
    /// As [`DirectoryWatch::open`].
    pub fn open_with_contents(directory: &Path) -> io::Result<Self> {
        Self::open_for(directory, ENTRIES | AddWatchFlags::IN_CLOSE_WRITE)
    }

    fn open_for(directory: &Path, changes: AddWatchFlags) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(directory, changes | AddWatchFlags::IN_ONLYDIR)?;
        let ready = readiness(&inotify)?;
        Ok(Self { inotify, ready })
    }

    /// Whether there is room for another instance and a watch, without a runtime.
    ///
    /// # Errors
    /// As [`DirectoryWatch::open`].
    pub fn probe(directory: &Path) -> io::Result<()> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(directory, AddWatchFlags::IN_CREATE)?;
        Ok(())
    }

    /// Waits until something changed, never ends without a watch.
    ///
    /// # Errors
    /// As [`DirectoryWatch::changed`].
    pub async fn changed_or_never(watch: Option<&Self>) -> io::Result<()> {
        match watch {
            Some(watch) => watch.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Waits until something changed.
    ///
    /// # Errors
    /// The watch is of no more use: the directory is gone, or reading failed.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.ready.readable().await?;
            let read = ready.try_io(|_| Ok(self.inotify.read_events()?));
            match read {
                Ok(Ok(events)) => {
                    let gone = events.iter().any(|event| {
                        event.mask.intersects(
                            AddWatchFlags::IN_IGNORED
                                | AddWatchFlags::IN_DELETE_SELF
                                | AddWatchFlags::IN_MOVE_SELF,
                        )
                    });
                    return if gone { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) };
                }
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}
