//! The part of the story in which boards become chips while a pod holds a board: no other pod gets
//! its chips.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::time::timeout;

use super::{STEP_TIMEOUT, Stage};
use crate::decide::node::snapshot::NodeSnapshot;
use crate::demo::timeline::Actor;
use crate::host::config_file::ConfigSource;
use crate::model::board::Board;
use crate::model::config::{Config, Granularity};
use crate::model::device::Device;
use crate::model::health::ReasonCode;
use crate::model::pci::PciAddress;
use crate::parse::config::Overrides;
use crate::wire::config_yaml::effective_yaml;

/// The configuration file of the demo; the plugin follows it.
pub(super) struct ConfigFile {
    path: PathBuf,
}

impl ConfigFile {
    /// Writes the first version below `directory`.
    pub(super) fn write(directory: &Path, config: &Config) -> anyhow::Result<Self> {
        let file = Self { path: directory.join("ix-config") };
        file.replace(config)?;
        Ok(file)
    }

    /// Replaces the file in one step.
    fn replace(&self, config: &Config) -> anyhow::Result<()> {
        let directory = self.path.parent().context("the file has a directory")?;
        let written = NamedTempFile::new_in(directory).and_then(|mut file| {
            file.write_all(effective_yaml(config).as_bytes())?;
            Ok(file.persist(&self.path)?)
        });
        written.context("cannot write the configuration")?;
        Ok(())
    }

    pub(super) fn source(&self) -> ConfigSource {
        ConfigSource::new(Some(&self.path), Overrides::default())
    }
}

impl Stage<'_> {
    /// A board of several chips is held; the configuration changes to chips; the held chips stay
    /// Unhealthy until the pod is deleted.
    pub(super) async fn reconfigure(&mut self) -> anyhow::Result<()> {
        if let Some(why) = self.cannot_reconfigure()? {
            return self.print(
                Actor::Story,
                &format!("no configuration change: {why}"),
                &Value::Null,
            );
        }
        let holder = self.pod(1).await?;
        let held_chips = self.chips_held_by(&holder)?;
        self.split_boards()?;
        let free = self.chip_count()? - self.chips_of_held_boards()?.len();
        self.wait_for_count("chips instead of boards", free).await?;
        for device in self.wait_for_holder(&holder, &held_chips).await? {
            self.device_reasons(&device)?;
        }
        self.pod(held_chips.len()).await?;
        self.delete(&holder).await?;
        self.wait_for_count("the pod's chips", free + held_chips.len()).await
    }

    /// Why splitting boards would show nothing; none if it does.
    fn cannot_reconfigure(&self) -> anyhow::Result<Option<&'static str>> {
        let rule = &self.config.resources[0];
        let snapshot = self.snapshot()?;
        let is_split = rule.granularity == Granularity::Chip;
        let is_shared = rule.sharing.is_some();
        let has_large_board = snapshot.inventory.boards.iter().any(|board| board.chips.len() > 1);
        Ok(match () {
            () if is_split => Some("the boards are split already"),
            () if is_shared => Some("the devices are shared"),
            () if !has_large_board => Some("every board has one chip"),
            () if self.count().1 == 0 => Some("all devices are in use"),
            () => None,
        })
    }

    fn split_boards(&mut self) -> anyhow::Result<()> {
        self.config.resources[0].granularity = Granularity::Chip;
        self.config_file.replace(&self.config)?;
        self.counts.reconfigurations += 1;
        let text = "the configuration changes to splitboard: true; each chip is a device now";
        self.print(Actor::Story, text, &json!({ "splitboard": true }))
    }

    async fn wait_for_count(&mut self, what: &str, allocatable: usize) -> anyhow::Result<()> {
        let (resource, capacity) = (self.resource.clone(), self.chip_count()?);
        let took = self
            .wait_until(what, move |view| {
                (view.capacity(&resource), view.allocatable(&resource)) == (capacity, allocatable)
            })
            .await?;
        self.node(&format!("sees it after {:.1} ms;", took.as_secs_f64() * 1000.0))
    }

    /// The devices of these chips, once the plugin knows that `holder` holds them.
    async fn wait_for_holder(
        &self,
        holder: &str,
        chips: &BTreeSet<PciAddress>,
    ) -> anyhow::Result<Vec<Device>> {
        let is_named = |device: &Device| {
            let mut reasons = device.reasons.iter();
            reasons.any(|it| it.code == ReasonCode::HeldByPod && it.detail.ends_with(holder))
        };
        let withheld = |snapshot: &NodeSnapshot| -> Vec<_> {
            let devices = snapshot.withheld().map(|(_, device)| device);
            let of_chips = devices.filter(|device| chips.contains(&device.id.address));
            of_chips.filter(|device| is_named(device)).cloned().collect()
        };
        let mut snapshots = self.snapshots.clone();
        let is_known = |snapshot: &Option<Arc<NodeSnapshot>>| {
            snapshot.iter().any(|snapshot| withheld(snapshot).len() == chips.len())
        };
        let known = timeout(STEP_TIMEOUT, snapshots.wait_for(is_known)).await;
        let known = known.context("the plugin did not learn which pod holds the chips")??;
        Ok(known.iter().flat_map(|snapshot| withheld(snapshot)).collect())
    }

    fn chip_count(&self) -> anyhow::Result<usize> {
        Ok(self.snapshot()?.inventory.chips().len())
    }

    fn chips_held_by(&self, pod: &str) -> anyhow::Result<BTreeSet<PciAddress>> {
        self.chips_of_boards(|board| {
            self.held.get(&board.address.to_string()).is_some_and(|holder| holder == pod)
        })
    }

    fn chips_of_held_boards(&self) -> anyhow::Result<BTreeSet<PciAddress>> {
        self.chips_of_boards(|board| self.held.contains_key(&board.address.to_string()))
    }

    fn chips_of_boards(
        &self,
        is_wanted: impl Fn(&Board) -> bool,
    ) -> anyhow::Result<BTreeSet<PciAddress>> {
        let snapshot = self.snapshot()?;
        let boards = snapshot.inventory.boards.iter().filter(|board| is_wanted(board));
        Ok(boards.flat_map(|board| &board.chips).map(|chip| chip.address).collect())
    }
}
