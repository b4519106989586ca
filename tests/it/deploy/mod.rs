//! What users install: manifests, chart, alerts, dashboard and image, each read by the program that
//! will read it there, and held against the plugin's own defaults.

mod alerts;
mod chart;
mod chart_readme;
mod chart_refusals;
mod chart_schema;
mod dra;
mod image;
mod install;
pub(crate) mod kustomize;
mod metrics;
pub(crate) mod objects;
pub(crate) mod pod;
mod rights;
mod seed_compat;
pub(crate) mod tools;

/// What to do about a file that is made from another one and older than it.
const HOW_TO_UPDATE: &str =
    "run the tests of `deploy` with INSTA_UPDATE=always, as for golden files";

/// Whether files that are made from others are to be written again.
fn updates_are_wanted() -> bool {
    std::env::var("INSTA_UPDATE").is_ok_and(|choice| choice == "always")
}

/// The paths below deploy/ that a text names, in links and in commands.
fn paths_of(text: &str) -> impl Iterator<Item = &str> {
    let words =
        text.split(|character: char| character.is_whitespace() || "()`[]".contains(character));
    words.filter(|word| word.starts_with("deploy/"))
}

#[test]
fn what_the_guides_name_is_there() {
    for guide in
        ["README.md", "deploy/seed-compat/README.md", "deploy/helm/ix-device-plugin/README.md"]
    {
        let text = tools::text_of(guide);
        assert!(paths_of(&text).count() > 0, "{guide} names nothing");
        for path in paths_of(&text) {
            assert!(tools::top().join(path).exists(), "{guide}: there is no {path}");
        }
    }
}
