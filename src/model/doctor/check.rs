//! The checks of `doctor`, by stable names and exit statuses.

use std::fmt;

/// One question about a node. The order is the order of the report, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "Check::question says what each is for")]
pub enum Check {
    Configuration,
    Sysfs,
    Chips,
    Driver,
    Binding,
    ConfigSpace,
    DeviceNodes,
    Boards,
    KubeletDirectory,
    KubeletSocket,
    OtherPlugin,
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
        Self::KubeletDirectory,
        Self::KubeletSocket,
        Self::OtherPlugin,
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

    /// The exit status of `doctor` where this check is the one that decides. Stable: a check that
    /// goes takes its number with it, a new one gets a new number.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        self.row().1
    }

    /// What is asked, as half a sentence.
    #[must_use]
    pub fn question(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (&'static str, u8, &'static str) {
        match self {
            Self::Configuration => ("configuration", 10, "the configuration file is right"),
            Self::Sysfs => ("sysfs", 11, "/sys and /dev can be read"),
            Self::Chips => ("chips", 12, "there are Iluvatar chips, and all can be read"),
            Self::Driver => ("driver", 13, "the driver is loaded and tells its version"),
            Self::Binding => ("binding", 14, "the driver has every chip"),
            Self::ConfigSpace => ("config-space", 15, "every chip answers on the bus"),
            Self::DeviceNodes => ("device-nodes", 16, "every chip has its node, open to all"),
            Self::Boards => ("boards", 17, "no board lacks a chip"),
            Self::KubeletDirectory => ("kubelet-directory", 18, "the plugin directory is there"),
            Self::KubeletSocket => ("kubelet-socket", 19, "the kubelet accepts registrations"),
            Self::OtherPlugin => ("other-plugin", 20, "no other plugin offers these GPUs"),
            Self::CdiSpecs => ("cdi-specs", 21, "no CDI files contradict each other"),
            Self::ContainerRuntime => ("container-runtime", 22, "no runtime adds GPUs unasked"),
            Self::KubeletRoot => ("kubelet-root", 23, "the kubelet's root is where it is expected"),
            Self::StaleSockets => ("stale-sockets", 24, "no socket is left behind"),
            Self::DeviceLinks => ("device-links", 25, "systemd finds the nodes in /dev/char"),
            Self::Numa => ("numa", 26, "every chip has a NUMA node"),
            Self::Links => ("links", 27, "every PCIe link runs at its maximum"),
            Self::Uevents => ("uevents", 28, "the kernel's uevents can be heard"),
            Self::Inotify => ("inotify", 29, "inotify has room"),
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
