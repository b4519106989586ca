//! The objects, their versions, and the changes that watches follow.

use std::collections::BTreeMap;
use std::sync::Arc;

use humantime::format_rfc3339_seconds;
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::dropped_fields::{drop_disabled, rewrite_quantities};
use super::failure::ApiFailure;
use super::profile::{FeatureGates, ServerVersion};
use super::request::{ApiRequest, ObjectKind};
use super::validation;
use crate::host::clock::time_of_day;

/// Changes that a new watch can still report; older ones are forgotten.
const HISTORY_LIMIT: usize = 4096;

/// Everything that the API server knows. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    pub(super) version: ServerVersion,
    pub(super) gates: FeatureGates,
    objects: BTreeMap<ObjectKey, Arc<Value>>,
    resource_version: u64,
    uids: u64,
    history: Vec<Change>,
    /// Watches from before this version get the error that it is gone.
    pub(super) compacted: u64,
    /// Watches of another number have ended.
    pub(super) watch_generation: u64,
}

/// What an object is found by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ObjectKey {
    kind: ObjectKind,
    namespace: String,
    name: String,
}

/// A change, as a watch reports it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    kind: ObjectKind,
    event: &'static str,
    object: Arc<Value>,
}

impl ObjectStore {
    pub(super) fn new(version: ServerVersion, gates: FeatureGates) -> Self {
        Self {
            version,
            gates,
            objects: BTreeMap::new(),
            resource_version: 1,
            uids: 0,
            history: Vec::new(),
            compacted: 0,
            watch_generation: 0,
        }
    }

    /// The objects of this kind, by namespace and name, as far as they can be read as `T`.
    #[must_use]
    pub fn all<T: DeserializeOwned>(&self, kind: ObjectKind) -> Vec<T> {
        self.of_kind(kind)
            .filter_map(|(_, object)| serde_json::from_value(Value::clone(object)).ok())
            .collect()
    }

    /// The latest version of any object.
    #[must_use]
    pub fn resource_version(&self) -> u64 {
        self.resource_version
    }

    pub(super) fn get(&self, request: &ApiRequest) -> Result<Value, ApiFailure> {
        self.find(&ObjectKey::of(request)).map(|object| Value::clone(object))
    }

    fn find(&self, key: &ObjectKey) -> Result<&Arc<Value>, ApiFailure> {
        let not_found = || ApiFailure::not_found(key.kind.plural(), &key.name);
        self.objects.get(key).ok_or_else(not_found)
    }

    fn of_kind(&self, kind: ObjectKind) -> impl Iterator<Item = (&ObjectKey, &Arc<Value>)> {
        self.objects.iter().filter(move |(key, _)| key.kind == kind)
    }

    pub(super) fn list(&self, request: &ApiRequest) -> Result<Value, ApiFailure> {
        self.check_selector(request)?;
        let items = self.of_kind(request.kind).map(|(_, object)| &**object);
        let items: Vec<_> = items.filter(|object| is_selected(request, object)).collect();
        Ok(json!({
            "kind": format!("{}List", request.kind.name()),
            "apiVersion": request.kind.api_version(),
            "metadata": { "resourceVersion": self.resource_version.to_string() },
            "items": items,
        }))
    }

    /// Fields that this version cannot select by are refused.
    pub(super) fn check_selector(&self, request: &ApiRequest) -> Result<(), ApiFailure> {
        let known = match request.kind {
            ObjectKind::ResourceSlice => self.version.slice_fields(),
            _ => &["metadata.name", "metadata.namespace"],
        };
        match request.selector.iter().find(|(field, _)| !known.contains(&field.as_str())) {
            Some((field, _)) => {
                Err(ApiFailure::of_code(400, format!("field label not supported: {field}")))
            }
            None => Ok(()),
        }
    }

    pub(super) fn create(
        &mut self,
        request: &ApiRequest,
        body: Value,
    ) -> Result<Value, ApiFailure> {
        let name = body.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let key = ObjectKey { name: name.to_owned(), ..ObjectKey::of(request) };
        if self.objects.contains_key(&key) {
            return Err(ApiFailure::already_exists(key.kind.plural(), &key.name));
        }
        let mut object = self.admitted(&key, body, None)?;
        self.uids += 1;
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("00000000-0000-4000-8000-{:012x}", self.uids));
        metadata["creationTimestamp"] = json!(now());
        metadata["generation"] = json!(1);
        Ok(self.store(key, "ADDED", object))
    }

    pub(super) fn update(
        &mut self,
        request: &ApiRequest,
        body: Value,
    ) -> Result<Value, ApiFailure> {
        let key = ObjectKey::of(request);
        let old = Value::clone(self.find(&key)?);
        let (was, is) = (&old["metadata"], &body["metadata"]);
        let differs = |field: &str| is[field].is_string() && is[field] != was[field];
        if differs("resourceVersion") || differs("uid") {
            return Err(ApiFailure::changed(key.kind.plural(), &key.name));
        }
        let mut object = self.admitted(&key, body, Some(&old))?;
        for field in ["uid", "creationTimestamp", "generation", "resourceVersion"] {
            object["metadata"][field] = old["metadata"][field].clone();
        }
        if object == old {
            return Ok(old);
        }
        if object["spec"] != old["spec"] {
            let generation = old["metadata"]["generation"].as_u64().unwrap_or_default();
            object["metadata"]["generation"] = json!(generation + 1);
        }
        Ok(self.store(key, "MODIFIED", object))
    }

    pub(super) fn delete(
        &mut self,
        request: &ApiRequest,
        options: &Value,
    ) -> Result<Value, ApiFailure> {
        let key = ObjectKey::of(request);
        let metadata = &self.find(&key)?["metadata"];
        for field in ["uid", "resourceVersion"] {
            let wanted = &options["preconditions"][field];
            if wanted.is_string() && *wanted != metadata[field] {
                return Err(ApiFailure::changed(key.kind.plural(), &key.name));
            }
        }
        Ok(self.remove(&key))
    }

    pub(super) fn delete_collection(&mut self, request: &ApiRequest) -> Result<Value, ApiFailure> {
        self.check_selector(request)?;
        let keys = self.of_kind(request.kind);
        let selected = keys.filter(|(_, object)| is_selected(request, object));
        let selected: Vec<_> = selected.map(|(key, _)| key.clone()).collect();
        for key in &selected {
            self.remove(key);
        }
        Ok(json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" }))
    }

    fn remove(&mut self, key: &ObjectKey) -> Value {
        let object = self.objects.remove(key).unwrap_or_default();
        let mut object = Value::clone(&object);
        self.resource_version += 1;
        object["metadata"]["resourceVersion"] = json!(self.resource_version.to_string());
        self.report(key.kind, "DELETED", Arc::new(object.clone()));
        object
    }

    fn store(&mut self, key: ObjectKey, event: &'static str, mut object: Value) -> Value {
        self.resource_version += 1;
        object["metadata"]["resourceVersion"] = json!(self.resource_version.to_string());
        let stored = Arc::new(object.clone());
        self.report(key.kind, event, Arc::clone(&stored));
        self.objects.insert(key, stored);
        object
    }

    fn report(&mut self, kind: ObjectKind, event: &'static str, object: Arc<Value>) {
        self.history.push(Change { version: self.resource_version, kind, event, object });
        if self.history.len() > HISTORY_LIMIT {
            let forgotten = self.history.remove(0);
            self.compacted = self.compacted.max(forgotten.version);
        }
    }

    /// What the API server stores of what it was sent: without the fields of features that are off,
    /// with its own defaults, and only where it is valid.
    fn admitted(
        &self,
        key: &ObjectKey,
        body: Value,
        old: Option<&Value>,
    ) -> Result<Value, ApiFailure> {
        let invalid =
            |problems: &[String]| ApiFailure::invalid(key.kind.name(), &key.name, problems);
        let mut object = match key.kind {
            ObjectKind::ResourceSlice => self.admitted_slice(key, body, old)?,
            ObjectKind::Event => {
                let problems = validation::event_problems(&typed(body.clone())?, &key.namespace);
                if !problems.is_empty() {
                    return Err(invalid(&problems));
                }
                body
            }
            ObjectKind::DeviceClass if !self.gates.extended_resource => {
                let mut body = body;
                if let Some(spec) = body["spec"].as_object_mut() {
                    spec.remove("extendedResourceName");
                }
                body
            }
            _ => body,
        };
        if !validation::is_subdomain(&key.name) {
            return Err(invalid(&[format!("metadata.name: invalid value: {:?}", key.name)]));
        }
        if !key.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(key.namespace);
        }
        Ok(object)
    }

    fn admitted_slice(
        &self,
        key: &ObjectKey,
        body: Value,
        old: Option<&Value>,
    ) -> Result<Value, ApiFailure> {
        let mut slice: ResourceSlice = typed(body)?;
        let old = old.cloned().map(typed::<ResourceSlice>).transpose()?;
        drop_disabled(&mut slice, old.as_ref(), self.gates);
        rewrite_quantities(&mut slice);
        let problems = validation::slice_problems(&slice, old.as_ref(), self.version);
        if !problems.is_empty() {
            return Err(ApiFailure::invalid(key.kind.name(), &key.name, &problems));
        }
        Ok(with_times(json!(slice)))
    }

    /// The lines of a watch from `since` on, and the version that they reach.
    pub(super) fn changes(&self, request: &ApiRequest, since: u64) -> (String, u64) {
        let new = self.history.iter().filter(|change| change.version > since);
        let wanted = new.filter(|change| {
            let is_bookmark = change.event == "BOOKMARK";
            change.kind == request.kind && (is_bookmark || is_selected(request, &change.object))
        });
        let lines = wanted.map(|change| json!({ "type": change.event, "object": &*change.object }));
        let lines: Vec<_> = lines.map(|line| line.to_string() + "\n").collect();
        (lines.concat(), self.resource_version.max(since))
    }

    /// Counts a version as if an object of another kind was written, and tells the watches of this
    /// kind.
    pub(super) fn bookmark(&mut self, kind: ObjectKind) {
        self.resource_version += 1;
        let object = json!({
            "kind": kind.name(), "apiVersion": kind.api_version(),
            "metadata": { "resourceVersion": self.resource_version.to_string() },
        });
        self.report(kind, "BOOKMARK", Arc::new(object));
    }

    /// Forgets all changes so far, and counts a version.
    pub(super) fn compact(&mut self) {
        self.resource_version += 1;
        self.compacted = self.resource_version;
        self.history.clear();
    }
}

impl ObjectKey {
    fn of(request: &ApiRequest) -> Self {
        let ApiRequest { kind, namespace, name, .. } = request.clone();
        Self { kind, namespace, name }
    }
}

fn is_selected(request: &ApiRequest, object: &Value) -> bool {
    let namespace = &object["metadata"]["namespace"];
    let is_in_namespace = request.namespace.is_empty() || namespace == &json!(request.namespace);
    let has = |(field, value): &(String, String)| {
        let path = format!("/{}", field.replace('.', "/"));
        object.pointer(&path).and_then(Value::as_str).unwrap_or_default() == value
    };
    is_in_namespace && request.selector.iter().all(has)
}

fn typed<T: DeserializeOwned>(object: Value) -> Result<T, ApiFailure> {
    let typed = serde_json::from_value(object);
    typed.map_err(|error| ApiFailure::of_code(400, format!("cannot decode the object: {error}")))
}

/// Taints without a time get the present one, as the API's defaults have it.
fn with_times(mut slice: Value) -> Value {
    let devices = slice.pointer_mut("/spec/devices").and_then(Value::as_array_mut);
    let taints = devices.into_iter().flatten().filter_map(|device| device.get_mut("taints"));
    for taint in taints.filter_map(Value::as_array_mut).flatten() {
        if taint["timeAdded"].is_null() {
            taint["timeAdded"] = json!(now());
        }
    }
    slice
}

fn now() -> String {
    format_rfc3339_seconds(time_of_day()).to_string()
}
