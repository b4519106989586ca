//! `explain claim`: which devices a `ResourceClaim` would get on this machine.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use serde_json::{Value, json};

use super::output::{Failure, json, print};
use super::{ConfigArgs, ExplainFormat, MachineArgs, config, discover};
use crate::decide::dra::claims::ClaimHolders;
use crate::decide::dra::pool::pool;
use crate::decide::dra::slices::{contents, slices};
use crate::decide::node::snapshot::NodeSnapshot;
use crate::demo::scheduler::explain::{ClaimExplanation, explain};
use crate::host::files;
use crate::model::dra::DRIVER_NAME;
use crate::model::dra::slice::{NodeIdentity, ServerSupport};
use crate::wire::dra_objects::slice_object;

/// No claim is longer.
const CLAIM_LIMIT: u64 = 1 << 20;

/// A claim, and the machine that it is tried on.
#[derive(Args, Debug)]
pub struct ClaimArgs {
    /// A `ResourceClaim` or `ResourceClaimTemplate` as YAML or JSON, or `-` for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// `text` for people, `json` for scripts.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: ExplainFormat,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// The configuration; its mode makes no difference.
    #[command(flatten)]
    pub config: ConfigArgs,
}

pub(super) fn claim(args: &ClaimArgs) -> Result<(), Failure> {
    let claim = read_claim(args)?;
    let config = config::load_for_dra(&args.config)?;
    let snapshot = discover::snapshot_at(&args.machine.root, &config)?;
    let node = NodeIdentity { name: "this-node".to_owned(), uid: "uid".to_owned() };
    let slices = published(&snapshot, &node);
    let explanation =
        explain(&slices, &classes()?, &node.name, &claim).map_err(anyhow::Error::new)?;
    match args.output {
        ExplainFormat::Text => print(&text(&explanation))?,
        ExplainFormat::Json => print(&json(&document(&explanation))?)?,
    }
    if explanation.chosen.is_ok() { Ok(()) } else { Err(Failure::Found(1)) }
}

fn read_claim(args: &ClaimArgs) -> anyhow::Result<ResourceClaim> {
    let shown = args.file.display();
    let path = if args.file.as_os_str() == "-" { "/dev/stdin".into() } else { args.file.clone() };
    let bytes =
        files::read_start(&path, CLAIM_LIMIT).with_context(|| format!("cannot read {shown}"))?;
    let mut value: Value =
        serde_yaml::from_slice(&bytes).with_context(|| format!("{shown} is not YAML or JSON"))?;
    match value["kind"].as_str().unwrap_or_default() {
        "ResourceClaim" => {}
        "ResourceClaimTemplate" => {
            let spec = value["spec"]["spec"].take();
            let (version, metadata) = (value["apiVersion"].take(), value["metadata"].take());
            let kind = "ResourceClaim";
            let claim = json!({
                "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec,
            });
            value = claim;
        }
        kind => {
            return Err(anyhow!(
                "{shown} has the kind `{kind}`; write a ResourceClaim or a ResourceClaimTemplate"
            ));
        }
    }
    serde_json::from_value(value)
        .with_context(|| format!("{shown} is not a ResourceClaim of resource.k8s.io/v1"))
}

/// The slices of this machine while no claim holds anything.
fn published(snapshot: &NodeSnapshot, node: &NodeIdentity) -> Vec<ResourceSlice> {
    let support = ServerSupport::default();
    let pool = pool(snapshot, &ClaimHolders::default(), &support);
    let slices = slices(node, &contents(&pool, &support), 1);
    slices.iter().map(|slice| slice_object(slice, node, None)).collect()
}

/// The device classes of the chart.
fn classes() -> anyhow::Result<Vec<DeviceClass>> {
    let class = |name: &str, condition: &str| {
        let attributes = format!("device.attributes['{DRIVER_NAME}']");
        let expression = format!("device.driver == '{DRIVER_NAME}' && {attributes}.{condition}");
        serde_json::from_value(json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": { "name": name },
            "spec": { "selectors": [{ "cel": { "expression": expression } }] },
        }))
    };
    let chip = format!("chip.{DRIVER_NAME}");
    let classes = [class(DRIVER_NAME, "wholeBoard"), class(&chip, "chips == 1")];
    classes.into_iter().collect::<Result<_, _>>().context("cannot make the device classes")
}

fn text(explanation: &ClaimExplanation) -> String {
    let mut text = String::new();
    match &explanation.chosen {
        Ok(chosen) => {
            for (request, device) in chosen {
                text.push_str(&format!("{request} gets {device}\n"));
            }
        }
        Err(why) => text.push_str(&format!("not met: {why}\n")),
    }
    if !explanation.others.is_empty() {
        text.push_str("not chosen:\n");
    }
    for (device, why) in &explanation.others {
        text.push_str(&format!("  {device}: {why}\n"));
    }
    text
}

fn document(explanation: &ClaimExplanation) -> Value {
    let pair =
        |(request, device): &(String, String)| json!({ "request": request, "device": device });
    let other = |(device, why): &(String, String)| json!({ "device": device, "why": why });
    let others: Vec<_> = explanation.others.iter().map(other).collect();
    match &explanation.chosen {
        Ok(chosen) => {
            let chosen: Vec<_> = chosen.iter().map(pair).collect();
            json!({ "chosen": chosen, "others": others })
        }
        Err(why) => json!({ "chosen": null, "why": why, "others": others }),
    }
}
