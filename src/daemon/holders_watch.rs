//! Asks the kubelet who holds what: once at the start, and for as long as a device that left is
//! listed. Never on the way of an Allocate, and nobody waits for its answers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::inventory_owner::{Answers, Offers};
use super::until::until;
use crate::decide::removal::{Answer, removed};
use crate::host::pod_resources::{self, PodResourcesError};
use crate::model::device::DeviceId;

/// How long the kubelet may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often to ask while a device that left is listed.
const INTERVAL: Duration = Duration::from_secs(2);

/// The least time between two questions: a flapping device must not have the kubelet asked more
/// often than it answers anybody.
const PAUSE: Duration = Duration::from_millis(100);

/// Where nobody ever answered, the start's question is asked less and less often, down to this.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// Owns the questions.
#[derive(Debug)]
pub struct HoldersWatch {
    socket: PathBuf,
    /// The moment that answers count their time from.
    began: Instant,
    offers: Offers,
    answers: watch::Sender<Option<Arc<Answer>>>,
    /// Since the last answer.
    failures: u32,
}

impl HoldersWatch {
    /// A watch on the kubelet's `socket`, and where its answers are to be seen.
    #[must_use]
    pub fn new(socket: PathBuf, began: Instant, offers: Offers) -> (Self, Answers) {
        let (answers, receiver) = watch::channel(None);
        (Self { socket, began, offers, answers, failures: 0 }, receiver)
    }

    /// Asks when there is something to ask about, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.ask_when_needed()).await;
    }

    async fn ask_when_needed(&mut self) {
        // The first list goes out before the first question.
        if self.offers.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let mut about = self.departed();
        loop {
            self.ask().await;
            sleep(PAUSE).await;
            if !self.time_to_ask(&mut about).await {
                return;
            }
        }
    }

    /// False once there will be no more offers.
    async fn time_to_ask(&mut self, about: &mut Departed) -> bool {
        let again = self.interval(about).map(|interval| Instant::now() + interval);
        loop {
            let departed = self.departed();
            // Also when the last one left the list: a pod that was being admitted when it was asked
            // about may hold it since.
            let is_news = !departed.is_subset(about) || departed.is_empty() && !about.is_empty();
            *about = departed;
            if is_news {
                return true;
            }
            tokio::select! {
                changed = self.offers.changed() => if changed.is_err() { return false },
                () = until(again) => return true,
            }
        }
    }

    /// None where nothing is left to ask.
    fn interval(&self, about: &Departed) -> Option<Duration> {
        let never_answered = self.answers.borrow().is_none();
        match (about.is_empty(), never_answered) {
            (false, _) => Some(INTERVAL),
            (true, true) => Some(LONGEST_INTERVAL.min(INTERVAL.saturating_mul(self.failures))),
            (true, false) => None,
        }
    }

    fn departed(&mut self) -> Departed {
        let offer = self.offers.borrow_and_update().clone();
        let removed = offer.iter().flat_map(|offer| removed(offer));
        removed.map(|(resource, device)| (resource.name.clone(), device.id)).collect()
    }

    async fn ask(&mut self) {
        let asked = self.began.elapsed();
        match pod_resources::list(&self.socket, PATIENCE).await {
            Ok(holders) => {
                if self.failures > 0 {
                    info!("the kubelet tells again which pods hold devices");
                }
                self.failures = 0;
                self.answers.send_replace(Some(Arc::new(Answer { asked, holders })));
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &PodResourcesError) {
        self.failures = self.failures.saturating_add(1);
        let socket = self.socket.display();
        match self.failures {
            1 if error.is_absent() => info!(
                %socket,
                "no pod resources socket: devices that leave stay listed for a fixed time"
            ),
            1 => warn!(%socket, %error, "it is not known which pods hold devices; asking again"),
            _ => debug!(%socket, %error, self.failures, "still not known which pods hold devices"),
        }
    }
}

/// What left and is still listed, by resource.
type Departed = BTreeSet<(String, DeviceId)>;
