//! Samples the health of the chips in /sys at intervals and reports it to the inventory's owner.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::inventory_owner::{HealthReport, SnapshotReceiver};
use super::slow::{self, warn_if_slow};
use crate::host::health_sample::{self, SampledChip};
use crate::host::root::Root;
use crate::model::config::Config;

/// Samples every `health.interval` until `stop`. A changed interval counts from the last sample.
pub async fn run(
    root: Arc<Root>,
    mut config: watch::Receiver<Arc<Config>>,
    snapshots: SnapshotReceiver,
    reports: mpsc::Sender<HealthReport>,
    stop: CancellationToken,
) {
    let mut last = Instant::now();
    loop {
        let interval = config.borrow_and_update().health.interval;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(last + interval) => {}
            Ok(()) = config.changed() => continue,
        }
        let (chips, began) = (sampled_chips(&snapshots), Instant::now());
        let root = Arc::clone(&root);
        let sampling = tokio::task::spawn_blocking(move || health_sample::sample(&root, &chips));
        let sampled = warn_if_slow(sampling, slow::SLOW_SAMPLE_LIMIT, || {
            warn!(
                after = ?slow::SLOW_SAMPLE_LIMIT,
                "health sample has not finished (driver hung?); keeping the last verdicts"
            );
        });
        let sampled = sampled.await;
        last = Instant::now();
        let Ok(sample) = sampled else { continue };
        debug!(chips = sample.len(), took = ?began.elapsed(), "health sample taken");
        if reports.send(HealthReport::Sysfs(sample)).await.is_err() {
            return;
        }
    }
}

fn sampled_chips(snapshots: &SnapshotReceiver) -> Vec<SampledChip> {
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
        let (config, active) = watch::channel(every(Duration::from_secs(3600)));
        let (_, snapshots) = watch::channel(None);
        let (reports, mut seen) = mpsc::channel(1);
        let began = Instant::now();
        let monitor = run(root, active, snapshots, reports, CancellationToken::new());
        let first_report = async {
            yield_now().await;
            config.send_replace(every(Duration::from_secs(1)));
            seen.recv().await
        };
        tokio::select! {
            biased;
            () = monitor => panic!("it ended"),
            report = first_report => assert!(matches!(report, Some(HealthReport::Sysfs(_)))),
        }
        assert_eq!(began.elapsed().as_secs(), 1);
    }
}
