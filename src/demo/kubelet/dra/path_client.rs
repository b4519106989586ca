//! A gRPC client that sends the path of the socket as `:authority`, percent-encoded, as the kubelet's
//! grpc-go does on registration sockets. Every library at hand refuses to send it.

use std::io;
use std::path::Path;

use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::wire::http2::frame::{HEAD_SIZE, Head, Kind, PREFACE, flag};
use crate::wire::http2::hpack::{Decoder, Field, encode_literal};

const DATA: Kind = Kind(0);
const RST_STREAM: Kind = Kind(3);
const SETTINGS: Kind = Kind(4);
const PING: Kind = Kind(6);
const GOAWAY: Kind = Kind(7);
/// Of SETTINGS and PING.
const ACK: u8 = 1;
/// A gRPC message begins with a flag and its length.
const MESSAGE_HEAD: usize = 5;

/// One connection, for one call after the other.
pub(super) struct PathClient {
    stream: UnixStream,
    decoder: Decoder,
    authority: String,
    next_stream: u32,
}

impl PathClient {
    /// Connects to the socket.
    pub(super) async fn dial(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(PREFACE).await?;
        stream.write_all(&frame(SETTINGS, 0, 0, b"")).await?;
        let authority = encoded(&socket.display().to_string());
        Ok(Self { stream, decoder: Decoder::default(), authority, next_stream: 1 })
    }

    /// Calls a method such as `/pluginregistration.Registration/GetInfo`.
    pub(super) async fn call<Response: Message + Default>(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> io::Result<Response> {
        let stream = self.next_stream;
        self.next_stream += 2;
        let headers = frame(Kind::HEADERS, flag::END_HEADERS, stream, &self.headers(method));
        let body = frame(DATA, flag::END_STREAM, stream, &message(request));
        self.stream.write_all(&[headers, body].concat()).await?;
        let body = self.response().await?;
        let message = body.get(MESSAGE_HEAD..).ok_or_else(|| io::Error::other("no message"))?;
        Response::decode(message).map_err(io::Error::other)
    }

    fn headers(&self, method: &str) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", &*self.authority),
            ("content-type", "application/grpc"),
            ("user-agent", "grpc-go/1.79.3"),
            ("te", "trailers"),
        ] {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            encode_literal(Field { name, value, never_indexed: false }, &mut block);
        }
        block
    }

    async fn response(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let (head, payload) = self.next_frame().await?;
            match head.kind {
                DATA => body.extend_from_slice(&payload),
                Kind::HEADERS => self.check_headers(&payload)?,
                SETTINGS | PING if head.flags & ACK == 0 => {
                    let payload = if head.kind == PING { &payload[..] } else { b"" };
                    self.stream.write_all(&frame(head.kind, ACK, 0, payload)).await?;
                }
                RST_STREAM | GOAWAY => {
                    return Err(io::Error::other(format!("the plugin sent {}", head.kind)));
                }
                _ => {}
            }
            if head.kind == Kind::HEADERS && head.has(flag::END_STREAM) {
                return Ok(body);
            }
        }
    }

    fn check_headers(&mut self, block: &[u8]) -> io::Result<()> {
        let mut error = None;
        let each = |field: Field<'_>| {
            let is_refused = match field.name {
                b":status" => field.value != b"200",
                b"grpc-status" => field.value != b"0",
                b"grpc-message" => true,
                _ => false,
            };
            if is_refused {
                error = Some(String::from_utf8_lossy(field.value).into_owned());
            }
        };
        self.decoder.decode(block, each).map_err(io::Error::other)?;
        error.map_or(Ok(()), |error| Err(io::Error::other(error)))
    }

    async fn next_frame(&mut self) -> io::Result<(Head, Vec<u8>)> {
        let mut head = [0; HEAD_SIZE];
        self.stream.read_exact(&mut head).await?;
        let head = Head::parse(head);
        let mut payload = vec![0; head.length];
        self.stream.read_exact(&mut payload).await?;
        Ok((head, payload))
    }
}

fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let head = Head { length: payload.len(), kind, flags, stream };
    [&head.to_bytes()[..], payload].concat()
}

fn message(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0][..], &length, &bytes].concat()
}

/// As grpc-go encodes a target that is not an authority.
fn encoded(path: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    path.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_the_path_as_grpc_go_writes_it() {
        assert_eq!(
            encoded("/var/lib/kubelet/plugins_registry/gpu.iluvatar.com-1-reg.sock"),
            "%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fgpu.iluvatar.com-1-reg.sock"
        );
    }
}
