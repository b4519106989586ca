//! The preface of an HTTP/2 connection, and the nine-byte header of each frame.

use std::fmt;

/// The first bytes that every client sends (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's head.
pub const HEAD_SIZE: usize = 9;

/// The default limit of a payload (`SETTINGS_MAX_FRAME_SIZE`), in bytes.
pub const MAX_PAYLOAD: usize = 16_384;

/// What a frame is for: RFC 9113 §6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub u8);

impl Kind {
    /// Opens a header block.
    pub const HEADERS: Self = Self(1);
    /// Opens a header block as well; only servers may send it.
    pub const PUSH_PROMISE: Self = Self(5);
    /// Continues the header block of the frame before.
    pub const CONTINUATION: Self = Self(9);
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 10] = [
            "DATA",
            "HEADERS",
            "PRIORITY",
            "RST_STREAM",
            "SETTINGS",
            "PUSH_PROMISE",
            "PING",
            "GOAWAY",
            "WINDOW_UPDATE",
            "CONTINUATION",
        ];
        match NAMES.get(usize::from(self.0)) {
            Some(name) => f.write_str(name),
            None => write!(f, "type {:#04x}", self.0),
        }
    }
}

/// Flags of HEADERS and CONTINUATION.
pub mod flag {
    /// The request has no body or trailer after this block.
    pub const END_STREAM: u8 = 0x01;
    /// No CONTINUATION follows.
    pub const END_HEADERS: u8 = 0x04;
    /// The first byte is the length of the padding at the end.
    pub const PADDED: u8 = 0x08;
    /// Five bytes of priority precede the block.
    pub const PRIORITY: u8 = 0x20;
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of payload that follow; 24 bits.
    pub length: usize,
    /// What the frame is for.
    pub kind: Kind,
    /// Their meaning depends on the kind.
    pub flags: u8,
    /// The stream, as sent: the reserved highest bit may be set.
    pub stream: u32,
}

impl Head {
    /// Reads a head; any nine bytes are one.
    #[must_use]
    pub fn parse(bytes: [u8; HEAD_SIZE]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        Self {
            length: usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2),
            kind: Kind(kind),
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
        }
    }

    /// As [`Head::parse`] reads it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEAD_SIZE] {
        let [l2, l1, l0, ..] = self.length.to_le_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, self.kind.0, self.flags, s0, s1, s2, s3]
    }

    /// Whether a flag of [`flag`] is set.
    #[must_use]
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The stream's number without the reserved bit.
    #[must_use]
    pub fn stream_id(self) -> u32 {
        self.stream & 0x7fff_ffff
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One whole frame.
    pub(in crate::wire::http2) fn frame(
        kind: Kind,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> Vec<u8> {
        let head = Head { length: payload.len(), kind, flags, stream };
        [&head.to_bytes(), payload].concat()
    }

    #[test]
    fn a_head_is_read_as_it_is_written() {
        let bytes = [0x01, 0x02, 0x03, 0x01, 0x25, 0x80, 0x00, 0x00, 0x07];
        let head =
            Head { length: 0x01_0203, kind: Kind::HEADERS, flags: 0x25, stream: 0x8000_0007 };
        assert_eq!(Head::parse(bytes), head);
        assert_eq!(head.to_bytes(), bytes);
    }

    #[test]
    fn the_reserved_bit_is_no_part_of_the_stream() {
        assert_eq!(Head::parse([0, 0, 0, 0, 0, 0x80, 0, 0, 7]).stream_id(), 7);
    }

    #[test]
    fn a_kind_has_the_name_of_the_standard() {
        let names = [0, 1, 5, 9, 10, 255].map(|number| Kind(number).to_string());
        let expected =
            ["DATA", "HEADERS", "PUSH_PROMISE", "CONTINUATION", "type 0x0a", "type 0xff"];
        assert_eq!(names, expected);
    }
}
