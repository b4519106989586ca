//! Sockets in the kubelet's device plugin directory: ours, the kubelet's, and a call to Register.

#![expect(clippy::disallowed_methods, reason = "host/ is the door to the file system")]

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::{Channel, Endpoint};

use crate::decide::kubelet::session::SocketIdentity;
use crate::model::session::RegisterOutcome;
use crate::wire::v1beta1::RegisterRequest;
use crate::wire::v1beta1::registration_client::RegistrationClient;

/// The kubelet's own socket in its device plugin directory.
pub const KUBELET_SOCKET: &str = "kubelet.sock";

/// How long a peer on the same machine may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// A listening socket at its path.
#[derive(Debug)]
pub struct PlacedSocket {
    /// Accepts the kubelet.
    pub listener: UnixListener,
    /// Which file it is.
    pub identity: SocketIdentity,
}

/// Listens at `path`. The socket is made under another name and renamed, so a client of `path`
/// always finds a socket that accepts, whatever was there before.
///
/// # Errors
/// As `bind`, `stat` and `rename`, and a path of more than 107 bytes; nothing is left behind.
pub fn place_socket(path: &Path) -> io::Result<PlacedSocket> {
    // The rename would succeed even where the path is too long to connect to.
    SocketAddr::from_pathname(path)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    // A random name, because in containers all instances may have the same process id; a short one,
    // so that it fits where `path` does.
    let unplaced =
        tempfile::Builder::new().prefix(".ix").make_in(directory, |at| UnixListener::bind(at))?;
    // Before the rename: afterwards the path may be another instance's socket.
    let identity = socket_identity(unplaced.path())
        .ok_or_else(|| io::Error::other("another process removed the new socket"))?;
    let listener = unplaced.persist(path).map_err(|failed| failed.error)?;
    Ok(PlacedSocket { listener, identity })
}

/// Which socket is at `path`; none where there is none.
#[must_use]
pub fn socket_identity(path: &Path) -> Option<SocketIdentity> {
    let metadata = fs::symlink_metadata(path).ok()?;
    // The time of the last modification: a socket's never changes, while its change time moves
    // with every chmod and relabel.
    metadata.file_type().is_socket().then(|| SocketIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
        modified: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
    })
}

/// Removes the socket at `path` if it is still this one.
pub fn remove_socket(path: &Path, identity: SocketIdentity) {
    if socket_identity(path) == Some(identity) {
        let _ = fs::remove_file(path);
    }
}

/// Whether somebody accepts connections at `path`. A timeout counts as alive: only a refusal proves
/// that nobody listens.
pub async fn is_alive(path: &Path) -> bool {
    match tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Err(error)) => {
            !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
        }
        Ok(Ok(_)) | Err(_) => true,
    }
}

/// Why a registration failed.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// Cannot connect to the kubelet's socket.
    #[error("cannot connect to {0}: {1}")]
    Connect(PathBuf, #[source] io::Error),
    /// The kubelet returned an error.
    #[error("the kubelet refused: {}", .0.message())]
    Refused(#[source] tonic::Status),
    /// No answer in time.
    #[error("the kubelet did not answer within {0:?}")]
    TimedOut(Duration),
}

impl RegisterError {
    /// What to record of the call.
    #[must_use]
    pub fn outcome(&self) -> RegisterOutcome {
        match self {
            Self::Connect(..) | Self::Refused(_) => RegisterOutcome::Refused,
            Self::TimedOut(_) => RegisterOutcome::TimedOut,
        }
    }

    /// True where no kubelet listens: a kubelet that was killed leaves its socket behind.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Connect(_, error) if matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
        ))
    }
}

/// The process at the other end of a connection; none where it is in another process id namespace.
/// Two such processes are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer(pub Option<i32>);

impl Peer {
    /// From the kernel's credentials of a connection.
    #[must_use]
    pub fn of(credentials: Option<UCred>) -> Self {
        // The kernel reports 0 for a process of another namespace.
        Self(credentials.and_then(|credentials| credentials.pid()).filter(|pid| *pid != 0))
    }
}

/// Calls Register on the kubelet's socket in `directory` and returns who accepted. Serve first: the
/// kubelet dials our socket before it answers.
///
/// # Errors
/// [`RegisterError`], after `timeout` at the latest.
pub async fn register(
    directory: &Path,
    request: RegisterRequest,
    timeout: Duration,
) -> Result<Peer, RegisterError> {
    let path = directory.join(KUBELET_SOCKET);
    let call = async {
        let stream = UnixStream::connect(&path).await;
        let stream = stream.map_err(|error| RegisterError::Connect(path.clone(), error))?;
        let peer = Peer::of(stream.peer_cred().ok());
        let channel = channel_over(stream).await.map_err(|error| {
            RegisterError::Connect(path.clone(), io::Error::other(error.to_string()))
        })?;
        let response = RegistrationClient::new(channel).register(request).await;
        response.map(|_| peer).map_err(RegisterError::Refused)
    };
    tokio::time::timeout(timeout, call).await.unwrap_or(Err(RegisterError::TimedOut(timeout)))
}

/// A gRPC channel over one connected stream; it does not reconnect.
///
/// # Errors
/// As the HTTP/2 handshake.
pub async fn channel_over(stream: UnixStream) -> Result<Channel, tonic::transport::Error> {
    let mut stream = Some(stream);
    // tonic needs a URI; it sends `localhost` as `:authority`.
    Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_| {
            let stream = stream.take().map(TokioIo::new);
            async move { stream.ok_or_else(|| io::Error::other("the connection is gone")) }
        }))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_placed_socket_replaces_whatever_was_at_its_path_and_leaves_no_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gpu.sock");
        fs::write(&path, "no socket").unwrap();
        let first = place_socket(&path).unwrap();
        let second = place_socket(&path).unwrap();
        assert_ne!(first.identity, second.identity);
        assert_eq!(socket_identity(&path), Some(second.identity));
        assert!(is_alive(&path).await);
        assert_eq!(names_in(directory.path()), ["gpu.sock"]);
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_placed_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("gpu.sock")).unwrap();
        place_socket(&directory.path().join("gpu.sock")).unwrap_err();
        assert_eq!(names_in(directory.path()), ["gpu.sock"]);
    }

    #[tokio::test]
    async fn a_path_that_no_kubelet_could_connect_to_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = place_socket(&directory.path().join("x".repeat(100))).unwrap_err();
        assert_eq!(error.to_string(), "path must be shorter than SUN_LEN");
        assert!(names_in(directory.path()).is_empty());
    }

    #[tokio::test]
    async fn another_socket_at_the_same_path_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gpu.sock");
        let (ours, theirs) = (place_socket(&path).unwrap(), place_socket(&path).unwrap());
        remove_socket(&path, ours.identity);
        assert_eq!(socket_identity(&path), Some(theirs.identity));
        remove_socket(&path, theirs.identity);
        assert_eq!(socket_identity(&path), None);
    }

    #[tokio::test]
    async fn a_socket_is_alive_until_nobody_listens_also_while_its_backlog_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gpu.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            waiting.push(stream);
        }
        assert!(is_alive(&path).await);
        drop((listener, waiting));
        assert!(!is_alive(&path).await);
    }
}
