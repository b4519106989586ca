//! The plugin asked over HTTP, as a kubelet, a Prometheus and an operator ask it.

mod status_service;

pub(crate) mod cli;
mod limits;
mod metrics;
mod pods;
mod probes;
mod status;

use std::net::SocketAddr;

use crate::support::clock::soon;
use crate::support::http::{self, Response};
use crate::support::node_rig::NodeRig;
use crate::support::test_node::TestNode;

/// Four boards, a kubelet, and a daemon that answers over HTTP.
async fn four_boards(config: &str) -> NodeRig {
    TestNode::fixture("mr-v100-x4").config(config).with_http().start().await
}

impl NodeRig {
    /// Where the plugin answers.
    pub(crate) async fn address(&self) -> SocketAddr {
        let mut http = self.plugin().http.clone();
        soon("a port", http.wait_for(Option::is_some)).await.unwrap().unwrap()
    }

    /// The answer to a request for this page.
    pub(crate) async fn asked(&self, page: &str) -> Response {
        self.asked_for(page, "*/*").await
    }

    async fn asked_for(&self, page: &str, accept: &str) -> Response {
        http::get(self.address().await, page, accept).await
    }

    /// Waits until the page contains `wanted`.
    pub(crate) async fn shows(&self, page: &str, wanted: &str) {
        http::shows(self.address().await, page, wanted).await;
    }
}
