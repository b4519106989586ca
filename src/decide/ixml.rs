//! When a request to libixml fails, and when the next one is sent.

use std::time::Duration;

/// How long the daemon waits for libixml, and how long before it tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IxmlRetry {
    /// The agent is killed when a request has no answer for this long.
    pub answer_timeout: Duration,
    /// The delay after the first failure in a row; it doubles with each.
    pub first_delay: Duration,
    /// The longest delay.
    pub longest_delay: Duration,
}

impl Default for IxmlRetry {
    /// A library may take seconds to wake a machine with sixteen chips, hence the long timeout.
    fn default() -> Self {
        Self {
            answer_timeout: Duration::from_secs(30),
            first_delay: Duration::from_secs(5),
            longest_delay: Duration::from_secs(300),
        }
    }
}

impl IxmlRetry {
    /// The delay after the `failures`-th failure in a row, counted from 1.
    #[must_use]
    pub fn delay(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.first_delay.saturating_mul(1 << doublings).min(self.longest_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_five_minutes() {
        let delays = [1, 2, 3, 7, u32::MAX].map(|failures| IxmlRetry::default().delay(failures));
        assert_eq!(delays, [5, 10, 20, 300, 300].map(Duration::from_secs));
    }
}
