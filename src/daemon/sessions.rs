//! A session for each resource that is configured: started, kept and ended as the configuration
//! changes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::plugin_service::Sources;
use super::plugin_session::{self, FIRST_SOCKET, Progress, SessionSettings, socket_name};

/// How far each resource's session is, by resource name.
pub type SessionsView = BTreeMap<String, watch::Receiver<Progress>>;

/// Owns the sessions.
pub struct Sessions {
    directory: PathBuf,
    inotify: bool,
    sources: Sources,
    view: watch::Sender<SessionsView>,
    /// By resource: the name of its socket, and the token that ends its session.
    running: BTreeMap<String, (String, CancellationToken)>,
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
                changed = self.sources.snapshots.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                // Only sessions that were told to end do; the pattern keeps the set tidy.
                Some(_) = self.tasks.join_next() => {}
            }
        }
        for (_, token) in self.running.values() {
            token.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
    }

    fn keep_in_step(&mut self, stop: &CancellationToken) {
        let snapshot = self.sources.snapshots.borrow_and_update().clone();
        let Some(snapshot) = snapshot else { return };
        let names: Vec<_> = snapshot.resources.iter().map(|resource| &*resource.name).collect();
        self.sources.telemetry.keep_resources(names.iter().copied());
        let wanted = self.sockets(&names);
        self.running.retain(|resource, (socket, token)| {
            let keep = wanted.get(&**resource) == Some(socket);
            if !keep {
                token.cancel();
                info!(resource, socket, "no longer offering a resource under this socket");
            }
            keep
        });
        for resource in names {
            if !self.running.contains_key(resource) {
                self.start(resource, &wanted[resource], stop);
            }
        }
        let running = &self.running;
        self.view.send_modify(|sessions| sessions.retain(|name, _| running.contains_key(name)));
    }

    /// A socket name for each resource. The name that probes look for is always taken: by the
    /// resource that has it, so that its session stays, or else by the first.
    fn sockets<'a>(&self, names: &[&'a str]) -> BTreeMap<&'a str, String> {
        let has_it = |name: &&&str| {
            self.running.get(**name).is_some_and(|(socket, _)| socket == FIRST_SOCKET)
        };
        let holder = names.iter().find(has_it).or(names.first()).copied();
        names.iter().map(|name| (*name, socket_name(name, holder == Some(*name)))).collect()
    }

    fn start(&mut self, resource: &str, socket_name: &str, stop: &CancellationToken) {
        let settings = SessionSettings {
            directory: self.directory.clone(),
            socket_name: socket_name.to_owned(),
            resource: resource.to_owned(),
            inotify: self.inotify,
        };
        info!(resource, socket = socket_name, "offering a resource");
        let (progress, view) = watch::channel(Progress::Waiting);
        let token = stop.child_token();
        let sources = self.sources.clone();
        self.tasks.spawn(plugin_session::run(settings, sources, progress, token.clone()));
        self.view.send_modify(|sessions| {
            sessions.insert(resource.to_owned(), view);
        });
        self.running.insert(resource.to_owned(), (socket_name.to_owned(), token));
    }
}
