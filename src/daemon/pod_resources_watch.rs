//! Asks the kubelet who holds what. Never on the way of an Allocate, and nobody waits for its
//! answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::inventory_owner::{PodUsageReceiver, SnapshotReceiver};
use super::telemetry::Telemetry;
use super::timer::until;
use crate::decide::node::pod_resources_schedule::PodResourcesSchedule;
use crate::decide::node::removed::PodUsage;
use crate::host::pod_resources::{self, PodResourcesError};

/// How long the kubelet may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The least time between two questions: a flapping device must not have the kubelet asked more
/// often than it answers anybody.
const PAUSE: Duration = Duration::from_millis(100);

/// Owns the questions.
#[derive(Debug)]
pub struct PodResourcesWatch {
    socket: PathBuf,
    /// The moment that answers count their time from.
    began: Instant,
    snapshots: SnapshotReceiver,
    answers: watch::Sender<Option<Arc<PodUsage>>>,
    questions: PodResourcesSchedule,
    telemetry: Telemetry,
}

impl PodResourcesWatch {
    /// A watch on the kubelet's `socket`, and where its answers are to be seen.
    #[must_use]
    pub fn new(
        socket: PathBuf,
        began: Instant,
        snapshots: SnapshotReceiver,
    ) -> (Self, PodUsageReceiver) {
        let (answers, receiver) = watch::channel(None);
        let (questions, telemetry) = (PodResourcesSchedule::default(), Telemetry::default());
        (Self { socket, began, snapshots, answers, questions, telemetry }, receiver)
    }

    /// From now on tells how it goes.
    #[must_use]
    pub fn telling(mut self, telemetry: Telemetry) -> Self {
        self.telemetry = telemetry;
        self
    }

    /// Asks when there is something to ask, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let asked = stop.run_until_cancelled(self.ask_when_needed()).await;
        if asked.is_some() {
            // No more offers will come; ending early would be taken for a fault of ours.
            stop.cancelled().await;
        }
    }

    async fn ask_when_needed(&mut self) {
        // The first list goes out before the first question.
        if self.snapshots.wait_for(Option::is_some).await.is_err() {
            return;
        }
        self.is_due();
        loop {
            self.ask().await;
            sleep(PAUSE).await;
            if !self.time_to_ask().await {
                return;
            }
        }
    }

    /// False once there will be no more offers.
    async fn time_to_ask(&mut self) -> bool {
        let again = self.questions.interval().map(|interval| Instant::now() + interval);
        loop {
            if self.is_due() {
                return true;
            }
            tokio::select! {
                changed = self.snapshots.changed() => if changed.is_err() { return false },
                () = until(again) => return true,
            }
        }
    }

    fn is_due(&mut self) -> bool {
        let snapshot = self.snapshots.borrow_and_update().clone();
        self.questions.is_due(snapshot.as_deref())
    }

    async fn ask(&mut self) {
        let asked = self.began.elapsed();
        match pod_resources::list(&self.socket, PATIENCE).await {
            Ok(holders) => {
                self.telemetry.pod_resources(None);
                if self.questions.answered() {
                    info!("the kubelet tells which pods hold devices");
                }
                self.answers.send_replace(Some(Arc::new(PodUsage { asked, holders })));
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &PodResourcesError) {
        self.telemetry.pod_resources(Some(&error.to_string()));
        let socket = self.socket.display();
        match self.questions.failed() {
            1 if error.is_absent() => info!(
                %socket,
                "no pod resources socket: devices that leave stay listed for a fixed time"
            ),
            1 => warn!(%socket, %error, "it is not known which pods hold devices; asking again"),
            failures => debug!(%socket, %error, failures, "still not known who holds devices"),
        }
    }
}
