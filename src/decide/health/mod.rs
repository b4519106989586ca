//! Which chips are healthy: signals from scans, from samples and from libixml, and what they mean
//! over time.

pub mod board_history;
pub mod error_recoveries;
pub mod ixml_signals;
pub mod sample_signals;
pub mod scan_signals;
pub mod tracker;
