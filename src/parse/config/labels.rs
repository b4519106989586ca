//! `labels`: whether the node gets labels, and where Node Feature Discovery reads them.

use super::keys;
use super::section::Section;
use crate::model::config::LabelRules;

const DIRECTORY: &str = "the absolute path of a directory, such as \
                         /etc/kubernetes/node-feature-discovery/features.d";

pub(super) fn read_labels(root: &Section) -> LabelRules {
    let labels = root.section(&keys::LABELS);
    let directory = labels.find(&keys::labels::DIRECTORY);
    LabelRules {
        enabled: labels.flag(&keys::labels::ENABLED),
        directory: directory
            .and_then(|cursor| cursor.absolute_path(DIRECTORY))
            .unwrap_or_else(|| LabelRules::default().directory),
    }
}
