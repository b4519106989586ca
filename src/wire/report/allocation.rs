//! `explain allocation -o json`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::decide::allocation::prefer::{Choice, Criterion, Effect, Explanation, WholeGroups};
use crate::model::device::DeviceId;

/// The choice, the runner-up and what decides between them. Names stay; more may come.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    asked: usize,
    /// How many of them there are not.
    missing: usize,
    choice: ChoiceDocument,
    runner_up: Option<ChoiceDocument>,
    /// The first criterion in which the runner-up is worse.
    why: Option<&'static str>,
    unknown: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ChoiceDocument {
    devices: Vec<String>,
    /// Pairs of devices at each distance.
    pairs: BTreeMap<String, usize>,
    boards: WholeGroupsDocument,
    switches: WholeGroupsDocument,
    score: ScoreDocument,
}

/// Groups that were whole before the choice.
#[derive(Debug, Serialize)]
struct WholeGroupsDocument {
    left: usize,
    broken: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ScoreDocument {
    crowding: u64,
    load: u64,
    distance: u64,
    scatter: u64,
    boards_used: u64,
    switches_used: u64,
}

/// An explanation for scripts.
#[must_use]
pub fn document(explanation: &Explanation) -> Allocation {
    let runner_up = explanation.runner_up.as_ref();
    Allocation {
        asked: explanation.asked,
        missing: explanation.asked.saturating_sub(explanation.choice.ids.len()),
        choice: choice(&explanation.choice, &explanation.effect),
        runner_up: runner_up.map(|other| choice(&other.choice, &other.effect)),
        why: runner_up.map(|other| criterion(other.why)),
        unknown: texts(&explanation.unknown),
    }
}

fn choice(choice: &Choice, effect: &Effect) -> ChoiceDocument {
    let score = choice.score;
    let pairs = effect.pairs.iter().map(|(distance, pairs)| (distance.to_string(), *pairs));
    ChoiceDocument {
        devices: texts(&choice.ids),
        pairs: pairs.collect(),
        boards: whole(effect.boards),
        switches: whole(effect.switches),
        score: ScoreDocument {
            crowding: score.crowding,
            load: score.load,
            distance: score.distance,
            scatter: score.scatter,
            boards_used: score.boards,
            switches_used: score.switches,
        },
    }
}

fn whole(groups: WholeGroups) -> WholeGroupsDocument {
    WholeGroupsDocument { left: groups.left, broken: groups.broken }
}

fn criterion(criterion: Criterion) -> &'static str {
    match criterion {
        Criterion::Crowding => "crowding",
        Criterion::Load => "load",
        Criterion::Distance => "distance",
        Criterion::Scatter => "scatter",
        Criterion::Boards => "boardsUsed",
        Criterion::Switches => "switchesUsed",
        Criterion::Addresses => "addresses",
    }
}

fn texts(ids: &[DeviceId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}
