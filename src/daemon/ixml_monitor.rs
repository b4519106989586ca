//! Asks libixml at intervals, and hands what it says to the inventory's owner. A loop of its own:
//! whatever the library does, the reports at /sys go on.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::inventory_owner::{HealthReport, SnapshotReceiver};
use super::ixml_source::{IxmlSettings, IxmlSource, READ_TIMEOUT};
use crate::model::config::Config;
use crate::model::ixml::{IxmlChoice, IxmlReading, IxmlState};
use crate::model::pci::PciAddress;

/// Asks the library that `health.ixml` names.
pub struct IxmlMonitor {
    /// How it is asked; which one, the configuration says.
    settings: IxmlSettings,
    /// True for the machine of this process: nobody but a file's own words leads to its library
    /// being asked about another machine's chips.
    is_this_machine: bool,
    config: watch::Receiver<Arc<Config>>,
    snapshots: SnapshotReceiver,
    reports: mpsc::Sender<HealthReport>,
    state: watch::Sender<IxmlState>,
    choice: IxmlChoice,
    source: IxmlSource,
    /// What was handed over last.
    last: Option<Arc<IxmlReading>>,
}

impl IxmlMonitor {
    /// A monitor that has not asked yet, and how far it is.
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

    /// Asks every `health.interval` until `stop`.
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
        self.hand_over(&state).await;
        self.state.send_replace(state);
    }

    /// Another library where the configuration names another.
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

    /// Only what is new: a source that says nothing leaves what it said before in force, and one
    /// that is not wanted any more takes it back.
    async fn hand_over(&mut self, state: &IxmlState) {
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

/// The chips that have a driver: the library cannot find others, and reports for all anew whenever it
/// is asked about one.
fn bound_chips(snapshots: &SnapshotReceiver) -> Vec<PciAddress> {
    let snapshot = snapshots.borrow().clone();
    let chips = snapshot
        .iter()
        .flat_map(|snapshot| snapshot.inventory.chips_by_board())
        .filter(|chip| chip.driver.is_some());
    chips.map(|chip| chip.address).collect()
}
