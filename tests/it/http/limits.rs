//! The server under bad luck and bad clients: none of it reaches the kubelet.

use std::net::TcpListener;

use ix_device_plugin::model::log_event::LogEvent;
use tokio::net::TcpStream;

use super::four_boards;
use crate::support::clock::soon;
use crate::support::fixtures::GPU;
use crate::support::http::{exchange, get};
use crate::support::node_rig::is_streaming;
use crate::support::test_node::TestNode;

#[tokio::test]
async fn a_port_in_use_is_logged_once_and_bound_as_soon_as_it_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let node = TestNode::fixture("mr-v100-x4").http_at(address).start().await;
    node.log.event(LogEvent::HttpFailed).await;
    let said = format!(
        "WARN cannot listen for HTTP; probes and metrics are unavailable; retrying event=\"HttpFailed\" address={address} error=Address \
         already in use (os error 98)\n"
    );
    node.log.has(&said);
    assert_eq!(*node.plugin().http.borrow(), None);
    assert!(is_streaming(&node.kubelet.view().borrow(), GPU));
    drop(taken);
    assert_eq!(node.asked("/readyz").await.code, 200);
    assert_eq!(node.log.lines("WARN").len(), 1, "{:?}", node.log.lines("WARN"));
}

#[tokio::test]
async fn off_is_off() {
    let node = TestNode::fixture("mr-v100-x4").start().await;
    let mut http = node.plugin().http.clone();
    let never = soon("word that there is no port", http.changed()).await;
    assert!(never.is_err() && http.borrow().is_none());
}

#[tokio::test]
async fn other_pages_are_not_found_and_other_methods_not_allowed() {
    let node = four_boards("").await;
    let answer = node.asked("/health").await;
    let text = "nothing here; there are /livez, /readyz, /metrics and /status\n";
    assert_eq!((answer.code, &*answer.text), (404, text));
    let address = node.address().await;
    let answer = exchange(address, b"POST /livez HTTP/1.1\r\nHost: node\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn a_request_beyond_the_limits_is_refused() {
    let node = four_boards("").await;
    let address = node.address().await;
    let long = format!("GET /livez HTTP/1.1\r\nHost: node\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let many = format!("GET /livez HTTP/1.1\r\nHost: node\r\n{}\r\n", "X: x\r\n".repeat(100));
    for request in [&*long, &*many, "nonsense\r\n\r\n"] {
        let answer = exchange(address, request.as_bytes()).await;
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(get(address, "/livez", "*/*").await.code, 200);
}

#[tokio::test]
async fn clients_that_say_nothing_keep_no_probe_out() {
    let node = four_boards("").await;
    let address = node.address().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(soon("an answer", get(address, "/livez", "*/*")).await.code, 200);
}

#[tokio::test]
async fn a_silent_client_does_not_delay_the_end() {
    let mut node = four_boards("").await;
    let address = node.address().await;
    let _silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(get(address, "/livez", "*/*").await.code, 200);
    node.stop().await;
    let cut_off = node.log.lines("WARN");
    assert_eq!(cut_off, Vec::<String>::new());
}
