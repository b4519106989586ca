//! stub
use crate::model::config::Config;
/// x
#[derive(Clone, Debug, Default)]
#[expect(missing_docs)]
pub struct Overrides {
    pub resource_name: Option<String>,
    pub split_board: Option<bool>,
    pub use_volcano: Option<bool>,
    pub reset_gpu: Option<bool>,
}
/// x
pub fn parse_config_with(_t: &str, _o: &Overrides) -> Result<Config, ConfigProblems> {
    Ok(Config::default())
}
/// x
pub fn parse_env_bool(t: &str) -> Result<bool, String> {
    t.parse().map_err(|_| "x".to_owned())
}
/// x
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ConfigProblems;
