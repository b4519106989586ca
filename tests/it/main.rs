//! Everything from outside: the built binary, the public interface, real sockets and files.

mod support;

mod golden;

mod authority;
mod embedded_kubelet;
