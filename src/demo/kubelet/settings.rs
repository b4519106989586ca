//! Which kubelet to be, and how to misbehave on request.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// How long a resource without a stream stays in the node's capacity.
/// Source: kubelet, cm/devicemanager/types.go, `endpointStopGracePeriod`.
pub const GRACE_PERIOD: Duration = Duration::from_secs(5 * 60);

/// How long Register waits for the plugin. Source: kubelet, plugin/v1beta1/client.go, `dial`.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long `PreStartContainer` may take. Source: kubelet, `KubeletPreStartContainerRPCTimeoutInSecs`.
pub const PRE_START_TIMEOUT: Duration = Duration::from_secs(30);

/// Which kubelet this is. The default is 1.36 with the topology manager's policy `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletSettings {
    /// Kubelets up to 1.36 disconnect whoever is registered *now* when an *older* stream of the
    /// resource ends (kubernetes#127803).
    pub takeover_bug: bool,
    /// [`GRACE_PERIOD`]; shorter for tests.
    pub grace: Duration,
    /// [`DIAL_TIMEOUT`]; shorter for tests. Holds for `GetDevicePluginOptions` too.
    pub dial_timeout: Duration,
    /// [`PRE_START_TIMEOUT`]; shorter for tests.
    pub pre_start_timeout: Duration,
    /// NUMA nodes that the topology manager hints for every container; none is its policy `none`.
    pub numa_affinity: Option<BTreeSet<i64>>,
    /// Where it serves PodResources, `pod-resources/kubelet.sock` on a real node;
    /// not served if absent.
    pub pod_resources_socket: Option<PathBuf>,
}

impl Default for KubeletSettings {
    fn default() -> Self {
        Self {
            takeover_bug: true,
            grace: GRACE_PERIOD,
            dial_timeout: DIAL_TIMEOUT,
            pre_start_timeout: PRE_START_TIMEOUT,
            numa_affinity: None,
            pod_resources_socket: None,
        }
    }
}

/// What a kubelet that goes leaves in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnSocket {
    /// It went in good order: `kubelet.sock` goes with it.
    Removed,
    /// It was killed: `kubelet.sock` stays and refuses connections.
    LeftBehind,
}

/// What Register does; for tests of plugins that must live with all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RegisterBehaviour {
    /// As a kubelet does.
    #[default]
    Accept,
    /// Answers with this error at once.
    Refuse(String),
    /// Never answers. The call ends with the kubelet's process or when the plugin gives up.
    Hang,
    /// Waits, then goes on as a kubelet does, even if the plugin gave up waiting meanwhile.
    Delay(Duration),
}
