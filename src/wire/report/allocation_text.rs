//! `explain allocation` for people: what the choice costs, in words.

use super::distance;
use crate::decide::allocation::prefer::{
    Choice, Criterion, DeviceUnit, Effect, Explanation, RunnerUp, WholeGroups,
};
use crate::model::config::SharingPolicy;
use crate::model::device::DeviceId;
use crate::model::topology::Distance;
use crate::wire::counted::counted;

/// The explanation as text, with a legend of the distances.
#[must_use]
pub fn allocation_text(explanation: &Explanation) -> String {
    let Explanation { choice, effect, asked, unknown, .. } = explanation;
    let mut text = line("choice", &list(&choice.ids));
    text.push_str(&line("", &cost(explanation, choice, effect)));
    match &explanation.runner_up {
        None => text.push_str(&line("runner-up", "none: no other choice is possible")),
        Some(other) => {
            text.push_str(&line("runner-up", &list(&other.choice.ids)));
            text.push_str(&line("", &cost(explanation, &other.choice, &other.effect)));
            text.push_str(&line("why", &why(explanation, other)));
        }
    }
    if choice.ids.len() < *asked {
        text.push_str(&line(
            "short",
            &format!("{asked} requested, {} available", choice.ids.len()),
        ));
    }
    if !unknown.is_empty() {
        text.push_str(&line("unknown", &list(unknown)));
    }
    text + &distance::legend()
}

fn line(name: &str, value: &str) -> String {
    format!("{name:<10} {value}\n")
}

fn list(ids: &[DeviceId]) -> String {
    if ids.is_empty() {
        return "nothing".to_owned();
    }
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    ids.join(" ")
}

fn noun(unit: DeviceUnit) -> &'static str {
    match unit {
        DeviceUnit::Board => "board",
        DeviceUnit::Chip => "chip",
    }
}

fn cost(explanation: &Explanation, choice: &Choice, effect: &Effect) -> String {
    let unit = noun(explanation.unit);
    let mut parts = Vec::new();
    if explanation.policy.is_some() {
        let replicas = counted(choice.ids.len(), "replica");
        let devices = counted(effect.devices, unit);
        parts.push(format!("{replicas} on {devices}, {} in use before", effect.in_use));
    }
    match effect.devices {
        1 if explanation.policy.is_none() => parts.push(format!("one {unit}")),
        0 | 1 => {}
        2 => parts.push(format!("{} between the two {unit}s", distances(effect))),
        devices => parts.push(format!("{} between the {devices} {unit}s", distances(effect))),
    }
    parts.push(broken(effect));
    let (boards, switches) = (effect.boards.left, effect.switches.left);
    let (boards, switches) = (whole(boards, "board"), whole(switches, "switch"));
    parts.push(format!("leaves {boards}, {switches}"));
    parts.join("; ")
}

/// `PXB`, or `PXB to NODE (2 pairs PXB, 4 pairs NODE)`.
fn distances(effect: &Effect) -> String {
    let counts = effect.pairs.iter();
    let counts: Vec<_> =
        counts.map(|(distance, pairs)| format!("{} {distance}", counted(*pairs, "pair"))).collect();
    let (first, last) = (effect.pairs.keys().next(), effect.pairs.keys().next_back());
    match (first, last) {
        (Some(first), Some(last)) if first != last => {
            format!("{first} to {last} ({})", counts.join(", "))
        }
        (first, _) => first.map_or("nothing".to_owned(), Distance::to_string),
    }
}

fn broken(effect: &Effect) -> String {
    let WholeGroups { broken, .. } = effect.switches;
    let switches = (broken > 0).then(|| format!(" and {}", count(broken, "switch")));
    format!("breaks {}{}", count(effect.boards.broken, "board"), switches.unwrap_or_default())
}

fn whole(count: usize, noun: &str) -> String {
    self::count(count, &format!("whole {noun}"))
}

/// `no board`, `1 board`, `2 switches`.
fn count(count: usize, noun: &str) -> String {
    match (count, noun.ends_with("switch")) {
        (0, _) => format!("no {noun}"),
        (1, _) => format!("1 {noun}"),
        (_, true) => format!("{count} {noun}es"),
        (_, false) => format!("{count} {noun}s"),
    }
}

/// The criterion that decides, with both values.
fn why(explanation: &Explanation, other: &RunnerUp) -> String {
    let unit = noun(explanation.unit);
    let spread = explanation.policy == Some(SharingPolicy::Spread);
    let value = |choice: &Choice| choice.score.criterion(other.why).unwrap_or_default();
    let (own, others) = (value(&explanation.choice), value(&other.choice));
    match other.why {
        Criterion::Crowding if spread => {
            format!("fewer pairs of its replicas share a {unit}: {own}, not {others}")
        }
        Criterion::Crowding => format!("its replicas are on fewer {unit}s: {own}, not {others}"),
        Criterion::Load if spread => format!("its {unit}s have fewer replicas in use"),
        Criterion::Load => format!("its {unit}s have fewer replicas free"),
        Criterion::Distance => {
            format!("its {unit}s are closer together: {own}, not {others} ({SUM})")
        }
        Criterion::Scatter => {
            format!("the remaining {unit}s are closer together: {own}, not {others} ({SUM})")
        }
        Criterion::Boards => format!("it takes from fewer whole boards: {own}, not {others}"),
        Criterion::Switches => format!("it takes from fewer whole switches: {own}, not {others}"),
        Criterion::Addresses => "both cost the same; the choice has the lower addresses".to_owned(),
    }
}

const SUM: &str = "sum over all pairs: INTE 1, PIX 2, PXB 3, PHB 4, NODE 5, SYS 6";
