//! The configuration file, followed while the daemon runs. A ConfigMap volume swaps a symbolic link
//! in the file's directory; a good change is passed on, a bad one changes nothing and is reported.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::inventory_owner::Offers;
use crate::decide::advertise::oversized;
use crate::host::config_file::ConfigSource;
use crate::host::directory_watch::DirectoryWatch;
use crate::model::config::Config;

/// How often to look at the file when nothing is heard.
const LOOK: Duration = Duration::from_millis(800);

/// Follows one file.
pub struct ConfigWatch {
    source: ConfigSource,
    config: watch::Sender<Arc<Config>>,
    offers: Offers,
    /// Asks for a look at once.
    requests: Arc<Notify>,
    inotify: bool,
    /// The last failure, so that it is said once.
    last_complaint: String,
}

impl ConfigWatch {
    /// Follows `source`; every good change goes to `config`.
    #[must_use]
    pub fn new(
        source: ConfigSource,
        config: watch::Sender<Arc<Config>>,
        offers: Offers,
        requests: Arc<Notify>,
        inotify: bool,
    ) -> Self {
        Self { source, config, offers, requests, inotify, last_complaint: String::new() }
    }

    /// Follows until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut watch = None;
        while !stop.is_cancelled() {
            if watch.is_none() && self.inotify {
                watch = self.source.directory().and_then(|path| DirectoryWatch::open(path).ok());
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(LOOK) => {}
                () = self.requests.notified() => {}
                result = DirectoryWatch::changed_or_never(watch.as_ref()) => {
                    if result.is_err() {
                        watch = None;
                    }
                }
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let source = self.source.clone();
        let Ok(loaded) = tokio::task::spawn_blocking(move || source.load()).await else { return };
        match loaded {
            Ok(config) => self.apply(config),
            Err(error) => self.complain(error.to_string()),
        }
    }

    fn apply(&mut self, config: Config) {
        if **self.config.borrow() == config {
            self.last_complaint.clear();
            return;
        }
        let offer = self.offers.borrow().clone();
        if let Some(problem) = offer.and_then(|offer| oversized(&offer.inventory, &config)) {
            self.complain(problem);
            return;
        }
        self.last_complaint.clear();
        info!(path = %self.source.path().display(), in_force = ?config, "configuration changed");
        self.config.send_replace(Arc::new(config));
    }

    fn complain(&mut self, complaint: String) {
        if self.last_complaint == complaint {
            debug!("the configuration is still wrong");
        } else {
            warn!("the last good configuration stays in force: {complaint}");
            self.last_complaint = complaint;
        }
    }
}
