//! `kubelet_internal_checkpoint`: the kubelet's resources and their healthy devices.
//!
//! Source: kubernetes/pkg/kubelet/cm/devicemanager/checkpoint. The checksum is the kubelet's affair.

use serde::Deserialize;

use crate::model::doctor::facts::Registered;

/// The file's name in the device plugin directory.
pub const CHECKPOINT: &str = "kubelet_internal_checkpoint";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Checkpoint {
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    // Go writes an empty map that was never made as null.
    registered_devices: Option<std::collections::BTreeMap<String, Option<Vec<String>>>>,
}

/// Resources with the ids of their devices.
///
/// # Errors
/// The JSON parser's error.
pub fn parse_checkpoint(bytes: &[u8]) -> Result<Registered, String> {
    let checkpoint: Checkpoint =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let registered = checkpoint.data.registered_devices.unwrap_or_default();
    Ok(registered.into_iter().map(|(name, ids)| (name, ids.unwrap_or_default())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_and_their_ids_are_read() {
        let text = br#"{"Data":{"PodDeviceEntries":[{"PodUID":"p"}],"RegisteredDevices":
            {"iluvatar.com/gpu":["GPU-1","GPU-2"],"gone.example/x":null}},"Checksum":7}"#;
        let registered = parse_checkpoint(text).unwrap();
        assert_eq!(registered["iluvatar.com/gpu"], ["GPU-1", "GPU-2"]);
        assert_eq!(registered["gone.example/x"], Vec::<String>::new());
    }

    #[test]
    fn a_kubelet_that_knows_nothing_writes_null() {
        let text = br#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":null},"Checksum":7}"#;
        assert_eq!(parse_checkpoint(text), Ok(Registered::new()));
    }

    #[test]
    fn half_a_file_is_an_error() {
        assert!(parse_checkpoint(br#"{"Data":{"Reg"#).is_err());
    }
}
