use super::{ConfigKey, TextForm, ValueKind, key};

pub static ENABLED: ConfigKey = key(
    "enabled",
    "false",
    "Write the feature file. Needs NFD in the cluster; do not run the vendor's feature discovery \
     beside it.",
    ValueKind::Boolean,
);
pub static DIRECTORY: ConfigKey = key(
    "directory",
    "\"/etc/kubernetes/node-feature-discovery/features.d\"",
    "Directory where NFD reads feature files.",
    ValueKind::Text(TextForm::AbsolutePath),
);
