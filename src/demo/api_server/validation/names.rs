//! The forms of names in the Kubernetes API.

/// Longest name of a driver or of an attribute's domain.
pub(super) const DRIVER_LIMIT: usize = 63;
const SUBDOMAIN_LIMIT: usize = 253;
const LABEL_LIMIT: usize = 63;
const IDENTIFIER_LIMIT: usize = 32;

/// RFC 1123: lower case letters, digits and `-`, with a letter or digit at both ends.
pub(super) fn is_label(text: &str) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    !text.is_empty()
        && text.len() <= LABEL_LIMIT
        && text.bytes().all(|byte| is_inner(&byte))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Labels joined by dots; each may be as long as the whole.
pub(crate) fn is_subdomain(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= SUBDOMAIN_LIMIT && text.split('.').all(is_part)
}

pub(super) fn is_pool_name(text: &str) -> bool {
    text.len() <= SUBDOMAIN_LIMIT && text.split('/').all(is_subdomain)
}

/// A C identifier, with the domain of its owner where that is not the driver.
pub(super) fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => {
            is_subdomain(domain) && domain.len() <= DRIVER_LIMIT && is_identifier(name)
        }
        None => is_identifier(text),
    }
}

fn is_identifier(text: &str) -> bool {
    text.len() <= IDENTIFIER_LIMIT
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|each| each.is_ascii_alphanumeric() || each == '_')
}

/// A label's value: empty, or letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_name(text)
}

/// A label's key: a name, with an optional domain.
pub(super) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => is_subdomain(domain) && is_label_name(name),
        None => is_label_name(text),
    }
}

fn is_label_name(text: &str) -> bool {
    let is_inner = |each: char| each.is_ascii_alphanumeric() || "-_.".contains(each);
    text.len() <= LABEL_LIMIT
        && text.chars().all(is_inner)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_forms_of_the_api() {
        for label in ["chip-0000-13-00-0", "a", &"a".repeat(63)] {
            assert!(is_label(label), "{label}");
        }
        for not in ["", "0000:13:00.0", "-a", "a-", "Chip", &"a".repeat(64)] {
            assert!(!is_label(not), "{not}");
        }
        assert!(is_subdomain("00000-gpu.iluvatar.com-0123abcd") && !is_subdomain("a..b"));
        assert!(is_qualified_name("resource.kubernetes.io/pcieRoot") && is_qualified_name("chips"));
        assert!(!is_qualified_name("pcie-root") && !is_qualified_name(&"a".repeat(33)));
        assert!(is_label_key("gpu.iluvatar.com/unhealthy") && !is_label_key("a/b/c"));
        assert!(is_label_value("ChipMissing") && is_label_value("") && !is_label_value("a b"));
    }
}
