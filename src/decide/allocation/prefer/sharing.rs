//! What the sharing policies cost on one device; the only file that knows both.

use super::score::Score;
use crate::model::config::SharingPolicy;

/// The cost of taking `taken` replicas of a device of which `free` were free and `in_use` were not.
///
/// Spread counts the pairs among the taken first. The sum over all devices is least exactly when
/// the replicas are spread as evenly as the free ones allow: while a device with a free replica
/// has none taken, taking one there instead of a second one elsewhere lowers it. Pack counts the
/// device itself, so its sum is the number of devices.
pub(super) fn cost(policy: Option<SharingPolicy>, taken: u64, free: u64, in_use: u64) -> Score {
    let (crowding, load) = match policy {
        None => (0, 0),
        Some(SharingPolicy::Spread) => (taken * taken.saturating_sub(1) / 2, taken * in_use),
        Some(SharingPolicy::Pack) => (u64::from(taken > 0), taken * free),
    };
    Score { crowding, load, ..Score::default() }
}
