//! What a policy leaves of a node in the long run: `cargo bench --bench churn`.
//!
//! Pods come to and go from a node of eight split dual-chip boards, 100,000 times. Each policy
//! meets the very same pods: whether a pod fits depends on the number of free chips alone.

mod nodes;

use ix_device_plugin::decide::allocation::prefer::{PreferenceRequest, prefer};
use ix_device_plugin::model::device::DeviceId;

use nodes::{Node, Random};

const STEPS: usize = 100_000;
const CHIPS: usize = 16;
const SEED: u64 = 20_260_101;

/// Of ten pods four ask for one chip, three for two, two for four and one for eight.
const PODS: [usize; 10] = [1, 1, 1, 1, 2, 2, 2, 4, 4, 8];

#[derive(Clone, Copy)]
enum Policy {
    Ours,
    LowestFirst,
    Random,
}

/// What is on the node, and what was seen of it so far.
struct Run {
    policy: Policy,
    node: Node,
    /// Its own source of numbers, so that the pods are the same for all policies.
    choices: Random,
    free: Vec<DeviceId>,
    pods: Vec<Vec<DeviceId>>,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    admitted: u64,
    refused: u64,
    /// Mean distance of the pairs of each pod of more than one chip.
    distance: Mean,
    /// Share of the free chips that are on a whole board, after each step that left any free.
    whole: Mean,
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1.0;
    }

    fn value(&self) -> f64 {
        self.sum / self.count
    }
}

impl Run {
    fn new(policy: Policy) -> Self {
        let node = Node::of_boards(CHIPS);
        Self {
            policy,
            free: node.devices.iter().map(|device| device.id).collect(),
            node,
            choices: Random(SEED + 1),
            pods: Vec::new(),
            seen: Seen::default(),
        }
    }

    fn play(mut self) -> Seen {
        let mut random = Random(SEED);
        for _ in 0..STEPS {
            let comes = random.below(2) == 0;
            let number = random.below(usize::MAX);
            if comes {
                self.admit(PODS[number % PODS.len()]);
            } else if !self.pods.is_empty() {
                let leaving = self.pods.swap_remove(number % self.pods.len());
                self.free.extend(leaving);
                self.free.sort_unstable();
            }
            self.measure();
        }
        self.seen
    }

    fn admit(&mut self, size: usize) {
        if size > self.free.len() {
            self.seen.refused += 1;
            return;
        }
        let pod = self.choose(size);
        self.free.retain(|id| !pod.contains(id));
        self.seen.admitted += 1;
        if size > 1 {
            self.seen.distance.add(self.distance(&pod));
        }
        self.pods.push(pod);
    }

    fn choose(&mut self, size: usize) -> Vec<DeviceId> {
        match self.policy {
            Policy::Ours => {
                let request = PreferenceRequest { available: &self.free, must_include: &[], size };
                prefer(&self.node.supply(), &request).ids
            }
            Policy::LowestFirst => self.free[..size].to_vec(),
            Policy::Random => {
                let mut free = self.free.clone();
                self.choices.shuffle(&mut free);
                free.truncate(size);
                free
            }
        }
    }

    fn distance(&self, pod: &[DeviceId]) -> f64 {
        let mut mean = Mean::default();
        for (index, one) in pod.iter().enumerate() {
            for other in &pod[index + 1..] {
                let distance = self.node.tree.distance(one.address, other.address);
                mean.add(f64::from(distance.expect("two chips of the tree") as u8));
            }
        }
        mean.value()
    }

    fn measure(&mut self) {
        if self.free.is_empty() {
            return;
        }
        let board = |id: &DeviceId| self.node.tree.chips[&id.address];
        let is_on_whole_board = |id: &&DeviceId| {
            let siblings = self.free.iter().filter(|other| board(other) == board(id));
            siblings.count() == 2
        };
        let mut share = Mean::default();
        for id in &self.free {
            share.add(f64::from(u8::from(is_on_whole_board(&id))));
        }
        self.seen.whole.add(share.value());
    }
}

fn main() {
    println!("{STEPS} steps on {CHIPS} chips, pods of {PODS:?} with equal chances, seed {SEED}");
    println!();
    println!(
        "| policy | mean distance in a pod | free chips on whole boards | admitted | refused |"
    );
    println!("|---|---|---|---|---|");
    for (name, policy) in [
        ("prefer", Policy::Ours),
        ("lowest address first", Policy::LowestFirst),
        ("random", Policy::Random),
    ] {
        let seen = Run::new(policy).play();
        let (distance, whole) = (seen.distance.value(), 100.0 * seen.whole.value());
        let (admitted, refused) = (seen.admitted, seen.refused);
        println!("| {name} | {distance:.3} | {whole:.1} % | {admitted} | {refused} |");
    }
}
