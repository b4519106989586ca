//! Everything from outside: the built binary, the public interface, real sockets and files.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the doors of the house are for the plugin, not for those who watch it"
)]

mod support;

mod architecture;
mod bad_nodes;
mod cli;
mod golden;
mod machines;

mod allocate;
mod authority;
mod embedded_kubelet;
mod faults;
mod kubelet_restart;
mod list_and_watch;
mod removal;
mod session;
mod shutdown;
