//! The two RPCs of the registration socket, answered from memory: the kubelet waits one second for
//! GetInfo, and backs off for up to two minutes after a failure.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use crate::decide::dra::registration::Handshake;
use crate::host::kubelet::Peer;
use crate::wire::pluginregistration_v1::registration_server::Registration;
use crate::wire::pluginregistration_v1::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};

/// What the kubelet reported about one registration socket.
#[derive(Clone, Debug, Default)]
pub struct KubeletReport {
    /// How far it is.
    pub handshake: Handshake,
    /// The process that called GetInfo last.
    pub kubelet: Option<Peer>,
    /// Why it refused.
    pub error: Option<String>,
}

/// The service of one registration socket.
#[derive(Debug)]
pub struct DraRegistrationService {
    info: PluginInfo,
    reports: Arc<watch::Sender<KubeletReport>>,
}

impl DraRegistrationService {
    /// A service that answers `info`, and the kubelet's reports.
    #[must_use]
    pub fn new(info: PluginInfo) -> (Self, watch::Receiver<KubeletReport>) {
        let (reports, receiver) = watch::channel(KubeletReport::default());
        (Self { info, reports: Arc::new(reports) }, receiver)
    }
}

#[tonic::async_trait]
impl Registration for DraRegistrationService {
    async fn get_info(
        &self,
        request: Request<InfoRequest>,
    ) -> Result<Response<PluginInfo>, Status> {
        let kubelet = Some(peer(&request));
        let handshake = Handshake::InfoRead;
        self.reports.send_replace(KubeletReport { handshake, kubelet, error: None });
        Ok(Response::new(self.info.clone()))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let kubelet = peer(&request);
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        self.reports.send_modify(|report| {
            report.kubelet = Some(kubelet);
            (report.handshake, report.error) = if plugin_registered {
                (Handshake::Registered, None)
            } else {
                (Handshake::Refused, Some(error))
            };
        });
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

fn peer<T>(request: &Request<T>) -> Peer {
    let connection = request.extensions().get::<UdsConnectInfo>();
    Peer::of(connection.and_then(|connection| connection.peer_cred))
}
