//! The plugin asked over HTTP, as a kubelet, a Prometheus and an operator ask it.

mod client;
mod status_service;

pub(crate) mod cli;
mod limits;
mod metrics;
mod probes;
mod status;

use std::time::Duration;

use crate::stage::{Script, Stage, node_text, within};
use crate::support::clock::FOR_EVER;

/// How often a page is asked for that is to change.
const TICK: Duration = Duration::from_millis(5);

/// Four boards, a kubelet, and a daemon that answers over HTTP.
async fn four_boards(config: &str) -> Stage {
    Stage::play(&node_text("mr-v100-x4"), Script::fixed(config).over_http()).await
}

impl Stage {
    /// The answer to a request for this page.
    async fn asked(&self, page: &str) -> client::Answer {
        self.asked_for(page, "*/*").await
    }

    async fn asked_for(&self, page: &str, accept: &str) -> client::Answer {
        let mut http = self.bound().http.clone();
        let address = within("a port", http.wait_for(Option::is_some)).await.unwrap().unwrap();
        client::get(address, page, accept).await
    }

    /// Waits until the page reads as `wanted`.
    async fn shows(&self, page: &str, wanted: &str) {
        let mut last = String::new();
        let mut ticks = tokio::time::interval(TICK);
        let shown = async {
            while !last.contains(wanted) {
                ticks.tick().await;
                last = self.asked(page).await.text;
            }
        };
        let shown = tokio::time::timeout(FOR_EVER, shown).await;
        assert!(shown.is_ok(), "{page} never showed `{wanted}`:\n{last}");
    }
}
