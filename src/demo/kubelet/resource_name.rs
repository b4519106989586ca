//! The kubelet's rule for names of extended resources. Written apart from the plugin's own check
//! on purpose: a judge must not borrow the defendant's eyes.

/// The longest domain, and the longest name behind the slash. Source: apimachinery, `validation`.
const DOMAIN_LIMIT: usize = 253;
const NAME_LIMIT: usize = 63;

/// True where a kubelet accepts `name` at registration: `DOMAIN/NAME`, outside of kubernetes.io,
/// and still valid with `requests.` before it (quotas need that).
pub(super) fn is_extended_resource(name: &str) -> bool {
    let Some((domain, rest)) = name.split_once('/') else {
        return false;
    };
    !name.contains("kubernetes.io/")
        && !name.starts_with("requests.")
        && is_domain(&format!("requests.{domain}"))
        && is_name(rest)
}

fn is_domain(domain: &str) -> bool {
    domain.len() <= DOMAIN_LIMIT && domain.split('.').all(is_domain_label)
}

fn is_domain_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    starts_and_ends(label, allowed) && label.bytes().all(|byte| allowed(byte) || byte == b'-')
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric();
    name.len() <= NAME_LIMIT
        && starts_and_ends(name, allowed)
        && name.bytes().all(|byte| allowed(byte) || b"-_.".contains(&byte))
}

fn starts_and_ends(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    matches!((text.bytes().next(), text.bytes().last()), (Some(first), Some(last))
        if allowed(first) && allowed(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_domain_of_their_own_are_extended_resources() {
        for name in ["iluvatar.com/gpu", "iluvatar.com/gpu.shared", "a/b", "x.y/BI-V150_half"] {
            assert!(is_extended_resource(name), "{name}");
        }
    }

    #[test]
    fn kubernetes_own_names_and_malformed_ones_are_not() {
        let long_domain = format!("{}.com/gpu", "a.".repeat(130));
        let long_name = format!("iluvatar.com/{}", "g".repeat(64));
        let names = [
            "",
            "gpu",
            "/gpu",
            "iluvatar.com/",
            "kubernetes.io/gpu",
            "x.kubernetes.io/gpu",
            "requests.iluvatar.com/gpu",
            "Iluvatar.com/gpu",
            "iluvatar..com/gpu",
            "-a.com/gpu",
            "iluvatar.com/gpu/x",
            "iluvatar.com/-gpu",
            "iluvatar.com/g pu",
            &long_domain,
            &long_name,
        ];
        for name in names {
            assert!(!is_extended_resource(name), "{name}");
        }
    }

    #[test]
    fn the_quota_prefix_counts_towards_the_domains_length() {
        let fits = "a".repeat(DOMAIN_LIMIT - "requests.".len());
        assert!(is_extended_resource(&format!("{fits}/gpu")));
        assert!(!is_extended_resource(&format!("{fits}a/gpu")));
    }
}
