//! Any client's bytes, in any pieces, against the authority normaliser: it never panics, stays
//! within its bounds, and the pieces change nothing. The first byte sets the lengths of the
//! pieces; the preface is given, because no fuzzer should have to guess it.

#![no_main]

use ix_device_plugin::wire::http2::authority::{AuthorityNormaliser, Malformed};
use libfuzzer_sys::fuzz_target;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fuzz_target!(|bytes: &[u8]| {
    let Some((&seed, frames)) = bytes.split_first() else {
        return;
    };
    let connection = [PREFACE, frames].concat();
    let whole = normalised(&connection, connection.len());
    assert_eq!(normalised(&connection, usize::from(seed) + 1), whole);
    assert_eq!(normalised(&connection, 1), whole);
});

fn normalised(connection: &[u8], length: usize) -> (Vec<u8>, Result<(), Malformed>) {
    let mut normaliser = AuthorityNormaliser::new();
    let mut output = Vec::new();
    for mut piece in connection.chunks(length) {
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
