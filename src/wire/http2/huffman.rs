//! The Huffman code of HPACK. Only decoding: we never compress what we write.
//!
//! The code is canonical (RFC 7541 §5.2), so the codes follow from their lengths.

/// Why a Huffman-coded string is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HuffmanError {
    /// RFC 7541 §5.2: a decoder must refuse the end-of-string symbol.
    #[error("a Huffman-coded string holds the end-of-string symbol")]
    EndOfString,
    /// RFC 7541 §5.2: padding is the beginning of the end-of-string code, shorter than a byte.
    #[error("a Huffman-coded string ends in {bits} bits that are not valid padding")]
    Padding {
        /// How many bits follow the last whole symbol.
        bits: u8,
    },
}

/// Decodes `coded` and appends the result to `text`, which grows by at most 8/5 of the length of
/// `coded`.
///
/// # Errors
/// The string holds the end-of-string symbol, or does not end in valid padding. `text` then holds
/// what was decoded before.
pub fn decode(coded: &[u8], text: &mut Vec<u8>) -> Result<(), HuffmanError> {
    let (mut code, mut length) = (0, 0);
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)) {
        code = code << 1 | u32::from(bit);
        length += 1;
        let Some(symbol) = CODE.symbol(code, length) else {
            continue;
        };
        text.push(u8::try_from(symbol).map_err(|_| HuffmanError::EndOfString)?);
        (code, length) = (0, 0);
    }
    let all_ones = code == (1 << length) - 1;
    if length < 8 && all_ones { Ok(()) } else { Err(HuffmanError::Padding { bits: length }) }
}

/// Symbols are the 256 bytes and, last, the end of the string.
const SYMBOLS: usize = 257;

/// In bits.
const LONGEST_CODE: usize = 30;

/// The length in bits of each symbol's code: RFC 7541 Appendix B.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, // 0x00
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, // 0x10
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, // 0x20
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, // 0x30
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, // 0x40
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, // 0x50
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, // 0x60
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, // 0x70
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, // 0x80
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, // 0x90
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, // 0xa0
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, // 0xb0
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, // 0xc0
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, // 0xd0
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, // 0xe0
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, // 0xf0
    30, // the end of the string
];

static CODE: CanonicalCode = CanonicalCode::from_lengths(&LENGTHS);

/// Codes of one length are consecutive numbers, given in the order of their symbols.
struct CanonicalCode {
    /// By length: the lowest code.
    first_code: [u32; LONGEST_CODE + 1],
    /// By length: where its symbols begin in `symbols`; one more, for the end of the last.
    start: [usize; LONGEST_CODE + 2],
    /// Ordered by length of code, then by symbol.
    symbols: [u16; SYMBOLS],
}

impl CanonicalCode {
    const fn from_lengths(lengths: &[u8; SYMBOLS]) -> Self {
        let mut code = Self {
            first_code: [0; LONGEST_CODE + 1],
            start: [0; LONGEST_CODE + 2],
            symbols: [0; SYMBOLS],
        };
        let (mut length, mut next_code, mut next) = (1, 0, 0);
        while length <= LONGEST_CODE {
            next_code <<= 1;
            code.first_code[length] = next_code;
            code.start[length] = next;
            let mut symbol: u16 = 0;
            while (symbol as usize) < SYMBOLS {
                if lengths[symbol as usize] as usize == length {
                    code.symbols[next] = symbol;
                    next += 1;
                    next_code += 1;
                }
                symbol += 1;
            }
            length += 1;
        }
        code.start[length] = next;
        // Every sequence of bits then begins with a symbol's code: none can outgrow the longest.
        assert!(next_code == 1 << LONGEST_CODE, "the code has gaps");
        code
    }

    /// The symbol whose code these `length` low bits of `code` are.
    fn symbol(&self, code: u32, length: u8) -> Option<u16> {
        let length = usize::from(length);
        let symbols = &self.symbols[self.start[length]..self.start[length + 1]];
        let nth = code.checked_sub(self.first_code[length])?;
        symbols.get(usize::try_from(nth).ok()?).copied()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The bytes that RFC 7541 writes as hexadecimal digits; spaces mean nothing.
    pub(in crate::wire::http2) fn hex(digits: &str) -> Vec<u8> {
        let digits: Vec<u8> = digits
            .chars()
            .filter(|digit| !digit.is_whitespace())
            .map(|digit| u8::try_from(digit.to_digit(16).expect("hexadecimal")).unwrap())
            .collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[track_caller]
    fn check(coded: &str, expected: &str) {
        let mut text = Vec::new();
        assert_eq!(decode(&hex(coded), &mut text), Ok(()));
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[track_caller]
    fn check_refused(coded: &str, expected: HuffmanError) {
        assert_eq!(decode(&hex(coded), &mut Vec::new()), Err(expected));
    }

    #[test]
    fn the_examples_of_the_standard_decode() {
        // RFC 7541 C.4 and C.6.
        check("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com");
        check("a8eb10649cbf", "no-cache");
        check("25a849e95ba97d7f", "custom-key");
        check("25a849e95bb8e8b4bf", "custom-value");
        check("6402", "302");
        check("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT");
        check("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com");
    }

    #[test]
    fn an_empty_string_decodes() {
        check("", "");
    }

    #[test]
    fn the_longest_and_the_shortest_codes_decode() {
        // 0x0a has 30 bits (3ffffffc), `0` has 5 (all zero); five bits pad.
        let mut text = Vec::new();
        assert_eq!(decode(&hex("fffffff01f"), &mut text), Ok(()));
        assert_eq!(text, b"\n0");
    }

    #[test]
    fn the_end_of_a_string_is_no_symbol_of_one() {
        check_refused("ffffffff", HuffmanError::EndOfString);
    }

    #[test]
    fn padding_is_shorter_than_a_byte() {
        // `0` and eleven ones.
        check_refused("07ff", HuffmanError::Padding { bits: 11 });
        check_refused("ff", HuffmanError::Padding { bits: 8 });
    }

    #[test]
    fn padding_is_all_ones() {
        // `0` and three zeros.
        check_refused("00", HuffmanError::Padding { bits: 3 });
    }
}
