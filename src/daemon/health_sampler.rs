//! Samples the health of the chips in /sys at intervals and reports it to the inventory's owner.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::inventory_inputs::HealthReport;
use super::inventory_owner::SnapshotReceiver;
use super::slow::{self, warn_if_slow};
use super::timer::next_tick;
use crate::host::health_sample::{HealthFiles, SampledChip};
use crate::host::root::Root;
use crate::model::config::Config;
use crate::model::health_sample::HealthSample;
use crate::model::log_event::LogEvent;

/// Between two samples, however many are asked for.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Samples every `health.interval` from `started` on, until `stop`; another interval counts at once, and
/// a request ends it.
pub async fn run(
    root: Arc<Root>,
    started: Instant,
    mut config: watch::Receiver<Arc<Config>>,
    snapshots: SnapshotReceiver,
    requests: Arc<Notify>,
    reports: mpsc::Sender<HealthReport>,
    stop: CancellationToken,
) {
    let (mut last, mut files) = (Instant::now(), HealthFiles::default());
    let mut is_requested = false;
    loop {
        let interval = config.borrow_and_update().health.interval;
        let next = if is_requested {
            last + SHORTEST_INTERVAL.min(interval)
        } else {
            next_tick(started, last, interval)
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
            () = requests.notified(), if !is_requested => {
                is_requested = true;
                continue;
            }
            Ok(()) = config.changed() => continue,
        }
        let (chips, began) = (sampled_chips(&snapshots), Instant::now());
        let sampled = sample(&root, std::mem::take(&mut files), chips).await;
        (last, is_requested) = (Instant::now(), false);
        let Ok((read, sample)) = sampled else { continue };
        files = read;
        debug!(chips = sample.len(), took = ?began.elapsed(), "health sample taken");
        if reports.send(HealthReport::Sysfs(sample)).await.is_err() {
            return;
        }
    }
}

/// Reads the files of these chips on a thread of its own, and logs where that takes long.
async fn sample(
    root: &Arc<Root>,
    mut files: HealthFiles,
    chips: Vec<SampledChip>,
) -> Result<(HealthFiles, HealthSample), JoinError> {
    let root = Arc::clone(root);
    let sampling = tokio::task::spawn_blocking(move || {
        let sample = files.sample(&root, &chips);
        (files, sample)
    });
    let sampled = warn_if_slow(sampling, slow::SLOW_SAMPLE_LIMIT, || {
        warn!(
            event = LogEvent::SampleSlow.name(),
            after = ?slow::SLOW_SAMPLE_LIMIT,
            "health sample has not finished (driver hung?); keeping the last verdicts"
        );
    });
    sampled.await
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

    /// The sampler of a machine without chips, while `story` goes on; times are since its start.
    async fn while_sampling(
        config: watch::Receiver<Arc<Config>>,
        requests: &Arc<Notify>,
        story: impl AsyncFnOnce(&mut mpsc::Receiver<HealthReport>, Instant),
    ) {
        let root = Arc::new(Root::unpack(&Machine::default()).unwrap());
        let (_, snapshots) = watch::channel(None);
        let (reports, mut seen) = mpsc::channel(1);
        let (requests, stop) = (Arc::clone(requests), CancellationToken::new());
        let began = Instant::now();
        tokio::select! {
            biased;
            () = run(root, began, config, snapshots, requests, reports, stop) => panic!("it ended"),
            () = story(&mut seen, began) => {}
        }
    }

    #[track_caller]
    fn check(report: Option<&HealthReport>, since: Instant, milliseconds: u128) {
        assert!(matches!(report, Some(HealthReport::Sysfs(_))));
        assert_eq!(since.elapsed().as_millis(), milliseconds);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_interval_counts_without_waiting_for_the_longer_one_to_pass() {
        let (config, active) = watch::channel(every(Duration::from_secs(3600)));
        while_sampling(active, &Arc::default(), async |seen, began| {
            yield_now().await;
            config.send_replace(every(Duration::from_secs(1)));
            check(seen.recv().await.as_ref(), began, 1000);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_sample_that_is_asked_for_is_taken_at_once_and_many_are_bounded() {
        let (_config, active) = watch::channel(every(Duration::from_secs(3600)));
        let requests = Arc::new(Notify::new());
        while_sampling(active, &requests, async |seen, began| {
            tokio::time::sleep(Duration::from_secs(10)).await;
            requests.notify_one();
            check(seen.recv().await.as_ref(), began, 10_000);
            for number in 1..=3 {
                requests.notify_one();
                requests.notify_one();
                check(seen.recv().await.as_ref(), began, 10_000 + 100 * number);
            }
        })
        .await;
    }
}
