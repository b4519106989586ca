//! HTTP/1 for the API server: each request is understood, recorded, made to fail where that was
//! ordered, and answered from the store.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use super::failure::ApiFailure;
use super::faults::{self, FaultEffect};
use super::request::{ApiRequest, ApiVerb};
use super::{ApiState, ReceivedRequest};

/// Longest object that is read, in bytes; as etcd's limit.
const BODY_SIZE_LIMIT: usize = 3 << 20;

/// Serves until `stop`; then every connection is cut.
pub(super) async fn serve(listener: TcpListener, state: Arc<ApiState>, stop: CancellationToken) {
    let routes = Router::new().fallback(answer).with_state(state);
    let mut connections = JoinSet::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else { continue };
        while connections.try_join_next().is_some() {}
        let service = TowerToHyperService::new(routes.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(connection);
    }
    connections.shutdown().await;
}

async fn answer(State(state): State<Arc<ApiState>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let parsed = ApiRequest::parse(&parts.method, &parts.uri);
    let body = to_bytes(body, BODY_SIZE_LIMIT).await.unwrap_or_default();
    let (request, body) = match parsed.and_then(|request| Ok((request, json_of(&body)?))) {
        Ok(understood) => understood,
        Err(failure) => return refused(&failure),
    };
    let received = ReceivedRequest { request: request.clone(), body: body.clone() };
    state.received.send_modify(|all| all.push(received));
    let mut fault = None;
    state.faults.send_modify(|faults| fault = faults::take(faults, &request));
    match fault {
        None => served(&state, &request, body, &parts.headers),
        Some(FaultEffect::Failure(failure)) => refused(&failure),
        Some(FaultEffect::Cut) => cut(),
        Some(FaultEffect::AnswerLost) => {
            drop(served(&state, &request, body, &parts.headers));
            cut()
        }
        Some(FaultEffect::Held) => {
            let mut is_held = state.is_held.subscribe();
            // The sender lives as long as the state.
            drop(is_held.wait_for(|is_held| !is_held).await);
            served(&state, &request, body, &parts.headers)
        }
    }
}

fn json_of(body: &Bytes) -> Result<Value, ApiFailure> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let object = serde_json::from_slice(body);
    object.map_err(|error| ApiFailure::of_code(400, format!("the body is not JSON: {error}")))
}

fn served(
    state: &ApiState,
    request: &ApiRequest,
    body: Value,
    headers: &HeaderMap,
) -> Response<Body> {
    let (code, object) = match request.verb {
        ApiVerb::Watch => return watched(state, request),
        ApiVerb::Get => (StatusCode::OK, state.store.borrow().get(request)),
        ApiVerb::List => (StatusCode::OK, state.store.borrow().list(request)),
        ApiVerb::Create => (StatusCode::CREATED, state.change(|store| store.create(request, body))),
        ApiVerb::Update => (StatusCode::OK, state.change(|store| store.update(request, body))),
        ApiVerb::Delete => (StatusCode::OK, state.change(|store| store.delete(request, &body))),
        ApiVerb::DeleteCollection => {
            (StatusCode::OK, state.change(|store| store.delete_collection(request)))
        }
    };
    match object {
        Ok(object) if wants_metadata(headers) => response(code, &metadata_of(&object)),
        Ok(object) => response(code, &object),
        Err(failure) => refused(&failure),
    }
}

fn wants_metadata(headers: &HeaderMap) -> bool {
    let accept = headers.get("accept").and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("as=PartialObjectMetadata;"))
}

fn metadata_of(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// A stream of changes, one a line, until the watches are cut.
fn watched(state: &ApiState, request: &ApiRequest) -> Response<Body> {
    let store = Arc::clone(&state.store.borrow());
    if let Err(failure) = store.check_selector(request) {
        return refused(&failure);
    }
    if request.resource_version < store.compacted {
        let failure = ApiFailure::of_code(410, "too old resource version");
        let line = json!({ "type": "ERROR", "object": failure.status() });
        return stream(Body::from(format!("{line}\n")));
    }
    let generation = store.watch_generation;
    let (request, mut reached) = (request.clone(), request.resource_version);
    let changes = WatchStream::new(state.store.subscribe())
        .take_while(move |store| store.watch_generation == generation)
        .map(move |store| {
            let (lines, version) = store.changes(&request, reached);
            reached = version;
            lines
        })
        .filter(|lines| !lines.is_empty())
        .map(|lines| Ok::<_, std::convert::Infallible>(Bytes::from(lines)));
    stream(Body::from_stream(changes))
}

fn stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().expect("plain"));
    response
}

fn response(code: StatusCode, object: &Value) -> Response<Body> {
    let mut response = stream(Body::from(object.to_string()));
    *response.status_mut() = code;
    response
}

fn refused(failure: &ApiFailure) -> Response<Body> {
    let mut response = response(failure.status_code(), &failure.status());
    if let Some(seconds) = failure.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// The head of a response whose body breaks off.
fn cut() -> Response<Body> {
    let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    stream(Body::from_stream(tokio_stream::once(Err::<Bytes, _>(broken))))
}
