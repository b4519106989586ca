//! What differs between the versions of the API server, as far as DRA is concerned.

/// A version of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerVersion {
    /// 1.34, the first with resource.k8s.io/v1.
    V1_34,
    /// 1.35.
    V1_35,
    /// 1.36, the first with taints, shared counters and consumable capacity by default.
    V1_36,
    /// 1.37.
    V1_37,
}

/// The feature gates that decide which fields the API server keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a gate of its own")]
pub struct FeatureGates {
    /// `DRADeviceTaints`.
    pub device_taints: bool,
    /// `DRAPartitionableDevices`: shared counters.
    pub partitionable_devices: bool,
    /// `DRAConsumableCapacity`: devices that several claims share.
    pub consumable_capacity: bool,
    /// `DRAExtendedResource`: device classes that serve an extended resource.
    pub extended_resource: bool,
}

impl ServerVersion {
    /// All, ascending.
    pub const ALL: [Self; 4] = [Self::V1_34, Self::V1_35, Self::V1_36, Self::V1_37];

    /// The gates as this version has them unless an administrator changes them.
    #[must_use]
    pub fn default_gates(self) -> FeatureGates {
        let is_on = self >= Self::V1_36;
        FeatureGates {
            device_taints: is_on,
            partitionable_devices: is_on,
            consumable_capacity: is_on,
            extended_resource: is_on,
        }
    }

    /// Taints of one device.
    pub(super) fn taint_limit(self) -> usize {
        if self == Self::V1_34 { 4 } else { 16 }
    }

    /// Whether a taint may have the effect `None`.
    pub(super) fn has_effect_none(self) -> bool {
        self >= Self::V1_35
    }

    /// The fields by which slices can be selected.
    pub(super) fn slice_fields(self) -> &'static [&'static str] {
        const FIELDS: [&str; 4] =
            ["metadata.name", "spec.driver", "spec.nodeName", "spec.pool.name"];
        if self >= Self::V1_37 { &FIELDS } else { &FIELDS[..3] }
    }
}
