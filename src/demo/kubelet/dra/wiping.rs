//! Deletes slices: all at the start of the kubelet, and those of a driver that was away for too long.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::{Instant, sleep};

use super::registry::DraContext;
use crate::daemon::timer::until;

/// Deletes until the task is dropped.
pub(super) async fn run(context: DraContext) {
    wipe(&context).await;
    let mut state = context.state.subscribe();
    let mut known = BTreeSet::new();
    let mut away: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        {
            let state = state.borrow_and_update();
            known.extend(state.drivers.values().map(|driver| driver.name.clone()));
            away.retain(|driver, _| !state.is_connected(driver));
            for driver in known.iter().filter(|driver| !state.is_connected(driver)) {
                let delay = context.settings.deadlines.wiping_delay;
                away.entry(driver.clone()).or_insert_with(|| Instant::now() + delay);
            }
        }
        let first = away.iter().min_by_key(|(_, at)| **at);
        let first = first.map(|(driver, at)| (driver.clone(), *at));
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            () = until(first.as_ref().map(|(_, at)| *at)) => {
                if let Some((driver, _)) = first {
                    wipe(&context).await;
                    known.remove(&driver);
                    away.remove(&driver);
                }
            }
        }
    }
}

/// Again and again until the API server does it.
async fn wipe(context: &DraContext) {
    while let Err(error) = (context.settings.wipe)() {
        context.state.send_modify(|state| state.last_error = Some(error));
        sleep(context.settings.deadlines.reconcile).await;
    }
    context.state.send_modify(|state| state.wipes += 1);
}
