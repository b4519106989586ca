//! Cordons as `status` and `cordon --list` show them.

use serde::{Deserialize, Serialize};

use super::columns::columns;
use super::paint::Paint;
use crate::model::cordon::{Cordon, CordonState, CordonUsage, Cordons};
use crate::model::pci::PciAddress;
use crate::model::pod_usage::Holder;

const HEADING: &[&str] = &["CORDONED", "CHIPS", "REASON"];

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct CordonStatus {
    /// What was cordoned: the address of a board or of a chip.
    pub(super) id: String,
    pub(super) chips: Vec<String>,
    pub(super) reason: Option<String>,
    /// Containers that still hold it, as `NAMESPACE/POD/CONTAINER`: none once it is drained, absent
    /// while that is unknown.
    pub(super) pods: Option<Vec<String>>,
}

pub(super) fn cordon_status(state: &CordonState) -> CordonStatus {
    let CordonState { id, cordon, usage } = state;
    CordonStatus {
        id: id.to_string(),
        chips: texts(cordon),
        reason: cordon.reason.as_ref().map(ToString::to_string),
        pods: match usage {
            CordonUsage::Unknown => None,
            CordonUsage::Drained => Some(Vec::new()),
            CordonUsage::Held(holders) => Some(holders.iter().map(path).collect()),
        },
    }
}

fn path(holder: &Holder) -> String {
    let Holder { namespace, pod, container } = holder;
    format!("{namespace}/{pod}/{container}")
}

fn texts(cordon: &Cordon) -> Vec<String> {
    cordon.chips.iter().map(ToString::to_string).collect()
}

/// A line of the status table.
pub(super) fn cordon_line(status: &CordonStatus) -> String {
    let reason = status.reason.as_ref().map_or(String::new(), |reason| format!("{reason}; "));
    let usage = match status.pods.as_deref() {
        None => "which pods hold it is unknown".to_owned(),
        Some([]) => "drained".to_owned(),
        Some(pods) => format!("held by {}", pods.join(", ")),
    };
    format!("{}  {reason}{usage}", status.id)
}

/// What `cordon --list` prints.
#[must_use]
pub fn cordon_table(cordons: &Cordons, paint: Paint) -> String {
    if cordons.is_empty() {
        return "nothing is cordoned\n".to_owned();
    }
    let row = |(id, cordon): (&PciAddress, &Cordon)| {
        let reason = cordon.reason.as_ref().map_or("-".to_owned(), ToString::to_string);
        vec![id.to_string(), texts(cordon).join(","), reason]
    };
    columns(HEADING, &cordons.iter().map(row).collect::<Vec<_>>(), paint, |_, _, cell| {
        cell.to_owned()
    })
}
