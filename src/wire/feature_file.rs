//! A feature file of Node Feature Discovery: labels of this node that any program may provide.
//!
//! NFD reads `KEY=VALUE` lines; a comment that begins with `+` is a directive for the lines below
//! (NFD, `docs/usage/customization-guide.md`, "Local feature source").

use std::collections::BTreeMap;
use std::time::SystemTime;

use humantime::format_rfc3339_seconds;

/// Our file's name in NFD's directory. NFD ignores names that begin with a dot.
pub const FILE_NAME: &str = "ix-device-plugin";

/// The file. NFD ignores its labels after `expiry`.
#[must_use]
pub fn feature_file(labels: &BTreeMap<String, String>, expiry: SystemTime) -> String {
    let mut text = format!(
        "# Written by ix-device-plugin, which removes this file when it stops.\n\
         # +expiry-time={}\n",
        format_rfc3339_seconds(expiry)
    );
    for (key, value) in labels {
        text.push_str(&format!("{key}={value}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_file_has_a_line_for_each_label_below_its_expiry() {
        let labels = [("a.b/present", "true"), ("a.b/count", "2")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let expiry = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_435_200);
        let expected = "# Written by ix-device-plugin, which removes this file when it stops.\n\
                        # +expiry-time=2026-11-23T12:00:00Z\na.b/count=2\na.b/present=true\n";
        assert_eq!(feature_file(&labels, expiry), expected);
    }
}
