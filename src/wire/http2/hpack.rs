//! Header blocks to fields and back: HPACK, RFC 7541.
//!
//! Decoding keeps the peer's dynamic table; encoding uses no table and no compression, so the reader
//! keeps no state.
//!
//! No crate can decode a block so that it can be encoded again. An intermediary must keep the mark of
//! fields that are never indexed (RFC 7541 §7.1.3). `loona-hpack` 0.4, the maintained fork of `hpack`,
//! bounds integers and, on request, the dynamic table; but it drops that mark, its encoder cannot write
//! it, its callback cannot stop at a list that is too large, and it accepts a change of the table's size
//! between fields. `httlib-hpack` (2020) accepts that too, and moves the rest of the block for every
//! field.

use std::borrow::Cow;

use super::header_table::{DEFAULT_TABLE_SIZE, HeaderTable, field_size};
use super::huffman::{self, HuffmanError};

/// The largest header list that is decoded, in bytes as [`field_size`] counts. Servers announce less
/// (hyper 16 KiB) and themselves refuse what is between.
pub const MAX_LIST_SIZE: usize = 64 * 1024;

/// One header field of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Pseudo-headers begin with a colon.
    pub name: &'a [u8],
    /// Any bytes.
    pub value: &'a [u8],
    /// No hop may compress it (RFC 7541 §7.1.3).
    pub never_indexed: bool,
}

/// Why a header block cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HpackError {
    /// The block ends inside of a field.
    #[error("the header block ends inside of a field")]
    Truncated,
    /// More than 28 bits beyond the prefix, or padded with zeros to as many.
    #[error("an integer in the header block takes more than 5 bytes")]
    LongInteger,
    /// Neither table has it.
    #[error("index {index} is invalid: the tables end at {last}")]
    Index {
        /// As sent.
        index: usize,
        /// The last valid one.
        last: usize,
    },
    /// RFC 7541 §4.2: the size may change only at the beginning of a block.
    #[error("the size of the dynamic table changes after a field")]
    LateResize,
    /// RFC 7541 §6.3: at most what the reader announced.
    #[error("a dynamic table of {size} bytes exceeds the limit of {DEFAULT_TABLE_SIZE}")]
    TableSize {
        /// As sent.
        size: usize,
    },
    /// The fields of one block.
    #[error("the header list is larger than {MAX_LIST_SIZE} bytes")]
    LongList,
    /// In a name or a value.
    #[error(transparent)]
    Huffman(#[from] HuffmanError),
}

/// Reads the header blocks of one connection, in order.
///
/// The largest dynamic table is the protocol's default, 4096 bytes: right for a server that
/// announces no `SETTINGS_HEADER_TABLE_SIZE`.
#[derive(Debug, Default)]
pub struct Decoder {
    table: HeaderTable,
}

impl Decoder {
    /// Calls `each` for every field of a whole header block.
    ///
    /// # Errors
    /// The block is malformed, or its list is larger than [`MAX_LIST_SIZE`]. `each` was called for the
    /// fields before the fault; later blocks of the connection cannot be decoded.
    pub fn decode(
        &mut self,
        block: &[u8],
        mut each: impl FnMut(Field<'_>),
    ) -> Result<(), HpackError> {
        let mut block = Reader(block);
        self.decode_resizes(&mut block)?;
        let mut list_size = 0;
        while let Some(first) = block.peek() {
            self.decode_field(first, &mut block, |field| {
                list_size += field_size(field.name, field.value);
                if list_size > MAX_LIST_SIZE {
                    return Err(HpackError::LongList);
                }
                each(field);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The size of the dynamic table in bytes, as [`field_size`] counts.
    #[must_use]
    pub fn table_size(&self) -> usize {
        self.table.size()
    }

    fn decode_resizes(&mut self, block: &mut Reader<'_>) -> Result<(), HpackError> {
        while block.peek().is_some_and(is_resize) {
            let size = block.integer(5)?;
            if size > DEFAULT_TABLE_SIZE {
                return Err(HpackError::TableSize { size });
            }
            self.table.resize(size);
        }
        Ok(())
    }

    /// RFC 7541 §6: the first byte is the kind of representation.
    fn decode_field(
        &mut self,
        first: u8,
        block: &mut Reader<'_>,
        each: impl FnOnce(Field<'_>) -> Result<(), HpackError>,
    ) -> Result<(), HpackError> {
        if first & INDEXED != 0 {
            let (name, value) = self.indexed(block.integer(7)?)?;
            let never_indexed = false;
            return each(Field { name, value, never_indexed });
        }
        if is_resize(first) {
            return Err(HpackError::LateResize);
        }
        let adds = first & ADDED != 0;
        let name = match block.integer(if adds { 6 } else { 4 })? {
            0 => block.string()?,
            // Owned, because adding the field may evict the one that its name refers to.
            index => Cow::Owned(self.indexed(index)?.0.to_vec()),
        };
        let value = block.string()?;
        let never_indexed = !adds && first & NEVER_INDEXED != 0;
        each(Field { name: &name, value: &value, never_indexed })?;
        if adds {
            self.table.insert(&name, &value);
        }
        Ok(())
    }

    fn indexed(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        self.table.field(index).ok_or(HpackError::Index { index, last: self.table.last_index() })
    }
}

/// Appends the field to a block as a literal that changes no table.
pub fn encode_literal(field: Field<'_>, block: &mut Vec<u8>) {
    block.push(if field.never_indexed { NEVER_INDEXED } else { 0 });
    for text in [field.name, field.value] {
        encode_length(text.len(), block);
        block.extend_from_slice(text);
    }
}

/// RFC 7541 §5.1, with the seven-bit prefix of a string that is not Huffman-coded.
fn encode_length(length: usize, block: &mut Vec<u8>) {
    const PREFIX: u8 = 0x7f;
    let Some(mut rest) = length.checked_sub(usize::from(PREFIX)) else {
        block.push(length.to_le_bytes()[0]);
        return;
    };
    block.push(PREFIX);
    while rest > 0x7f {
        block.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    block.push(rest.to_le_bytes()[0]);
}

/// First byte of a field that is only an index.
const INDEXED: u8 = 0b1000_0000;
/// First byte of a literal that is added to the dynamic table.
const ADDED: u8 = 0b0100_0000;
/// First byte of a literal that is never added to a table; zero where it may be.
const NEVER_INDEXED: u8 = 0b0001_0000;
/// First bit of a Huffman-coded string.
const HUFFMAN: u8 = 0b1000_0000;

fn is_resize(first: u8) -> bool {
    first & 0b1110_0000 == 0b0010_0000
}

/// What is left of a header block.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn byte(&mut self) -> Result<u8, HpackError> {
        let (&byte, rest) = self.0.split_first().ok_or(HpackError::Truncated)?;
        self.0 = rest;
        Ok(byte)
    }

    /// RFC 7541 §5.1: the low `prefix` bits, and if all are set up to four more bytes.
    fn integer(&mut self, prefix: u8) -> Result<usize, HpackError> {
        let mask = u8::MAX >> (8 - prefix);
        let start = self.byte()? & mask;
        let mut value = usize::from(start);
        if start < mask {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(HpackError::LongInteger)
    }

    /// RFC 7541 §5.2. At most 8/5 of the block is allocated.
    fn string(&mut self) -> Result<Cow<'a, [u8]>, HpackError> {
        let coded = self.peek().is_some_and(|first| first & HUFFMAN != 0);
        let length = self.integer(7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(HpackError::Truncated)?;
        self.0 = rest;
        if !coded {
            return Ok(Cow::Borrowed(text));
        }
        let mut decoded = Vec::new();
        huffman::decode(text, &mut decoded)?;
        Ok(Cow::Owned(decoded))
    }
}

#[cfg(test)]
mod tests {
    use super::super::huffman::tests::hex;
    use super::*;

    fn lines(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, HpackError> {
        let mut lines = Vec::new();
        decoder.decode(block, |field| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let mark = if field.never_indexed { " (never indexed)" } else { "" };
            lines.push(format!("{}: {}{mark}", text(field.name), text(field.value)));
        })?;
        Ok(lines)
    }

    #[track_caller]
    fn check(decoder: &mut Decoder, block: &str, expected: &[&str]) {
        assert_eq!(lines(decoder, &hex(block)).unwrap(), expected);
    }

    #[track_caller]
    fn check_refused(block: &str, expected: HpackError) {
        assert_eq!(lines(&mut Decoder::default(), &hex(block)), Err(expected));
    }

    #[test]
    fn every_kind_of_field_decodes() {
        // RFC 7541 C.2.1 to C.2.4.
        let new = Decoder::default;
        check(
            &mut new(),
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            &["custom-key: custom-header"],
        );
        check(&mut new(), "040c 2f73 616d 706c 652f 7061 7468", &[":path: /sample/path"]);
        check(
            &mut new(),
            "1008 7061 7373 776f 7264 0673 6563 7265 74",
            &["password: secret (never indexed)"],
        );
        check(&mut new(), "82", &[":method: GET"]);
    }

    #[test]
    fn later_requests_refer_to_earlier_ones() {
        // RFC 7541 C.3.
        let mut decoder = Decoder::default();
        let request = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        check(&mut decoder, "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", &request);
        let next = [&request[..], &["cache-control: no-cache"]].concat();
        check(&mut decoder, "8286 84be 5808 6e6f 2d63 6163 6865", &next);
        check(
            &mut decoder,
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            &[
                ":method: GET",
                ":scheme: https",
                ":path: /index.html",
                ":authority: www.example.com",
                "custom-key: custom-value",
            ],
        );
        assert_eq!(decoder.table_size(), 164);
    }

    #[test]
    fn huffman_coded_requests_refer_to_earlier_ones() {
        // RFC 7541 C.4.
        let mut decoder = Decoder::default();
        let request = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        check(&mut decoder, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", &request);
        let next = [&request[..], &["cache-control: no-cache"]].concat();
        check(&mut decoder, "8286 84be 5886 a8eb 1064 9cbf", &next);
    }

    #[test]
    fn a_small_table_forgets_its_oldest_fields() {
        // RFC 7541 C.6, where the table has 256 bytes: the size comes first.
        let mut decoder = Decoder::default();
        check(
            &mut decoder,
            "3fe1 01 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 \
             82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            &[
                ":status: 302",
                "cache-control: private",
                "date: Mon, 21 Oct 2013 20:13:21 GMT",
                "location: https://www.example.com",
            ],
        );
        assert_eq!(decoder.table_size(), 222);
        check(
            &mut decoder,
            "4883 640e ffc1 c0bf",
            &[
                ":status: 307",
                "cache-control: private",
                "date: Mon, 21 Oct 2013 20:13:21 GMT",
                "location: https://www.example.com",
            ],
        );
        // The 302 of the first response was evicted by the 307.
        assert_eq!(lines(&mut decoder, &hex("c2")), Err(HpackError::Index { index: 66, last: 65 }));
    }

    #[test]
    fn a_name_may_come_from_the_field_that_is_evicted_for_it() {
        let mut decoder = Decoder::default();
        // A table of 40 bytes has room for one of these.
        check(&mut decoder, "3f09 4003 6162 63 01 31", &["abc: 1"]);
        check(&mut decoder, "7e 01 32", &["abc: 2"]);
        check(&mut decoder, "be", &["abc: 2"]);
    }

    #[test]
    fn integers_of_several_bytes_decode() {
        // RFC 7541 C.1.2: 1337 with a prefix of five bits, here as a table size.
        let mut decoder = Decoder::default();
        check(&mut decoder, "3f9a0a 82", &[":method: GET"]);
        decoder.table.insert(b"", &[b'x'; 1337 - 32]);
        assert_eq!(decoder.table_size(), 1337);
        decoder.table.insert(b"", &[b'x'; 1338 - 32]);
        assert_eq!(decoder.table_size(), 0);
    }

    #[test]
    fn an_integer_has_a_bound() {
        check_refused("ff 80808080 00", HpackError::LongInteger);
        check_refused("ff ffffffff ffff", HpackError::LongInteger);
    }

    #[test]
    fn a_block_ends_where_a_field_ends() {
        check_refused("41", HpackError::Truncated);
        check_refused("41 05 61", HpackError::Truncated);
        check_refused("ff", HpackError::Truncated);
        check_refused("00 01 61", HpackError::Truncated);
    }

    #[test]
    fn an_index_is_in_one_of_the_tables() {
        check_refused("80", HpackError::Index { index: 0, last: 61 });
        check_refused("be", HpackError::Index { index: 62, last: 61 });
        check_refused("7f 00 00", HpackError::Index { index: 63, last: 61 });
    }

    #[test]
    fn the_table_is_resized_at_the_beginning_of_a_block_alone() {
        check(&mut Decoder::default(), "20 3fe11f 82", &[":method: GET"]);
        check_refused("82 20", HpackError::LateResize);
    }

    #[test]
    fn the_table_stays_at_or_below_the_default_size() {
        check_refused("3fe21f", HpackError::TableSize { size: 4097 });
    }

    #[test]
    fn a_block_of_one_byte_fields_cannot_grow_past_the_bound() {
        let mut decoder = Decoder::default();
        let mut block = hex("4001 61 7f a11e");
        block.extend_from_slice(&[b'x'; 4000]);
        check_size(&mut decoder, &block, Ok(4000));
        // Each byte now stands for 4,033 bytes of a list: 16 of them fit into 64 KiB.
        check_size(&mut decoder, &[0xbe; 16], Ok(64_000));
        check_size(&mut decoder, &[0xbe; 17], Err(HpackError::LongList));
    }

    #[track_caller]
    fn check_size(decoder: &mut Decoder, block: &[u8], expected: Result<usize, HpackError>) {
        let mut size = 0;
        let result = decoder.decode(block, |field| size += field.value.len());
        assert_eq!(result.map(|()| size), expected);
    }

    #[test]
    fn errors_say_what_was_sent_and_what_is_allowed() {
        let cases = [
            (
                HpackError::Index { index: 70, last: 61 },
                "index 70 is invalid: the tables end at 61",
            ),
            (
                HpackError::TableSize { size: 8192 },
                "a dynamic table of 8192 bytes exceeds the limit of 4096",
            ),
            (
                HpackError::Huffman(HuffmanError::Padding { bits: 9 }),
                "a Huffman-coded string ends in 9 bits that are not valid padding",
            ),
            (HpackError::LongList, "the header list is larger than 65536 bytes"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            list in proptest::collection::vec((
                proptest::collection::vec(proptest::num::u8::ANY, 0..300),
                proptest::collection::vec(proptest::num::u8::ANY, 0..300),
                proptest::bool::ANY,
            ), 0..20),
        ) {
            let mut block = Vec::new();
            for (name, value, never_indexed) in &list {
                encode_literal(Field { name, value, never_indexed: *never_indexed }, &mut block);
            }
            let mut decoder = Decoder::default();
            let mut decoded = Vec::new();
            let result = decoder.decode(&block, |field| {
                decoded.push((field.name.to_vec(), field.value.to_vec(), field.never_indexed));
            });
            assert_eq!(result, Ok(()));
            assert_eq!(decoded, list);
            assert_eq!(decoder.table_size(), 0);
        }
    }
}
