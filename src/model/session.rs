//! A resource's session with the kubelet, as status, probes and metrics report it.

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The kubelet has no open stream.
    Waiting,
    /// The kubelet has an open stream and our list.
    Streaming,
    /// Another live instance serves the resource; this one waits until that is gone.
    Yielded,
}

/// How a call of Register ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterOutcome {
    /// The kubelet accepted us.
    Accepted,
    /// The kubelet returned an error, or the connection failed.
    Refused,
    /// No answer in time.
    TimedOut,
}
