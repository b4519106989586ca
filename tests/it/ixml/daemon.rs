//! What libixml says, as the kubelet and the log have it: the whole daemon, with a library of C.

use std::time::Duration;

use ix_device_plugin::demo::kubelet::NodeView;
use ix_device_plugin::model::ixml::IxmlChoice;

use super::fake::{Fake, settings};
use crate::stage::{GPU, Script, Stage, is_streaming, node_text};

const FOUR: &str = "count 4\n";

/// Four boards, at the addresses where the fake library has its chips.
fn machine() -> String {
    let text = node_text("mr-v100-x4");
    let moved = [("15", "10"), ("2d", "11"), ("95", "12"), ("ad", "13")];
    moved.iter().fold(text, |text, (from, to)| {
        text.replace(&format!("0000:{from}:00.0"), &format!("0000:{to}:00.0"))
    })
}

/// A daemon that asks this library often, and forgets faults at once.
fn asking(fake: &Fake) -> Script {
    let mut script = Script::fixed("");
    script.config.health.interval = Duration::from_millis(10);
    script.config.health.recovery = Duration::ZERO;
    script.config.health.ixml = IxmlChoice::Path(fake.library());
    script.ixml = Some(settings(IxmlChoice::Off));
    script
}

fn healthy(count: usize) -> impl FnMut(&NodeView) -> bool {
    move |view| is_streaming(view, GPU) && view.allocatable(GPU) == count
}

#[tokio::test]
async fn a_fault_that_libixml_reports_reaches_the_kubelet_with_its_reason_and_passes() {
    let fake = Fake::new(&[], FOUR);
    let stage = Stage::play(&machine(), asking(&fake)).await;
    stage.until("four healthy boards", healthy(4)).await;

    fake.control("count 4\nhealth.1 4\ntemperature.1 97\n");
    stage.until("one board less", healthy(3)).await;
    let said = "reasons=\"IxmlOverTemperature: 0000:11:00.0: libixml reports OVER_TEMPERATURE at \
                97 °C\"";
    stage.log.says(said).await;

    fake.control(FOUR);
    stage.until("all boards again", healthy(4)).await;
}

#[tokio::test]
async fn a_library_that_calls_most_chips_ill_at_once_is_suspected_itself() {
    // From the first reading on: one that is taken while this changes would show half of it.
    let fake = Fake::new(&[], "count 4\nhealth.0 32\nhealth.1 32\nhealth.2 32\n");
    let stage = Stage::play(&machine(), asking(&fake)).await;
    stage
        .log
        .says(
            "IxmlMemory would make 3 of 4 chips unhealthy at once; the signal is suspected, not \
             the chips, and nothing changes",
        )
        .await;
    assert_eq!(stage.kubelet.view().borrow().allocatable(GPU), 4);
}

#[tokio::test]
async fn a_library_that_hangs_leaves_what_it_said_and_the_looks_at_sys_go_on() {
    let fake = Fake::new(&[], "count 4\nhealth.1 32\n");
    let mut stage = Stage::play(&machine(), asking(&fake)).await;
    stage.until("one board less", healthy(3)).await;
    fake.control("count 4\nhang health\n");
    stage.log.says("libixml does not answer; what it said last stays in force").await;
    assert_eq!(stage.kubelet.view().borrow().allocatable(GPU), 3);

    let without = machine().replace("iluvatar3 : c 508:3\n", "");
    let ill = |snapshot: &ix_device_plugin::decide::node::advertise::NodeSnapshot| {
        snapshot.inventory.boards.iter().filter(|board| !board.reasons.is_empty()).count() == 2
    };
    stage.change(&without, ill).await;
    stage.until("another board less", healthy(2)).await;
}

#[tokio::test]
async fn a_library_that_is_not_wanted_any_more_takes_back_what_it_said() {
    let fake = Fake::new(&[], "count 4\nhealth.1 32\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    let source = ix_device_plugin::host::config_file::ConfigSource::new(
        Some(file.path()),
        ix_device_plugin::parse::config::Overrides::default(),
    );
    let mut script = asking(&fake);
    script.source = Some(source);
    let stage = Stage::play(&machine(), script).await;
    stage.until("one board less", healthy(3)).await;
    std::fs::write(file.path(), "health: {ixml: off, recovery: 0s, interval: 500ms}\n").unwrap();
    stage.bound().reload.notify_one();
    stage.until("all boards again", healthy(4)).await;
}

#[tokio::test]
async fn auto_asks_no_library_of_this_machine_about_another_machine_s_chips() {
    let fake = Fake::new(&[], "count 4\nhealth.1 32\n");
    let mut script = asking(&fake);
    script.config.health.ixml = IxmlChoice::Auto;
    let mut settings = settings(IxmlChoice::Off);
    settings.places.ld_library_path = Some(fake.path().into());
    script.ixml = Some(settings);
    let stage = Stage::play(&machine(), script).await;
    stage.until("four healthy boards", healthy(4)).await;
    assert_eq!(stage.bound().ixml.as_ref().unwrap().borrow().to_string(), "libixml is not asked");
}
