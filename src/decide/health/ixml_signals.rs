//! Signals from libixml: bits, return codes, and counters that rise.

use super::sample_signals::risen;
use super::tracker::ChipReasons;
use crate::model::health::{Reason, ReasonCode};
use crate::model::ixml::{
    CallFailure, ChipReading, CodeClass, HealthBits, IxmlReading, ReturnCode,
};
use crate::model::pci::PciAddress;

/// The signals that libixml can see.
pub const SCOPE: &[ReasonCode] = &[
    ReasonCode::IxmlGpuLost,
    ReasonCode::IxmlResetRequired,
    ReasonCode::IxmlSyshub,
    ReasonCode::IxmlMemoryController,
    ReasonCode::IxmlOverTemperature,
    ReasonCode::IxmlOverVoltage,
    ReasonCode::IxmlEcc,
    ReasonCode::IxmlMemory,
    ReasonCode::IxmlPcie,
    ReasonCode::IxmlUnknownBit,
    ReasonCode::IxmlEccUncorrected,
    ReasonCode::IxmlEccCorrected,
    ReasonCode::IxmlCallFailed,
];

/// What is seen against each chip. Counters count if they rose since the reading before; one that fell
/// was reset with its chip or its driver.
#[must_use]
pub fn signals(before: Option<&IxmlReading>, now: &IxmlReading) -> ChipReasons {
    now.chips
        .iter()
        .map(|(chip, reading)| {
            let before = before.and_then(|before| before.chips.get(chip));
            (*chip, chip_findings(*chip, before, reading))
        })
        .filter(|(_, reasons)| !reasons.is_empty())
        .collect()
}

fn chip_findings(chip: PciAddress, before: Option<&ChipReading>, now: &ChipReading) -> Vec<Reason> {
    let failed = now.failure.and_then(|failure| failed_call(chip, failure));
    let mut reasons: Vec<_> = failed.into_iter().collect();
    reasons.extend(now.health.into_iter().flat_map(|bits| bit_reasons(chip, bits, now)));
    reasons.extend(ecc_reasons(chip, before, now));
    reasons
}

/// Codes that show nothing about the chip's health are no reason.
fn failed_call(chip: PciAddress, failure: CallFailure) -> Option<Reason> {
    let code = match (failure.code, failure.code.class()) {
        (ReturnCode::RESET_REQUIRED, _) => ReasonCode::IxmlResetRequired,
        (_, CodeClass::Fatal) => ReasonCode::IxmlGpuLost,
        (_, CodeClass::Transient) => ReasonCode::IxmlCallFailed,
        _ => return None,
    };
    Some(Reason { code, detail: format!("{chip}: libixml: {failure}") })
}

/// The known bits one by one; those that no header names share one reason.
fn bit_reasons(chip: PciAddress, bits: HealthBits, reading: &ChipReading) -> Vec<Reason> {
    let against = |code, what| Reason { code, detail: format!("{chip}: libixml reports {what}") };
    let mut unnamed = bits;
    let mut reasons = Vec::new();
    for (bit, name) in HealthBits::NAMES.into_iter().filter(|(bit, _)| bits.0 & bit != 0) {
        unnamed.0 &= !bit;
        let heat = reading.temperature.filter(|_| bit == HealthBits::OVER_TEMPERATURE);
        let heat = heat.map_or(String::new(), |it| format!(" at {it} °C"));
        reasons.push(against(code_of(bit), format!("{name}{heat}")));
    }
    if !unnamed.is_ok() {
        let what = format!("{unnamed}, which its header does not name");
        reasons.push(against(ReasonCode::IxmlUnknownBit, what));
    }
    reasons
}

fn code_of(bit: u64) -> ReasonCode {
    match bit {
        0x01 => ReasonCode::IxmlSyshub,
        0x02 => ReasonCode::IxmlMemoryController,
        HealthBits::OVER_TEMPERATURE => ReasonCode::IxmlOverTemperature,
        0x08 => ReasonCode::IxmlOverVoltage,
        0x10 => ReasonCode::IxmlEcc,
        0x20 => ReasonCode::IxmlMemory,
        0x40 => ReasonCode::IxmlPcie,
        _ => ReasonCode::IxmlUnknownBit,
    }
}

fn ecc_reasons(chip: PciAddress, before: Option<&ChipReading>, now: &ChipReading) -> Vec<Reason> {
    let (Some(before), Some(now)) = (before.and_then(|it| it.ecc), now.ecc) else {
        return Vec::new();
    };
    let counters = [
        (ReasonCode::IxmlEccUncorrected, "uncorrected", before.double, now.double),
        (ReasonCode::IxmlEccCorrected, "corrected", before.single, now.single),
    ];
    let rises = counters.into_iter().filter_map(|(code, what, before, now)| {
        let (was, is) = risen(Some(before.into()), Some(now.into()))?;
        let detail = format!("{chip}: libixml: {what} ECC errors rose from {was} to {is}");
        Some(Reason { code, detail })
    });
    rises.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::ixml::{EccErrors, IxmlCall};

    const CHIP: PciAddress = PciAddress { domain: 0, bus: 0x13, device: 0, function: 0 };

    fn reading(chip: ChipReading) -> IxmlReading {
        IxmlReading { library: "/x/libixml.so".into(), chips: BTreeMap::from([(CHIP, chip)]) }
    }

    fn ecc(single: u32, double: u32) -> ChipReading {
        ChipReading { ecc: Some(EccErrors { single, double }), ..ChipReading::default() }
    }

    #[track_caller]
    fn check(before: Option<ChipReading>, now: ChipReading, expected: &[&str]) {
        let before = before.map(reading);
        let findings = signals(before.as_ref(), &reading(now));
        let reasons = findings.get(&CHIP).map_or(&[][..], Vec::as_slice);
        let shown: Vec<_> =
            reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.detail)).collect();
        assert_eq!(shown, expected);
        assert!(reasons.iter().all(|reason| SCOPE.contains(&reason.code)));
    }

    #[track_caller]
    fn check_bits(bits: u64, expected: &[&str]) {
        let health = Some(HealthBits(bits));
        check(
            None,
            ChipReading { health, temperature: Some(97), ..ChipReading::default() },
            expected,
        );
    }

    #[track_caller]
    fn check_code(code: i32, expected: &[&str]) {
        let failure = Some(CallFailure { call: IxmlCall::Health, code: ReturnCode(code) });
        check(None, ChipReading { failure, ..ChipReading::default() }, expected);
    }

    #[test]
    fn each_health_bit_is_a_reason_of_its_own() {
        check_bits(0, &[]);
        check_bits(0x01, &["IxmlSyshub: 0000:13:00.0: libixml reports SYSHUB"]);
        check_bits(0x02, &["IxmlMemoryController: 0000:13:00.0: libixml reports MC"]);
        check_bits(
            0x04,
            &["IxmlOverTemperature: 0000:13:00.0: libixml reports OVER_TEMPERATURE at 97 °C"],
        );
        check_bits(0x08, &["IxmlOverVoltage: 0000:13:00.0: libixml reports OVER_VOLTAGE"]);
        check_bits(0x10, &["IxmlEcc: 0000:13:00.0: libixml reports ECC"]);
        check_bits(0x20, &["IxmlMemory: 0000:13:00.0: libixml reports MEMORY"]);
        check_bits(0x40, &["IxmlPcie: 0000:13:00.0: libixml reports PCIE"]);
        check_bits(
            0x180,
            &["IxmlUnknownBit: 0000:13:00.0: libixml reports 0x80, 0x100, which its header does \
               not name"],
        );
        let codes: Vec<_> = HealthBits::NAMES.iter().map(|(bit, _)| code_of(*bit)).collect();
        assert!(!codes.contains(&ReasonCode::IxmlUnknownBit), "{codes:?}");
    }

    #[test]
    fn return_codes_that_speak_of_the_chip_are_reasons() {
        let lost =
            "IxmlGpuLost: 0000:13:00.0: libixml: ixmlDeviceGetHealth answered GPU_IS_LOST (15)";
        check_code(15, &[lost]);
        check_code(
            16,
            &["IxmlResetRequired: 0000:13:00.0: libixml: ixmlDeviceGetHealth answered \
               RESET_REQUIRED (16)"],
        );
        check_code(
            10,
            &["IxmlCallFailed: 0000:13:00.0: libixml: ixmlDeviceGetHealth answered TIMEOUT (10)"],
        );
        for silent in [2, 3, 4, 6, 13, 9999] {
            check_code(silent, &[]);
        }
    }

    #[test]
    fn ecc_counters_tell_by_rising() {
        check(None, ecc(7, 3), &[]);
        check(Some(ecc(7, 3)), ecc(7, 3), &[]);
        check(Some(ecc(7, 3)), ecc(0, 0), &[]);
        check(
            Some(ecc(7, 3)),
            ecc(9, 4),
            &[
                "IxmlEccUncorrected: 0000:13:00.0: libixml: uncorrected ECC errors rose from 3 to 4",
                "IxmlEccCorrected: 0000:13:00.0: libixml: corrected ECC errors rose from 7 to 9",
            ],
        );
    }
}
