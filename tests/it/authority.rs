//! Kubelets of every age reach the plugin, whatever they send as `:authority`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::pin::Pin;

use h2::Reason;
use http::{HeaderValue, Request as HttpRequest, Response as HttpResponse};
use hyper_util::rt::TokioIo;
use ix_device_plugin::host::authority_stream::NormalisedStream;
use ix_device_plugin::wire::http2::hpack;
use ix_device_plugin::wire::v1beta1::device_plugin_client::DevicePluginClient;
use ix_device_plugin::wire::v1beta1::device_plugin_server::{DevicePlugin, DevicePluginServer};
use ix_device_plugin::wire::v1beta1::{
    AllocateRequest, AllocateResponse, ContainerAllocateRequest, ContainerAllocateResponse, Device,
    DevicePluginOptions, Empty, ListAndWatchResponse, PreStartContainerRequest,
    PreStartContainerResponse, PreferredAllocationRequest, PreferredAllocationResponse,
};
use proptest::prelude::*;
use prost::Message;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tower::service_fn;

/// An authority as kubelets send it, and its Huffman code as another implementation wrote it.
const LOCALHOST: (&str, &str) = ("localhost", "a0e41d139d09");
const SOCKET: (&str, &str) = (
    "/var/lib/kubelet/device-plugins/iluvatar-gpu.sock",
    "63b8ec628346c75b632d054b1217b98855aba2d98d52183516f71a4762d3576ae8393aff",
);
const ESCAPED: (&str, &str) = (
    "%2Fvar%2Flib%2Fkubelet%2Fdevice-plugins%2Filuvatar-gpu.sock",
    "54587b8ec545868346a8b0f5b632d054aa2c3217b98855aba2d98d52151613516f71a4762d3576ae8393af",
);

// ---------------------------------------------------------------------------------------------
// The server: tonic on a Unix socket, with and without normalising.

struct Plugin;

#[tonic::async_trait]
impl DevicePlugin for Plugin {
    type ListAndWatchStream =
        Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(options()))
    }

    async fn list_and_watch(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListAndWatchStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(list())))))
    }

    async fn get_preferred_allocation(
        &self,
        _: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let containers = request.into_inner().container_requests.len();
        Ok(Response::new(AllocateResponse {
            container_responses: vec![ContainerAllocateResponse::default(); containers],
        }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

fn options() -> DevicePluginOptions {
    DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true }
}

fn list() -> ListAndWatchResponse {
    let device =
        Device { id: "0000:13:00.0".to_owned(), health: "Healthy".to_owned(), ..Device::default() };
    ListAndWatchResponse { devices: vec![device; 1000] }
}

#[derive(Clone, Copy)]
enum Connections {
    Normalised,
    Bare,
}

/// Stops when it is dropped.
struct Served {
    directory: TempDir,
    _tasks: JoinSet<Result<(), tonic::transport::Error>>,
}

impl Served {
    fn new(connections: Connections) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("iluvatar-gpu.sock")).unwrap();
        let incoming = UnixListenerStream::new(listener);
        let server = Server::builder().add_service(DevicePluginServer::new(Plugin));
        let mut tasks = JoinSet::new();
        match connections {
            Connections::Bare => tasks.spawn(server.serve_with_incoming(incoming)),
            Connections::Normalised => {
                tasks.spawn(server.serve_with_incoming(
                    incoming.map(|accepted| accepted.map(NormalisedStream::new)),
                ))
            }
        };
        Self { directory, _tasks: tasks }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("iluvatar-gpu.sock")
    }
}

// ---------------------------------------------------------------------------------------------
// The raw client: hand-built frames, as grpc-go would send them.

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x01;
const ACK: u8 = 0x01;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A string as HPACK has it, shorter than 127 bytes.
fn plain(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

fn huffman(digits: &str) -> Vec<u8> {
    let coded: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect();
    [&[0x80 | u8::try_from(coded.len()).unwrap()], &coded[..]].concat()
}

/// The first request of a connection: grpc-go adds every field to the dynamic table.
fn first_block(authority: &[u8]) -> Vec<u8> {
    [
        &[0x83, 0x86, 0x44][..],
        &plain("/v1beta1.DevicePlugin/GetDevicePluginOptions"),
        &[0x41],
        authority,
        &[0x5f],
        &plain("application/grpc"),
        &[0x7a],
        &plain("grpc-go/1.47.0"),
        &[0x40],
        &plain("te"),
        &plain("trailers"),
    ]
    .concat()
}

/// The same request again: it refers to the fields of the first.
const NEXT_BLOCK: [u8; 7] = [0x83, 0x86, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe];

#[derive(Debug, PartialEq)]
enum Answer {
    Options(DevicePluginOptions),
    Reset(Reason),
    /// The server ended the connection.
    Closed,
}

struct RawClient {
    stream: UnixStream,
    decoder: hpack::Decoder,
}

impl RawClient {
    async fn connect(served: &Served) -> Self {
        let mut stream = UnixStream::connect(served.path()).await.unwrap();
        let settings = frame(SETTINGS, 0, 0, b"");
        let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
        stream.write_all(&hello).await.unwrap();
        Self { stream, decoder: hpack::Decoder::default() }
    }

    /// Asks for the options with a header block in one frame.
    async fn ask(&mut self, stream: u32, block: &[u8]) -> Answer {
        let headers = frame(HEADERS, END_HEADERS, stream, block);
        self.ask_in_frames(stream, &[headers]).await
    }

    /// Asks for the options with these header frames; the body is an empty message.
    async fn ask_in_frames(&mut self, stream: u32, headers: &[Vec<u8>]) -> Answer {
        let body = frame(DATA, END_STREAM, stream, &[0; 5]);
        let request = [&headers.concat()[..], &body].concat();
        self.stream.write_all(&request).await.unwrap();
        self.answer().await
    }

    async fn answer(&mut self) -> Answer {
        let mut body = Vec::new();
        while let Ok((kind, flags, payload)) = self.next_frame().await {
            match kind {
                DATA => body.extend_from_slice(&payload),
                HEADERS => self.check_headers(&payload),
                RST_STREAM => return Answer::Reset(reason(&payload)),
                GOAWAY => return Answer::Closed,
                SETTINGS if flags & ACK == 0 => {
                    let ack = frame(SETTINGS, ACK, 0, b"");
                    self.stream.write_all(&ack).await.unwrap();
                }
                _ => {}
            }
            if kind == HEADERS && flags & END_STREAM != 0 {
                return Answer::Options(DevicePluginOptions::decode(&body[5..]).unwrap());
            }
        }
        Answer::Closed
    }

    fn check_headers(&mut self, block: &[u8]) {
        let check = |field: hpack::Field<'_>| match field.name {
            b":status" => assert_eq!(field.value, b"200"),
            b"grpc-status" => assert_eq!(field.value, b"0"),
            _ => {}
        };
        self.decoder.decode(block, check).unwrap();
    }

    async fn next_frame(&mut self) -> std::io::Result<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await?;
        Ok((head[3], head[4], payload))
    }
}

fn reason(payload: &[u8]) -> Reason {
    u32::from_be_bytes(payload.try_into().unwrap()).into()
}

// ---------------------------------------------------------------------------------------------
// What h2 does without us.

#[tokio::test]
async fn h2_alone_refuses_a_socket_path() {
    let served = Served::new(Connections::Bare);
    for (authority, _) in [SOCKET, ESCAPED] {
        let mut client = RawClient::connect(&served).await;
        let answer = client.ask(1, &first_block(&plain(authority))).await;
        assert_eq!(answer, Answer::Reset(Reason::PROTOCOL_ERROR), "{authority}");
    }
}

#[tokio::test]
async fn h2_alone_accepts_localhost() {
    let served = Served::new(Connections::Bare);
    let mut client = RawClient::connect(&served).await;
    let block = first_block(&plain(LOCALHOST.0));
    assert_eq!(client.ask(1, &block).await, Answer::Options(options()));
    assert_eq!(client.ask(3, &NEXT_BLOCK).await, Answer::Options(options()));
}

// ---------------------------------------------------------------------------------------------
// What clients get from a normalised connection.

#[track_caller]
fn check(answer: &Answer, what: &str) {
    assert_eq!(*answer, Answer::Options(options()), "{what}");
}

#[tokio::test]
async fn every_authority_is_answered_again_and_again() {
    let served = Served::new(Connections::Normalised);
    for (text, digits) in [LOCALHOST, SOCKET, ESCAPED] {
        for authority in [plain(text), huffman(digits)] {
            let mut client = RawClient::connect(&served).await;
            check(&client.ask(1, &first_block(&authority)).await, text);
            check(&client.ask(3, &NEXT_BLOCK).await, text);
            check(&client.ask(5, &NEXT_BLOCK).await, text);
        }
    }
}

#[tokio::test]
async fn the_path_of_a_registration_socket_is_answered_as_old_and_new_kubelets_write_it() {
    let served = Served::new(Connections::Normalised);
    for authority in [
        "/var/lib/kubelet/plugins_registry/gpu.iluvatar.com-reg.sock",
        "%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fgpu.iluvatar.com-reg.sock",
    ] {
        let mut client = RawClient::connect(&served).await;
        check(&client.ask(1, &first_block(&plain(authority))).await, authority);
        check(&client.ask(3, &NEXT_BLOCK).await, authority);
    }
}

#[tokio::test]
async fn a_block_may_come_in_many_frames() {
    let served = Served::new(Connections::Normalised);
    let mut client = RawClient::connect(&served).await;
    let block = first_block(&plain(SOCKET.0));
    let mut frames: Vec<Vec<u8>> =
        block.chunks(10).map(|piece| frame(CONTINUATION, 0, 1, piece)).collect();
    frames[0] = frame(HEADERS, 0, 1, &block[..10]);
    frames.push(frame(CONTINUATION, END_HEADERS, 1, b""));
    check(&client.ask_in_frames(1, &frames).await, "in pieces");
    check(&client.ask(3, &NEXT_BLOCK).await, "referring to pieces");
}

#[tokio::test]
async fn a_block_may_have_padding_and_a_priority() {
    let served = Served::new(Connections::Normalised);
    let mut client = RawClient::connect(&served).await;
    let block = first_block(&huffman(ESCAPED.1));
    let payload = [&[4], &[0, 0, 0, 0, 15][..], &block, &[0; 4]].concat();
    let frames = [frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 1, &payload)];
    check(&client.ask_in_frames(1, &frames).await, "padded, with priority");
    let payload = [&[0, 0, 0, 1, 15][..], &NEXT_BLOCK].concat();
    let frames = [frame(HEADERS, END_HEADERS | PRIORITY, 3, &payload)];
    check(&client.ask_in_frames(3, &frames).await, "with priority");
}

#[tokio::test]
async fn a_client_may_resize_its_table() {
    let served = Served::new(Connections::Normalised);
    let mut client = RawClient::connect(&served).await;
    // First to nothing and then to the default size, as an encoder does that empties its table.
    let block = [&[0x20, 0x3f, 0xe1, 0x1f][..], &first_block(&plain(SOCKET.0))].concat();
    check(&client.ask(1, &block).await, "resized");
    check(&client.ask(3, &NEXT_BLOCK).await, "after resizing");
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    let served = Served::new(Connections::Normalised);
    let mut client = RawClient::connect(&served).await;
    let headers = frame(HEADERS, END_HEADERS, 1, &first_block(&plain(SOCKET.0)));
    let body = frame(DATA, END_STREAM, 1, &[0; 5]);
    for byte in [headers, body].concat() {
        client.stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    check(&client.answer().await, "byte by byte");
}

#[tokio::test]
async fn a_malformed_block_closes_its_connection_and_no_other() {
    let served = Served::new(Connections::Normalised);
    let mut good = RawClient::connect(&served).await;
    let mut bad = RawClient::connect(&served).await;
    let block = first_block(&plain(SOCKET.0));
    check(&good.ask(1, &block).await, "before");
    assert_eq!(bad.ask(1, &[0x80]).await, Answer::Closed);
    check(&good.ask(3, &NEXT_BLOCK).await, "after");
}

// ---------------------------------------------------------------------------------------------
// Clients that behave notice nothing.

async fn tonic_client(served: &Served) -> DevicePluginClient<Channel> {
    let path = served.path();
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .unwrap();
    DevicePluginClient::new(channel)
}

#[tokio::test]
async fn a_client_that_behaves_notices_nothing() {
    let served = Served::new(Connections::Normalised);
    let mut client = tonic_client(&served).await;
    for _ in 0..3 {
        let answer = client.get_device_plugin_options(Empty {}).await.unwrap();
        assert_eq!(answer.into_inner(), options());
        let mut lists = client.list_and_watch(Empty {}).await.unwrap().into_inner();
        assert_eq!(lists.message().await.unwrap(), Some(list()));
        assert_eq!(lists.message().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_request_larger_than_all_windows_and_buffers_arrives() {
    let served = Served::new(Connections::Normalised);
    let mut client = tonic_client(&served).await;
    let request =
        AllocateRequest { container_requests: vec![ContainerAllocateRequest::default(); 200_000] };
    let answer = client.allocate(request).await.unwrap().into_inner();
    assert_eq!(answer.container_responses.len(), 200_000);
}

/// Requests as an h2 server reads them that an h2 client sent through a normalised connection.
async fn through_h2(requests: Vec<HttpRequest<()>>) -> Vec<HttpRequest<()>> {
    let (near, far) = duplex(1000);
    let mut tasks = JoinSet::new();
    let (mut client, connection) = h2::client::handshake(near).await.unwrap();
    tasks.spawn(connection);
    let mut server = h2::server::handshake(NormalisedStream::new(far)).await.unwrap();
    let mut answers = Vec::new();
    let mut received = Vec::new();
    for request in requests {
        client = client.ready().await.unwrap();
        answers.push(client.send_request(request, true).unwrap());
        let (request, mut respond) = server.accept().await.unwrap().unwrap();
        respond.send_response(HttpResponse::new(()), true).unwrap();
        received.push(request.map(|_| ()));
    }
    received
}

fn requests() -> impl Strategy<Value = Vec<HttpRequest<()>>> {
    let value = prop_oneof![
        4 => prop::collection::vec((b' '..=u8::MAX).prop_filter("DEL", |byte| *byte != 0x7f), 0..80),
        // Longer than a frame, shorter than the largest list.
        1 => (1_000..18_000usize).prop_map(|length| vec![b'e'; length]),
    ];
    let field = ("[a-e]", value, any::<bool>());
    let request = prop::collection::vec(field, 0..4).prop_map(|fields| {
        let mut request = HttpRequest::post("http://localhost/v1beta1.DevicePlugin/Allocate");
        for (name, value, sensitive) in fields {
            let mut value = HeaderValue::from_bytes(&value).unwrap();
            value.set_sensitive(sensitive);
            request = request.header(name, value);
        }
        request.body(()).unwrap()
    });
    prop::collection::vec(request, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_an_h2_client_sends_arrives_as_it_was_sent(requests in requests()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let received = runtime.block_on(through_h2(requests.clone()));
        prop_assert_eq!(received.len(), requests.len());
        for (received, sent) in received.iter().zip(&requests) {
            prop_assert_eq!(received.uri(), sent.uri());
            prop_assert_eq!(received.headers(), sent.headers());
        }
    }
}
