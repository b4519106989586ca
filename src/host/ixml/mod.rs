//! The vendor's library libixml: found, loaded and called, for health alone.
//!
//! It is never loaded into the daemon. The agent, a child process that is this program with a hidden
//! verb, loads it and answers line by line. A thread with a timeout would be simpler, but cannot end a
//! call that hangs, and a crash in it ends the daemon. A child is killed at the timeout and started
//! again, and what it corrupts or leaks is its own. A child also gets an `LD_LIBRARY_PATH` with the
//! library's own directory, which the dynamic loader reads only when a process starts. It needs no
//! privilege that the daemon does not have.

mod abi;
mod library;

pub mod agent;
pub mod agent_process;
pub mod search_path;
