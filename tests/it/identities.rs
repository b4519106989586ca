//! The chips' UUIDs: the file that has them, and what becomes of it in lists, containers and reports.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use ix_device_plugin::decide::allocation::allocate::{AllocationContext, allocate};
use ix_device_plugin::decide::node::state::snapshot_with;
use ix_device_plugin::host::files;
use ix_device_plugin::model::health::Health;
use ix_device_plugin::model::identity::{ChipUuid, IdentitiesReading};
use ix_device_plugin::model::pci::PciAddress;
use ix_device_plugin::parse::config::parse_config;
use ix_device_plugin::parse::identities::parse_identities;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::binary::{run, stdout_of};
use crate::support::fixtures::{node_text, scan_text};
use crate::support::node_rig::NodeRig;
use crate::support::test_node::{ONLY_EVENTS, TestNode};

/// The UUIDs of the sixteen chips of `bi-v150-x8`.
const ALL: &str = include_str!("../../fixtures/identities/bi-v150-x8.csv");

/// The id of the first board, and what it is called in the file.
const FIRST: &str = "0000:13:00.0";
const UUID: &str = "GPU-5020332b-19bd-52dd-9a9c-00496701884f";
const OTHER_UUID: &str = "GPU-75401a56-2224-5257-8e2c-8f6dac7c37bc";

/// The whole environment of one container, with what it requests.
fn environment(yaml: &str, ids: &[&str]) -> String {
    let config = parse_config(yaml).unwrap();
    let scan = scan_text(&node_text("bi-v150-x8"), &config);
    let reading = config
        .discovery
        .identities
        .clone()
        .map(|path| IdentitiesReading { path, result: Ok(parse_identities(ALL).unwrap()) });
    let snapshot = snapshot_with(scan, reading, &config);
    let context = AllocationContext {
        resource: &snapshot.resources[0],
        inventory: &snapshot.inventory,
        container: snapshot.container,
        cdi: None,
    };
    let ids: Vec<_> = ids.iter().map(|id| (*id).to_owned()).collect();
    let mut text = format!("  {}\n", ids.join(" "));
    for (name, value) in allocate(&context, &ids).unwrap().env {
        writeln!(text, "    {name}={}", value.replace(',', "\n      ,")).unwrap();
    }
    text
}

#[test]
fn every_setting_has_its_whole_environment() {
    const SPLIT: &str = "flags: {splitboard: true}\n";
    const SHARED: &str = "sharing: {timeSlicing: {replicas: 3}}\n";
    let settings = [
        "container: {visibleDevices: addresses}",
        "container: {visibleDevices: addresses, legacyVariables: true}",
        "container: {visibleDevices: uuids}\ndiscovery: {identities: /ids.csv}",
        "container: {visibleDevices: uuids, legacyVariables: false}\ndiscovery: {identities: /ids.csv}",
        "container: {visibleDevices: none}",
        "container: {visibleDevices: none, legacyVariables: true}",
        "container: {visibleDevices: void}",
        "container: {visibleDevices: void, legacyVariables: true}",
    ];
    let mut text = String::new();
    for setting in settings {
        writeln!(text, "{setting}").unwrap();
        text += &environment(setting, &["0000:27:00.0"]);
        text += &environment(setting, &["0000:34:00.0", FIRST]);
        text += &environment(&format!("{SPLIT}{setting}"), &["0000:16:00.0"]);
        text += &environment(
            &format!("{SHARED}{setting}"),
            &["0000:13:00.0::2", "0000:13:00.0::0", "0000:1c:00.0::1"],
        );
        text.push('\n');
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("environment", text));
}

/// A file that is replaced as a whole, as an init container does it.
struct IdentitiesFile {
    directory: TempDir,
}

impl IdentitiesFile {
    fn new() -> Self {
        Self { directory: TempDir::new().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("identities.csv")
    }

    fn write(&self, text: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path()).unwrap();
    }

    fn config(&self) -> String {
        let path = self.path();
        let discovery = format!("identities: {}, rescan: 1h", path.display());
        let events = ONLY_EVENTS.replace("rescan: 1h", &discovery);
        format!("{events}container: {{visibleDevices: uuids}}\n")
    }

    async fn start(&self) -> NodeRig {
        TestNode::fixture("bi-v150-x8").config(&self.config()).with_http().start().await
    }
}

async fn visible(node: &NodeRig, pod: &str) -> String {
    let admission = node.admit(pod, "iluvatar.com/gpu", 1).await;
    admission.containers[0].injection.envs["IX_VISIBLE_DEVICES"].clone()
}

/// Waits until the kubelet has so many healthy devices, and the warnings are these.
async fn until(node: &NodeRig, healthy: usize, warnings: &[&str]) {
    let is_so = |snapshot: &ix_device_plugin::decide::node::snapshot::NodeSnapshot| {
        let shown = snapshot.warnings.iter().filter(|it| it.code.name() == "IdentitiesFile");
        let shown: Vec<_> = shown.map(ToString::to_string).collect();
        shown.len() == warnings.len()
            && shown.iter().zip(warnings).all(|(is, wanted)| is.ends_with(wanted))
    };
    node.plugin().until_snapshot(&format!("the warnings {warnings:?}"), is_so).await;
    node.until_healthy(healthy).await;
}

#[tokio::test]
async fn containers_get_uuids_from_the_first_list_on() {
    let file = IdentitiesFile::new();
    file.write(ALL);
    let node = file.start().await;
    assert_eq!(node.kubelet.view().borrow().allocatable("iluvatar.com/gpu"), 8);
    assert_eq!(node.kubelet.view().borrow().resources["iluvatar.com/gpu"].lists_received, 1);
    let given = visible(&node, "pod").await;
    assert_eq!(given.split(',').count(), 2);
    assert!(given.split(',').all(|uuid| ALL.contains(uuid)), "{given}");
}

#[tokio::test]
async fn a_file_that_appears_makes_the_devices_healthy() {
    let file = IdentitiesFile::new();
    let node = file.start().await;
    until(&node, 0, &[": No such file or directory (os error 2)"]).await;
    let reason = "the file of discovery.identities has no UUID of 0000:13:00.0";
    node.shows("/status", reason).await;
    node.shows("/metrics", "\niluvatar_device_plugin_device_unhealthy{resource=\"iluvatar.com/gpu\",device=\"0000:13:00.0\",reason=\"UuidUnknown\"} 1.0\n").await;
    file.write(ALL);
    until(&node, 8, &[]).await;
    node.shows("/status", UUID).await;
    let labelled = format!(
        "\niluvatar_device_plugin_link_below_maximum{{chip=\"{FIRST}\",uuid=\"{UUID}\"}} 0.0\n"
    );
    node.shows("/metrics", &labelled).await;
}

#[tokio::test]
async fn a_change_of_the_file_changes_what_containers_get() {
    let file = IdentitiesFile::new();
    file.write(ALL);
    let node = file.start().await;
    file.write(&ALL.replace(UUID, OTHER_UUID));
    node.shows("/status", OTHER_UUID).await;
    until(&node, 8, &[]).await;
}

#[tokio::test]
async fn a_file_that_is_missing_or_damaged_costs_no_device() {
    let file = IdentitiesFile::new();
    file.write(ALL);
    let node = file.start().await;
    fs::remove_file(file.path()).unwrap();
    until(&node, 8, &["(os error 2); keeping the UUIDs that it had"]).await;
    file.write(&format!("{ALL}16, {UUID}, 00000000:99:00.0\n"));
    let twice = format!(
        ": line 18: {UUID} is in line 2 already; write the file with `ixsmi \
         --query-gpu=index,uuid,pci.bus_id --format=csv`; keeping the UUIDs that it had"
    );
    until(&node, 8, &[&twice]).await;
    file.write("");
    let empty = ": the file is empty; write it with `ixsmi --query-gpu=index,uuid,pci.bus_id \
                 --format=csv`; keeping the UUIDs that it had";
    until(&node, 8, &[empty]).await;
    file.write(ALL);
    until(&node, 8, &[]).await;
}

#[tokio::test]
async fn a_bad_line_costs_the_board_of_its_chip() {
    let file = IdentitiesFile::new();
    file.write(&ALL.replace(UUID, "[Unknown Error]"));
    let node = file.start().await;
    let line = ": line 2: 0000:13:00.0: `[Unknown Error]` is not a UUID such as \
                `GPU-75401a56-2224-5257-8e2c-8f6dac7c37bc`";
    until(&node, 7, &[line]).await;
    node.until_health(FIRST, Some(Health::Unhealthy)).await;
}

#[tokio::test]
async fn a_file_that_knows_one_chip_leaves_the_others_unhealthy() {
    let file = IdentitiesFile::new();
    file.write(&format!("pci.bus_id,uuid\n{FIRST},{UUID}\n"));
    let config = format!("flags: {{splitboard: true}}\n{}", file.config());
    let node = TestNode::fixture("bi-v150-x8").config(&config).start().await;
    until(&node, 1, &[]).await;
    node.until_health(FIRST, Some(Health::Healthy)).await;
    assert_eq!(visible(&node, "pod").await, UUID);
}

#[tokio::test]
async fn the_file_is_followed_without_inotify() {
    let file = IdentitiesFile::new();
    let node = TestNode::fixture("bi-v150-x8").config(&file.config()).without_inotify();
    let node = node.start().await;
    until(&node, 0, &[": No such file or directory (os error 2)"]).await;
    file.write(ALL);
    until(&node, 8, &[]).await;
}

#[tokio::test]
async fn the_configuration_can_name_another_file_without_a_moment_of_unknown_uuids() {
    let (file, other) = (IdentitiesFile::new(), IdentitiesFile::new());
    file.write(ALL);
    other.write(&ALL.replace(UUID, OTHER_UUID));
    let config = file.directory.path().join("config.yaml");
    fs::write(&config, file.config()).unwrap();
    let source = ix_device_plugin::host::config_file::ConfigSource::new(
        Some(&config),
        ix_device_plugin::parse::config::Overrides::default(),
    );
    let node = TestNode::fixture("bi-v150-x8").config_file(&source).with_http().start().await;
    fs::write(&config, other.config()).unwrap();
    node.shows("/status", OTHER_UUID).await;
    until(&node, 8, &[]).await;
    let lists = node.kubelet.view().borrow().resources["iluvatar.com/gpu"].lists_received;
    assert_eq!(lists, 1, "no device was ever unhealthy");
}

#[test]
fn discover_shows_the_uuids() {
    let (root, directory) = ("fixtures/nodes/bi-v150-x8.node", TempDir::new().unwrap());
    let config = directory.path().join("config.yaml");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/identities/bi-v150-x8.csv");
    fs::write(&config, format!("discovery: {{identities: {}}}", file.display())).unwrap();
    let arguments = ["--root", root, "--config", config.to_str().unwrap(), "discover"];
    let table = stdout_of(&arguments);
    let first = table.lines().nth(1).unwrap();
    assert!(first.starts_with(FIRST) && first.ends_with(UUID), "{table}");
    let json = stdout_of(&[&arguments[..], &["-o", "json"]].concat());
    assert!(json.contains(&format!("\"uuid\": \"{UUID}\"")), "{json}");
}

#[test]
fn doctor_names_the_chips_without_a_uuid() {
    let directory = TempDir::new().unwrap();
    let (file, config) = (directory.path().join("ids.csv"), directory.path().join("config.yaml"));
    files::write(&file, format!("pci.bus_id,uuid\n{FIRST},{UUID}\n").as_bytes()).unwrap();
    let yaml = format!(
        "discovery: {{identities: {}}}\ncontainer: {{visibleDevices: uuids}}",
        file.display()
    );
    fs::write(&config, yaml).unwrap();
    let root = ["--root", "fixtures/nodes/bi-v150-x8.node", "--config", config.to_str().unwrap()];
    let report = run(&[&root[..], &["doctor"]].concat());
    let missing = "no UUID of 0000:16:00.0";
    assert!(report.stdout.contains(missing), "{}", report.stdout);
    assert!(!report.stdout.contains("no UUID of 0000:13:00.0"), "{}", report.stdout);
}

fn arb_address() -> impl Strategy<Value = PciAddress> {
    (0_u32..=0xffff, any::<u8>(), 0_u8..32, 0_u8..8)
        .prop_map(|(domain, bus, device, function)| PciAddress { domain, bus, device, function })
}

/// A header and its lines, the needed columns among others and spelled in any way.
fn written(chips: &[(PciAddress, ChipUuid)], order: usize, style: (bool, bool, bool)) -> String {
    let (is_upper, is_wide, has_spaces) = style;
    let comma = if has_spaces { " , " } else { "," };
    let case = |text: String| if is_upper { text.to_uppercase() } else { text };
    let line = |address: String, uuid: String| {
        let mut cells = vec![uuid, "Iluvatar BI-V150".to_owned()];
        cells.insert(order % 3, address);
        cells.join(comma) + "\r\n"
    };
    let mut text = case(line("pci.bus_id".to_owned(), "uuid".to_owned()));
    for (address, uuid) in chips {
        let PciAddress { domain, bus, device, function } = address;
        let wide = format!("{domain:08x}:{bus:02x}:{device:02x}.{function}");
        let address = if is_wide { wide } else { address.to_string() };
        text += &line(case(address), uuid.to_string());
    }
    text
}

proptest! {
    #[test]
    fn a_file_reads_the_same_in_every_spelling(
        addresses in prop::collection::btree_set(arb_address(), 0..20),
        order in 0_usize..3,
        style in any::<(bool, bool, bool)>(),
    ) {
        let uuid = |number: usize| {
            format!("GPU-{number:08x}-19bd-52dd-9a9c-00496701884f").parse::<ChipUuid>().unwrap()
        };
        let chips: Vec<_> =
            addresses.into_iter().enumerate().map(|(at, address)| (address, uuid(at))).collect();
        let read = parse_identities(&written(&chips, order, style)).unwrap();
        prop_assert_eq!(read.uuids.into_iter().collect::<Vec<_>>(), chips);
        prop_assert_eq!(read.bad_lines, Vec::<String>::new());
    }

    #[test]
    fn any_text_is_a_file_or_a_message(text in "(?s)(uuid,pci.bus_id\n)?.{0,200}") {
        if let Err(error) = parse_identities(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

#[test]
fn a_file_that_is_cut_off_gives_no_chip_a_wrong_uuid() {
    let known = parse_identities(ALL).unwrap().uuids;
    for end in 0..ALL.len() {
        let Ok(read) = parse_identities(&ALL[..end]) else { continue };
        assert!(read.uuids.iter().all(|(chip, uuid)| known[chip] == *uuid), "{end}");
    }
}
