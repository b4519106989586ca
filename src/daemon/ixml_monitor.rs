//! Queries libixml at intervals and reports its readings to the inventory's owner. A loop of its own,
//! so that a library that hangs does not stop the health samples.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::inventory_inputs::HealthReport;
use super::inventory_owner::SnapshotReceiver;
use super::ixml_source::{IxmlSettings, IxmlSource, READ_TIMEOUT};
use crate::model::config::Config;
use crate::model::ixml::{IxmlChoice, IxmlReading, IxmlState};
use crate::model::pci::PciAddress;

/// Queries the library that `health.ixml` names.
pub struct IxmlMonitor {
    /// How to query; the configuration names the library.
    settings: IxmlSettings,
    /// True for the machine of this process. For another machine's chips the library is used only if
    /// the configuration names it.
    is_this_machine: bool,
    config: watch::Receiver<Arc<Config>>,
    snapshots: SnapshotReceiver,
    reports: mpsc::Sender<HealthReport>,
    state: watch::Sender<IxmlState>,
    choice: IxmlChoice,
    source: IxmlSource,
    /// The last reading that was reported.
    last: Option<Arc<IxmlReading>>,
}

impl IxmlMonitor {
    /// A monitor without a reading, and its state.
    #[must_use]
    pub fn new(
        settings: IxmlSettings,
        is_this_machine: bool,
        (config, snapshots): (watch::Receiver<Arc<Config>>, SnapshotReceiver),
        reports: mpsc::Sender<HealthReport>,
    ) -> (Self, watch::Receiver<IxmlState>) {
        let (state, receiver) = watch::channel(IxmlState::Off);
        let (choice, last) = (IxmlChoice::Off, None);
        let source = start(&settings, choice.clone());
        let monitor = Self {
            settings,
            is_this_machine,
            config,
            snapshots,
            reports,
            state,
            choice,
            source,
            last,
        };
        (monitor, receiver)
    }

    /// Queries every `health.interval` until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let asked = stop.run_until_cancelled(self.ask()).await;
            if asked.is_none() {
                return;
            }
            let interval = self.config.borrow().health.interval;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
                Ok(()) = self.config.changed() => {}
                // The first chips need not wait for their first reading.
                Ok(()) = self.snapshots.changed(), if self.last.is_none() => {}
            }
        }
    }

    async fn ask(&mut self) {
        self.choose();
        let chips = bound_chips(&self.snapshots);
        // A machine without chips needs no library.
        if chips.is_empty() && self.choice != IxmlChoice::Off {
            return;
        }
        let state = self.source.read(&chips, READ_TIMEOUT).await;
        self.report(&state).await;
        self.state.send_replace(state);
    }

    /// Switches to the library that the configuration names now.
    fn choose(&mut self) {
        let wanted = self.config.borrow_and_update().health.ixml.clone();
        let wanted = match wanted {
            IxmlChoice::Auto if !self.is_this_machine => IxmlChoice::Off,
            wanted => wanted,
        };
        if wanted != self.choice {
            self.source = start(&self.settings, wanted.clone());
            self.choice = wanted;
        }
    }

    /// Reports a new reading. Without one the last reading stays active; a library that is switched
    /// off withdraws it.
    async fn report(&mut self, state: &IxmlState) {
        let reading = match state {
            IxmlState::Reading(reading) => Some(Arc::clone(reading)),
            IxmlState::Off if self.last.is_some() => None,
            _ => return,
        };
        self.last.clone_from(&reading);
        // Where the owner is gone, the daemon is about to end.
        let _ = self.reports.send(HealthReport::Ixml(reading)).await;
    }
}

fn start(settings: &IxmlSettings, choice: IxmlChoice) -> IxmlSource {
    IxmlSource::start(IxmlSettings { choice, ..settings.clone() })
}

/// The chips that have a driver: the library cannot find others, and searches for all devices again when
/// one is requested.
fn bound_chips(snapshots: &SnapshotReceiver) -> Vec<PciAddress> {
    let snapshot = snapshots.borrow().clone();
    let chips = snapshot
        .iter()
        .flat_map(|snapshot| snapshot.inventory.chips_by_board())
        .filter(|chip| chip.driver.is_some());
    chips.map(|chip| chip.address).collect()
}
