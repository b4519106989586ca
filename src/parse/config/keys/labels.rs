use super::{ConfigKey, TextForm, ValueKind, key};

pub static ENABLED: ConfigKey = key(
    "enabled",
    "false",
    "Write the feature file. Needs NFD, and not the vendor's feature discovery, in the cluster.",
    ValueKind::Boolean,
);
pub static DIRECTORY: ConfigKey = key(
    "directory",
    "\"/etc/kubernetes/node-feature-discovery/features.d\"",
    "Directory where NFD reads feature files.",
    ValueKind::Text(TextForm::AbsolutePath),
);
