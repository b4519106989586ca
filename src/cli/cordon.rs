//! `cordon` and `uncordon`: they change the file that the daemon follows, whether one runs or not.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::output::{Failure, paint, print, warn};
use super::{ConfigArgs, MachineArgs, config, discover};
use crate::decide::node::cordons::{self, CordonIdError, list};
use crate::decide::node::snapshot::NodeSnapshot;
use crate::host::cordon_file::{self, CordonUpdate, FILE_NAME};
use crate::host::state_file::StateFile;
use crate::model::cordon::{CordonReason, Cordons};
use crate::model::pci::PciAddress;
use crate::wire::report::cordon_status::cordon_table;

/// What is cordoned.
#[derive(Args, Debug)]
pub struct CordonArgs {
    /// Id of a device, board or chip: its PCI address.
    #[arg(required_unless_present = "list", value_name = "ID")]
    pub id: Option<String>,
    /// Why, for whoever finds the device unhealthy: one line.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<CordonReason>,
    /// Print what is cordoned, and change nothing.
    #[arg(long, conflicts_with_all = ["id", "reason"])]
    pub list: bool,
    /// Where the file of cordons is.
    #[command(flatten)]
    pub file: CordonFileArgs,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// The configuration, which decides whether devices are boards or chips.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// What is cordoned no longer.
#[derive(Args, Debug)]
pub struct UncordonArgs {
    /// An id that `cordon --list` shows.
    #[arg(value_name = "ID")]
    pub id: String,
    /// Where the file of cordons is.
    #[command(flatten)]
    pub file: CordonFileArgs,
}

/// Where the file of cordons is.
#[derive(Args, Debug)]
pub struct CordonFileArgs {
    /// The kubelet's directory for device plugin sockets, which has the file of cordons.
    #[arg(
        long,
        env = "IX_KUBELET_DIR",
        default_value = "/var/lib/kubelet/device-plugins",
        value_name = "DIR"
    )]
    pub kubelet_dir: PathBuf,
}

impl CordonFileArgs {
    fn path(&self) -> PathBuf {
        self.kubelet_dir.join(FILE_NAME)
    }
}

pub(super) fn cordon(args: CordonArgs) -> Result<(), Failure> {
    let path = args.file.path();
    let Some(id) = args.id else { return print_list(&path) };
    let config = config::load(&args.config)?;
    let snapshot = discover::snapshot_at(&args.machine.root, &config)?;
    let (id, chips) = cordons::chips_of(&id, &snapshot).map_err(anyhow::Error::from)?;
    let cordoned = change(&path, |all| {
        cordons::add(all, id, chips, args.reason);
        Ok(())
    })?;
    let chips = &cordoned.cordons[&id].chips;
    let devices = devices_of(&snapshot, |chip| chips.contains(&chip));
    print(&format!(
        "cordoned {id} (chips {}): {devices}; pods that have it keep it\n",
        list(chips.iter().copied())
    ))
}

/// What the kubelet no longer allocates.
fn devices_of(snapshot: &NodeSnapshot, is_cordoned: impl Fn(PciAddress) -> bool) -> String {
    let devices = snapshot.devices();
    let devices = devices.filter(|(_, device)| device.chips.iter().any(|chip| is_cordoned(*chip)));
    let devices: Vec<_> =
        devices.map(|(resource, device)| format!("{} {}", resource.name, device.id)).collect();
    match devices.len() {
        0 => "no resource offers it".to_owned(),
        _ => format!("new pods do not get {}", devices.join(", ")),
    }
}

pub(super) fn uncordon(args: &UncordonArgs) -> Result<(), Failure> {
    let mut removed = None;
    let left = change(&args.file.path(), |all| {
        removed = Some(cordons::remove(all, &args.id)?);
        Ok(())
    })?;
    let Some((id, cordon)) = removed else { return Ok(()) };
    let others = left.cordons.iter().filter(|(_, other)| !other.chips.is_disjoint(&cordon.chips));
    let others = list(others.map(|(other, _)| *other));
    let still = match others.len() {
        0 => String::new(),
        _ => format!("; some of its chips are still cordoned by {others}"),
    };
    print(&format!("uncordoned {id}{still}\n"))
}

fn print_list(path: &Path) -> Result<(), Failure> {
    let read = cordon_file::read(path, None).with_context(|| cannot("read", path))?;
    let cordons = match read {
        Some(StateFile::Valid(_, cordons)) => cordons,
        Some(StateFile::Absent) | None => Cordons::new(),
        Some(StateFile::Damaged(error)) => {
            return Err(anyhow::anyhow!("{} is damaged: {error}", path.display()).into());
        }
    };
    print(&cordon_table(&cordons, paint()))
}

/// Changes the file; what was damaged is set aside with a warning.
fn change(
    path: &Path,
    change: impl FnOnce(&mut Cordons) -> Result<(), CordonIdError>,
) -> anyhow::Result<CordonUpdate<()>> {
    let CordonUpdate { result, cordons, set_aside } =
        cordon_file::update(path, change).with_context(|| cannot("change", path))?;
    if let Some((error, moved_to)) = set_aside {
        warn(&format!(
            "{} was damaged ({error}) and moved to {}; cordon again what it held",
            path.display(),
            moved_to.display()
        ));
    }
    result?;
    Ok(CordonUpdate { result: (), cordons, set_aside: None })
}

fn cannot(verb: &str, path: &Path) -> String {
    format!("cannot {verb} the cordons in {} (see --kubelet-dir)", path.display())
}
