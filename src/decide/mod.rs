//! Decisions: from the nouns of a node to what is done with it. Pure: no I/O, and time is an argument.

pub mod prefer;
