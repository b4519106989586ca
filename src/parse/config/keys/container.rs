//! The keys of `container`.

use super::{ConfigKey, VISIBLE_DEVICES_WORDS, ValueKind, key, words};

pub static VISIBLE_DEVICES: ConfigKey = key(
    "visibleDevices",
    "\"addresses\"",
    "The value of IX_VISIBLE_DEVICES. addresses: PCI addresses of the chips. uuids: their UUIDs, \
     from discovery.identities. none, void: that word.",
    ValueKind::Word(|| words(&VISIBLE_DEVICES_WORDS)),
);
pub static LEGACY_VARIABLES: ConfigKey = key(
    "legacyVariables",
    "",
    "Set ILUVATAR_COREX_VISIBLE_DEVICES and ILUVATAR_COREX_REPLICA_DEVICES too. Default: true \
     with `visibleDevices: uuids`, else false.",
    ValueKind::Boolean,
);
pub static VERIFY_ON_START: ConfigKey = key(
    "verifyOnStart",
    "true",
    "Verify at each start of a container that it still gets the chips that it was allocated. While \
     the plugin is down no container with a GPU starts; the kubelet retries. false: containers \
     start without the plugin, and after device nodes were renumbered one may get another chip.",
    ValueKind::Boolean,
);
