//! The kernel's uevents as triggers: of scans, where a device came, left or changed its driver; of
//! health samples otherwise. Losing them costs time, never truth: the owner also scans by itself.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, trace, warn};

use super::inventory_inputs::HealthReport;
use super::telemetry::Telemetry;
use crate::host::root::Root;
use crate::host::sysfs::is_listed;
use crate::host::uevents::{Received, Uevent, Uevents};
use crate::model::config::Config;
use crate::model::log_event::LogEvent;
use crate::model::pci::PciAddress;
use crate::model::pci_error::PciErrorEvent;
use crate::model::rescan::RescanTrigger;
use crate::parse::uevent::{parse_error_event, pci_function};

/// How often to rescan, and to reopen netlink, while uevents are unavailable.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The least time between two warnings of lost uevents.
const OVERFLOW_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// What uevents lead to.
#[derive(Clone, Debug)]
pub struct UeventEffects {
    /// Scans of the machine.
    pub triggers: mpsc::Sender<RescanTrigger>,
    /// Health samples of the chips.
    pub samples: Arc<Notify>,
    /// Error recovery of a chip, and chips that left.
    pub health: mpsc::Sender<HealthReport>,
}

/// Listens until `stop`; polls while netlink cannot be opened or fails.
pub async fn run(
    root: Arc<Root>,
    config: watch::Receiver<Arc<Config>>,
    effects: UeventEffects,
    telemetry: Telemetry,
    stop: CancellationToken,
) {
    let triggers = effects.triggers.clone();
    let mut listener = Listener { root, config, effects, telemetry, recovering: BTreeSet::new() };
    let telemetry = listener.telemetry.clone();
    let mut polls = false;
    while !stop.is_cancelled() {
        let error = match Uevents::open() {
            Ok(mut uevents) => {
                if std::mem::take(&mut polls) {
                    info!(event = LogEvent::UeventsReceived.name(), "receiving uevents again");
                }
                telemetry.netlink(None);
                // Earlier changes were not received.
                notify(&triggers, RescanTrigger::Poll);
                tokio::select! {
                    () = stop.cancelled() => return,
                    error = listener.listen(&mut uevents) => error,
                }
            }
            Err(error) => error,
        };
        telemetry.netlink(Some(&error.to_string()));
        if !std::mem::replace(&mut polls, true) {
            warn!(
                event = LogEvent::UeventsUnavailable.name(), %error, every = ?POLL_INTERVAL,
                "uevents unavailable; rescanning at intervals"
            );
        }
        notify(&triggers, RescanTrigger::Poll);
        stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await;
    }
}

struct Listener {
    root: Arc<Root>,
    config: watch::Receiver<Arc<Config>>,
    effects: UeventEffects,
    telemetry: Telemetry,
    /// Chips whose error recovery was announced. An end of it that nobody announces is reported for
    /// these alone, so that a storm of other events costs nothing.
    recovering: BTreeSet<PciAddress>,
}

impl Listener {
    /// Forwards what matters, until the socket fails.
    async fn listen(&mut self, uevents: &mut Uevents) -> io::Error {
        let mut warned = None;
        loop {
            let received = match uevents.receive().await {
                Ok(received) => received,
                Err(error) => return error,
            };
            self.telemetry.node.uevents.inc_by(received.events.len() as u64);
            if received.overflow {
                self.telemetry.node.uevent_overflows.inc();
                log_overflow(&mut warned);
            }
            self.forward(received).await;
            // Reading queued events never waits: a storm must leave the thread to the rescan.
            tokio::task::yield_now().await;
        }
    }

    async fn forward(&mut self, received: Received) {
        let Received { events, overflow, malformed } = received;
        if malformed > 0 {
            debug!(malformed, "malformed uevents; rescanning");
        }
        let config = Arc::clone(&self.config.borrow());
        let mut needs_scan = overflow || malformed > 0;
        for event in events {
            trace!(?event, "uevent");
            if !is_relevant(&event, &config) {
                continue;
            }
            if is_structural(&event) {
                needs_scan = true;
                self.report_departure(&event).await;
            } else {
                self.effects.samples.notify_one();
            }
            self.report_recovery(&event).await;
        }
        if needs_scan {
            notify(&self.effects.triggers, RescanTrigger::Uevent);
        }
    }

    /// A chip that left leaves the list at once; the scan that follows shows what else changed.
    async fn report_departure(&self, event: &Uevent) {
        let chip = pci_function(&event.device_path)
            .filter(|_| event.subsystem == PCI && event.action == "remove");
        if let Some(chip) = chip.filter(|chip| !is_listed(&self.root, *chip)) {
            let _ = self.effects.health.send(HealthReport::ChipLeft(chip)).await;
        }
    }

    async fn report_recovery(&mut self, event: &Uevent) {
        let Some(chip) = pci_function(&event.device_path).filter(|_| event.subsystem == PCI) else {
            return;
        };
        let announced = event.error_event.as_deref().and_then(parse_error_event);
        let is_restart = matches!(&*event.action, "add" | "bind" | "remove");
        let reported = match announced {
            Some(PciErrorEvent::RecoveryBegan | PciErrorEvent::RecoveryFailed) => {
                self.recovering.insert(chip);
                announced
            }
            Some(_) => {
                self.recovering.remove(&chip);
                announced
            }
            None if is_restart && self.recovering.remove(&chip) => Some(PciErrorEvent::Restarted),
            None => None,
        };
        let Some(reported) = reported else { return };
        info!(
            event = LogEvent::PcieErrorRecovery.name(), %chip, state = ?reported,
            "PCIe error recovery of a chip"
        );
        // The receiver is gone only while the daemon stops.
        let _ = self.effects.health.send(HealthReport::ErrorEvent(chip, reported)).await;
    }
}

/// The subsystem of PCI functions.
const PCI: &str = "pci";

/// Whether a device may have come, left, or changed its driver or its node. Another event of a PCI
/// function that has an id concerns its state alone.
fn is_structural(event: &Uevent) -> bool {
    let is_state = matches!(&*event.action, "change" | "offline" | "online");
    !is_state || event.subsystem != PCI || event.pci_id.is_none()
}

fn log_overflow(warned: &mut Option<Instant>) {
    if warned.is_some_and(|warned| warned.elapsed() < OVERFLOW_WARNING_INTERVAL) {
        return debug!("uevents lost again");
    }
    *warned = Some(Instant::now());
    warn!(
        event = LogEvent::UeventsLost.name(),
        "uevents lost: they came faster than they were read; rescanning"
    );
}

/// A full channel already holds a trigger.
fn notify(triggers: &mpsc::Sender<RescanTrigger>, trigger: RescanTrigger) {
    match triggers.try_send(trigger) {
        Ok(()) | Err(TrySendError::Full(_)) => {}
        Err(TrySendError::Closed(_)) => debug!("the trigger channel is closed"),
    }
}

/// Events of other vendors' PCI functions are dropped here; whoever has no PCI id may be ours.
fn is_relevant(event: &Uevent, config: &Config) -> bool {
    let vendor = event.pci_id.as_ref().and_then(|id| u16::from_str_radix(id.get(..4)?, 16).ok());
    vendor.is_none_or(|vendor| config.discovery.vendor_ids.contains(&vendor))
}
