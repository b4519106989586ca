//! What a container runtime makes of the CDI names of a claim.

use std::collections::BTreeSet;
use std::fs;

use container_device_interface::cache::Cache;
use container_device_interface::spec_dirs::with_spec_dirs;
use oci_spec::runtime::Spec as OciSpec;
use tempfile::TempDir;

use crate::support::dra_rig::DraRig;

const SPEC: &str = "gpu.iluvatar.com-device.json";
/// Nodes that every machine has, in the place of ours, so that a runtime can look at them.
const REAL: [(&str, &str); 5] = [
    ("iluvatar0", "null"),
    ("iluvatar1", "zero"),
    ("iluvatar2", "full"),
    ("iluvatar3", "random"),
    ("itrctl", "urandom"),
];

fn with_real_nodes(text: &str) -> String {
    REAL.iter().fold(text.to_owned(), |text, (ours, real)| text.replace(ours, real))
}

#[tokio::test]
async fn a_container_gets_the_nodes_of_its_claim_and_may_use_no_others() {
    let rig = DraRig::start("mr-v100-x4", "").await;
    let claim = rig.allocate("one", &[0, 2]);
    let names = rig.runs("pod", &claim).await;
    let text = fs::read_to_string(rig.root().with_file_name("cdi").join(SPEC)).unwrap();
    let specs = TempDir::new().unwrap();
    fs::write(specs.path().join(SPEC), with_real_nodes(&text)).unwrap();
    let mut runtime = Cache::default();
    with_spec_dirs(&[specs.path().to_str().unwrap()])(&mut runtime);
    runtime.refresh().unwrap();
    let mut container = OciSpec::default();
    runtime.inject_devices(Some(&mut container), names).unwrap();

    let chips = [0, 2].map(|board| rig.boards[board].chips[0].node.as_ref().unwrap().path.clone());
    let expected = chips.iter().map(String::as_str).chain(["/dev/itrctl"]).map(with_real_nodes);
    let expected: BTreeSet<_> = expected.collect();
    let linux = container.linux().as_ref().unwrap();
    let devices = linux.devices().iter().flatten();
    let given: BTreeSet<_> = devices.map(|node| node.path().display().to_string()).collect();
    assert_eq!((given.len(), given), (3, expected));
    let rules = linux.resources().as_ref().unwrap().devices().iter().flatten();
    let allowed: Vec<_> = rules.filter(|rule| rule.allow()).collect();
    assert_eq!(allowed.len(), 3, "{allowed:?}");
    let environment = container.process().as_ref().unwrap().env().as_ref().unwrap();
    assert!(environment.contains(&"IX_VISIBLE_DEVICES=void".to_owned()), "{environment:?}");
}
