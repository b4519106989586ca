//! `sharing`: how many times each device is offered. The words are those of NVIDIA's plugin.

use super::cursor::Cursor;
use super::keys::{self, POLICY_WORDS, time_slicing};
use super::section::Section;
use crate::model::config::{MAX_REPLICAS, Sharing, SharingPolicy};

/// `sharing` of every resource without its own.
pub(super) struct SharingDefaults {
    replicas: Option<u32>,
    rename: bool,
    fail_requests_greater_than_one: bool,
    policy: SharingPolicy,
}

impl SharingDefaults {
    /// How a resource is shared whose entry has these `replicas`, if it has any.
    pub(super) fn sharing(&self, replicas: Option<&Cursor>) -> Option<Sharing> {
        Some(Sharing {
            replicas: replicas.map_or(self.replicas, read_replicas)?,
            fail_requests_greater_than_one: self.fail_requests_greater_than_one,
            policy: self.policy,
        })
    }

    /// What a shared resource's name ends with.
    pub(super) fn suffix(&self) -> &'static str {
        if self.rename { ".shared" } else { "" }
    }
}

pub(super) fn read_sharing(root: &Section) -> SharingDefaults {
    let sharing = root.section(&keys::SHARING);
    if let Some(mps) = sharing.find(&keys::sharing::MPS).filter(|mps| !mps.is_empty_mapping()) {
        mps.problem("MPS is not supported; use `sharing.timeSlicing`");
    }
    let slicing = sharing.section(&keys::sharing::TIME_SLICING);
    if let Some(list) = slicing.find(&time_slicing::RESOURCES) {
        list.problem(
            "replicas by resource belong in the list `resources` at the top, as `name` and \
             `replicas`",
        );
    }
    SharingDefaults {
        replicas: slicing.find(&time_slicing::REPLICAS).and_then(read_replicas),
        rename: slicing.flag(&time_slicing::RENAME_BY_DEFAULT),
        fail_requests_greater_than_one: slicing.flag(&time_slicing::FAIL_REQUESTS_GREATER_THAN_ONE),
        policy: slicing
            .find(&time_slicing::POLICY)
            .and_then(|policy| policy.word(&POLICY_WORDS))
            .unwrap_or_default(),
    }
}

/// At least 2; 0 and 1 mean that devices are not shared.
pub(super) fn read_replicas(cursor: &Cursor) -> Option<u32> {
    let replicas = cursor.integer()?;
    if replicas < 0 {
        cursor
            .problem(format!("`{replicas}` is negative; write 0 for devices that are not shared"));
        return None;
    }
    // How many devices a node has is not known here; a single one is the least there can be.
    let largest = MAX_REPLICAS;
    match u32::try_from(replicas) {
        Ok(replicas) if replicas <= largest => (replicas > 1).then_some(replicas),
        _ => {
            cursor.problem(format!(
                "`{replicas}` replicas do not fit into the 4 MiB list that a kubelet reads; \
                 at most {largest} of one device do"
            ));
            None
        }
    }
}
