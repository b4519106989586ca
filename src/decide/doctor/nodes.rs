//! Checks of the nodes in /dev.

use super::chips::against_chips;
use super::{Hardware, and, count, or_ok, visibility};
use crate::model::config::Config;
use crate::model::device::NodeEvidence;
use crate::model::doctor::facts::{DeviceLink, DeviceLinks, RootFacts, RootKind};
use crate::model::doctor::finding::Finding;
use crate::model::health::ReasonCode;

/// The control node that drivers make from 4.4 on.
const CONTROL_NODE: &str = "/dev/itrctl";
const FIRST_WITH_CONTROL_NODE: (u32, u32) = (4, 4);

pub(super) fn device_nodes(hardware: &Hardware, config: &Config) -> Vec<Finding> {
    let mut findings = against_chips(hardware, config, ReasonCode::DeviceNodeMissing);
    findings.extend(against_chips(hardware, config, ReasonCode::DeviceNodeUnknown));
    findings.extend(inferred(hardware));
    findings.extend(closed(hardware));
    findings.extend(control_node(hardware, config));
    let nodes = hardware.inventory.chips().iter().filter(|chip| chip.node.is_some()).count();
    or_ok(findings, || match nodes {
        0 => "no chip has a device node".to_owned(),
        _ => format!("{} found in /dev", count(nodes, "chip node")),
    })
}

/// Chips whose nodes are known by order alone.
fn inferred(hardware: &Hardware) -> Option<Finding> {
    let chips = hardware.inventory.chips();
    let guessed: Vec<_> = chips
        .iter()
        .filter(|chip| chip.node_evidence == NodeEvidence::Inferred)
        .map(|chip| chip.address.to_string())
        .collect();
    let sentence = format!(
        "/sys does not announce the nodes of {}; they are inferred from the order of chips and \
         nodes",
        and(&guessed)
    );
    (!guessed.is_empty()).then(|| {
        Finding::warning(
            sentence,
            "compare them with `ixsmi -L` once, or install a driver that announces its nodes in \
             /sys",
        )
    })
}

/// Nodes that only root may open: a container that runs as another user cannot.
fn closed(hardware: &Hardware) -> Option<Finding> {
    let closed = hardware.facts.node_modes.iter().filter(|(_, mode)| *mode & 0o006 != 0o006);
    let closed: Vec<_> = closed.map(|(path, mode)| format!("{path} (mode {mode:04o})")).collect();
    let sentence = format!(
        "{} cannot be opened by containers that do not run as root; mode 0666 is safe, since \
         the device cgroup controls access",
        and(&closed)
    );
    (!closed.is_empty()).then(|| {
        Finding::warning(
            sentence,
            "install udev-rules/70-iluvatar.rules in /etc/udev/rules.d and run `udevadm trigger`, \
             or `chmod 0666` until the next boot",
        )
    })
}

/// A driver that should make the control node, and no such node.
fn control_node(hardware: &Hardware, config: &Config) -> Option<Finding> {
    let wanted = config.discovery.control_nodes.iter().any(|path| path == CONTROL_NODE);
    let there = hardware.inventory.control_nodes.iter().any(|node| node.path == CONTROL_NODE);
    let version = hardware.facts.scan.driver_version.as_deref()?;
    let missed = wanted && !there && minor_version(version)? >= FIRST_WITH_CONTROL_NODE;
    missed.then(|| {
        Finding::warning(
            format!(
                "driver {version} has {CONTROL_NODE} (since 4.4), but it is missing: \
                 containers get the chips' nodes without it"
            ),
            "reload the driver; in a container, mount the node's /dev",
        )
    })
}

/// 4.4 of `4.4.0`.
fn minor_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

pub(super) fn device_links(facts: &DeviceLinks, root: &RootFacts) -> Vec<Finding> {
    if !facts.has_directory {
        let shown = visibility::shows(root, "dev");
        // On the machine itself the directory really is missing, and with it every link.
        let whole = root.kind == RootKind::ThisMachine;
        let skipped = shown.err().or_else(|| (!whole).then(|| visibility::lacks(root, "dev/char")));
        if let Some(why) = skipped {
            return vec![Finding::skipped(why.0)];
        }
    }
    of_links(&facts.links)
}

fn of_links(links: &[DeviceLink]) -> Vec<Finding> {
    let missing: Vec<_> = links.iter().filter(|link| !link.is_there).collect();
    let Some(first) = missing.first() else {
        return vec![Finding::ok(match links.len() {
            0 => "no node needs a link in /dev/char".to_owned(),
            number => format!("{} in /dev/char", count(number, "link")),
        })];
    };
    let number = |link: &DeviceLink| link.node.number.map_or("?".to_owned(), |it| it.to_string());
    let name = |link: &DeviceLink| link.node.path.trim_start_matches("/dev/").to_owned();
    let shown: Vec<_> = missing
        .iter()
        .map(|link| format!("/dev/char/{} of {}", number(link), link.node.path))
        .collect();
    let are = if missing.len() == 1 { "is" } else { "are" };
    vec![Finding::warning(
        format!(
            "{} {are} missing: with systemd's cgroup driver and runc 1.1.3 to 1.1.6, or systemd \
             before 240, a container loses the GPU at the next `systemctl daemon-reload`",
            and(&shown)
        ),
        format!(
            "udev makes links for devices that the driver announces in /sys; otherwise make them \
             after loading the driver (`ln -s ../{} /dev/char/{}`), or use a newer runc",
            name(first),
            number(first)
        ),
    )]
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::{self, hardware, shown, with_remedy};
    use super::*;
    use crate::decide::scan_builder::{SINGLE, ScanBuilder, node};

    #[track_caller]
    fn check(hardware: &Hardware, expected: &[&str]) {
        assert_eq!(shown(&device_nodes(hardware, &Config::default())), expected);
    }

    fn with_node() -> ScanBuilder {
        let sample =
            ScanBuilder::default().chip("00:01.0 03:00.0", SINGLE).node("/dev/iluvatar0", 0);
        sample.with(|chip| chip.child_nodes.push(node("/dev/iluvatar0", 0)))
    }

    #[test]
    fn a_chip_with_its_node_is_well() {
        check(&hardware(with_node()), &["ok: 1 chip node found in /dev"]);
        check(&hardware(ScanBuilder::default()), &["ok: no chip has a device node"]);
    }

    #[test]
    fn an_announced_node_that_is_not_there_is_a_failure() {
        let announced = ScanBuilder::default()
            .chip("00:01.0 03:00.0", SINGLE)
            .with(|chip| chip.child_nodes.push(node("/dev/iluvatar0", 0)));
        check(
            &hardware(announced),
            &[&with_remedy(
                "failure: 0000:03:00.0: /dev/iluvatar0 is announced in /sys but is not in /dev",
                ReasonCode::DeviceNodeMissing,
            )],
        );
    }

    #[test]
    fn a_node_without_any_evidence_is_a_failure() {
        check(
            &hardware(ScanBuilder::default().chip("00:01.0 03:00.0", SINGLE)),
            &[&with_remedy(
                "failure: the device node of 0000:03:00.0 is not known: /sys announces no nodes, \
                 and 0 in /dev do not pair with 1 chips",
                ReasonCode::DeviceNodeUnknown,
            )],
        );
    }

    #[test]
    fn an_inferred_node_is_a_warning() {
        let sample =
            ScanBuilder::default().chip("00:01.0 03:00.0", SINGLE).node("/dev/iluvatar0", 0);
        check(
            &hardware(sample),
            &["warning: /sys does not announce the nodes of 0000:03:00.0; they are inferred \
                 from the order of chips and nodes -> compare them with `ixsmi -L` once, or \
                 install a driver that announces its nodes in /sys"],
        );
    }

    #[test]
    fn a_node_that_is_not_open_to_all_is_a_warning() {
        let mut hardware = hardware(with_node());
        hardware.facts.node_modes.insert("/dev/iluvatar0".to_owned(), 0o600);
        hardware.facts.node_modes.insert("/dev/itrctl".to_owned(), 0o666);
        check(
            &hardware,
            &["warning: /dev/iluvatar0 (mode 0600) cannot be opened by containers that do not \
                 run as root; mode 0666 is safe, since the device cgroup controls access -> \
                 install udev-rules/70-iluvatar.rules in /etc/udev/rules.d and run `udevadm \
                 trigger`, or `chmod 0666` until the next boot"],
        );
    }

    #[test]
    fn the_control_node_is_missed_from_driver_4_4_on() {
        let with_version = |version: &str, sample: ScanBuilder| {
            let mut hardware = hardware(sample);
            hardware.facts.scan.driver_version = Some(version.to_owned());
            hardware
        };
        check(
            &with_version("4.4.0", with_node()),
            &["warning: driver 4.4.0 has /dev/itrctl (since 4.4), but it is missing: containers \
                 get the chips' nodes without it -> reload the driver; in a container, mount the \
                 node's /dev"],
        );
        let ok = &["ok: 1 chip node found in /dev"];
        check(&with_version("4.3.8", with_node()), ok);
        check(&with_version("unknown", with_node()), ok);
        check(&with_version("4.10.0", with_node().node("/dev/itrctl", 255)), ok);
    }

    #[test]
    fn a_root_without_dev_char_is_skipped() {
        let check = |root| shown(&device_links(&DeviceLinks::default(), &root));
        let file = sample_facts::root(RootKind::NodeFile, &["dev"]);
        assert_eq!(check(file), ["skipped: the .node file has no /dev/char"]);
        assert_eq!(check(sample_facts::node()), ["ok: no node needs a link in /dev/char"]);
    }

    #[test]
    fn a_missing_link_in_dev_char_is_a_warning() {
        let link = |minor, is_there| DeviceLink {
            node: node(&format!("/dev/iluvatar{minor}"), minor),
            is_there,
        };
        let links = |links: &[DeviceLink]| {
            let facts = DeviceLinks { has_directory: true, links: links.to_vec() };
            shown(&device_links(&facts, &sample_facts::node()))
        };
        assert_eq!(links(&[link(0, true), link(1, true)]), ["ok: 2 links in /dev/char"]);
        assert_eq!(links(&[]), ["ok: no node needs a link in /dev/char"]);
        assert_eq!(
            links(&[link(0, true), link(1, false)]),
            ["warning: /dev/char/508:1 of /dev/iluvatar1 is missing: with systemd's cgroup \
                 driver and runc 1.1.3 to 1.1.6, or systemd before 240, a container loses the GPU \
                 at the next `systemctl daemon-reload` -> udev makes links for devices that the \
                 driver announces in /sys; otherwise make them after loading the driver (`ln -s \
                 ../iluvatar1 /dev/char/508:1`), or use a newer runc"]
        );
    }
}
