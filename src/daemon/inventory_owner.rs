//! The one owner of the inventory: every trigger leads to the same scan, build and publish.
//!
//! The event is a hint, the scan is the truth. A failed scan is not an empty node: the last
//! inventory stays, and the scan is tried again.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::decide::advertise::Offer;
use crate::decide::rescan::Rescan;
use crate::host::root::Root;
use crate::host::scan::{Scan, scan};
use crate::model::board::{Board, Chip};
use crate::model::config::Config;
use crate::model::health::Health;
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;

/// Why to look again.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// The kernel announced a change.
    Uevent,
    /// An operator asked (SIGHUP).
    Request,
}

/// What all loops share: none until the first scan that succeeded.
pub type Offers = watch::Receiver<Option<Arc<Offer>>>;

/// Owns the machine's root, the configuration in force and the last inventory.
pub struct InventoryOwner {
    root: Arc<Root>,
    config: watch::Receiver<Arc<Config>>,
    triggers: mpsc::Receiver<Trigger>,
    offers: watch::Sender<Option<Arc<Offer>>>,
    rescan: Rescan,
    started: Instant,
}

impl InventoryOwner {
    /// An owner that has not looked yet, and what it will publish.
    #[must_use]
    pub fn new(
        root: Arc<Root>,
        config: watch::Receiver<Arc<Config>>,
        triggers: mpsc::Receiver<Trigger>,
    ) -> (Self, Offers) {
        let (offers, receiver) = watch::channel(None);
        let rescan = Rescan::new(config.borrow().discovery.rescan, u64::from(std::process::id()));
        let started = Instant::now();
        (Self { root, config, triggers, offers, rescan, started }, receiver)
    }

    /// Looks, publishes what changed, and waits for a reason to look again; until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let next = self.started + self.rescan.next();
            tokio::select! {
                // A stop goes first, then a due look: hints that pour in must not put it off.
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(next) => self.look().await,
                Some(trigger) = self.triggers.recv() => {
                    debug!(?trigger, "a hint to look again");
                    self.rescan.hint(self.started.elapsed());
                }
                Ok(()) = self.config.changed() => self.rescan.hint(self.started.elapsed()),
            }
        }
    }

    async fn look(&mut self) {
        let root = Arc::clone(&self.root);
        let config = Arc::clone(&self.config.borrow_and_update());
        let scanned = Arc::clone(&config);
        let began = self.started.elapsed();
        let looked = tokio::task::spawn_blocking(move || scan(&root, &scanned)).await;
        match looked {
            Ok(Ok(scan)) => {
                let incomplete = incomplete(&scan.inventory);
                self.rescan.set_interval(config.discovery.rescan);
                self.rescan.looked(began, self.started.elapsed(), &incomplete);
                self.publish(scan, &config);
            }
            Ok(Err(error)) => self.failed(&format!("{error}")),
            Err(error) => self.failed(&format!("the scan ended early: {error}")),
        }
    }

    fn failed(&mut self, error: &str) {
        self.rescan.failed(self.started.elapsed());
        let failures = self.rescan.failures();
        if failures == 1 {
            warn!(%error, "cannot look at the machine; the last list stays, trying again");
        } else {
            debug!(%error, failures, "still cannot look at the machine");
        }
    }

    fn publish(&mut self, scan: Scan, config: &Config) {
        let offer = Offer::new(scan.inventory, config);
        let last = self.offers.borrow().clone();
        if last.as_deref() == Some(&offer) {
            return;
        }
        say_what_changed(last.as_deref(), &offer, scan.functions_seen);
        self.offers.send_replace(Some(Arc::new(offer)));
    }
}

/// Chips whose driver or node may still be on its way.
fn incomplete(inventory: &Inventory) -> Vec<PciAddress> {
    let chips = inventory.boards.iter().flat_map(|board| &board.chips);
    let waits = |chip: &&Chip| chip.reasons.iter().any(|reason| reason.code.may_pass());
    chips.filter(waits).map(|chip| chip.address).collect()
}

/// One line for each board that came, went or changed its health, and for each new warning.
fn say_what_changed(last: Option<&Offer>, now: &Offer, functions_seen: usize) {
    let before = last.map_or(&[][..], |offer| &offer.inventory.boards);
    let after = &now.inventory.boards;
    for board in after {
        match before.iter().find(|old| old.address == board.address) {
            None => say_board(board, "board found"),
            Some(old) if old != board => say_board(board, "board changed"),
            Some(_) => {}
        }
    }
    for old in before.iter().filter(|old| after.iter().all(|board| board.address != old.address)) {
        warn!(board = %old.address, model = old.model, "board left");
    }
    let warned: Vec<_> = last.into_iter().flat_map(Offer::warnings).collect();
    for warning in now.warnings().filter(|warning| !warned.contains(warning)) {
        warn!("{warning}");
    }
    if after.is_empty() {
        info!(functions_seen, "no Iluvatar chips found; waiting for one");
    }
}

fn say_board(board: &Board, what: &'static str) {
    let Board { address, model, evidence, health, chips, .. } = board;
    let reasons: Vec<_> =
        board.reasons.iter().map(|it| format!("{}: {}", it.code, it.detail)).collect();
    let (chips, reasons) = (chips.len(), reasons.join("; "));
    match health {
        Health::Healthy => info!(board = %address, model, chips, %evidence, %health, "{what}"),
        Health::Unhealthy => warn!(board = %address, model, chips, %health, reasons, "{what}"),
    }
}
