//! One plain HTTP request to a plugin on this machine: what its probes and `status` need.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

/// Longest body that is read, in bytes: far above the status of the largest node.
const BODY_SIZE_LIMIT: usize = 16 << 20;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// For example 200.
    pub code: u16,
    /// The body as text.
    pub text: String,
}

/// Why there is no response.
#[derive(Debug, Error)]
pub enum HttpError {
    /// No process listens there.
    #[error(
        "cannot connect to {0}: {1}; does the plugin run, and does its --http name this address?"
    )]
    Connect(SocketAddr, io::Error),
    /// The peer accepts and does not answer.
    #[error("{0} did not answer within {1:?}")]
    Silent(SocketAddr, Duration),
    /// The peer does not speak HTTP.
    #[error("{0} does not speak HTTP: {1}")]
    NotHttp(SocketAddr, hyper::Error),
    /// It ended in the middle of its answer, or does not end it.
    #[error("the answer of {0} is broken: {1}")]
    Broken(SocketAddr, String),
}

/// Where a plugin that listens at `address` is reached from this machine: one that listens
/// everywhere also does on the loopback.
#[must_use]
pub fn reached_at(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// The answer to `GET path`.
///
/// # Errors
/// [`HttpError`], after `time_limit` at the latest. Any answer counts as one, whatever its code.
pub async fn get(
    address: SocketAddr,
    path: &str,
    time_limit: Duration,
) -> Result<HttpResponse, HttpError> {
    let asked = tokio::time::timeout(time_limit, ask(address, path)).await;
    asked.unwrap_or(Err(HttpError::Silent(address, time_limit)))
}

async fn ask(address: SocketAddr, path: &str) -> Result<HttpResponse, HttpError> {
    let stream =
        TcpStream::connect(address).await.map_err(|error| HttpError::Connect(address, error))?;
    let not_http = |error| HttpError::NotHttp(address, error);
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(not_http)?;
    let request = Request::get(path).header(header::HOST, address.to_string());
    let request = request.body(Empty::<Bytes>::new());
    let request = request.map_err(|error| HttpError::Broken(address, error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(not_http)?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_SIZE_LIMIT).collect().await;
        let body = body.map_err(|error| HttpError::Broken(address, broken(error.as_ref())))?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Ok(HttpResponse { code, text })
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The connection ended; read what came before.
        _ = connection => exchange.await,
    }
}

fn broken(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    if error.is::<LengthLimitError>() {
        return format!("it is longer than {} MiB", BODY_SIZE_LIMIT >> 20);
    }
    error.to_string()
}
