//! The README's steps to install, with the image of a registry of the user's.

use std::path::Path;
use std::process::Command;

use super::objects::{Object, objects, the_daemon_set};
use super::pod;
use super::tools::{Tool, text_of, top};

const IMAGE: &str = concat!("registry.example.com/ix-device-plugin:", env!("CARGO_PKG_VERSION"));

/// The README's section with the steps.
fn section() -> String {
    let text = text_of("README.md");
    let (_, rest) = text.split_once("\n## Install\n").expect("the section");
    rest.split("\n## ").next().expect("its text").to_owned()
}

/// The words of the one command of the section that begins like this, without these words.
#[track_caller]
fn command(beginning: &str) -> Vec<String> {
    let section = section();
    let lines = section.lines().filter_map(|line| line.strip_prefix("$ "));
    let mut found = lines.filter_map(|line| line.strip_prefix(beginning));
    let rest = found.next().unwrap_or_else(|| panic!("no {beginning}"));
    rest.split_whitespace().map(str::to_owned).collect()
}

#[track_caller]
fn check_image(objects: &[Object]) {
    assert_eq!(pod::container(the_daemon_set(objects)).image.as_deref(), Some(IMAGE));
}

#[test]
fn the_image_that_is_built_is_the_one_that_is_pushed() {
    assert_eq!(command("docker build"), ["--tag", IMAGE, "."]);
    assert_eq!(command("docker push"), [IMAGE]);
}

#[test]
fn the_kustomization_of_the_readme_sets_the_image() {
    let Some(kubectl) = Tool::named("kubectl") else { return };
    let section = section();
    let (_, rest) = section.split_once("```yaml\n").expect("a kustomization");
    let kustomization = rest.split("```").next().expect("its end");
    let words = command("kubectl apply");
    let directory = tempfile::TempDir::new().unwrap();
    let cluster = directory.path().join(&words[1]);
    copy(&top().join("deploy"), directory.path());
    std::fs::create_dir(&cluster).unwrap();
    std::fs::write(cluster.join("kustomization.yaml"), kustomization).unwrap();
    assert_eq!((&*words[0], words.len()), ("--kustomize", 2));
    check_image(&objects(&kubectl.stdout(&["kustomize", cluster.to_str().unwrap()])));
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--recursive").args([from, to]).status().unwrap();
    assert!(copied.success());
}

#[test]
fn the_helm_command_of_the_readme_sets_the_image() {
    let Some(helm) = Tool::named("helm") else { return };
    let words = command("helm install");
    let mut arguments = vec!["template"];
    arguments.extend(words.iter().map(String::as_str));
    check_image(&objects(&helm.stdout(&arguments)));
}

#[test]
fn the_steps_after_it_name_what_was_installed() {
    let words = command("kubectl --namespace kube-system rollout status");
    assert_eq!(words, [format!("daemonset/{}", pod::NAME)]);
    let columns = command("kubectl get nodes --output").concat();
    assert!(columns.ends_with(r"GPUS:.status.allocatable.iluvatar\\.com/gpu"), "{columns}");
    assert!(section().contains("`pod-security.kubernetes.io/enforce: privileged`"));
}
