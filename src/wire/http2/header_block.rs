//! A header block as frames carry it: one HEADERS frame and its CONTINUATION frames.

use super::frame::{Head, Kind, MAX_PAYLOAD, flag};

/// The largest header block that is assembled, encoded, in bytes.
pub const MAX_BLOCK: usize = 64 * 1024;

/// How many CONTINUATION frames one header block may have. Four full ones reach [`MAX_BLOCK`]; the
/// others are for peers that send small pieces.
pub const MAX_CONTINUATIONS: u8 = 32;

/// Why frames are not a valid header block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// RFC 9113 §6.2.
    #[error("{length} bytes of payload are too few for its padding and its priority")]
    ShortPayload {
        /// The whole payload.
        length: usize,
    },
    /// Our bound.
    #[error("the header block has more than {MAX_CONTINUATIONS} continuations")]
    ManyContinuations,
    /// Our bound.
    #[error("the header block is longer than {MAX_BLOCK} bytes")]
    Long,
}

/// The frames of one header block so far, without their padding.
#[derive(Debug)]
pub struct HeaderBlock {
    /// Of the HEADERS frame that began it.
    head: Head,
    priority: Option<Priority>,
    encoded: Vec<u8>,
    continuations: u8,
}

/// The stream that a request depends on and its weight: RFC 7540 §6.2.
type Priority = [u8; 5];

impl HeaderBlock {
    /// From a HEADERS frame.
    ///
    /// # Errors
    /// The payload is shorter than its flags and its padding require.
    pub fn begun(head: Head, payload: &[u8]) -> Result<Self, BlockError> {
        let (priority, fragment) = split_payload(head, payload)
            .ok_or(BlockError::ShortPayload { length: payload.len() })?;
        Ok(Self { head, priority, encoded: fragment.to_vec(), continuations: 0 })
    }

    /// With the payload of one more CONTINUATION frame.
    ///
    /// # Errors
    /// Too many CONTINUATION frames, or the block is too long.
    pub fn continued(mut self, payload: &[u8]) -> Result<Self, BlockError> {
        if self.continuations == MAX_CONTINUATIONS {
            return Err(BlockError::ManyContinuations);
        }
        if self.encoded.len() + payload.len() > MAX_BLOCK {
            return Err(BlockError::Long);
        }
        self.continuations += 1;
        self.encoded.extend_from_slice(payload);
        Ok(self)
    }

    /// The fields, in HPACK; complete once a frame had `END_HEADERS`.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The stream's number.
    #[must_use]
    pub fn stream_id(&self) -> u32 {
        self.head.stream_id()
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn room(&self) -> usize {
        self.encoded.capacity()
    }

    /// Appends frames that carry `encoded` in place of the block's own fields. Else, only the padding
    /// is left out.
    pub fn write_with(&self, encoded: &[u8], output: &mut Vec<u8>) {
        let priority = self.priority.as_ref().map_or(&[][..], |bytes| &bytes[..]);
        let (piece, mut rest) = split_at_most(encoded, MAX_PAYLOAD - priority.len());
        let kept = self.head.flags & (flag::END_STREAM | flag::PRIORITY);
        self.write_frame(Kind::HEADERS, kept | last(rest), &[priority, piece], output);
        while !rest.is_empty() {
            let piece;
            (piece, rest) = split_at_most(rest, MAX_PAYLOAD);
            self.write_frame(Kind::CONTINUATION, last(rest), &[piece], output);
        }
    }

    fn write_frame(&self, kind: Kind, flags: u8, payload: &[&[u8]], output: &mut Vec<u8>) {
        let head = Head {
            length: payload.iter().map(|piece| piece.len()).sum(),
            kind,
            flags,
            stream: self.head.stream,
        };
        output.extend_from_slice(&head.to_bytes());
        for piece in payload {
            output.extend_from_slice(piece);
        }
    }
}

/// The priority, if there is one, and the piece of the header block.
fn split_payload(head: Head, payload: &[u8]) -> Option<(Option<Priority>, &[u8])> {
    let (mut padding, mut priority, mut rest) = (0, None, payload);
    if head.has(flag::PADDED) {
        let (&length, behind) = rest.split_first()?;
        (padding, rest) = (usize::from(length), behind);
    }
    if head.has(flag::PRIORITY) {
        let (&bytes, behind) = rest.split_first_chunk()?;
        (priority, rest) = (Some(bytes), behind);
    }
    let fragment = rest.len().checked_sub(padding)?;
    Some((priority, &rest[..fragment]))
}

fn split_at_most(bytes: &[u8], most: usize) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.len().min(most))
}

/// The flag of the last frame of a block.
fn last(rest: &[u8]) -> u8 {
    if rest.is_empty() { flag::END_HEADERS } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(flags: u8) -> Head {
        Head { length: 0, kind: Kind::HEADERS, flags, stream: 1 }
    }

    #[track_caller]
    fn check_piece(flags: u8, payload: &[u8], expected: Result<&[u8], BlockError>) {
        let block = HeaderBlock::begun(headers(flags), payload);
        assert_eq!(block.as_ref().map(HeaderBlock::encoded).map_err(|error| *error), expected);
    }

    /// Kind, flags and length of each frame.
    fn frames(mut bytes: &[u8]) -> Vec<(Kind, u8, usize)> {
        let mut frames = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk() {
            let head = Head::parse(*head);
            frames.push((head.kind, head.flags, head.length));
            bytes = &rest[head.length..];
        }
        frames
    }

    #[test]
    fn padding_and_priority_are_no_part_of_a_block() {
        check_piece(0, b"block", Ok(b"block"));
        check_piece(flag::PADDED, b"\x03blockpad", Ok(b"block"));
        check_piece(flag::PRIORITY, b"\0\0\0\0\x10block", Ok(b"block"));
        check_piece(flag::PADDED | flag::PRIORITY, b"\x01\0\0\0\0\x10blockp", Ok(b"block"));
        check_piece(flag::PADDED, b"\x03pad", Ok(b""));
    }

    #[test]
    fn a_payload_has_the_length_of_its_header() {
        check_piece(flag::PADDED, b"", Err(BlockError::ShortPayload { length: 0 }));
        check_piece(flag::PADDED, b"\x04pad", Err(BlockError::ShortPayload { length: 4 }));
        check_piece(flag::PRIORITY, b"\0\0\0\0", Err(BlockError::ShortPayload { length: 4 }));
    }

    #[test]
    fn the_priority_and_the_end_of_the_stream_are_kept_and_the_padding_is_not() {
        let flags = flag::PADDED | flag::PRIORITY | flag::END_STREAM;
        let block = HeaderBlock::begun(headers(flags), b"\x01\x80\0\0\x03\x10oldp").unwrap();
        let mut output = Vec::new();
        block.write_with(b"new", &mut output);
        assert_eq!(output, b"\0\0\x08\x01\x25\0\0\0\x01\x80\0\0\x03\x10new");
    }

    #[test]
    fn a_long_block_is_cut_into_frames_of_the_default_size() {
        let block = HeaderBlock::begun(headers(flag::PRIORITY), b"\0\0\0\0\x10").unwrap();
        let mut output = Vec::new();
        block.write_with(&vec![b'x'; 2 * MAX_PAYLOAD], &mut output);
        let expected = [
            (Kind::HEADERS, flag::PRIORITY, MAX_PAYLOAD),
            (Kind::CONTINUATION, 0, MAX_PAYLOAD),
            (Kind::CONTINUATION, flag::END_HEADERS, 5),
        ];
        assert_eq!(frames(&output), expected);
    }

    #[test]
    fn a_block_that_just_fits_is_one_frame() {
        let block = HeaderBlock::begun(headers(0), b"").unwrap();
        let mut output = Vec::new();
        block.write_with(&[b'x'; MAX_PAYLOAD], &mut output);
        assert_eq!(frames(&output), [(Kind::HEADERS, flag::END_HEADERS, MAX_PAYLOAD)]);
    }

    #[test]
    fn continuations_have_a_bound() {
        let mut block = HeaderBlock::begun(headers(0), b"").unwrap();
        for _ in 0..MAX_CONTINUATIONS {
            block = block.continued(b"").unwrap();
        }
        assert_eq!(block.continued(b"").unwrap_err(), BlockError::ManyContinuations);
    }

    #[test]
    fn a_block_has_a_bound() {
        let mut block = HeaderBlock::begun(headers(0), &[0; MAX_PAYLOAD]).unwrap();
        for _ in 1..MAX_BLOCK / MAX_PAYLOAD {
            block = block.continued(&[0; MAX_PAYLOAD]).unwrap();
        }
        assert_eq!(block.continued(&[0]).unwrap_err(), BlockError::Long);
    }
}
