//! A session for each resource that is configured: started, kept and ended as the configuration
//! changes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::plugin_service::Sources;
use super::plugin_session::{self, Progress, SessionSettings, socket_name};

/// How far each resource's session is, by resource name.
pub type SessionsView = BTreeMap<String, watch::Receiver<Progress>>;

/// Owns the sessions.
pub struct Sessions {
    directory: PathBuf,
    inotify: bool,
    sources: Sources,
    view: watch::Sender<SessionsView>,
    /// By socket name and resource, with the token that ends each.
    running: BTreeMap<(String, String), CancellationToken>,
    tasks: JoinSet<()>,
}

impl Sessions {
    /// No session yet, and a view of those that will be.
    #[must_use]
    pub fn new(
        directory: PathBuf,
        inotify: bool,
        sources: Sources,
    ) -> (Self, watch::Receiver<SessionsView>) {
        let (view, receiver) = watch::channel(SessionsView::new());
        let (running, tasks) = (BTreeMap::new(), JoinSet::new());
        (Self { directory, inotify, sources, view, running, tasks }, receiver)
    }

    /// Keeps the sessions in step with the offer, from the first scan that succeeded until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            self.keep_in_step(&stop);
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.sources.offers.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                // Only sessions that were told to end do; the pattern keeps the set tidy.
                Some(_) = self.tasks.join_next() => {}
            }
        }
        for token in self.running.values() {
            token.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
    }

    fn keep_in_step(&mut self, stop: &CancellationToken) {
        let offer = self.sources.offers.borrow_and_update().clone();
        let Some(offer) = offer else { return };
        let names = offer.resources.iter().map(|resource| &resource.name).enumerate();
        let wanted: Vec<_> =
            names.map(|(index, name)| (socket_name(index, name), name.clone())).collect();
        self.running.retain(|session, token| {
            let keep = wanted.contains(session);
            if !keep {
                token.cancel();
                self.view.send_modify(|sessions| drop(sessions.remove(&session.1)));
            }
            keep
        });
        for session in wanted {
            if !self.running.contains_key(&session) {
                self.start(session, stop);
            }
        }
    }

    fn start(&mut self, (socket_name, resource): (String, String), stop: &CancellationToken) {
        let settings = SessionSettings {
            directory: self.directory.clone(),
            socket_name: socket_name.clone(),
            resource: resource.clone(),
            inotify: self.inotify,
        };
        info!(resource, socket = socket_name, "offering a resource");
        let (progress, view) = watch::channel(Progress::Waiting);
        let token = stop.child_token();
        let sources = self.sources.clone();
        self.tasks.spawn(plugin_session::run(settings, sources, progress, token.clone()));
        self.view.send_modify(|sessions| {
            sessions.insert(resource.clone(), view);
        });
        self.running.insert((socket_name, resource), token);
    }
}
