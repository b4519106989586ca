//! The udev rules: a strict reading of their text, and the links that the real udevadm makes of them
//! on the shipped machines.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ix_device_plugin::parse::node_file::parse_node_file;
use tempfile::TempDir;

use crate::support::binary::{files, stdout_of};
use crate::support::mounts::unshared;
use crate::support::skip;

const SHIPPED: &str = "udev-rules/70-iluvatar.rules";

fn shipped() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(SHIPPED)).expect(SHIPPED)
}

/// What `discover -o udev` makes of a machine.
fn generated(node: &Path) -> String {
    let config = node.with_extension("yaml");
    let config = config.to_str().expect("its path is text");
    let root = ["--root", node.to_str().expect("its path is text")];
    let with_config = Path::new(env!("CARGO_MANIFEST_DIR")).join(config).is_file();
    let config = if with_config { vec!["--config", config] } else { Vec::new() };
    stdout_of(&[&root[..], &config, &["discover", "-o", "udev"]].concat())
}

// -- The text ---------------------------------------------------------------------------------

/// Keys that we may use, each with its operators. No RUN, PROGRAM, IMPORT: nothing runs.
const KEYS: &[(&str, &[&str])] = &[
    ("ACTION", &["==", "!="]),
    ("KERNEL", &["==", "!="]),
    ("SUBSYSTEM", &["==", "!="]),
    ("KERNELS", &["=="]),
    ("SUBSYSTEMS", &["=="]),
    ("ATTRS", &["=="]),
    ("MODE", &["="]),
    ("SYMLINK", &["+="]),
    ("TAG", &["+="]),
    ("GOTO", &["="]),
    ("LABEL", &["="]),
];

/// One `KEY{attribute}OPERATOR"value"` of a rule.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    key: String,
    value: String,
}

/// Every rule of a file, by udev(7): lines that end with `\` go on, keys are separated by commas.
fn parse(text: &str) -> Result<Vec<Vec<Token>>, String> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter(|line| !line.is_empty()).map(parse_rule).collect()
}

fn parse_rule(line: &str) -> Result<Vec<Token>, String> {
    let mut rest = line;
    let mut tokens = Vec::new();
    loop {
        let (token, after) = parse_token(rest).ok_or_else(|| format!("`{rest}` is no key"))?;
        tokens.push(token);
        match after.trim_start().strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if after.trim().is_empty() => return Ok(tokens),
            None => return Err(format!("`{after}`: a comma is missing")),
        }
    }
}

fn parse_token(text: &str) -> Option<(Token, &str)> {
    let name = text.chars().take_while(char::is_ascii_uppercase).count();
    let (key, rest) = text.split_at(name);
    let (_, operators) = KEYS.iter().find(|(name, _)| *name == key)?;
    let rest = match rest.strip_prefix('{') {
        Some(attribute) => attribute.split_once('}')?.1,
        None => rest,
    };
    let (operator, rest) = rest.split_once('"')?;
    let (value, rest) = rest.split_once('"')?;
    let token = Token { key: key.to_owned(), value: value.to_owned() };
    operators.contains(&operator).then_some((token, rest))
}

fn every_file() -> Vec<(String, String)> {
    let machines = files("fixtures/nodes", "node");
    let of_machines = machines.iter().map(|node| (node.display().to_string(), generated(node)));
    std::iter::once((SHIPPED.to_owned(), shipped())).chain(of_machines).collect()
}

#[test]
fn the_rules_are_written_as_udev_reads_them_and_run_nothing() {
    for (name, text) in every_file() {
        let rules = parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let all = |key: &str| -> BTreeSet<String> {
            let tokens = rules.iter().flatten().filter(|token| token.key == key);
            tokens.map(|token| token.value.clone()).collect()
        };
        assert_eq!(all("GOTO"), all("LABEL"), "{name}");
        for link in all("SYMLINK") {
            assert!(link.starts_with("iluvatar-by-path/"), "{name}: {link}");
        }
    }
}

#[test]
fn what_udev_would_not_read_is_not_read_here() {
    for text in ["RUN+=\"/bin/sh\"", "MODE==\"0666\"", "KERNEL==\"a\" MODE=\"1\"", "KERNEL==a", "X"]
    {
        assert!(parse(text).is_err(), "{text}");
    }
    assert_eq!(parse("KERNEL==\"a\", \\\n  MODE=\"0666\"\n# x\n").unwrap()[0].len(), 2);
}

/// udevadm has `verify` from version 254 on; what older ones think of the rules is in their `test`,
/// which the tests below run.
#[test]
fn udevadm_verifies_the_rules_where_it_can() {
    match udevadm_version() {
        None => return skip("there is no udevadm"),
        Some(..254) => return,
        Some(_) => {}
    }
    let directory = TempDir::new().unwrap();
    for (number, (name, text)) in every_file().into_iter().enumerate() {
        let file = directory.path().join(format!("70-{number}.rules"));
        fs::write(&file, text).unwrap();
        let ran = Command::new("udevadm").arg("verify").arg(&file).output().unwrap();
        assert!(ran.status.success(), "{name}: {ran:?}");
    }
}

// -- The links --------------------------------------------------------------------------------

/// Runs in a mount namespace of its own, where /sys and /dev are a machine's: makes the nodes, lets
/// udevadm apply the rules to each device, and lists the links, then each node's mode.
///
/// `udevadm test` does all but run programs; from version 257 on it only says what it would do, and
/// has `verify` instead. It asks for a real sysfs, unless told not to.
const IN_NAMESPACE: &str = r#"
set -eu
mount -t tmpfs none /run
mkdir -p /run/udev/rules.d
cp "$RULES"/* /run/udev/rules.d/
mount --rbind "$MACHINE/sys" /sys
mount -t tmpfs none "$MACHINE/dev"
mount --rbind "$MACHINE/dev" /dev
for device in $DEVICES; do
    name=${device##*/}
    IFS=: read -r major minor < "$device/dev"
    mknod -m 600 "/dev/$name" c "$major" "$minor" 2> "$MACHINE/mknod" || :
    SYSTEMD_DEVICE_VERIFY_SYSFS=0 udevadm test --action=add "$device" > "$MACHINE/log" 2>&1 ||
        cat "$MACHINE/log" >&2
done
cd /dev
for link in iluvatar-by-path/*; do
    [ -L "$link" ] && echo "$link -> $(readlink "$link")"
done
for node in iluvatar[0-9]* itrctl; do
    [ -c "$node" ] && echo "$node $(stat -c %a "$node")"
done
exit 0
"#;

/// Every link and node after udevadm saw each `iluvatarN` and `itrctl` device of a machine; none
/// where this machine has no udevadm or no namespaces for us.
fn apply(node_text: &str, rules: &[(&str, &str)]) -> Option<Vec<String>> {
    let version = udevadm_version();
    if version.is_none() {
        skip("there is no udevadm");
    }
    // Newer ones only simulate; what they think of the rules is in their `verify`.
    version.filter(|version| *version < 257)?;
    // Root may make device nodes in a namespace of its own; others only get one as a fake root.
    let mut unshare = unshared(&[&["--mount"], &["--map-root-user", "--mount"]])?;
    // Not below /dev, which the script covers: the system's temporary directory may be /dev/shm.
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let (machine, rules_directory) = (directory.path().join("m"), directory.path().join("r"));
    let file = directory.path().join("m.node");
    fs::write(&file, node_text).expect("it can be written");
    let text = |path: &Path| path.to_str().expect("its path is text").to_owned();
    stdout_of(&["fixture", "unpack", &text(&file), &text(&machine)]);
    fs::create_dir(&rules_directory).expect("it is not there");
    for (name, text) in rules {
        fs::write(rules_directory.join(name), text).expect("it can be written");
    }
    let ran = unshare
        .args(["sh", "-c", IN_NAMESPACE])
        .env("RULES", rules_directory)
        .env("DEVICES", devices(node_text).join(" "))
        .env("MACHINE", machine)
        .output();
    Some(lines(&ran.expect("unshare ran a moment ago")))
}

fn udevadm_version() -> Option<u32> {
    let ran = Command::new("udevadm").arg("--version").output().ok()?;
    String::from_utf8_lossy(&ran.stdout).split_whitespace().next()?.parse().ok()
}

fn lines(Output { status, stdout, stderr }: &Output) -> Vec<String> {
    assert!(status.success() && stderr.is_empty(), "{}", String::from_utf8_lossy(stderr));
    String::from_utf8_lossy(stdout).lines().map(str::to_owned).collect()
}

/// Where the devices that have nodes of the driver's are in /sys.
fn devices(node_text: &str) -> Vec<String> {
    let machine = parse_node_file(node_text).expect("a machine");
    let directories = machine.iter().filter_map(|(path, _)| path.strip_suffix("/dev"));
    let is_drivers = |path: &&str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        path.starts_with("sys/devices") && (name == "itrctl" || name.starts_with("iluvatar"))
    };
    directories.filter(is_drivers).map(|path| format!("/{path}")).collect()
}

/// `expected` has the links, then the nodes with their modes; without the right to make nodes, the
/// links alone are compared.
#[track_caller]
fn check(node_text: &str, rules: &[(&str, &str)], expected: &[&str]) {
    let Some(found) = apply(node_text, rules) else { return };
    let has_nodes = found.iter().any(|line| !line.contains(" -> "));
    let expected: Vec<_> =
        expected.iter().filter(|line| has_nodes || line.contains(" -> ")).collect();
    assert_eq!(found.iter().collect::<Vec<_>>(), expected);
}

fn fixture(name: &str) -> (PathBuf, String) {
    let node = PathBuf::from(format!("fixtures/nodes/{name}.node"));
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&node));
    let text = text.expect("a shipped machine");
    (node, text)
}

#[test]
fn every_chip_has_a_link_by_its_address_and_an_open_node() {
    let (_, text) = fixture("sparse-minors");
    let expected = [
        "iluvatar-by-path/pci-0000:18:00.0 -> ../iluvatar3",
        "iluvatar-by-path/pci-0000:4b:00.0 -> ../iluvatar0",
        "iluvatar-by-path/pci-0000:b2:00.0 -> ../iluvatar1",
        "iluvatar0 666",
        "iluvatar1 666",
        "iluvatar3 666",
    ];
    check(&text, &[("70-iluvatar.rules", &shipped())], &expected);
}

#[test]
fn every_chip_of_a_board_has_a_link_by_its_board() {
    let (node, text) = fixture("half-board");
    let rules = [("71-iluvatar-boards.rules", &*generated(&node))];
    let Some(found) = apply(&text, &rules) else { return };
    let links: Vec<_> = found.iter().filter(|line| line.contains(" -> ")).collect();
    assert_eq!(
        links,
        [
            "iluvatar-by-path/board-0000:45:00.0-chip0 -> ../iluvatar0",
            "iluvatar-by-path/board-0000:45:00.0-chip1 -> ../iluvatar1",
            "iluvatar-by-path/board-0000:4e:00.0-chip0 -> ../iluvatar2",
        ]
    );
}

/// Where the driver gives its devices no PCI parent, no rule can tell which chip a node is.
#[test]
fn nodes_without_a_pci_parent_get_their_mode_and_no_link() {
    let text = "[dev]\n\
                [sys/bus]\n\
                [sys/class/iluvatar-sys]\n\
                [sys/class/misc]\n\
                [sys/devices/virtual/iluvatar-sys/iluvatar0]\n\
                dev = 508:0\n\
                uevent = \"MAJOR=508\\nMINOR=0\\nDEVNAME=iluvatar0\\n\"\n\
                subsystem -> ../../../../class/iluvatar-sys\n\
                [sys/devices/virtual/misc/itrctl]\n\
                dev = 10:120\n\
                uevent = \"MAJOR=10\\nMINOR=120\\nDEVNAME=itrctl\\n\"\n\
                subsystem -> ../../../../class/misc\n";
    check(text, &[("70-iluvatar.rules", &shipped())], &["iluvatar0 666", "itrctl 666"]);
}
