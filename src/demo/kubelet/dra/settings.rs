//! Which kubelet to be in dynamic resource allocation, and how to misbehave on request.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::daemon::dra_service::ClaimReader;

/// How long the kubelet waits for what. The default is kubelet 1.36.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DraDeadlines {
    /// Dialling a registration socket. Source: pluginmanager, `dialTimeoutDuration`.
    pub dial: Duration,
    /// One call of GetInfo. Source: pluginmanager, `operation_generator.go`.
    pub get_info: Duration,
    /// One call of NotifyRegistrationStatus. Source: the same.
    pub notify: Duration,
    /// One call of NodePrepareResources or NodeUnprepareResources.
    /// Source: cm/dra/plugin, `defaultClientCallTimeout`.
    pub call: Duration,
    /// Between two comparisons of the sockets with the registrations.
    /// Source: pluginmanager, `loopSleepDuration`.
    pub reconcile: Duration,
    /// The first wait after a failed registration; it doubles.
    pub first_backoff: Duration,
    /// The longest such wait.
    pub longest_backoff: Duration,
    /// Between two attempts to connect to a service socket. Source: grpc-go's first backoff.
    pub reconnect: Duration,
    /// Between the end of a health stream and the next. Source: cm/dra/plugin.
    pub health_retry: Duration,
    /// How long a driver may be away until its slices are deleted. Source: cm/dra, `defaultWipingDelay`.
    pub wiping_delay: Duration,
    /// Between two searches for claims of pods that ended. Source: cm/dra, `defaultReconcilePeriod`.
    pub unprepare: Duration,
}

impl Default for DraDeadlines {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(10),
            get_info: Duration::from_secs(1),
            notify: Duration::from_secs(5),
            call: Duration::from_secs(45),
            reconcile: Duration::from_secs(1),
            first_backoff: Duration::from_millis(500),
            longest_backoff: Duration::from_secs(122),
            reconnect: Duration::from_secs(1),
            health_retry: Duration::from_secs(5),
            wiping_delay: Duration::from_secs(30),
            unprepare: Duration::from_secs(60),
        }
    }
}

impl DraDeadlines {
    /// All of them so many times shorter.
    #[must_use]
    pub fn faster(self, times: u32) -> Self {
        Self {
            dial: self.dial / times,
            get_info: self.get_info / times,
            notify: self.notify / times,
            call: self.call / times,
            reconcile: self.reconcile / times,
            first_backoff: self.first_backoff / times,
            longest_backoff: self.longest_backoff / times,
            reconnect: self.reconnect / times,
            health_retry: self.health_retry / times,
            wiping_delay: self.wiping_delay / times,
            unprepare: self.unprepare / times,
        }
    }
}

/// Which health service the kubelet uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthService {
    /// v1alpha1, whatever the driver lists: kubelets up to 1.36.
    Alpha,
    /// v1 before v1alpha1, of those that the driver lists: kubelets since 1.37.
    Listed,
}

/// What the kubelet does with the answer when it prepares a claim again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepeatedPrepare {
    /// It appends the devices to those that it has: kubelets up to 1.36 (kubernetes#140471).
    Appends,
    /// It replaces them.
    Replaces,
}

/// Deletes the slices of this node.
pub type SliceWipe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Which kubelet this is, and what it has of the API server.
#[derive(Clone)]
pub struct DraKubeletSettings {
    /// Its root directory.
    pub root: PathBuf,
    /// How long it waits.
    pub deadlines: DraDeadlines,
    /// Which health service it uses.
    pub health: HealthService,
    /// How it treats a repeated answer.
    pub repeated: RepeatedPrepare,
    /// Fetches claims.
    pub claims: ClaimReader,
    /// Deletes slices.
    pub wipe: SliceWipe,
}

impl fmt::Debug for DraKubeletSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DraKubeletSettings")
            .field("root", &self.root)
            .field("deadlines", &self.deadlines)
            .finish_non_exhaustive()
    }
}

/// What happens to one attempt to register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationFault {
    /// The call of GetInfo fails.
    GetInfo,
    /// The kubelet refuses the driver with this error.
    Refused(String),
    /// The call of NotifyRegistrationStatus fails.
    Notify,
}
