//! Looks at the chips at intervals, shortly, and hands what it saw to the inventory's owner.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::inventory_owner::{Look, Offers};
use crate::host::root::Root;
use crate::host::vitals::{self, Known};
use crate::model::config::Config;

/// Looks every `health.interval` until `stop`.
pub async fn run(
    root: Arc<Root>,
    config: watch::Receiver<Arc<Config>>,
    offers: Offers,
    looks: mpsc::Sender<Look>,
    stop: CancellationToken,
) {
    loop {
        let interval = config.borrow().health.interval;
        if stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_none() {
            return;
        }
        let (chips, began) = (known(&offers), Instant::now());
        let root = Arc::clone(&root);
        let looked = tokio::task::spawn_blocking(move || vitals::look(&root, &chips)).await;
        let Ok(vitals) = looked else { continue };
        debug!(chips = vitals.len(), took = ?began.elapsed(), "looked at the chips' health");
        if looks.send(Look::Sysfs(vitals)).await.is_err() {
            return;
        }
    }
}

fn known(offers: &Offers) -> Vec<Known> {
    let offer = offers.borrow().clone();
    let boards = offer.iter().flat_map(|offer| &offer.inventory.boards);
    let chips = boards.flat_map(|board| &board.chips);
    chips.map(|chip| (chip.address, chip.node.as_ref().map(|node| node.path.clone()))).collect()
}
