//! `flags`, each of which a flag or environment variable may override.

use super::Overrides;
use super::cursor::{Cursor, Reading};
use super::section::Section;
use crate::model::config::Granularity;

const KEYS: [&str; 3] = ["splitboard", "usevolcano", "reset_gpu"];

const NO_VOLCANO: &str =
    "the Volcano mode is not supported; set it to false: the kubelet chooses the devices";
const NO_RESET: &str = "resetting a GPU before it is handed out is not supported; set it to false";

/// Refuses what is not supported; tells what a device is.
pub(super) fn read_flags(root: &Section, overrides: &Overrides, reading: &Reading) -> Granularity {
    let flags = root.section("flags", &KEYS);
    let refuse = |key, value, flag, message| {
        let file = flags.find(key).filter(|cursor| cursor.boolean() == Some(true));
        match (value, file) {
            (Some(true), _) => reading.flag_problem(flag, message),
            (None, Some(cursor)) => cursor.problem(message),
            _ => {}
        }
    };
    let volcano = "--usevolcano (USE_VOLCANO)";
    refuse("usevolcano", overrides.use_volcano, volcano, NO_VOLCANO);
    let reset = "--reset_gpu (RESET_GPU)";
    refuse("reset_gpu", overrides.reset_gpu, reset, NO_RESET);
    // Read even when overridden: a value that is no boolean is an error all the same.
    let split = flags.flag("splitboard");
    granularity(overrides.split_board.unwrap_or(split))
}

/// `splitboard` of one resource, or `default` where it says nothing.
pub(super) fn read_granularity(cursor: Option<&Cursor>, default: Granularity) -> Granularity {
    cursor.and_then(Cursor::boolean).map_or(default, granularity)
}

fn granularity(split: bool) -> Granularity {
    if split { Granularity::Chip } else { Granularity::Board }
}
