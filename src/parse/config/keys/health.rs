use super::{ConfigKey, OFF_AS_BOOLEAN, SEVERITY_WORDS, TextForm, ValueKind, key, words};

pub static INTERVAL: ConfigKey = key(
    "interval",
    "\"5s\"",
    "Time between two health samples; at least 500ms.",
    ValueKind::Text(TextForm::Duration),
);
pub static RECOVERY: ConfigKey = key(
    "recovery",
    "\"30s\"",
    "How long a fault must be absent before the device is healthy again.",
    ValueKind::Text(TextForm::Duration),
);
pub static IXML: ConfigKey = key(
    "ixml",
    "\"auto\"",
    "libixml as a second source of health. auto: the first that loads of LD_LIBRARY_PATH, \
     COREX_HOME and the usual directories. off: none. A path: that library only.",
    ValueKind::Either(&[
        ValueKind::Word(|| vec!["auto", "off"]),
        OFF_AS_BOOLEAN,
        ValueKind::Text(TextForm::AbsolutePath),
    ]),
);
pub static SIGNALS: ConfigKey = key(
    "signals",
    "{}",
    "Signals with another severity than their default, for example {AerNonFatal: unhealthy}.",
    ValueKind::Signals(&ValueKind::Word(|| words(&SEVERITY_WORDS))),
);
