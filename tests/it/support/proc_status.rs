//! The memory of a process, as the kernel counts it. The benches read it too.

/// A field of `/proc/PID/status` in KiB, for example `VmRSS`. Source: `proc_pid_status(5)`.
pub(crate) fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("the kernel writes a number")
}
