//! The checks of `doctor`, the facts that they need, and their findings.

pub mod check;
pub mod facts;
pub mod finding;
