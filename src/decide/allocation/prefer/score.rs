//! What a choice costs, in the order in which costs matter.

use std::fmt;
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
    /// Whole boards that the choice breaks.
    pub boards: u64,
    /// Whole switches that the choice breaks.
    pub switches: u64,
}

/// One step of the comparison of two choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
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
    /// What a component says; none for the addresses, which are no number.
    #[must_use]
    pub fn component(&self, component: Component) -> Option<u64> {
        match component {
            Component::Crowding => Some(self.crowding),
            Component::Load => Some(self.load),
            Component::Distance => Some(self.distance),
            Component::Scatter => Some(self.scatter),
            Component::Boards => Some(self.boards),
            Component::Switches => Some(self.switches),
            Component::Addresses => None,
        }
    }

    /// The first component in which two scores differ: the one that decides between them.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Component {
        Component::ALL
            .into_iter()
            .find(|component| self.component(*component) != other.component(*component))
            .unwrap_or(Component::Addresses)
    }
}

impl Component {
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

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if (self.crowding, self.load) != (0, 0) {
            write!(f, "crowding {}, load {}, ", self.crowding, self.load)?;
        }
        write!(f, "distance {}, scatter {}, ", self.distance, self.scatter)?;
        write!(f, "boards broken {}, switches broken {}", self.boards, self.switches)
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Crowding => "crowding",
            Self::Load => "load",
            Self::Distance => "distance",
            Self::Scatter => "scatter",
            Self::Boards => "boards",
            Self::Switches => "switches",
            Self::Addresses => "addresses",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_compared_in_the_order_it_is_printed() {
        let close = Score { distance: 1, scatter: 90, boards: 7, ..Score::default() };
        let far = Score { distance: 2, ..Score::default() };
        assert!(close < far);
        assert_eq!(close.first_difference(&far), Component::Distance);
        assert_eq!(close.first_difference(&close), Component::Addresses);
        assert_eq!(close.to_string(), "distance 1, scatter 90, boards broken 7, switches broken 0");
    }
}
