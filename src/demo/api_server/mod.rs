//! An API server in one value, for a node without a cluster: nodes, slices, claims, device classes
//! and events over HTTP on 127.0.0.1, with versions, watches and the validation of
//! resource.k8s.io/v1. It drops the fields of features that its version does not have, and fails
//! where it is asked to.
//!
//! It has no TLS, no users and no admission policies.

mod dropped_fields;
mod failure;
mod faults;
mod profile;
mod request;
mod serve;
mod store;
mod validation;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::http::{Method, Uri};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::failure::ApiFailure;
pub use self::faults::{ApiFault, FaultEffect};
pub use self::profile::{FeatureGates, ServerVersion};
pub use self::request::{ApiRequest, ApiVerb, ObjectKind};
pub use self::store::ObjectStore;

/// A request that came in, as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedRequest {
    /// What it asked for.
    pub request: ApiRequest,
    /// The object that it carried; null without one.
    pub body: Value,
}

/// The state that requests and tests share; each change wakes those who wait for one.
struct ApiState {
    store: watch::Sender<Arc<ObjectStore>>,
    faults: watch::Sender<Vec<ApiFault>>,
    is_held: watch::Sender<bool>,
    received: watch::Sender<Vec<ReceivedRequest>>,
}

/// The API server. Dropping it ends it.
pub struct ApiServer {
    address: SocketAddr,
    state: Arc<ApiState>,
    process: Option<ApiProcess>,
}

/// What ends with the server's process; the objects stay.
struct ApiProcess {
    tasks: JoinSet<()>,
    stop: DropGuard,
}

impl ApiServer {
    /// Serves this version with its default gates, and one node.
    ///
    /// # Errors
    /// No port of 127.0.0.1 can be bound.
    pub async fn start(version: ServerVersion, node: &str) -> io::Result<Self> {
        Self::start_with(version, version.default_gates(), node).await
    }

    /// As [`ApiServer::start`], with gates that an administrator chose.
    ///
    /// # Errors
    /// No port of 127.0.0.1 can be bound.
    pub async fn start_with(
        version: ServerVersion,
        gates: FeatureGates,
        node: &str,
    ) -> io::Result<Self> {
        let store = ObjectStore::new(version, gates);
        let state = ApiState {
            store: watch::Sender::new(Arc::new(store)),
            faults: watch::Sender::new(Vec::new()),
            is_held: watch::Sender::new(false),
            received: watch::Sender::new(Vec::new()),
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = Self { address, state: Arc::new(state), process: None };
        server.restart().await?;
        let node = json!({
            "kind": "Node", "apiVersion": "v1", "metadata": { "name": node }, "spec": {},
        });
        server.create(ObjectKind::Node, "", node).map_err(io::Error::other)?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends every connection and refuses new ones; the objects stay.
    pub async fn stop(&mut self) {
        let Some(ApiProcess { mut tasks, stop }) = self.process.take() else { return };
        drop(stop);
        while tasks.join_next().await.is_some() {}
    }

    /// Serves again at the same address.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.stop().await;
        let listener = TcpListener::bind(self.address).await?;
        self.address = listener.local_addr()?;
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(serve::serve(listener, Arc::clone(&self.state), stop.clone()));
        self.process = Some(ApiProcess { tasks, stop: stop.drop_guard() });
        Ok(())
    }

    /// What is stored now.
    #[must_use]
    pub fn store(&self) -> Arc<ObjectStore> {
        Arc::clone(&self.state.store.borrow())
    }

    /// Waits until what is stored is as wanted; at once where it is already.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&ObjectStore) -> bool) -> Arc<ObjectStore> {
        let mut changes = self.state.store.subscribe();
        loop {
            let store = Arc::clone(&changes.borrow_and_update());
            if wanted(&store) {
                return store;
            }
            changed(&mut changes).await;
        }
    }

    /// Every request so far, in order.
    #[must_use]
    pub fn received(&self) -> Vec<ReceivedRequest> {
        self.state.received.borrow().clone()
    }

    /// Waits until the requests so far are as wanted.
    pub async fn wait_for_requests(&self, mut wanted: impl FnMut(&[ReceivedRequest]) -> bool) {
        let mut changes = self.state.received.subscribe();
        while !wanted(&changes.borrow_and_update()) {
            changed(&mut changes).await;
        }
    }

    /// Lets requests fail from now on.
    pub fn fail(&self, fault: ApiFault) {
        if fault.effect == FaultEffect::Held {
            self.state.is_held.send_replace(true);
        }
        self.state.faults.send_modify(|faults| faults.push(fault));
    }

    /// Answers the requests that are held, and holds no further ones.
    pub fn release(&self) {
        let is_held = |fault: &ApiFault| fault.effect == FaultEffect::Held;
        self.state.faults.send_modify(|faults| faults.retain(|fault| !is_held(fault)));
        self.state.is_held.send_replace(false);
    }

    /// Ends all watches; clients continue from where they were.
    pub fn cut_watches(&self) {
        self.state.change(|store| store.watch_generation += 1);
    }

    /// Sends a bookmark to the watches of this kind.
    pub fn bookmark(&self, kind: ObjectKind) {
        self.state.change(|store| store.bookmark(kind));
    }

    /// Forgets all changes so far and ends all watches: who continues from an earlier version gets
    /// the error that it is gone.
    pub fn compact(&self) {
        self.state.change(|store| {
            store.compact();
            store.watch_generation += 1;
        });
    }

    /// Creates an object, as any other client would.
    ///
    /// # Errors
    /// As the API: it exists, or is invalid.
    pub fn create(
        &self,
        kind: ObjectKind,
        namespace: &str,
        object: Value,
    ) -> Result<Value, ApiFailure> {
        let request = object_request(&Method::POST, kind, namespace, "")?;
        self.state.change(|store| store.create(&request, object))
    }

    /// Replaces an object, as any other client would.
    ///
    /// # Errors
    /// As the API: it does not exist, was changed since, or is invalid.
    pub fn update(
        &self,
        kind: ObjectKind,
        namespace: &str,
        object: Value,
    ) -> Result<Value, ApiFailure> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let request = object_request(&Method::PUT, kind, namespace, &name)?;
        self.state.change(|store| store.update(&request, object))
    }

    /// Deletes an object, as any other client would.
    ///
    /// # Errors
    /// It does not exist.
    pub fn delete(
        &self,
        kind: ObjectKind,
        namespace: &str,
        name: &str,
    ) -> Result<Value, ApiFailure> {
        let request = object_request(&Method::DELETE, kind, namespace, name)?;
        self.state.change(|store| store.delete(&request, &Value::Null))
    }

    /// An object, or why there is none.
    ///
    /// # Errors
    /// It does not exist.
    pub fn get(&self, kind: ObjectKind, namespace: &str, name: &str) -> Result<Value, ApiFailure> {
        self.store().get(&object_request(&Method::GET, kind, namespace, name)?)
    }

    /// Deletes all slices of a node, as its kubelet does when it starts.
    ///
    /// # Errors
    /// The name is no name.
    pub fn delete_slices_of(&self, node: &str) -> Result<(), ApiFailure> {
        let mut request = object_request(&Method::DELETE, ObjectKind::ResourceSlice, "", "")?;
        request.selector = vec![("spec.nodeName".to_owned(), node.to_owned())];
        self.state.change(|store| store.delete_collection(&request)).map(drop)
    }
}

impl ApiState {
    fn change<T>(&self, change: impl FnOnce(&mut ObjectStore) -> T) -> T {
        let mut result = None;
        self.store.send_modify(|store| result = Some(change(Arc::make_mut(store))));
        result.expect("send_modify calls its argument")
    }
}

/// The next change. The sender lives as long as the server, so that there is always one to wait for.
async fn changed<T>(changes: &mut watch::Receiver<T>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn object_request(
    method: &Method,
    kind: ObjectKind,
    namespace: &str,
    name: &str,
) -> Result<ApiRequest, ApiFailure> {
    let uri: Uri = kind
        .path(namespace, name)
        .parse()
        .map_err(|error| ApiFailure::of_code(400, format!("{name:?}: {error}")))?;
    ApiRequest::parse(method, &uri)
}
