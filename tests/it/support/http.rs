//! HTTP/1.1 as a few lines of text: nothing of the plugin's own client or server is in it.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::clock::{eventually, soon};

/// What every metric's name begins with.
const PREFIX: &str = "iluvatar_device_plugin_";

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

pub(crate) async fn get(address: SocketAddr, page: &str, accept: &str) -> Response {
    let request = format!("GET {page} HTTP/1.1\r\nHost: node\r\nAccept: {accept}\r\n\r\n");
    let response = exchange(address, request.as_bytes()).await;
    let (head, text) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.unwrap_or_else(|| panic!("no HTTP: {response}"));
    Response { code, head: head.to_lowercase(), text: text.to_owned() }
}

/// Sends the bytes and returns whatever comes back until the connection ends.
pub(crate) async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut response = Vec::new();
    // A server that refuses may close the connection before it has read everything.
    let _ = stream.write_all(request).await;
    let _ = soon("a response", stream.read_to_end(&mut response)).await;
    String::from_utf8(response).unwrap()
}

/// Waits until the page contains `wanted`.
pub(crate) async fn shows(address: SocketAddr, page: &str, wanted: &str) {
    let contains = async || get(address, page, "*/*").await.text.contains(wanted).then_some(());
    eventually(&format!("{page} to show `{wanted}`"), contains).await;
}

/// Waits until the document of `/status` is as `wanted`.
pub(crate) async fn until_status(
    address: SocketAddr,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let status = async || {
        let status = serde_json::from_str(&get(address, "/status", "*/*").await.text).unwrap();
        wanted(&status).then_some(status)
    };
    eventually(what, status).await
}

/// The sum of a metric's series whose labels contain `labels`, without the metrics' common prefix.
pub(crate) async fn metric(address: SocketAddr, name: &str, labels: &str) -> u64 {
    let text = get(address, "/metrics", "*/*").await.text;
    let series = text.lines().filter_map(|line| line.strip_prefix(PREFIX)?.strip_prefix(name));
    let values = series.filter_map(|rest| {
        let (has, value) = rest.rsplit_once(' ')?;
        (has.is_empty() || has.starts_with('{') && has.contains(labels)).then_some(value)
    });
    values.map(|value| value.trim_end_matches(".0").parse::<u64>().unwrap()).sum()
}
