//! The check of pods: which of them hold a device that is Unhealthy or that has left.

use super::{Hardware, count, or_ok};
use crate::decide::node::advertise::advertise;
use crate::model::config::ResourceRule;
use crate::model::device::{Device, DeviceId, Resource};
use crate::model::doctor::facts::KubeletFacts;
use crate::model::doctor::finding::Finding;
use crate::model::health::Health;
use crate::model::inventory::Inventory;
use crate::model::pod_usage::HeldDevices;

pub(super) fn pods(
    kubelet: &KubeletFacts,
    hardware: &Hardware,
    rules: &[ResourceRule],
) -> Vec<Finding> {
    match &kubelet.held {
        None => vec![Finding::skipped("no PodResources socket of a kubelet is visible")],
        Some(Err(why)) => vec![Finding::skipped(format!("which pods hold devices: {why}"))],
        Some(Ok(held)) => of_held(held, &hardware.inventory, rules),
    }
}

fn of_held(held: &HeldDevices, inventory: &Inventory, rules: &[ResourceRule]) -> Vec<Finding> {
    let resources = advertise(inventory, rules).resources;
    let (mut findings, mut number) = (Vec::new(), 0);
    for resource in &resources {
        for (id, holder) in held.of_resource(&resource.name) {
            // Another plugin may have given an id of another form.
            let Ok(device) = id.parse::<DeviceId>() else { continue };
            number += 1;
            if let Some(problem) = problem(resource, device, inventory) {
                let name = &resource.name;
                findings.push(Finding::warning(
                    format!("{holder} holds {name} {id}, which {problem}"),
                    "repair the device as the other checks advise, or delete the pod: a new one \
                     gets a healthy device",
                ));
            }
        }
    }
    or_ok(findings, || match number {
        0 => "no pod holds a device".to_owned(),
        _ => format!("pods hold {}, none of them unhealthy", count(number, "device")),
    })
}

/// What is wrong with a held device; a pod may hold it under the id of another configuration.
fn problem(resource: &Resource, id: DeviceId, inventory: &Inventory) -> Option<String> {
    let mut devices = resource.devices.iter();
    if let Some(device) = devices.find(|device| device.id.address == id.address) {
        return unhealthy(device);
    }
    let is_there = inventory.chip(id.address).is_some();
    (!is_there).then(|| "is not on the PCI bus".to_owned())
}

fn unhealthy(device: &Device) -> Option<String> {
    let reasons = device.reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.detail));
    let is_unhealthy = device.health == Health::Unhealthy;
    is_unhealthy.then(|| format!("is Unhealthy ({})", reasons.collect::<Vec<_>>().join("; ")))
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::{hardware, kubelet, one, shown};
    use super::*;
    use crate::decide::scan_builder::ScanBuilder;
    use crate::model::config::Config;
    use crate::model::doctor::facts::PluginDirectoryContent;
    use crate::model::pod_usage::Holder;

    const GPU: &str = "iluvatar.com/gpu";

    /// One chip that is well.
    fn well() -> ScanBuilder {
        let chip = one().class_device("iluvatar0", 0, Some("03:00.0"));
        chip.node("/dev/iluvatar0", 0)
    }

    fn held(devices: &[(&str, &str)]) -> HeldDevices {
        let mut held = HeldDevices::default();
        for (resource, id) in devices {
            let [namespace, pod, container] = ["team", "train", "main"].map(str::to_owned);
            held.insert(resource, (*id).to_owned(), Holder { namespace, pod, container });
        }
        held
    }

    #[track_caller]
    fn check(held: Option<Result<HeldDevices, String>>, hardware: &Hardware, expected: &[&str]) {
        let kubelet = KubeletFacts { held, ..kubelet(PluginDirectoryContent::Absent) };
        assert_eq!(shown(&pods(&kubelet, hardware, &Config::default().resources)), expected);
    }

    #[test]
    fn pods_with_healthy_devices_are_counted() {
        let node = hardware(well());
        check(Some(Ok(held(&[]))), &node, &["ok: no pod holds a device"]);
        let devices = [(GPU, "0000:03:00.0::1"), (GPU, "GPU-1"), ("other.com/nic", "0000:09:00.0")];
        let expected = "ok: pods hold 1 device, none of them unhealthy";
        check(Some(Ok(held(&devices))), &node, &[expected]);
    }

    #[test]
    fn a_pod_that_holds_an_unhealthy_device_is_a_warning_with_the_reason() {
        let node = hardware(well().with(|chip| chip.answers = false));
        check(
            Some(Ok(held(&[(GPU, "0000:03:00.0")]))),
            &node,
            &["warning: container main of pod team/train holds iluvatar.com/gpu 0000:03:00.0, \
               which is Unhealthy (ConfigSpaceUnreadable: 0000:03:00.0 does not answer: its \
               configuration space is empty or all ones) -> repair the device as the other checks \
               advise, or delete the pod: a new one gets a healthy device"],
        );
    }

    #[test]
    fn a_pod_that_holds_a_device_that_left_is_a_warning() {
        let kubelet = Some(Ok(held(&[(GPU, "0000:99:00.0")])));
        check(
            kubelet,
            &hardware(well()),
            &["warning: container main of pod team/train holds iluvatar.com/gpu 0000:99:00.0, \
               which is not on the PCI bus -> repair the device as the other checks advise, or \
               delete the pod: a new one gets a healthy device"],
        );
    }

    #[test]
    fn without_an_answer_of_the_kubelet_the_check_is_skipped() {
        let node = hardware(well());
        check(None, &node, &["skipped: no PodResources socket of a kubelet is visible"]);
        let silent = Some(Err("it is silent".to_owned()));
        check(silent, &node, &["skipped: which pods hold devices: it is silent"]);
    }
}
