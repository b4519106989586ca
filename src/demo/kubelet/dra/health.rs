//! The health stream of one driver, opened again whenever it ends.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::Channel;

use super::registry::DraContext;
use super::settings::HealthService;
use super::state::{RegisteredDriver, ReportedHealth};
use crate::wire::dra_health_v1::dra_resource_health_client as v1_client;
use crate::wire::dra_health_v1alpha1::dra_resource_health_client as v1alpha1_client;
use crate::wire::{dra_health_v1, dra_health_v1alpha1};

/// How long an entry counts that names no time of its own. Source: cm/dra, `DefaultHealthTimeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// One device of a list, in either version.
struct ListedHealth {
    pool: String,
    device: String,
    status: i32,
    timeout: i64,
    message: String,
}

/// Follows the health of devices until the task is dropped.
pub(super) async fn follow(context: &DraContext, driver: &RegisteredDriver, channel: Channel) {
    loop {
        let is_listed = driver.versions.iter().any(|it| it == "v1.DRAResourceHealth");
        let ended = if context.settings.health == HealthService::Listed && is_listed {
            follow_v1(context, driver, channel.clone()).await
        } else {
            follow_v1alpha1(context, driver, channel.clone()).await
        };
        if let Err(status) = ended {
            tracing::debug!(%status, "health stream of a driver ended");
        }
        forget(context, &driver.name);
        sleep(context.settings.deadlines.health_retry).await;
    }
}

/// The health of all devices of a driver is unknown since its stream ended, also of those that another
/// instance reported (kubelets up to 1.36).
pub(super) fn forget(context: &DraContext, driver: &str) {
    context.state.send_modify(|state| state.health.retain(|key, _| key[0] != driver));
}

macro_rules! follow_version {
    ($name:ident, $version:ident, $client:ident) => {
        async fn $name(
            context: &DraContext,
            driver: &RegisteredDriver,
            channel: Channel,
        ) -> Result<(), Status> {
            let mut client = $client::DraResourceHealthClient::new(channel);
            let request = $version::NodeWatchResourcesRequest {};
            let mut lists = client.node_watch_resources(request).await?.into_inner();
            while let Some(list) = lists.message().await? {
                let devices = list.devices.into_iter().map(|it| {
                    let device = it.device.unwrap_or_default();
                    ListedHealth {
                        pool: device.pool_name,
                        device: device.device_name,
                        status: it.health,
                        timeout: it.health_check_timeout_seconds,
                        message: it.message,
                    }
                });
                received(context, driver, devices.collect());
            }
            Ok(())
        }
    };
}

follow_version!(follow_v1, dra_health_v1, v1_client);
follow_version!(follow_v1alpha1, dra_health_v1alpha1, v1alpha1_client);

fn received(context: &DraContext, driver: &RegisteredDriver, devices: Vec<ListedHealth>) {
    let now = Instant::now();
    context.state.send_modify(|state| {
        state.health_lists += 1;
        for ListedHealth { pool, device, status, timeout, message } in devices {
            let timeout = u64::try_from(timeout).ok().filter(|seconds| *seconds > 0);
            let until = now + timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
            let key = [driver.name.clone(), pool, device];
            state.health.insert(key, ReportedHealth { status, message, until });
        }
    });
}
