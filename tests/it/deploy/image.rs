//! The image: its Dockerfile as text, and its file system as the same script lays it out here.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::tools::{text_of, top};
use crate::support::binary::{Ran, ran};
use crate::support::skip;

/// What the image weighs without the plugin, which is built without optimisation here: 8.3 MB.
const LARGEST_REST: u64 = 10_000_000;

/// The image's file system, with the binary under test in it; none where this is no Debian 12.
pub(super) struct Image(TempDir);

impl Image {
    pub(super) fn assembled() -> Option<Self> {
        let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        if !os.contains("VERSION_CODENAME=bookworm") {
            skip("the image is made of Debian 12's packages");
            return None;
        }
        let root = TempDir::new().unwrap();
        let mut command = Command::new(top().join("deploy/image/assemble-root"));
        command.args([Path::new(env!("CARGO_BIN_EXE_ix-device-plugin")), root.path()]);
        let Ran { code, stderr, .. } = ran(&command.output().unwrap());
        assert_eq!((code, &*stderr), (Some(0), ""));
        Some(Self(root))
    }

    /// Where it lies on this machine.
    pub(super) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn into_directory(self) -> TempDir {
        self.0
    }

    /// Every file, link and directory, as a path in the image.
    fn paths(&self) -> BTreeSet<PathBuf> {
        let mut paths = BTreeSet::new();
        let mut unread = vec![self.root().to_owned()];
        while let Some(directory) = unread.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    unread.push(entry.path());
                }
                paths.insert(entry.path().strip_prefix(self.root()).unwrap().to_owned());
            }
        }
        paths
    }

    fn metadata(&self, path: &Path) -> Metadata {
        self.root().join(path).symlink_metadata().unwrap()
    }

    /// Runs a program of the image: as its root, which is read-only. None where that is forbidden.
    fn run(&self, command: &[&str]) -> Option<Ran> {
        let root = self.root().to_str().unwrap();
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && exec chroot \"$0\" \"$@\"";
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--mount"]);
        if !unshare.arg("true").status().is_ok_and(|status| status.success()) {
            skip("mount namespaces are forbidden here");
            return None;
        }
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--mount", "sh", "-c", script, root]).args(command);
        Some(ran(&unshare.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap()))
    }
}

#[test]
fn the_plugin_runs_in_the_image_under_a_read_only_root() {
    let Some(image) = Image::assembled() else { return };
    let Some(Ran { code, stdout, stderr }) = image.run(&["/usr/bin/ix-device-plugin", "--version"])
    else {
        return;
    };
    let version = concat!("ix-device-plugin ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((code, &*stdout, &*stderr), (Some(0), version, ""));
}

#[test]
fn ls_is_there_for_the_probes_of_older_manifests() {
    let Some(image) = Image::assembled() else { return };
    let directory = "/var/lib/kubelet/device-plugins";
    let Some(there) = image.run(&["ls", "-d", directory]) else { return };
    assert_eq!((there.code, there.stdout), (Some(0), format!("{directory}\n")));
    let socket = format!("{directory}/iluvatar-gpu.sock");
    assert_eq!(
        image.run(&["ls", &socket]).unwrap().code,
        Some(2),
        "and it fails without the socket"
    );
}

#[test]
fn there_is_nothing_else_to_run_in_the_image() {
    let Some(image) = Image::assembled() else { return };
    let is_program = |path: &PathBuf| {
        let metadata = image.metadata(path);
        metadata.is_file() && metadata.mode() & 0o111 != 0
    };
    let is_library = |path: &PathBuf| path.to_str().unwrap().contains(".so");
    let programs = image.paths().into_iter().filter(is_program).filter(|path| !is_library(path));
    let expected = ["usr/bin/ix-device-plugin", "usr/bin/ls"].map(PathBuf::from);
    assert_eq!(programs.collect::<Vec<_>>(), expected);
}

#[test]
fn the_image_names_the_packages_in_it_and_their_licences() {
    let Some(image) = Image::assembled() else { return };
    let packages = |directory: &str| -> BTreeSet<_> {
        let entries = std::fs::read_dir(image.root().join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let named = packages("var/lib/dpkg/status.d");
    assert!(named.contains("libudev1") && named.contains("coreutils"), "{named:?}");
    assert_eq!(packages("usr/share/doc"), named);
}

#[test]
fn the_image_without_the_plugin_is_small() {
    let Some(image) = Image::assembled() else { return };
    let rest = image.paths().into_iter().filter(|path| !path.ends_with("ix-device-plugin"));
    let rest: u64 = rest.map(|path| image.metadata(&path).len()).sum();
    assert!(rest < LARGEST_REST, "{rest} bytes");
}

fn dockerfile() -> String {
    text_of("Dockerfile")
}

#[test]
fn the_bases_are_pinned_by_digest() {
    let bases: Vec<_> = dockerfile()
        .lines()
        .filter(|line| line.starts_with("ARG ") && line.contains("bookworm"))
        .map(str::to_owned)
        .collect();
    assert_eq!(bases.len(), 2);
    for base in bases {
        let (_, digest) = base.split_once("@sha256:").unwrap_or_else(|| panic!("{base}"));
        assert_eq!(digest.len(), 64, "{base}");
    }
}

#[test]
fn the_compiler_of_the_image_is_new_enough() {
    let dockerfile = dockerfile();
    let (_, version) = dockerfile.split_once("ARG RUST=rust:").expect("a compiler");
    let number = |version: &str| {
        let parts = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        parts.collect::<Vec<_>>()
    };
    assert!(number(version) >= number(env!("CARGO_PKG_RUST_VERSION")), "{version}");
}

#[test]
fn the_last_stage_begins_with_nothing_and_starts_the_plugin() {
    let dockerfile = dockerfile();
    let (_, last) = dockerfile.rsplit_once("\nFROM ").expect("a stage");
    assert!(last.starts_with("scratch\n"), "{last}");
    assert!(!last.contains("\nRUN "), "there is nothing to run");
    assert!(last.ends_with("ENTRYPOINT [\"/usr/bin/ix-device-plugin\"]\n"), "{last}");
    let label = format!("ARG VERSION={}\n", env!("CARGO_PKG_VERSION"));
    assert!(last.contains(&label), "{last}");
    assert!(dockerfile.contains(" .ci/build-release\n"));
}

#[test]
fn what_the_build_reads_is_sent_to_it() {
    let ignored = text_of(".dockerignore");
    let sent: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    for needed in [
        ".ci/build-release",
        "Cargo.toml",
        "Cargo.lock",
        "proto",
        "src",
        "benches",
        "fixtures",
        "deploy/image",
    ] {
        assert!(sent.contains(&needed), "{needed} is missing");
    }
    assert!(sent.iter().all(|path| top().join(path).exists()), "{sent:?}");
}
