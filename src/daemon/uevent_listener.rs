//! The kernel's uevents as rescan triggers. A lost uevent only delays a change: the owner also
//! rescans at intervals.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, trace, warn};

use super::telemetry::Telemetry;
use crate::host::uevents::{Received, Uevent, Uevents};
use crate::model::config::Config;
use crate::model::rescan::RescanTrigger;

/// How often to rescan, and to reopen netlink, while uevents are unavailable.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The least time between two warnings of lost uevents.
const OVERFLOW_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Listens until `stop`; polls while netlink cannot be opened or fails.
pub async fn run(
    config: watch::Receiver<Arc<Config>>,
    triggers: mpsc::Sender<RescanTrigger>,
    telemetry: Telemetry,
    stop: CancellationToken,
) {
    let mut polls = false;
    while !stop.is_cancelled() {
        let error = match Uevents::open() {
            Ok(mut uevents) => {
                if std::mem::take(&mut polls) {
                    info!("receiving uevents again");
                }
                telemetry.netlink(None);
                // Earlier changes were not received.
                notify(&triggers, RescanTrigger::Poll);
                tokio::select! {
                    () = stop.cancelled() => return,
                    error = forward(&mut uevents, &config, &triggers, &telemetry) => error,
                }
            }
            Err(error) => error,
        };
        telemetry.netlink(Some(&error.to_string()));
        if !std::mem::replace(&mut polls, true) {
            warn!(%error, every = ?POLL_INTERVAL, "uevents unavailable; rescanning at intervals");
        }
        notify(&triggers, RescanTrigger::Poll);
        stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await;
    }
}

/// Triggers a rescan for each relevant event, until the socket fails.
async fn forward(
    uevents: &mut Uevents,
    config: &watch::Receiver<Arc<Config>>,
    triggers: &mpsc::Sender<RescanTrigger>,
    telemetry: &Telemetry,
) -> io::Error {
    let mut warned = None;
    loop {
        let received = match uevents.receive().await {
            Ok(received) => received,
            Err(error) => return error,
        };
        telemetry.node.uevents.inc_by(received.events.len() as u64);
        if received.overflow {
            telemetry.node.uevent_overflows.inc();
            log_overflow(&mut warned);
        }
        let config = Arc::clone(&config.borrow());
        if needs_rescan(&received, &config) {
            notify(triggers, RescanTrigger::Uevent);
        }
        // Reading queued events never waits: a storm must leave the thread to the rescan.
        tokio::task::yield_now().await;
    }
}

fn needs_rescan(received: &Received, config: &Config) -> bool {
    let Received { events, overflow, malformed } = received;
    for event in events {
        trace!(?event, "uevent");
    }
    if *malformed > 0 {
        debug!(malformed, "malformed uevents; rescanning");
    }
    *overflow || *malformed > 0 || events.iter().any(|event| is_relevant(event, config))
}

fn log_overflow(warned: &mut Option<Instant>) {
    if warned.is_some_and(|warned| warned.elapsed() < OVERFLOW_WARNING_INTERVAL) {
        return debug!("uevents lost again");
    }
    *warned = Some(Instant::now());
    warn!("uevents lost: they came faster than they were read; rescanning");
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
