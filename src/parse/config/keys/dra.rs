use super::{
    ANY_NUMBER, ConfigKey, DRA_DEVICES_WORDS, DRA_FALLBACK_WORDS, MAX_REPLICAS, ReasonCode,
    ValueKind, key, words,
};

pub static DEVICES: ConfigKey = key(
    "devices",
    "",
    "What a device is: board, chip, or both (needs Kubernetes 1.36). Default: depends on \
     `flags.splitboard`.",
    ValueKind::Word(|| words(&DRA_DEVICES_WORDS)),
);
pub static FALLBACK: ConfigKey = key(
    "fallback",
    "",
    "What a device is where `devices` is both and the API server does not support it: board or \
     chip. Default: depends on `flags.splitboard`.",
    ValueKind::Word(|| words(&DRA_FALLBACK_WORDS)),
);
pub static SLOTS: ConfigKey = key(
    "slots",
    "",
    "How many claims may share a device (needs Kubernetes 1.36). 0 and 1: devices are not \
     shared. Not together with `devices: both`. Default: `sharing.timeSlicing.replicas`.",
    ValueKind::Integer(|| 0..=MAX_REPLICAS),
);
pub static EVICT: ConfigKey = key(
    "evict",
    "[]",
    "Reasons for which pods that hold the device are deleted, for example [IxmlGpuLost]. For other \
     reasons, only new pods are kept away.",
    ValueKind::List(
        ANY_NUMBER,
        &ValueKind::Word(|| ReasonCode::ALL.iter().map(|code| code.name()).collect()),
    ),
);
pub static EVENTS: ConfigKey =
    key("events", "true", "Report changes of health as events of the Node.", ValueKind::Boolean);
