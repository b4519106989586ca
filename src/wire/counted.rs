//! Counts as people write them.

/// `no boards`, `1 board`, `2 boards`.
#[must_use]
pub fn counted(count: usize, noun: &str) -> String {
    match count {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_agrees_with_its_noun() {
        let boards = [0, 1, 2].map(|count| counted(count, "board"));
        assert_eq!(boards, ["no boards", "1 board", "2 boards"]);
    }
}
