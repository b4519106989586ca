//! A simulated cluster for tests/e2e/run: the script `kubectl` beside this file, and its state.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use ix_device_plugin::model::board::{Board, Chip};
use ix_device_plugin::model::config::Config;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tempfile::TempDir;

use crate::deploy::tools::top;
use crate::support::binary::{Ran, ran};
use crate::support::fixtures::{inventory_of, node_text};

/// The machine that the run installs.
pub(super) const MACHINE: &str = "bi-v150-x8";

/// A script of tests/e2e, without anything from the caller's environment.
pub(super) fn script(name: &str) -> Command {
    let mut command = Command::new(top().join("tests/e2e").join(name));
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}

/// The boards of the machine, as discovery finds them.
pub(super) fn boards() -> &'static [Board] {
    static BOARDS: LazyLock<Vec<Board>> =
        LazyLock::new(|| inventory_of(&node_text(MACHINE), &Config::default()).boards);
    &BOARDS
}

/// The state of a cluster.
pub(super) struct Cluster {
    state: TempDir,
    /// Name of the run; its files are in target/e2e.
    name: String,
}

impl Cluster {
    /// One on which everything works: the reports of the pods are as the device cgroup would give them.
    pub(super) fn new() -> Self {
        let state = tempfile::Builder::new().prefix("ix-e2e-").tempdir().unwrap();
        let name = state.path().file_name().unwrap().to_str().unwrap().to_lowercase();
        let cluster = Self { state, name };
        for directory in ["pods", "reports"] {
            fs::create_dir(cluster.at(directory)).unwrap();
        }
        for (file, text) in [("restarts", "0"), ("plugin", "1"), ("calls", "")] {
            fs::write(cluster.at(file), text).unwrap();
        }
        cluster.report_of_every_pod();
        cluster
    }

    fn report_of_every_pod(&self) {
        let boards = boards();
        let whole = |indices: &[usize]| -> Granted {
            let boards: Vec<_> = indices.iter().map(|index| &boards[*index]).collect();
            let ids = boards.iter().map(|board| board.address.to_string()).collect();
            (ids, boards.iter().flat_map(|board| board.chips.clone()).collect())
        };
        let (ids, chips) = whole(&[1]);
        let replica = (ids.iter().map(|id| format!("{id}::2")).collect(), chips);
        let (_, mut chips) = whole(&[3, 4]);
        chips.pop();
        let chips = (chips.iter().map(|chip| chip.address.to_string()).collect(), chips);
        for (pod, granted) in [
            ("pod-1", whole(&[4])),
            ("pod-2", whole(&[0, 1])),
            ("pod-4", whole(&[3, 5, 6, 7])),
            ("keep", whole(&[2])),
            ("replica", replica),
            ("three-chips", chips),
            ("after-update", whole(&[0])),
            ("after-kill", whole(&[7])),
        ] {
            self.write_report(pod, &report(&granted));
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }

    pub(super) fn write_report(&self, pod: &str, text: &str) {
        fs::write(self.report_file(pod), text).unwrap();
    }

    pub(super) fn report_of(&self, pod: &str) -> String {
        fs::read_to_string(self.report_file(pod)).unwrap()
    }

    /// The run against this cluster; nothing is waited for.
    pub(super) fn run(&self, fault: &str) -> Command {
        let mut command = script("run");
        command.env("KUBECTL", top().join("tests/it/e2e/kubectl"));
        command.env("E2E_FAKE", self.state.path()).env("E2E_FAULT", fault);
        command.env("E2E_RUN", &self.name).env("IMAGE", "ix-device-plugin:0.1.0");
        command.env("E2E_TIMEOUT", "0").env("E2E_INTERVAL", "0");
        command
    }

    /// Where the report of this pod is.
    pub(super) fn report_file(&self, pod: &str) -> PathBuf {
        self.at("reports").join(pod)
    }

    /// The report of a run that ends with this code.
    #[track_caller]
    pub(super) fn report(&self, fault: &str, expected: i32) -> String {
        let Ran { code, stdout, stderr } = ran(&self.run(fault).output().unwrap());
        assert_eq!((code, &*stderr), (Some(expected), ""), "{fault}: {stdout}");
        let kept = fs::read_to_string(self.kept().join("report.txt")).unwrap();
        assert_eq!(kept, stdout, "the report is kept");
        stdout
    }

    /// Where the run keeps its files.
    fn kept(&self) -> PathBuf {
        top().join("target/e2e").join(&self.name)
    }

    /// The exit code of a run that gets this signal while kubectl does not return.
    pub(super) fn interrupted(&self, signal: Signal) -> Option<i32> {
        let [hanging, release] = ["hanging", "release"].map(|name| self.at(name));
        mkfifo(&hanging, Mode::S_IRWXU).unwrap();
        mkfifo(&release, Mode::S_IRWXU).unwrap();
        let run = self.run("hang");
        // A shell cannot trap a signal that the test's own parent ignores, as `nohup` does.
        let mut heeding = Command::new("env");
        heeding.env_clear().envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
        heeding.arg("--default-signal=INT,TERM").arg(run.get_program());
        let mut run = heeding.stdout(Stdio::null()).spawn().unwrap();
        read_all(&hanging);
        kill(Pid::from_raw(run.id().try_into().unwrap()), signal).unwrap();
        let code = run.wait().unwrap().code();
        fs::write(&release, "\n").unwrap();
        code
    }

    /// Every call of kubectl, one a line.
    pub(super) fn calls(&self) -> String {
        fs::read_to_string(self.at("calls")).unwrap()
    }

    /// What is in the cluster, without the helper pod, which goes with the namespace.
    pub(super) fn left(&self) -> Vec<String> {
        let pods = fs::read_dir(self.at("pods")).unwrap();
        let names = pods.map(|pod| pod.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<_> = names.filter(|name| name != "helper").collect();
        left.extend(
            ["namespace", "daemonset"]
                .map(str::to_owned)
                .into_iter()
                .filter(|name| self.at(name).exists()),
        );
        left
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.kept());
    }
}

fn read_all(path: &Path) {
    let mut text = String::new();
    fs::File::open(path).unwrap().read_to_string(&mut text).unwrap();
}

/// Ids that a pod got, and the chips behind them.
type Granted = (Vec<String>, Vec<Chip>);

/// What tests/e2e/pods/report.sh prints in a pod that was granted these.
fn report((ids, chips): &Granted) -> String {
    let minor = |chip: &Chip| chip.node.as_ref().unwrap().path.replace("/dev/iluvatar", "");
    let mut addresses: Vec<_> = chips.iter().map(|chip| chip.address).collect();
    addresses.sort_unstable();
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let mut text = format!("visible {}\ndevices {}\n", addresses.join(","), ids.join(","));
    for chip in chips {
        text.push_str(&format!("node iluvatar{}\n", minor(chip)));
    }
    text.push_str("node itrctl\n");
    for chip in boards().iter().flat_map(|board| &board.chips) {
        let result = if chips.contains(chip) { "allowed" } else { "refused" };
        text.push_str(&format!("open {} {result}\n", minor(chip)));
    }
    text + "end\n"
}
