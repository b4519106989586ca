//! `cdi`: whether containers get devices by CDI name, and where the spec is.

use std::path::PathBuf;

use super::cursor::Cursor;
use super::keys;
use super::section::Section;
use crate::model::config::CdiRules;

pub(super) fn read_cdi(root: &Section) -> CdiRules {
    let cdi = root.section(&keys::CDI);
    CdiRules {
        enabled: cdi.flag(&keys::cdi::ENABLED),
        spec_dir: cdi
            .find(&keys::cdi::SPEC_DIR)
            .and_then(read_directory)
            .unwrap_or_else(|| CdiRules::default().spec_dir),
        device_specs: cdi.flag(&keys::cdi::DEVICE_SPECS),
    }
}

fn read_directory(cursor: &Cursor) -> Option<PathBuf> {
    let path = cursor.text()?;
    let plain = |name: &str| !matches!(name, "" | "." | "..");
    let absolute = path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain));
    if !absolute {
        cursor.mismatch("the absolute path of a directory, such as /var/run/cdi");
        return None;
    }
    Some(PathBuf::from(path))
}
