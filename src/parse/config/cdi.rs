//! `cdi`: whether container runtimes are told names of the devices, and where.

use std::path::PathBuf;

use super::cursor::Cursor;
use super::section::Section;
use crate::model::config::CdiRules;

const KEYS: [&str; 3] = ["enabled", "specDir", "deviceSpecs"];

pub(super) fn read_cdi(root: &Section) -> CdiRules {
    let cdi = root.section("cdi", &KEYS);
    CdiRules {
        enabled: cdi.flag("enabled"),
        spec_dir: cdi
            .find("specDir")
            .and_then(read_directory)
            .unwrap_or_else(|| CdiRules::default().spec_dir),
        device_specs: cdi.flag("deviceSpecs"),
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
