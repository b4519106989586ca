//! What a request asks for: the path, the method and the query of the Kubernetes API.

use std::collections::BTreeMap;

use axum::http::{Method, Uri};

use super::failure::ApiFailure;

/// The kinds of object that this server stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// Nodes.
    Node,
    /// Slices of a driver's devices.
    ResourceSlice,
    /// Claims of devices.
    ResourceClaim,
    /// Classes of devices.
    DeviceClass,
    /// Events.
    Event,
}

impl ObjectKind {
    const ALL: [Self; 5] =
        [Self::Node, Self::ResourceSlice, Self::ResourceClaim, Self::DeviceClass, Self::Event];

    /// As in the `kind` of an object.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::ResourceSlice => "ResourceSlice",
            Self::ResourceClaim => "ResourceClaim",
            Self::DeviceClass => "DeviceClass",
            Self::Event => "Event",
        }
    }

    /// As in paths.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Node => "nodes",
            Self::ResourceSlice => "resourceslices",
            Self::ResourceClaim => "resourceclaims",
            Self::DeviceClass => "deviceclasses",
            Self::Event => "events",
        }
    }

    /// As in the `apiVersion` of an object.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Node => "v1",
            Self::Event => "events.k8s.io/v1",
            _ => "resource.k8s.io/v1",
        }
    }

    fn is_namespaced(self) -> bool {
        matches!(self, Self::ResourceClaim | Self::Event)
    }

    fn root(self) -> &'static str {
        if self == Self::Node { "api" } else { "apis" }
    }

    /// The path of an object, or of all without a name.
    pub(super) fn path(self, namespace: &str, name: &str) -> String {
        let (root, api, plural) = (self.root(), self.api_version(), self.plural());
        let in_namespace =
            if namespace.is_empty() { String::new() } else { format!("namespaces/{namespace}/") };
        let name = if name.is_empty() { String::new() } else { format!("/{name}") };
        format!("/{root}/{api}/{in_namespace}{plural}{name}")
    }
}

/// What is to be done, in the words of RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiVerb {
    /// One object.
    Get,
    /// All objects.
    List,
    /// Changes.
    Watch,
    /// A new object.
    Create,
    /// An object replaced.
    Update,
    /// One object deleted.
    Delete,
    /// Many objects deleted.
    DeleteCollection,
}

/// A request that is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// What is to be done.
    pub verb: ApiVerb,
    /// With objects of which kind.
    pub kind: ObjectKind,
    /// In which namespace; empty for all, and for kinds without.
    pub namespace: String,
    /// With which object; empty for all.
    pub name: String,
    /// `fieldSelector`, as pairs.
    pub selector: Vec<(String, String)>,
    /// `resourceVersion` of a watch.
    pub resource_version: u64,
}

impl ApiRequest {
    pub(super) fn parse(method: &Method, uri: &Uri) -> Result<Self, ApiFailure> {
        let not_found =
            || ApiFailure::of_code(404, "the server could not find the requested resource");
        let (kind, rest) = kind_of(uri.path()).ok_or_else(not_found)?;
        let (namespace, name) = match *rest.as_slice() {
            [plural] if plural == kind.plural() => ("", ""),
            [plural, name] if plural == kind.plural() && !kind.is_namespaced() => ("", name),
            ["namespaces", namespace, plural] if plural == kind.plural() => (namespace, ""),
            ["namespaces", namespace, plural, name] if plural == kind.plural() => (namespace, name),
            _ => return Err(not_found()),
        };
        let query = query_of(uri.query().unwrap_or_default());
        let is_watch = query.get("watch").is_some_and(|value| value == "true" || value == "1");
        let verb = verb_of(method, name.is_empty(), is_watch)?;
        let version = query.get("resourceVersion").and_then(|version| version.parse().ok());
        Ok(Self {
            verb,
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            selector: selector_of(query.get("fieldSelector").map_or("", String::as_str))?,
            resource_version: version.unwrap_or_default(),
        })
    }
}

/// The kind whose API the path belongs to, and the path below that API.
fn kind_of(path: &str) -> Option<(ObjectKind, Vec<&str>)> {
    ObjectKind::ALL.into_iter().find_map(|kind| {
        let prefix = format!("/{}/{}/", kind.root(), kind.api_version());
        let rest: Vec<_> = path.strip_prefix(&prefix)?.split('/').collect();
        rest.contains(&kind.plural()).then_some((kind, rest))
    })
}

fn verb_of(method: &Method, is_all: bool, is_watch: bool) -> Result<ApiVerb, ApiFailure> {
    match (method.as_str(), is_all) {
        ("GET", true) if is_watch => Ok(ApiVerb::Watch),
        ("GET", true) => Ok(ApiVerb::List),
        ("GET", false) => Ok(ApiVerb::Get),
        ("POST", true) => Ok(ApiVerb::Create),
        ("PUT", false) => Ok(ApiVerb::Update),
        ("DELETE", false) => Ok(ApiVerb::Delete),
        ("DELETE", true) => Ok(ApiVerb::DeleteCollection),
        _ => Err(ApiFailure::of_code(405, format!("{method} is not allowed here"))),
    }
}

fn selector_of(text: &str) -> Result<Vec<(String, String)>, ApiFailure> {
    let terms = text.split(',').filter(|term| !term.is_empty());
    terms
        .map(|term| {
            let (field, value) = term.split_once('=').ok_or_else(|| {
                ApiFailure::of_code(400, format!("invalid field selector {term:?}"))
            })?;
            Ok((field.to_owned(), value.trim_start_matches('=').to_owned()))
        })
        .collect()
}

fn query_of(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

/// Undoes percent-encoding; what is not UTF-8 becomes U+FFFD.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escape = escape.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, escape) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: &Method, uri: &str) -> Result<ApiRequest, ApiFailure> {
        ApiRequest::parse(method, &uri.parse().unwrap())
    }

    #[test]
    fn a_watch_of_a_nodes_slices_is_understood() {
        let uri = "/apis/resource.k8s.io/v1/resourceslices?&watch=true&resourceVersion=17\
                   &fieldSelector=spec.driver%3Dgpu.iluvatar.com%2Cspec.nodeName%3Dworker-1";
        let request = parsed(&Method::GET, uri).unwrap();
        assert_eq!((request.verb, request.kind), (ApiVerb::Watch, ObjectKind::ResourceSlice));
        let pairs = [("spec.driver", "gpu.iluvatar.com"), ("spec.nodeName", "worker-1")];
        let pairs = pairs.map(|(field, value)| (field.to_owned(), value.to_owned()));
        assert_eq!((request.selector, request.resource_version), (pairs.to_vec(), 17));
    }

    #[test]
    fn a_claim_is_named_with_its_namespace_and_a_node_without() {
        let uri = "/apis/resource.k8s.io/v1/namespaces/ai/resourceclaims/training";
        let request = parsed(&Method::GET, uri).unwrap();
        assert_eq!((&*request.namespace, &*request.name), ("ai", "training"));
        let request = parsed(&Method::GET, "/api/v1/nodes/worker-1").unwrap();
        assert_eq!((request.kind, &*request.name), (ObjectKind::Node, "worker-1"));
        for uri in ["/api/v1/pods", "/apis/resource.k8s.io/v1beta1/resourceslices", "/"] {
            assert_eq!(parsed(&Method::GET, uri).unwrap_err().code, 404, "{uri}");
        }
    }
}
