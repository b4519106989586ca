//! The part of the story in which an operator cordons a device that a pod holds.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{STEP_TIMEOUT, Stage};
use crate::decide::node::cordons;
use crate::decide::node::snapshot::NodeSnapshot;
use crate::demo::timeline::Actor;
use crate::host::cordon_file::{self, FILE_NAME};
use crate::model::cordon::{CordonState, CordonUsage, Cordons};
use crate::model::device::DeviceId;

const REASON: &str = "RMA-1234";

impl Stage<'_> {
    /// A device is cordoned: no other pod gets it, its pod keeps it, and after its end it is drained.
    pub(super) async fn cordon(&mut self, directory: &Path) -> anyhow::Result<()> {
        let allocatable = self.count().1;
        if self.free_devices() == 0 {
            let text = "no cordon: all devices are in use";
            return self.print(Actor::Story, text, &Value::Null);
        }
        let holder = self.pod(1).await?;
        let id = self.held_by(&holder).context("the pod has no device")?;
        let text = format!("cordon {} --reason {REASON}", id.address);
        self.operate(directory, &text, |all, snapshot| {
            let (id, chips) = cordons::chips_of(&id.address.to_string(), snapshot)?;
            cordons::add(all, id, chips, Some(REASON.parse()?));
            Ok(())
        })?;
        self.counts.cordons += 1;
        self.wait_for_allocatable("fewer devices", |now| now < allocatable).await?;
        self.cordon_state(|usage| matches!(usage, CordonUsage::Held(_))).await?;
        self.delete(&holder).await?;
        self.cordon_state(|usage| *usage == CordonUsage::Drained).await?;
        self.operate(directory, &format!("uncordon {}", id.address), |all, _| {
            cordons::remove(all, &id.address.to_string())?;
            Ok(())
        })?;
        self.wait_for_allocatable("all devices again", |now| now == allocatable).await
    }

    fn free_devices(&self) -> usize {
        self.count().1.saturating_sub(self.held.len())
    }

    fn held_by(&self, pod: &str) -> Option<DeviceId> {
        let mut held = self.held.iter();
        held.find(|(_, holder)| *holder == pod).and_then(|(id, _)| id.parse().ok())
    }

    /// What the command of this name does to the file.
    fn operate(
        &mut self,
        directory: &Path,
        command: &str,
        change: impl FnOnce(&mut Cordons, &NodeSnapshot) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.print(Actor::Operator, command, &json!({ "command": command }))?;
        let snapshot = self.snapshot()?;
        let path = directory.join(FILE_NAME);
        let update = cordon_file::update(&path, |cordons| change(cordons, &snapshot));
        update.context("cannot change the cordons")?.result
    }

    async fn wait_for_allocatable(
        &mut self,
        what: &str,
        wanted: impl Fn(usize) -> bool,
    ) -> anyhow::Result<()> {
        let resource = self.resource.clone();
        let took = self.wait_until(what, move |view| wanted(view.allocatable(&resource))).await?;
        self.node(&format!("sees it after {:.1} ms;", took.as_secs_f64() * 1000.0))
    }

    /// Shows who holds the cordoned device, once that is as wanted.
    async fn cordon_state(&mut self, wanted: impl Fn(&CordonUsage) -> bool) -> anyhow::Result<()> {
        let state_of = |snapshot: &NodeSnapshot| -> Option<CordonState> {
            snapshot.cordons.iter().find(|state| wanted(&state.usage)).cloned()
        };
        let mut snapshots = self.snapshots.clone();
        let is_known = |snapshot: &Option<Arc<NodeSnapshot>>| {
            snapshot.iter().any(|snapshot| state_of(snapshot).is_some())
        };
        let known = timeout(STEP_TIMEOUT, snapshots.wait_for(is_known)).await;
        let known = known.context("the plugin did not learn who holds the device")??;
        let state = known.iter().find_map(|snapshot| state_of(snapshot));
        drop(known);
        let CordonState { id, usage, .. } = state.context("the cordon is gone")?;
        let usage = match usage {
            CordonUsage::Held(holders) => {
                let holders: Vec<_> = holders.iter().map(ToString::to_string).collect();
                format!("still held by {}", holders.join(", "))
            }
            CordonUsage::Drained => "drained".to_owned(),
            CordonUsage::Unknown => "not known who holds it".to_owned(),
        };
        let text = format!("device {id}: Cordoned: {REASON}; {usage}");
        self.print(Actor::Plugin, &text, &json!({ "device": id.to_string(), "usage": usage }))
    }
}
