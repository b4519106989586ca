//! Starts and ends the session of each configured resource, as `decide::kubelet::session_plan` plans.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::plugin_service::Sources;
use super::plugin_session::{self, SessionSettings};
use crate::decide::kubelet::session_plan::{SessionChange, SessionPlan, SessionTerms};
use crate::model::log_event::LogEvent;
use crate::model::session::Progress;

/// The progress of each configured resource's session, by resource name.
pub type SessionsView = BTreeMap<String, watch::Receiver<Progress>>;

/// Owns the sessions.
pub struct Sessions {
    directory: PathBuf,
    inotify: bool,
    sources: Sources,
    plan: SessionPlan,
    /// By configured resource; passed on from one of its sessions to the next.
    progress: BTreeMap<String, watch::Sender<Progress>>,
    view: watch::Sender<SessionsView>,
    /// Ends the session of a resource.
    running: BTreeMap<String, CancellationToken>,
    /// Each returns its resource once its session has closed.
    tasks: JoinSet<String>,
}

impl Sessions {
    /// No session yet, and a view of those to come.
    #[must_use]
    pub fn new(
        directory: PathBuf,
        inotify: bool,
        sources: Sources,
    ) -> (Self, watch::Receiver<SessionsView>) {
        let (view, receiver) = watch::channel(SessionsView::new());
        let sessions = Self {
            directory,
            inotify,
            sources,
            plan: SessionPlan::default(),
            progress: BTreeMap::new(),
            view,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        (sessions, receiver)
    }

    /// Runs the sessions of the configured resources, from the first snapshot until `stop`. Returns
    /// when all have closed.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            self.follow_snapshot(&stop);
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.sources.snapshots.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                Some(ended) = self.tasks.join_next() => {
                    let changes = self.plan.closed(&closed_resource(ended));
                    self.carry_out(changes, &stop);
                }
            }
        }
        for token in self.running.values() {
            token.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
    }

    fn follow_snapshot(&mut self, stop: &CancellationToken) {
        let snapshot = self.sources.snapshots.borrow_and_update().clone();
        let Some(snapshot) = snapshot else { return };
        let resources: Vec<_> = snapshot.resources.iter().map(|resource| &*resource.name).collect();
        self.sources.telemetry.set_resources(resources.iter().copied());
        self.publish_progress(&resources);
        let changes = self.plan.configure(&resources, snapshot.container.start_verification);
        self.carry_out(changes, stop);
    }

    fn publish_progress(&mut self, resources: &[&str]) {
        let is_known = |resource: &&str| self.progress.contains_key(*resource);
        if resources.len() == self.progress.len() && resources.iter().all(is_known) {
            return;
        }
        let mut before = std::mem::take(&mut self.progress);
        for &resource in resources {
            let progress =
                before.remove(resource).unwrap_or_else(|| watch::Sender::new(Progress::Waiting));
            self.progress.insert(resource.to_owned(), progress);
        }
        let views = self.progress.iter();
        self.view.send_replace(
            views.map(|(resource, progress)| (resource.clone(), progress.subscribe())).collect(),
        );
    }

    fn carry_out(&mut self, changes: Vec<SessionChange>, stop: &CancellationToken) {
        for change in changes {
            match change {
                SessionChange::End { resource } => self.end(&resource),
                SessionChange::Start { resource, terms } => self.start(resource, terms, stop),
            }
        }
    }

    fn end(&mut self, resource: &str) {
        if let Some(token) = self.running.remove(resource) {
            info!(
                event = LogEvent::SessionEnding.name(),
                resource, "ending the session of a resource"
            );
            token.cancel();
        }
    }

    fn start(&mut self, resource: String, terms: SessionTerms, stop: &CancellationToken) {
        let SessionTerms { socket: socket_name, verification } = terms;
        let Some(progress) = self.progress.get(&resource).cloned() else { return };
        info!(
            event = LogEvent::SessionStarting.name(),
            resource,
            socket = socket_name,
            "starting the session of a resource"
        );
        let settings = SessionSettings {
            directory: self.directory.clone(),
            socket_name,
            resource: resource.clone(),
            verification,
            inotify: self.inotify,
        };
        let token = stop.child_token();
        self.running.insert(resource.clone(), token.clone());
        let session = plugin_session::run(settings, self.sources.clone(), progress, token);
        self.tasks.spawn(async move {
            session.await;
            resource
        });
    }
}

/// A session that panics ends the daemon, as any task does.
fn closed_resource(ended: Result<String, JoinError>) -> String {
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
