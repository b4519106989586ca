use super::{ConfigKey, TextForm, ValueKind, key};

pub static ENABLED: ConfigKey = key(
    "enabled",
    "false",
    "Write a CDI spec, and allocate devices by its names. Needs kubelet 1.28 or newer and a \
     runtime with CDI.",
    ValueKind::Boolean,
);
pub static SPEC_DIR: ConfigKey = key(
    "specDir",
    "\"/var/run/cdi\"",
    "Directory of the spec.",
    ValueKind::Text(TextForm::AbsolutePath),
);
pub static DEVICE_SPECS: ConfigKey = key(
    "deviceSpecs",
    "false",
    "With CDI, allocate plain device nodes as well.",
    ValueKind::Boolean,
);
