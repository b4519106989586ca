//! `cdi`: whether containers get devices by CDI name, and where the spec is.

use super::keys;
use super::section::Section;
use crate::model::config::CdiRules;

const SPEC_DIR: &str = "the absolute path of a directory, such as /var/run/cdi";

pub(super) fn read_cdi(root: &Section) -> CdiRules {
    let cdi = root.section(&keys::CDI);
    CdiRules {
        enabled: cdi.flag(&keys::cdi::ENABLED),
        spec_dir: cdi
            .find(&keys::cdi::SPEC_DIR)
            .and_then(|cursor| cursor.absolute_path(SPEC_DIR))
            .unwrap_or_else(|| CdiRules::default().spec_dir),
        device_specs: cdi.flag(&keys::cdi::DEVICE_SPECS),
    }
}
