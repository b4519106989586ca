//! What a claim requests: for each request the alternatives, in the order of preference.

use k8s_openapi::api::resource::v1::{
    CapacityRequirements, Device, DeviceClass, DeviceRequest, DeviceSelector, DeviceTaint,
    DeviceToleration, ResourceClaim,
};

use super::Unschedulable;
use super::pools::{DeviceCandidate, whole};
use super::selector::is_selected;
use super::usage::SLOTS;

/// One way to meet a request.
#[derive(Clone, Debug)]
pub(super) struct Wanted<'a> {
    /// `REQUEST`, or `REQUEST/SUBREQUEST`.
    pub(super) name: String,
    pub(super) count: usize,
    /// Every device that fits, instead of a count.
    pub(super) all: bool,
    pub(super) admin_access: bool,
    selectors: Vec<&'a DeviceSelector>,
    pub(super) tolerations: &'a [DeviceToleration],
    capacity: Option<&'a CapacityRequirements>,
}

/// The alternatives of each request.
pub(super) fn requests<'a>(
    claim: &'a ResourceClaim,
    classes: &'a [DeviceClass],
) -> Result<Vec<Vec<Wanted<'a>>>, Unschedulable> {
    let devices = claim.spec.devices.as_ref();
    let requests = devices.and_then(|devices| devices.requests.as_deref()).unwrap_or_default();
    requests.iter().map(|request| alternatives(request, classes)).collect()
}

fn alternatives<'a>(
    request: &'a DeviceRequest,
    classes: &'a [DeviceClass],
) -> Result<Vec<Wanted<'a>>, Unschedulable> {
    if let Some(exact) = &request.exactly {
        let wanted = Wanted {
            name: request.name.clone(),
            count: count_of(exact.count),
            all: exact.allocation_mode.as_deref() == Some("All"),
            admin_access: exact.admin_access == Some(true),
            selectors: selectors(&exact.device_class_name, exact.selectors.as_deref(), classes)?,
            tolerations: exact.tolerations.as_deref().unwrap_or_default(),
            capacity: exact.capacity.as_ref(),
        };
        return Ok(vec![wanted]);
    }
    let alternatives = request.first_available.iter().flatten();
    alternatives
        .map(|sub| {
            Ok(Wanted {
                name: format!("{}/{}", request.name, sub.name),
                count: count_of(sub.count),
                all: sub.allocation_mode.as_deref() == Some("All"),
                admin_access: false,
                selectors: selectors(&sub.device_class_name, sub.selectors.as_deref(), classes)?,
                tolerations: sub.tolerations.as_deref().unwrap_or_default(),
                capacity: sub.capacity.as_ref(),
            })
        })
        .collect()
}

fn count_of(count: Option<i64>) -> usize {
    usize::try_from(count.unwrap_or(1)).unwrap_or(1).max(1)
}

fn selectors<'a>(
    class: &str,
    own: Option<&'a [DeviceSelector]>,
    classes: &'a [DeviceClass],
) -> Result<Vec<&'a DeviceSelector>, Unschedulable> {
    let found = classes.iter().find(|it| it.metadata.name.as_deref() == Some(class));
    let missing = || Unschedulable(format!("device class {class} does not exist"));
    let of_class = found.ok_or_else(missing)?.spec.selectors.iter().flatten();
    Ok(of_class.chain(own.unwrap_or_default()).collect())
}

impl Wanted<'_> {
    /// Why the device cannot meet the request, whoever holds it; none where it can.
    pub(super) fn refusal(
        &self,
        candidate: &DeviceCandidate<'_>,
    ) -> Result<Option<String>, Unschedulable> {
        for selector in &self.selectors {
            let Some(cel) = &selector.cel else { continue };
            let is_met = is_selected(&cel.expression, candidate.driver, candidate.device);
            if !is_met.map_err(|error| Unschedulable(error.to_string()))? {
                return Ok(Some("not selected".to_owned()));
            }
        }
        let taint = taints(candidate.device).find(|taint| !self.tolerates(taint));
        Ok(taint.map(|taint| {
            format!("tainted {}={}", taint.key, taint.value.as_deref().unwrap_or_default())
        }))
    }

    fn tolerates(&self, taint: &DeviceTaint) -> bool {
        self.tolerations.iter().any(|toleration| {
            let DeviceToleration { effect, key, operator, value, .. } = toleration;
            let has_effect = effect.as_ref().is_none_or(|effect| *effect == taint.effect);
            let has_key = key.as_ref().is_none_or(|key| *key == taint.key);
            let exists = operator.as_deref() == Some("Exists");
            has_effect && has_key && (exists || value.as_deref() == taint.value.as_deref())
        })
    }

    /// How many slots it takes of a shared device; none of any other.
    pub(super) fn slots(&self, candidate: &DeviceCandidate<'_>) -> Option<i64> {
        if !candidate.is_shared() {
            return None;
        }
        let requested = self.capacity.and_then(|capacity| capacity.requests.as_ref());
        let requested = requested.and_then(|requests| requests.get(SLOTS));
        Some(requested.map_or(1, |quantity| whole(&quantity.0)))
    }
}

/// Those that keep new claims away.
fn taints(device: &Device) -> impl Iterator<Item = &DeviceTaint> {
    device.taints.iter().flatten().filter(|taint| taint.effect != "None")
}
