//! Whatever happens, in whatever order: what a pod holds is listed, what no pod holds leaves.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const BOARDS: u8 = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Leave(u8),
    /// True for a board of another kind in the same place.
    Return(u8, bool),
    Hold(u8),
    Release(u8),
    /// PodResources is queried; the answer is true now and arrives later.
    Ask,
    Answer,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let board = 0..BOARDS;
    prop_oneof![
        board.clone().prop_map(Step::Leave),
        (board.clone(), any::<bool>()).prop_map(|(board, other)| Step::Return(board, other)),
        board.clone().prop_map(Step::Hold),
        board.prop_map(Step::Release),
        Just(Step::Ask),
        Just(Step::Answer),
        (0..400_u64).prop_map(Step::Pass),
    ]
}

/// What the kubelet reported of a device since it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reported {
    Nothing,
    Held,
    /// So that it is listed no more.
    Free,
}

/// The world, and what must be true of the list by a simple account of it.
struct World {
    now: u64,
    /// By number, true for the other kind.
    there: BTreeMap<u8, bool>,
    held: BTreeSet<u8>,
    /// Since when.
    away: BTreeMap<u8, (u64, Reported)>,
    asked: Option<(u64, BTreeSet<u8>)>,
    removed_devices: RemovedDevices,
}

impl World {
    fn new() -> Self {
        let there = (0..BOARDS).map(|board| (board, false)).collect();
        let removed_devices = RemovedDevices::new(Retention::default());
        let (held, away) = (BTreeSet::new(), BTreeMap::new());
        let mut world = Self { now: 0, there, held, away, asked: None, removed_devices };
        world.scan();
        world
    }

    fn take(&mut self, step: Step) {
        // No two things happen at the same moment, and time passes before each.
        self.now += 1;
        self.removed_devices.expire(second(self.now));
        match step {
            Step::Leave(board) => self.leave(board),
            Step::Return(board, other) => {
                self.there.insert(board, other);
                self.away.remove(&board);
                self.scan();
            }
            // The kubelet gives only what is listed as healthy.
            Step::Hold(board) if self.there.contains_key(&board) => {
                self.held.insert(board);
            }
            Step::Hold(_) => {}
            Step::Release(board) => {
                self.held.remove(&board);
            }
            Step::Ask => self.asked = Some((self.now, self.held.clone())),
            Step::Answer => self.receive_answer(),
            Step::Pass(seconds) => self.now += seconds,
        }
    }

    fn leave(&mut self, board: u8) {
        if self.there.remove(&board).is_some() {
            self.away.insert(board, (self.now, Reported::Nothing));
            self.scan();
        }
    }

    fn scan(&mut self) {
        let boards = self.there.iter().map(|(number, is_other)| {
            let mut board = board(number * 0x10, 2);
            board.chips[0].id.device += u16::from(*is_other);
            board
        });
        let node = Node { boards: boards.collect(), ..Node::default() };
        self.removed_devices.observe(node.present(), second(self.now));
    }

    fn receive_answer(&mut self) {
        let Some((asked, held)) = self.asked.take() else { return };
        let ids: Vec<_> = held.iter().map(|board| id(*board)).collect();
        let ids: Vec<_> = ids.iter().map(|id| (GPU, &id[..])).collect();
        self.removed_devices.answered(&holding(second(asked), &ids));
        for (board, (since, reported)) in &mut self.away {
            // What is not listed any more is listed again once it proves to be held.
            let is_over = *reported == Reported::Free
                || *reported == Reported::Nothing && self.now >= *since + 300;
            *reported = match (held.contains(board), *reported) {
                (true, _) if asked > *since || is_over => Reported::Held,
                (false, Reported::Nothing | Reported::Held) if asked > *since => Reported::Free,
                (_, before) => before,
            };
        }
    }

    /// The kubelet's list must be just this.
    fn expected(&self) -> BTreeMap<String, bool> {
        let away = self.away.iter().filter(|(_, (since, reported))| match reported {
            Reported::Held => true,
            Reported::Nothing => self.now < since + 300,
            Reported::Free => false,
        });
        let there = self.there.keys().map(|board| (id(*board), true));
        there.chain(away.map(|(board, _)| (id(*board), false))).collect()
    }
}

fn id(board: u8) -> String {
    format!("0000:{:02x}:00.0", board * 0x10)
}

proptest! {
    #[test]
    fn the_list_is_what_is_there_and_what_may_be_held(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            let now = second(world.now);
            let resources = listed(&mut world.removed_devices, now, PodResourcesState::Answering);
            let devices = &resources[0].devices;
            let ids: BTreeSet<_> = devices.iter().map(|device| device.id).collect();
            prop_assert_eq!(ids.len(), devices.len(), "an id twice");
            let listed: BTreeMap<_, _> = devices
                .iter()
                .map(|device| (device.id.to_string(), device.health == Health::Healthy))
                .collect();
            prop_assert_eq!(listed, world.expected());
            for device in devices {
                let gives_nodes = !device.nodes.is_empty();
                prop_assert_eq!(gives_nodes, device.health == Health::Healthy);
            }
        }
    }
}
