//! The keys of the configuration file, in one table. It serves the reader, its hints for unknown
//! keys, the printer of the effective configuration and the JSON Schema.
//!
//! Each key is a static, so a key that is read or printed without being in the table does not
//! compile.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::key::{ConfigKey, TextForm, ValueKind, key, section};
use crate::model::config::{
    DraOffer, Granularity, MAX_REPLICAS, Pairing, ServingMode, SharingPolicy, VisibleDevices,
};
use crate::model::health::{ReasonCode, Severity};

/// The words of [`MODE`].
pub const MODE_WORDS: [(&str, ServingMode); 2] =
    [("device-plugin", ServingMode::DevicePlugin), ("dra", ServingMode::Dra)];

/// The words of [`dra::DEVICES`].
pub const DRA_DEVICES_WORDS: [(&str, DraOffer); 3] =
    [("board", DraOffer::Board), ("chip", DraOffer::Chip), ("both", DraOffer::Both)];

/// The words of [`dra::FALLBACK`].
pub const DRA_FALLBACK_WORDS: [(&str, Granularity); 2] =
    [("board", Granularity::Board), ("chip", Granularity::Chip)];

/// The words of [`boards::PAIRING`].
pub const PAIRING_WORDS: [(&str, Pairing); 2] = [("auto", Pairing::Auto), ("off", Pairing::Off)];

/// The words of [`time_slicing::POLICY`].
pub const POLICY_WORDS: [(&str, SharingPolicy); 2] =
    [("spread", SharingPolicy::Spread), ("pack", SharingPolicy::Pack)];

/// The words of [`container::VISIBLE_DEVICES`].
pub const VISIBLE_DEVICES_WORDS: [(&str, VisibleDevices); 4] = [
    ("addresses", VisibleDevices::Addresses),
    ("uuids", VisibleDevices::Uuids),
    ("none", VisibleDevices::None),
    ("void", VisibleDevices::Void),
];

/// The words of the values of [`health::SIGNALS`].
pub const SEVERITY_WORDS: [(&str, Severity); 3] =
    [("ignore", Severity::Ignore), ("warn", Severity::Warn), ("unhealthy", Severity::Unhealthy)];

fn words<T: Copy>(table: &[(&'static str, T)]) -> Vec<&'static str> {
    table.iter().map(|(word, _)| *word).collect()
}

/// The word of a value; the first one for a value without a word, of which there is none.
pub fn word_of<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    let found = table.iter().find(|(_, meant)| meant == value);
    found.or(table.first()).map_or("", |(word, _)| word)
}

/// What tools that follow YAML 1.1 write for `off` when they rewrite a file.
const OFF_AS_BOOLEAN: ValueKind = ValueKind::False;

/// Each resource has a socket and a session of its own, and is compared with each other one.
pub const RESOURCE_LIMIT: usize = 64;

/// No board of this vendor has more than two chips; sixteen are a whole machine of today.
pub const CHIPS_PER_BOARD: RangeInclusive<u32> = 1..=16;

/// How many chips an entry of [`boards::PAIRS`] has.
pub const CHIPS_PER_PAIR: RangeInclusive<usize> = 2..=16;

/// A whole scan takes milliseconds; more often it would be polling.
pub const SHORTEST_RESCAN: Duration = Duration::from_secs(1);

/// A sample reads a few files of each chip; more often it would cost more than it shows.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(500);

/// A query lists every pod of the node; more often it would load the kubelet.
pub const SHORTEST_QUERY_INTERVAL: Duration = Duration::from_secs(1);

const ANY_NUMBER: RangeInclusive<usize> = 0..=usize::MAX;
const SOME: RangeInclusive<usize> = 1..=usize::MAX;

/// The whole file.
pub static CONFIG: [&ConfigKey; 14] = [
    &VERSION,
    &MODE,
    &RESOURCE_NAME,
    &FLAGS,
    &SHARING,
    &RESOURCES,
    &BOARDS,
    &DISCOVERY,
    &CONTAINER,
    &HEALTH,
    &CDI,
    &DRA,
    &POD_RESOURCES,
    &LABELS,
];

/// Keys of the replaced plugin. It takes them in upper and lower case, so files may have either.
pub(super) const ANY_CASE: [&str; 10] = [
    "version",
    "resourceName",
    "flags",
    "splitboard",
    "usevolcano",
    "reset_gpu",
    "sharing",
    "timeSlicing",
    "mps",
    "replicas",
];

/// `version`
pub static VERSION: ConfigKey = key(
    "version",
    "",
    "Ignored. Files of the replaced plugin have it: 4.2.0, and 4.1.1 from its operator.",
    ValueKind::Anything,
);

/// `mode`
pub static MODE: ConfigKey = key(
    "mode",
    "\"device-plugin\"",
    "How GPUs are offered. device-plugin: as extended resources. dra: as devices of \
     ResourceSlices. A change takes effect after a restart.",
    ValueKind::Word(|| words(&MODE_WORDS)),
);

/// `resourceName`
pub static RESOURCE_NAME: ConfigKey = key(
    "resourceName",
    "\"iluvatar.com/gpu\"",
    "The resource that pods request. Not together with `resources`.",
    ValueKind::Text(TextForm::Any),
);

/// `flags`
pub static FLAGS: ConfigKey = section(
    "flags",
    "Settings of the replaced plugin. A flag or environment variable overrides each of them.",
    &[&flags::SPLITBOARD, &flags::USEVOLCANO, &flags::RESET_GPU],
);

/// The keys of `flags`.
#[expect(missing_docs, reason = "each key has its meaning")]
pub mod flags {
    use super::{ConfigKey, ValueKind, key};

    pub static SPLITBOARD: ConfigKey = key(
        "splitboard",
        "false",
        "Offer each chip of a board as a device of its own.",
        ValueKind::Boolean,
    );
    pub static USEVOLCANO: ConfigKey =
        key("usevolcano", "false", "Volcano mode is not supported.", ValueKind::False);
    pub static RESET_GPU: ConfigKey =
        key("reset_gpu", "false", "Resetting a GPU before use is not supported.", ValueKind::False);
}

/// `sharing`
pub static SHARING: ConfigKey = section(
    "sharing",
    "How devices are shared, with the keys of NVIDIA's plugin.",
    &[&sharing::TIME_SLICING, &sharing::MPS],
);

/// The keys of `sharing`.
#[expect(missing_docs, reason = "each key has its meaning")]
pub mod sharing {
    use super::{ConfigKey, ValueKind, key, section, time_slicing};

    pub static TIME_SLICING: ConfigKey = section(
        "timeSlicing",
        "Offer each device several times.",
        &[
            &time_slicing::REPLICAS,
            &time_slicing::RENAME_BY_DEFAULT,
            &time_slicing::FAIL_REQUESTS_GREATER_THAN_ONE,
            &time_slicing::POLICY,
            &time_slicing::RESOURCES,
        ],
    );
    pub static MPS: ConfigKey = key("mps", "{}", "MPS is not supported.", ValueKind::EmptyMapping);
}

/// The keys of `sharing.timeSlicing`.
#[expect(missing_docs, reason = "each key has its meaning")]
pub mod time_slicing {
    use super::{ConfigKey, MAX_REPLICAS, POLICY_WORDS, ValueKind, key, words};

    pub static REPLICAS: ConfigKey = key(
        "replicas",
        "0",
        "How often each device is offered. 0 and 1: devices are not shared.",
        ValueKind::Integer(|| 0..=MAX_REPLICAS),
    );
    pub static RENAME_BY_DEFAULT: ConfigKey = key(
        "renameByDefault",
        "false",
        "Append `.shared` to the name of a shared resource.",
        ValueKind::Boolean,
    );
    pub static FAIL_REQUESTS_GREATER_THAN_ONE: ConfigKey = key(
        "failRequestsGreaterThanOne",
        "false",
        "Refuse a container that requests more than one replica.",
        ValueKind::Boolean,
    );
    pub static POLICY: ConfigKey = key(
        "policy",
        "\"spread\"",
        "spread: prefer replicas of the least shared device. pack: use as few devices as possible.",
        ValueKind::Word(|| words(&POLICY_WORDS)),
    );
    pub static RESOURCES: ConfigKey = key(
        "resources",
        "",
        "Not here: `resources` at the top has `name` and `replicas`.",
        ValueKind::Refused,
    );
}

/// `resources`
pub static RESOURCES: ConfigKey = key(
    "resources",
    "",
    "Several resources on one node, instead of `resourceName`.",
    ValueKind::List(1..=RESOURCE_LIMIT, &ValueKind::Section(&resource::KEYS)),
);

/// The keys of an entry of `resources`.
#[expect(missing_docs, reason = "each key has its meaning")]
pub mod resource {
    use super::{ConfigKey, MAX_REPLICAS, TextForm, ValueKind, key, section, selector};

    pub static KEYS: [&ConfigKey; 4] = [&NAME, &MATCH, &SPLITBOARD, &REPLICAS];
    pub static NAME: ConfigKey = ConfigKey {
        is_required: true,
        ..key("name", "", "The resource that pods request.", ValueKind::Text(TextForm::Any))
    };
    pub static MATCH: ConfigKey = section(
        "match",
        "The boards that it offers: those that meet every condition. Default: all.",
        &[&selector::MODEL, &selector::PCI_ID, &selector::ADDRESSES],
    );
    pub static SPLITBOARD: ConfigKey = key(
        "splitboard",
        "",
        "Overrides `flags.splitboard` for this resource.",
        ValueKind::Boolean,
    );
    pub static REPLICAS: ConfigKey = key(
        "replicas",
        "",
        "Overrides `sharing.timeSlicing.replicas` for this resource.",
        ValueKind::Integer(|| 0..=MAX_REPLICAS),
    );
}

/// The keys of `match`.
#[expect(missing_docs, reason = "each key has its meaning")]
pub mod selector {
    use super::{ConfigKey, SOME, TextForm, ValueKind, key};

    pub static MODEL: ConfigKey =
        key("model", "", "Model name, for example MR-V100.", ValueKind::Text(TextForm::Any));
    pub static PCI_ID: ConfigKey = key(
        "pciId",
        "",
        "Vendor and device id of the chips, for example \"1e3e:0003\".",
        ValueKind::Text(TextForm::PciId),
    );
    pub static ADDRESSES: ConfigKey = key(
        "addresses",
        "",
        "PCI addresses of chips, for example [\"0000:13:00.0\"].",
        ValueKind::List(SOME, &ValueKind::Text(TextForm::Address)),
    );
}

/// `boards`
pub static BOARDS: ConfigKey = section(
    "boards",
    "Which chips share a board.",
    &[&boards::PAIRING, &boards::CHIPS_PER_BOARD, &boards::PAIRS, &boards::MODELS],
);

/// The keys of `boards`.
#[expect(missing_docs, reason = "each key has its meaning")]
pub mod boards {
    use super::{
        ANY_NUMBER, CHIPS_PER_BOARD as CHIPS, CHIPS_PER_PAIR, ConfigKey, OFF_AS_BOOLEAN,
        PAIRING_WORDS, TextForm, ValueKind, key, words,
    };

    pub static PAIRING: ConfigKey = key(
        "pairing",
        "\"auto\"",
        "auto: find boards by slot, device id and bridges. off: only by `pairs`.",
        ValueKind::Either(&[ValueKind::Word(|| words(&PAIRING_WORDS)), OFF_AS_BOOLEAN]),
    );
    pub static CHIPS_PER_BOARD: ConfigKey = key(
        "chipsPerBoard",
        "{}",
        "How many chips a board has, by vendor and device id, for example {\"1e3e:0003\": 2}.",
        ValueKind::Map(TextForm::PciId, &ValueKind::Integer(|| CHIPS)),
    );
    pub static PAIRS: ConfigKey = key(
        "pairs",
        "[]",
        "Boards, each a list of its chips, for example [[\"0000:13:00.0\", \"0000:16:00.0\"]].",
        ValueKind::List(
            ANY_NUMBER,
            &ValueKind::List(CHIPS_PER_PAIR, &ValueKind::Text(TextForm::Address)),
        ),
    );
    pub static MODELS: ConfigKey = key(
        "models",
        "{}",
        "Model names by vendor and device id, for example {\"1e3e:0003\": \"BI-V150\"}.",
        ValueKind::Map(TextForm::PciId, &ValueKind::Text(TextForm::Any)),
    );
}

/// `discovery`
pub static DISCOVERY: ConfigKey = section(
    "discovery",
    "Which PCI functions are chips, and which nodes belong to them.",
    &[
        &discovery::VENDOR_IDS,
        &discovery::DRIVERS,
        &discovery::CONTROL_NODES,
        &discovery::RESCAN,
        &discovery::IDENTITIES,
    ],
);

/// The keys of `discovery`.
#[expect(missing_docs, reason = "each key has its meaning")]
pub mod discovery {
    use super::{ANY_NUMBER, ConfigKey, SOME, TextForm, ValueKind, key};

    pub static VENDOR_IDS: ConfigKey = key(
        "vendorIds",
        "[\"0x1e3e\"]",
        "PCI vendor ids of chips.",
        ValueKind::List(
            SOME,
            &ValueKind::Either(&[
                ValueKind::Text(TextForm::VendorId),
                ValueKind::Integer(|| 1..=0xfffe),
            ]),
        ),
    );
    pub static DRIVERS: ConfigKey = key(
        "drivers",
        "[\"iluvatar\", \"bi_driver\"]",
        "Kernel drivers that make a chip usable.",
        ValueKind::List(SOME, &ValueKind::Text(TextForm::Any)),
    );
    pub static CONTROL_NODES: ConfigKey = key(
        "controlNodes",
        "[\"/dev/itrctl\", \"/dev/itrlink\"]",
        "Device nodes that every container with a GPU gets, if they exist.",
        ValueKind::List(ANY_NUMBER, &ValueKind::Text(TextForm::DeviceNode)),
    );
    pub static RESCAN: ConfigKey = key(
        "rescan",
        "\"60s\"",
        "Rescan the machine at least this often; at least 1s.",
        ValueKind::Text(TextForm::Duration),
    );
    pub static IDENTITIES: ConfigKey = key(
        "identities",
        "",
        "CSV file with the UUIDs of the chips, as `ixsmi --query-gpu=index,uuid,pci.bus_id \
         --format=csv` prints it. Changes are applied while the plugin runs.",
        ValueKind::Text(TextForm::AbsolutePath),
    );
}

/// `container`
pub static CONTAINER: ConfigKey = section(
    "container",
    "What containers get.",
    &[&container::VISIBLE_DEVICES, &container::LEGACY_VARIABLES, &container::VERIFY_ON_START],
);

#[expect(missing_docs, reason = "each key has its meaning")]
pub mod container;

/// `health`
pub static HEALTH: ConfigKey = section(
    "health",
    "What makes a device unhealthy, and for how long.",
    &[&health::INTERVAL, &health::RECOVERY, &health::IXML, &health::SIGNALS],
);

/// The keys of `health`.
#[expect(missing_docs, reason = "each key has its meaning")]
pub mod health;

/// `cdi`
pub static CDI: ConfigKey = section(
    "cdi",
    "Devices by name, through the Container Device Interface.",
    &[&cdi::ENABLED, &cdi::SPEC_DIR, &cdi::DEVICE_SPECS],
);

/// The keys of `cdi`.
#[expect(missing_docs, reason = "each key has its meaning")]
pub mod cdi;

/// `dra`
pub static DRA: ConfigKey = section(
    "dra",
    "Dynamic resource allocation. Without effect where `mode` is device-plugin.",
    &[&dra::DEVICES, &dra::FALLBACK, &dra::SLOTS, &dra::EVICT, &dra::EVENTS],
);

/// The keys of `dra`.
#[expect(missing_docs, reason = "each key has its meaning")]
pub mod dra;

/// `podResources`
pub static POD_RESOURCES: ConfigKey = section(
    "podResources",
    "The kubelet's PodResources, which shows which pod holds which device.",
    &[&pod_resources::INTERVAL],
);

/// The keys of `podResources`.
#[expect(missing_docs, reason = "each key has its meaning")]
pub mod pod_resources;

/// `labels`
pub static LABELS: ConfigKey = section(
    "labels",
    "Labels of the node, by a feature file of Node Feature Discovery (NFD).",
    &[&labels::ENABLED, &labels::DIRECTORY],
);

/// The keys of `labels`.
#[expect(missing_docs, reason = "each key has its meaning")]
pub mod labels;

/// Each key with the path at which it belongs, in the order of the table. Entries of a list are
/// written `resources[].name`; refused keys are left out.
pub(super) fn paths() -> Vec<String> {
    let mut paths = Vec::new();
    collect_paths(&CONFIG, "", &mut paths);
    paths
}

fn collect_paths(keys: &[&ConfigKey], above: &str, paths: &mut Vec<String>) {
    for key in keys.iter().filter(|key| !matches!(key.kind, ValueKind::Refused)) {
        let path = format!("{above}{}", key.name);
        paths.push(path.clone());
        match &key.kind {
            ValueKind::Section(keys) => collect_paths(keys, &format!("{path}."), paths),
            ValueKind::List(_, ValueKind::Section(keys)) => {
                collect_paths(keys, &format!("{path}[]."), paths);
            }
            _ => {}
        }
    }
}
