//! Other programs' files and command lines, as far as `doctor` needs them.

pub mod cdi_spec;
pub mod checkpoint;
pub mod process;
pub mod runtime_settings;
