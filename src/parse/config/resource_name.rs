//! Names that a kubelet accepts for an extended resource.
//!
//! Source: `IsExtendedResourceName` in kubernetes/pkg/apis/core/v1/helper and `IsQualifiedName` in
//! apimachinery/pkg/util/validation. One rule is ours: the domain has a dot.

/// The name without a domain, after the slash.
const NAME_LIMIT: usize = 63;

/// A name with the quota prefix must still be a DNS subdomain and a name, of at most 253.
const DOMAIN_LIMIT: usize = 253 - QUOTA_PREFIX.len();

/// What a kubelet prepends for quotas; a name must not begin with it.
const QUOTA_PREFIX: &str = "requests.";

/// A rule that a resource name breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameRule {
    #[error("a domain and a slash are needed, for example `iluvatar.com/gpu`")]
    NoDomain,
    #[error("only one slash is allowed, for example `iluvatar.com/gpu`")]
    ManySlashes,
    #[error("kubernetes.io is reserved for Kubernetes; use a domain of your own")]
    Native,
    #[error("the prefix `requests.` is reserved for quotas; remove it")]
    QuotaPrefix,
    #[error("the domain needs a dot, for example `iluvatar.com/gpu`")]
    NoDot,
    #[error("the domain has {0} characters; at most {DOMAIN_LIMIT} are allowed")]
    LongDomain(usize),
    #[error(
        "the domain may have lower-case letters, digits, `-` and `.`, and each part of it \
         begins and ends with a letter or digit"
    )]
    Domain,
    #[error("the name after the slash is empty, for example `iluvatar.com/gpu`")]
    NoName,
    #[error("the name after the slash has {0} characters; at most {NAME_LIMIT} are allowed")]
    LongName(usize),
    #[error(
        "the name after the slash may have letters, digits, `-`, `_` and `.`, and begins and \
         ends with a letter or digit"
    )]
    Name,
}

/// The first rule that `name` breaks.
pub(super) fn check_resource_name(name: &str) -> Result<(), NameRule> {
    let (domain, local) = name.split_once('/').ok_or(NameRule::NoDomain)?;
    if local.contains('/') {
        return Err(NameRule::ManySlashes);
    }
    check_domain(domain)?;
    check_local(local)
}

fn check_domain(domain: &str) -> Result<(), NameRule> {
    // As the kubelet has it: any domain that ends so, with or without a dot before it.
    if domain.ends_with("kubernetes.io") {
        return Err(NameRule::Native);
    }
    if domain.starts_with(QUOTA_PREFIX) {
        return Err(NameRule::QuotaPrefix);
    }
    if domain.is_empty() {
        return Err(NameRule::NoDomain);
    }
    if domain.len() > DOMAIN_LIMIT {
        return Err(NameRule::LongDomain(domain.len()));
    }
    if !domain.split('.').all(is_dns_label) {
        return Err(NameRule::Domain);
    }
    if domain.contains('.') { Ok(()) } else { Err(NameRule::NoDot) }
}

/// Lower case, as DNS-1123 has it; its length is limited by the whole domain's alone.
fn is_dns_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    begins_and_ends_well(label) && label.bytes().all(allowed)
}

fn check_local(local: &str) -> Result<(), NameRule> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if local.is_empty() {
        return Err(NameRule::NoName);
    }
    if local.len() > NAME_LIMIT {
        return Err(NameRule::LongName(local.len()));
    }
    if begins_and_ends_well(local) && local.bytes().all(allowed) {
        Ok(())
    } else {
        Err(NameRule::Name)
    }
}

fn begins_and_ends_well(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, rule: Result<(), NameRule>) {
        assert_eq!(check_resource_name(name), rule, "{name}");
    }

    #[test]
    fn names_that_a_kubelet_accepts_are_accepted() {
        check("iluvatar.com/gpu", Ok(()));
        check("iluvatar.com/BI-V150_x.shared", Ok(()));
        check("a.b/c", Ok(()));
        check("kubernetes.io.example.com/gpu", Ok(()));
        check(&format!("iluvatar.com/{}", "n".repeat(63)), Ok(()));
        check(&format!("{}.com/gpu", "d".repeat(240)), Ok(()));
    }

    #[test]
    fn each_rule_of_the_kubelet_has_its_own_name() {
        check("gpu", Err(NameRule::NoDomain));
        check("/gpu", Err(NameRule::NoDomain));
        check("a.b/c/d", Err(NameRule::ManySlashes));
        check("kubernetes.io/gpu", Err(NameRule::Native));
        check("node.kubernetes.io/gpu", Err(NameRule::Native));
        check("mykubernetes.io/gpu", Err(NameRule::Native));
        check("requests.iluvatar.com/gpu", Err(NameRule::QuotaPrefix));
        check("iluvatar/gpu", Err(NameRule::NoDot));
        check(&format!("{}.com/gpu", "d".repeat(241)), Err(NameRule::LongDomain(245)));
        check("Iluvatar.com/gpu", Err(NameRule::Domain));
        check("iluvatar..com/gpu", Err(NameRule::Domain));
        check("-iluvatar.com/gpu", Err(NameRule::Domain));
        check("iluvatar.com/", Err(NameRule::NoName));
        check(&format!("iluvatar.com/{}", "n".repeat(64)), Err(NameRule::LongName(64)));
        check("iluvatar.com/gpu-", Err(NameRule::Name));
        check("iluvatar.com/g pu", Err(NameRule::Name));
        check("iluvatar.com/gpü", Err(NameRule::Name));
    }
}
