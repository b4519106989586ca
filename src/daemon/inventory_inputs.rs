//! Everything that the inventory's owner receives, beside the scans that it starts itself.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::allocation_store::AllocationStore;
use crate::model::config::Config;
use crate::model::cordon::CordonList;
use crate::model::health_sample::HealthSample;
use crate::model::ixml::IxmlReading;
use crate::model::pci::PciAddress;
use crate::model::pci_error::PciErrorEvent;
use crate::model::pod_usage::PodUsage;
use crate::model::rescan::RescanTrigger;

/// Rescan triggers that may wait; one is as good as many.
const TRIGGER_QUEUE: usize = 16;

/// Pings that may wait.
const PING_QUEUE: usize = 16;

/// Answered by the next turn of the loop.
pub type Ping = oneshot::Sender<()>;

/// What is seen of the chips' health between two scans.
#[derive(Clone, Debug)]
pub enum HealthReport {
    /// A few files of each chip in /sys.
    Sysfs(HealthSample),
    /// The reading of libixml; none once it is not used any more.
    Ixml(Option<Arc<IxmlReading>>),
    /// The kernel announced error recovery of a chip, or its end.
    ErrorEvent(PciAddress, PciErrorEvent),
    /// The kernel reported that a chip left, and /sys does not list it any more.
    ChipLeft(PciAddress),
}

/// Which pods hold devices, as the kubelet reports it.
#[derive(Clone, Debug)]
pub enum PodsReport {
    /// Its last answer.
    Usage(Arc<PodUsage>),
    /// PodResources is unavailable.
    Unavailable,
}

/// The channels.
#[derive(Debug)]
pub struct Inputs {
    /// The active configuration.
    pub config: watch::Receiver<Arc<Config>>,
    /// Reasons to scan.
    pub triggers: mpsc::Receiver<RescanTrigger>,
    /// What is seen of the chips' health.
    pub health: mpsc::Receiver<HealthReport>,
    /// Which pods hold devices.
    pub pods: watch::Receiver<Option<PodsReport>>,
    /// Requests to show that the loop makes progress.
    pub pings: mpsc::Receiver<Ping>,
    /// What was allocated. It is read with every input and waited for by none: what was just
    /// allocated is allocated as it is offered.
    pub allocations: AllocationStore,
    /// What operators keep from new pods.
    pub cordons: watch::Receiver<CordonList>,
}

/// Where the channels begin.
#[derive(Debug)]
pub struct InputSenders {
    /// Reasons to scan.
    pub triggers: mpsc::Sender<RescanTrigger>,
    /// What is seen of the chips' health.
    pub health: mpsc::Sender<HealthReport>,
    /// Which pods hold devices.
    pub pods: watch::Sender<Option<PodsReport>>,
    /// Requests to show that the loop makes progress.
    pub pings: mpsc::Sender<Ping>,
}

/// Makes the channels that are the owner's alone.
#[must_use]
pub fn input_channels(
    config: watch::Receiver<Arc<Config>>,
    allocations: AllocationStore,
    cordons: watch::Receiver<CordonList>,
) -> (InputSenders, Inputs) {
    let (triggers, trigger_queue) = mpsc::channel(TRIGGER_QUEUE);
    let (health, health_queue) = mpsc::channel(1);
    let (pods, pods_receiver) = watch::channel(None);
    let (pings, ping_queue) = mpsc::channel(PING_QUEUE);
    let inputs = Inputs {
        config,
        triggers: trigger_queue,
        health: health_queue,
        pods: pods_receiver,
        pings: ping_queue,
        allocations,
        cordons,
    };
    (InputSenders { triggers, health, pods, pings }, inputs)
}

/// What came on one of the channels.
#[derive(Debug)]
pub enum Input {
    /// A request to show progress.
    Ping(Ping),
    /// Which pods hold devices; none before the first report.
    Pods(Option<PodsReport>),
    /// What is seen of the chips' health.
    Health(HealthReport),
    /// The configuration changed.
    Config(Arc<Config>),
    /// The cordons changed.
    Cordons(CordonList),
    /// A reason to scan.
    Trigger(RescanTrigger),
}

impl Inputs {
    /// Waits for the next input; never ends once all senders are gone. Dropping the future loses
    /// nothing. Triggers are last: a storm of them delays no fact.
    pub async fn next(&mut self) -> Input {
        tokio::select! {
            biased;
            Some(ping) = self.pings.recv() => Input::Ping(ping),
            report = changed(&mut self.pods) => Input::Pods(report),
            Some(report) = self.health.recv() => Input::Health(report),
            config = changed(&mut self.config) => Input::Config(config),
            cordons = changed(&mut self.cordons) => Input::Cordons(cordons),
            Some(trigger) = self.triggers.recv() => Input::Trigger(trigger),
        }
    }
}

/// Waits for another value; never ends once the sender is gone.
async fn changed<T: Clone>(receiver: &mut watch::Receiver<T>) -> T {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    receiver.borrow_and_update().clone()
}
