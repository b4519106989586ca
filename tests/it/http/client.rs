//! HTTP/1.1 as a few lines of text: nothing of the plugin's own client or server is in it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::clock::soon;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) head: String,
    pub(super) text: String,
}

pub(super) async fn get(address: SocketAddr, page: &str, accept: &str) -> Answer {
    let request = format!("GET {page} HTTP/1.1\r\nHost: node\r\nAccept: {accept}\r\n\r\n");
    let answer = said(address, request.as_bytes()).await;
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.unwrap_or_else(|| panic!("no HTTP: {answer}"));
    Answer { code, head: head.to_lowercase(), text: text.to_owned() }
}

/// Whatever is said until the connection ends.
pub(super) async fn said(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    // Whoever is refused may be cut off while he still talks.
    let _ = stream.write_all(request).await;
    let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}
