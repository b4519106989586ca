//! The events of the log, by their stable names.

/// Declares the events from one list: name, level, meaning.
macro_rules! log_events {
    ($($name:ident $level:ident $meaning:literal,)*) => {
        /// What a log line reports. Its name is the line's field `event`; alerts may rely on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "LogEvent::meaning explains each")]
        pub enum LogEvent {
            $($name,)*
        }

        impl LogEvent {
            /// Every event.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The value of the field `event`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The level of its lines: `info` or `warn`.
            #[must_use]
            pub fn level(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($level),)*
                }
            }

            /// What happened, as a clause.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

log_events! {
    Starting info "the plugin starts; `config` has the effective configuration",
    Stopping info "SIGTERM or SIGINT was received",
    ReloadRequested info "SIGHUP was received: the machine is scanned, the configuration read",
    TasksAborted warn "some tasks did not end in time and are aborted",
    Stopped info "the plugin stopped cleanly",

    BoardFound info "a board was found",
    BoardLeft warn "a board left the PCI bus",
    NoChips info "a scan found no chips",
    DeviceHealthy info "a device is healthy again",
    DeviceUnhealthy warn "a device became unhealthy, or its `reasons` changed",
    DeviceDelisted info "a device left the list",
    PcieErrorRecovery info "the kernel recovers a chip from a PCIe error, or has finished",

    ScanFailed warn "scans fail; the last inventory stays",
    ScanSlow warn "a scan hangs; the last inventory stays",
    ScanRecovered info "scans succeed again, or a scan that hung has ended",
    SampleSlow warn "a health sample hangs; the last verdicts stay",
    UeventsUnavailable warn "uevents cannot be received; the machine is polled",
    UeventsReceived info "uevents are received again",
    UeventsLost warn "uevents were lost; the machine is scanned",
    IxmlReading info "libixml answers",
    IxmlUnavailable info "no libixml was found",
    IxmlFailed warn "libixml hangs, fails or is not the configured one",

    SessionStarting info "a resource is served from now on",
    SessionEnding info "a resource is no longer served",
    Registered info "the kubelet accepted the registration",
    RegistrationFailed warn "the kubelet refused or did not answer; retrying",
    ListenFailed warn "the plugin's socket cannot be made; retrying",
    ListReceived info "the kubelet has the list",
    KubeletConnection info "the kubelet connected to the DRA driver, or disconnected",
    ServerRestarted warn "a server of the DRA driver ended and starts again",
    SessionRestarted warn "the session ended and starts again, with the `reason`",

    Allocated info "a container was allocated devices",
    AllocationRefused warn "a request for devices was refused",
    StartRefused warn "a container's devices changed since they were allocated; its start is \
                       refused",
    RecordsUnreadable warn "the allocation records cannot be read",
    RecordsDamaged warn "the allocation records are damaged; the file is set aside",
    RecordsFailed warn "the allocation records cannot be written; retrying",
    RecordsWritten info "the allocation records are written again, or moved to the new file",
    StartUnrecorded warn "a container starts before its allocation records are written",
    PodResourcesAnswering info "PodResources answers again",
    PodResourcesAbsent info "there is no PodResources socket",
    PodResourcesFailed warn "PodResources does not answer; retrying",

    ClaimPrepared info "the devices of a claim are prepared",
    ClaimRefused warn "a claim cannot be prepared",
    ClaimForgotten info "a claim is gone; its devices are free",
    ClaimUnprepared info "the devices of a claim are free again",
    ClaimNotUnprepared warn "the end of a claim cannot be recorded; retried by the kubelet",
    SlicesFailed warn "a request of the API server failed; retrying",
    FeatureDropped warn "the API server drops a field of slices",
    SlicePublished info "a slice was published",
    SliceDeleted info "a slice was deleted",
    NodeEventFailed warn "an event of the Node cannot be created; retrying",

    CordonDrained info "no pod holds a cordoned board or chip",
    CordonFileUnusable warn "the file of cordons cannot be read or is damaged",

    ConfigurationApplied info "a changed configuration is active",
    RestartNeeded warn "the configuration changed `mode`, which needs a restart",
    ConfigurationRefused warn "a changed configuration has errors; the last valid one stays active",

    HttpListening info "probes, metrics and status are served",
    HttpFailed warn "the HTTP port cannot be used; retrying",
    CdiSpecWritten info "the CDI file was written",
    CdiSpecRemoved info "the CDI file was removed",
    CdiFailed warn "the CDI file cannot be written or removed, or another file conflicts with it",
    CdiRecovered info "the problems of the CDI file are solved",
    LabelsWritten info "the node labels changed",
    LabelsRemoved info "the file of node labels was removed",
    LabelsFailed warn "the file of node labels cannot be written or removed",
}
