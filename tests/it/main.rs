//! Everything from outside: the built binary, the public interface, real sockets and files.

#![expect(
    clippy::disallowed_methods,
    reason = "the doors of the house are for the plugin, not for those who watch it"
)]

mod ixml;
