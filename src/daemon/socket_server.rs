//! A gRPC server on a socket of ours that the kubelet dials, and the connections to it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::Router;

use crate::decide::kubelet::session::{OwnSocketState, SocketIdentity};
use crate::host::abortable_stream::AbortableStream;
use crate::host::accept::accept_with_backoff;
use crate::host::authority_stream::NormalisedStream;
use crate::host::kubelet::{self, Peer};

/// How long a server may take to end its calls before its connections are cut.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// Open connections by number, each with the process at its other end.
type OpenPeers = BTreeMap<u64, Peer>;

/// A server that runs.
#[derive(Debug)]
pub struct SocketServer {
    path: PathBuf,
    identity: SocketIdentity,
    connections: watch::Receiver<OpenPeers>,
    closing: CancellationToken,
    task: JoinSet<Result<(), tonic::transport::Error>>,
    /// Cuts the connections that clients still hold when the server has ended.
    severed: DropGuard,
}

impl SocketServer {
    /// Puts a socket at `path` and serves the services there. `services` receives the token that is
    /// cancelled when the server closes: its streams must end then.
    ///
    /// # Errors
    /// As [`kubelet::place_socket`].
    pub fn start(
        path: PathBuf,
        services: impl FnOnce(CancellationToken) -> Router,
    ) -> io::Result<Self> {
        let socket = kubelet::place_socket(&path)?;
        let (closing, severed) = (CancellationToken::new(), CancellationToken::new());
        let (counter, connections) = watch::channel(OpenPeers::new());
        let (cut, counter) = (severed.clone(), Arc::new(counter));
        let accepted = accept_with_backoff(UnixListenerStream::new(socket.listener));
        let incoming = accepted.map(move |accepted| {
            accepted.map(|stream| {
                let open = OpenConnection::new(&counter, &stream);
                NormalisedStream::new(AbortableStream::holding(stream, &cut, open))
            })
        });
        let serving = services(closing.clone())
            .serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned());
        let mut task = JoinSet::new();
        task.spawn(serving);
        let severed = severed.drop_guard();
        Ok(Self { path, identity: socket.identity, connections, closing, task, severed })
    }

    /// Where it serves.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is at its path now.
    pub async fn own_socket(&mut self) -> OwnSocketState {
        match kubelet::socket_identity(&self.path) {
            None => OwnSocketState::Missing,
            // A server that ended by itself has left a dead socket.
            Some(seen) if seen == self.identity => match self.task.try_join_next() {
                None if !self.task.is_empty() => OwnSocketState::Ours,
                _ => OwnSocketState::Foreign { alive: false },
            },
            Some(_) => OwnSocketState::Foreign { alive: kubelet::is_alive(&self.path).await },
        }
    }

    /// Whether this process is connected.
    #[must_use]
    pub fn is_connected(&self, peer: Peer) -> bool {
        self.connections.borrow().values().any(|it| *it == peer)
    }

    /// Waits until a connection opens or ends, or the server ends.
    pub async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.connections.changed() => {}
            Some(_) = self.task.join_next() => {}
            else => std::future::pending().await,
        }
    }

    /// Ends its calls, cuts its connections, and removes its socket, but not another instance's.
    /// When this returns, nobody has a connection to it.
    pub async fn close(self) {
        let Self { path, identity, mut connections, closing, mut task, severed } = self;
        closing.cancel();
        if tokio::time::timeout(CLOSE_TIMEOUT, task.join_next()).await.is_err() {
            task.shutdown().await;
        }
        drop(severed);
        // Each connection holds a sender, in a task of its own that ends once it is cut.
        let ended = async { while connections.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await;
        kubelet::remove_socket(&path, identity);
    }
}

/// Counts a connection while it exists.
#[derive(Debug)]
struct OpenConnection {
    connections: Arc<watch::Sender<OpenPeers>>,
    number: u64,
}

impl OpenConnection {
    fn new(connections: &Arc<watch::Sender<OpenPeers>>, stream: &UnixStream) -> Self {
        let (peer, mut number) = (Peer::of(stream.peer_cred().ok()), 0);
        connections.send_modify(|open| {
            number = open.last_key_value().map_or(0, |(last, _)| last + 1);
            open.insert(number, peer);
        });
        Self { connections: Arc::clone(connections), number }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.send_modify(|open| {
            open.remove(&self.number);
        });
    }
}
