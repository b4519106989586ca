//! stub
use super::{Common, Failure, RunArgs};
pub(super) fn run(_c: &Common, _a: &RunArgs) -> Result<(), Failure> {
    Ok(())
}
