//! A container as the DaemonSet has it: a small read-only root, a few mounts, no capability, no way
//! to gain one. Of what a runtime adds it has /proc only.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::pivot_root;
use tempfile::TempDir;

const PROGRAM: &str = "usr/bin/ix-device-plugin";

/// A container to be.
pub(crate) struct Container {
    image: TempDir,
    mounts: Vec<Mount>,
}

/// Prepared as far as it can be before the fork, after which nothing should be allocated.
struct Mount {
    source: CString,
    target: CString,
    flags: MsFlags,
}

impl Container {
    /// In the file system of an image that has the program.
    pub(crate) fn of(image: TempDir) -> Self {
        Self { image, mounts: Vec::new() }.read_only(Path::new("/proc"), "/proc")
    }

    /// With nothing but the built binary and the libraries that it is linked with.
    pub(crate) fn of_libraries() -> Self {
        let image = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("there is room");
        let binary = Path::new(env!("CARGO_BIN_EXE_ix-device-plugin"));
        put(binary, &image.path().join(PROGRAM));
        for library in libraries(binary) {
            let path = library.strip_prefix("/").expect("ldd prints absolute paths");
            put(&library, &image.path().join(path));
        }
        Self::of(image)
    }

    pub(crate) fn read_only(self, source: &Path, target: &str) -> Self {
        self.mount(source, target, MsFlags::MS_RDONLY)
    }

    pub(crate) fn writable(self, source: &Path, target: &str) -> Self {
        self.mount(source, target, MsFlags::empty())
    }

    fn mount(mut self, source: &Path, target: &str, access: MsFlags) -> Self {
        let target = self.image.path().join(target.trim_start_matches('/'));
        let is_directory = source.is_dir();
        // Below an earlier mount it is there already, or the mount of it would fail.
        if is_directory {
            fs::create_dir_all(&target).expect("the image is ours");
        } else if !target.exists() {
            fs::create_dir_all(target.parent().expect("below the image")).expect("it is ours");
            File::create(&target).expect("the image is ours");
        }
        let flags = access | kept(source);
        self.mounts.push(Mount { source: text(source), target: text(&target), flags });
        self
    }

    /// Runs the program in this container.
    pub(crate) fn command(&self) -> Command {
        let image = text(self.image.path());
        let root = Mount {
            source: image.clone(),
            target: image.clone(),
            flags: MsFlags::MS_RDONLY | kept(self.image.path()),
        };
        let rest = self.mounts.iter().map(|it| Mount {
            source: it.source.clone(),
            target: it.target.clone(),
            flags: it.flags,
        });
        let mounts: Vec<_> = std::iter::once(root).chain(rest).collect();
        let mut command = Command::new(format!("/{PROGRAM}"));
        command.env_clear();
        #[expect(unsafe_code, reason = "a container is made between fork and exec")]
        // SAFETY: the closure makes system calls with texts that were made before the fork; it
        // takes no lock and allocates nothing.
        unsafe {
            command.pre_exec(move || enter(&image, &mounts).and_then(|()| drop_everything()))
        };
        command
    }
}

/// Linked where that can be done: the binary of a debug build is large.
fn put(file: &Path, place: &Path) {
    fs::create_dir_all(place.parent().expect("below the image")).expect("the image is ours");
    let file = file.canonicalize().expect("it is there");
    if fs::hard_link(&file, place).is_err() {
        fs::copy(&file, place).expect("there is room");
    }
}

fn libraries(binary: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(binary).output().expect("ldd comes with libc");
    let output = String::from_utf8(output.stdout).expect("paths are text");
    let words = output.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no path has a NUL")
}

/// Flags of the mount that a source lies on. A user namespace may not take them away.
fn kept(source: &Path) -> MsFlags {
    let flags = statvfs(source).expect("it is there").flags();
    let pairs = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
    ];
    pairs.iter().filter(|(has, _)| flags.contains(*has)).map(|(_, keeps)| *keeps).collect()
}

const NOTHING: Option<&str> = None;

fn enter(image: &CString, mounts: &[Mount]) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)?;
    for Mount { source, target, .. } in mounts {
        // Where something is mounted below /proc, it may not be had without that.
        mount(Some(&**source), &**target, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)?;
    }
    // A bind mount takes flags only when it is mounted again.
    for Mount { target, flags, .. } in mounts {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | *flags;
        mount(NOTHING, &**target, NOTHING, flags, NOTHING)?;
    }
    nix::unistd::chdir(&**image)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    Ok(())
}

/// Leaves all five sets of capabilities empty: a program that root starts gets what the bounding
/// set has, and that has nothing.
fn drop_everything() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    // The first number that the kernel does not know ends it.
    let mut number: libc::c_ulong = 0;
    while prctl(libc::PR_CAPBSET_DROP, number) {
        number += 1;
    }
    let all_dropped = io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
    if !all_dropped || !prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong)
    {
        return Err(io::Error::last_os_error());
    }
    // As linux/capability.h: version 3 and this process; effective, permitted, inheritable twice.
    let header: [u32; 2] = [0x2008_0522, 0];
    let sets = [0_u32; 6];
    #[expect(unsafe_code, reason = "nix has no capset")]
    // SAFETY: both arrays are as long as the kernel reads, which writes to neither.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> bool {
    const ZERO: libc::c_ulong = 0;
    #[expect(unsafe_code, reason = "prctl is a C function")]
    // SAFETY: these options take numbers only.
    let done = unsafe { libc::prctl(option, argument, ZERO, ZERO, ZERO) };
    done == 0
}
