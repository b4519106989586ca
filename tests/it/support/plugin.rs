//! The plugin in this process, as tests watch it.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use ix_device_plugin::app::{RunError, Running};
use ix_device_plugin::decide::node::snapshot::NodeSnapshot;
use ix_device_plugin::demo::kubelet::NodeView;
use ix_device_plugin::model::board::Board;
use ix_device_plugin::model::health::Health;
use ix_device_plugin::model::rescan::RescanTrigger;
use ix_device_plugin::model::session::Progress;

use super::clock::soon;

/// A plugin in this process; dropping it ends its tasks wherever they are, as a kill does.
pub(crate) struct Plugin {
    running: Running,
    /// The first of its configuration.
    resource: String,
}

impl Deref for Plugin {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl Plugin {
    pub(super) fn new(running: Running, resource: String) -> Self {
        Self { running, resource }
    }

    /// Ends as with SIGTERM.
    pub(crate) async fn stop(self) -> Result<(), RunError> {
        soon("the plugin to stop", self.running.run_until_stopped(std::future::ready(()))).await
    }

    /// Leads to a scan.
    pub(crate) async fn rescan(&self) {
        self.triggers.send(RescanTrigger::Uevent).await.unwrap();
    }

    /// The latest snapshot, once there is one.
    pub(crate) async fn snapshot(&self) -> Arc<NodeSnapshot> {
        self.until_snapshot("the first scan", |_| true).await
    }

    /// Waits until the plugin's snapshot is as `wanted`.
    pub(crate) async fn until_snapshot(
        &self,
        what: &str,
        mut wanted: impl FnMut(&NodeSnapshot) -> bool,
    ) -> Arc<NodeSnapshot> {
        let mut snapshots = self.snapshots.clone();
        let is_wanted =
            |snapshot: &Option<Arc<NodeSnapshot>>| snapshot.as_deref().is_some_and(&mut wanted);
        soon(what, snapshots.wait_for(is_wanted)).await.unwrap().clone().unwrap()
    }

    /// Waits until the first resource's session is so far.
    pub(crate) async fn reaches(&self, wanted: Progress) {
        let reached = async {
            let mut sessions = self.sessions.clone();
            let view = sessions.wait_for(|view| view.contains_key(&self.resource)).await.unwrap();
            let mut progress = view[&self.resource].clone();
            drop(view);
            progress.wait_for(|progress| *progress == wanted).await.unwrap();
        };
        soon(&format!("the session to be {wanted:?}"), reached).await;
    }

    pub(crate) async fn last_board(&self) -> Board {
        self.snapshot().await.inventory.boards.last().unwrap().clone()
    }

    /// Whether the kubelet has this plugin's present list of the first resource, over an open stream.
    pub(crate) fn is_current(&self, view: &NodeView) -> bool {
        let snapshot = self.snapshots.borrow().clone();
        let ours = snapshot.as_deref().and_then(|snapshot| snapshot.resource(&self.resource));
        let (Some(ours), Some(theirs)) = (ours, view.resources.get(&self.resource)) else {
            return false;
        };
        let ids: BTreeSet<_> = ours.listed().map(|(id, _)| id.to_string()).collect();
        let healthy = ours.listed().filter(|(_, device)| device.health == Health::Healthy);
        theirs.registered
            && theirs.streams_open > 0
            && theirs.lists_received > 0
            && ids.iter().eq(theirs.devices.keys())
            && theirs.allocatable == healthy.count()
    }
}
