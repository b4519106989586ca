//! The API server as a few lines: what it stores, how it fails, and a watch that lags behind.

use std::collections::{BTreeSet, VecDeque};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::model::dra::device::{DraTaint, SharedCounters, TaintEffect};
use crate::model::dra::slice::{DraSlice, PublishedDevice};

type Known = KnownSlice<()>;

fn node() -> NodeIdentity {
    NodeIdentity { name: "worker-1".to_owned(), uid: "u".to_owned() }
}

fn device(name: usize, is_tainted: bool) -> PublishedDevice {
    let taint = DraTaint {
        key: "gpu.iluvatar.com/unhealthy".to_owned(),
        value: "AerFatal".to_owned(),
        effect: TaintEffect::NoSchedule,
    };
    PublishedDevice {
        name: format!("chip-{name}"),
        attributes: BTreeMap::new(),
        slots: None,
        counter: None,
        taints: if is_tainted { vec![taint] } else { Vec::new() },
    }
}

/// Counters in a slice of their own, as long as the server keeps them, and `slices` of devices.
fn contents(slices: usize, is_tainted: bool, support: &ServerSupport) -> Vec<SliceContent> {
    let has = |feature| support.has(feature);
    let counters = SharedCounters {
        name: "boards-0".to_owned(),
        counters: BTreeMap::from([("b".to_owned(), 2)]),
    };
    let mut contents = Vec::new();
    if slices > 1 && has(DraFeature::Partitionable) {
        contents.push(SliceContent::Counters(vec![counters]));
    }
    let is_tainted = is_tainted && has(DraFeature::Taints);
    let devices = |index| SliceContent::Devices(vec![device(index, is_tainted)]);
    contents.extend((0..slices).map(devices));
    contents
}

/// What goes wrong with the next write.
#[derive(Clone, Copy, Debug)]
enum WriteFault {
    None,
    Failed,
    AnswerLost,
}

#[derive(Default)]
struct Server {
    slices: BTreeMap<String, SeenSlice>,
    version: u64,
    /// Reports that the watch has not delivered.
    queue: VecDeque<SliceReport<()>>,
    drops: BTreeSet<DraFeature>,
    generations: Vec<i64>,
}

impl Server {
    fn known(seen: &SeenSlice) -> Known {
        Known { seen: seen.clone(), object: () }
    }

    fn stored(&mut self, slice: &DraSlice) -> Known {
        self.version += 1;
        let seen = SeenSlice {
            name: slice.name.clone(),
            resource_version: self.version.to_string(),
            generation: slice.generation,
            slice_count: slice.slice_count,
            content: Some(self.kept(&slice.content)),
        };
        self.generations.push(slice.generation);
        self.slices.insert(slice.name.clone(), seen.clone());
        self.queue.push_back(SliceReport::Applied(Self::known(&seen)));
        Self::known(&seen)
    }

    fn kept(&self, content: &SliceContent) -> SliceContent {
        match content {
            SliceContent::Counters(_) if self.drops.contains(&DraFeature::Partitionable) => {
                SliceContent::Devices(Vec::new())
            }
            SliceContent::Devices(devices) if self.drops.contains(&DraFeature::Taints) => {
                let devices = devices.iter().cloned();
                let devices =
                    devices.map(|device| PublishedDevice { taints: Vec::new(), ..device });
                SliceContent::Devices(devices.collect())
            }
            kept => kept.clone(),
        }
    }

    fn delete(&mut self, name: &str) {
        let Some(mut seen) = self.slices.remove(name) else { return };
        self.version += 1;
        seen.resource_version = self.version.to_string();
        self.queue.push_back(SliceReport::Deleted(seen));
    }

    fn write(&mut self, write: &SliceWrite) -> WriteOutcome<()> {
        let version_of = |server: &Self, name: &str| {
            server.slices.get(name).map(|seen| seen.resource_version.clone())
        };
        match write {
            SliceWrite::Create(slice) if self.slices.contains_key(&slice.name) => {
                WriteOutcome::Conflict
            }
            SliceWrite::Create(slice) => WriteOutcome::Stored(self.stored(slice)),
            SliceWrite::Update { slice, resource_version } => match version_of(self, &slice.name) {
                None => WriteOutcome::Deleted,
                Some(version) if version != *resource_version => WriteOutcome::Conflict,
                Some(_) => WriteOutcome::Stored(self.stored(slice)),
            },
            SliceWrite::Delete { name, resource_version } => match version_of(self, name) {
                Some(version) if version != *resource_version => WriteOutcome::Conflict,
                _ => {
                    self.delete(name);
                    WriteOutcome::Deleted
                }
            },
        }
    }

    fn list(&mut self) -> Vec<SliceReport<()>> {
        self.queue.clear();
        let listed = self.slices.values().map(|seen| SliceReport::Listed(Self::known(seen)));
        let whole = std::iter::once(SliceReport::ListBegan).chain(listed);
        whole.chain([SliceReport::ListEnded]).collect()
    }
}

/// A server, our state, and a clock.
struct World {
    server: Server,
    publication: Publication<()>,
    now: Duration,
}

impl World {
    fn new(drops: BTreeSet<DraFeature>) -> Self {
        let server = Server { drops, ..Server::default() };
        let mut world =
            Self { server, publication: Publication::new(node(), 7), now: Duration::ZERO };
        world.list();
        world
    }

    fn list(&mut self) {
        for report in self.server.list() {
            self.publication.reported(report);
        }
    }

    fn deliver(&mut self) {
        if let Some(report) = self.server.queue.pop_front() {
            self.publication.reported(report);
        }
    }

    /// One step; true where nothing is left to do.
    fn step(
        &mut self,
        slices: usize,
        is_tainted: bool,
        link: KubeletLink,
        fault: WriteFault,
    ) -> bool {
        let wanted = contents(slices, is_tainted, self.publication.support());
        match self.publication.next(&wanted, link, self.now) {
            PublishStep::Current => true,
            PublishStep::Wait(until) => {
                self.now = self.now.max(until.unwrap_or_default());
                false
            }
            PublishStep::Write(write) => {
                let failed = || WriteOutcome::Failed("away".to_owned(), None);
                let outcome = match fault {
                    WriteFault::Failed => failed(),
                    WriteFault::AnswerLost => {
                        self.server.write(&write);
                        failed()
                    }
                    WriteFault::None => self.server.write(&write),
                };
                self.publication.wrote(&write, outcome, self.now);
                false
            }
        }
    }

    /// Until both agree; the steps are bounded, so a loop without an end fails.
    fn settle(&mut self, slices: usize, is_tainted: bool) {
        for _ in 0..200 {
            self.deliver();
            let is_done = self.step(slices, is_tainted, KubeletLink::Connected, WriteFault::None);
            if is_done && self.server.queue.is_empty() {
                return;
            }
        }
        panic!("no end: {:?}", self.publication);
    }
}

#[derive(Clone, Debug)]
enum Move {
    Step(WriteFault),
    Deliver,
    Relist,
    Want(usize, bool),
    WipeAll,
    Restart,
    Connect(bool),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let fault = prop_oneof![
        4 => Just(WriteFault::None),
        1 => Just(WriteFault::Failed),
        1 => Just(WriteFault::AnswerLost),
    ];
    let one = prop_oneof![
        8 => fault.prop_map(Move::Step),
        6 => Just(Move::Deliver),
        1 => Just(Move::Relist),
        2 => (1..4_usize, any::<bool>()).prop_map(|(slices, taint)| Move::Want(slices, taint)),
        1 => Just(Move::WipeAll),
        1 => Just(Move::Restart),
        1 => any::<bool>().prop_map(Move::Connect),
    ];
    vec(one, 0..60)
}

fn drops() -> impl Strategy<Value = BTreeSet<DraFeature>> {
    let all = [DraFeature::Taints, DraFeature::Partitionable];
    proptest::sample::subsequence(all.to_vec(), 0..=2).prop_map(|list| list.into_iter().collect())
}

proptest! {
    /// After any story of faults the server has what is wanted, as far as it keeps it, as one complete
    /// pool.
    #[test]
    fn the_slices_become_those_that_are_wanted(moves in moves(), drops in drops()) {
        let mut world = World::new(drops.clone());
        let (mut slices, mut is_tainted, mut link) = (1, false, KubeletLink::Connected);
        for step in moves {
            match step {
                Move::Step(fault) => { world.step(slices, is_tainted, link, fault); }
                Move::Deliver => world.deliver(),
                Move::Relist => world.list(),
                Move::Want(count, taint) => (slices, is_tainted) = (count, taint),
                Move::WipeAll => {
                    let names: Vec<_> = world.server.slices.keys().cloned().collect();
                    for name in &names {
                        world.server.delete(name);
                    }
                }
                Move::Restart => {
                    world.publication = Publication::new(node(), 8);
                    world.list();
                }
                Move::Connect(is_connected) => {
                    let away = KubeletLink::Away;
                    link = if is_connected { KubeletLink::Connected } else { away };
                }
            }
        }
        world.settle(slices, is_tainted);
        let wanted = contents(slices, is_tainted, world.publication.support());
        let stored: Vec<_> = world.server.slices.values().filter_map(|it| it.content.clone()).collect();
        prop_assert_eq!(stored, wanted);
        let dropped = &world.publication.support().dropped;
        prop_assert!(dropped.is_subset(&drops), "{:?}", dropped);
        let count = i64::try_from(world.server.slices.len()).unwrap();
        for slice in world.server.slices.values() {
            prop_assert_eq!(slice.slice_count, count);
        }
    }
}

#[test]
fn writes_that_fail_wait_longer_and_as_long_as_the_server_says() {
    let mut world = World::new(BTreeSet::new());
    let wanted = contents(1, false, &ServerSupport::default());
    let next = |world: &World| world.publication.next(&wanted, KubeletLink::Connected, world.now);
    let mut last = Duration::ZERO;
    for _ in 0..20 {
        let PublishStep::Write(write) = next(&world) else { panic!("no write") };
        let outcome = WriteOutcome::Failed("503".to_owned(), None);
        world.publication.wrote(&write, outcome, world.now);
        let PublishStep::Wait(Some(until)) = next(&world) else { panic!("no wait") };
        last = until.saturating_sub(world.now);
        world.now = until;
    }
    assert!(last >= LONGEST_WAIT / 2 && last <= LONGEST_WAIT, "{last:?}");
    let PublishStep::Write(write) = next(&world) else { panic!("no write") };
    let minute = Duration::from_secs(60);
    let outcome = WriteOutcome::Failed("429".to_owned(), Some(minute));
    world.publication.wrote(&write, outcome, world.now);
    assert_eq!(next(&world), PublishStep::Wait(Some(world.now + minute)));
    assert_eq!(world.publication.last_error(), Some("429"));
}

#[test]
fn nothing_is_created_without_a_kubelet_and_everything_at_once_with_one() {
    let world = World::new(BTreeSet::new());
    let wanted = contents(1, false, &ServerSupport::default());
    let next = |link| world.publication.next(&wanted, link, Duration::ZERO);
    assert_eq!(next(KubeletLink::Away), PublishStep::Current);
    assert!(matches!(next(KubeletLink::Connected), PublishStep::Write(SliceWrite::Create(_))));
}

#[test]
fn a_conflict_is_solved_by_the_watch_and_not_by_the_clock() {
    let mut world = World::new(BTreeSet::new());
    world.step(1, false, KubeletLink::Connected, WriteFault::AnswerLost);
    world.now += LONGEST_WAIT;
    // It exists: 409.
    world.step(1, false, KubeletLink::Connected, WriteFault::None);
    let wanted = contents(1, false, &ServerSupport::default());
    let next = |world: &World| world.publication.next(&wanted, KubeletLink::Connected, world.now);
    assert!(matches!(next(&world), PublishStep::Wait(Some(_))), "{:?}", next(&world));
    world.deliver();
    assert_eq!(next(&world), PublishStep::Current);
}

#[test]
fn a_server_that_changes_slices_is_not_written_to_without_a_pause() {
    let mut world = World::new(BTreeSet::new());
    let wanted = contents(1, false, &ServerSupport::default());
    let next = |world: &World| world.publication.next(&wanted, KubeletLink::Connected, world.now);
    let PublishStep::Write(write) = next(&world) else { panic!("no write") };
    let SliceWrite::Create(slice) = &write else { panic!("no creation") };
    let mut stored = world.server.stored(slice);
    stored.seen.content = Some(SliceContent::Devices(vec![device(9, false)]));
    world.publication.wrote(&write, WriteOutcome::Stored(stored), world.now);
    assert!(matches!(next(&world), PublishStep::Wait(Some(_))), "{:?}", next(&world));
}
