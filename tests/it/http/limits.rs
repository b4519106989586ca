//! The server under bad luck and bad clients: none of it reaches the kubelet.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::net::TcpStream;

use super::client::{get, said};
use super::four_boards;
use crate::stage::{GPU, Script, Stage, is_streaming, node_text, within};
use crate::support::clock::soon;

#[tokio::test]
async fn a_taken_port_is_said_once_and_taken_as_soon_as_it_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let script = Script { http: Some(address), ..Script::fixed("") };
    let stage = Stage::play(&node_text("mr-v100-x4"), script).await;
    let said = format!(
        "WARN no probes, no metrics: cannot listen; trying again address={address} error=Address \
         already in use (os error 98)\n"
    );
    stage.log.says(&said).await;
    assert_eq!(*stage.bound().http.borrow(), None);
    assert!(is_streaming(&stage.kubelet.view().borrow(), GPU));
    drop(taken);
    assert_eq!(stage.asked("/readyz").await.code, 200);
    assert_eq!(stage.log.lines("WARN").len(), 1, "{:?}", stage.log.lines("WARN"));
}

#[tokio::test]
async fn off_is_off() {
    let stage = Stage::play(&node_text("mr-v100-x4"), Script::fixed("")).await;
    let mut http = stage.bound().http.clone();
    let never = within("word that there is no port", http.changed()).await;
    assert!(never.is_err() && http.borrow().is_none());
}

#[tokio::test]
async fn other_pages_are_not_found_and_other_methods_not_allowed() {
    let stage = four_boards("").await;
    let answer = stage.asked("/health").await;
    let text = "nothing here; there are /livez, /readyz, /metrics and /status\n";
    assert_eq!((answer.code, &*answer.text), (404, text));
    let address = address(&stage).await;
    let answer = said(address, b"POST /livez HTTP/1.1\r\nHost: node\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn a_request_beyond_the_limits_is_refused() {
    let stage = four_boards("").await;
    let address = address(&stage).await;
    let long = format!("GET /livez HTTP/1.1\r\nHost: node\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let many = format!("GET /livez HTTP/1.1\r\nHost: node\r\n{}\r\n", "X: x\r\n".repeat(100));
    for request in [&*long, &*many, "nonsense\r\n\r\n"] {
        let answer = said(address, request.as_bytes()).await;
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(get(address, "/livez", "*/*").await.code, 200);
}

#[tokio::test]
async fn clients_that_say_nothing_keep_no_probe_out() {
    let stage = four_boards("").await;
    let address = address(&stage).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(soon("an answer", get(address, "/livez", "*/*")).await.code, 200);
}

#[tokio::test]
async fn a_client_that_says_nothing_does_not_delay_the_end() {
    let mut stage = four_boards("").await;
    let address = address(&stage).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(get(address, "/livez", "*/*").await.code, 200);
    let began = tokio::time::Instant::now();
    stage.stop().await;
    assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
    let cut_off = stage.log.lines("WARN");
    assert_eq!(cut_off, Vec::<String>::new());
}

async fn address(stage: &Stage) -> SocketAddr {
    let mut http = stage.bound().http.clone();
    within("a port", http.wait_for(Option::is_some)).await.unwrap().unwrap()
}
