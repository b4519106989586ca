//! What claims get, and what keeps a device from a second holder.

use super::*;
use crate::decide::dra::claims::{ClaimHolder, still_holds, to_verify};
use crate::decide::dra::health_list::health_list;
use crate::decide::dra::prepare::{PrepareContext, PrepareError, PreparedClaim, prepare};
use crate::decide::dra::slices::contents;
use crate::model::cdi::CdiSpec;
use crate::model::dra::claim::{ClaimUsage, ClaimedDevice, OpaqueConfig};
use crate::model::dra::slice::{PublishedDevice, SliceContent};
use crate::model::health::{Health, Reason, ReasonCode};
use crate::model::inventory::Inventory;
use crate::model::pod_usage::{HeldDevice, Holder};

/// A node whose CDI spec is on disk.
pub(super) struct Node {
    pub(super) snapshot: NodeSnapshot,
    pub(super) holders: ClaimHolders,
    pub(super) on_disk: Option<CdiSpec>,
}

impl Node {
    pub(super) fn new(devices: DraOffer) -> Self {
        let snapshot = (*snapshot(machine(), &config(devices))).clone();
        let on_disk = snapshot.cdi_spec.clone();
        Self { snapshot, holders: ClaimHolders::default(), on_disk }
    }

    pub(super) fn prepare(&mut self, claim: &DraClaim) -> Result<PreparedClaim, PrepareError> {
        let pool = node().name;
        let context = PrepareContext {
            pool: &pool,
            snapshot: &self.snapshot,
            cdi_on_disk: self.on_disk.as_ref(),
            holders: &self.holders,
        };
        let prepared = prepare(&context, claim, &claim.uid)?;
        self.holders.prepared(claim, prepared.held.clone());
        Ok(prepared)
    }

    #[track_caller]
    fn refuses(&mut self, claim: &DraClaim, expected: &str) {
        let before = self.holders.clone();
        assert_eq!(self.prepare(claim).unwrap_err().to_string(), expected);
        assert_eq!(self.holders, before);
    }

    fn inventory(&mut self) -> &mut Inventory {
        Arc::make_mut(&mut self.snapshot.inventory)
    }

    /// The chip with this index of the board fails.
    fn fail(&mut self, board: usize, chip: usize, code: ReasonCode) {
        let reason = Reason { code, detail: "seen in a test".to_owned() };
        let board = &mut self.inventory().boards[board];
        board.chips[chip].reasons.push(reason.clone());
        board.reasons.push(reason);
        board.health = Health::Unhealthy;
    }

    fn pool(&self) -> DraPool {
        pool(&self.snapshot, &self.holders, &ServerSupport::default())
    }
}

#[test]
fn a_claim_gets_the_names_of_its_chips_and_again_the_same() {
    let mut node = Node::new(DraOffer::Board);
    let mut claim = claim("train", &["board-0000-14-00-0", "chip-0000-90-00-0"]);
    let allocation = claim.allocation.as_mut().unwrap();
    allocation.results[0].request = "gpus/first".to_owned();
    let prepared = node.prepare(&claim).unwrap();
    let names: Vec<_> = prepared.devices.iter().map(|device| device.cdi_ids.join(" ")).collect();
    assert_eq!(
        names,
        [
            "gpu.iluvatar.com/device=0000:14:00.0 gpu.iluvatar.com/device=0000:17:00.0",
            "gpu.iluvatar.com/device=0000:90:00.0",
        ]
    );
    assert_eq!(prepared.devices[0].request, "gpus");
    assert_eq!(node.prepare(&claim).unwrap(), prepared);
    // A fault after the first call does not change the answer: the pod runs.
    node.fail(0, 0, ReasonCode::AerFatal);
    assert_eq!(node.prepare(&claim).unwrap(), prepared);
}

#[test]
fn devices_of_other_drivers_are_ignored() {
    let mut node = Node::new(DraOffer::Chip);
    let mut claim = claim("mixed", &["eth0", "chip-0000-14-00-0"]);
    let results = &mut claim.allocation.as_mut().unwrap().results;
    results[0].driver = "dra.net".to_owned();
    results[0].pool = "fabric".to_owned();
    let prepared = node.prepare(&claim).unwrap();
    assert_eq!(prepared.devices.len(), 1);
    let other = OpaqueConfig { driver: "dra.net".to_owned(), requests: Vec::new() };
    claim.allocation.as_mut().unwrap().configs.push(other);
    assert_eq!(node.prepare(&claim), Ok(prepared));
}

#[test]
fn a_claim_that_is_not_what_the_kubelet_means_is_refused_by_name() {
    let mut node = Node::new(DraOffer::Chip);
    let mut unallocated = claim("train", &[]);
    unallocated.allocation = None;
    node.refuses(
        &unallocated,
        "claim team/train is not allocated; retrying once a scheduler has allocated it",
    );
    let valid = claim("train", &["chip-0000-14-00-0"]);
    let snapshot = node.snapshot.clone();
    let context = PrepareContext {
        pool: "gpu-node-1",
        snapshot: &snapshot,
        cdi_on_disk: None,
        holders: &node.holders,
    };
    let error = prepare(&context, &valid, "another").unwrap_err().to_string();
    let expected = "claim team/train has the uid uid-of-train, not another: it was created anew; \
                    retrying";
    assert_eq!(error, expected);
    let error = prepare(&context, &valid, &valid.uid).unwrap_err();
    assert!(matches!(error, PrepareError::NotInCdiSpec(_)), "{error}");
}

#[test]
fn a_device_that_is_not_of_this_node_is_refused_by_name() {
    let mut node = Node::new(DraOffer::Chip);
    let gone = "chip-0000-33-00-0 is not on this node; delete the pod, so that a new claim is \
                allocated from the present devices";
    node.refuses(&claim("train", &["chip-0000-14-00-0", "chip-0000-33-00-0"]), gone);
    let mut elsewhere = claim("train", &["chip-0000-14-00-0"]);
    elsewhere.allocation.as_mut().unwrap().results[0].pool = "gpu-node-2".to_owned();
    node.refuses(
        &elsewhere,
        "chip-0000-14-00-0 is of pool gpu-node-2, but this node's pool is gpu-node-1",
    );
}

#[test]
fn parameters_that_nobody_knows_are_refused_unless_they_are_for_what_was_not_chosen() {
    let mut node = Node::new(DraOffer::Chip);
    let mut claim = claim("train", &["chip-0000-14-00-0"]);
    let allocation = claim.allocation.as_mut().unwrap();
    allocation.results[0].request = "gpu/second".to_owned();
    let config = |requests: &[&str]| OpaqueConfig {
        driver: DRIVER_NAME.to_owned(),
        requests: requests.iter().map(|&it| it.to_owned()).collect(),
    };
    allocation.configs = vec![config(&["gpu/first"])];
    assert!(node.prepare(&claim).is_ok());
    for requests in [&[][..], &["gpu"], &["gpu/second"]] {
        claim.allocation.as_mut().unwrap().configs = vec![config(requests)];
        node.refuses(
            &claim,
            "the claim or its class has parameters for gpu.iluvatar.com, which takes none; remove \
             `opaque` from `config`",
        );
    }
}

#[test]
fn an_unhealthy_device_is_refused_with_its_reason_and_its_remedy() {
    let mut node = Node::new(DraOffer::Board);
    node.fail(0, 1, ReasonCode::AerFatal);
    node.refuses(
        &claim("train", &["board-0000-14-00-0"]),
        "board-0000-14-00-0 is unhealthy: AerFatal: seen in a test; find the error in `dmesg` \
         (AER); if it returns, reseat or replace the board",
    );
    // Its other chip is well.
    assert!(node.prepare(&claim("half", &["chip-0000-14-00-0"])).is_ok());
}

#[test]
fn no_chip_has_two_holders_whatever_the_devices_are_called() {
    let mut node = Node::new(DraOffer::Board);
    node.prepare(&claim("first", &["board-0000-14-00-0"])).unwrap();
    for device in ["board-0000-14-00-0", "chip-0000-14-00-0", "chip-0000-17-00-0"] {
        let expected = format!(
            "{device} is held by claim team/first; it is free once that claim is unprepared"
        );
        node.refuses(&claim("second", &[device]), &expected);
    }
    node.holders.released(Some("uid-of-first"), &claim("first", &[]).claim);
    assert!(node.prepare(&claim("second", &["chip-0000-17-00-0"])).is_ok());
}

#[test]
fn a_claim_with_admin_access_holds_nothing_and_is_kept_from_nothing() {
    let mut node = Node::new(DraOffer::Board);
    let mut monitor = claim("monitor", &["board-0000-14-00-0"]);
    monitor.allocation.as_mut().unwrap().results[0].admin_access = true;
    node.prepare(&monitor).unwrap();
    node.prepare(&claim("train", &["board-0000-14-00-0"])).unwrap();
    node.fail(0, 0, ReasonCode::AerFatal);
    assert_eq!(node.prepare(&monitor).unwrap().devices.len(), 1);
}

#[test]
fn shares_of_one_device_go_to_several_claims_and_keep_all_others_away() {
    let mut node = Node::new(DraOffer::Board);
    let shared = |name: &str| {
        let mut claim = claim(name, &["board-0000-14-00-0"]);
        claim.allocation.as_mut().unwrap().results[0].share_id = Some(format!("share-{name}"));
        claim
    };
    let first = node.prepare(&shared("first")).unwrap();
    assert_eq!(first.devices[0].share_id.as_deref(), Some("share-first"));
    node.prepare(&shared("second")).unwrap();
    let error = node.prepare(&claim("alone", &["board-0000-14-00-0"])).unwrap_err();
    assert!(matches!(error, PrepareError::HeldByClaim { .. }), "{error}");
    let error = node.prepare(&claim("chip", &["chip-0000-14-00-0"])).unwrap_err();
    assert!(matches!(error, PrepareError::HeldByClaim { .. }), "{error}");
}

fn held_by_pod() -> HeldDevice {
    let holder = Holder {
        namespace: "team".to_owned(),
        pod: "old".to_owned(),
        container: "main".to_owned(),
    };
    HeldDevice {
        resource: "iluvatar.com/gpu".to_owned(),
        id: "0000:14:00.0".parse().unwrap(),
        holder: Some(holder),
    }
}

#[test]
fn what_a_device_plugins_pod_holds_is_tainted_and_refused_until_it_is_free() {
    let mut node = Node::new(DraOffer::Chip);
    let chip = "0000:14:00.0".parse().unwrap();
    node.snapshot.held_by_pods.insert(chip, held_by_pod());
    let taint = "chip-0000-14-00-0 gpu.iluvatar.com/held=iluvatar.com_gpu:NoSchedule";
    assert_eq!(shown(&node.pool().devices[0]), taint);
    node.refuses(
        &claim("train", &["chip-0000-14-00-0"]),
        "chip-0000-14-00-0 is held as iluvatar.com/gpu 0000:14:00.0 by container main of pod \
         team/old; it is free once that pod ends",
    );
    node.snapshot.held_by_pods.clear();
    assert_eq!(node.pool().devices[0].taints, []);
    assert!(node.prepare(&claim("train", &["chip-0000-14-00-0"])).is_ok());
}

#[test]
fn a_fault_is_a_taint_and_a_message_and_both_go_with_it() {
    let mut node = Node::new(DraOffer::Board);
    node.fail(0, 0, ReasonCode::IxmlGpuLost);
    node.snapshot.dra.evict.insert(ReasonCode::IxmlGpuLost);
    let faulty = node.pool();
    let taint = "board-0000-14-00-0 gpu.iluvatar.com/unhealthy=IxmlGpuLost:NoExecute";
    assert_eq!(shown(&faulty.devices[0]), taint);
    let health = health_list(&faulty);
    assert_eq!(health.len(), 3);
    assert_eq!((health[0].health, health[1].health), (Health::Unhealthy, Health::Healthy));
    let remedy = ReasonCode::IxmlGpuLost.remedy();
    let message = format!("IxmlGpuLost: seen in a test (remedy: {remedy})");
    assert_eq!((&*health[0].message, &*health[1].message), (&*message, ""));
    let well = Node::new(DraOffer::Board).pool();
    assert!(well.devices.iter().all(|device| device.taints.is_empty()));
}

#[test]
fn a_health_message_fits_into_what_the_kubelet_keeps() {
    let mut node = Node::new(DraOffer::Board);
    let long = Reason { code: ReasonCode::AerFatal, detail: "€".repeat(500) };
    node.inventory().boards[0].reasons = vec![long];
    let message = &health_list(&node.pool())[0].message;
    assert!(message.len() <= 1024 && message.ends_with("..."), "{}", message.len());
}

#[test]
fn where_taints_are_dropped_an_unhealthy_device_leaves_unless_a_claim_has_it() {
    let mut node = Node::new(DraOffer::Board);
    node.prepare(&claim("train", &["board-0000-24-00-0"])).unwrap();
    node.fail(0, 0, ReasonCode::AerFatal);
    node.fail(1, 0, ReasonCode::AerFatal);
    let names = |support: &ServerSupport| {
        let contents = contents(&pool(&node.snapshot, &node.holders, support), support);
        let [SliceContent::Devices(devices)] = &contents[..] else { panic!("{contents:?}") };
        let name = |it: &PublishedDevice| format!("{} {}", it.name, it.taints.len());
        devices.iter().map(name).collect::<Vec<_>>()
    };
    let kept = ["board-0000-14-00-0 1", "board-0000-24-00-0 1", "chip-0000-90-00-0 0"];
    assert_eq!(names(&ServerSupport::default()), kept);
    let dropped = names(&without(&[DraFeature::Taints]));
    assert_eq!(dropped, ["board-0000-24-00-0 0", "chip-0000-90-00-0 0"]);
}

#[test]
fn a_device_that_left_while_a_claim_holds_it_stays_published_until_it_is_released() {
    let mut node = Node::new(DraOffer::Chip);
    let claim = claim("train", &["chip-0000-90-00-0"]);
    node.prepare(&claim).unwrap();
    let sample = ScanBuilder::default().dual_board("00:01.0 08:00.0 09:00.0", 0x10, UNKNOWN);
    node.snapshot = (*snapshot(sample, &config(DraOffer::Chip))).clone();
    let removed = "chip-0000-90-00-0 gpu.iluvatar.com/unhealthy=Removed:NoSchedule";
    assert_eq!(node.pool().devices.iter().map(shown).next_back().as_deref(), Some(removed));
    node.holders.released(Some(&claim.uid), &claim.claim);
    assert_eq!(node.pool().devices.len(), 2);
}

#[test]
fn a_configuration_change_gives_nobody_a_chip_that_a_claim_holds() {
    let mut node = Node::new(DraOffer::Chip);
    node.prepare(&claim("train", &["chip-0000-17-00-0"])).unwrap();
    node.snapshot.dra.devices = DraOffer::Board;
    check_pool(
        &node.pool(),
        &[
            "board-0000-14-00-0 gpu.iluvatar.com/held=claim:NoSchedule",
            "chip-0000-17-00-0 gpu.iluvatar.com/held=not-offered:NoSchedule",
            "board-0000-24-00-0",
            "chip-0000-90-00-0",
        ],
    );
}

#[test]
fn what_only_the_kubelet_lists_counts_until_the_claim_is_gone() {
    let mut node = Node::new(DraOffer::Chip);
    let known = claim("known", &["chip-0000-14-00-0"]);
    let usage = ClaimUsage {
        claim: known.claim.clone(),
        device: "chip-0000-14-00-0".parse().unwrap(),
        is_shared: false,
    };
    node.holders.listed(&[usage].into());
    let error = node.prepare(&claim("second", &["chip-0000-14-00-0"])).unwrap_err();
    let PrepareError::HeldByClaim { holder, .. } = error else { panic!("{error}") };
    assert!(still_holds(&holder, "gpu-node-1", Some(&known)));
    assert!(!still_holds(&holder, "gpu-node-1", None));
    // The claim itself is prepared again after a restart that lost the file.
    assert!(node.prepare(&known).is_ok());
    node.holders.released(Some(&known.uid), &known.claim);
    assert!(node.prepare(&claim("second", &["chip-0000-14-00-0"])).is_ok());
}

#[test]
fn only_holders_that_keep_something_from_others_are_verified() {
    let mut node = Node::new(DraOffer::Chip);
    node.prepare(&claim("first", &["chip-0000-14-00-0"])).unwrap();
    node.prepare(&claim("second", &["chip-0000-90-00-0"])).unwrap();
    let verified = |node: &Node| {
        let holders = node.holders.all(&node.snapshot.inventory);
        let found = to_verify(&node.pool(), holders);
        found.into_iter().map(|holder| holder.claim.name).collect::<Vec<_>>()
    };
    assert_eq!(verified(&node), [""; 0]);
    node.snapshot.dra.devices = DraOffer::Board;
    assert_eq!(verified(&node), ["first"]);
}

#[test]
fn a_holder_is_stale_once_its_claim_is_gone_deallocated_or_another() {
    let train = claim("train", &["chip-0000-14-00-0"]);
    let holder = ClaimHolder {
        uid: Some(train.uid.clone()),
        claim: train.claim.clone(),
        held: ClaimedDevice {
            device: "chip-0000-14-00-0".parse().unwrap(),
            chips: vec!["0000:14:00.0".parse().unwrap()],
            is_shared: false,
        },
    };
    let holds = |claim: Option<&DraClaim>| still_holds(&holder, "gpu-node-1", claim);
    assert!(holds(Some(&train)));
    let anew = DraClaim { uid: "another".to_owned(), ..train.clone() };
    let deallocated = DraClaim { allocation: None, ..train.clone() };
    let elsewhere = claim("train", &["chip-0000-17-00-0"]);
    for stale in [None, Some(&anew), Some(&deallocated), Some(&elsewhere)] {
        assert!(!holds(stale), "{stale:?}");
    }
}

#[test]
fn slots_are_published_only_where_the_server_keeps_them() {
    let mut config = config(DraOffer::Board);
    config.dra.slots = Some(4);
    let snapshot = snapshot(machine(), &config);
    let slots = |support: &ServerSupport| {
        let contents = contents(&pool(&snapshot, &ClaimHolders::default(), support), support);
        let [SliceContent::Devices(devices)] = &contents[..] else { panic!("{contents:?}") };
        devices.iter().map(|device| device.slots).collect::<BTreeSet<_>>()
    };
    assert_eq!(slots(&ServerSupport::default()), [Some(4)].into());
    assert_eq!(slots(&without(&[DraFeature::ConsumableCapacity])), [None].into());
}
