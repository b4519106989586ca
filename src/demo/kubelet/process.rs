//! One life of the kubelet's process: its socket, its tasks, and the end of both. Never outlived
//! by a connection.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::host::sockets;

/// The name of the kubelet's own socket.
const SOCKET: &str = "kubelet.sock";

/// From a start to the end after it.
pub(super) struct Process {
    /// Counts the starts, so that what an earlier life began is not mistaken for this one's.
    pub(super) life: u64,
    cut: CancellationToken,
    tasks: JoinSet<()>,
}

/// What the registration service of one life works with.
#[derive(Clone)]
pub(super) struct ProcessContext {
    pub(super) life: u64,
    pub(super) directory: PathBuf,
    pub(super) dial_timeout: Duration,
    /// Cancelled at the end of the life.
    pub(super) cut: CancellationToken,
}

/// Wipes the sockets of an earlier life out of `directory`, which is made where it is missing,
/// and listens on `kubelet.sock`.
pub(super) fn bind(directory: &Path) -> io::Result<UnixListener> {
    sockets::create_directory(directory)?;
    sockets::remove_sockets_in(directory)?;
    let socket = directory.join(SOCKET);
    sockets::remove_file_if_there(&socket)?;
    UnixListener::bind(socket)
}

/// What a process does that goes in good order.
pub(super) fn remove_socket(directory: &Path) -> io::Result<()> {
    sockets::remove_file_if_there(&directory.join(SOCKET))
}

impl Process {
    pub(super) fn new(life: u64) -> Self {
        Self { life, cut: CancellationToken::new(), tasks: JoinSet::new() }
    }

    /// Cancelled at the end of this life, or earlier for one connection.
    pub(super) fn cut(&self) -> CancellationToken {
        self.cut.child_token()
    }

    /// Runs `task` until the end of this life.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits for a task to end by itself; none where no task runs.
    pub(super) async fn next_end(&mut self) -> Option<()> {
        self.tasks.join_next().await.map(resume_panic)
    }

    /// Cuts all connections in the middle of what they carry, aborts all tasks, and waits until
    /// they are gone: from then on the socket refuses.
    pub(super) async fn end(mut self) {
        self.cut.cancel();
        self.tasks.abort_all();
        while self.next_end().await.is_some() {}
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Aborted tasks are not enough: tonic serves each connection in a task of its own.
        self.cut.cancel();
    }
}

/// A panic in a task is a bug here; it must not pass for a kubelet that hangs.
fn resume_panic(ended: Result<(), JoinError>) {
    if let Err(Ok(panic)) = ended.map_err(JoinError::try_into_panic) {
        std::panic::resume_unwind(panic);
    }
}
