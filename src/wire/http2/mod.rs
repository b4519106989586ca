//! The part of HTTP/2 that replaces a client's `:authority` by one that h2 accepts: frames, header
//! blocks and HPACK. It transforms bytes; it never answers a frame and never opens a socket.

pub mod huffman;

pub mod header_table;

pub mod hpack;

pub mod frame;

pub mod header_block;

pub mod authority;
