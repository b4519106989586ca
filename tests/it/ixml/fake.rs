//! The library of `fake_ixml.c`, compiled as a test wants it, and a source that asks it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ix_device_plugin::daemon::ixml_source::{IxmlSettings, IxmlSource};
use ix_device_plugin::decide::ixml::IxmlRetry;
use ix_device_plugin::host::ixml::search_path::LibraryEnv;
use ix_device_plugin::model::ixml::{ChipReading, IxmlChoice, IxmlState};
use ix_device_plugin::model::pci::PciAddress;
use tempfile::TempDir;

use crate::support::clock::LIVENESS_LIMIT;

/// A deadline that is never met: where it passes, the test has failed already.
pub(super) const LONG: Duration = LIVENESS_LIMIT;

/// A deadline that a library which hangs lets pass.
pub(super) const SHORT: Duration = Duration::from_millis(50);

/// A compiled libixml and the file that tells it what to do.
pub(super) struct Fake {
    directory: TempDir,
}

impl Fake {
    /// One chip, all well, unless `control` says otherwise; `defines` leave functions out.
    pub(super) fn new(defines: &[&str], control: &str) -> Self {
        let fake = Self { directory: TempDir::new().unwrap() };
        fake.control(control);
        fake.compile(&fake.library(), defines, &[]);
        fake
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn library(&self) -> PathBuf {
        self.path().join("libixml.so")
    }

    /// From the next call on, this is so.
    pub(super) fn control(&self, text: &str) {
        let mut text = text.to_owned();
        if !text.contains("count ") {
            write!(text, "\ncount 1\n").unwrap();
        }
        let next = self.path().join("control.next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.path().join("control")).unwrap();
    }

    /// Compiles the library once more, to another place.
    pub(super) fn compile(&self, library: &Path, defines: &[&str], more: &[&str]) {
        let control = self.path().join("control");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/ixml/fake_ixml.c");
        let mut compiler = compiler();
        compiler
            .arg(format!("-DCONTROL_FILE=\"{}\"", control.display()))
            .args(defines.iter().map(|define| format!("-D{define}")))
            .arg("-o")
            .args([library, &source])
            .args(more);
        run(compiler);
    }

    /// An empty library at this place, for others to depend on.
    pub(super) fn compile_thunk(&self, library: &Path) {
        let source = self.path().join("thunk.c");
        std::fs::write(&source, "int ixthunk(void) { return 0; }\n").unwrap();
        let mut compiler = compiler();
        compiler.args(["-Wl,-soname,libixthunk.so", "-o"]).args([library, &source]);
        run(compiler);
    }

    /// The process that has it loaded, or had.
    pub(super) fn pid(&self) -> String {
        self.mark("begun").unwrap()
    }

    /// The process in which it sticks, or stuck.
    pub(super) fn stuck(&self) -> Option<String> {
        self.mark("stuck")
    }

    fn mark(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path().join(format!("control.{name}"))).ok()?;
        Some(text.trim().to_owned())
    }

    /// Asks this library.
    pub(super) fn source(&self) -> IxmlSource {
        IxmlSource::start(settings(IxmlChoice::Path(self.library())))
    }

    /// What a new source reads of one chip.
    pub(super) async fn reading(&self, address: &str) -> ChipReading {
        let chip = chip(address);
        reading_of(&self.source().read(&[chip], LONG).await, chip)
    }
}

fn compiler() -> Command {
    let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    compiler.args(["-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]);
    compiler
}

#[track_caller]
fn run(mut compiler: Command) {
    let output = compiler.output().expect("a C compiler: `cc`, or what CC names");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Settings without pauses: what failed is tried again at the next read.
pub(super) fn settings(choice: IxmlChoice) -> IxmlSettings {
    IxmlSettings {
        choice,
        env: LibraryEnv::default(),
        program: env!("CARGO_BIN_EXE_ix-device-plugin").into(),
        retry: IxmlRetry {
            answer_timeout: LONG,
            first_delay: Duration::ZERO,
            longest_delay: Duration::ZERO,
        },
    }
}

pub(super) fn chip(address: &str) -> PciAddress {
    address.parse().unwrap()
}

#[track_caller]
pub(super) fn reading_of(state: &IxmlState, chip: PciAddress) -> ChipReading {
    let IxmlState::Reading(reading) = state else { panic!("{state}") };
    reading.chips[&chip].clone()
}

/// Whether a process has ended, though its parent may not have noticed.
pub(super) fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

/// Waits for the end of a process.
pub(super) async fn wait_until_gone(pid: &str) {
    let gone = async {
        while !is_gone(pid) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, gone).await.expect("the process ends");
}

/// Reads until `wanted`, however often that takes.
pub(super) async fn read_until(
    source: &mut IxmlSource,
    chips: &[PciAddress],
    deadline: Duration,
    wanted: impl Fn(&IxmlState) -> bool,
) -> IxmlState {
    let reads = async {
        loop {
            let state = source.read(chips, deadline).await;
            if wanted(&state) {
                return state;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, reads).await.expect("the state comes")
}
