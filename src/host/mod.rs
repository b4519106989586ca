//! The doors to the machine: files, kernel and sockets. What is decided about them is decided below.

pub mod files;
