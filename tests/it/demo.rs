//! The README's first command: the whole story, as people and as scripts get it.

use crate::support::binary::{Ran, run, stdout_of};

/// The text without its times, which are the machine's.
pub(crate) fn without_times(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let words = line.split(' ').scan(false, |after, word| {
            let is_time = *after || word.parse::<f64>().is_ok();
            *after = word == "after";
            Some(if is_time && word.contains('.') { "TIME" } else { word })
        });
        words.collect::<Vec<_>>().join(" ").trim_start().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_story_plays_to_its_end() {
    let told = without_times(&stdout_of(&["demo"]));
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("demo", told));
}

#[test]
fn scripts_get_one_object_a_line() {
    let told = stdout_of(&["demo", "--story", "pods", "-o", "json"]);
    let events: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.len() > 5, "{told}");
    for event in &events {
        assert!(event["milliseconds"].is_number() && event["actor"].is_string(), "{event}");
    }
}

#[test]
fn a_machine_without_a_gpu_is_no_stage() {
    let Ran { code, stderr, .. } = run(&["demo", "--node", "fixtures/nodes/empty-host.node"]);
    let said = "error: the machine has no healthy board, and the story needs one\n";
    assert_eq!((code, &*stderr), (Some(1), said));
}

#[test]
fn a_board_that_is_ill_already_is_left_out_of_the_story() {
    stdout_of(&["demo", "--node", "fixtures/nodes/vfio-and-unbound.node", "--story", "hotplug"]);
}
