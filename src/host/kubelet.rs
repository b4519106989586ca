//! Sockets in the kubelet's device plugin directory: ours, the kubelet's, and a call to Register.

#![expect(clippy::disallowed_methods, reason = "host/ is the door to the file system")]

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::{Channel, Endpoint};

use crate::decide::session::SocketIdentity;
use crate::wire::v1beta1::RegisterRequest;
use crate::wire::v1beta1::registration_client::RegistrationClient;

/// The kubelet's own socket in its device plugin directory.
pub const KUBELET_SOCKET: &str = "kubelet.sock";

/// How long a peer on the same machine has to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);

/// A listening socket at its place.
#[derive(Debug)]
pub struct PlacedSocket {
    /// Accepts the kubelet.
    pub listener: UnixListener,
    /// Which file it is.
    pub identity: SocketIdentity,
}

/// Listens at `path`. The socket is made under another name and renamed, so that the path always
/// shows a socket that accepts, whatever was there before.
///
/// # Errors
/// As `bind`, `stat` and `rename`; nothing is left behind.
pub fn place_socket(path: &Path) -> io::Result<PlacedSocket> {
    let unplaced = beside(path);
    let _ = fs::remove_file(&unplaced);
    let listener = UnixListener::bind(&unplaced)?;
    let placed = fs::rename(&unplaced, path).and_then(|()| {
        socket_identity(path).ok_or_else(|| io::Error::other("another process took its place"))
    });
    match placed {
        Ok(identity) => Ok(PlacedSocket { listener, identity }),
        Err(error) => {
            let _ = fs::remove_file(&unplaced);
            Err(error)
        }
    }
}

/// `.iluvatar-gpu.sock.42`: hidden, and no other process's.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
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

/// Whether somebody accepts connections at `path`. Silence counts as alive: only a refusal proves
/// that nobody is there.
pub async fn is_alive(path: &Path) -> bool {
    match tokio::time::timeout(CONNECT_PATIENCE, UnixStream::connect(path)).await {
        Ok(Err(error)) => {
            !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
        }
        Ok(Ok(_)) | Err(_) => true,
    }
}

/// Why the kubelet does not know us.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// Nobody accepts on the kubelet's socket.
    #[error("cannot connect to {0}: {1}")]
    Connect(PathBuf, #[source] io::Error),
    /// It answered no.
    #[error("the kubelet refused: {}", .0.message())]
    Refused(#[source] tonic::Status),
    /// It did not answer.
    #[error("the kubelet did not answer within {0:?}")]
    Silent(Duration),
}

/// The process that answered, as far as it can be seen from here; none from another process id
/// namespace.
pub type Peer = Option<i32>;

/// Calls Register on the kubelet's socket in `directory`. Serve first: the kubelet calls back
/// before it answers.
///
/// # Errors
/// [`RegisterError`], after `patience` at the latest.
pub async fn register(
    directory: &Path,
    request: RegisterRequest,
    patience: Duration,
) -> Result<Peer, RegisterError> {
    let path = directory.join(KUBELET_SOCKET);
    let call = async {
        let stream = UnixStream::connect(&path).await;
        let stream = stream.map_err(|error| RegisterError::Connect(path.clone(), error))?;
        let peer = peer(&stream);
        let channel = channel_over(stream).await.map_err(|error| {
            RegisterError::Connect(path.clone(), io::Error::other(error.to_string()))
        })?;
        let answer = RegistrationClient::new(channel).register(request).await;
        answer.map(|_| peer).map_err(RegisterError::Refused)
    };
    tokio::time::timeout(patience, call).await.unwrap_or(Err(RegisterError::Silent(patience)))
}

/// The process at the other end; 0 stands for one that cannot be seen.
fn peer(stream: &UnixStream) -> Peer {
    stream.peer_cred().ok()?.pid().filter(|pid| *pid != 0)
}

/// A gRPC channel over one connected stream; it does not reconnect.
///
/// # Errors
/// As the HTTP/2 handshake.
pub async fn channel_over(stream: UnixStream) -> Result<Channel, tonic::transport::Error> {
    let mut stream = Some(stream);
    // tonic wants a URI; `localhost` is what it sends as `:authority`.
    Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_| {
            let stream = stream.take().map(TokioIo::new);
            async move { stream.ok_or_else(|| io::Error::other("the connection is gone")) }
        }))
        .await
}
