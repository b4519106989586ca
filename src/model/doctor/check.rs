//! The checks of `doctor`, with their stable names and exit statuses.

use std::fmt;

/// One check of a node, in the order of the report, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "Check::question explains each")]
pub enum Check {
    Configuration,
    Sysfs,
    Chips,
    Driver,
    Binding,
    ConfigSpace,
    DeviceNodes,
    Boards,
    Pods,
    KubeletDirectory,
    KubeletSocket,
    OtherPlugin,
    Mode,
    CdiSpecs,
    ContainerRuntime,
    KubeletRoot,
    StaleSockets,
    DeviceLinks,
    Numa,
    Links,
    Uevents,
    Inotify,
}

impl Check {
    /// Every check, in the order of the report.
    pub const ALL: &[Self] = &[
        Self::Configuration,
        Self::Sysfs,
        Self::Chips,
        Self::Driver,
        Self::Binding,
        Self::ConfigSpace,
        Self::DeviceNodes,
        Self::Boards,
        Self::Pods,
        Self::KubeletDirectory,
        Self::KubeletSocket,
        Self::OtherPlugin,
        Self::Mode,
        Self::CdiSpecs,
        Self::ContainerRuntime,
        Self::KubeletRoot,
        Self::StaleSockets,
        Self::DeviceLinks,
        Self::Numa,
        Self::Links,
        Self::Uevents,
        Self::Inotify,
    ];

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The exit status of `doctor` where this check decides. Stable: the number of a removed check is
    /// not used again.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        self.row().1
    }

    /// What holds where the check finds nothing, as a clause.
    #[must_use]
    pub fn question(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (&'static str, u8, &'static str) {
        match self {
            Self::Configuration => ("configuration", 10, "the configuration file is valid"),
            Self::Sysfs => ("sysfs", 11, "/sys and /dev can be read"),
            Self::Chips => ("chips", 12, "Iluvatar chips are found and readable"),
            Self::Driver => ("driver", 13, "the driver is loaded and has a version"),
            Self::Binding => ("binding", 14, "every chip is bound to the driver"),
            Self::ConfigSpace => ("config-space", 15, "every chip answers on the bus"),
            Self::DeviceNodes => {
                ("device-nodes", 16, "every chip has its device node, open to all users")
            }
            Self::Boards => ("boards", 17, "no board lacks a chip"),
            Self::Pods => ("pods", 30, "no pod holds an unhealthy device"),
            Self::KubeletDirectory => {
                ("kubelet-directory", 18, "the device plugin directory exists")
            }
            Self::KubeletSocket => ("kubelet-socket", 19, "the kubelet accepts registrations"),
            Self::OtherPlugin => ("other-plugin", 20, "no other plugin offers these GPUs"),
            Self::Mode => ("mode", 31, "one mode serves this node, and finds what it needs"),
            Self::CdiSpecs => ("cdi-specs", 21, "no CDI files conflict"),
            Self::ContainerRuntime => {
                ("container-runtime", 22, "no runtime adds GPUs that were not requested")
            }
            Self::KubeletRoot => {
                ("kubelet-root", 23, "the kubelet uses its default root directory")
            }
            Self::StaleSockets => ("stale-sockets", 24, "no stale socket is left"),
            Self::DeviceLinks => ("device-links", 25, "/dev/char has a link to every device node"),
            Self::Numa => ("numa", 26, "every chip has a NUMA node"),
            Self::Links => ("links", 27, "every PCIe link runs at its maximum"),
            Self::Uevents => ("uevents", 28, "the kernel's uevents can be received"),
            Self::Inotify => ("inotify", 29, "inotify limits are high enough"),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_check_has_a_name_and_a_status_of_its_own() {
        let names: BTreeSet<_> = Check::ALL.iter().map(|check| check.name()).collect();
        let statuses: BTreeSet<_> = Check::ALL.iter().map(|check| check.exit_status()).collect();
        assert_eq!((names.len(), statuses.len()), (Check::ALL.len(), Check::ALL.len()));
        assert!(statuses.iter().all(|status| (10..64).contains(status)), "{statuses:?}");
        assert!(Check::ALL.is_sorted());
    }
}
