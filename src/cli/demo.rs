//! stub
use super::{Common, DemoArgs, Failure};
pub(super) fn demo(_c: &Common, _a: &DemoArgs) -> Result<(), Failure> {
    Ok(())
}
