//! The command line as a user meets it: exit codes, help, what goes to which stream.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

use clap::CommandFactory as _;
use ix_device_plugin::cli::Cli;
use ix_device_plugin::parse::node_file::parse_node_file;
use tempfile::TempDir;

use crate::support::binary::{Ran, binary, ran, run, stdout_of};

const X4: &str = "fixtures/nodes/mr-v100-x4.node";
const X8: &str = "fixtures/nodes/bi-v150-x8.node";

fn help(name: &str, arguments: &[&str]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots/help");
    settings.bind(|| insta::assert_snapshot!(name, stdout_of(arguments)));
}

/// A verb with all its words, and its definition.
type Verb = (Vec<String>, clap::Command);

/// Every verb and the groups of verbs, except those that only machinery calls.
fn verbs() -> Vec<Verb> {
    verbs_below(&Cli::command(), &[])
}

fn verbs_below(command: &clap::Command, above: &[String]) -> Vec<Verb> {
    let visible = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let each = visible.flat_map(|verb| {
        let words = [above, &[verb.get_name().to_owned()]].concat();
        let below = verbs_below(verb, &words);
        std::iter::once((words, verb.clone())).chain(below)
    });
    each.collect()
}

/// Every verb that does something by itself.
fn leaves() -> Vec<Verb> {
    let leaves: Vec<_> = verbs().into_iter().filter(|(_, verb)| !verb.has_subcommands()).collect();
    assert!(leaves.len() > 10, "{leaves:?}");
    leaves
}

fn flags_of(verb: &clap::Command) -> impl Iterator<Item = &clap::Arg> {
    verb.get_arguments().filter(|arg| !arg.is_positional())
}

#[test]
fn every_verb_has_a_help_worth_reading() {
    help("plugin", &["--help"]);
    for (words, _) in verbs() {
        let mut arguments: Vec<_> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        help(&words.join("-"), &arguments);
    }
}

/// A flag as it is typed, with a value that it takes.
fn typed(flag: &clap::Arg) -> Vec<String> {
    let name = format!("--{}", flag.get_long().unwrap());
    let value = match flag.get_long().unwrap() {
        "http" => "127.0.0.1:1",
        "size" => "2",
        "log-format" => "json",
        "story" => "pods",
        "available" | "must-include" => "0000:13:00.0",
        "verbose" | "list" => return vec![name],
        _ if flag.is_require_equals_set() => return vec![format!("{name}=true")],
        // The only format that each verb with one has, beside one for people.
        "output" if flag.get_possible_values().is_empty() => "discover",
        "output" => "json",
        // A value that could be taken for a verb.
        _ => "discover",
    };
    vec![name, value.to_owned()]
}

fn parsed(words: &[&[String]]) -> Result<String, clap::Error> {
    let words = words.concat();
    let arguments = std::iter::once("ix-device-plugin".to_owned()).chain(words);
    Cli::from_arguments(arguments.map(Into::into)).map(|cli| format!("{cli:?}"))
}

/// What a verb must be given beside the flag in question.
fn required(verb: &clap::Command, flag: &clap::Arg) -> Vec<String> {
    let is_needed = |arg: &&clap::Arg| arg.is_required_set() && arg.get_id() != flag.get_id();
    let needed = verb.get_arguments().filter(is_needed);
    let value = |arg: &clap::Arg| match arg.get_possible_values().first() {
        Some(value) => vec![value.get_name().to_owned()],
        None if arg.is_positional() => vec!["some-file".to_owned()],
        None => typed(arg),
    };
    let needed = needed.flat_map(value);
    // Only together with other flags than `--list`.
    let is_id = |arg: &clap::Arg| arg.get_id() == "id" && !arg.is_required_set();
    let has_id = verb.get_arguments().any(is_id) && flag.get_long() != Some("list");
    needed.chain(has_id.then(|| "0000:13:00.0".to_owned())).collect()
}

#[test]
fn a_flag_counts_the_same_before_and_behind_the_verb_or_is_refused() {
    let mut refused = 0;
    for (words, verb) in leaves() {
        for flag in leaves().iter().flat_map(|(_, other)| flags_of(other)) {
            let own = flags_of(&verb).find(|own| own.get_long() == flag.get_long());
            let is_its_own = own.is_some();
            let (flag_text, others) = (typed(own.unwrap_or(flag)), required(&verb, flag));
            let before = parsed(&[&flag_text, &words, &others]);
            let behind = parsed(&[&words, &flag_text, &others]);
            let (name, verb_name) = (&flag_text[0], words.join(" "));
            match (before, behind) {
                (Ok(before), Ok(behind)) => {
                    assert!(is_its_own, "{verb_name} accepts {name}");
                    assert_eq!(before, behind, "{verb_name} {flag_text:?}");
                    let without = parsed(&[&words, &others]);
                    let counts = without.map_or(true, |without| without != before);
                    assert!(counts, "{verb_name} drops {name}");
                }
                (Err(before), Err(behind)) => {
                    assert!(!is_its_own, "{verb_name} {name}: {before}");
                    assert_eq!((before.exit_code(), behind.exit_code()), (2, 2));
                    let text = before.to_string();
                    let name = name.split('=').next().unwrap();
                    assert!(text.contains(name) && text.contains(&verb_name), "{text}");
                    refused += 1;
                }
                (before, behind) => panic!("{verb_name} {name}: {before:?}, {behind:?}"),
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_flag_has_one_meaning_in_all_verbs() {
    let mut meanings: BTreeMap<String, (bool, Option<char>)> = BTreeMap::new();
    for (words, verb) in leaves() {
        for flag in flags_of(&verb) {
            let meaning = (flag.get_action().takes_values(), flag.get_short());
            let name = flag.get_long().unwrap().to_owned();
            assert_eq!(meanings.entry(name).or_insert(meaning), &meaning, "{words:?}");
        }
    }
}

#[test]
fn without_a_verb_the_flags_are_those_of_run() {
    for flag in
        leaves().iter().filter(|(words, _)| words[0] == "run").flat_map(|(_, run)| flags_of(run))
    {
        let flag = typed(flag);
        let run = parsed(&[&["run".to_owned()], &flag]).unwrap();
        assert_eq!(parsed(&[&flag]).unwrap(), run, "{flag:?}");
    }
}

#[test]
fn flags_before_the_verb_have_an_effect() {
    let nobody = "error: cannot connect to 127.0.0.1:1: Connection refused (os error 111); does \
                  the plugin run, and does its --http name this address?\n";
    check_error(&["--http", "127.0.0.1:1", "status"], 1, nobody);
    check_error(&["--http", "127.0.0.1:1", "probe", "ready"], 1, nobody);
    check_error(&["probe", "--http=127.0.0.1:1", "live"], 1, nobody);
    let doctor = |arguments: &[&str]| run(&[&["--root", X4], arguments].concat());
    let elsewhere = doctor(&["--kubelet-dir", "/elsewhere", "doctor"]);
    assert!(elsewhere.stdout.contains("/elsewhere"), "{elsewhere:?}");
    assert_eq!(elsewhere, doctor(&["doctor", "--kubelet-dir", "/elsewhere"]));
}

#[test]
fn a_flag_that_a_verb_does_not_have_is_named_with_the_verb() {
    let Ran { code, stdout, stderr } = run(&["--kubelet-dir", "/k", "discover"]);
    assert_eq!((code, &*stdout), (Some(2), ""));
    assert!(stderr.starts_with("error: unexpected argument '--kubelet-dir' found\n"), "{stderr}");
    assert!(stderr.contains("Usage: ix-device-plugin discover"), "{stderr}");
}

/// The examples at the end of a verb's long help, as arguments.
fn examples(words: &[String]) -> Vec<Vec<String>> {
    let mut arguments: Vec<_> = words.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = stdout_of(&arguments);
    let lines = help.lines().filter_map(|line| line.strip_prefix("  ix-device-plugin"));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn every_verb_has_examples_and_those_that_only_read_run() {
    // Or a file of the kubelet's.
    let needs_a_daemon = ["run", "probe", "status", "cordon", "uncordon"];
    let directory = TempDir::new().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    std::os::unix::fs::symlink(&fixtures, directory.path().join("fixtures")).unwrap();
    for (words, _) in leaves() {
        let examples = examples(&words);
        assert!(!examples.is_empty(), "{words:?} has no example");
        for example in examples {
            let is_own = example.starts_with(&words) || words[0] == "run";
            assert!(is_own, "{words:?}: {example:?}");
            if needs_a_daemon.contains(&&*words[0]) {
                parsed(&[&example]).unwrap();
                continue;
            }
            let mut command = binary();
            command.current_dir(directory.path()).args(&example);
            command.env("IX_ROOT", fixtures.join("nodes/bi-v150-x8.node"));
            let Ran { code, stderr, .. } = ran(&command.output().unwrap());
            assert_eq!((code, &*stderr), (Some(0), ""), "{example:?}");
        }
    }
}

#[test]
fn completions_of_each_shell_have_every_verb_and_flag() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout_of(&["completions", shell]);
        for (words, verb) in verbs() {
            assert!(script.contains(words.last().unwrap()), "{shell}: {words:?}");
            for flag in flags_of(&verb).filter(|flag| !flag.is_hide_set()) {
                let flag = flag.get_long().unwrap();
                assert!(script.contains(flag), "{shell}: {words:?} --{flag}");
            }
        }
    }
}

#[test]
fn every_verb_has_a_man_page_that_names_it_and_its_flags() {
    let directory = TempDir::new().unwrap();
    assert_eq!(stdout_of(&["man", directory.path().to_str().unwrap()]), "");
    let page = |words: &[String]| {
        let name = [&["ix-device-plugin".to_owned()], words].concat().join("-");
        std::fs::read_to_string(directory.path().join(format!("{name}.1"))).unwrap()
    };
    let program = page(&[]);
    for (words, verb) in verbs() {
        let page = page(&words);
        assert!(page.contains(".TH ix-device-plugin"), "{page}");
        for flag in flags_of(&verb).filter(|flag| !flag.is_hide_set()) {
            let flag = flag.get_long().unwrap().replace('-', "\\-");
            assert!(page.contains(&flag), "{words:?} {flag}");
        }
        let [first] = &words[..] else { continue };
        assert!(program.contains(&format!("ix\\-device\\-plugin\\-{first}(1)")), "{program}");
    }
    let pages = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(pages, verbs().len() + 1, "pages of hidden verbs");
}

#[test]
fn the_version_is_the_crates() {
    let version = format!("ix-device-plugin {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout_of(&["--version"]), version);
}

#[test]
fn an_unknown_verb_or_flag_is_a_usage_error() {
    for arguments in [&["discovr"][..], &["discover", "--rot", "/"], &["discover", "-o", "xml"]] {
        let Ran { code, stdout, stderr } = run(arguments);
        assert_eq!((code, &*stdout), (Some(2), ""), "{arguments:?}");
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
}

#[track_caller]
fn check_error(arguments: &[&str], code: i32, message: &str) {
    let expected = Ran { code: Some(code), stdout: String::new(), stderr: message.to_owned() };
    assert_eq!(run(arguments), expected);
}

#[test]
fn a_missing_root_is_a_failure_that_names_it() {
    let message = "error: cannot read the root no/such: No such file or directory (os error 2)\n";
    check_error(&["--root", "no/such", "discover"], 1, message);
    check_error(&["--root", "no/such", "topology"], 1, message);
    check_error(&["--root", "no/such", "snapshot"], 1, message);
}

#[test]
fn an_empty_root_is_a_failure_and_not_a_node_without_gpus() {
    let empty = TempDir::new().unwrap();
    let root = empty.path().to_str().unwrap();
    let message = format!(
        "error: cannot read {root}/sys/bus/pci/devices: No such file or directory (os error 2); \
         is /sys mounted here?\n"
    );
    check_error(&["--root", root, "discover"], 1, &message);
    check_error(&["--root", root, "discover", "-o", "json"], 1, &message);
}

#[test]
fn a_root_that_is_no_machine_is_a_failure_with_its_line() {
    let message = "error: fixtures/bad-nodes/bad-hex.node is not a machine: line 3: `3e1e0` is not \
                   pairs of hexadecimal digits\n";
    check_error(&["--root", "fixtures/bad-nodes/bad-hex.node", "discover"], 1, message);
}

#[test]
fn a_configuration_that_was_named_and_is_not_there_has_its_own_exit_code() {
    let message =
        "error: cannot read the configuration no/such: No such file or directory (os error 2)\n";
    check_error(&["--root", X4, "--config", "no/such", "discover"], 3, message);
    check_error(&["config", "check", "no/such"], 3, message);
}

#[test]
fn a_wrong_configuration_has_its_own_exit_code() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, "bords: {}\n").unwrap();
    let arguments = ["--root", X4, "--config", file.to_str().unwrap(), "discover"];
    let Ran { code, stdout, stderr } = run(&arguments);
    assert_eq!((code, &*stdout), (Some(3), ""));
    assert!(stderr.contains("bords") && stderr.contains("boards"), "{stderr}");
}

#[test]
fn the_environment_stands_for_the_flags() {
    let from_environment = ran(&binary()
        .args(["discover", "-o", "json"])
        .env("IX_ROOT", "fixtures/nodes/half-board.node")
        .env("IX_CONFIG", "fixtures/nodes/half-board.yaml")
        .output()
        .unwrap());
    let arguments = [
        "--root",
        "fixtures/nodes/half-board.node",
        "--config",
        "fixtures/nodes/half-board.yaml",
        "discover",
        "-o",
        "json",
    ];
    assert_eq!(from_environment, run(&arguments));
    assert!(from_environment.stdout.contains("ChipMissing"));
}

#[test]
fn every_verb_reads_the_file_of_this_node_where_there_is_one() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("ix-config");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("ix-config", "");
    let is_split = |node: Option<&str>| {
        let mut command = binary();
        command.args(["--root", X8, "discover", "--config"]).arg(&file);
        command.envs(node.map(|node| ("NODE_NAME", node)));
        let Ran { code, stdout, stderr } = ran(&command.output().unwrap());
        assert_eq!((code, &*stderr), (Some(0), ""));
        stdout.contains("iluvatar.com/gpu: 16 devices")
    };
    assert!(!is_split(Some("node-1")) && !is_split(None));
    write("ix-config.node-1", "flags: {splitboard: true}");
    assert!(is_split(Some("node-1")) && !is_split(Some("node-2")) && !is_split(None));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    write(&format!("ix-config.{}", host.trim().to_lowercase()), "flags: {splitboard: true}");
    assert!(is_split(None) && is_split(Some("")) && !is_split(Some("node-2")));
}

#[test]
fn splitboard_offers_each_chip() {
    let split = stdout_of(&["--root", X8, "--splitboard", "discover"]);
    assert!(split.contains("iluvatar.com/gpu: 16 devices, 16 healthy"), "{split}");
    assert_eq!(stdout_of(&["--root", X8, "--splitboard=true", "discover"]), split);
    let whole = stdout_of(&["--root", X8, "discover"]);
    assert!(whole.contains("iluvatar.com/gpu: 8 devices, 8 healthy"), "{whole}");
}

#[test]
fn nothing_is_coloured_when_piped() {
    for format in ["table", "tree", "dot"] {
        let output = stdout_of(&["--root", X4, "discover", "-o", format]);
        assert!(!output.contains('\x1b'), "{format}");
    }
    assert!(!stdout_of(&["--root", X4, "topology"]).contains('\x1b'));
}

/// The reader closes its end before or while the output comes; `| head` does the same.
#[track_caller]
fn check_closed_output(arguments: &[&str]) {
    let mut command = binary();
    command.args(arguments).env("IX_ROOT", "fixtures/doctor/all-well.node");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), &*stderr), (Some(0), ""), "{arguments:?}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    check_closed_output(&["--root", X8, "discover", "-o", "json"]);
    for arguments in [
        &["topology"][..],
        &["snapshot"],
        &["--root", X8, "explain", "allocation", "--size", "2"],
        &["doctor", "-o", "json"],
        &["config", "check", "fixtures/configs/good/annotated.yaml"],
        &["config", "schema"],
        &["fixture", "check", X8],
        &["completions", "bash"],
        &["demo", "--story", "pods"],
        &["--help"],
        &["discover", "--help"],
        &["--version"],
    ] {
        check_closed_output(arguments);
    }
}

/// A machine with no GPU says what was looked at; one with GPUs lists them. Either is fine.
#[test]
fn this_machine_is_looked_at_as_it_is() {
    let bus = Path::new("/sys/bus/pci/devices");
    let Ran { code, stdout, stderr } = run(&["discover"]);
    if !bus.is_dir() {
        assert_eq!(code, Some(1));
        assert!(stderr.starts_with("error: cannot read /sys/bus/pci/devices: "), "{stderr}");
        return;
    }
    assert_eq!((code, &*stderr), (Some(0), ""));
    let functions = std::fs::read_dir(bus).unwrap().count();
    let s = if functions == 1 { "" } else { "s" };
    let nothing = format!(
        "no Iluvatar chips found: {functions} PCI function{s} in /sys/bus/pci/devices, none a chip \
         of vendor 0x1e3e\n"
    );
    assert!(stdout.starts_with(&nothing) || stdout.starts_with("BOARD"), "{stdout}");
}

#[test]
fn a_snapshot_goes_to_a_file_or_to_standard_output() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("machine.node");
    let file = file.to_str().unwrap();
    let shown = stdout_of(&["--root", X4, "snapshot"]);
    assert_eq!(stdout_of(&["--root", X4, "snapshot", "-o", file]), "");
    assert_eq!(std::fs::read_to_string(file).unwrap(), shown);
    assert!(parse_node_file(&shown).is_ok());
}

#[test]
fn a_snapshot_that_cannot_be_written_is_a_failure() {
    let message = "error: cannot write no/such/file: No such file or directory (os error 2)\n";
    check_error(&["--root", X4, "snapshot", "-o", "no/such/file"], 1, message);
}

#[test]
fn a_snapshot_of_a_shipped_machine_shows_the_same() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("machine.node");
    let file = file.to_str().unwrap();
    for node in crate::support::binary::files("fixtures/nodes", "node") {
        let node = node.to_str().unwrap();
        stdout_of(&["--root", node, "snapshot", "-o", file]);
        for view in [&["discover", "-o", "json"][..], &["topology", "-o", "json"]] {
            let shown = |root| stdout_of(&[&["--root", root], view].concat());
            assert_eq!(shown(file), shown(node), "{node}");
        }
    }
}

#[test]
fn an_unpacked_machine_is_a_root() {
    let directory = TempDir::new().unwrap();
    let unpacked = directory.path().join("machine");
    let unpacked = unpacked.to_str().unwrap();
    assert_eq!(stdout_of(&["fixture", "unpack", X4, unpacked]), "");
    let shown = |root| stdout_of(&["--root", root, "discover", "-o", "json"]);
    assert_eq!(shown(unpacked), shown(X4));
}

#[test]
fn the_format_in_the_help_of_fixture_is_the_one_that_is_read() {
    let help = stdout_of(&["fixture", "--help"]);
    let (_, format) = help.split_once("The format:\n").unwrap();
    // The second column explains the first.
    let lines = format.lines().map(|line| line.trim_start().split("   ").next().unwrap());
    let machine = parse_node_file(&lines.collect::<Vec<_>>().join("\n")).unwrap();
    assert_eq!(machine.iter().filter(|(path, _)| path.contains("0000:15:00.0/")).count(), 4);
}

#[test]
fn unpacking_replaces_nothing() {
    let directory = TempDir::new().unwrap();
    let unpacked = directory.path().to_str().unwrap();
    stdout_of(&["fixture", "unpack", X4, unpacked]);
    let Ran { code, stderr, .. } = run(&["fixture", "unpack", X4, unpacked]);
    assert_eq!(code, Some(1));
    let message = format!("error: cannot unpack {X4}: cannot make {unpacked}/dev/iluvatar0: ");
    assert!(stderr.starts_with(&message), "{stderr}");
    assert!(stderr.ends_with("File exists (os error 17)\n"), "{stderr}");
}

#[test]
fn a_checked_machine_prints_what_was_found() {
    let expected = "fixtures/nodes/vfio-and-unbound.node: ok: 2 boards, 2 chips, 2 skipped \
                    functions, no warnings\n";
    assert_eq!(stdout_of(&["fixture", "check", "fixtures/nodes/vfio-and-unbound.node"]), expected);
}
