//! What keeps new claims from a device: its health, and whoever holds its chips in another way.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::attributes::cut;
use crate::model::dra::DRIVER_NAME;
use crate::model::dra::device::{DraTaint, TaintEffect};
use crate::model::health::{Certainty, Reason, ReasonCode};

/// The longest value of a label, which a taint's value is.
const LABEL_LIMIT: usize = 63;

/// The taint of an unhealthy device: its worst reason.
pub(super) fn unhealthy(reasons: &[Reason], evict: &BTreeSet<ReasonCode>) -> Option<DraTaint> {
    let worst = reasons.iter().map(|reason| reason.code).max_by_key(|code| {
        // The first of equals.
        (evict.contains(code), weight(*code), Reverse(*code))
    })?;
    let effect =
        if evict.contains(&worst) { TaintEffect::NoExecute } else { TaintEffect::NoSchedule };
    Some(taint("unhealthy", worst.name(), effect))
}

/// What leaves nothing to use weighs most, then what is certain.
fn weight(code: ReasonCode) -> u8 {
    match (code, code.certainty()) {
        (ReasonCode::Removed, _) => 4,
        (_, Certainty::Hard) => 3,
        (_, Certainty::Reported) => 2,
        (_, Certainty::State) => 1,
        (_, Certainty::Soft) => 0,
    }
}

/// The taint of a device whose chips are held in another way, by whom.
pub(super) fn held(by: &str) -> DraTaint {
    taint("held", &label_value(by), TaintEffect::NoSchedule)
}

fn taint(key: &str, value: &str, effect: TaintEffect) -> DraTaint {
    DraTaint { key: format!("{DRIVER_NAME}/{key}"), value: value.to_owned(), effect }
}

/// A resource's name as the value of a label, which has no slash and ends with a letter or digit.
fn label_value(text: &str) -> String {
    let text = text.replace('/', "_");
    cut(&text, LABEL_LIMIT).trim_end_matches(['.', '_', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(code: ReasonCode) -> Reason {
        Reason { code, detail: String::new() }
    }

    #[track_caller]
    fn check(codes: &[ReasonCode], evict: &[ReasonCode], expected: Option<&str>) {
        let reasons: Vec<_> = codes.iter().copied().map(reason).collect();
        let taint = unhealthy(&reasons, &evict.iter().copied().collect());
        assert_eq!(taint.map(|taint| taint.to_string()).as_deref(), expected);
    }

    #[test]
    fn a_device_has_one_taint_of_its_worst_reason() {
        use ReasonCode::{AerFatal, ChipMissing, DriverNotBound, IxmlGpuLost, Removed};
        check(&[], &[], None);
        let missing = "gpu.iluvatar.com/unhealthy=ChipMissing:NoSchedule";
        check(&[ChipMissing], &[], Some(missing));
        check(&[DriverNotBound, ChipMissing], &[], Some(missing));
        let fatal = "gpu.iluvatar.com/unhealthy=AerFatal:NoSchedule";
        check(&[ChipMissing, IxmlGpuLost, AerFatal], &[], Some(fatal));
        check(&[AerFatal, Removed], &[], Some("gpu.iluvatar.com/unhealthy=Removed:NoSchedule"));
    }

    #[test]
    fn only_reasons_that_are_listed_evict_pods() {
        use ReasonCode::{AerFatal, IxmlGpuLost};
        let lost = "gpu.iluvatar.com/unhealthy=IxmlGpuLost:NoExecute";
        check(&[AerFatal, IxmlGpuLost], &[IxmlGpuLost], Some(lost));
        check(&[AerFatal], &[IxmlGpuLost], Some("gpu.iluvatar.com/unhealthy=AerFatal:NoSchedule"));
    }

    #[test]
    fn a_resources_name_becomes_the_value_of_a_label() {
        let value = |name: &str| held(name).to_string();
        let expected = "gpu.iluvatar.com/held=iluvatar.com_gpu:NoSchedule";
        assert_eq!(value("iluvatar.com/gpu"), expected);
        let long = label_value(&format!("{}/{}", "a".repeat(61), "b".repeat(63)));
        assert_eq!(long, format!("{}_b", "a".repeat(61)));
        assert_eq!(label_value(&format!("{}/b", "a".repeat(62))), "a".repeat(62));
    }
}
