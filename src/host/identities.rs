//! The file of `discovery.identities`.

use std::path::PathBuf;

use super::files;
use crate::model::config::DiscoveryRules;
use crate::model::identity::IdentitiesReading;
use crate::parse::identities::parse_identities;

/// Reads the file as it is now; none where the configuration names none.
#[must_use]
pub fn read_identities(rules: &DiscoveryRules) -> Option<IdentitiesReading> {
    let path: PathBuf = rules.identities.clone()?;
    let text = files::read_text(&path).map_err(|error| error.to_string());
    let result = text.and_then(|text| parse_identities(&text).map_err(|error| error.to_string()));
    Some(IdentitiesReading { path, result })
}
