//! What libixml says, as the kubelet and the log have it: the whole daemon, with a library of C.

use std::time::Duration;

use ix_device_plugin::decide::node::snapshot::NodeSnapshot;
use ix_device_plugin::demo::kubelet::NodeView;
use ix_device_plugin::host::config_file::ConfigSource;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::model::ixml::{IxmlChoice, IxmlState};
use ix_device_plugin::parse::config::Overrides;

use super::fake::{Fake, settings};
use crate::support::clock::soon;
use crate::support::fixtures::{GPU, node_text};
use crate::support::node_rig::is_streaming;
use crate::support::test_node::TestNode;

const FOUR: &str = "count 4\n";

/// Four boards, at the addresses where the fake library has its chips.
fn machine() -> String {
    let text = node_text("mr-v100-x4");
    let moved = [("15", "10"), ("2d", "11"), ("95", "12"), ("ad", "13")];
    moved.iter().fold(text, |text, (from, to)| {
        text.replace(&format!("0000:{from}:00.0"), &format!("0000:{to}:00.0"))
    })
}

/// A plugin that asks this library often, and forgets faults at once.
fn asking(fake: &Fake) -> TestNode {
    asking_for(IxmlChoice::Path(fake.library())).ixml(settings(IxmlChoice::Off))
}

fn asking_for(library: IxmlChoice) -> TestNode {
    let mut config = Config::default();
    config.health.interval = Duration::from_millis(10);
    config.health.recovery = Duration::ZERO;
    config.health.ixml = library;
    TestNode::new(&machine()).configured(config)
}

fn healthy(count: usize) -> impl FnMut(&NodeView) -> bool {
    move |view| is_streaming(view, GPU) && view.allocatable(GPU) == count
}

#[tokio::test]
async fn a_fault_that_libixml_reports_reaches_the_kubelet_with_its_reason_and_passes() {
    let fake = Fake::new(&[], FOUR);
    let node = asking(&fake).start().await;
    node.until("four healthy boards", healthy(4)).await;

    fake.control("count 4\nhealth.1 4\ntemperature.1 97\n");
    node.until("one board less", healthy(3)).await;
    let reason = "IxmlOverTemperature: 0000:11:00.0: libixml reports OVER_TEMPERATURE at 97 °C";
    node.log.has(&format!("reasons=\"{reason}\""));

    fake.control(FOUR);
    node.until("all boards again", healthy(4)).await;
}

#[tokio::test]
async fn a_report_against_most_boards_at_once_is_suppressed() {
    // From the first reading on: one that is taken while this changes would show half of it.
    let fake = Fake::new(&[], "count 4\nhealth.0 32\nhealth.1 32\nhealth.2 32\n");
    let node = asking(&fake).start().await;
    let is_suppressed = |snapshot: &NodeSnapshot| !snapshot.inventory.warnings.is_empty();
    node.plugin().until_snapshot("a warning", is_suppressed).await;
    node.log.has(
        "IxmlMemory is ignored: it would turn 3 of 4 boards unhealthy at once, so its source is \
         suspect",
    );
    assert_eq!(node.kubelet.view().borrow().allocatable(GPU), 4);
}

#[tokio::test]
async fn a_library_that_hangs_leaves_its_last_reading_and_health_samples_go_on() {
    let fake = Fake::new(&[], "count 4\nhealth.1 32\n");
    let node = asking(&fake).start().await;
    node.until("one board less", healthy(3)).await;
    fake.control("count 4\nhang health\n");
    let mut library = node.plugin().ixml.clone().unwrap();
    let is_stalled = |state: &IxmlState| matches!(state, IxmlState::Stalled { .. });
    soon("the call to hang", library.wait_for(is_stalled)).await.unwrap();
    assert_eq!(node.kubelet.view().borrow().allocatable(GPU), 3);

    let without = machine().replace("iluvatar3 : c 508:3\n", "");
    let ill = |snapshot: &NodeSnapshot| {
        snapshot.inventory.boards.iter().filter(|board| !board.reasons.is_empty()).count() == 2
    };
    node.change(&without, ill).await;
    node.until("another board less", healthy(2)).await;
}

#[tokio::test]
async fn disabling_libixml_ends_the_faults_that_it_reported() {
    let fake = Fake::new(&[], "count 4\nhealth.1 32\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    let library = fake.library();
    let config = |more: &str| {
        let text = format!("health: {{recovery: 0s, interval: 500ms, ixml: {more}}}\n");
        std::fs::write(file.path(), text).unwrap();
    };
    config(library.to_str().unwrap());
    let source = ConfigSource::new(Some(file.path()), Overrides::default());
    let node = asking(&fake).config_file(&source).start().await;
    node.until("one board less", healthy(3)).await;
    config("off");
    node.plugin().reload.notify_one();
    node.until("all boards again", healthy(4)).await;
}

#[tokio::test]
async fn auto_asks_no_library_of_this_machine_about_another_machine_s_chips() {
    let fake = Fake::new(&[], "count 4\nhealth.1 32\n");
    let mut settings = settings(IxmlChoice::Off);
    settings.env.ld_library_path = Some(fake.path().into());
    let node = asking_for(IxmlChoice::Auto).ixml(settings).start().await;
    node.until("four healthy boards", healthy(4)).await;
    assert_eq!(node.plugin().ixml.as_ref().unwrap().borrow().to_string(), "libixml is off");
}
