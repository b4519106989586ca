//! Checks of the kernel driver: that it is loaded, and that it has the chips.

use super::chips::against_chips;
use super::{Hardware, or_ok};
use crate::model::config::Config;

use crate::model::doctor::finding::Finding;
use crate::model::health::ReasonCode;

pub(super) fn driver(hardware: &Hardware, config: &Config) -> Vec<Finding> {
    let wanted = &config.discovery.drivers;
    let Some(module) = hardware.facts.modules.first() else {
        let names = wanted.join(" or ");
        let finding = Finding::failure(
            format!("no driver {names} is loaded: /sys/module has none of them"),
            format!(
                "install the CoreX driver for this kernel and `modprobe {}`; if that fails, see \
                 `dmesg` (kernel version, Secure Boot)",
                wanted.first().map_or("iluvatar", String::as_str)
            ),
        );
        let is_needed = !hardware.facts.scan.chips.is_empty();
        let unneeded = || Finding::ok(format!("no driver {names} is loaded, and no chip needs it"));
        return vec![if is_needed { finding } else { unneeded() }];
    };
    vec![match &hardware.facts.scan.driver_version {
        Some(version) => Finding::ok(format!("{module} {version} is loaded")),
        None => Finding::warning(
            format!("{module} is loaded, but /sys/module/{module}/version is missing"),
            "the driver must match the CoreX libraries in the images: compare the versions by \
             hand, or install a driver with a version file",
        ),
    }]
}

pub(super) fn binding(hardware: &Hardware, config: &Config) -> Vec<Finding> {
    let driver =
        hardware.facts.modules.first().or(config.discovery.drivers.first()).map(String::as_str);
    let driver = driver.unwrap_or("iluvatar");
    let mut findings = against_chips(hardware, config, ReasonCode::DriverNotBound);
    findings.extend(foreign(hardware, config, driver));
    let drivers = config.discovery.drivers.join(" or ");
    or_ok(findings, || match hardware.facts.scan.chips.len() {
        0 => "no chip needs a driver".to_owned(),
        _ => format!("every chip is bound to {drivers}"),
    })
}

/// Chips bound to another driver such as vfio-pci, which may be intended.
fn foreign(hardware: &Hardware, config: &Config, driver: &str) -> Vec<Finding> {
    let chips = hardware.facts.scan.chips.iter().filter(|chip| chip.virtual_of.is_none());
    let finding = |address, other: &str| {
        Finding::warning(
            format!("{address} is bound to {other}; the plugin does not offer it"),
            format!(
                "nothing, if it is meant for a virtual machine; otherwise `echo {address} > \
                 /sys/bus/pci/drivers/{other}/unbind`, `echo > \
                 /sys/bus/pci/devices/{address}/driver_override`, `echo {address} > \
                 /sys/bus/pci/drivers/{driver}/bind`"
            ),
        )
    };
    chips
        .filter_map(|chip| {
            let other = chip.driver.as_ref()?;
            let is_foreign = !config.discovery.drivers.contains(other);
            is_foreign.then(|| finding(chip.function.address, other))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::{check, hardware, one, with_remedy};
    use super::*;
    use crate::decide::scan_builder::{SINGLE, ScanBuilder};

    fn without_module(sample: ScanBuilder) -> Hardware {
        let mut hardware = hardware(sample);
        hardware.facts.modules.clear();
        hardware
    }

    #[test]
    fn an_absent_driver_is_a_failure_where_there_are_chips() {
        check(
            driver,
            &without_module(one()),
            &["failure: no driver iluvatar or bi_driver is loaded: /sys/module has none of them \
                 -> install the CoreX driver for this kernel and `modprobe iluvatar`; if that \
                 fails, see `dmesg` (kernel version, Secure Boot)"],
        );
        check(
            driver,
            &without_module(ScanBuilder::default()),
            &["ok: no driver iluvatar or bi_driver is loaded, and no chip needs it"],
        );
    }

    #[test]
    fn a_driver_without_a_version_file_is_a_warning() {
        check(
            driver,
            &hardware(one()),
            &["warning: iluvatar is loaded, but /sys/module/iluvatar/version is missing -> the \
                 driver must match the CoreX libraries in the images: compare the versions by \
                 hand, or install a driver with a version file"],
        );
        let mut versioned = hardware(one());
        versioned.facts.scan.driver_version = Some("4.4.0".to_owned());
        check(driver, &versioned, &["ok: iluvatar 4.4.0 is loaded"]);
    }

    #[test]
    fn an_unbound_chip_is_a_failure_with_its_remedy() {
        check(
            binding,
            &hardware(one().with(|chip| chip.driver = None)),
            &[&with_remedy(
                "failure: 0000:03:00.0 is bound to no driver; expected iluvatar or bi_driver",
                ReasonCode::DriverNotBound,
            )],
        );
    }

    #[test]
    fn a_chip_on_vfio_is_a_warning_with_the_way_back() {
        check(
            binding,
            &hardware(one().with(|chip| chip.driver = Some("vfio-pci".to_owned()))),
            &["warning: 0000:03:00.0 is bound to vfio-pci; the plugin does not offer it -> \
                 nothing, if it is meant for a virtual machine; otherwise `echo 0000:03:00.0 > \
                 /sys/bus/pci/drivers/vfio-pci/unbind`, `echo > \
                 /sys/bus/pci/devices/0000:03:00.0/driver_override`, `echo 0000:03:00.0 > \
                 /sys/bus/pci/drivers/iluvatar/bind`"],
        );
    }

    #[test]
    fn bound_chips_are_well_and_virtual_functions_are_nobodys_fault() {
        check(binding, &hardware(one()), &["ok: every chip is bound to iluvatar or bi_driver"]);
        check(binding, &hardware(ScanBuilder::default()), &["ok: no chip needs a driver"]);
        let physical = "0000:03:00.0".parse().unwrap();
        let virtual_function = one().chip("00:01.0 03:00.1", SINGLE).with(|chip| {
            chip.virtual_of = Some(physical);
            chip.driver = Some("vfio-pci".to_owned());
        });
        check(
            binding,
            &hardware(virtual_function),
            &["ok: every chip is bound to iluvatar or bi_driver"],
        );
    }
}
