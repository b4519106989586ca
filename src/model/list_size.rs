//! How much of a kubelet's list a shared device takes.

use super::device::Resource;

/// The largest list a kubelet reads, in bytes: the receive limit of grpc-go, which it does not
/// change. A longer message ends the stream.
pub const KUBELET_LIST_LIMIT: u64 = 4 << 20;

/// `ffffffff:ff:1f.7`, with the widest domain there is.
const ADDRESS: u64 = 16;
const REPLICA_SEPARATOR: u64 = 2;
/// Tag and length of a protobuf field whose content is shorter than 128 bytes.
const FIELD: u64 = 2;
/// `Unhealthy`, the longer of the two words.
const HEALTH: u64 = FIELD + 9;
/// Two `NUMANode`s, more than which no board spans; the number of a node is 32 bits, five bytes.
const TOPOLOGY: u64 = FIELD + 2 * (FIELD + 1 + 5);
/// What a replica takes in a list besides the digits of its index.
const REPLICA: u64 = FIELD + FIELD + ADDRESS + REPLICA_SEPARATOR + HEALTH + TOPOLOGY;

/// Whether a resource's list is one that a kubelet receives, in the worst case of
/// [`largest_replicas`].
#[must_use]
pub fn fits(resource: &Resource) -> bool {
    let replicas = resource.sharing.map_or(1, |sharing| sharing.replicas);
    replicas <= largest_replicas(resource.devices.len())
}

/// The most replicas of each of `devices` devices that fit into one list in the worst case:
/// every address of full length, all unhealthy, each on two NUMA nodes of large number.
///
/// Without a device everything fits.
#[must_use]
pub fn largest_replicas(devices: usize) -> u32 {
    let Some(mut budget) = KUBELET_LIST_LIMIT.checked_div(devices as u64) else {
        return u32::MAX;
    };
    let mut replicas = 0;
    // Indices of one length cost the same: 0..=9, then 10..=99, and so on.
    let (mut first, mut digits) = (0, 1);
    loop {
        let end = 10_u64.pow(digits);
        let fit = (budget / (REPLICA + u64::from(digits))).min(end - first);
        replicas += fit;
        if fit < end - first {
            return u32::try_from(replicas).unwrap_or(u32::MAX);
        }
        budget -= fit * (REPLICA + u64::from(digits));
        (first, digits) = (end, digits + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_number_fits_and_one_more_does_not() {
        for devices in [1, 2, 16, 64, 1000, 70_000] {
            let largest = u64::from(largest_replicas(devices));
            let size = |replicas: u64| -> u64 {
                let each: u64 =
                    (0..replicas).map(|index| REPLICA + index.to_string().len() as u64).sum();
                each * devices as u64
            };
            assert!(size(largest) <= KUBELET_LIST_LIMIT, "{devices} devices");
            assert!(size(largest + 1) > KUBELET_LIST_LIMIT, "{devices} devices");
        }
    }

    #[test]
    fn a_node_without_devices_can_share_at_will() {
        assert_eq!(largest_replicas(0), u32::MAX);
    }
}
