//! An optional deadline, for `select!`.

use tokio::time::{Instant, sleep_until};

/// Waits until the deadline; never ends without one.
pub async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
