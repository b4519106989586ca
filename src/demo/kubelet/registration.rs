//! The service on `kubelet.sock`: checks a registration, and calls the plugin back before it
//! answers.

use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::connection::{PluginClient, dial, rpc_error};
use super::node::{NodeHandle, ShutDown};
use super::process::ProcessContext;
use super::resource_name::is_extended_resource;
use super::settings::RegisterBehaviour;
use super::streams;
use crate::host::abortable_stream::AbortableStream;
use crate::wire::device_plugin::VERSION;
use crate::wire::v1beta1::registration_server::{Registration, RegistrationServer};
use crate::wire::v1beta1::{DevicePluginOptions, Empty, RegisterRequest};

/// Serves until the task is dropped; the connections end with `context.cut`.
pub(super) async fn serve(
    listener: UnixListener,
    context: ProcessContext,
    node_handle: NodeHandle,
) {
    let cut = context.cut.clone();
    let connections = UnixListenerStream::new(listener)
        .map(move |accepted| accepted.map(|stream| AbortableStream::new(stream, &cut)));
    let served = Server::builder()
        .add_service(RegistrationServer::new(RegistrationService { node_handle, context }))
        .serve_with_incoming(connections)
        .await;
    if let Err(error) = served {
        tracing::warn!(%error, "the embedded kubelet no longer accepts registrations");
    }
}

/// Answers in one life of the kubelet.
#[derive(Clone)]
struct RegistrationService {
    node_handle: NodeHandle,
    context: ProcessContext,
}

#[tonic::async_trait]
impl Registration for RegistrationService {
    /// Runs in a task of its own: a kubelet goes on even if the plugin no longer waits.
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let (answer, answered) = oneshot::channel();
        let (service, request) = (self.clone(), request.into_inner());
        let call = async move {
            // The plugin may have given up waiting.
            let _ = answer.send(service.answer(request).await);
        };
        let started = self.node_handle.ask(|node| {
            node.register_calls += 1;
            node.spawn(call);
        });
        started.await.map_err(stopped)?;
        answered.await.unwrap_or_else(|_| Err(stopped(ShutDown)))?;
        Ok(Response::new(Empty {}))
    }
}

impl RegistrationService {
    async fn answer(&self, request: RegisterRequest) -> Result<(), Status> {
        match self.node_handle.ask(|node| node.register.clone()).await.map_err(stopped)? {
            RegisterBehaviour::Accept => {}
            RegisterBehaviour::Refuse(message) => return Err(Status::unknown(message)),
            RegisterBehaviour::Hang => std::future::pending().await,
            RegisterBehaviour::Delay(pause) => tokio::time::sleep(pause).await,
        }
        check(&request)?;
        self.connect(request.resource_name, &request.endpoint).await
    }

    async fn connect(&self, resource: String, endpoint: &str) -> Result<(), Status> {
        let (life, name) = (self.context.life, resource.clone());
        let connecting = self.node_handle.ask(move |node| node.connecting(life, &name)).await;
        let (id, cut) = connecting.map_err(stopped)?.ok_or_else(|| stopped(ShutDown))?;
        match self.call_back(endpoint, &cut).await {
            Ok((client, options)) => {
                let node_handle = self.node_handle.clone();
                let connected = self.node_handle.ask(move |node| {
                    let calls = client.clone();
                    if let Some(dropped) = node.connected((id, cut), resource, calls, options) {
                        node.spawn(streams::follow(client, id, node_handle, dropped));
                    }
                });
                connected.await.map_err(stopped)
            }
            Err(status) => {
                let failed = self.node_handle.ask(move |node| node.resources.failed_to_connect(id));
                failed.await.map_err(stopped)?;
                Err(status)
            }
        }
    }

    /// Dials the plugin and asks for its options. A kubelet bounds the dialling alone; an answer
    /// that never comes would leave both sides waiting without limit, so here one bound is for both.
    async fn call_back(
        &self,
        endpoint: &str,
        cut: &CancellationToken,
    ) -> Result<(PluginClient, DevicePluginOptions), Status> {
        let socket = self.context.directory.join(endpoint);
        let called = tokio::time::timeout(self.context.dial_timeout, async {
            let mut client = dial(&socket, cut).await.map_err(|error| no_dial(&error))?;
            let options = client
                .get_device_plugin_options(Empty {})
                .await
                .map_err(|status| no_options(&status))?;
            Ok((client, options.into_inner()))
        });
        called.await.unwrap_or_else(|_| Err(no_dial(&"context deadline exceeded")))
    }
}

/// What the kubelet checks before it dials; that the endpoint is a bare file name we add: the
/// kubelet only joins it to its directory.
fn check(request: &RegisterRequest) -> Result<(), Status> {
    let RegisterRequest { version, endpoint, resource_name, .. } = request;
    if version != VERSION {
        return Err(Status::unknown(format!(
            "requested API version {version:?} is not supported by kubelet. Supported version is [{VERSION:?}]"
        )));
    }
    if !is_extended_resource(resource_name) {
        return Err(Status::unknown(format!("the ResourceName {resource_name:?} is invalid")));
    }
    if endpoint.is_empty() || endpoint == "." || endpoint == ".." || endpoint.contains('/') {
        return Err(Status::unknown(format!(
            "the endpoint {endpoint:?} is not the name of a file in the device plugin directory"
        )));
    }
    Ok(())
}

fn no_dial(error: &dyn std::fmt::Display) -> Status {
    Status::unknown(format!("failed to dial device plugin: {error}"))
}

fn no_options(status: &Status) -> Status {
    Status::unknown(format!("failed to get device plugin options: {}", rpc_error(status)))
}

fn stopped(_: ShutDown) -> Status {
    Status::unavailable("the kubelet is stopping")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(version: &str, endpoint: &str, resource_name: &str, message: &str) {
        let request = RegisterRequest {
            version: version.to_owned(),
            endpoint: endpoint.to_owned(),
            resource_name: resource_name.to_owned(),
            options: None,
        };
        assert_eq!(check(&request).unwrap_err().message(), message);
    }

    #[test]
    fn a_registration_that_breaks_a_rule_is_refused() {
        refused(
            "v1alpha1",
            "x.sock",
            "iluvatar.com/gpu",
            "requested API version \"v1alpha1\" is not supported by kubelet. \
             Supported version is [\"v1beta1\"]",
        );
        refused("v1beta1", "x.sock", "gpu", "the ResourceName \"gpu\" is invalid");
        for endpoint in ["", "..", "../x.sock", "/run/x.sock"] {
            let message = format!(
                "the endpoint {endpoint:?} is not the name of a file in the device plugin directory"
            );
            refused("v1beta1", endpoint, "iluvatar.com/gpu", &message);
        }
    }
}
