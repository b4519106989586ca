//! The Kubernetes API, as far as DRA mode needs it: claims are read, this node's slices are watched
//! and written, events are created. Every request ends within [`REQUEST_TIMEOUT`]; the caller
//! decides when to try again.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Config};
use thiserror::Error;
use tokio::time::timeout;
use tokio_stream::Stream;

/// How long a request may take, the connection included. The kubelet waits 45 s for a prepare, which
/// needs one request for each claim.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the API server is, and with which identity it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAccess {
    /// The pod's service account: its token and CA are read again when they change.
    ServiceAccount,
    /// A kubeconfig file.
    Kubeconfig(PathBuf),
    /// A plain `http://` address without any identity.
    Plain(String),
}

/// A change of the watched slices, as kube's watcher reports it.
pub type SliceEvent = watcher::Event<ResourceSlice>;

/// The slices of a node from a first list on. It never ends; after an error, polling it again tries
/// again.
pub type SliceEvents = Pin<Box<dyn Stream<Item = Result<SliceEvent, KubeApiError>> + Send>>;

/// Why the API server cannot be used, or did not do what it was asked.
#[derive(Debug, Error)]
pub enum KubeApiError {
    /// There is no service account in this pod.
    #[error(
        "no service account: {0}; DRA mode needs automountServiceAccountToken: true, or \
         --kubeconfig"
    )]
    ServiceAccount(String),
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {0}: {1}; it must name a cluster, a user and a current context")]
    Kubeconfig(PathBuf, String),
    /// It is no `http://` address.
    #[error("API server address {0:?}: {1}; it must be an http:// URL")]
    Address(String, String),
    /// TLS or credentials cannot be set up.
    #[error("cannot set up the client of the Kubernetes API: {0}")]
    Client(String),
    /// No answer in time.
    #[error("the API server did not answer within {REQUEST_TIMEOUT:?}: {0}")]
    Timeout(&'static str),
    /// It answered with an error.
    #[error("the API server refused to {request}: {code} {reason}: {message}")]
    Refused {
        /// What was asked.
        request: &'static str,
        /// The HTTP status.
        code: u16,
        /// The API's word, for example `Conflict`.
        reason: String,
        /// Its sentence.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No connection, or it broke, or the answer is not understood.
    #[error("cannot {0}: {1}")]
    Unreachable(&'static str, String),
}

impl KubeApiError {
    /// The HTTP status, where the API server answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// How long the API server wants not to be asked.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the object is there already, or was changed since it was read.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    fn of(request: &'static str, error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::Unreachable(request, text_of(&error));
        };
        let seconds = status.details.as_ref().map(|details| details.retry_after_seconds);
        let seconds = seconds.filter(|seconds| *seconds > 0);
        Self::Refused {
            request,
            code: status.code,
            reason: status.reason,
            message: status.message,
            retry_after: seconds.map(|seconds| Duration::from_secs(seconds.into())),
        }
    }

    fn of_watch(error: watcher::Error) -> Self {
        const REQUEST: &str = "watch resourceslices";
        match error {
            watcher::Error::InitialListFailed(error) => Self::of("list resourceslices", error),
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
                Self::of(REQUEST, error)
            }
            watcher::Error::WatchError(status) => Self::of(REQUEST, kube::Error::Api(status)),
            watcher::Error::NoResourceVersion => {
                Self::Unreachable(REQUEST, "the list has no resourceVersion".to_owned())
            }
        }
    }
}

/// The error and its causes, as one sentence.
fn text_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let sentence = error.to_string();
        if !text.contains(&sentence) {
            text.push_str(&format!(": {sentence}"));
        }
        cause = error.source();
    }
    text
}

/// The client. Clones share its connections.
#[derive(Clone)]
pub struct KubeApi {
    client: Client,
}

impl KubeApi {
    /// Reads the identity; the first request connects.
    ///
    /// # Errors
    /// There is no usable identity or address.
    pub async fn open(access: &ApiAccess) -> Result<Self, KubeApiError> {
        // An error means that a provider is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = match access {
            ApiAccess::ServiceAccount => service_account()?,
            ApiAccess::Kubeconfig(path) => kubeconfig(path).await?,
            ApiAccess::Plain(address) => plain(address)?,
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // The callers wait and try again: they know what is urgent.
        config.default_retry = false;
        let client = Client::try_from(config);
        let client = client.map_err(|error| KubeApiError::Client(text_of(&error)))?;
        Ok(Self { client })
    }

    /// The claim, or none where it does not exist.
    ///
    /// # Errors
    /// The API server cannot be reached, or refuses.
    pub async fn claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ResourceClaim>, KubeApiError> {
        let claims: Api<ResourceClaim> = Api::namespaced(self.client.clone(), namespace);
        within("get a resourceclaim", claims.get_opt(name)).await
    }

    /// The UID of the Node object.
    ///
    /// # Errors
    /// There is no such node, or the API server cannot be reached.
    pub async fn node_uid(&self, name: &str) -> Result<String, KubeApiError> {
        const REQUEST: &str = "get the node";
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = within(REQUEST, nodes.get_metadata(name)).await?;
        let no_uid = || KubeApiError::Unreachable(REQUEST, format!("node {name} has no uid"));
        node.metadata.uid.ok_or_else(no_uid)
    }

    /// Lists the driver's slices of this node and follows their changes.
    #[must_use]
    pub fn slice_events(&self, driver: &str, node: &str) -> SliceEvents {
        let selector = format!("spec.driver={driver},spec.nodeName={node}");
        let events = watcher(self.slices(), watcher::Config::default().fields(&selector));
        Box::pin(tokio_stream::StreamExt::map(events, |event| {
            event.map_err(KubeApiError::of_watch)
        }))
    }

    /// Creates the slice, and returns what the API server made of it.
    ///
    /// # Errors
    /// 409 where a slice of this name exists; the API server cannot be reached, or refuses.
    pub async fn create_slice(&self, slice: &ResourceSlice) -> Result<ResourceSlice, KubeApiError> {
        let slices = self.slices();
        within("create a resourceslice", slices.create(&PostParams::default(), slice)).await
    }

    /// Replaces the slice of this name, and returns what the API server made of it.
    ///
    /// # Errors
    /// 409 where its resourceVersion is not the latest; 404 where it is gone; the API server cannot be
    /// reached, or refuses.
    pub async fn replace_slice(
        &self,
        slice: &ResourceSlice,
    ) -> Result<ResourceSlice, KubeApiError> {
        let name = slice.metadata.name.clone().unwrap_or_default();
        let slices = self.slices();
        within("update a resourceslice", slices.replace(&name, &PostParams::default(), slice)).await
    }

    /// Deletes the slice if it still has this version; one that is gone counts as deleted.
    ///
    /// # Errors
    /// 409 where it has another version; the API server cannot be reached, or refuses.
    pub async fn delete_slice(
        &self,
        name: &str,
        resource_version: String,
    ) -> Result<(), KubeApiError> {
        let resource_version = Some(resource_version);
        let preconditions = Preconditions { uid: None, resource_version };
        let params = DeleteParams::default().preconditions(preconditions);
        let slices = self.slices();
        match within("delete a resourceslice", slices.delete(name, &params)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Creates the event.
    ///
    /// # Errors
    /// The API server cannot be reached, or refuses.
    pub async fn create_event(&self, event: &Event) -> Result<(), KubeApiError> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        within("create an event", events.create(&PostParams::default(), event)).await.map(drop)
    }

    fn slices(&self) -> Api<ResourceSlice> {
        Api::all(self.client.clone())
    }
}

/// The answer to a request, under the deadline of all requests.
async fn within<T>(
    request: &'static str,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, KubeApiError> {
    let answer = timeout(REQUEST_TIMEOUT, answer).await;
    let answer = answer.map_err(|_| KubeApiError::Timeout(request))?;
    answer.map_err(|error| KubeApiError::of(request, error))
}

fn service_account() -> Result<Config, KubeApiError> {
    Config::incluster().map_err(|error| KubeApiError::ServiceAccount(text_of(&error)))
}

async fn kubeconfig(path: &Path) -> Result<Config, KubeApiError> {
    let refused =
        |error: &dyn std::error::Error| KubeApiError::Kubeconfig(path.to_owned(), text_of(error));
    let file = Kubeconfig::read_from(path).map_err(|error| refused(&error))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    config.map_err(|error| refused(&error))
}

fn plain(address: &str) -> Result<Config, KubeApiError> {
    let refused = |why: String| KubeApiError::Address(address.to_owned(), why);
    let url: http::Uri = address.parse().map_err(|error| refused(format!("{error}")))?;
    if url.scheme_str() != Some("http") {
        return Err(refused("the scheme is not http".to_owned()));
    }
    // No certificates: nothing is verified over plain HTTP, and none need be loaded.
    let mut config = Config::new(url);
    config.root_cert = Some(Vec::new());
    Ok(config)
}
