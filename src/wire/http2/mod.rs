//! HTTP/2 as far as a client's `:authority` needs it: what a connection's bytes mean, and the same
//! bytes with an authority that h2 accepts. It never answers a frame and never sees a socket.

pub mod huffman;

pub mod header_table;

pub mod hpack;

pub mod frame;

pub mod header_block;

pub mod authority;
