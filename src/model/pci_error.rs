//! Error recovery of a PCI function, as the kernel announces it.

/// The value of `ERROR_EVENT` in a uevent of a PCI function, or what ends its effect.
///
/// Source: drivers/pci/pci-driver.c, `pci_uevent_ers`. The kernel has sent it since Linux 4.14 where
/// it was built with AER or EEH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PciErrorEvent {
    /// `BEGIN_RECOVERY`: the function is offline until recovery ends.
    RecoveryBegan,
    /// `FAILED_RECOVERY`: the function stays offline.
    RecoveryFailed,
    /// `SUCCESSFUL_RECOVERY`: the function is online again.
    RecoverySucceeded,
    /// The function or its driver came anew; a recovery of the former one has no end.
    Restarted,
}
