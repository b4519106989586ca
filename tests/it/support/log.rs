//! What the plugin logs in the thread of a test.

use std::io::{self, Write};
use std::sync::Arc;

use ix_device_plugin::model::log_event::LogEvent;
use tokio::sync::watch;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

use super::clock::soon;

/// The events of this thread, which is all of a test, from `info` on.
pub(crate) struct Log {
    events: Events,
    _while_it_lives: DefaultGuard,
}

/// Each as the log shows it, without time and module: `WARN board left board=…`.
#[derive(Clone)]
struct Events(Arc<watch::Sender<Vec<String>>>);

impl Log {
    pub(crate) fn capture() -> Self {
        keep_every_callsite_enabled();
        let events = Events(Arc::new(watch::Sender::new(Vec::new())));
        let subscriber = tracing_subscriber::fmt()
            .with_writer(events.clone())
            .without_time()
            .with_ansi(false)
            .finish();
        Self { events, _while_it_lives: tracing::subscriber::set_default(subscriber) }
    }

    /// The first line of every event of this level so far, without the level.
    pub(crate) fn lines(&self, level: &str) -> Vec<String> {
        let events = self.events.0.borrow();
        let first_lines = events.iter().filter_map(|event| event.lines().next());
        let of_level = first_lines.filter_map(|line| line.strip_prefix(level));
        of_level.map(|line| line.trim().to_owned()).collect()
    }

    /// Checks that an event reads like this, in whole or in part.
    #[track_caller]
    pub(crate) fn has(&self, part: &str) {
        let events = self.events.0.borrow();
        let is_there = events.iter().any(|event| event.contains(part));
        assert!(is_there, "{part}\nis not in the log:\n{events:#?}");
    }

    /// Waits for this event.
    #[track_caller]
    pub(crate) fn event(&self, event: LogEvent) -> impl Future<Output = ()> {
        let mut events = self.events.0.subscribe();
        let field = field(event);
        async move {
            let logged = events.wait_for(|events| events.iter().any(|it| it.contains(&field)));
            soon(&field, logged).await.unwrap();
        }
    }
}

/// How the log shows the event.
fn field(event: LogEvent) -> String {
    format!("event=\"{}\"", event.name())
}

/// Whether a callsite is enabled is cached for all threads together; without a subscriber that wants
/// everything, one thread's events would be left out while no other thread captures any.
fn keep_every_callsite_enabled() {
    static SUBSCRIBED: std::sync::Once = std::sync::Once::new();
    SUBSCRIBED.call_once(|| {
        let sink = tracing_subscriber::fmt().with_writer(io::sink).finish();
        tracing::subscriber::set_global_default(sink).unwrap();
    });
}

impl<'a> MakeWriter<'a> for Events {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Events {
    /// An event comes in one piece: ` WARN ix_device_plugin::daemon::http: MESSAGE FIELDS`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let (head, message) = text.split_once(": ").unwrap_or(("", &text));
        let level = head.trim().split_once(' ').map_or("", |(level, _)| level);
        self.0.send_modify(|events| events.push(format!("{level} {message}")));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
