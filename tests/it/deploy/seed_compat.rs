//! The way over from the replaced plugin: nothing that a cluster has is overwritten or renamed.

use super::kustomize::built;
use super::objects::{Object, objects, the_daemon_set};
use super::pod;
use super::tools::text_of;

/// The manifest that users have.
const REPLACED: &str = "tests/it/seed/daemonset.yaml";

#[test]
fn the_configuration_of_the_cluster_is_left_alone() {
    let Some(objects) = built("deploy/seed-compat") else { return };
    assert!(matches!(&objects[..], [Object::DaemonSet(_)]), "{objects:?}");
    let account = &pod::spec(the_daemon_set(&objects)).service_account_name;
    assert_eq!(account, &None, "`kubectl replace` creates no account");
}

#[test]
fn the_daemon_set_takes_the_place_of_the_old_one_node_by_node() {
    let Some(new) = built("deploy/seed-compat") else { return };
    let old = objects(&text_of(REPLACED));
    let (new, old) = (the_daemon_set(&new), the_daemon_set(&old));
    pod::check(new, &[]);
    assert_eq!(new.metadata.name, old.metadata.name);
    assert_eq!(new.metadata.namespace, old.metadata.namespace);
    assert_eq!(new.metadata.labels, old.metadata.labels);
    let (new, old) = (new.spec.as_ref().unwrap(), old.spec.as_ref().unwrap());
    assert_eq!(new.selector, old.selector, "Kubernetes refuses another one");
    let strategy = new.update_strategy.as_ref().unwrap();
    assert_eq!((strategy.type_.as_deref(), &strategy.rolling_update), (Some("OnDelete"), &None));
}

#[test]
fn every_difference_is_judged() {
    let guide = text_of("deploy/seed-compat/README.md");
    let (_, table) =
        guide.split_once("| what | replaced plugin | this one |\n|---|---|---|\n").unwrap();
    let rows: Vec<_> = table.lines().take_while(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 35, "{}", rows.len());
    for row in rows {
        let cells: Vec<_> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let [_, _, this_one] = &cells[..] else { panic!("{row}") };
        let judged = ["same", "different: ", "not supported: "];
        assert!(judged.iter().any(|word| this_one.starts_with(word)), "{row}");
    }
}

#[test]
fn the_old_manifest_needs_only_another_image() {
    let old = objects(&text_of(REPLACED));
    let container = pod::container(the_daemon_set(&old));
    let guide = text_of("deploy/seed-compat/README.md");
    let image = concat!("ix-device-plugin:", env!("CARGO_PKG_VERSION"));
    let command = format!("set image daemonset/{} {}={image}", pod::NAME, container.name);
    assert!(guide.contains(&command), "the guide does not say: {command}");
}
