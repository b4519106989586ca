//! A file that nobody can open for now: the kernel keeps whoever tries waiting, as a driver does that
//! hangs. By fanotify's permission events, which need root.

use std::path::Path;

use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MarkFlags, MaskFlags};

use super::clock::eventually;

/// Opening the file hangs until this is dropped.
pub(crate) struct Hang {
    fanotify: Fanotify,
    /// Unanswered, so that whoever caused them waits.
    waiting: Vec<FanotifyEvent>,
}

impl Hang {
    /// None where the kernel or the user's rights do not allow it.
    pub(crate) fn open_of(path: &Path) -> Option<Self> {
        let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
        let fanotify = Fanotify::init(flags, EventFFlags::O_RDONLY).ok()?;
        // The path is absolute, so the directory that it would be relative to plays no part.
        let (add, open) = (MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_PERM);
        fanotify.mark(add, open, std::io::stderr(), Some(path)).ok()?;
        Some(Self { fanotify, waiting: Vec::new() })
    }

    /// Waits until somebody hangs.
    pub(crate) async fn is_hit(&mut self) {
        let (fanotify, waiting) = (&self.fanotify, &mut self.waiting);
        let is_hit = async || {
            waiting.extend(fanotify.read_events().unwrap_or_default());
            (!waiting.is_empty()).then_some(())
        };
        eventually("somebody to open the file", is_hit).await;
    }
}
