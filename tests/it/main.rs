//! What the whole program does, seen from outside.

mod removal;
