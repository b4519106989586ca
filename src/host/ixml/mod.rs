//! The vendor's library libixml: optional, and used for health alone.
//!
//! It is never loaded into the daemon. The agent, a child process that is this program again with a
//! hidden verb, loads it and answers line by line. A thread with a deadline would be simpler, but
//! could end neither a call that hangs nor the process that a crash, a missing symbol or a corrupted
//! heap takes with it; a child is killed at the deadline and started again, and what it breaks or
//! leaks is its own. A child also gets an `LD_LIBRARY_PATH` that has the library's own directory in
//! it, which the dynamic loader reads only when a process begins. It needs no privilege beyond ours.

mod abi;
mod library;

pub mod agent;
pub mod agent_process;
