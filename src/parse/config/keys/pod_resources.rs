use super::{ConfigKey, OFF_AS_BOOLEAN, TextForm, ValueKind, key};

pub static INTERVAL: ConfigKey = key(
    "interval",
    "\"15s\"",
    "Query PodResources at least this often; at least 1s. off: only after allocations and \
     changes of the node.",
    ValueKind::Either(&[
        ValueKind::Word(|| vec!["off"]),
        OFF_AS_BOOLEAN,
        ValueKind::Text(TextForm::Duration),
    ]),
);
