//! What a choice costs, in the order in which costs matter.

use std::ops::Add;

/// The cost of a choice: fields compare in the order they are written, and less is better.
///
/// Every field is a sum over devices and groups, so costs of disjoint parts of a node add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Score {
    /// What the sharing policy compares first. Spread: pairs of chosen replicas that are on one
    /// device. Pack: devices that the chosen replicas are on. 0 where nothing is shared.
    pub crowding: u64,
    /// What the sharing policy compares next, summed over the chosen replicas. Spread: replicas
    /// of its device already in use. Pack: replicas of its device still free before the choice.
    /// 0 where nothing is shared.
    pub load: u64,
    /// Total distance of all pairs of the chosen.
    pub distance: u64,
    /// Total distance of all pairs of what remains available.
    pub scatter: u64,
    /// Boards that were whole before the choice and of which it takes some or all.
    pub boards: u64,
    /// Switches that were whole before the choice and of which it takes some or all.
    pub switches: u64,
}

/// One step of the comparison of two choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Criterion {
    /// [`Score::crowding`].
    Crowding,
    /// [`Score::load`].
    Load,
    /// [`Score::distance`].
    Distance,
    /// [`Score::scatter`].
    Scatter,
    /// [`Score::boards`].
    Boards,
    /// [`Score::switches`].
    Switches,
    /// The choices cost the same: the one with the lower addresses goes first.
    Addresses,
}

impl Score {
    /// The value of a criterion; none for the addresses, which are not a number.
    #[must_use]
    pub fn criterion(&self, criterion: Criterion) -> Option<u64> {
        match criterion {
            Criterion::Crowding => Some(self.crowding),
            Criterion::Load => Some(self.load),
            Criterion::Distance => Some(self.distance),
            Criterion::Scatter => Some(self.scatter),
            Criterion::Boards => Some(self.boards),
            Criterion::Switches => Some(self.switches),
            Criterion::Addresses => None,
        }
    }

    /// The first criterion in which two scores differ: the one that decides between them.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Criterion {
        Criterion::ALL
            .into_iter()
            .find(|criterion| self.criterion(*criterion) != other.criterion(*criterion))
            .unwrap_or(Criterion::Addresses)
    }
}

impl Criterion {
    /// In the order of the comparison.
    pub const ALL: [Self; 7] = [
        Self::Crowding,
        Self::Load,
        Self::Distance,
        Self::Scatter,
        Self::Boards,
        Self::Switches,
        Self::Addresses,
    ];
}

impl Add for Score {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            crowding: self.crowding + other.crowding,
            load: self.load + other.load,
            distance: self.distance + other.distance,
            scatter: self.scatter + other.scatter,
            boards: self.boards + other.boards,
            switches: self.switches + other.switches,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_compared_in_the_order_of_its_fields() {
        let close = Score { distance: 1, scatter: 90, boards: 7, ..Score::default() };
        let far = Score { distance: 2, ..Score::default() };
        assert!(close < far);
        assert_eq!(close.first_difference(&far), Criterion::Distance);
        assert_eq!(close.first_difference(&close), Criterion::Addresses);
    }
}
