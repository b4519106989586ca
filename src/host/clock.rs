//! The time of day, for people to read. What is measured is measured by the monotonic clock.

use std::time::SystemTime;

/// Now. It may step back, as clocks that are set do.
#[must_use]
pub fn time_of_day() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the one door for the time of day")]
    SystemTime::now()
}
