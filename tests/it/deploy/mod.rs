//! What users install: manifests, chart, alerts, dashboard and image, each read by the program that
//! will read it there, and held against the plugin's own defaults.

mod alerts;
mod chart;
mod image;
mod kustomize;
mod metrics;
mod objects;
mod pod;
mod rights;
mod seed_compat;
pub(crate) mod tools;

/// The paths below deploy/ that a text names, in links and in commands.
fn paths_of(text: &str) -> impl Iterator<Item = &str> {
    let words =
        text.split(|character: char| character.is_whitespace() || "()`[]".contains(character));
    words.filter(|word| word.starts_with("deploy/"))
}

#[test]
fn what_the_guides_name_is_there() {
    for guide in ["README.md", "deploy/seed-compat/README.md"] {
        let text = tools::text_of(guide);
        assert!(paths_of(&text).count() > 0, "{guide} names nothing");
        for path in paths_of(&text) {
            assert!(tools::top().join(path).exists(), "{guide}: there is no {path}");
        }
    }
}
