//! Samples the chips' health at intervals and hands the samples to the inventory's owner.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::inventory_owner::{HealthReport, SnapshotReceiver};
use super::slow::{self, warn_if_slow};
use crate::host::health_sample::{HealthFiles, Known};
use crate::host::root::Root;
use crate::model::config::Config;

/// Samples every `health.interval` until `stop`. Another interval counts from the last sample on.
pub async fn run(
    root: Arc<Root>,
    mut config: watch::Receiver<Arc<Config>>,
    snapshots: SnapshotReceiver,
    reports: mpsc::Sender<HealthReport>,
    stop: CancellationToken,
) {
    let (mut last, mut files) = (Instant::now(), HealthFiles::default());
    loop {
        let interval = config.borrow_and_update().health.interval;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(last + interval) => {}
            Ok(()) = config.changed() => continue,
        }
        let (chips, began) = (known(&snapshots), Instant::now());
        let root = Arc::clone(&root);
        let mut reads = std::mem::take(&mut files);
        let sampling = tokio::task::spawn_blocking(move || {
            let sample = reads.sample(&root, &chips);
            (reads, sample)
        });
        let sampled = warn_if_slow(sampling, slow::LIMIT, || {
            warn!(
                after = ?slow::LIMIT,
                "health sample has not finished (driver hung?); keeping the last verdicts"
            );
        });
        let sampled = sampled.await;
        last = Instant::now();
        let Ok((read, sample)) = sampled else { continue };
        files = read;
        debug!(chips = sample.len(), took = ?began.elapsed(), "health sample taken");
        if reports.send(HealthReport::Sysfs(sample)).await.is_err() {
            return;
        }
    }
}

fn known(snapshots: &SnapshotReceiver) -> Vec<Known> {
    let snapshot = snapshots.borrow().clone();
    let chips = snapshot.iter().flat_map(|snapshot| snapshot.inventory.chips_by_board());
    chips.map(|chip| (chip.address, chip.node.as_ref().map(|node| node.path.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::yield_now;

    use super::*;
    use crate::model::machine::Machine;

    fn every(interval: Duration) -> Arc<Config> {
        let mut config = Config::default();
        config.health.interval = interval;
        Arc::new(config)
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_interval_counts_without_waiting_for_the_longer_one_to_pass() {
        let root = Arc::new(Root::unpack(&Machine::default()).unwrap());
        let (config, in_force) = watch::channel(every(Duration::from_secs(3600)));
        let (_, snapshots) = watch::channel(None);
        let (reports, mut seen) = mpsc::channel(1);
        let began = Instant::now();
        let monitor = run(root, in_force, snapshots, reports, CancellationToken::new());
        let look = async {
            yield_now().await;
            config.send_replace(every(Duration::from_secs(1)));
            seen.recv().await
        };
        tokio::select! {
            biased;
            () = monitor => panic!("it ended"),
            look = look => assert!(matches!(look, Some(HealthReport::Sysfs(_)))),
        }
        assert_eq!(began.elapsed().as_secs(), 1);
    }
}
