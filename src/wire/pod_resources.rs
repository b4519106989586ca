//! The kubelet's list of pods as the holders of devices.

use super::podresources_v1::{ListPodResourcesResponse, PodResources};
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::podresources_v1::{ContainerDevices, ContainerResources};

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
    fn of_containers_that_share_a_device_the_first_is_named() {
        let gpu = || vec![devices("a.b/gpu", &["x"])];
        let pod_resources = vec![pod("first", gpu()), pod("second", gpu())];
        let holders = holders(ListPodResourcesResponse { pod_resources });
        assert_eq!(holders.holder("a.b/gpu", "x").unwrap().pod, "first");
    }
}
