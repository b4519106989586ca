//! Why the machine is scanned.

/// What led to a scan; the first hint since the last one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RescanTrigger {
    /// The first scan of this process.
    Start,
    /// The kernel sent a uevent.
    Uevent,
    /// Uevents are unavailable, or may have been missed.
    Poll,
    /// An operator sent SIGHUP.
    Request,
    /// The configuration changed.
    Configuration,
    /// The file of `discovery.identities` changed.
    Identities,
    /// A health sample shows that the last scan is outdated.
    Health,
    /// A chip has no driver or no device node yet.
    Settling,
    /// The last scan failed.
    Retry,
    /// The longest time without a scan has passed.
    Timer,
}
