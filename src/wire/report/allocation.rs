//! `explain allocation -o json`.

use serde::Serialize;

use crate::decide::allocation::prefer::{Choice, Component, Explanation};
use crate::model::device::DeviceId;

/// The choice, the runner-up and what tells them apart. Names stay; more may come.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    asked: usize,
    choice: ChoiceDocument,
    runner_up: Option<ChoiceDocument>,
    /// The first component in which the runner-up is worse.
    why: Option<&'static str>,
    unknown: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ChoiceDocument {
    devices: Vec<String>,
    score: ScoreDocument,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ScoreDocument {
    crowding: u64,
    load: u64,
    distance: u64,
    scatter: u64,
    boards_broken: u64,
    switches_broken: u64,
}

/// An explanation for scripts.
#[must_use]
pub fn document(explanation: &Explanation) -> Allocation {
    let runner_up = explanation.runner_up.as_ref();
    Allocation {
        asked: explanation.asked,
        choice: choice(&explanation.choice),
        runner_up: runner_up.map(|other| choice(&other.choice)),
        why: runner_up.map(|other| component(other.why)),
        unknown: texts(&explanation.unknown),
    }
}

fn choice(choice: &Choice) -> ChoiceDocument {
    let score = choice.score;
    ChoiceDocument {
        devices: texts(&choice.ids),
        score: ScoreDocument {
            crowding: score.crowding,
            load: score.load,
            distance: score.distance,
            scatter: score.scatter,
            boards_broken: score.boards,
            switches_broken: score.switches,
        },
    }
}

fn component(component: Component) -> &'static str {
    match component {
        Component::Crowding => "crowding",
        Component::Load => "load",
        Component::Distance => "distance",
        Component::Scatter => "scatter",
        Component::Boards => "boardsBroken",
        Component::Switches => "switchesBroken",
        Component::Addresses => "addresses",
    }
}

fn texts(ids: &[DeviceId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}
