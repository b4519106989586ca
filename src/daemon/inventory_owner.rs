//! The one owner of the inventory: every trigger leads to the same scan, build and publish.
//!
//! The event is a hint, the scan is the truth. A failed scan is not an empty node: the last
//! inventory stays, and the scan is tried again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::decide::advertise::Offer;
use crate::decide::judge::Judge;
use crate::decide::rescan::Rescan;
use crate::decide::{health, inventory, vitals};
use crate::host::root::Root;
use crate::host::scan::{Scan, scan};
use crate::model::board::{Board, Chip};
use crate::model::config::Config;
use crate::model::health::Health;
use crate::model::inventory::Inventory;
use crate::model::pci::PciAddress;
use crate::model::vitals::Vitals;

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

/// Owns the machine's root, the last scan, and what was seen of the chips' health.
pub struct InventoryOwner {
    root: Arc<Root>,
    config: watch::Receiver<Arc<Config>>,
    triggers: mpsc::Receiver<Trigger>,
    vitals: mpsc::Receiver<Vitals>,
    offers: watch::Sender<Option<Arc<Offer>>>,
    rescan: Rescan,
    /// The last scan that succeeded, not judged.
    facts: Option<Inventory>,
    /// The last short look.
    last_vitals: Vitals,
    judge: Judge,
    /// When the judgement changes by itself.
    judge_at: Option<Duration>,
    started: Instant,
}

/// What an owner hears.
#[derive(Debug)]
pub struct Inputs {
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Hints to look again.
    pub triggers: mpsc::Receiver<Trigger>,
    /// Short looks at the chips.
    pub vitals: mpsc::Receiver<Vitals>,
}

impl InventoryOwner {
    /// An owner that has not looked yet, and what it will publish.
    #[must_use]
    pub fn new(root: Arc<Root>, inputs: Inputs) -> (Self, Offers) {
        let Inputs { config, triggers, vitals } = inputs;
        let (offers, receiver) = watch::channel(None);
        let rescan = Rescan::new(config.borrow().discovery.rescan, u64::from(std::process::id()));
        let owner = Self {
            root,
            config,
            triggers,
            vitals,
            offers,
            rescan,
            facts: None,
            last_vitals: Vitals::new(),
            judge: Judge::default(),
            judge_at: None,
            started: Instant::now(),
        };
        (owner, receiver)
    }

    /// Looks, judges, publishes what changed, and waits for a reason to look again; until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let look_at = self.started + self.rescan.next();
            let judge_at = self.judge_at.map(|at| self.started + at);
            tokio::select! {
                // A stop goes first, then a due look: hints that pour in must not put it off.
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(look_at) => self.look().await,
                () = sleep_until_or_forever(judge_at) => self.publish(),
                Some(vitals) = self.vitals.recv() => self.take_vitals(vitals),
                Some(trigger) = self.triggers.recv() => {
                    debug!(?trigger, "a hint to look again");
                    self.rescan.hint(self.now());
                }
                Ok(()) = self.config.changed() => self.rescan.hint(self.now()),
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    async fn look(&mut self) {
        let root = Arc::clone(&self.root);
        let config = Arc::clone(&self.config.borrow_and_update());
        let scanned = Arc::clone(&config);
        let began = self.now();
        let looked = tokio::task::spawn_blocking(move || scan(&root, &scanned)).await;
        match looked {
            Ok(Ok(scan)) => {
                self.rescan.set_interval(config.discovery.rescan);
                let took = self.now().saturating_sub(began);
                debug!(scan.functions_seen, ?took, "looked at the machine");
                self.rescan.looked(began, self.now(), &incomplete(&scan.facts));
                self.take_scan(scan, &config);
            }
            Ok(Err(error)) => self.failed(&format!("{error}")),
            Err(error) => self.failed(&format!("the scan ended early: {error}")),
        }
    }

    fn take_scan(&mut self, scan: Scan, config: &Config) {
        let (chips, seen) = inventory::seen(&scan.facts);
        self.judge.observe(self.now(), &chips, health::SCOPE, &seen, &config.health);
        self.last_vitals.retain(|chip, _| chips.contains(chip));
        let had_boards = self.facts.as_ref().is_none_or(|facts| !facts.boards.is_empty());
        if scan.facts.boards.is_empty() && had_boards {
            info!(scan.functions_seen, "no Iluvatar chips found; waiting for one");
        }
        self.facts = Some(scan.facts);
        self.publish();
    }

    fn take_vitals(&mut self, vitals: Vitals) {
        let Some(facts) = &self.facts else { return };
        if vitals::is_outdated(facts, &vitals) {
            self.rescan.hint(self.now());
        }
        let (chips, _) = inventory::seen(facts);
        let findings = vitals::findings(&self.last_vitals, &vitals);
        let rules = &self.config.borrow().health.clone();
        self.judge.observe(self.now(), &chips, vitals::SCOPE, &findings, rules);
        self.last_vitals = vitals;
        self.publish();
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

    fn publish(&mut self) {
        let Some(facts) = &self.facts else { return };
        let config = Arc::clone(&self.config.borrow());
        let judgement = self.judge.judge(self.started.elapsed(), &config.health);
        self.judge_at = judgement.next;
        let inventory = inventory::judged(facts, &judgement, &config.health);
        let offer = Offer::new(inventory, &config);
        let last = self.offers.borrow().clone();
        if last.as_deref() != Some(&offer) {
            say_what_changed(last.as_deref(), &offer);
            self.offers.send_replace(Some(Arc::new(offer)));
        }
    }
}

async fn sleep_until_or_forever(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Chips whose driver or node may still be on its way.
fn incomplete(inventory: &Inventory) -> Vec<PciAddress> {
    let chips = inventory.boards.iter().flat_map(|board| &board.chips);
    let waits = |chip: &&Chip| chip.reasons.iter().any(|reason| reason.code.may_pass());
    chips.filter(waits).map(|chip| chip.address).collect()
}

/// One line for each board that came, went or changed its health, and for each new warning.
fn say_what_changed(last: Option<&Offer>, now: &Offer) {
    let before = last.map_or(&[][..], |offer| &offer.inventory.boards);
    let after = &now.inventory.boards;
    for board in after {
        match before.iter().find(|old| old.address == board.address) {
            None => say_board(board, None),
            Some(old) if old != board => say_board(board, Some(old.health)),
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
}

fn say_board(board: &Board, from: Option<Health>) {
    let Board { address, model, evidence, health, chips, .. } = board;
    let reasons: Vec<_> =
        board.reasons.iter().map(|it| format!("{}: {}", it.code, it.detail)).collect();
    let (chips, reasons) = (chips.len(), reasons.join("; "));
    let from = from.map_or("none".to_owned(), |health| health.to_string());
    let to = health;
    match health {
        Health::Healthy => info!(board = %address, model, chips, %evidence, from, %to, "board"),
        Health::Unhealthy => warn!(board = %address, model, chips, from, %to, reasons, "board"),
    }
}
