//! Slices on the API server: what is written, and in which order.

use super::*;
use crate::decide::dra::reconcile::{KubeletLink, reconcile};
use crate::decide::dra::slices::{contents, slice_name};
use crate::decide::dra::support::{learn, refused};
use crate::model::dra::device::SharedCounters;
use crate::model::dra::slice::{DraSlice, PublishedDevice, SeenSlice, SliceContent, SliceWrite};

/// The slices that the API server has.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    pub(super) slices: Vec<SeenSlice>,
    /// The highest generation that was sent.
    pub(super) last_generation: i64,
    version: u64,
}

impl Server {
    pub(super) fn next(&self, wanted: &[SliceContent], kubelet: KubeletLink) -> Option<SliceWrite> {
        reconcile(&node(), wanted, &self.slices, self.last_generation, kubelet)
    }

    pub(super) fn put(&mut self, slice: DraSlice) {
        self.version += 1;
        self.slices.retain(|seen| seen.name != slice.name);
        self.slices.push(SeenSlice {
            name: slice.name,
            resource_version: self.version.to_string(),
            generation: slice.generation,
            slice_count: slice.slice_count,
            content: Some(slice.content),
        });
    }

    /// Carries out one write, as `verb index @generation/count`.
    pub(super) fn apply(&mut self, write: SliceWrite) -> String {
        let known = |name: &str| self.slices.iter().find(|seen| seen.name == name);
        let (verb, slice) = match write {
            SliceWrite::Create(slice) => {
                assert!(known(&slice.name).is_none(), "{slice:?} exists");
                ("create", slice)
            }
            SliceWrite::Update { slice, resource_version } => {
                assert_eq!(known(&slice.name).unwrap().resource_version, resource_version);
                ("update", slice)
            }
            SliceWrite::Delete { name, resource_version } => {
                assert_eq!(known(&name).unwrap().resource_version, resource_version);
                self.slices.retain(|seen| seen.name != name);
                return format!("delete {}", &name[..5]);
            }
        };
        let DraSlice { generation, slice_count, .. } = slice;
        let shown = format!("{verb} {} @{generation}/{slice_count}", &slice.name[..5]);
        self.last_generation = self.last_generation.max(generation);
        self.put(slice);
        shown
    }

    /// All writes until nothing is left to do.
    pub(super) fn settle(&mut self, wanted: &[SliceContent]) -> Vec<String> {
        let mut writes = Vec::new();
        while let Some(write) = self.next(wanted, KubeletLink::Connected) {
            writes.push(self.apply(write));
            assert!(writes.len() < 50, "it never settles: {writes:?}");
        }
        writes
    }
}

pub(super) fn device(name: &str) -> PublishedDevice {
    PublishedDevice {
        name: name.to_owned(),
        attributes: BTreeMap::new(),
        slots: None,
        counter: None,
        taints: Vec::new(),
    }
}

/// A slice for each name.
pub(super) fn slices_of(names: &[&str]) -> Vec<SliceContent> {
    names.iter().map(|name| SliceContent::Devices(vec![device(name)])).collect()
}

#[test]
fn a_single_slice_is_created_once_and_updated_under_its_generation() {
    let mut server = Server::default();
    assert_eq!(server.settle(&slices_of(&["a"])), ["create 00000 @1/1"]);
    assert_eq!(server.settle(&slices_of(&["a"])), [""; 0]);
    assert_eq!(server.settle(&slices_of(&["b"])), ["update 00000 @1/1"]);
    let name = "00000-gpu.iluvatar.com-5f0c9a52-4b7e-4a07-9f0b-0d6f2d3c1a11";
    assert_eq!(server.slices[0].name, name);
}

#[test]
fn a_node_without_devices_publishes_an_empty_slice() {
    let snapshot = snapshot(ScanBuilder::default(), &config(DraOffer::Board));
    let contents = contents(&pool_of(&snapshot), &ServerSupport::default());
    assert_eq!(contents, [SliceContent::Devices(Vec::new())]);
    assert_eq!(Server::default().settle(&contents), ["create 00000 @1/1"]);
}

#[test]
fn several_slices_change_together_under_a_new_generation() {
    let mut server = Server::default();
    server.settle(&slices_of(&["a"]));
    let grown = server.settle(&slices_of(&["a", "b"]));
    assert_eq!(grown, ["update 00000 @2/2", "create 00001 @2/2"]);
    // One of several needs no new generation.
    assert_eq!(server.settle(&slices_of(&["a", "c"])), ["update 00001 @2/2"]);
    let both = server.settle(&slices_of(&["d", "e"]));
    assert_eq!(both, ["update 00000 @3/2", "update 00001 @3/2"]);
    let shrunk = server.settle(&slices_of(&["d"]));
    assert_eq!(shrunk, ["update 00000 @4/1", "delete 00001"]);
}

#[test]
fn a_deleted_slice_comes_back_at_once_while_a_kubelet_is_connected() {
    let mut server = Server::default();
    let wanted = slices_of(&["a", "b"]);
    server.settle(&wanted);
    server.slices.remove(1);
    assert_eq!(server.next(&wanted, KubeletLink::Away), None);
    assert_eq!(server.settle(&wanted), ["create 00001 @1/2"]);
    // A starting kubelet deletes all of them. The generation does not go back.
    server.settle(&slices_of(&["c", "d"]));
    server.slices.clear();
    assert_eq!(server.next(&wanted, KubeletLink::Away), None);
    assert_eq!(server.settle(&wanted), ["create 00000 @2/2", "create 00001 @2/2"]);
}

#[test]
fn what_is_there_is_kept_up_to_date_without_a_kubelet() {
    let mut server = Server::default();
    server.settle(&slices_of(&["a"]));
    assert!(server.next(&slices_of(&["b"]), KubeletLink::Away).is_some());
}

#[test]
fn slices_that_another_program_left_are_replaced() {
    let mut server = Server::default();
    server.put(DraSlice {
        name: "gpu-node-1-gpu.iluvatar.com-x7k2p".to_owned(),
        generation: 7,
        slice_count: 1,
        content: SliceContent::Devices(Vec::new()),
    });
    assert_eq!(server.settle(&slices_of(&["a"])), ["create 00000 @8/1", "delete gpu-n"]);
    // A slice of our name that is not ours cannot be updated: its pool is immutable.
    server.slices[0].content = None;
    assert_eq!(server.settle(&slices_of(&["a"])), ["delete 00000", "create 00000 @8/1"]);
}

#[test]
fn counters_are_published_before_the_devices_that_take_from_them() {
    let snapshot = snapshot(machine(), &config(DraOffer::Both));
    let contents = contents(&pool_of(&snapshot), &ServerSupport::default());
    assert!(matches!(&contents[..], [SliceContent::Counters(_), SliceContent::Devices(_)]));
    let mut server = Server::default();
    assert_eq!(server.settle(&contents), ["create 00000 @1/2", "create 00001 @1/2"]);
}

/// What a server stores that drops all that is behind a gate.
fn stored(content: &SliceContent) -> SliceContent {
    match content {
        SliceContent::Counters(_) => SliceContent::Devices(Vec::new()),
        SliceContent::Devices(devices) => {
            SliceContent::Devices(devices.iter().map(plain).collect())
        }
    }
}

fn plain(device: &PublishedDevice) -> PublishedDevice {
    let attributes = device.attributes.clone();
    PublishedDevice { attributes, ..self::device(&device.name) }
}

#[test]
fn a_dropped_field_is_noticed_once_and_leads_to_the_fallback() {
    let snapshot = snapshot(machine(), &config(DraOffer::Both));
    let mut support = ServerSupport::default();
    let mut server = Server::default();
    let mut noticed = Vec::new();
    loop {
        let pool = pool(&snapshot, &ClaimHolders::default(), &support);
        let Some(write) = server.next(&contents(&pool, &support), KubeletLink::Connected) else {
            break;
        };
        let sent = match &write {
            SliceWrite::Create(slice) | SliceWrite::Update { slice, .. } => slice.clone(),
            SliceWrite::Delete { .. } => panic!("nothing is to be deleted"),
        };
        server.apply(write);
        let kept = stored(&sent.content);
        noticed.extend(learn(&mut support, &sent, &kept));
        server.put(DraSlice { content: kept, ..sent });
    }
    assert_eq!(noticed, [DraFeature::Partitionable]);
    // Never are both forms free: devices came only after the counters were known to be dropped.
    let [seen] = &server.slices[..] else { panic!("{:?}", server.slices) };
    let Some(SliceContent::Devices(devices)) = &seen.content else { panic!("{seen:?}") };
    let names: Vec<_> = devices.iter().map(|device| &device.name[..5]).collect();
    assert_eq!(names, ["board", "board", "chip-"]);
}

#[test]
fn a_server_that_refuses_counters_is_one_without_them() {
    let mut support = ServerSupport::default();
    let set = SharedCounters { name: "boards-0".to_owned(), counters: BTreeMap::new() };
    let slice =
        |content| DraSlice { name: slice_name(&node(), 0), generation: 1, slice_count: 1, content };
    assert_eq!(refused(&mut support, &slice(slices_of(&["a"]).remove(0))), None);
    let counters = slice(SliceContent::Counters(vec![set]));
    assert_eq!(refused(&mut support, &counters), Some(DraFeature::Partitionable));
    assert_eq!(refused(&mut support, &counters), None);
}
