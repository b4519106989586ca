//! Chips whose error recovery the kernel announced, and that did not come back from it yet.

use std::collections::BTreeMap;

use super::tracker::{BoardOfChip, ChipReasons};
use crate::model::health::{Reason, ReasonCode};
use crate::model::pci::PciAddress;
use crate::model::pci_error::PciErrorEvent;

/// The signals that such an event can show.
pub const SCOPE: &[ReasonCode] = &[ReasonCode::PcieErrorRecovery];

/// The last event of each chip whose recovery has begun or failed.
#[derive(Clone, Debug, Default)]
pub struct ErrorRecoveries(BTreeMap<PciAddress, Unfinished>);

#[derive(Clone, Copy, Debug)]
enum Unfinished {
    Begun,
    Failed,
}

impl ErrorRecoveries {
    /// Takes in an event; returns whether it changes anything.
    pub fn event(&mut self, chip: PciAddress, event: PciErrorEvent) -> bool {
        let unfinished = match event {
            PciErrorEvent::RecoveryBegan => Unfinished::Begun,
            PciErrorEvent::RecoveryFailed => Unfinished::Failed,
            PciErrorEvent::RecoverySucceeded | PciErrorEvent::Restarted => {
                return self.0.remove(&chip).is_some();
            }
        };
        self.0.insert(chip, unfinished);
        true
    }

    /// Forgets chips that are not on the node.
    pub fn keep(&mut self, boards: &BoardOfChip) {
        self.0.retain(|chip, _| boards.contains_key(chip));
    }

    /// What is seen against each chip.
    #[must_use]
    pub fn signals(&self) -> ChipReasons {
        let reason = |(chip, unfinished): (&PciAddress, &Unfinished)| {
            let detail = match unfinished {
                Unfinished::Begun => {
                    format!("{chip}: the kernel is recovering it from a PCIe error")
                }
                Unfinished::Failed => {
                    format!("{chip}: the kernel could not recover it from a PCIe error")
                }
            };
            (*chip, vec![Reason { code: ReasonCode::PcieErrorRecovery, detail }])
        };
        self.0.iter().map(reason).collect()
    }
}
