//! The slices of a node on the embedded API server: what is published, and that it is restored after
//! whatever the kubelet, the API server, an operator or the hardware does to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use ix_device_plugin::daemon::dra_telemetry::DraTelemetry;
use ix_device_plugin::daemon::node_events::NodeEvents;
use ix_device_plugin::daemon::slice_publisher::{SliceInputs, SlicePublisher};
use ix_device_plugin::decide::dra::claims::ClaimHolders;
use ix_device_plugin::decide::dra::pool::pool;
use ix_device_plugin::decide::dra::publication::PublishedSlices;
use ix_device_plugin::decide::dra::slices::contents;
use ix_device_plugin::decide::node::snapshot::NodeSnapshot;
use ix_device_plugin::demo::api_server::{
    ApiFailure, ApiFault, ApiServer, ApiVerb, FaultEffect, ObjectKind, ObjectStore, ServerVersion,
};
use ix_device_plugin::host::kube_api::{ApiAccess, KubeApi};
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::dra::slice::{DraFeature, NodeIdentity, SliceContent};
use ix_device_plugin::model::health::{Health, Reason, ReasonCode};
use ix_device_plugin::model::inventory::Inventory;
use ix_device_plugin::parse::config::parse_config;
use ix_device_plugin::wire::dra_objects::seen_slice;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::clock::soon;
use crate::support::fixtures::{inventory_of, node_text};

const NODE: &str = "worker-1";

/// A publisher of one node, everything that it follows, and the API server.
struct SliceRig {
    server: ApiServer,
    config: Config,
    healthy: Inventory,
    snapshots: watch::Sender<Option<Arc<NodeSnapshot>>>,
    claims: watch::Sender<Arc<ClaimHolders>>,
    is_connected: watch::Sender<bool>,
    published: watch::Receiver<Arc<PublishedSlices>>,
    telemetry: DraTelemetry,
    /// Requests that the present daemon did not send.
    requests_before: usize,
    tasks: JoinSet<()>,
}

impl SliceRig {
    /// Eight dual-chip boards, a kubelet that is connected.
    async fn start(version: ServerVersion, config: &str) -> Self {
        let server = ApiServer::start(version, NODE).await.unwrap();
        Self::start_at(server, config).await
    }

    async fn start_at(server: ApiServer, config: &str) -> Self {
        let config = parse_config(&format!("mode: dra\n{config}")).unwrap();
        let healthy = inventory_of(&node_text("bi-v150-x8"), &config);
        let snapshot = Arc::new(NodeSnapshot::new(healthy.clone(), &config));
        let telemetry = DraTelemetry::default();
        let mut rig = Self {
            server,
            config,
            healthy,
            snapshots: watch::Sender::new(Some(snapshot)),
            claims: watch::Sender::new(Arc::default()),
            is_connected: watch::Sender::new(true),
            published: telemetry.slices(),
            telemetry,
            requests_before: 0,
            tasks: JoinSet::new(),
        };
        rig.start_publisher().await;
        rig
    }

    /// Another daemon in place of the present one, which is killed.
    async fn start_publisher(&mut self) {
        self.tasks.shutdown().await;
        let api = KubeApi::open(&ApiAccess::Plain(self.server.url())).await.unwrap();
        let inputs = SliceInputs {
            snapshots: self.snapshots.subscribe(),
            claims: self.claims.subscribe(),
            is_connected: self.is_connected.subscribe(),
        };
        self.telemetry = DraTelemetry::default();
        self.published = self.telemetry.slices();
        self.requests_before = self.server.received().len();
        let (telemetry, support) = (self.telemetry.clone(), watch::Sender::default());
        let publisher = SlicePublisher::new(NODE.to_owned(), api, inputs, support, telemetry);
        self.tasks.spawn(publisher.run(CancellationToken::new()));
    }

    /// Changes the hardware from its healthy state.
    fn with_hardware(&self, change: impl FnOnce(&mut Inventory)) {
        let mut inventory = self.healthy.clone();
        change(&mut inventory);
        let snapshot = NodeSnapshot::new(inventory, &self.config);
        self.snapshots.send_replace(Some(Arc::new(snapshot)));
    }

    /// Whether the API server has one complete pool of what the node offers, as far as it was seen
    /// to support it.
    fn is_published(&self, store: &ObjectStore) -> bool {
        let slices: Vec<ResourceSlice> = store.all(ObjectKind::ResourceSlice);
        let support = &self.published.borrow().support;
        let snapshot = self.snapshots.borrow().clone().unwrap();
        let wanted = contents(&pool(&snapshot, &self.claims.borrow(), support), support);
        let node = NodeIdentity { name: NODE.to_owned(), uid: node_uid(store) };
        let seen: Vec<_> = slices.iter().map(|slice| seen_slice(slice, &node)).collect();
        let count = i64::try_from(seen.len()).unwrap();
        let has: Vec<_> = seen.iter().filter_map(|slice| slice.content.clone()).collect();
        let generations: BTreeSet<_> = seen.iter().map(|slice| slice.generation).collect();
        has == wanted
            && generations.len() == 1
            && seen.iter().all(|slice| slice.slice_count == count)
    }

    /// Waits until the API server has what is wanted, and the publisher knows it.
    async fn published(&self) -> Vec<ResourceSlice> {
        let mut published = self.published.clone();
        loop {
            let is_current = |view: &Arc<PublishedSlices>| view.is_current;
            drop(soon("the slices", published.wait_for(is_current)).await.unwrap());
            let store = self.server.store();
            if self.is_published(&store) {
                return store.all(ObjectKind::ResourceSlice);
            }
            soon("another state", published.changed()).await.unwrap();
        }
    }

    async fn until_no_slices(&self) {
        let is_empty = |store: &ObjectStore| all(store).is_empty();
        soon("no slices", self.server.wait_for(is_empty)).await;
    }
}

fn all(store: &ObjectStore) -> Vec<ResourceSlice> {
    store.all(ObjectKind::ResourceSlice)
}

fn node_uid(store: &ObjectStore) -> String {
    let nodes: Vec<k8s_openapi::api::core::v1::Node> = store.all(ObjectKind::Node);
    nodes[0].metadata.uid.clone().unwrap()
}

fn devices(slices: &[ResourceSlice]) -> Vec<Device> {
    slices.iter().flat_map(|slice| slice.spec.devices.clone().unwrap_or_default()).collect()
}

fn tainted(slices: &[ResourceSlice]) -> Vec<(String, String)> {
    let devices = devices(slices).into_iter().filter_map(|device| {
        let taint = device.taints?.into_iter().next()?;
        Some((device.name, format!("{}={}", taint.key, taint.value?)))
    });
    devices.collect()
}

/// A fault of one chip, as the health tracker reports it of the chip and its board.
fn break_chip(inventory: &mut Inventory, board: usize) {
    let reason = Reason { code: ReasonCode::AerFatal, detail: "fatal error".to_owned() };
    let board = &mut inventory.boards[board];
    (board.health, board.reasons) = (Health::Unhealthy, vec![reason.clone()]);
    board.chips[0].reasons = vec![reason];
}

#[tokio::test]
async fn a_node_publishes_its_boards_owned_by_its_node_object() {
    let rig = SliceRig::start(ServerVersion::V1_36, "").await;
    let slices = rig.published().await;
    let [slice] = &slices[..] else { panic!("{slices:#?}") };
    let owner = &slice.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((&*owner.kind, &*owner.name, owner.controller), ("Node", NODE, Some(true)));
    assert_eq!(owner.uid, node_uid(&rig.server.store()));
    assert_eq!(slice.spec.devices.as_ref().unwrap().len(), 8);
    assert_eq!((slice.spec.pool.generation, slice.spec.pool.resource_slice_count), (1, 1));
}

#[tokio::test]
async fn no_object_that_is_sent_has_a_field_that_kubernetes_does_not_know() {
    let rig = SliceRig::start(ServerVersion::V1_36, "dra: {devices: both}").await;
    rig.published().await;
    rig.with_hardware(|inventory| break_chip(inventory, 3));
    rig.published().await;
    let mut unknown = Vec::new();
    let bodies = rig.server.received().into_iter().map(|it| it.body);
    let sent: Vec<_> = bodies.filter(|body| body["kind"] == "ResourceSlice").collect();
    assert!(sent.len() >= 3, "{sent:#?}");
    for body in sent {
        let note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
        let _: ResourceSlice = serde_ignored::deserialize(body, note).unwrap();
    }
    assert_eq!(unknown, Vec::<String>::new());
}

#[tokio::test]
async fn slices_that_a_starting_kubelet_deletes_are_back_once_it_is_connected() {
    let rig = SliceRig::start(ServerVersion::V1_36, "").await;
    rig.published().await;
    rig.is_connected.send_replace(false);
    rig.server.delete_slices_of(NODE).unwrap();
    rig.until_no_slices().await;
    // A change of health leads to another round, which creates nothing.
    rig.with_hardware(|inventory| break_chip(inventory, 0));
    let mut published = rig.published.clone();
    let has_none = |view: &Arc<PublishedSlices>| view.slices.as_ref().is_some_and(Vec::is_empty);
    drop(soon("the deletion", published.wait_for(has_none)).await.unwrap());
    assert_eq!(all(&rig.server.store()), []);
    rig.is_connected.send_replace(true);
    assert_eq!(tainted(&rig.published().await).len(), 1);
    // And deleted while it is connected: at once, without a wait of half a minute.
    rig.server.delete_slices_of(NODE).unwrap();
    let is_back = |store: &ObjectStore| rig.is_published(store);
    soon("the slices again", rig.server.wait_for(is_back)).await;
}

#[tokio::test]
async fn a_fault_is_a_taint_and_its_end_takes_the_taint_away() {
    let rig = SliceRig::start(ServerVersion::V1_36, "").await;
    rig.published().await;
    rig.with_hardware(|inventory| break_chip(inventory, 2));
    let slices = rig.published().await;
    let taint = "gpu.iluvatar.com/unhealthy=AerFatal".to_owned();
    let first = tainted(&slices);
    assert_eq!(first.iter().map(|(_, taint)| taint).collect::<Vec<_>>(), [&taint]);
    let time = |slices: &[ResourceSlice]| {
        let taints = devices(slices).into_iter().filter_map(|device| device.taints);
        taints.flatten().find_map(|taint| taint.time_added)
    };
    let since = time(&slices);
    rig.with_hardware(|inventory| {
        break_chip(inventory, 2);
        break_chip(inventory, 5);
    });
    let slices = rig.published().await;
    assert_eq!(tainted(&slices).len(), 2);
    assert!(since.is_some() && time(&slices) == since, "the time of a taint that stays is kept");
    rig.with_hardware(|_| {});
    assert_eq!(tainted(&rig.published().await), []);
}

#[tokio::test]
async fn without_taints_unhealthy_devices_leave_the_slice_and_the_feature_is_named() {
    let rig = SliceRig::start(ServerVersion::V1_35, "").await;
    rig.published().await;
    assert_eq!(rig.published.borrow().support.dropped, BTreeSet::new());
    rig.with_hardware(|inventory| break_chip(inventory, 2));
    let mut published = rig.published.clone();
    let is_known = |view: &Arc<PublishedSlices>| !view.support.dropped.is_empty();
    drop(soon("the feature", published.wait_for(is_known)).await.unwrap());
    assert_eq!(devices(&rig.published().await).len(), 7);
    assert_eq!(rig.published.borrow().support.dropped, BTreeSet::from([DraFeature::Taints]));
    rig.with_hardware(|_| {});
    assert_eq!(devices(&rig.published().await).len(), 8);
}

/// Boards and chips that a scheduler could allocate without counters between them.
fn is_ambiguous(store: &ObjectStore) -> bool {
    let devices = devices(&all(store));
    let free = |kind: &str| {
        devices
            .iter()
            .any(|device| device.name.starts_with(kind) && device.consumes_counters.is_none())
    };
    free("board-") && free("chip-")
}

#[tokio::test]
async fn boards_and_chips_are_both_published_only_with_counters_between_them() {
    for version in ServerVersion::ALL {
        for (fallback, prefix) in [("board", "board-"), ("chip", "chip-")] {
            let config = format!("dra: {{devices: both, fallback: {fallback}}}");
            let rig = SliceRig::start(version, &config).await;
            let slices = tokio::select! {
                _ = rig.server.wait_for(is_ambiguous) => panic!("{version:?}: both are free"),
                slices = rig.published() => slices,
            };
            assert!(!is_ambiguous(&rig.server.store()), "{version:?}");
            let support = rig.published.borrow().support.clone();
            if version >= ServerVersion::V1_36 {
                assert_eq!((slices.len(), devices(&slices).len()), (2, 24), "{version:?}");
                assert!(slices[0].spec.shared_counters.is_some());
                assert_eq!(support.dropped, BTreeSet::new());
            } else {
                assert_eq!(support.dropped, BTreeSet::from([DraFeature::Partitionable]));
                assert!(devices(&slices).iter().all(|device| device.name.starts_with(prefix)));
            }
        }
    }
}

#[tokio::test]
async fn shared_devices_become_exclusive_where_the_server_does_not_support_them() {
    let cases = [
        (ServerVersion::V1_35, 4, false),
        (ServerVersion::V1_36, 4, true),
        // The API server writes 1k.
        (ServerVersion::V1_36, 1000, true),
    ];
    for (version, slots, is_shared) in cases {
        let rig = SliceRig::start(version, &format!("dra: {{slots: {slots}}}")).await;
        let devices = devices(&rig.published().await);
        let shared = devices.iter().all(|it| it.allow_multiple_allocations == Some(true));
        assert_eq!(shared, is_shared, "{version:?}");
    }
}

#[tokio::test]
async fn what_others_change_or_add_is_put_right() {
    let rig = SliceRig::start(ServerVersion::V1_36, "").await;
    let slice = &rig.published().await[0];
    let mut changed = serde_json::to_value(slice).unwrap();
    changed["spec"]["devices"].as_array_mut().unwrap().pop();
    rig.server.update(ObjectKind::ResourceSlice, "", changed).unwrap();
    assert_eq!(devices(&rig.published().await).len(), 8);
    let mut another = serde_json::to_value(slice).unwrap();
    another["metadata"] = json!({ "name": "another" });
    rig.server.create(ObjectKind::ResourceSlice, "", another).unwrap();
    let is_gone = |store: &ObjectStore| all(store).len() == 1 && rig.is_published(store);
    soon("the other slice to go", rig.server.wait_for(is_gone)).await;
}

#[tokio::test]
async fn slices_follow_a_node_that_was_deleted_and_created_again() {
    let rig = SliceRig::start(ServerVersion::V1_36, "").await;
    rig.published().await;
    rig.server.delete(ObjectKind::Node, "", NODE).unwrap();
    let node = json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": NODE } });
    rig.server.create(ObjectKind::Node, "", node).unwrap();
    // The garbage collector deletes what the old node owned.
    rig.server.delete_slices_of(NODE).unwrap();
    let is_owned = |store: &ObjectStore| {
        let slices = all(store);
        let owner = slices.first().and_then(|slice| slice.metadata.owner_references.clone());
        owner.is_some_and(|owner| owner[0].uid == node_uid(store))
    };
    soon("slices of the new node", rig.server.wait_for(is_owned)).await;
}

#[tokio::test]
async fn a_daemon_that_starts_before_the_api_server_publishes_when_it_comes() {
    let mut server = ApiServer::start(ServerVersion::V1_36, NODE).await.unwrap();
    server.stop().await;
    let mut rig = SliceRig::start_at(server, "").await;
    let mut published = rig.published.clone();
    let has_error = |view: &Arc<PublishedSlices>| view.last_error.is_some();
    drop(soon("the error", published.wait_for(has_error)).await.unwrap());
    rig.server.restart().await.unwrap();
    rig.published().await;
    assert_eq!(rig.published.borrow().last_error, None);
}

#[tokio::test]
async fn while_the_api_server_is_away_the_last_state_is_kept_and_then_caught_up() {
    let mut rig = SliceRig::start(ServerVersion::V1_36, "").await;
    rig.published().await;
    rig.server.stop().await;
    rig.with_hardware(|inventory| break_chip(inventory, 1));
    let mut published = rig.published.clone();
    let has_error = |view: &Arc<PublishedSlices>| view.last_error.is_some();
    drop(soon("the error", published.wait_for(has_error)).await.unwrap());
    assert_eq!(rig.published.borrow().slices.as_ref().unwrap().len(), 1);
    rig.server.restart().await.unwrap();
    assert_eq!(tainted(&rig.published().await).len(), 1);
}

#[tokio::test]
async fn an_answer_that_was_lost_leads_to_no_second_slice() {
    let rig = SliceRig::start(ServerVersion::V1_36, "").await;
    rig.published().await;
    for effect in [FaultEffect::AnswerLost, FaultEffect::Cut] {
        rig.server.fail(ApiFault::of_slices(ApiVerb::Create, 1, effect));
        rig.server.delete_slices_of(NODE).unwrap();
        let is_back = |store: &ObjectStore| rig.is_published(store);
        soon("the slices again", rig.server.wait_for(is_back)).await;
        assert_eq!(rig.published().await.len(), 1);
    }
}

#[tokio::test]
async fn writes_wait_as_long_as_a_busy_server_says() {
    let rig = SliceRig::start(ServerVersion::V1_36, "").await;
    rig.published().await;
    let busy = ApiFailure { retry_after: Some(3600), ..ApiFailure::of_code(429, "too many") };
    rig.server.fail(ApiFault::of_slices(ApiVerb::Update, 1, FaultEffect::Failure(busy)));
    rig.with_hardware(|inventory| break_chip(inventory, 1));
    let mut published = rig.published.clone();
    let is_refused = |view: &Arc<PublishedSlices>| {
        view.last_error.as_ref().is_some_and(|error| error.contains("429"))
    };
    drop(soon("the refusal", published.wait_for(is_refused)).await.unwrap());
    crate::support::clock::skip_ahead(std::time::Duration::from_secs(3600)).await;
    assert_eq!(tainted(&rig.published().await).len(), 1);
}

// -- Events

async fn events(rig: &SliceRig, count: usize) -> Vec<Event> {
    let has = |store: &ObjectStore| store.all::<Event>(ObjectKind::Event).len() >= count;
    soon("the events", rig.server.wait_for(has)).await.all(ObjectKind::Event)
}

#[tokio::test]
async fn each_change_of_health_is_one_event_of_the_node() {
    let mut rig = SliceRig::start(ServerVersion::V1_36, "").await;
    let api = KubeApi::open(&ApiAccess::Plain(rig.server.url())).await.unwrap();
    let (snapshots, claims) = (rig.snapshots.subscribe(), rig.claims.subscribe());
    let telemetry = rig.telemetry.clone();
    let node_events = NodeEvents::new(NODE.to_owned(), api, snapshots, claims, telemetry);
    rig.tasks.spawn(node_events.run(CancellationToken::new()));
    tokio::task::yield_now().await;
    let failure = FaultEffect::Failure(ApiFailure::of_code(503, "away"));
    let fault = ApiFault { verb: None, kind: Some(ObjectKind::Event), times: 1, effect: failure };
    rig.server.fail(fault);
    rig.with_hardware(|inventory| break_chip(inventory, 4));
    let first = events(&rig, 1).await;
    let [event] = &first[..] else { panic!("{first:#?}") };
    assert_eq!(event.reason.as_deref(), Some("GpuUnhealthy"));
    let note = event.note.as_deref().unwrap();
    assert!(note.contains("AerFatal: fatal error (remedy: "), "{note}");
    assert_eq!(event.regarding.as_ref().unwrap().name.as_deref(), Some(NODE));
    rig.with_hardware(|_| {});
    let both = events(&rig, 2).await;
    let reasons: BTreeSet<_> = both.iter().filter_map(|event| event.reason.clone()).collect();
    assert_eq!(reasons, BTreeSet::from(["GpuHealthy".to_owned(), "GpuUnhealthy".to_owned()]));
    assert_eq!(both.len(), 2);
}

// -- Stories

#[derive(Clone, Debug)]
enum SliceFault {
    Hardware(Vec<usize>),
    Unplug(usize),
    Wipe,
    Kubelet(bool),
    Away,
    Fail(usize, u8),
    CutWatches,
    Compact,
    Tamper,
    RestartDaemon,
}

fn faults() -> impl Strategy<Value = Vec<SliceFault>> {
    let one = prop_oneof![
        4 => proptest::collection::vec(0..8_usize, 0..4).prop_map(SliceFault::Hardware),
        1 => (0..8_usize).prop_map(SliceFault::Unplug),
        2 => Just(SliceFault::Wipe),
        1 => any::<bool>().prop_map(SliceFault::Kubelet),
        1 => Just(SliceFault::Away),
        3 => (1..4_usize, 0..4_u8).prop_map(|(times, kind)| SliceFault::Fail(times, kind)),
        1 => Just(SliceFault::CutWatches),
        1 => Just(SliceFault::Compact),
        1 => Just(SliceFault::Tamper),
        1 => Just(SliceFault::RestartDaemon),
    ];
    proptest::collection::vec((one, any::<bool>()), 1..12)
        .prop_map(|list| list.into_iter().map(|(fault, _)| fault).collect())
}

async fn strike(rig: &mut SliceRig, fault: SliceFault) {
    match fault {
        SliceFault::Hardware(broken) => rig.with_hardware(|inventory| {
            for board in broken {
                break_chip(inventory, board);
            }
        }),
        SliceFault::Unplug(board) => rig.with_hardware(|inventory| {
            inventory.boards.remove(board);
        }),
        SliceFault::Wipe => rig.server.delete_slices_of(NODE).unwrap(),
        SliceFault::Kubelet(is_connected) => drop(rig.is_connected.send_replace(is_connected)),
        SliceFault::Away => {
            rig.server.stop().await;
            rig.server.restart().await.unwrap();
        }
        SliceFault::Fail(times, kind) => {
            let effect = match kind {
                0 => FaultEffect::Failure(ApiFailure::of_code(503, "away")),
                1 => FaultEffect::Failure(ApiFailure::of_code(409, "changed")),
                2 => FaultEffect::Cut,
                _ => FaultEffect::AnswerLost,
            };
            let kind = Some(ObjectKind::ResourceSlice);
            rig.server.fail(ApiFault { verb: None, kind, times, effect });
        }
        SliceFault::CutWatches => rig.server.cut_watches(),
        SliceFault::Compact => rig.server.compact(),
        SliceFault::Tamper => {
            let Some(slice) = all(&rig.server.store()).into_iter().next() else { return };
            let mut slice = serde_json::to_value(slice).unwrap();
            slice["spec"]["devices"] = Value::Null;
            let _ = rig.server.update(ObjectKind::ResourceSlice, "", slice);
        }
        SliceFault::RestartDaemon => rig.start_publisher().await,
    }
    // The publisher may do a part of its work.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

/// The generations of what the present daemon sent, in order.
fn generations(rig: &SliceRig) -> Vec<i64> {
    let received = rig.server.received().into_iter().skip(rig.requests_before);
    let bodies = received.map(|it| it.body);
    let generations = bodies.filter_map(|body| body.pointer("/spec/pool/generation")?.as_i64());
    generations.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn after_any_story_of_faults_the_pool_equals_the_snapshot(
        faults in faults(),
        version in prop::sample::select(ServerVersion::ALL.to_vec()),
        config in prop::sample::select(vec!["", "dra: {devices: chip}", "dra: {devices: both}"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut rig = SliceRig::start(version, config).await;
            for fault in faults {
                strike(&mut rig, fault).await;
            }
            rig.is_connected.send_replace(true);
            rig.published().await;
            let generations = generations(&rig);
            prop_assert!(generations.is_sorted(), "{generations:?}");
            let contents: Vec<_> = rig.published.borrow().slices.clone().unwrap();
            let has_counters = |content: &Option<SliceContent>| {
                matches!(content, Some(SliceContent::Counters(_)))
            };
            prop_assert!(
                version >= ServerVersion::V1_36
                    || contents.iter().all(|slice| !has_counters(&slice.content))
            );
            Ok(())
        })?;
    }
}
