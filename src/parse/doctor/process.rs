//! Files of /proc: kubelets' command lines, mounts, user namespaces.

/// A kubelet's `--root-dir`, by its `/proc/PID/cmdline`: outer none for any other process, inner
/// none for a kubelet that names none. k3s and RKE2 run the kubelet inside of their own process
/// and take its flags as `--kubelet-arg`.
#[must_use]
pub fn parse_kubelet_root(command_line: &[u8]) -> Option<Option<String>> {
    let words: Vec<_> =
        command_line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let (program, arguments) = words.split_first()?;
    match program.rsplit('/').next()? {
        "kubelet" => Some(flag(arguments, "--root-dir")),
        "k3s" | "rke2" => Some(arguments.iter().enumerate().find_map(|(number, word)| {
            let value = match word.strip_prefix("--kubelet-arg") {
                Some("") => arguments.get(number + 1)?,
                Some(rest) => rest.strip_prefix('=')?,
                None => return None,
            };
            Some(value.trim_start_matches('-').strip_prefix("root-dir=")?.to_owned())
        })),
        _ => None,
    }
}

/// `--flag=VALUE` or `--flag VALUE`; the last one counts.
fn flag(arguments: &[std::borrow::Cow<'_, str>], name: &str) -> Option<String> {
    let mut values = arguments.iter().enumerate().filter_map(|(number, word)| {
        match word.strip_prefix(name)? {
            "" => arguments.get(number + 1).map(ToString::to_string),
            rest => rest.strip_prefix('=').map(ToOwned::to_owned),
        }
    });
    values.next_back()
}

/// The file system of `/`, from `/proc/self/mountinfo`: `overlay` in most containers.
#[must_use]
pub fn parse_root_filesystem(mountinfo: &str) -> Option<&str> {
    let mut of_root = mountinfo.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
    // The last mount hides earlier ones.
    of_root.next_back()?.split_once(" - ")?.1.split(' ').next()
}

/// True where `/proc/self/uid_map` is not that of the first user namespace, which maps every id
/// to itself.
#[must_use]
pub fn is_user_namespace(uid_map: &str) -> bool {
    !uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected` is the root directory, "" for a kubelet that names none, "-" for no kubelet.
    #[track_caller]
    fn check(command_line: &str, expected: &str) {
        let bytes = command_line.replace(' ', "\0") + "\0";
        let root = match parse_kubelet_root(bytes.as_bytes()) {
            None => "-".to_owned(),
            Some(root) => root.unwrap_or_default(),
        };
        assert_eq!(root, expected, "{command_line}");
    }

    #[test]
    fn a_kubelets_root_directory_is_read_in_either_spelling() {
        check("/usr/bin/kubelet --root-dir=/data/kubelet --v=2", "/data/kubelet");
        check("kubelet --root-dir /data/kubelet", "/data/kubelet");
        check("/var/lib/k0s/bin/kubelet --root-dir=/a --root-dir=/b", "/b");
        check("/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml", "");
        check("kubelet --root-dirs=/x", "");
    }

    #[test]
    fn k3s_passes_the_flag_on() {
        check("/usr/local/bin/k3s agent --kubelet-arg=root-dir=/data", "/data");
        check("k3s server --kubelet-arg root-dir=/data", "/data");
        check("k3s server --kubelet-arg=v=2 --kubelet-arg=--root-dir=/d", "/d");
        check("k3s server", "");
    }

    #[test]
    fn other_processes_are_no_kubelets() {
        check("/usr/bin/kubelet-exporter --root-dir=/data", "-");
        check("grep kubelet", "-");
        assert_eq!(parse_kubelet_root(b""), None);
    }

    #[test]
    fn the_uppermost_mount_of_the_root_counts() {
        let mountinfo = "22 27 0:21 / /proc rw - proc proc rw\n\
                         27 0 254:0 / / rw,relatime - ext4 /dev/vda1 rw\n\
                         40 27 0:50 / / rw,relatime shared:1 - overlay overlay rw\n";
        assert_eq!(parse_root_filesystem(mountinfo), Some("overlay"));
        assert_eq!(parse_root_filesystem(""), None);
    }

    #[test]
    fn only_the_first_user_namespace_maps_every_id_to_itself() {
        assert!(!is_user_namespace("         0          0 4294967295\n"));
        assert!(is_user_namespace("         0       1000          1\n"));
    }
}
