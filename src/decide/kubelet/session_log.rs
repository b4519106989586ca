//! At which level a session's events are logged, so that an operator sees each problem and its end
//! once, and a session that keeps failing does not fill the log.
//!
//! **Invariant.** A warning is followed by an info line when the session has recovered from it.

use std::time::Duration;

use super::session::STEADY_AFTER;

/// So many restarts in a row are logged as warnings.
const RESTART_LIMIT: u32 = 8;
/// Beyond [`RESTART_LIMIT`], one restart in so long is.
const RESTART_INTERVAL: Duration = Duration::from_secs(60);

/// How visible an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// A problem that an operator should know of.
    Warn,
    /// The end of a problem, or of a start.
    Info,
    /// More of what is known already.
    Debug,
}

/// What of one session was logged.
#[derive(Clone, Debug)]
pub struct SessionLog {
    /// The last error since a success.
    last_error: Option<String>,
    /// Restarts since a stream was steady.
    restarts: u32,
    /// When a restart was last a warning.
    warned_at: Option<Duration>,
    /// Since when the kubelet has the list.
    streaming_since: Option<Duration>,
    /// Whether the next registration ends what a warning began.
    is_registration_news: bool,
    /// Whether the next stream does.
    is_stream_news: bool,
}

impl Default for SessionLog {
    /// Nothing was logged: the first registration and the first stream are news.
    fn default() -> Self {
        Self {
            last_error: None,
            restarts: 0,
            warned_at: None,
            streaming_since: None,
            is_registration_news: true,
            is_stream_news: true,
        }
    }
}

impl SessionLog {
    /// Binding or registering failed with `error`; the same error again is no news.
    pub fn failed(&mut self, error: &str) -> Visibility {
        if self.last_error.as_deref() == Some(error) {
            return Visibility::Debug;
        }
        self.last_error = Some(error.to_owned());
        self.warn()
    }

    /// The session ended and starts again.
    pub fn restarted(&mut self, now: Duration) -> Visibility {
        if self.streaming_since.take().is_some_and(|since| now >= since + STEADY_AFTER) {
            self.restarts = 0;
        }
        self.restarts = self.restarts.saturating_add(1);
        let is_due = self.warned_at.is_none_or(|at| now >= at + RESTART_INTERVAL);
        if self.restarts > RESTART_LIMIT && !is_due {
            return Visibility::Debug;
        }
        self.warned_at = Some(now);
        self.warn()
    }

    /// The kubelet accepted the registration.
    pub fn registered(&mut self) -> Visibility {
        self.last_error = None;
        news(std::mem::take(&mut self.is_registration_news))
    }

    /// The kubelet opened a stream, so it has the list.
    pub fn streaming(&mut self, now: Duration) -> Visibility {
        self.last_error = None;
        self.streaming_since = Some(now);
        // It may open before the registration returns.
        self.is_registration_news = false;
        news(std::mem::take(&mut self.is_stream_news))
    }

    fn warn(&mut self) -> Visibility {
        (self.is_registration_news, self.is_stream_news) = (true, true);
        Visibility::Warn
    }
}

fn news(is_news: bool) -> Visibility {
    if is_news { Visibility::Info } else { Visibility::Debug }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Visibility::{Debug, Info, Warn};
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A session whose stream is steady one second from now.
    fn streaming() -> SessionLog {
        let mut log = SessionLog::default();
        assert_eq!((log.registered(), log.streaming(seconds(0))), (Info, Info));
        log
    }

    #[test]
    fn a_start_is_logged_once() {
        let mut log = streaming();
        assert_eq!((log.registered(), log.streaming(seconds(1))), (Debug, Debug));
    }

    #[test]
    fn the_same_error_again_is_logged_once() {
        let mut log = SessionLog::default();
        assert_eq!(log.failed("refused"), Warn);
        assert_eq!(log.failed("refused"), Debug);
        assert_eq!(log.failed("no such file"), Warn);
    }

    #[test]
    fn a_restart_of_a_kubelet_that_was_away_for_a_minute_ends_with_info_lines() {
        let mut log = streaming();
        assert_eq!(log.restarted(seconds(100)), Warn);
        assert_eq!(log.failed("connection refused"), Warn);
        for _ in 0..100 {
            assert_eq!(log.failed("connection refused"), Debug);
        }
        // The new kubelet removes our socket.
        assert_eq!(log.restarted(seconds(160)), Warn);
        assert_eq!((log.registered(), log.streaming(seconds(160))), (Info, Info));
    }

    #[test]
    fn a_recovery_is_logged_after_many_restarts_too() {
        let (mut log, mut now) = (streaming(), seconds(0));
        for _ in 0..=RESTART_LIMIT {
            now += Duration::from_millis(100);
            log.restarted(now);
            log.registered();
            log.streaming(now);
        }
        assert_eq!(log.restarted(now), Debug);
        assert_eq!(log.failed("connection refused"), Warn);
        assert_eq!((log.registered(), log.streaming(now)), (Info, Info));
    }

    #[test]
    fn a_session_that_keeps_failing_is_logged_a_few_times_and_then_once_a_minute() {
        let (mut log, mut warnings) = (SessionLog::default(), 0);
        for tenth in 0..6000 {
            let now = Duration::from_millis(tenth * 100);
            let restarted = log.restarted(now);
            let recovered = [log.registered(), log.streaming(now)];
            let is_logged = restarted == Warn;
            assert_eq!(recovered, if is_logged { [Info, Info] } else { [Debug, Debug] });
            warnings += u32::from(is_logged);
        }
        assert!((RESTART_LIMIT + 9..=RESTART_LIMIT + 10).contains(&warnings), "{warnings}");
        // After a steady stream the count begins anew.
        assert_eq!(log.restarted(seconds(600) + STEADY_AFTER), Warn);
        assert_eq!(log.restarted(seconds(600) + STEADY_AFTER), Warn);
    }

    #[test]
    fn a_session_whose_registrations_lead_to_no_stream_does_not_log_each_one() {
        let mut log = streaming();
        for _ in 0..=RESTART_LIMIT {
            log.restarted(seconds(1));
            log.registered();
        }
        assert_eq!(log.restarted(seconds(2)), Debug);
        assert_eq!(log.registered(), Debug);
        assert_eq!(log.streaming(seconds(3)), Info);
    }

    proptest! {
        #[test]
        fn whatever_was_warned_about_the_next_stream_is_logged(
            events in prop::collection::vec((0..4_u8, 0..3_u8, 0..5000_u64), 0..200),
        ) {
            let (mut log, mut now, mut is_open) = (SessionLog::default(), seconds(0), true);
            for (event, error, pause) in events {
                now += Duration::from_millis(pause);
                match event {
                    0 => is_open |= log.failed(&error.to_string()) == Warn,
                    1 => is_open |= log.restarted(now) == Warn,
                    2 => drop(log.registered()),
                    _ => {
                        let expected = if is_open { Info } else { Debug };
                        prop_assert_eq!(log.streaming(now), expected);
                        is_open = false;
                    }
                }
            }
        }
    }
}
