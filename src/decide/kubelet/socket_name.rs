//! File names of our sockets in the kubelet's device plugin directory.

/// The name that probes of earlier plugins look for.
pub const FIRST_SOCKET: &str = "iluvatar-gpu.sock";

/// The start of all of them.
pub const PREFIX: &str = "iluvatar-gpu";

/// Longest part of a resource's name in a socket's, in bytes. A socket's path has at most 107 bytes,
/// while a resource's name may have more than 300.
const MAX_RESOURCE_PART: usize = 32;

/// The name of the socket of any resource but the one that has [`FIRST_SOCKET`].
#[must_use]
pub fn socket_name(resource: &str) -> String {
    let name = resource.replace('/', "_");
    match name.get(..MAX_RESOURCE_PART) {
        Some(start) if name.len() > MAX_RESOURCE_PART => {
            // The checksum distinguishes two long names.
            format!("iluvatar-gpu-{start}-{:08x}.sock", crc32fast::hash(resource.as_bytes()))
        }
        _ => format!("iluvatar-gpu-{name}.sock"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_resource_has_a_socket_name_of_its_own_that_fits_into_a_socket_address() {
        assert_eq!(socket_name("a.b/c"), "iluvatar-gpu-a.b_c.sock");
        let long = |last: char| format!("{}.b/{}{last}", "a".repeat(200), "c".repeat(62));
        let (one, other) = (socket_name(&long('1')), socket_name(&long('2')));
        assert_ne!(one, other);
        let path = format!("/var/lib/kubelet/device-plugins/.{one}.4194304");
        assert!(path.len() <= 107, "{}", path.len());
    }
}
