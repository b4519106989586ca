//! `explain`: what can be explained; and `explain allocation`: which devices the plugin would prefer for a container, and why.

use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};

use super::output::{Failure, json, print};
use super::{ClaimArgs, ConfigArgs, MachineArgs, config, discover};
use crate::decide::allocation::prefer::{DeviceSupply, PreferenceRequest, explain};
use crate::model::device::{DeviceId, Resource};
use crate::model::pci::PciAddressError;
use crate::wire::report::allocation;
use crate::wire::report::allocation_text::allocation_text;

/// Answers that can be explained.
#[derive(Debug, Subcommand)]
pub enum ExplainVerb {
    /// Show which devices a container would get, the second-best choice, and how the two differ.
    ///
    /// This is the answer to the kubelet's GetPreferredAllocation: the closest set; among equals,
    /// the one that keeps the remaining devices closest and the most boards whole; then the lowest
    /// addresses.
    ///
    /// Exit codes: 0 success, 1 fewer devices available than requested, or failure.
    #[command(after_long_help = "Examples:
  ix-device-plugin explain allocation --size 2
  ix-device-plugin explain allocation --size 4 -o json --root fixtures/nodes/bi-v150-x8.node
  ix-device-plugin explain allocation --size 2 --splitboard --must-include 0000:13:00.0")]
    Allocation(AllocationArgs),
    /// Show which devices a claim would get on this machine, and why not the others.
    ///
    /// As schedulers do, it takes the first devices that fit, in the order of the slices; nothing is
    /// in use. It knows the device classes of the chart: `gpu.iluvatar.com`, a whole board, and
    /// `chip.gpu.iluvatar.com`, a chip. Of CEL it evaluates comparisons with literals, joined by `&&`;
    /// it names the other selectors.
    ///
    /// Exit codes: 0 success, 1 the claim is not met or cannot be evaluated, or failure.
    #[command(after_long_help = "Examples:
  ix-device-plugin explain claim fixtures/claims/two-chips-of-one-board.yaml --splitboard
  ix-device-plugin explain claim fixtures/claims/board-or-four-chips.yaml --splitboard -o json")]
    Claim(ClaimArgs),
}

/// A container's request.
#[derive(Args, Debug)]
pub struct AllocationArgs {
    /// How many devices the container requests.
    #[arg(long, value_name = "K")]
    pub size: usize,
    /// Free device ids, separated by commas, or `all`.
    #[arg(long, default_value = "all", value_name = "IDS")]
    pub available: Ids,
    /// Device ids that must be chosen, separated by commas.
    #[arg(long, value_name = "IDS")]
    pub must_include: Option<Ids>,
    /// The resource. Default: the first of the configuration.
    #[arg(long, value_name = "NAME")]
    pub resource: Option<String>,
    /// `text` for people, `json` for scripts.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: ExplainFormat,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Formats of `explain`.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[expect(missing_docs, reason = "AllocationArgs::output explains each")]
pub enum ExplainFormat {
    Text,
    Json,
}

/// Device ids on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Every healthy device of the resource.
    All,
    /// These.
    Only(Vec<DeviceId>),
}

impl FromStr for Ids {
    type Err = PciAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self::All);
        }
        let ids = text.split(',').map(str::trim).filter(|id| !id.is_empty());
        Ok(Self::Only(ids.map(str::parse).collect::<Result<_, _>>()?))
    }
}

impl Ids {
    fn of(&self, resource: &Resource) -> Vec<DeviceId> {
        match self {
            Self::All => resource.healthy_ids().collect(),
            Self::Only(ids) => ids.clone(),
        }
    }
}

pub(super) fn allocation(args: &AllocationArgs) -> Result<(), Failure> {
    let config = config::load(&args.config)?;
    let snapshot = discover::snapshot_at(&args.machine.root, &config)?;
    let resource = find(&snapshot.resources, args.resource.as_deref())?;
    let (available, must_include) = (
        args.available.of(resource),
        args.must_include.as_ref().map_or(Vec::new(), |ids| ids.of(resource)),
    );
    let supply = DeviceSupply {
        tree: &snapshot.inventory.tree,
        devices: &resource.devices,
        sharing: resource.sharing,
    };
    let request =
        PreferenceRequest { available: &available, must_include: &must_include, size: args.size };
    let explanation = explain(&supply, &request);
    match args.output {
        ExplainFormat::Text => print(&allocation_text(&explanation))?,
        ExplainFormat::Json => print(&json(&allocation::document(&explanation))?)?,
    }
    if explanation.choice.ids.len() < args.size { Err(Failure::Found(1)) } else { Ok(()) }
}

fn find<'a>(resources: &'a [Resource], name: Option<&str>) -> anyhow::Result<&'a Resource> {
    let wanted = |resource: &&Resource| name.is_none_or(|name| name == resource.name);
    resources.iter().find(wanted).ok_or_else(|| {
        let names: Vec<_> = resources.iter().map(|resource| &*resource.name).collect();
        let (name, names) = (name.unwrap_or_default(), names.join(", "));
        anyhow::anyhow!("`{name}` is not a resource of this configuration, which has {names}")
    })
}
