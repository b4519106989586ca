//! Reports when to check a file: on a hint of inotify, and at intervals, because inotify may be
//! unavailable or end.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::timer::next_tick;
use crate::host::directory_watch::DirectoryWatch;

/// How long to wait for a check without a hint.
#[derive(Clone, Copy, Debug)]
pub struct CheckIntervals {
    /// After the start, and after inotify was opened: it does not report earlier changes.
    pub first: Duration,
    /// Without inotify.
    pub polled: Duration,
    /// While inotify reports changes.
    pub watched: Duration,
}

/// Why to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckReason {
    /// Inotify reported a change, or it ended.
    Hint,
    /// The interval is over.
    Interval,
}

/// Follows one directory.
#[derive(Debug)]
pub struct DirectoryFollower {
    /// The seldom checks are due at whole intervals since then.
    started: Instant,
    inotify: bool,
    watch: Option<DirectoryWatch>,
    /// Whether the check that is due first was reported.
    is_settled: bool,
}

impl DirectoryFollower {
    /// Follows by intervals alone unless `inotify` is true.
    #[must_use]
    pub fn new(inotify: bool, started: Instant) -> Self {
        Self { started, inotify, watch: None, is_settled: false }
    }

    /// Waits until the next check is due. Where inotify is not active, tries `open` first; none means
    /// that it is unavailable. Dropping the future loses nothing.
    pub async fn next(
        &mut self,
        intervals: CheckIntervals,
        open: impl FnOnce() -> Option<DirectoryWatch>,
    ) -> CheckReason {
        if self.watch.is_none() && self.inotify {
            self.watch = open();
            self.is_settled &= self.watch.is_none();
        }
        let now = Instant::now();
        let next = match &self.watch {
            _ if !self.is_settled => now + intervals.first,
            Some(_) => next_tick(self.started, now, intervals.watched),
            None => now + intervals.polled,
        };
        let reason = tokio::select! {
            () = sleep_until(next) => CheckReason::Interval,
            result = DirectoryWatch::changed_or_never(self.watch.as_ref()) => {
                if result.is_err() {
                    self.watch = None;
                }
                CheckReason::Hint
            }
        };
        self.is_settled = true;
        reason
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "these tests make the directories")]
mod tests {
    use super::*;

    const INTERVALS: CheckIntervals = CheckIntervals {
        first: Duration::from_secs(1),
        polled: Duration::from_secs(2),
        watched: Duration::from_secs(60),
    };

    async fn waits(
        follower: &mut DirectoryFollower,
        open: impl FnOnce() -> Option<DirectoryWatch>,
    ) -> (CheckReason, u64) {
        let began = Instant::now();
        let reason = follower.next(INTERVALS, open).await;
        (reason, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn without_inotify_every_check_is_due_at_the_shorter_interval() {
        for mut follower in
            [false, true].map(|inotify| DirectoryFollower::new(inotify, Instant::now()))
        {
            assert_eq!(waits(&mut follower, || None).await, (CheckReason::Interval, 1));
            assert_eq!(waits(&mut follower, || None).await, (CheckReason::Interval, 2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_follows_soon_when_inotify_begins_and_seldom_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let open = || DirectoryWatch::open(directory.path()).ok();
        let mut follower = DirectoryFollower::new(true, Instant::now());
        assert_eq!(waits(&mut follower, || None).await, (CheckReason::Interval, 1));
        assert_eq!(waits(&mut follower, open).await, (CheckReason::Interval, 1));
        assert_eq!(waits(&mut follower, || None).await, (CheckReason::Interval, 58));
        assert_eq!(waits(&mut follower, || None).await, (CheckReason::Interval, 60));
    }

    #[tokio::test]
    async fn a_change_is_a_hint_and_so_is_the_end_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let open = || DirectoryWatch::open(directory.path()).ok();
        let mut follower = DirectoryFollower::new(true, Instant::now());
        follower.next(CheckIntervals { first: Duration::ZERO, ..INTERVALS }, open).await;
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert_eq!(waits(&mut follower, || None).await.0, CheckReason::Hint);
        std::fs::remove_file(directory.path().join("file")).unwrap();
        assert_eq!(waits(&mut follower, || None).await.0, CheckReason::Hint);
        std::fs::remove_dir(directory.path()).unwrap();
        assert_eq!(waits(&mut follower, || None).await.0, CheckReason::Hint);
        assert!(follower.watch.is_none());
    }
}
