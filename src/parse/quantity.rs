//! Quantities of the Kubernetes API, as far as this driver has them: whole numbers.

const SUFFIXES: [(&str, u32); 3] = [("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];

/// A whole number as the API server writes it: what was sent as `1000` comes back as `1k`. None for
/// any other text.
#[must_use]
pub fn parse_count(text: &str) -> Option<u32> {
    let mut scaled =
        SUFFIXES.iter().filter_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (digits, factor) = scaled.next().unwrap_or((text, 1));
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u32>().ok()?.checked_mul(factor)
}

/// Writes a number as the API server does: with the largest suffix that leaves it whole.
#[must_use]
pub fn write_count(count: u32) -> String {
    let fits = |(_, factor): &&(&str, u32)| count != 0 && count.is_multiple_of(*factor);
    match SUFFIXES.iter().rev().find(fits) {
        Some((suffix, factor)) => format!("{}{suffix}", count / factor),
        None => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_suffixes_where_they_are_round() {
        for (text, count) in
            [("0", 0), ("4", 4), ("1500", 1500), ("75k", 75_000), ("4G", 4_000_000_000)]
        {
            assert_eq!((parse_count(text), &*write_count(count)), (Some(count), text));
        }
        assert_eq!(parse_count("1000"), Some(1000));
        for text in ["", "k", "-1", "+1", "1.5", "1Ki", "1kk", "5G", "100m", "1e3"] {
            assert_eq!(parse_count(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn each_number_is_read_as_it_was_written(count in any::<u32>(), round in 0_u32..75) {
            for count in [count, round * 1000] {
                prop_assert_eq!(parse_count(&write_count(count)), Some(count));
                prop_assert_eq!(parse_count(&count.to_string()), Some(count));
            }
        }

        #[test]
        fn any_text_is_a_number_or_none(text in "[0-9kMGmi.+-]{0,12}|.{0,12}") {
            if let Some(count) = parse_count(&text) {
                prop_assert_eq!(parse_count(&write_count(count)), Some(count));
            }
        }
    }
}
