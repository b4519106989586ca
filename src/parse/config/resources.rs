//! `resourceName` or `resources`: what is offered to the kubelet, under which names.

use std::collections::BTreeSet;

use super::Overrides;
use super::cursor::{Cursor, Reading, shown};
use super::flags::read_granularity;
use super::keys::{self, RESOURCE_LIMIT, resource, selector};
use super::resource_name::{NameRule, check_resource_name};
use super::section::Section;
use super::sharing::SharingDefaults;
use crate::model::config::{Granularity, ResourceRule, Selector, Sharing};

const TWO_NAMES: &str =
    "cannot be combined with `resources`, where each entry has its own name; remove one of the two";

/// What every resource has unless its entry overrides it.
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
    let Some(list) = root.find(&keys::RESOURCES) else {
        return vec![read_single(root, overrides, defaults, reading)];
    };
    if let Some(name) = root.find(&keys::RESOURCE_NAME) {
        name.problem(TWO_NAMES);
    }
    if let Some(given) = &overrides.resource_name {
        reading.override_problem(given, TWO_NAMES);
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
    let in_file = root.find(&keys::RESOURCE_NAME);
    let name = match &overrides.resource_name {
        Some(given) => full_name(&given.text, suffix)
            .map_err(|problem| reading.override_problem(given, problem))
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
            // A selector that lost a condition to a problem shows nothing about overlaps.
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
    let entry = Section::open(item, &resource::KEYS);
    let sharing = defaults.sharing.sharing(entry.find(&resource::REPLICAS));
    ResourceRule {
        name: read_entry_name(item, &entry, suffix(sharing, defaults), names),
        selector: read_selector(&entry),
        granularity: read_granularity(entry.find(&resource::SPLITBOARD), defaults.granularity),
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
    let Some(cursor) = entry.find(&resource::NAME) else {
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
    let name = cursor.text()?;
    full_name(name, suffix)
        .map_err(|problem| match &problem {
            NameProblem::AsGiven(rule) => cursor.problem(format!("`{}`: {rule}", shown(name))),
            NameProblem::Renamed { .. } => cursor.problem(problem.to_string()),
        })
        .ok()
}

/// Why a kubelet does not accept a name.
#[derive(Debug, thiserror::Error)]
enum NameProblem {
    #[error(transparent)]
    AsGiven(NameRule),
    #[error("`{}`, as `renameByDefault` makes it: {rule}", shown(.name))]
    Renamed { name: String, rule: NameRule },
}

/// The name with its suffix, if a kubelet accepts it.
fn full_name(name: &str, suffix: &str) -> Result<String, NameProblem> {
    check_resource_name(name).map_err(NameProblem::AsGiven)?;
    let full = format!("{name}{suffix}");
    match check_resource_name(&full) {
        Ok(()) => Ok(full),
        Err(rule) => Err(NameProblem::Renamed { name: full, rule }),
    }
}

fn suffix(sharing: Option<Sharing>, defaults: &ResourceDefaults) -> &'static str {
    sharing.map_or("", |_| defaults.sharing.suffix())
}

fn read_selector(entry: &Section) -> Selector {
    let conditions = entry.section(&resource::MATCH);
    let addresses = conditions.find(&selector::ADDRESSES).map(|list| {
        let addresses = list.distinct(Cursor::address);
        // No address at all would read as "any": the opposite of an empty list.
        if list.is_empty_list() {
            list.problem("the list is empty; name an address or remove the key");
        }
        addresses
    });
    Selector {
        model: conditions.find(&selector::MODEL).and_then(Cursor::text).map(str::to_owned),
        pci_id: conditions.find(&selector::PCI_ID).and_then(Cursor::pci_id),
        addresses: addresses.unwrap_or_default(),
    }
}

/// Whether a board that one of the two offers is certain to be offered by the other, whatever
/// the node has. More needs the node's inventory.
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
