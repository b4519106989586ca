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

use super::until::until;
use crate::decide::advertise::Offer;
use crate::decide::backoff::backoff;
use crate::decide::removal::{Answer, Departures, Stay, removed};
use crate::decide::whole_boards::WholeBoards;
use crate::host::root::Root;
use crate::host::scan::{Scan, scan};
use crate::model::board::Board;
use crate::model::config::Config;
use crate::model::health::{Health, Reason};

/// Why to look again.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// The kernel announced a change.
    Uevent,
    /// An operator asked (SIGHUP).
    Request,
}

/// What the kubelet says of holders, the last answer.
pub type Answers = watch::Receiver<Option<Arc<Answer>>>;

/// What all loops share: none until the first scan that succeeded.
pub type Offers = watch::Receiver<Option<Arc<Offer>>>;

/// How long to look away when nothing is heard: the safety net below lost events.
const RESCAN: Duration = Duration::from_secs(60);

/// Owns the machine's root, the configuration in force, the last inventory and what left it.
pub struct InventoryOwner {
    root: Arc<Root>,
    config: watch::Receiver<Arc<Config>>,
    triggers: mpsc::Receiver<Trigger>,
    offers: watch::Sender<Option<Arc<Offer>>>,
    failures: u32,
    /// The moment that all times are counted from.
    began: Instant,
    whole_boards: WholeBoards,
    departures: Departures,
    /// What the kubelet says of holders; ends where nobody asks it.
    answers: Option<Answers>,
}

impl InventoryOwner {
    /// An owner that has not looked yet, and what it will publish. Devices that left stay listed
    /// as `stay` says; `began` is when time begins.
    #[must_use]
    pub fn new(
        root: Arc<Root>,
        config: watch::Receiver<Arc<Config>>,
        triggers: mpsc::Receiver<Trigger>,
        (began, stay): (Instant, Stay),
    ) -> (Self, Offers) {
        let (offers, receiver) = watch::channel(None);
        let (whole_boards, departures) = (WholeBoards::default(), Departures::new(stay));
        let owner = Self {
            root,
            config,
            triggers,
            offers,
            failures: 0,
            began,
            whole_boards,
            departures,
            answers: None,
        };
        (owner, receiver)
    }

    /// From now on hears what the kubelet says of holders.
    #[must_use]
    pub fn hearing(mut self, answers: Answers) -> Self {
        self.answers = Some(answers);
        self
    }

    /// Looks, publishes what changed, and waits for a reason to look again; until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.look().await;
            self.wait(&stop).await;
            // What else has come in the meantime is answered by the same look.
            while self.triggers.try_recv().is_ok() {}
        }
    }

    /// Until there is a reason to look. Answers of the kubelet and the end of a grace period change
    /// the list without a look.
    async fn wait(&mut self, stop: &CancellationToken) {
        let wait = match self.failures {
            0 => RESCAN,
            failures => backoff(failures, u64::from(std::process::id())),
        };
        let look_at = Instant::now() + wait;
        loop {
            let expiry = self.departures.next_expiry().map(|expiry| self.began + expiry);
            tokio::select! {
                () = stop.cancelled() => return,
                () = until(Some(look_at)) => return debug!("time for another look"),
                Some(trigger) = self.triggers.recv() => return debug!(?trigger, "looking again"),
                Ok(()) = self.config.changed() => {
                    return debug!("looking again under a new configuration");
                }
                Some(()) = heard(&mut self.answers) => self.hear(),
                () = until(expiry) => {}
            }
            self.publish(None);
        }
    }

    fn hear(&mut self) {
        let answer = self.answers.as_mut().and_then(|answers| answers.borrow_and_update().clone());
        if let Some(answer) = answer {
            self.departures.hear(&answer);
        }
    }

    async fn look(&mut self) {
        let root = Arc::clone(&self.root);
        let config = Arc::clone(&self.config.borrow_and_update());
        let scanned = Arc::clone(&config);
        let looked = tokio::task::spawn_blocking(move || scan(&root, &scanned)).await;
        match looked {
            Ok(Ok(scan)) => {
                self.failures = 0;
                self.observe(scan, &config);
            }
            Ok(Err(error)) => self.failed(&format!("{error}")),
            Err(error) => self.failed(&format!("the scan ended early: {error}")),
        }
    }

    fn failed(&mut self, error: &str) {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            warn!(%error, "cannot look at the machine; the last list stays, trying again");
        } else {
            debug!(%error, failures = self.failures, "still cannot look at the machine");
        }
    }

    fn observe(&mut self, scan: Scan, config: &Config) {
        let Scan { mut inventory, functions_seen } = scan;
        self.whole_boards.correct(&mut inventory, &config.boards);
        self.departures.observe(Offer::new(inventory, config), self.began.elapsed());
        self.publish(Some(functions_seen));
    }

    /// Publishes what is to be listed now, if it changed; `functions_seen` by the look that led
    /// here.
    fn publish(&mut self, functions_seen: Option<usize>) {
        let Some(offer) = self.departures.offer(self.began.elapsed()) else { return };
        self.whole_boards.forget_departed(&offer.inventory, &self.departures.chips());
        let last = self.offers.borrow().clone();
        if last.as_deref() == Some(&offer) {
            return;
        }
        say_what_changed(last.as_deref(), &offer, functions_seen);
        say_what_left(last.as_deref(), &offer);
        self.offers.send_replace(Some(Arc::new(offer)));
    }
}

/// None, at once, where nobody asks the kubelet; `select!` then ignores it.
async fn heard(answers: &mut Option<Answers>) -> Option<()> {
    answers.as_mut()?.changed().await.ok()
}

/// One line for each device that is listed only because it may be held, whenever that changes.
fn say_what_left(last: Option<&Offer>, now: &Offer) {
    let before: Vec<_> = last.into_iter().flat_map(removed).collect();
    for (resource, device) in removed(now) {
        if !before.iter().any(|(_, old)| *old == device) {
            let reasons = reasons(&device.reasons);
            warn!(resource = resource.name, device = %device.id, reasons, "device left, still listed");
        }
    }
    for (resource, device) in before {
        let is_listed = now
            .resource(&resource.name)
            .is_some_and(|resource| resource.devices.iter().any(|now| now.id == device.id));
        if !is_listed {
            info!(resource = resource.name, device = %device.id, "device is no longer listed");
        }
    }
}

/// One line for each board that came, went or changed its health, and for each new warning.
fn say_what_changed(last: Option<&Offer>, now: &Offer, functions_seen: Option<usize>) {
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
    if let (true, Some(functions_seen)) = (after.is_empty(), functions_seen) {
        info!(functions_seen, "no Iluvatar chips found; waiting for one");
    }
}

fn say_board(board: &Board, what: &'static str) {
    let Board { address, model, evidence, health, chips, .. } = board;
    let (chips, reasons) = (chips.len(), reasons(&board.reasons));
    match health {
        Health::Healthy => info!(board = %address, model, chips, %evidence, %health, "{what}"),
        Health::Unhealthy => warn!(board = %address, model, chips, %health, reasons, "{what}"),
    }
}

fn reasons(reasons: &[Reason]) -> String {
    let reasons = reasons.iter().map(|it| format!("{}: {}", it.code, it.detail));
    reasons.collect::<Vec<_>>().join("; ")
}
