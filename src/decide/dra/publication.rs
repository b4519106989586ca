//! What is known of the published slices, and the next step towards those that are wanted.
//!
//! Inputs are what the watch reports and how each write ended; there is one write at a time. While the
//! API server fails, nothing is forgotten: the last state stays, and writes wait longer each time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reconcile::{KubeletLink, reconcile};
use super::support::{learn, refused};
use crate::decide::backoff::backoff_up_to;
use crate::model::dra::slice::{
    DraFeature, DraSlice, NodeIdentity, SeenSlice, ServerSupport, SliceContent, SliceWrite,
};

/// The longest wait between writes that fail.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A slice as the API server has it, with the object that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSlice<Object> {
    /// What it means.
    pub seen: SeenSlice,
    /// What it was read from.
    pub object: Object,
}

/// A report of the watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SliceReport<Object> {
    /// A new list begins.
    ListBegan,
    /// A slice of the new list.
    Listed(KnownSlice<Object>),
    /// The list is complete.
    ListEnded,
    /// A slice was created or changed.
    Applied(KnownSlice<Object>),
    /// A slice was deleted; its last version.
    Deleted(SeenSlice),
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome<Object> {
    /// The API server stored this.
    Stored(KnownSlice<Object>),
    /// The slice is gone.
    Deleted,
    /// The slice exists already, or is not what it was; the watch reports what it is.
    Conflict,
    /// The API server refuses the slice itself.
    Invalid(String),
    /// The node object has this uid: it was deleted and created again.
    NodeReplaced(String),
    /// Anything else, and when the API server wants to be asked again.
    Failed(String, Option<Duration>),
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishStep {
    /// Write this.
    Write(SliceWrite),
    /// Nothing before this time; without one, nothing before something changes.
    Wait(Option<Duration>),
    /// The API server has what is wanted, as far as it may now.
    Current,
}

/// What is published, for status and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishedSlices {
    /// What the API server has, by name; none until it was listed.
    pub slices: Option<Vec<SeenSlice>>,
    /// Whether that is what the node offers.
    pub is_current: bool,
    /// What the API server was seen to drop.
    pub support: ServerSupport,
    /// Why the API server cannot be read or written.
    pub last_error: Option<String>,
}

/// The state of the published slices.
#[derive(Debug)]
pub struct Publication<Object> {
    node: NodeIdentity,
    known: BTreeMap<String, KnownSlice<Object>>,
    /// The list that is being received.
    listing: Option<BTreeMap<String, KnownSlice<Object>>>,
    is_listed: bool,
    support: ServerSupport,
    /// The highest generation that was sent.
    last_generation: i64,
    failures: u32,
    seed: u64,
    retry_at: Option<Duration>,
    /// Whether a report of the watch ends the wait.
    awaits_report: bool,
    last_error: Option<String>,
}

impl<Object: Clone> Publication<Object> {
    /// Nothing is known. `seed` spreads the retries of many nodes.
    #[must_use]
    pub fn new(node: NodeIdentity, seed: u64) -> Self {
        Self {
            node,
            known: BTreeMap::new(),
            listing: None,
            is_listed: false,
            support: ServerSupport::default(),
            last_generation: 0,
            failures: 0,
            seed,
            retry_at: None,
            awaits_report: false,
            last_error: None,
        }
    }

    /// The node that owns the slices.
    #[must_use]
    pub fn node(&self) -> &NodeIdentity {
        &self.node
    }

    /// What the API server was seen to drop.
    #[must_use]
    pub fn support(&self) -> &ServerSupport {
        &self.support
    }

    /// Whether the API server's slices are known.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// The API server's slices, by name.
    pub fn known(&self) -> impl Iterator<Item = &KnownSlice<Object>> {
        self.known.values()
    }

    /// The object of this name.
    #[must_use]
    pub fn object(&self, name: &str) -> Option<&Object> {
        self.known.get(name).map(|known| &known.object)
    }

    /// Why the last write failed; none once one succeeded.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Takes in a report of the watch. What is older than an answer to a write is passed over.
    pub fn reported(&mut self, report: SliceReport<Object>) {
        match report {
            SliceReport::ListBegan => self.listing = Some(BTreeMap::new()),
            SliceReport::Listed(slice) => {
                let listing = self.listing.get_or_insert_default();
                listing.insert(slice.seen.name.clone(), slice);
            }
            SliceReport::ListEnded => {
                self.known = self.listing.take().unwrap_or_default();
                self.is_listed = true;
            }
            SliceReport::Applied(slice) => {
                if self.is_news(&slice.seen) {
                    self.known.insert(slice.seen.name.clone(), slice);
                }
            }
            SliceReport::Deleted(seen) => {
                if self.is_news(&seen) {
                    self.known.remove(&seen.name);
                }
            }
        }
        if std::mem::take(&mut self.awaits_report) {
            self.retry_at = None;
        }
    }

    fn is_news(&self, seen: &SeenSlice) -> bool {
        let known = self.known.get(&seen.name);
        known.is_none_or(|known| !is_older(&seen.resource_version, &known.seen.resource_version))
    }

    /// The next step towards these contents.
    #[must_use]
    pub fn next(
        &self,
        wanted: &[SliceContent],
        kubelet: KubeletLink,
        now: Duration,
    ) -> PublishStep {
        if !self.is_listed {
            return PublishStep::Wait(None);
        }
        let seen: Vec<_> = self.known.values().map(|known| known.seen.clone()).collect();
        let write = reconcile(&self.node, wanted, &seen, self.last_generation, kubelet);
        match (write, self.retry_at) {
            (None, _) => PublishStep::Current,
            (Some(_), Some(retry_at)) if now < retry_at => PublishStep::Wait(Some(retry_at)),
            (Some(write), _) => PublishStep::Write(write),
        }
    }

    /// Takes in how a write ended. Returns the features that this showed to be missing.
    pub fn wrote(
        &mut self,
        write: &SliceWrite,
        outcome: WriteOutcome<Object>,
        now: Duration,
    ) -> Vec<DraFeature> {
        let sent = match write {
            SliceWrite::Create(slice) | SliceWrite::Update { slice, .. } => Some(slice),
            SliceWrite::Delete { .. } => None,
        };
        let generation = sent.map_or(0, |slice| slice.generation);
        self.last_generation = self.last_generation.max(generation);
        match outcome {
            WriteOutcome::Stored(stored) => return self.stored(stored, sent, now),
            WriteOutcome::Deleted => {
                self.known.remove(name_of(write));
                self.succeeded();
            }
            WriteOutcome::Conflict => {
                let error = format!("the API server has another version of {}", name_of(write));
                self.failed(error, None, now);
                self.awaits_report = true;
            }
            WriteOutcome::NodeReplaced(uid) => self.node.uid = uid,
            WriteOutcome::Invalid(error) => {
                let learned = sent.and_then(|sent| refused(&mut self.support, sent));
                self.failed(error, None, now);
                return learned.into_iter().collect();
            }
            WriteOutcome::Failed(error, retry_after) => self.failed(error, retry_after, now),
        }
        Vec::new()
    }

    /// Takes in what the API server stored of the slice that was sent.
    fn stored(
        &mut self,
        stored: KnownSlice<Object>,
        sent: Option<&DraSlice>,
        now: Duration,
    ) -> Vec<DraFeature> {
        let content = stored.seen.content.clone();
        self.known.insert(stored.seen.name.clone(), stored);
        let Some(sent) = sent else { return Vec::new() };
        let learned = match &content {
            Some(content) => learn(&mut self.support, sent, content),
            None => Vec::new(),
        };
        if learned.is_empty() && content.as_ref() != Some(&sent.content) {
            let error = format!("the API server changed what it was sent as {}", sent.name);
            self.failed(error, None, now);
        } else {
            self.succeeded();
        }
        learned
    }

    fn succeeded(&mut self) {
        (self.failures, self.retry_at, self.last_error) = (0, None, None);
        self.awaits_report = false;
    }

    fn failed(&mut self, error: String, retry_after: Option<Duration>, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        let wait = backoff_up_to(LONGEST_WAIT, self.failures, self.seed);
        self.retry_at = Some(now + wait.max(retry_after.unwrap_or_default()));
        self.last_error = Some(error);
    }
}

fn name_of(write: &SliceWrite) -> &str {
    match write {
        SliceWrite::Create(slice) | SliceWrite::Update { slice, .. } => &slice.name,
        SliceWrite::Delete { name, .. } => name,
    }
}

/// Versions of one object are numbers that grow; what is no number is never older.
fn is_older(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version < than,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
