//! The status service over HTTP: `/livez`, `/readyz`, `/metrics`, `/status`. Read-only; nothing else
//! waits for it. A port that is taken is retried and does not affect the kubelet.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::status_service::StatusService;
use crate::decide::kubelet::probes::ProbeResult;
use crate::model::log_event::LogEvent;
use crate::wire::metrics::exposition::Format;

/// How long to wait before another attempt to listen.
const LISTEN_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait after an accept that failed: no more file descriptors, mostly.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may live: one request, one answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long open connections have once the daemon stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);
/// Connections at a time; beyond these the oldest is cut, so that idle ones do not block a probe.
const CONNECTION_LIMIT: usize = 64;
/// Longest head of a request, in bytes; bodies are not read.
const HEAD_SIZE_LIMIT: usize = 16 * 1024;
/// Header lines of a request.
const HEADER_LINE_LIMIT: usize = 64;

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// Answers at `address` until `stop`; `bound` holds the address while it does.
pub async fn run(
    address: SocketAddr,
    service: Arc<StatusService>,
    bound: watch::Sender<Option<SocketAddr>>,
    stop: CancellationToken,
) {
    let (routes, mut has_warned) = (routes(service), false);
    while !stop.is_cancelled() {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let at = listener.local_addr().unwrap_or(address);
                info!(event = LogEvent::HttpListening.name(), address = %at, "serving /livez, /readyz, /metrics and /status");
                bound.send_replace(Some(at));
                return serve(&listener, &routes, &stop).await;
            }
            Err(error) if has_warned => debug!(%address, %error, "cannot listen for HTTP"),
            Err(error) => {
                has_warned = true;
                warn!(
                    event = LogEvent::HttpFailed.name(), %address, %error,
                    "cannot listen for HTTP; probes and metrics are unavailable; retrying"
                );
            }
        }
        stop.run_until_cancelled(sleep(LISTEN_RETRY_INTERVAL)).await;
    }
}

async fn serve(listener: &TcpListener, routes: &Router, stop: &CancellationToken) {
    let mut connections = Connections::default();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => connections.open(stream, routes.clone()),
            Err(error) => {
                log_accept_error(&error);
                stop.run_until_cancelled(sleep(ACCEPT_RETRY_INTERVAL)).await;
            }
        }
    }
    connections.close().await;
}

/// A client that disconnects before it is accepted is not an error.
fn log_accept_error(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        debug!(%error, "cannot accept a connection for HTTP");
    }
}

/// The open ones, the oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    handles: VecDeque<AbortHandle>,
}

impl Connections {
    fn open(&mut self, stream: TcpStream, routes: Router) {
        while self.tasks.try_join_next().is_some() {}
        self.handles.retain(|handle| !handle.is_finished());
        if self.handles.len() >= CONNECTION_LIMIT
            && let Some(oldest) = self.handles.pop_front()
        {
            oldest.abort();
        }
        self.handles.push_back(self.tasks.spawn(serve_connection(stream, routes)));
    }

    async fn close(mut self) {
        let ended =
            timeout(SHUTDOWN_TIMEOUT, async { while self.tasks.join_next().await.is_some() {} });
        if ended.await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

/// One request, one answer.
async fn serve_connection(stream: TcpStream, routes: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .keep_alive(false)
        .max_headers(HEADER_LINE_LIMIT)
        .max_buf_size(HEAD_SIZE_LIMIT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "invalid HTTP request"),
        Err(_) => debug!("HTTP connection timed out"),
    }
}

fn routes(service: Arc<StatusService>) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(not_found)
        .with_state(service)
}

async fn live(State(service): State<Arc<StatusService>>) -> Response<Body> {
    probe_response("live", &service.live().await)
}

async fn ready(State(service): State<Arc<StatusService>>) -> Response<Body> {
    probe_response("ready", &service.ready())
}

async fn metrics(State(service): State<Arc<StatusService>>, headers: HeaderMap) -> Response<Body> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::wanted(accept.unwrap_or_default());
    answer(StatusCode::OK, format.content_type(), service.metrics(format))
}

async fn status(State(service): State<Arc<StatusService>>) -> Response<Body> {
    match serde_json::to_string_pretty(&service.status()) {
        Ok(text) => answer(StatusCode::OK, "application/json", text + "\n"),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, PLAIN_TEXT, format!("{error}\n")),
    }
}

async fn not_found() -> Response<Body> {
    let text = "nothing here; there are /livez, /readyz, /metrics and /status\n";
    answer(StatusCode::NOT_FOUND, PLAIN_TEXT, text.to_owned())
}

/// `ready` or `not ready`, then a sentence a line.
fn probe_response(word: &str, probe_response: &ProbeResult) -> Response<Body> {
    let well = (StatusCode::OK, "");
    let (code, not) =
        if probe_response.is_positive { well } else { (StatusCode::SERVICE_UNAVAILABLE, "not ") };
    let sentences = probe_response.sentences.iter().map(|sentence| format!("{sentence}\n"));
    answer(code, PLAIN_TEXT, format!("{not}{word}\n{}", sentences.collect::<String>()))
}

fn answer(code: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, content_type.parse().expect("no odd characters"));
    response
}
