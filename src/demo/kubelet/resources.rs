//! The bookkeeping of resources: who is registered, what was listed, what counts as healthy.
//! Pure: no I/O, and time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::view::{DeviceView, ResourceView};
use crate::model::health::Health;
use crate::wire::v1beta1::{Device, DevicePluginOptions};

/// One accepted call of Register and the connection that came of it. Never used twice, so that
/// what a stream of an earlier kubelet process still sends is not taken for the present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientId(u64);

/// All resources that the kubelet knows.
pub(super) struct ResourceTable {
    takeover_bug: bool,
    grace: Duration,
    last_client: u64,
    /// Clients that connect or whose stream is open, and their resources.
    clients: BTreeMap<ClientId, String>,
    /// Who is disconnected when a stream of the resource ends.
    registered: BTreeMap<String, ClientId>,
    known: BTreeMap<String, ResourceState>,
}

#[derive(Default)]
struct ResourceState {
    endpoint: Option<Endpoint>,
    /// The last list as it came; a lost stream does not change it.
    listed: BTreeMap<String, DeviceView>,
    /// What the node counts; absent before the first list and after the grace period.
    counted: Option<Counted>,
    streams_open: usize,
    registrations: u64,
    lists_received: u64,
    last_stream_end: Option<String>,
}

/// Who answers for a resource.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// Absent after a restart of the kubelet.
    pub client: Option<ClientId>,
    /// Absent after a restart of the kubelet: until the plugin is back, nothing is asked of it.
    pub options: Option<DevicePluginOptions>,
    /// Since when it is stopped; absent while it is live.
    pub stopped_at: Option<Instant>,
}

#[derive(Default)]
struct Counted {
    healthy: BTreeSet<String>,
    unhealthy: BTreeSet<String>,
}

impl ResourceTable {
    pub(super) fn new(takeover_bug: bool, grace: Duration) -> Self {
        Self {
            takeover_bug,
            grace,
            last_client: 0,
            clients: BTreeMap::new(),
            registered: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    /// Register was called for `resource`; the plugin is not dialled yet.
    pub(super) fn connecting(&mut self, resource: &str) -> ClientId {
        self.last_client += 1;
        let client = ClientId(self.last_client);
        self.clients.insert(client, resource.to_owned());
        if self.takeover_bug {
            // Up to 1.36 the newcomer takes the name before it is known to answer.
            self.registered.insert(resource.to_owned(), client);
        }
        client
    }

    /// The plugin did not answer; Register fails.
    pub(super) fn failed_to_connect(&mut self, client: ClientId) {
        let Some(resource) = self.clients.remove(&client) else {
            return;
        };
        if self.takeover_bug {
            // By name: an older instance that still streams is forgotten with it.
            self.registered.remove(&resource);
        }
    }

    /// The plugin sent its options; its stream is opened next. False where the kubelet was
    /// restarted meanwhile: the client belongs to no plugin any more.
    pub(super) fn connected(&mut self, client: ClientId, options: DevicePluginOptions) -> bool {
        let Some(name) = self.clients.get(&client) else {
            return false;
        };
        if !self.takeover_bug {
            self.registered.insert(name.clone(), client);
        }
        let resource = self.known.entry(name.clone()).or_default();
        resource.endpoint =
            Some(Endpoint { client: Some(client), options: Some(options), stopped_at: None });
        resource.registrations += 1;
        resource.streams_open += 1;
        true
    }

    /// A list was received; it replaces the last one, whichever client sent that.
    pub(super) fn list_received(&mut self, client: ClientId, devices: Vec<Device>) {
        let Some(resource) = self.resource_of(client) else {
            return;
        };
        resource.listed = devices.into_iter().map(listed_device).collect();
        resource.counted = Some(Counted::of(&resource.listed));
        resource.lists_received += 1;
    }

    /// The stream of `client` ended. Returns whom the kubelet disconnects because of it, which
    /// with the take-over bug is whoever holds the name.
    pub(super) fn stream_ended(
        &mut self,
        client: ClientId,
        why: String,
        now: Instant,
    ) -> Option<ClientId> {
        let resource = self.resource_of(client)?;
        resource.streams_open -= 1;
        resource.last_stream_end = Some(why);
        let name = self.clients.remove(&client)?;
        let registered = *self.registered.get(&name)?;
        if registered != client && !self.takeover_bug {
            return None;
        }
        self.registered.remove(&name);
        if let Some(resource) = self.known.get_mut(&name) {
            resource.stop(now);
        }
        Some(registered)
    }

    /// The kubelet's process is another one: connections and lists are gone, the names of
    /// resources stay (they are in the checkpoint), and their grace period begins.
    pub(super) fn restarted(&mut self, now: Instant) {
        self.clients.clear();
        self.registered.clear();
        for resource in self.known.values_mut() {
            resource.restarted(now);
        }
    }

    /// Drops every resource whose grace period is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let grace = self.grace;
        for resource in self.known.values_mut() {
            if resource.stopped_at().is_some_and(|stopped_at| now >= stopped_at + grace) {
                resource.endpoint = None;
                resource.counted = None;
            }
        }
    }

    /// When a grace period ends next.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let stopped = self.known.values().filter_map(ResourceState::stopped_at).min()?;
        Some(stopped + self.grace)
    }

    /// The endpoint of the resource; none if none registered, or the grace period is over.
    pub(super) fn endpoint(&self, resource: &str) -> Option<&Endpoint> {
        self.known.get(resource)?.endpoint.as_ref()
    }

    /// The devices that count as healthy; none where the resource is unregistered.
    pub(super) fn healthy(&self, resource: &str) -> Option<&BTreeSet<String>> {
        Some(&self.known.get(resource)?.counted.as_ref()?.healthy)
    }

    /// NUMA nodes of a device, as listed last.
    pub(super) fn numa_nodes(&self, resource: &str, device: &str) -> &[i64] {
        self.listed(resource, device).map_or(&[], |device| &device.numa_nodes)
    }

    /// The health that a pod sees of a device it holds: of the last list, and Healthy where it did
    /// not name the device. That is kubelet 1.36, manager.go, `UpdateAllocatedResourcesStatus`.
    pub(super) fn listed_health(&self, resource: &str, device: &str) -> Health {
        self.listed(resource, device).map_or(Health::Healthy, |device| device.health)
    }

    /// What an onlooker sees of every resource.
    pub(super) fn view(&self) -> BTreeMap<String, ResourceView> {
        let views = self.known.iter().map(|(name, resource)| (name.clone(), resource.view()));
        views.collect()
    }

    fn resource_of(&mut self, client: ClientId) -> Option<&mut ResourceState> {
        self.known.get_mut(self.clients.get(&client)?)
    }

    fn listed(&self, resource: &str, device: &str) -> Option<&DeviceView> {
        self.known.get(resource)?.listed.get(device)
    }
}

impl ResourceState {
    fn stopped_at(&self) -> Option<Instant> {
        self.endpoint.as_ref()?.stopped_at
    }

    fn stop(&mut self, now: Instant) {
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.stopped_at = Some(now);
            if let Some(counted) = &mut self.counted {
                counted.unhealthy.append(&mut counted.healthy);
            }
        }
    }

    fn restarted(&mut self, now: Instant) {
        self.streams_open = 0;
        self.listed.clear();
        // Only what had been listed is in the checkpoint.
        self.endpoint = self.counted.is_some().then_some(Endpoint {
            client: None,
            options: None,
            stopped_at: Some(now),
        });
        self.counted = self.counted.is_some().then(Counted::default);
    }

    fn view(&self) -> ResourceView {
        let nothing = Counted::default();
        let counted = self.counted.as_ref().unwrap_or(&nothing);
        let device = |(id, health): (&String, Health)| {
            let numa_nodes = self.numa_nodes(id);
            (id.clone(), DeviceView { health, numa_nodes })
        };
        ResourceView {
            registered: self.endpoint.as_ref().is_some_and(|one| one.stopped_at.is_none()),
            streams_open: self.streams_open,
            devices: counted.devices().map(device).collect(),
            capacity: counted.devices().count(),
            allocatable: counted.healthy.len(),
            registrations: self.registrations,
            lists_received: self.lists_received,
            last_stream_end: self.last_stream_end.clone(),
        }
    }

    fn numa_nodes(&self, id: &str) -> Vec<i64> {
        self.listed.get(id).map_or_else(Vec::new, |device| device.numa_nodes.clone())
    }
}

impl Counted {
    fn of(listed: &BTreeMap<String, DeviceView>) -> Self {
        let mut counted = Self::default();
        for (id, device) in listed {
            match device.health {
                Health::Healthy => counted.healthy.insert(id.clone()),
                Health::Unhealthy => counted.unhealthy.insert(id.clone()),
            };
        }
        counted
    }

    fn devices(&self) -> impl Iterator<Item = (&String, Health)> {
        let healthy = self.healthy.iter().map(|id| (id, Health::Healthy));
        healthy.chain(self.unhealthy.iter().map(|id| (id, Health::Unhealthy)))
    }
}

fn listed_device(device: Device) -> (String, DeviceView) {
    // Any word but this one means unhealthy.
    let health = if device.health == "Healthy" { Health::Healthy } else { Health::Unhealthy };
    let nodes = device.topology.map_or_else(Vec::new, |topology| topology.nodes);
    let numa_nodes = nodes.into_iter().map(|node| node.id).collect();
    (device.id, DeviceView { health, numa_nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: &str = "iluvatar.com/gpu";
    const FIVE_MINUTES: Duration = Duration::from_secs(300);

    fn resources(takeover_bug: bool) -> ResourceTable {
        ResourceTable::new(takeover_bug, FIVE_MINUTES)
    }

    fn connect(resources: &mut ResourceTable) -> ClientId {
        let client = resources.connecting(GPU);
        assert!(resources.connected(client, DevicePluginOptions::default()));
        client
    }

    fn devices(listed: &[(&str, &str)]) -> Vec<Device> {
        let device = |(id, health): &(&str, &str)| Device {
            id: (*id).to_owned(),
            health: (*health).to_owned(),
            topology: None,
        };
        listed.iter().map(device).collect()
    }

    fn list(resources: &mut ResourceTable, client: ClientId) {
        resources.list_received(client, devices(&[("a", "Healthy"), ("b", "Unhealthy")]));
    }

    fn end(resources: &mut ResourceTable, client: ClientId, now: Instant) -> Option<ClientId> {
        resources.stream_ended(client, "EOF".to_owned(), now)
    }

    #[track_caller]
    fn check(resources: &ResourceTable, capacity: usize, allocatable: usize) {
        let view = &resources.view()[GPU];
        assert_eq!((view.capacity, view.allocatable), (capacity, allocatable), "{view:?}");
    }

    #[test]
    fn a_list_replaces_the_one_before() {
        let mut resources = resources(true);
        let client = connect(&mut resources);
        list(&mut resources, client);
        check(&resources, 2, 1);
        resources.list_received(client, devices(&[("c", "Healthy")]));
        check(&resources, 1, 1);
        assert!(resources.view()[GPU].devices.contains_key("c"));
    }

    #[test]
    fn only_the_word_healthy_is_healthy() {
        let mut resources = resources(true);
        let client = connect(&mut resources);
        resources.list_received(client, devices(&[("a", "healthy"), ("b", "")]));
        check(&resources, 2, 0);
    }

    #[test]
    fn before_the_first_list_the_resource_is_unregistered() {
        let mut resources = resources(true);
        let client = connect(&mut resources);
        assert_eq!(resources.healthy(GPU), None);
        resources.list_received(client, Vec::new());
        assert!(resources.healthy(GPU).is_some_and(BTreeSet::is_empty));
    }

    #[test]
    fn after_five_minutes_the_resource_is_gone() {
        let (mut resources, begin) = (resources(true), Instant::now());
        let client = connect(&mut resources);
        list(&mut resources, client);
        assert_eq!(resources.next_expiry(), None);

        assert_eq!(end(&mut resources, client, begin), Some(client));
        assert_eq!(resources.next_expiry(), Some(begin + FIVE_MINUTES));
        resources.expire(begin + FIVE_MINUTES - Duration::from_millis(1));
        check(&resources, 2, 0);
        resources.expire(begin + FIVE_MINUTES);
        check(&resources, 0, 0);
        assert_eq!(resources.healthy(GPU), None);
        assert_eq!(resources.next_expiry(), None);
    }

    #[test]
    fn a_plugin_that_is_back_within_the_grace_period_is_not_dropped() {
        let (mut resources, begin) = (resources(true), Instant::now());
        let client = connect(&mut resources);
        list(&mut resources, client);
        end(&mut resources, client, begin);

        let client = connect(&mut resources);
        check(&resources, 2, 0); // still the old devices: the new list is not there yet
        list(&mut resources, client);
        resources.expire(begin + FIVE_MINUTES);
        check(&resources, 2, 1);
    }

    #[test]
    fn with_the_bug_the_end_of_an_old_stream_disconnects_the_newer_one() {
        let (mut resources, now) = (resources(true), Instant::now());
        let old = connect(&mut resources);
        let new = connect(&mut resources);
        list(&mut resources, new);

        assert_eq!(end(&mut resources, old, now), Some(new));
        check(&resources, 2, 0);
        assert!(!resources.view()[GPU].registered);
        assert_eq!(end(&mut resources, new, now), None);
    }

    #[test]
    fn without_the_bug_an_old_stream_ends_alone() {
        let (mut resources, now) = (resources(false), Instant::now());
        let old = connect(&mut resources);
        let new = connect(&mut resources);
        list(&mut resources, new);

        assert_eq!(end(&mut resources, old, now), None);
        check(&resources, 2, 1);
        assert_eq!(end(&mut resources, new, now), Some(new));
        check(&resources, 2, 0);
    }

    #[test]
    fn with_the_bug_a_failed_registration_hides_the_end_of_the_stream_before_it() {
        let (mut resources, now) = (resources(true), Instant::now());
        let old = connect(&mut resources);
        list(&mut resources, old);
        let new = resources.connecting(GPU);
        resources.failed_to_connect(new);

        assert_eq!(end(&mut resources, old, now), None);
        check(&resources, 2, 1);
    }

    #[test]
    fn without_the_bug_a_failed_registration_changes_nothing() {
        let (mut resources, now) = (resources(false), Instant::now());
        let old = connect(&mut resources);
        list(&mut resources, old);
        let new = resources.connecting(GPU);
        resources.failed_to_connect(new);

        assert_eq!(end(&mut resources, old, now), Some(old));
        check(&resources, 2, 0);
    }

    #[test]
    fn the_list_of_an_earlier_process_does_not_count() {
        let (mut resources, now) = (resources(true), Instant::now());
        let client = connect(&mut resources);
        list(&mut resources, client);
        let late = resources.connecting(GPU);
        resources.restarted(now);

        list(&mut resources, client);
        check(&resources, 0, 0);
        assert!(!resources.connected(late, DevicePluginOptions::default()));
        assert_eq!(end(&mut resources, client, now), None);
        assert_eq!(resources.view()[GPU].streams_open, 0);
    }

    #[test]
    fn after_a_restart_a_listed_resource_is_known_but_empty() {
        let (mut resources, now) = (resources(true), Instant::now());
        let client = connect(&mut resources);
        resources.restarted(now);
        assert!(resources.endpoint(GPU).is_none(), "never listed, so not in the checkpoint");

        let again = connect(&mut resources);
        assert_ne!(client, again);
        list(&mut resources, again);
        resources.restarted(now);
        assert!(resources.healthy(GPU).is_some_and(BTreeSet::is_empty));
        assert_eq!(resources.next_expiry(), Some(now + FIVE_MINUTES));
    }

    #[test]
    fn a_lost_stream_does_not_change_the_health_that_pods_see() {
        let (mut resources, now) = (resources(true), Instant::now());
        let client = connect(&mut resources);
        list(&mut resources, client);
        end(&mut resources, client, now);
        assert_eq!(resources.listed_health(GPU, "a"), Health::Healthy);
        assert_eq!(resources.listed_health(GPU, "b"), Health::Unhealthy);
    }

    #[test]
    fn a_device_that_left_the_list_is_reported_healthy() {
        let mut resources = resources(true);
        let client = connect(&mut resources);
        list(&mut resources, client);
        resources.list_received(client, devices(&[("a", "Healthy")]));
        assert_eq!(resources.listed_health(GPU, "b"), Health::Healthy);
    }
}
