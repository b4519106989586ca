//! The kernel's uevents as triggers. Losing them costs time, never truth: the owner also looks by
//! itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace, warn};

use super::inventory_owner::Trigger;
use crate::host::uevents::{Received, Uevent, Uevents};
use crate::model::config::Config;

/// How often to look where no uevents are to be had.
const POLL: Duration = Duration::from_secs(2);

/// Listens until `stop`; polls where netlink cannot be opened.
pub async fn run(
    config: watch::Receiver<Arc<Config>>,
    triggers: mpsc::Sender<Trigger>,
    stop: CancellationToken,
) {
    let listened = match Uevents::open() {
        Ok(mut uevents) => tokio::select! {
            () = stop.cancelled() => return,
            result = pump(&mut uevents, &config, &triggers) => result,
        },
        Err(error) => Err(error),
    };
    if let Err(error) = listened {
        warn!(%error, every = ?POLL, "no uevents from the kernel; looking at intervals instead");
        poll(&triggers, &stop).await;
    }
}

async fn pump(
    uevents: &mut Uevents,
    config: &watch::Receiver<Arc<Config>>,
    triggers: &mpsc::Sender<Trigger>,
) -> std::io::Result<()> {
    loop {
        let Received { events, overflow } = uevents.receive().await?;
        for event in &events {
            trace!(?event, "uevent");
        }
        if overflow {
            warn!("uevents came faster than they were read, some are lost; looking at everything");
        }
        let config = Arc::clone(&config.borrow());
        if overflow || events.iter().any(|event| is_relevant(event, &config)) {
            notify(triggers);
        }
    }
}

async fn poll(triggers: &mpsc::Sender<Trigger>, stop: &CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(POLL)).await.is_some() {
        notify(triggers);
    }
}

/// A full channel already holds a reason to look.
fn notify(triggers: &mpsc::Sender<Trigger>) {
    match triggers.try_send(Trigger::Uevent) {
        Ok(()) | Err(TrySendError::Full(_)) => {}
        Err(TrySendError::Closed(_)) => debug!("nobody waits for uevents any more"),
    }
}

/// Events of other vendors' PCI functions are dropped here; whoever has no PCI id may be ours.
fn is_relevant(event: &Uevent, config: &Config) -> bool {
    let vendor = event.pci_id.as_ref().and_then(|id| u16::from_str_radix(id.get(..4)?, 16).ok());
    vendor.is_none_or(|vendor| config.discovery.vendor_ids.contains(&vendor))
}
