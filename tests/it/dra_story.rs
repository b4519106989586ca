//! `demo --story dra`: the whole story of DRA mode, as people and as scripts get it.

use crate::demo::without_times;
use crate::support::binary::stdout_of;

#[test]
fn the_story_of_dra_is_told_to_its_end() {
    let told = without_times(&stdout_of(&["demo", "--story", "dra"]));
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("demo_dra", told));
}

#[test]
fn scripts_get_taints_and_devices_as_values() {
    let told = stdout_of(&["demo", "--story", "dra", "-o", "json"]);
    let events: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let has = |fact: &str| events.iter().any(|event| !event["facts"][fact].is_null());
    assert!(["taints", "cdi", "pending", "slices"].into_iter().all(has), "{told}");
}
