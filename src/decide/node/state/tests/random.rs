//! Any story at all: what happens to the hardware, to pods and to the configuration, in any order.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::model::cordon::{Cordon, CordonList};

/// Lower chips of the boards of the machine.
const BUSES: [u8; 4] = [0x14, 0x24, 0x34, 0x44];

#[derive(Clone, Debug)]
enum Event {
    /// A scan that shows the boards of this set.
    Scan(u8),
    /// The lower chip of the board with this number left.
    Leave(usize),
    /// libixml reports the lower chips of this set as lost, and no others.
    Lost(u8),
    /// A sample in which the lower chips of this set do not answer.
    Silent(u8),
    /// One of the configurations.
    Configure(usize),
    /// A pod asks for one device of the resource with this number.
    Admit(usize),
    /// The pod with this number ends.
    End(usize),
    /// An operator keeps the lower chips of this set, and no others, from new pods.
    Cordon(u8),
    /// The kubelet answers, or is known not to.
    Answer,
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0..16_u8).prop_map(Event::Scan),
        1 => (0..BUSES.len()).prop_map(Event::Leave),
        1 => (0..16_u8).prop_map(Event::Lost),
        1 => (0..16_u8).prop_map(Event::Silent),
        2 => (0..configs().len()).prop_map(Event::Configure),
        4 => any::<usize>().prop_map(Event::Admit),
        2 => any::<usize>().prop_map(Event::End),
        1 => (0..16_u8).prop_map(Event::Cordon),
        2 => Just(Event::Answer),
        1 => (0..100_u64).prop_map(Event::Pass),
    ]
}

fn configs() -> Vec<Arc<Config>> {
    let (board, chip) = (Granularity::Board, Granularity::Chip);
    vec![
        config_of(&[(GPU, board, None)]),
        config_of(&[(GPU, chip, None)]),
        config_of(&[(GPU, board, Some(3))]),
        config_of(&[(GPU, chip, Some(2))]),
        config_of(&[("a.b/renamed", board, None)]),
    ]
}

/// A pod and what it holds: resource, id, chips.
#[derive(Clone, Debug)]
struct Pod {
    resource: String,
    id: DeviceId,
    chips: Vec<PciAddress>,
    /// The configuration that it got them under.
    config: usize,
}

/// The world, with the kubelet's own rule: it allocates healthy ids that no pod has.
struct World {
    now: u64,
    config: usize,
    state: NodeState,
    allocations: Allocations,
    pods: Vec<Pod>,
}

impl World {
    fn new() -> Self {
        let state = scanned(duals(&BUSES));
        Self { now: 0, config: 0, state, allocations: Allocations::default(), pods: Vec::new() }
    }

    fn snapshot(&mut self) -> Arc<NodeSnapshot> {
        self.state.snapshot(second(self.now)).unwrap()
    }

    fn take(&mut self, event: &Event) {
        self.now += 1;
        let now = second(self.now);
        match event {
            Event::Scan(set) => self.scan(*set),
            Event::Leave(board) => {
                self.state.recorded(&self.allocations);
                self.state.chip_left(at(&format!("{:02x}:00.0", BUSES[*board])), now);
            }
            Event::Lost(set) => {
                let lost = chosen(*set).map(|bus| format!("{bus:02x}:00.0")).collect::<Vec<_>>();
                let lost_chips: Vec<_> = lost.iter().map(String::as_str).collect();
                self.state.ixml(Some(super::lost(&lost_chips)), now);
            }
            Event::Silent(set) => {
                let mut sample = well(&duals(&BUSES));
                for bus in chosen(*set) {
                    sample.get_mut(&at(&format!("{bus:02x}:00.0"))).unwrap().answers = Some(false);
                }
                let _ = self.state.sampled(sample, now);
            }
            Event::Configure(number) => {
                self.config = *number;
                self.state.recorded(&self.allocations);
                self.state.configured(Arc::clone(&configs()[*number]), now);
            }
            Event::Admit(number) => self.admit(*number),
            Event::End(number) if !self.pods.is_empty() => {
                self.pods.remove(number % self.pods.len());
            }
            Event::End(_) => {}
            Event::Cordon(set) => self.state.cordoned(cordons(*set), now),
            Event::Answer => self.answer(),
            Event::Pass(seconds) => self.now += seconds,
        }
    }

    fn scan(&mut self, set: u8) {
        let buses: Vec<_> = chosen(set).collect();
        self.state.recorded(&self.allocations);
        let rules = DiscoveryRules::default();
        self.state.scanned(Arc::new(duals(&buses)), &rules, second(self.now));
    }

    fn admit(&mut self, number: usize) {
        let snapshot = self.snapshot();
        let resource = &snapshot.resources[0];
        let held: BTreeSet<_> =
            self.pods.iter().map(|pod| (pod.resource.clone(), pod.id)).collect();
        let free =
            resource.healthy_ids().filter(|id| !held.contains(&(resource.name.clone(), *id)));
        let free: Vec<_> = free.collect();
        let Some(id) = free.get(number % free.len().max(1)).copied() else { return };
        let chips = resource.find(id).unwrap().chips.clone();
        let (name, text) = (resource.name.clone(), id.to_string());
        let now = second(self.now);
        self.allocations = allocated(&self.allocations, &snapshot, &name, &[&text], now);
        self.pods.push(Pod { resource: name, id, chips, config: self.config });
    }

    fn answer(&mut self) {
        let held: Vec<_> =
            self.pods.iter().map(|pod| (pod.resource.clone(), pod.id.to_string())).collect();
        let held: Vec<_> = held.iter().map(|(resource, id)| (&**resource, &**id)).collect();
        let now = second(self.now);
        self.state.recorded(&self.allocations);
        self.state.pods(&usage(now, &held), now);
    }

    /// How each chip is held: by whom, and whether each of them shares it.
    fn holders(&self) -> HashMap<PciAddress, Vec<&Pod>> {
        let mut holders: HashMap<_, Vec<_>> = HashMap::new();
        for pod in &self.pods {
            for chip in &pod.chips {
                holders.entry(*chip).or_default().push(pod);
            }
        }
        holders
    }
}

fn cordons(set: u8) -> CordonList {
    let chips = chosen(set).map(|bus| at(&format!("{bus:02x}:00.0")));
    let cordons = chips.map(|chip| (chip, Cordon { chips: [chip].into(), reason: None }));
    CordonList { cordons: cordons.collect(), problem: None }
}

fn chosen(set: u8) -> impl Iterator<Item = u8> {
    (0..4).filter(move |bit| set & (1 << bit) != 0).map(|bit| BUSES[bit])
}

proptest! {
    #[test]
    fn no_chip_is_given_exclusively_while_another_pod_holds_it(
        events in prop::collection::vec(event(), 1..60)
    ) {
        let mut world = World::new();
        for event in &events {
            world.take(event);
            for (chip, pods) in world.holders() {
                let exclusive = pods.iter().filter(|pod| pod.id.replica.is_none()).count();
                prop_assert!(exclusive == 0 || pods.len() == 1, "{chip}: {pods:?}");
                let sizes: BTreeSet<_> = pods.iter().map(|pod| pod.chips.len()).collect();
                prop_assert!(sizes.len() == 1, "{chip}: {pods:?}");
            }
        }
    }

    #[test]
    fn the_snapshot_is_a_function_of_the_story_and_not_of_when_it_is_asked(
        events in prop::collection::vec(event(), 1..40),
        asked in prop::collection::vec(any::<bool>(), 40),
    ) {
        let (mut one, mut other) = (World::new(), World::new());
        for (event, is_asked) in events.iter().zip(asked) {
            if is_asked {
                one.snapshot();
                if let Some(deadline) = one.state.next_deadline() {
                    prop_assert!(deadline > second(one.now), "a deadline in the past");
                }
            }
            one.take(event);
            other.take(event);
        }
        prop_assert_eq!(one.snapshot(), other.snapshot());
    }

    #[test]
    fn no_device_is_healthy_while_a_certain_signal_is_against_it(
        events in prop::collection::vec(event(), 1..60)
    ) {
        let mut world = World::new();
        let (mut lost, mut present) = (0, 0b1111);
        for event in &events {
            world.take(event);
            match event {
                Event::Scan(set) => present = *set,
                Event::Leave(board) => present &= !(1 << board),
                Event::Lost(set) => lost = *set,
                _ => {}
            }
            let certain: BTreeSet<_> =
                chosen(lost & present).map(|bus| at(&format!("{bus:02x}:00.0"))).collect();
            // A chip that came after the report is not in it.
            if !matches!(event, Event::Lost(_)) {
                continue;
            }
            let snapshot = world.snapshot();
            for (_, device) in snapshot.devices() {
                let is_lost = device.chips.iter().any(|chip| certain.contains(chip));
                prop_assert!(!is_lost || device.health == Health::Unhealthy, "{device:?}");
            }
        }
    }

    #[test]
    fn a_device_is_cordoned_exactly_while_one_of_its_chips_is(
        events in prop::collection::vec(event(), 1..60)
    ) {
        let mut world = World::new();
        let mut cordoned = CordonList::default();
        for event in &events {
            world.take(event);
            if let Event::Cordon(set) = event {
                cordoned = cordons(*set);
            }
            let snapshot = world.snapshot();
            // What left has no chips; it is cordoned again once it is back.
            for (_, device) in snapshot.devices().filter(|(_, device)| !device.is_removed()) {
                let has_cordon = device.chips.iter().any(|it| cordoned.cordons.contains_key(it));
                let is_cordoned = device.reasons.iter().any(|it| it.code == ReasonCode::Cordoned);
                prop_assert_eq!(is_cordoned, has_cordon, "{:?}", device);
            }
            let shown = snapshot.cordons.iter().map(|state| &state.id);
            prop_assert!(shown.eq(cordoned.cordons.keys()));
        }
    }

    #[test]
    fn nothing_that_is_held_leaves_the_list_of_its_resource_without_the_kubelets_word(
        events in prop::collection::vec(event(), 1..60)
    ) {
        let mut world = World::new();
        for event in &events {
            let before = world.snapshot();
            world.take(event);
            if matches!(event, Event::Configure(_) | Event::Answer | Event::Pass(_)) {
                continue;
            }
            let after = world.snapshot();
            // A configuration may leave out what it no longer wants.
            for pod in world.pods.iter().filter(|pod| pod.config == world.config) {
                let lists = |snapshot: &NodeSnapshot| {
                    let resource = snapshot.resource(&pod.resource);
                    resource.is_some_and(|resource| resource.find(pod.id).is_some())
                };
                let id = pod.id;
                // The kubelet is asked long before the five minutes are over.
                prop_assert!(!lists(&before) || lists(&after) || world.now > 300, "{id} left");
            }
        }
    }

    #[test]
    fn from_any_story_the_node_recovers_within_the_longest_recovery(
        events in prop::collection::vec(event(), 1..60)
    ) {
        let mut world = World::new();
        for event in &events {
            world.take(event);
        }
        world.take(&Event::Cordon(0));
        world.take(&Event::Lost(0));
        world.take(&Event::Silent(0));
        world.take(&Event::Scan(0b1111));
        world.pods.clear();
        world.take(&Event::Pass(20));
        world.take(&Event::Answer);
        world.take(&Event::Pass(30 * 32));
        for (_, device) in world.snapshot().devices() {
            prop_assert_eq!(&device.reasons, &Vec::new(), "{}", device.id);
        }
    }
}
