//! Replaces every `:authority` that h2 refuses in the bytes of one client.
//!
//! Kubelets before 1.26, and every kubelet's plugin watcher, send the socket's path there, plain or
//! percent-encoded. Every header block is decoded and encoded again as plain literals, also one with a
//! valid authority: a block may refer to fields of earlier blocks, so h2 must read all of them or none.
//! Its own dynamic table stays empty. All other bytes are unchanged. Only the client's bytes are
//! known here, so the server must keep the default `SETTINGS_HEADER_TABLE_SIZE` and
//! `SETTINGS_MAX_FRAME_SIZE`, as tonic's does.

use http::uri::Authority;

use super::frame::{HEAD_SIZE, Head, Kind, MAX_PAYLOAD, PREFACE, flag};
use super::header_block::{BlockError, HeaderBlock, MAX_BLOCK};
use super::hpack::{self, Field, HpackError};

/// Replaces an authority that h2 refuses.
const LOCALHOST: &[u8] = b"localhost";

/// Why a connection is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The peer does not speak HTTP/2, or wants to upgrade to it.
    #[error("byte {offset} of the connection is {found:#04x}: not the preface of HTTP/2")]
    Preface {
        /// Counted from 0.
        offset: usize,
        /// The byte there.
        found: u8,
    },
    /// A frame that h2 refuses too, or that exceeds our bounds.
    #[error("{kind} frame on stream {stream}: {fault}")]
    Frame {
        /// The type of the frame.
        kind: Kind,
        /// 0 is the connection itself.
        stream: u32,
        /// The rule it breaks.
        fault: Fault,
    },
}

/// The rule that a frame breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// RFC 9113 §4.2.
    #[error("{length} bytes of payload exceed the limit of {MAX_PAYLOAD}")]
    Length {
        /// By its header.
        length: usize,
    },
    /// RFC 9113 §8.4.
    #[error("only servers may push")]
    Push,
    /// RFC 9113 §6.10.
    #[error("no header block is open")]
    NoOpenBlock,
    /// RFC 9113 §6.10.
    #[error("the header block of stream {open} must be continued first")]
    OpenBlock {
        /// The stream whose block is incomplete.
        open: u32,
    },
    /// RFC 9113 §6.2, or a bound.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// RFC 7541, or the bound of its decoder.
    #[error(transparent)]
    Hpack(#[from] HpackError),
}

/// The state of one connection. Never holds more than [`AuthorityNormaliser::MAX_HELD`] bytes.
#[derive(Debug)]
pub struct AuthorityNormaliser {
    state: State,
    /// The header block that is incomplete.
    open: Option<HeaderBlock>,
    decoder: hpack::Decoder,
}

#[derive(Debug)]
enum State {
    /// So many bytes of the preface were received.
    Preface(usize),
    /// So many bytes of the next frame's header were received.
    Head([u8; HEAD_SIZE], usize),
    /// So many bytes of payload pass unchanged.
    Passing(usize),
    /// The payload of a HEADERS or CONTINUATION frame, as far as it was received.
    Gathering(Head, Vec<u8>),
    /// No more bytes pass.
    Failed(Malformed),
}

impl AuthorityNormaliser {
    /// The most that is held for one connection between calls, in bytes: an open block, the next
    /// payload and the dynamic table. Vectors may have twice the capacity that they need.
    pub const MAX_HELD: usize = 2 * (MAX_BLOCK + MAX_PAYLOAD) + 4096;

    /// The most that one call appends to its output beyond the length of its input, in bytes: one
    /// header block in plain literals, in several frames.
    pub const MAX_GROWTH: usize = hpack::MAX_LIST_SIZE + 8 * HEAD_SIZE;

    /// At the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Preface(0), open: None, decoder: hpack::Decoder::default() }
    }

    /// Consumes the next bytes of the client, in pieces of any size, and appends to `output` what the
    /// server reads. Returns how many bytes it consumed: at least one of a non-empty input, and not
    /// all of it if a header block ended, which bounds the growth of the output in one call.
    ///
    /// # Errors
    /// The connection is malformed; every later call returns the same error. What was appended before
    /// the fault is valid.
    pub fn advance(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Malformed> {
        let mut rest = input;
        while !rest.is_empty() {
            match self.step(&mut rest, output) {
                Ok(Step::More) => {}
                Ok(Step::BlockWritten) => break,
                Err(malformed) => {
                    self.state = State::Failed(malformed);
                    self.open = None;
                    return Err(malformed);
                }
            }
        }
        Ok(input.len() - rest.len())
    }

    /// Bytes held now, by capacity.
    #[must_use]
    pub fn held(&self) -> usize {
        let payload = match &self.state {
            State::Gathering(_, payload) => payload.capacity(),
            _ => 0,
        };
        let open = self.open.as_ref().map_or(0, HeaderBlock::room);
        payload + open + self.decoder.table_size()
    }

    fn step(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Result<Step, Malformed> {
        match std::mem::replace(&mut self.state, State::NEXT_HEAD) {
            State::Preface(seen) => {
                self.state = pass_preface(seen, input, output)?;
                Ok(Step::More)
            }
            State::Head(bytes, seen) => self.read_head(bytes, seen, input, output),
            State::Passing(left) => {
                let piece = take(input, left);
                output.extend_from_slice(piece);
                self.state = State::passing(left - piece.len());
                Ok(Step::More)
            }
            State::Gathering(head, payload) => self.gather(head, payload, input, output),
            State::Failed(malformed) => Err(malformed),
        }
    }

    fn read_head(
        &mut self,
        mut bytes: [u8; HEAD_SIZE],
        seen: usize,
        input: &mut &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Step, Malformed> {
        let piece = take(input, HEAD_SIZE - seen);
        let end = seen + piece.len();
        bytes[seen..end].copy_from_slice(piece);
        if end < HEAD_SIZE {
            self.state = State::Head(bytes, end);
            return Ok(Step::More);
        }
        let head = Head::parse(bytes);
        self.check_head(head).map_err(|fault| at(head, fault))?;
        if matches!(head.kind, Kind::HEADERS | Kind::CONTINUATION) {
            return self.gather(head, Vec::new(), input, output);
        }
        output.extend_from_slice(&bytes);
        self.state = State::passing(head.length);
        Ok(Step::More)
    }

    /// What the header alone shows, before anything of its frame is stored.
    fn check_head(&self, head: Head) -> Result<(), Fault> {
        if head.length > MAX_PAYLOAD {
            return Err(Fault::Length { length: head.length });
        }
        match (&self.open, head.kind) {
            (Some(open), Kind::CONTINUATION) if head.stream_id() == open.stream_id() => Ok(()),
            (Some(open), _) => Err(Fault::OpenBlock { open: open.stream_id() }),
            (None, Kind::CONTINUATION) => Err(Fault::NoOpenBlock),
            (None, Kind::PUSH_PROMISE) => Err(Fault::Push),
            (None, _) => Ok(()),
        }
    }

    /// Stores the payload of a frame that is part of a header block until it is complete.
    fn gather(
        &mut self,
        head: Head,
        mut payload: Vec<u8>,
        input: &mut &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Step, Malformed> {
        payload.extend_from_slice(take(input, head.length - payload.len()));
        if payload.len() < head.length {
            self.state = State::Gathering(head, payload);
            return Ok(Step::More);
        }
        self.close_frame(head, &payload, output).map_err(|fault| at(head, fault))
    }

    fn close_frame(
        &mut self,
        head: Head,
        payload: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Step, Fault> {
        let block = match self.open.take() {
            Some(open) => open.continued(payload)?,
            None => HeaderBlock::begun(head, payload)?,
        };
        if head.has(flag::END_HEADERS) {
            self.write_block(&block, output)?;
            return Ok(Step::BlockWritten);
        }
        self.open = Some(block);
        Ok(Step::More)
    }

    fn write_block(&mut self, block: &HeaderBlock, output: &mut Vec<u8>) -> Result<(), HpackError> {
        let mut literals = Vec::new();
        self.decoder.decode(block.encoded(), |field| {
            hpack::encode_literal(with_acceptable_authority(field), &mut literals);
        })?;
        block.write_with(&literals, output);
        Ok(())
    }
}

impl Default for AuthorityNormaliser {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    const NEXT_HEAD: Self = Self::Head([0; HEAD_SIZE], 0);

    fn passing(left: usize) -> Self {
        match left {
            0 => Self::NEXT_HEAD,
            left => Self::Passing(left),
        }
    }
}

/// What one step did.
enum Step {
    More,
    /// A header block was appended to the output.
    BlockWritten,
}

fn at(head: Head, fault: Fault) -> Malformed {
    Malformed::Frame { kind: head.kind, stream: head.stream_id(), fault }
}

/// Passes the received part of the preface.
fn pass_preface(seen: usize, input: &mut &[u8], output: &mut Vec<u8>) -> Result<State, Malformed> {
    let expected = &PREFACE[seen..];
    let piece = take(input, expected.len());
    let good = piece.iter().zip(expected).take_while(|(found, byte)| found == byte);
    let good = good.count();
    output.extend_from_slice(&piece[..good]);
    match piece.get(good) {
        Some(&found) => Err(Malformed::Preface { offset: seen + good, found }),
        None if good == expected.len() => Ok(State::NEXT_HEAD),
        None => Ok(State::Preface(seen + good)),
    }
}

/// Splits at most `most` bytes off the front.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (piece, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    piece
}

/// h2 calls the same function; what that refuses ends a request with `PROTOCOL_ERROR`.
fn with_acceptable_authority(field: Field<'_>) -> Field<'_> {
    if field.name == b":authority" && Authority::try_from(field.value).is_err() {
        Field { value: LOCALHOST, ..field }
    } else {
        field
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::tests::frame;
    use super::super::huffman::tests::hex;
    use super::*;

    const SOCKET: &str = "/var/lib/kubelet/device-plugins/iluvatar-gpu.sock";
    const ESCAPED: &str = "%2Fvar%2Flib%2Fkubelet%2Fdevice-plugins%2Filuvatar-gpu.sock";
    const WHOLE: u8 = flag::END_HEADERS;

    /// What the server reads of all these bytes, and what ends the connection.
    fn normalised(input: &[u8]) -> (Vec<u8>, Result<(), Malformed>) {
        normalised_in_pieces(input, &[input.len()])
    }

    /// The same, with the bytes cut into pieces of these lengths, again and again.
    fn normalised_in_pieces(input: &[u8], lengths: &[usize]) -> (Vec<u8>, Result<(), Malformed>) {
        let mut normaliser = AuthorityNormaliser::new();
        let mut output = Vec::new();
        let mut rest = input;
        for length in lengths.iter().cycle() {
            let mut piece = take(&mut rest, (*length).max(1));
            if piece.is_empty() {
                break;
            }
            while !piece.is_empty() {
                let most = output.len() + piece.len() + AuthorityNormaliser::MAX_GROWTH;
                match normaliser.advance(piece, &mut output) {
                    Ok(taken) => piece = &piece[taken..],
                    Err(malformed) => return (output, Err(malformed)),
                }
                assert!(output.len() <= most);
                assert!(normaliser.held() <= AuthorityNormaliser::MAX_HELD);
            }
        }
        (output, Ok(()))
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        [&PREFACE[..], &frames.concat()].concat()
    }

    fn literal(name: &str, value: &str) -> Vec<u8> {
        let mut block = Vec::new();
        let field = Field { name: name.as_bytes(), value: value.as_bytes(), never_indexed: false };
        hpack::encode_literal(field, &mut block);
        block
    }

    fn headers(block: &[u8]) -> Vec<u8> {
        frame(Kind::HEADERS, WHOLE, 1, block)
    }

    #[track_caller]
    fn check(frames: &[Vec<u8>], expected: &[Vec<u8>]) {
        let (output, result) = normalised(&connection(frames));
        assert_eq!(result, Ok(()));
        assert_eq!(output, connection(expected));
    }

    #[track_caller]
    fn check_refused(frames: &[Vec<u8>], kind: Kind, expected: impl Into<Fault>) {
        let fault = expected.into();
        let malformed = Malformed::Frame { kind, stream: 1, fault };
        assert_eq!(normalised(&connection(frames)).1, Err(malformed));
    }

    #[track_caller]
    fn check_authority(sent: &str, expected: &str) {
        let forwarded = literal(":authority", expected);
        check(&[headers(&literal(":authority", sent))], &[headers(&forwarded)]);
    }

    #[test]
    fn a_socket_path_becomes_localhost() {
        check_authority(SOCKET, "localhost");
        check_authority(ESCAPED, "localhost");
        check_authority("", "localhost");
    }

    #[test]
    fn an_authority_that_h2_accepts_is_kept() {
        check_authority("localhost", "localhost");
        check_authority("node-1.example:10250", "node-1.example:10250");
        check_authority("[::1]:80", "[::1]:80");
    }

    #[test]
    fn other_fields_are_kept_whatever_they_hold() {
        let path = literal(":path", ESCAPED);
        check(&[headers(&path)], &[headers(&path)]);
        check(&[headers(b"")], &[headers(b"")]);
    }

    #[test]
    fn a_field_that_must_not_be_indexed_stays_so() {
        let field = hex("10 01 6b 01 76");
        check(&[headers(&field)], &[headers(&field)]);
    }

    #[test]
    fn a_path_that_was_indexed_becomes_localhost_each_time() {
        let path = [&[0x41, 49], SOCKET.as_bytes()].concat();
        let localhost = headers(&literal(":authority", "localhost"));
        check(&[headers(&path), headers(&[0xbe])], &[localhost.clone(), localhost]);
    }

    #[test]
    fn a_block_in_several_frames_becomes_one() {
        let block = literal(":authority", SOCKET);
        check(
            &[
                frame(Kind::HEADERS, flag::END_STREAM, 3, &block[..5]),
                frame(Kind::CONTINUATION, 0, 3, b""),
                frame(Kind::CONTINUATION, WHOLE, 3, &block[5..]),
            ],
            &[frame(
                Kind::HEADERS,
                WHOLE | flag::END_STREAM,
                3,
                &literal(":authority", "localhost"),
            )],
        );
    }

    #[test]
    fn frames_without_header_blocks_pass_as_they_are() {
        let frames = [
            frame(Kind(0), 0x09, 1, b"\x02datapp"),
            frame(Kind(4), 0, 0, b"\0\x04\0\0\xff\xff"),
            frame(Kind(4), 1, 0, b""),
            frame(Kind(6), 0, 0, b"pingpong"),
            frame(Kind(0xfa), 0xff, 0x8000_0001, b"grease"),
            frame(Kind(0), 0, 1, &[7; MAX_PAYLOAD]),
        ];
        check(&frames, &frames);
    }

    #[test]
    fn data_passes_before_its_frame_is_complete() {
        let mut input = connection(&[frame(Kind(0), 0, 1, &[7; 100])]);
        input.truncate(input.len() - 50);
        assert_eq!(normalised(&input), (input, Ok(())));
    }

    #[test]
    fn a_header_block_waits_for_its_last_byte() {
        let input = connection(&[headers(&literal(":authority", SOCKET))]);
        let (output, result) = normalised(&input[..input.len() - 1]);
        assert_eq!((&output[..], result), (&PREFACE[..], Ok(())));
    }

    #[test]
    fn a_peer_that_speaks_no_http2_is_refused_at_the_first_wrong_byte() {
        let refused = |offset, found| Err(Malformed::Preface { offset, found });
        assert_eq!(normalised(b"GET / HTTP/1.1\r\n").1, refused(0, b'G'));
        assert_eq!(normalised(b"PRI * HTTP/1.1\r\n").1, refused(11, b'1'));
    }

    #[test]
    fn a_frame_has_at_most_the_default_size() {
        let long = frame(Kind(0), 0, 1, &vec![0; MAX_PAYLOAD + 1]);
        let length = MAX_PAYLOAD + 1;
        check_refused(&[long], Kind(0), Fault::Length { length });
    }

    #[test]
    fn nothing_comes_between_the_frames_of_a_block() {
        let begun = frame(Kind::HEADERS, 0, 3, b"");
        let open = Fault::OpenBlock { open: 3 };
        check_refused(&[begun.clone(), frame(Kind(0), 0, 1, b"")], Kind(0), open);
        let other = frame(Kind::CONTINUATION, WHOLE, 1, b"");
        check_refused(&[begun, other], Kind::CONTINUATION, open);
    }

    #[test]
    fn a_continuation_continues_something() {
        let frames = [frame(Kind::CONTINUATION, WHOLE, 1, b"")];
        check_refused(&frames, Kind::CONTINUATION, Fault::NoOpenBlock);
    }

    #[test]
    fn a_client_does_not_push() {
        let frames = [frame(Kind::PUSH_PROMISE, WHOLE, 1, b"\0\0\0\x02")];
        check_refused(&frames, Kind::PUSH_PROMISE, Fault::Push);
    }

    #[test]
    fn a_flood_of_continuations_is_refused() {
        let mut frames = vec![frame(Kind::HEADERS, 0, 1, b"")];
        frames.resize(usize::from(u8::MAX), frame(Kind::CONTINUATION, 0, 1, b""));
        check_refused(&frames, Kind::CONTINUATION, BlockError::ManyContinuations);
    }

    #[test]
    fn one_call_writes_one_block_at_most() {
        let mut normaliser = AuthorityNormaliser::new();
        let first = connection(&[headers(b"")]);
        let input = [first.clone(), headers(b"")].concat();
        let mut output = Vec::new();
        assert_eq!(normaliser.advance(&input, &mut output), Ok(first.len()));
        assert_eq!(output, first);
        assert_eq!(normaliser.advance(&input[first.len()..], &mut output), Ok(HEAD_SIZE));
        assert_eq!(output, input);
    }

    #[test]
    fn a_fault_lets_an_open_block_go() {
        let mut normaliser = AuthorityNormaliser::new();
        let begun = frame(Kind::HEADERS, 0, 1, b"block");
        let input = connection(&[begun, frame(Kind(6), 0, 0, b"pingpong")]);
        normaliser.advance(&input, &mut Vec::new()).unwrap_err();
        assert_eq!(normaliser.held(), 0);
    }

    #[test]
    fn the_largest_block_is_held_within_the_bound() {
        let mut normaliser = AuthorityNormaliser::new();
        let piece = frame(Kind::CONTINUATION, 0, 1, &[0; MAX_PAYLOAD]);
        let begun = frame(Kind::HEADERS, 0, 1, &[0; MAX_PAYLOAD]);
        let incomplete = &piece[..piece.len() - 1];
        let pieces = [&begun[..], &piece, &piece, &piece, incomplete].map(<[u8]>::to_vec);
        let input = connection(&pieces);
        let mut output = Vec::new();
        assert_eq!(normaliser.advance(&input, &mut output), Ok(input.len()));
        let held = normaliser.held();
        assert!((MAX_BLOCK..=AuthorityNormaliser::MAX_HELD).contains(&held), "{held}");
    }

    #[test]
    fn a_faulty_block_ends_the_connection_for_good() {
        let mut normaliser = AuthorityNormaliser::new();
        let mut output = Vec::new();
        let input = connection(&[headers(&[0x80]), headers(b"")]);
        let malformed = normaliser.advance(&input, &mut output).unwrap_err();
        assert_eq!(
            malformed.to_string(),
            "HEADERS frame on stream 1: index 0 is invalid: the tables end at 61"
        );
        assert_eq!(normaliser.advance(&headers(b""), &mut output), Err(malformed));
        assert_eq!(output, PREFACE);
    }

    #[test]
    fn errors_name_the_frame_the_value_and_the_rule() {
        let frame = |kind, fault| Malformed::Frame { kind, stream: 7, fault };
        let cases = [
            (
                Malformed::Preface { offset: 3, found: b'X' },
                "byte 3 of the connection is 0x58: not the preface of HTTP/2",
            ),
            (
                frame(Kind(0), Fault::Length { length: 20_000 }),
                "DATA frame on stream 7: 20000 bytes of payload exceed the limit of 16384",
            ),
            (
                frame(Kind(6), Fault::OpenBlock { open: 5 }),
                "PING frame on stream 7: the header block of stream 5 must be continued first",
            ),
            (
                frame(Kind::HEADERS, BlockError::ShortPayload { length: 4 }.into()),
                "HEADERS frame on stream 7: 4 bytes of payload are too few for its padding and its priority",
            ),
            (
                frame(Kind::CONTINUATION, BlockError::ManyContinuations.into()),
                "CONTINUATION frame on stream 7: the header block has more than 32 continuations",
            ),
            (
                frame(Kind::CONTINUATION, BlockError::Long.into()),
                "CONTINUATION frame on stream 7: the header block is longer than 65536 bytes",
            ),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    /// Header blocks that a peer could send, and some that none should.
    fn block() -> impl Strategy<Value = Vec<u8>> {
        let field = prop_oneof![
            (0x80..=0xffu8).prop_map(|index| vec![index]),
            Just([&[0x41, 49], SOCKET.as_bytes()].concat()),
            Just(hex("41 86 a0e41d139d09")),
            Just(literal(":authority", ESCAPED)),
            Just([&hex("4001 61 7f a11e")[..], &[b'x'; 4000]].concat()),
            (0..32u8).prop_map(|size| vec![0x20 | size]),
            any::<[u8; 3]>().prop_map(|bytes| bytes.to_vec()),
        ];
        prop::collection::vec(field, 0..30).prop_map(|fields| fields.concat())
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let kind = prop_oneof![4 => Just(1u8), 2 => Just(9), 2 => Just(0), 1 => any::<u8>()];
        let flags = prop_oneof![3 => Just(WHOLE), 2 => Just(0u8), 1 => any::<u8>()];
        (kind, flags, 0..3u32, block())
            .prop_map(|(kind, flags, stream, block)| frame(Kind(kind), flags, stream, &block))
    }

    proptest! {
        #[test]
        fn the_pieces_that_bytes_come_in_change_nothing(
            frames in prop::collection::vec(any_frame(), 0..12),
            lengths in prop::collection::vec(1..200usize, 1..20),
        ) {
            let input = connection(&frames);
            prop_assert_eq!(normalised_in_pieces(&input, &lengths), normalised(&input));
            prop_assert_eq!(normalised_in_pieces(&input, &[1]), normalised(&input));
        }

        #[test]
        fn any_bytes_are_taken_or_refused_within_the_bounds(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let _within_bounds = normalised_in_pieces(&[&PREFACE[..], &bytes].concat(), &[97]);
        }

        #[test]
        fn what_comes_out_passes_a_second_time_unchanged(
            frames in prop::collection::vec(any_frame(), 0..12),
        ) {
            let (once, _) = normalised(&connection(&frames));
            prop_assert_eq!(normalised(&once), (once, Ok(())));
        }
    }
}
