//! The plugin's daemon as the stories run it: beside them, in the same process.

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::app::{self, DaemonSettings, RunError};
use crate::daemon::inventory_owner::SnapshotReceiver;
use crate::model::rescan::RescanTrigger;

/// A daemon that runs beside the story.
pub(super) struct DemoDaemon {
    pub(super) snapshots: SnapshotReceiver,
    pub(super) triggers: mpsc::Sender<RescanTrigger>,
    end: oneshot::Sender<()>,
    task: JoinSet<Result<(), RunError>>,
}

impl DemoDaemon {
    pub(super) fn start(settings: DaemonSettings) -> Self {
        let running = app::build(settings);
        let (snapshots, triggers) = (running.snapshots.clone(), running.triggers.clone());
        let (end, ended) = oneshot::channel::<()>();
        let mut task = JoinSet::new();
        task.spawn(running.run_until_stopped(async {
            // Dropped or sent, both mean the end.
            let _ = ended.await;
        }));
        Self { snapshots, triggers, end, task }
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.end);
        match self.task.join_next().await {
            Some(ended) => Ok(ended??),
            None => Ok(()),
        }
    }
}
