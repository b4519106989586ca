//! The fields that an HPACK index refers to: 61 static ones, then those that the peer added.

use std::collections::VecDeque;

/// The default limit of the dynamic table (`SETTINGS_HEADER_TABLE_SIZE`, RFC 9113 §6.5.2), in bytes as
/// [`field_size`] counts.
pub const DEFAULT_TABLE_SIZE: usize = 4096;

/// The size of a field in tables and header lists, in bytes: RFC 7541 §4.1, RFC 9113 §6.5.2.
#[must_use]
pub fn field_size(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + 32
}

/// The static table and one connection's dynamic table.
#[derive(Debug)]
pub struct HeaderTable {
    /// Newest first.
    dynamic: VecDeque<DynamicEntry>,
    size: usize,
    max_size: usize,
}

#[derive(Debug)]
struct DynamicEntry {
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl HeaderTable {
    /// An empty dynamic table with the default limit.
    #[must_use]
    pub fn new() -> Self {
        Self { dynamic: VecDeque::new(), size: 0, max_size: DEFAULT_TABLE_SIZE }
    }

    /// The name and the value at an index, counted from 1 through both tables.
    #[must_use]
    pub fn field(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let nth = index.checked_sub(1)?;
        match STATIC.get(nth) {
            Some((name, value)) => Some((name.as_bytes(), value.as_bytes())),
            None => self.dynamic.get(nth - STATIC.len()).map(|entry| (&*entry.name, &*entry.value)),
        }
    }

    /// The highest valid index.
    #[must_use]
    pub fn last_index(&self) -> usize {
        STATIC.len() + self.dynamic.len()
    }

    /// The size of the dynamic table in bytes, as [`field_size`] counts.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Adds a field as the newest and evicts the oldest. One that is larger than the table empties
    /// it, which is no error (RFC 7541 §4.4).
    pub fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = field_size(name, value);
        self.evict_down_to(self.max_size.saturating_sub(size));
        if size <= self.max_size {
            self.dynamic.push_front(DynamicEntry { name: name.into(), value: value.into() });
            self.size += size;
        }
    }

    /// Sets the limit and evicts the oldest fields until the rest fits.
    pub fn resize(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.evict_down_to(max_size);
    }

    fn evict_down_to(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.dynamic.pop_back() else {
                return;
            };
            self.size -= field_size(&oldest.name, &oldest.value);
        }
    }
}

impl Default for HeaderTable {
    fn default() -> Self {
        Self::new()
    }
}

/// RFC 7541 Appendix A; the first has index 1.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_values(table: &HeaderTable, expected: &[&str]) {
        let values: Vec<&str> = (62..=table.last_index())
            .map(|index| std::str::from_utf8(table.field(index).unwrap().1).unwrap())
            .collect();
        assert_eq!(values, expected);
    }

    #[test]
    fn the_first_index_is_the_authority_and_none_is_zero() {
        let table = HeaderTable::new();
        assert_eq!(table.field(0), None);
        assert_eq!(table.field(1), Some((&b":authority"[..], &b""[..])));
        assert_eq!(table.field(61), Some((&b"www-authenticate"[..], &b""[..])));
        assert_eq!(table.field(62), None);
    }

    #[test]
    fn the_newest_field_has_the_lowest_dynamic_index() {
        let mut table = HeaderTable::new();
        table.insert(b"a", b"old");
        table.insert(b"a", b"new");
        check_values(&table, &["new", "old"]);
    }

    #[test]
    fn the_oldest_field_goes_when_the_table_is_full() {
        let mut table = HeaderTable::new();
        table.resize(2 * 34);
        for value in [b"1", b"2", b"3"] {
            table.insert(b"a", value);
        }
        check_values(&table, &["3", "2"]);
        assert_eq!(table.size(), 68);
    }

    #[test]
    fn a_field_larger_than_the_table_empties_it() {
        let mut table = HeaderTable::new();
        table.insert(b"a", b"1");
        table.insert(b"a", &[b'x'; DEFAULT_TABLE_SIZE]);
        check_values(&table, &[]);
        assert_eq!(table.size(), 0);
    }

    #[test]
    fn a_smaller_table_keeps_the_newest_fields() {
        let mut table = HeaderTable::new();
        for value in [b"1", b"2", b"3"] {
            table.insert(b"a", value);
        }
        table.resize(34);
        check_values(&table, &["3"]);
    }
}
