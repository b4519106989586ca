//! The only code that touches the machine; what it decides is decided below.

pub mod authority_stream;
