//! The product as its users meet it, one module a subject.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests make and break directories themselves, or fail"
)]

mod support;

mod allocate;
mod faults;
mod kubelet_restart;
mod list_and_watch;
mod session;
mod shutdown;
