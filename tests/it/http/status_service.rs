//! The status service without a daemon: what it reports of loops that hang, and of very many devices.

use std::sync::Arc;
use std::time::Duration;

use ix_device_plugin::daemon::inventory_inputs::Ping;
use ix_device_plugin::daemon::sessions::SessionsView;
use ix_device_plugin::daemon::status_service::StatusService;
use ix_device_plugin::daemon::telemetry::Telemetry;
use ix_device_plugin::decide::node::snapshot::NodeSnapshot;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::health::{Health, Reason, ReasonCode};
use ix_device_plugin::model::inventory::Inventory;
use ix_device_plugin::model::ixml::{ChipReading, EccErrors, IxmlReading, IxmlState};
use ix_device_plugin::model::rescan::RescanTrigger;
use ix_device_plugin::model::session::Progress;
use ix_device_plugin::wire::metrics::exposition::Format;
use tokio::sync::{mpsc, watch};

use crate::support::fixtures::{GPU, inventory_of, node_text};

/// The service, and what loops of the daemon would hold.
struct StatusRig {
    service: StatusService,
    snapshots: watch::Sender<Option<Arc<NodeSnapshot>>>,
    sessions: watch::Sender<SessionsView>,
    ixml: watch::Sender<IxmlState>,
    _config: watch::Sender<Arc<Config>>,
    pings: mpsc::Receiver<Ping>,
}

impl StatusRig {
    fn open() -> Self {
        let telemetry = Telemetry::default();
        telemetry.set_resources([GPU]);
        let (snapshots, latest) = watch::channel(None);
        let (sessions, view) = watch::channel(SessionsView::new());
        let (config, active) = watch::channel(Arc::new(Config::default()));
        let (asks, pings) = mpsc::channel(4);
        let (ixml, state) = watch::channel(IxmlState::Off);
        let service = StatusService {
            telemetry,
            snapshots: latest,
            config: active,
            sessions: view,
            ixml: Some(state),
            pings: asks,
        };
        Self { service, snapshots, sessions, ixml, _config: config, pings }
    }

    async fn check_live(&self, is_positive: bool, sentence: &str) {
        let verdict = self.service.live().await;
        assert_eq!(
            (verdict.is_positive, verdict.sentences),
            (is_positive, vec![sentence.to_owned()])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_without_progress_is_not_live_within_the_timeout_of_a_probe() {
    let rig = StatusRig::open();
    let asked = tokio::time::Instant::now();
    rig.check_live(false, "the inventory loop does not answer").await;
    assert!(asked.elapsed() < Duration::from_secs(1));
    // Pings that nobody takes pile up no further, and the answer stays.
    for _ in 0..10 {
        rig.check_live(false, "the inventory loop does not answer").await;
    }
    assert!(rig.pings.len() <= 4);
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_hangs_in_the_kernel_keeps_it_live() {
    let mut rig = StatusRig::open();
    rig.service.telemetry.rescan_started(RescanTrigger::Start);
    tokio::time::advance(Duration::from_secs(3600)).await;
    let answered = async {
        rig.pings.recv().await.unwrap().send(()).unwrap();
    };
    let (result, ()) = tokio::join!(rig.service.live(), answered);
    let sentences = ["the inventory loop is making progress", "a scan has been running for 3600 s"];
    assert_eq!((result.is_positive, result.sentences), (true, sentences.map(str::to_owned).into()));
}

#[tokio::test(start_paused = true)]
async fn a_session_without_progress_is_not_live_and_is_named() {
    let mut rig = StatusRig::open();
    let (_progress, waiting) = watch::channel(Progress::Waiting);
    rig.sessions.send_replace([(GPU.to_owned(), waiting)].into());
    tokio::time::advance(Duration::from_secs(31)).await;
    let answered = async {
        rig.pings.recv().await.unwrap().send(()).unwrap();
    };
    let (verdict, ()) = tokio::join!(rig.service.live(), answered);
    let sentence = "iluvatar.com/gpu: its session has made no progress for 31 s";
    assert_eq!((verdict.is_positive, verdict.sentences), (false, vec![sentence.to_owned()]));
}

#[tokio::test]
async fn a_session_that_has_not_checked_for_a_kubelet_yet_does_not_report_a_missing_one() {
    let rig = StatusRig::open();
    let telemetry = &rig.service.telemetry;
    telemetry.rescan_started(RescanTrigger::Start);
    telemetry.rescan_succeeded();
    let (_progress, waiting) = watch::channel(Progress::Waiting);
    rig.sessions.send_replace([(GPU.to_owned(), waiting)].into());
    let verdict = rig.service.ready();
    let sentence = "iluvatar.com/gpu: not registered with the kubelet";
    assert_eq!((verdict.is_positive, verdict.sentences), (false, vec![sentence.to_owned()]));
}

fn four_boards() -> Inventory {
    inventory_of(&node_text("mr-v100-x4"), &Config::default())
}

#[tokio::test]
async fn a_thousand_boards_that_came_and_went_leave_no_series() {
    let rig = StatusRig::open();
    let publish = |inventory: Inventory| {
        rig.snapshots
            .send_replace(Some(Arc::new(NodeSnapshot::new(inventory, &Config::default()))));
    };
    let at_first = four_boards();
    publish(at_first.clone());
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let before = series(&rig.service.metrics(Format::OpenMetrics));
    for domain in 1..=1000 {
        // Each comes broken, at an address where none ever was.
        let mut inventory = at_first.clone();
        let board = &mut inventory.boards[0];
        board.address.domain = domain;
        board.chips[0].address.domain = domain;
        board.health = Health::Unhealthy;
        let detail = "no driver".to_owned();
        board.reasons = vec![Reason { code: ReasonCode::DriverNotBound, detail }];
        publish(inventory);
        let text = rig.service.metrics(Format::OpenMetrics);
        assert_eq!(series(&text), before + 1, "{text}");
    }
    publish(at_first);
    assert_eq!(series(&rig.service.metrics(Format::OpenMetrics)), before);
}

#[tokio::test]
async fn measurements_of_libixml_are_exposed_only_while_it_answers() {
    let rig = StatusRig::open();
    let told = |prefix: &str| {
        let text = rig.service.metrics(Format::OpenMetrics);
        let name = format!("iluvatar_device_plugin_{prefix}");
        let lines = text.lines().filter_map(|line| line.strip_prefix(&*name));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let none: [String; 0] = [];
    assert_eq!(told("source_up{source=\"ixml\"}"), [" 0.0"]);
    let chip = ChipReading {
        temperature: Some(61),
        ecc: Some(EccErrors { single: 3, double: 1 }),
        ..ChipReading::default()
    };
    // Of the second chip it would say nothing.
    let chips = [("0000:15:00.0", chip), ("0000:2d:00.0", ChipReading::default())];
    let chips = chips.map(|(address, reading)| (address.parse().unwrap(), reading)).into();
    let reading = Arc::new(IxmlReading { library: "libixml.so".into(), chips });
    rig.ixml.send_replace(IxmlState::Reading(Arc::clone(&reading)));
    assert_eq!(told("chip_temperature_celsius{"), ["chip=\"0000:15:00.0\"} 61.0"]);
    let errors = ["corrected\"} 3.0", "uncorrected\"} 1.0"];
    let errors = errors.map(|end| format!("chip=\"0000:15:00.0\",kind=\"{end}"));
    assert_eq!(told("chip_ecc_errors{"), errors);
    assert_eq!(told("source_up{source=\"ixml\"}"), [" 1.0"]);

    let since = tokio::time::Instant::now().into_std();
    rig.ixml.send_replace(IxmlState::Stalled { since, last: Some(reading) });
    assert_eq!(told("chip_temperature_celsius{"), none);
    assert_eq!(told("chip_ecc_errors{"), none);
    assert_eq!(told("source_up{source=\"ixml\"}"), [" 0.0"]);
}
