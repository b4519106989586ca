//! `resourceName` or `resources`: what the kubelet is offered, under which names.

use std::collections::BTreeSet;

use super::Overrides;
use super::cursor::{Cursor, Reading, shown};
use super::flags::read_granularity;
use super::resource_name::check_resource_name;
use super::section::Section;
use super::sharing::SharingDefaults;
use crate::model::config::{Granularity, ResourceRule, Selector, Sharing};

const ENTRY_KEYS: [&str; 4] = ["name", "match", "splitboard", "replicas"];
const MATCH_KEYS: [&str; 3] = ["model", "pciId", "addresses"];

/// Each resource has a socket and a session of its own, and is compared with each other one.
const RESOURCE_LIMIT: usize = 64;

const TWO_NAMES: &str =
    "does not go with `resources`, where each entry has its own name; remove one of the two";

/// What every resource has unless its entry says otherwise.
pub(super) struct ResourceDefaults {
    pub(super) granularity: Granularity,
    pub(super) sharing: SharingDefaults,
}

pub(super) fn read_resources(
    root: &Section,
    overrides: &Overrides,
    defaults: &ResourceDefaults,
    reading: &Reading,
) -> Vec<ResourceRule> {
    let Some(list) = root.find("resources") else {
        return vec![read_single(root, overrides, defaults, reading)];
    };
    if let Some(name) = root.find("resourceName") {
        name.problem(TWO_NAMES);
    }
    if overrides.resource_name.is_some() {
        reading.flag_problem("--resource-name", TWO_NAMES);
    }
    read_list(list, defaults)
}

/// The one resource of a file without `resources`.
fn read_single(
    root: &Section,
    overrides: &Overrides,
    defaults: &ResourceDefaults,
    reading: &Reading,
) -> ResourceRule {
    let mut rule = ResourceRule {
        granularity: defaults.granularity,
        sharing: defaults.sharing.sharing(None),
        ..ResourceRule::default()
    };
    let suffix = suffix(rule.sharing, defaults);
    let in_file = root.find("resourceName");
    let name = match &overrides.resource_name {
        Some(name) => full_name(name, suffix)
            .map_err(|message| reading.flag_problem("--resource-name", message))
            .ok(),
        None => in_file.and_then(|name| read_name(name, suffix)),
    };
    rule.name = name.unwrap_or(rule.name + suffix);
    rule
}

fn read_list(list: &Cursor, defaults: &ResourceDefaults) -> Vec<ResourceRule> {
    let items = list.items();
    if items.len() > RESOURCE_LIMIT {
        list.problem(format!(
            "{} resources are too many; at most {RESOURCE_LIMIT} are allowed",
            items.len()
        ));
        return Vec::new();
    }
    if list.is_empty_list() {
        list.problem("the list is empty; name at least one resource or remove the key");
    }
    let mut names = BTreeSet::new();
    let mut selectors: Vec<(usize, Selector)> = Vec::new();
    items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let before = item.problems_so_far();
            let rule = read_entry(item, defaults, &mut names);
            // A selector that lost a condition to a problem says nothing about overlaps.
            if item.problems_so_far() == before {
                check_overlap(item, &rule.selector, &selectors);
                selectors.push((index, rule.selector.clone()));
            }
            rule
        })
        .collect()
}

fn check_overlap(item: &Cursor, selector: &Selector, others: &[(usize, Selector)]) {
    if let Some((index, _)) = others.iter().find(|(_, other)| overlap(other, selector)) {
        item.problem(format!(
            "offers boards that resources[{index}] offers as well; give each a `match` of its own"
        ));
    }
}

fn read_entry(
    item: &Cursor,
    defaults: &ResourceDefaults,
    names: &mut BTreeSet<String>,
) -> ResourceRule {
    let entry = Section::open(item, &ENTRY_KEYS);
    let sharing = defaults.sharing.sharing(entry.find("replicas"));
    ResourceRule {
        name: read_entry_name(item, &entry, suffix(sharing, defaults), names),
        selector: read_selector(&entry),
        granularity: read_granularity(entry.find("splitboard"), defaults.granularity),
        sharing,
    }
}

/// Empty where there is none to be had, which is noted.
fn read_entry_name(
    item: &Cursor,
    entry: &Section,
    suffix: &str,
    names: &mut BTreeSet<String>,
) -> String {
    let Some(cursor) = entry.find("name") else {
        item.problem("the resource has no `name`; give it one such as `iluvatar.com/gpu`");
        return String::new();
    };
    let Some(name) = read_name(cursor, suffix) else {
        return String::new();
    };
    if !names.insert(name.clone()) {
        cursor.problem(format!("`{name}` is the name of two resources; rename one"));
    }
    name
}

fn read_name(cursor: &Cursor, suffix: &str) -> Option<String> {
    full_name(cursor.text()?, suffix).map_err(|message| cursor.problem(message)).ok()
}

/// The name with its suffix, if a kubelet takes it; else what is wrong with it.
fn full_name(name: &str, suffix: &str) -> Result<String, String> {
    check_resource_name(name).map_err(|rule| format!("`{}`: {rule}", shown(name)))?;
    let full = format!("{name}{suffix}");
    match check_resource_name(&full) {
        Ok(()) => Ok(full),
        Err(rule) => Err(format!("`{}`, as `renameByDefault` makes it: {rule}", shown(&full))),
    }
}

fn suffix(sharing: Option<Sharing>, defaults: &ResourceDefaults) -> &'static str {
    sharing.map_or("", |_| defaults.sharing.suffix())
}

fn read_selector(entry: &Section) -> Selector {
    let conditions = entry.section("match", &MATCH_KEYS);
    let addresses = conditions.find("addresses").map(|list| {
        let addresses = list.distinct(Cursor::address);
        // No address at all would read as "any": the opposite of what an empty list says.
        if list.is_empty_list() {
            list.problem("the list is empty; name an address or remove the key");
        }
        addresses
    });
    Selector {
        model: conditions.find("model").and_then(Cursor::text).map(str::to_owned),
        pci_id: conditions.find("pciId").and_then(Cursor::pci_id),
        addresses: addresses.unwrap_or_default(),
    }
}

/// Whether a board that one of the two offers is certain to be offered by the other, whatever
/// the node has. More can only be said with the node's inventory.
fn overlap(one: &Selector, other: &Selector) -> bool {
    covers(one, other) || covers(other, one) || name_the_same_chip(one, other)
}

/// Whether every board that `narrow` matches is matched by `wide`.
fn covers(wide: &Selector, narrow: &Selector) -> bool {
    let addresses = wide.addresses.is_empty()
        || (!narrow.addresses.is_empty()
            && narrow.addresses.iter().all(|address| wide.addresses.contains(address)));
    let model = wide.model.is_none() || wide.model == narrow.model;
    let pci_id = wide.pci_id.is_none() || wide.pci_id == narrow.pci_id;
    addresses && model && pci_id
}

fn name_the_same_chip(one: &Selector, other: &Selector) -> bool {
    let exclusive = differ(one.model.as_ref(), other.model.as_ref())
        || differ(one.pci_id.as_ref(), other.pci_id.as_ref());
    let shared = |address| other.addresses.contains(address);
    !exclusive && one.addresses.iter().any(shared)
}

fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}
