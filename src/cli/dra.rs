//! What DRA mode needs to know of its surroundings.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::output::Failure;
use crate::app::DraSettings;
use crate::daemon::claim_reader::claim_reader;
use crate::decide::dra::socket_paths::DriverInstance;
use crate::host::kube_api::{ApiAccess, KubeApi};
use crate::model::dra::DRIVER_NAME;

/// DRA mode: which node and pod this is, and where the API server is.
#[derive(Args, Debug)]
pub struct DraArgs {
    /// Name of this node. DRA mode needs it.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Uid of the pod that this runs in. In DRA mode it is part of the names of sockets, so that two
    /// instances can serve side by side during a rolling update.
    #[arg(long, env = "POD_UID", value_name = "UID", value_parser = uid)]
    pub pod_uid: Option<String>,
    /// Access to the API server in DRA mode. Default: the service account of the pod.
    #[arg(long, env = "IX_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// API server without TLS and identity, for tests.
    #[arg(long, env = "IX_API_SERVER", value_name = "URL", hide = true)]
    pub api_server: Option<String>,
}

/// It becomes part of file names.
fn uid(text: &str) -> Result<String, String> {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || char == '-';
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err("a uid has letters, digits and `-` only".to_owned());
    }
    Ok(text.to_owned())
}

impl DraArgs {
    /// `plugin_directory` is that of device plugins, in the kubelet's root directory.
    pub(super) async fn settings(&self, plugin_directory: &Path) -> Result<DraSettings, Failure> {
        let node = self.node_name.clone().context(
            "DRA mode needs the node's name: pass --node-name, or set NODE_NAME from spec.nodeName",
        );
        let root = plugin_directory.parent().with_context(|| {
            format!("--kubelet-dir {} has no directory above it", plugin_directory.display())
        });
        let (node, root) = (node.map_err(Failure::Failed)?, root.map_err(Failure::Failed)?);
        let instance = DriverInstance {
            kubelet_root: root.to_owned(),
            driver: DRIVER_NAME.to_owned(),
            pod_uid: self.pod_uid.clone(),
        };
        instance.service_socket().map_err(|error| Failure::Failed(error.into()))?;
        let api = KubeApi::open(&self.access()).await;
        let api = api.map_err(|error| Failure::Failed(error.into()))?;
        Ok(DraSettings { instance, node, claims: claim_reader(api.clone()), api: Some(api) })
    }

    fn access(&self) -> ApiAccess {
        match (&self.api_server, &self.kubeconfig) {
            (Some(address), _) => ApiAccess::Plain(address.clone()),
            (None, Some(path)) => ApiAccess::Kubeconfig(path.clone()),
            (None, None) => ApiAccess::ServiceAccount,
        }
    }
}
