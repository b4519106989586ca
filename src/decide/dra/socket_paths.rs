//! Where the driver's two sockets are, below the kubelet's root directory.
//!
//! An instance's names have the uid of its pod, so that two instances can serve side by side during a
//! rolling update. Where a path would be too long for a socket, a checksum replaces the long part.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Directory of registration sockets, below the kubelet's root. The kubelet watches it.
pub const REGISTRY: &str = "plugins_registry";
/// Directory of service sockets and of the drivers' files, below the kubelet's root.
pub const PLUGINS: &str = "plugins";

/// Longest path of a socket, in bytes: `sun_path` has 108 with the NUL at its end.
const MAX_SOCKET_PATH: usize = 107;

/// What the sockets are named after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverInstance {
    /// The kubelet's root directory, as the kubelet sees it.
    pub kubelet_root: PathBuf,
    /// Name of the driver.
    pub driver: String,
    /// Uid of the pod that this process runs in; absent where it is not known.
    pub pod_uid: Option<String>,
}

/// The path cannot be shortened any further.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "kubelet root directory {0:?}: {1:?} has {len} bytes. A socket's path has at most \
     {MAX_SOCKET_PATH}. Use a shorter root directory.",
    len = .1.as_os_str().len()
)]
pub struct SocketPathTooLong(PathBuf, PathBuf);

impl DriverInstance {
    /// The directory of the service socket and of the driver's files.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.kubelet_root.join(PLUGINS).join(&self.driver)
    }

    /// The directory that the kubelet watches.
    #[must_use]
    pub fn registry(&self) -> PathBuf {
        self.kubelet_root.join(REGISTRY)
    }

    /// The service socket: `dra-UID.sock`, or `dra.sock` without a uid.
    ///
    /// # Errors
    /// [`SocketPathTooLong`] where the shortest form is too long.
    pub fn service_socket(&self) -> Result<PathBuf, SocketPathTooLong> {
        let names = match &self.pod_uid {
            Some(uid) => vec![format!("dra-{uid}.sock"), format!("dra-{}.sock", checksum(uid))],
            None => vec!["dra.sock".to_owned()],
        };
        self.first_that_fits(&self.directory(), names)
    }

    /// The registration socket: `DRIVER-UID-reg.sock`, or `DRIVER-reg.sock` without a uid; with a
    /// number once the kubelet has refused `refusals` names.
    ///
    /// # Errors
    /// [`SocketPathTooLong`] where the shortest form is too long.
    pub fn registration_socket(&self, refusals: u32) -> Result<PathBuf, SocketPathTooLong> {
        let number = if refusals == 0 { String::new() } else { format!("-{refusals}") };
        let driver = &self.driver;
        let whole = self.pod_uid.as_ref().map_or(String::new(), |uid| format!("-{uid}"));
        let short =
            self.pod_uid.as_ref().map_or(String::new(), |uid| format!("-{}", checksum(uid)));
        let names = vec![
            format!("{driver}{whole}{number}-reg.sock"),
            format!("{driver}{short}{number}-reg.sock"),
            format!("{}{number}-reg.sock", checksum(&format!("{driver}{whole}"))),
        ];
        self.first_that_fits(&self.registry(), names)
    }

    fn first_that_fits(
        &self,
        directory: &Path,
        names: Vec<String>,
    ) -> Result<PathBuf, SocketPathTooLong> {
        let mut shortest = directory.to_owned();
        for name in names {
            shortest = directory.join(name);
            if shortest.as_os_str().len() <= MAX_SOCKET_PATH {
                return Ok(shortest);
            }
        }
        Err(SocketPathTooLong(self.kubelet_root.clone(), shortest))
    }
}

fn checksum(text: &str) -> String {
    format!("{:08x}", crc32fast::hash(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "a3f1c0de-1111-4222-8333-444455556666";

    fn instance(kubelet_root: &str, pod_uid: Option<&str>) -> DriverInstance {
        DriverInstance {
            kubelet_root: kubelet_root.into(),
            driver: "gpu.iluvatar.com".to_owned(),
            pod_uid: pod_uid.map(ToOwned::to_owned),
        }
    }

    fn paths(instance: &DriverInstance, refusals: u32) -> [String; 2] {
        let shown = |path: Result<PathBuf, _>| path.unwrap().display().to_string();
        [shown(instance.service_socket()), shown(instance.registration_socket(refusals))]
    }

    #[test]
    fn an_instance_has_names_of_its_own_where_its_pod_is_known() {
        let root = "/var/lib/kubelet";
        assert_eq!(
            paths(&instance(root, Some(UID)), 0),
            [
                format!("{root}/plugins/gpu.iluvatar.com/dra-{UID}.sock"),
                format!("{root}/plugins_registry/gpu.iluvatar.com-{UID}-reg.sock"),
            ]
        );
        assert_eq!(
            paths(&instance(root, None), 2),
            [
                format!("{root}/plugins/gpu.iluvatar.com/dra.sock"),
                format!("{root}/plugins_registry/gpu.iluvatar.com-2-reg.sock"),
            ]
        );
    }

    #[test]
    fn paths_that_would_be_too_long_have_checksums() {
        let root = format!("/{}", "r".repeat(39));
        assert_eq!(
            paths(&instance(&root, Some(UID)), 1),
            [
                format!("{root}/plugins/gpu.iluvatar.com/dra-{}.sock", checksum(UID)),
                format!("{root}/plugins_registry/gpu.iluvatar.com-{}-1-reg.sock", checksum(UID)),
            ]
        );
    }

    #[test]
    fn every_root_gives_paths_that_fit_or_an_error_that_names_it() {
        for length in 1..120 {
            let root = format!("/{}", "r".repeat(length - 1));
            for uid in [None, Some(UID)] {
                let instance = instance(&root, uid);
                for path in [instance.service_socket(), instance.registration_socket(7)] {
                    match path {
                        Ok(path) => assert!(path.as_os_str().len() <= 107, "{path:?}"),
                        Err(error) => {
                            assert!(length > 60 && error.to_string().contains(&root), "{error}");
                        }
                    }
                }
            }
        }
    }
}
