//! A moment that may never come, for `select!`.

use tokio::time::{Instant, sleep_until};

/// Waits for the moment; for ever where there is none.
pub async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
