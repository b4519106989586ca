//! The kubelet's list of pods as the holders of devices and claims.

use super::podresources_v1::{DynamicResource, ListPodResourcesResponse, PodResources};
use crate::model::dra::DRIVER_NAME;
use crate::model::dra::claim::{ClaimRef, ClaimUsage};
use crate::model::pod_usage::{HeldDevices, Holder};

/// Who holds what. Ids stay as they are written, whatever plugin they are of.
#[must_use]
pub fn holders(response: ListPodResourcesResponse) -> HeldDevices {
    let mut holders = HeldDevices::default();
    for pod in response.pod_resources {
        add_pod(&mut holders, pod);
    }
    holders
}

fn add_pod(holders: &mut HeldDevices, pod: PodResources) {
    let PodResources { name, namespace, containers } = pod;
    for container in containers {
        let holder =
            Holder { namespace: namespace.clone(), pod: name.clone(), container: container.name };
        for devices in container.devices {
            for id in devices.device_ids {
                holders.insert(&devices.resource_name, id, holder.clone());
            }
        }
        holders.claimed.extend(container.dynamic_resources.into_iter().flat_map(claim_usage));
    }
}

/// What a claim has of our driver; devices of others are left out.
fn claim_usage(resource: DynamicResource) -> impl Iterator<Item = ClaimUsage> {
    let DynamicResource { claim_name: name, claim_namespace: namespace, claim_resources } =
        resource;
    let claim = ClaimRef { namespace, name };
    let ours = claim_resources.into_iter().filter(|device| device.driver_name == DRIVER_NAME);
    ours.filter_map(move |device| {
        Some(ClaimUsage {
            claim: claim.clone(),
            device: device.device_name.parse().ok()?,
            is_shared: device.share_id.is_some(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::podresources_v1::{ClaimResource, ContainerDevices, ContainerResources};

    fn devices(resource: &str, ids: &[&str]) -> ContainerDevices {
        ContainerDevices {
            resource_name: resource.to_owned(),
            device_ids: ids.iter().map(|&id| id.to_owned()).collect(),
            topology: None,
        }
    }

    fn pod(name: &str, devices: Vec<ContainerDevices>) -> PodResources {
        let container =
            ContainerResources { name: "main".to_owned(), devices, ..Default::default() };
        let containers = vec![ContainerResources::default(), container];
        PodResources { name: name.to_owned(), namespace: "team".to_owned(), containers }
    }

    #[test]
    fn every_held_id_names_its_container() {
        // The kubelet lists a device on two NUMA nodes twice.
        let gpus = vec![devices("a.b/gpu", &["0000:13:00.0"]); 2];
        let other = vec![devices("c.d/nic", &["eth0", ""]), devices("a.b/gpu", &["GPU-7::x"])];
        let response = ListPodResourcesResponse {
            pod_resources: vec![pod("train", gpus), pod("serve", other), pod("idle", vec![])],
        };
        let holders = holders(response);
        let train = holders.holder("a.b/gpu", "0000:13:00.0").unwrap();
        assert_eq!(train.to_string(), "container main of pod team/train");
        assert_eq!(holders.holder("c.d/nic", "0000:13:00.0"), None);
        let held: Vec<_> =
            holders.of_resource("a.b/gpu").map(|(id, it)| (id, &it.pod[..])).collect();
        assert_eq!(held, [("0000:13:00.0", "train"), ("GPU-7::x", "serve")]);
    }

    #[test]
    fn what_claims_hold_of_our_driver_is_listed_once_for_all_pods_that_share_a_claim() {
        let resource = |driver: &str, device: &str, share: Option<&str>| ClaimResource {
            driver_name: driver.to_owned(),
            device_name: device.to_owned(),
            share_id: share.map(str::to_owned),
            ..ClaimResource::default()
        };
        let claim = DynamicResource {
            claim_name: "train".to_owned(),
            claim_namespace: "team".to_owned(),
            claim_resources: vec![
                resource(DRIVER_NAME, "chip-0000-13-00-0", None),
                resource(DRIVER_NAME, "board-0000-16-00-0", Some("s1")),
                resource("dra.net", "chip-0000-19-00-0", None),
                resource(DRIVER_NAME, "eth0", None),
            ],
        };
        let pod = |name: &str| {
            let mut pod = pod(name, Vec::new());
            pod.containers[1].dynamic_resources = vec![claim.clone()];
            pod
        };
        let pod_resources = vec![pod("first"), pod("second")];
        let held = holders(ListPodResourcesResponse { pod_resources }).claimed;
        let shown = |it: &ClaimUsage| format!("{} {} {}", it.claim, it.device, it.is_shared);
        let held: Vec<_> = held.iter().map(shown).collect();
        assert_eq!(
            held,
            ["team/train board-0000-16-00-0 true", "team/train chip-0000-13-00-0 false"]
        );
    }

    #[test]
    fn of_containers_that_share_a_device_the_first_is_named() {
        let gpu = || vec![devices("a.b/gpu", &["x"])];
        let pod_resources = vec![pod("first", gpu()), pod("second", gpu())];
        let holders = holders(ListPodResourcesResponse { pod_resources });
        assert_eq!(holders.holder("a.b/gpu", "x").unwrap().pod, "first");
    }
}
