//! The configuration as its users meet it: files in, effective configuration or messages out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ix_device_plugin::decide::node::list_limit::{KUBELET_LIST_LIMIT, largest_replicas};
use ix_device_plugin::model::config::{
    BoardRules, CdiRules, Config, ContainerRules, DiscoveryRules, DraOffer, DraRules, Granularity,
    HealthRules, LabelRules, Pairing, PodResourcesRules, ResourceRule, Selector, ServingMode,
    Sharing, SharingPolicy, StartVerification, VisibleDevices,
};
use ix_device_plugin::model::health::{ReasonCode, Severity};
use ix_device_plugin::model::ixml::IxmlChoice;
use ix_device_plugin::model::pci::{PciAddress, PciId};
use ix_device_plugin::parse::config::{Override, Overrides, parse_config, parse_config_with};
use ix_device_plugin::wire::config_yaml::effective_yaml;
use ix_device_plugin::wire::v1beta1;
use proptest::prelude::*;
use prost::Message;

/// The `.yaml` files of a folder, in order, with their text.
pub(crate) fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/configs").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// What stands beside a fixture. `UPDATE_FIXTURES=1` writes it anew, to be read in the diff.
#[track_caller]
fn check_beside(fixture: &Path, extension: &str, actual: &str) {
    let beside = fixture.with_extension(extension);
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::write(&beside, actual).unwrap();
    }
    let expected = fs::read_to_string(&beside).unwrap_or_default();
    assert_eq!(actual, expected, "{}", beside.display());
}

#[test]
fn every_good_file_has_the_effective_configuration_beside_it() {
    let files = files("good");
    assert!(files.len() >= 12, "{} files", files.len());
    for (path, text) in files {
        let config =
            parse_config(&text).unwrap_or_else(|problems| panic!("{}: {problems}", path.display()));
        let effective = effective_yaml(&config);
        check_beside(&path, "effective", &effective);
        assert_eq!(parse_config(&effective), Ok(config), "{}", path.display());
    }
}

#[test]
fn the_annotated_file_shows_the_defaults() {
    let (_, text) =
        files("good").into_iter().find(|(path, _)| path.ends_with("annotated.yaml")).unwrap();
    assert_eq!(parse_config(&text), Ok(Config::default()));
}

#[test]
fn every_bad_file_has_its_whole_message_beside_it() {
    let files = files("bad");
    assert!(files.len() >= 25, "{} files", files.len());
    for (path, text) in files {
        let problems = parse_config(&text).expect_err(&path.display().to_string());
        check_beside(&path, "expected", &format!("{problems}\n"));
    }
}

#[track_caller]
fn check_message(text: &str, overrides: &Overrides, expected: &str) {
    let problems = parse_config_with(text, overrides).unwrap_err();
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn a_problem_names_its_line_in_every_style_of_yaml() {
    let plain = Overrides::default();
    check_message(
        "\u{feff}# a comment\r\n\r\nflags: {\r\n  \"splitboard\":\r\n    7 }\r\n",
        &plain,
        "1 problem\n  line 5: flags.splitboard: `7` is not a boolean; write true or false",
    );
    check_message(
        "version: &x |\n  flags:\n    splitbord: 1\nflags: {? splitbord : *x}",
        &plain,
        "1 problem\n  line 4: flags.splitbord: unknown key; did you mean `splitboard`?",
    );
    check_message(
        "version: &x [1]\n\nflags: *x",
        &plain,
        "1 problem\n  line 1: flags: a list is not a mapping of keys to values",
    );
}

#[test]
fn a_key_at_the_wrong_place_is_sent_to_its_own() {
    let hints = [
        ("ixml: off", "ixml: unknown key here; did you mean `health.ixml`?"),
        (
            "boards: {interval: 5s}",
            "boards.interval: unknown key here; did you mean `health.interval`?",
        ),
        ("flags: {specDir: /a}", "flags.specDir: unknown key here; did you mean `cdi.specDir`?"),
        (
            "resources: [{name: a.b/c, pciId: '1e3e:0002'}]",
            "resources[0].pciId: unknown key here; did you mean `resources[].match.pciId`?",
        ),
    ];
    for (text, hint) in hints {
        check_message(text, &Overrides::default(), &format!("1 problem\n  line 1: {hint}"));
    }
}

#[test]
fn a_file_larger_than_a_config_map_is_refused_unread() {
    let text = "#".repeat((1 << 20) + 1);
    check_message(
        &text,
        &Overrides::default(),
        "1 problem\n  1048577 bytes are too many; a ConfigMap holds at most 1 MiB",
    );
    assert_eq!(parse_config(&text[1..]), Ok(Config::default()));
}

fn given(name: &str, text: &str) -> Override {
    Override { name: name.to_owned(), text: text.to_owned() }
}

#[test]
fn flags_and_variables_override_the_file() {
    let text = "resourceName: a.b/c\nflags: {splitboard: true, usevolcano: true}";
    let overrides = Overrides {
        resource_name: Some(given("--resource-name", "d.e/f")),
        split_board: Some(given("SPLIT_BOARD", "false")),
        use_volcano: Some(given("USE_VOLCANO", "0")),
        reset_gpu: Some(given("RESET_GPU", "F")),
        ..Overrides::default()
    };
    let config = parse_config_with(text, &overrides).unwrap();
    assert_eq!(config.resources[0].name, "d.e/f");
    assert_eq!(config.resources[0].granularity, Granularity::Board);

    let entries = "resources: [{name: a.b/c, match: {model: x}}, \
                   {name: a.b/d, match: {model: y}, splitboard: false}]";
    let overrides =
        Overrides { split_board: Some(given("--splitboard", "true")), ..Overrides::default() };
    let config = parse_config_with(entries, &overrides).unwrap();
    let granularities = config.resources.iter().map(|rule| rule.granularity);
    assert_eq!(granularities.collect::<Vec<_>>(), [Granularity::Chip, Granularity::Board]);
}

#[test]
fn the_mode_on_the_command_line_overrides_the_file() {
    let mode = |text: &str| Overrides { mode: Some(given("--mode", text)), ..Overrides::default() };
    let parsed =
        |text: &str, overrides: &Overrides| parse_config_with(text, overrides).unwrap().mode;
    assert_eq!(parsed("", &Overrides::default()), ServingMode::DevicePlugin);
    assert_eq!(parsed("mode: dra", &Overrides::default()), ServingMode::Dra);
    assert_eq!(parsed("mode: dra", &mode("device-plugin")), ServingMode::DevicePlugin);
    assert_eq!(parsed("", &mode("dra")), ServingMode::Dra);
    check_message("", &mode("DRA"), "--mode=DRA: not a mode; write device-plugin or dra");
}

#[test]
fn a_problem_with_a_flag_or_variable_names_it_and_its_value() {
    let overrides = Overrides {
        resource_name: Some(given("--resource-name", "gpu")),
        split_board: Some(given("SPLIT_BOARD", "maybe")),
        use_volcano: Some(given("USE_VOLCANO", "true")),
        reset_gpu: Some(given("--reset_gpu", "1")),
        ..Overrides::default()
    };
    let of_flags = "SPLIT_BOARD=maybe: not a boolean; write true or false
USE_VOLCANO=true: Volcano mode is not supported; unset it
--reset_gpu=1: resetting a GPU before use is not supported; unset it
--resource-name=gpu: a domain and a slash are needed, for example `iluvatar.com/gpu`";
    check_message("", &overrides, of_flags);
    check_message(
        "flags: {splitboard: 1}",
        &overrides,
        &format!(
            "1 problem\n  line 1: flags.splitboard: `1` is not a boolean; write true or false\n\
             {of_flags}"
        ),
    );
    let overrides = Overrides {
        resource_name: Some(given("--resource-name", "a.b/c")),
        ..Overrides::default()
    };
    check_message(
        "resources: [{name: a.b/c}]",
        &overrides,
        "--resource-name=a.b/c: cannot be combined with `resources`, where each entry has its own \
         name; remove one of the two",
    );
}

/// The longest list of one device, shared so often, as the kubelet receives it.
fn longest_list(replicas: u32) -> usize {
    let device = |index| v1beta1::Device {
        id: format!("ffffffff:ff:1f.7::{index}"),
        health: "Unhealthy".to_owned(),
        topology: Some(v1beta1::TopologyInfo {
            nodes: vec![v1beta1::NumaNode { id: u32::MAX.into() }; 2],
        }),
    };
    v1beta1::ListAndWatchResponse { devices: (0..replicas).map(device).collect() }.encoded_len()
}

#[test]
fn the_largest_number_of_replicas_just_fits_into_a_kubelets_list() {
    let limit = usize::try_from(KUBELET_LIST_LIMIT).unwrap();
    let largest = largest_replicas(1);
    assert!(longest_list(largest) <= limit);
    assert!(longest_list(largest + 1) > limit);
    let text = |replicas| format!("sharing: {{timeSlicing: {{replicas: {replicas}}}}}");
    assert!(parse_config(&text(largest)).is_ok());
    assert!(parse_config(&text(largest + 1)).is_err());
}

fn arb_address() -> impl Strategy<Value = PciAddress> {
    let domain = prop_oneof![Just(0_u32), any::<u32>()];
    (domain, any::<u8>(), 0_u8..32, 0_u8..8)
        .prop_map(|(domain, bus, device, function)| PciAddress { domain, bus, device, function })
}

fn arb_id() -> impl Strategy<Value = PciId> {
    any::<(u16, u16)>().prop_map(|(vendor, device)| PciId { vendor, device })
}

/// Texts that YAML would take for something else, and ordinary ones.
fn arb_text() -> impl Strategy<Value = String> {
    const TRAPS: [&str; 12] =
        ["off", "true", "~", "0x1", "1e3", "- a", "a: b", "#", "'", "\"", "007", "<<"];
    prop_oneof![
        prop::sample::select(TRAPS.as_slice()).prop_map(str::to_owned),
        "[^\\p{Cc}\\s]([^\\p{Cc}]{0,40}[^\\p{Cc}\\s])?",
    ]
}

/// Rules that do not overlap: each has a model of its own.
fn arb_resources() -> impl Strategy<Value = Vec<ResourceRule>> {
    let policy = prop_oneof![Just(SharingPolicy::Spread), Just(SharingPolicy::Pack)];
    let entry = (
        prop::option::of(arb_id()),
        prop::collection::btree_set(arb_address(), 0..4),
        any::<bool>(),
        prop::option::of(2_u32..=largest_replicas(1)),
    );
    let entries = prop::collection::vec(entry, 1..4);
    let names =
        prop::collection::btree_set("[a-z]{1,9}\\.[a-z]{1,9}/[a-z]([a-z._-]{0,61}[a-z])?", 4);
    let models = prop::collection::btree_set(arb_text(), 4);
    (entries, names, models, any::<bool>(), policy).prop_map(
        |(entries, names, models, fail_requests_greater_than_one, policy)| {
            let labels = names.into_iter().zip(models);
            entries
                .into_iter()
                .zip(labels)
                .map(|((pci_id, addresses, split, replicas), (name, model))| ResourceRule {
                    name,
                    selector: Selector {
                        model: Some(model),
                        pci_id,
                        addresses: addresses.into_iter().collect(),
                    },
                    granularity: if split { Granularity::Chip } else { Granularity::Board },
                    sharing: replicas.map(|replicas| Sharing {
                        replicas,
                        fail_requests_greater_than_one,
                        policy,
                    }),
                })
                .collect()
        },
    )
}

fn arb_boards() -> impl Strategy<Value = BoardRules> {
    (
        prop_oneof![Just(Pairing::Auto), Just(Pairing::Off)],
        prop::collection::btree_map(arb_id(), 1_usize..=16, 0..4),
        prop::collection::btree_set(arb_address(), 0..12),
        prop::collection::btree_map(arb_id(), arb_text(), 0..4),
    )
        .prop_map(|(pairing, chips_per_board, chips, models)| BoardRules {
            pairing,
            chips_per_board,
            pairs: chips
                .into_iter()
                .collect::<Vec<_>>()
                .chunks_exact(2)
                .map(<[_]>::to_vec)
                .collect(),
            models,
        })
}

fn arb_config() -> impl Strategy<Value = Config> {
    let vendors = prop::collection::btree_set(1_u16..0xffff, 1..4);
    let drivers = prop::collection::btree_set("[a-z0-9][a-z0-9_.-]{0,20}", 1..4);
    let nodes = prop::collection::btree_set("/dev/[a-z]{1,8}(/[^\\p{Cc}\\s/.]{1,8})?", 0..4);
    let discovery = (vendors, drivers, nodes, arb_duration(), prop::option::of(arb_path()));
    let discovery =
        discovery.prop_map(|(vendors, drivers, nodes, rescan, identities)| DiscoveryRules {
            vendor_ids: vendors.into_iter().collect(),
            drivers: drivers.into_iter().collect(),
            control_nodes: nodes.into_iter().collect(),
            rescan,
            identities,
        });
    let verification = prop_oneof![Just(StartVerification::On), Just(StartVerification::Off)];
    let container = (any::<prop::sample::Index>(), any::<bool>(), verification);
    let pods = prop::option::of(arb_duration()).prop_map(|interval| PodResourcesRules { interval });
    let others = (arb_dra(), pods, arb_labels());
    (arb_resources(), arb_boards(), discovery, container, arb_health(), arb_cdi(), others).prop_map(
        |(resources, boards, discovery, container, health, cdi, others)| {
            let (visible, legacy_variables, verification) = container;
            let ((mode, dra), pod_resources, labels) = others;
            Config {
                mode,
                resources,
                boards,
                container: arb_container(visible, legacy_variables, verification, &discovery),
                discovery,
                health,
                cdi,
                dra,
                pod_resources,
                labels,
            }
        },
    )
}

fn arb_dra() -> impl Strategy<Value = (ServingMode, DraRules)> {
    let mode = prop::sample::select(&[ServingMode::DevicePlugin, ServingMode::Dra][..]);
    let devices = prop::sample::select(&[DraOffer::Board, DraOffer::Chip, DraOffer::Both][..]);
    let fallback = prop::sample::select(&[Granularity::Board, Granularity::Chip][..]);
    let slots = prop::option::of(2_u32..=largest_replicas(1));
    let evict = prop::collection::btree_set(prop::sample::select(ReasonCode::ALL), 0..4);
    (mode, devices, fallback, slots, evict, any::<bool>()).prop_map(
        |(mode, devices, fallback, slots, evict, events)| {
            let slots = slots.filter(|_| devices != DraOffer::Both);
            (mode, DraRules { devices, fallback, slots, evict, events })
        },
    )
}

/// UUIDs only where a file has them.
fn arb_container(
    visible: prop::sample::Index,
    legacy_variables: bool,
    start_verification: StartVerification,
    discovery: &DiscoveryRules,
) -> ContainerRules {
    use VisibleDevices::{Addresses, None, Uuids, Void};
    let values = [Addresses, None, Void, Uuids];
    let values = if discovery.identities.is_some() { &values[..] } else { &values[..3] };
    ContainerRules { visible_devices: *visible.get(values), legacy_variables, start_verification }
}

fn arb_path() -> impl Strategy<Value = PathBuf> {
    "(/[a-z~#: -]{0,8}[a-z]){1,3}".prop_map(PathBuf::from)
}

fn arb_labels() -> impl Strategy<Value = LabelRules> {
    let directory = "(/[a-z~#: -]{0,8}[a-z]){1,3}".prop_map(PathBuf::from);
    (any::<bool>(), directory).prop_map(|(enabled, directory)| LabelRules { enabled, directory })
}

fn arb_cdi() -> impl Strategy<Value = CdiRules> {
    let directory = arb_path();
    (any::<bool>(), directory, any::<bool>())
        .prop_map(|(enabled, spec_dir, device_specs)| CdiRules { enabled, spec_dir, device_specs })
}

fn arb_health() -> impl Strategy<Value = HealthRules> {
    let code = prop::sample::select(ReasonCode::ALL);
    let severity =
        prop::sample::select(&[Severity::Ignore, Severity::Warn, Severity::Unhealthy][..]);
    let signals = prop::collection::btree_map(code, severity, 0..4);
    let ixml = prop_oneof![
        Just(IxmlChoice::Off),
        Just(IxmlChoice::Auto),
        "/[a-z0-9/ '\"#:_.-]{0,20}".prop_map(|path| IxmlChoice::Path(path.trim_end().into())),
    ];
    (arb_duration(), arb_duration(), ixml, signals).prop_map(
        |(interval, recovery, ixml, signals)| HealthRules { interval, recovery, ixml, signals },
    )
}

fn arb_duration() -> impl Strategy<Value = Duration> {
    (1_000_u64..10_000_000).prop_map(Duration::from_millis)
}

/// Whatever it is, it is a configuration or a message, and a configuration survives printing.
fn check_any(text: &str) {
    match parse_config(text) {
        Ok(config) => assert_eq!(parse_config(&effective_yaml(&config)), Ok(config)),
        Err(problems) => {
            let places: BTreeSet<_> = problems.problems.iter().map(|one| one.line).collect();
            let lines = text.lines().count().max(1);
            assert!(places.into_iter().flatten().all(|line| (1..=lines).contains(&line)));
            assert!(problems.to_string().lines().count() > 1);
        }
    }
}

proptest! {
    #[test]
    fn the_effective_configuration_reads_back_as_itself(config in arb_config()) {
        prop_assert_eq!(parse_config(&effective_yaml(&config)), Ok(config));
    }

    #[test]
    fn any_text_is_a_configuration_or_a_message(text in "(?s).{0,200}") {
        check_any(&text);
    }

    #[test]
    fn any_yaml_like_text_is_a_configuration_or_a_message(
        words in prop::collection::vec(
            prop::sample::select(
                ["flags", "splitboard", "resources", "name", "boards", "pairs", "sharing",
                 "timeSlicing", "replicas", ":", ": ", "\n", "  ", "- ", "[", "]", "{", "}", ",",
                 "&a ", "*a", "!t ", "? ", "|", ">", "'", "\"", "\t", "#", "---\n", "true", "0x1",
                 "1e3", "~", "<<", "a.b/c", "0000:13:00.0"].as_slice(),
            ),
            0..40,
        )
    ) {
        check_any(&words.concat());
    }

    #[test]
    fn a_damaged_file_is_a_configuration_or_a_message(
        file in prop::sample::select(files("good")),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0..3), 1..6),
    ) {
        let mut text: Vec<char> = file.1.chars().collect();
        for (place, character, edit) in edits {
            let place = place.index(text.len() + 1);
            match edit {
                0 if place < text.len() => { text.remove(place); }
                1 if place < text.len() => text[place] = character,
                _ => text.insert(place, character),
            }
        }
        check_any(&text.into_iter().collect::<String>());
    }
}
