//! What the keys of a uevent mean.

use crate::model::pci::PciAddress;
use crate::model::pci_error::PciErrorEvent;

/// The value of `ERROR_EVENT`; none for a value that no kernel sends.
#[must_use]
pub fn parse_error_event(value: &str) -> Option<PciErrorEvent> {
    match value {
        "BEGIN_RECOVERY" => Some(PciErrorEvent::RecoveryBegan),
        "FAILED_RECOVERY" => Some(PciErrorEvent::RecoveryFailed),
        "SUCCESSFUL_RECOVERY" => Some(PciErrorEvent::RecoverySucceeded),
        _ => None,
    }
}

/// The PCI function that a path below /sys names in its last part.
#[must_use]
pub fn pci_function(device_path: &str) -> Option<PciAddress> {
    device_path.rsplit('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_are_spelt_as_the_kernel_spells_them() {
        let began = parse_error_event("BEGIN_RECOVERY");
        assert_eq!(began, Some(PciErrorEvent::RecoveryBegan));
        let failed = parse_error_event("FAILED_RECOVERY");
        assert_eq!(failed, Some(PciErrorEvent::RecoveryFailed));
        let succeeded = parse_error_event("SUCCESSFUL_RECOVERY");
        assert_eq!(succeeded, Some(PciErrorEvent::RecoverySucceeded));
        assert_eq!(parse_error_event("begin_recovery"), None);
        assert_eq!(parse_error_event(""), None);
    }

    #[test]
    fn a_path_names_the_function_in_its_last_part() {
        let path = "/devices/pci0000:14/0000:14:02.0/0000:15:00.0";
        assert_eq!(pci_function(path).unwrap().to_string(), "0000:15:00.0");
        assert_eq!(pci_function("/devices/pci0000:14/0000:14:02.0/iluvatar-sys/iluvatar3"), None);
        assert_eq!(pci_function(""), None);
    }
}
