//! What `doctor` looks at and what it says: checks, facts and findings.

pub mod check;
pub mod facts;
pub mod finding;
