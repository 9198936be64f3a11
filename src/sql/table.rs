//! Result sets that the splitter makes itself: small, in the text protocol with EOF packets.
//!
//! In: columns and rows. Out: packets. Must not: be used for relayed results.
//! Read first: MySQL internals, "Text Resultset"; facts/sql.md 1.2 for the definitions Atlas sends.

use super::packet::{self, mark, status};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Long,
    /// A counter: LONGLONG.
    Wide,
    Text,
}

impl Type {
    const fn code(self) -> u8 {
        match self {
            Self::Long => 0x03,
            Self::Wide => 0x08,
            Self::Text => 0xfe,
        }
    }
}

/// A whole result set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub columns: Vec<(String, Type)>,
    pub rows: Vec<Vec<Option<String>>>,
}

impl Table {
    #[must_use]
    pub fn new(columns: &[(&str, Type)]) -> Self {
        let columns = columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        Self { columns, rows: Vec::new() }
    }

    #[must_use]
    pub fn row(mut self, values: impl IntoIterator<Item = String>) -> Self {
        self.rows.push(values.into_iter().map(Some).collect());
        self
    }

    /// Writes all packets, the first one being number 1; the last one says how many warnings there
    /// are.
    pub fn emit(&self, warnings: u16, out: &mut Vec<u8>) {
        let mut sequence = 0u8;
        let mut next = || {
            sequence = sequence.wrapping_add(1);
            sequence
        };
        packet::frame(out, next(), |out| length(out, self.columns.len()));
        for (name, kind) in &self.columns {
            packet::frame(out, next(), |out| {
                text(out, b"def");
                for part in ["", "", "", name.as_str(), ""] {
                    text(out, part.as_bytes());
                }
                // Fixed part of 12 bytes: charset 8, display length 32, type, Atlas's flags 0x0002,
                // no decimals.
                out.extend_from_slice(&[0x0c, 8, 0, 32, 0, 0, 0, kind.code(), 2, 0, 0, 0, 0]);
            });
        }
        eof(out, next(), warnings);
        for row in &self.rows {
            packet::frame(out, next(), |out| {
                for value in row {
                    match value {
                        Some(value) => text(out, value.as_bytes()),
                        None => out.push(NULL),
                    }
                }
            });
        }
        eof(out, next(), warnings);
    }
}

fn eof(out: &mut Vec<u8>, sequence: u8, warnings: u16) {
    let [few, many] = warnings.to_le_bytes();
    let [low, high] = status::AUTOCOMMIT.to_le_bytes();
    packet::frame(out, sequence, |out| out.extend_from_slice(&[mark::EOF, few, many, low, high]));
}

/// A length-encoded string; longer than any name here it is cut.
fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = bytes.get(..VALUE_BYTES_MAX).unwrap_or(bytes);
    length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn length(out: &mut Vec<u8>, count: usize) {
    let [low, high, ..] = u32::try_from(count).unwrap_or(0).to_le_bytes();
    if count <= 0xfa {
        out.push(low);
    } else {
        out.extend_from_slice(&[0xfc, low, high]);
    }
}

const NULL: u8 = 0xfb;
const VALUE_BYTES_MAX: usize = 0xffff;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::result::{Kind, Reply};

    #[test]
    fn emits_what_a_server_would() {
        let mut table = Table::new(&[("a", Type::Long), ("b", Type::Text)])
            .row(["1".to_owned(), "x".repeat(300)]);
        table.rows.push(vec![None, Some(String::new())]);
        let mut out = Vec::new();
        table.emit(1, &mut out);
        assert!(out.starts_with(b"\x01\0\0\x01\x02"));
        let definition = b"\x17\0\0\x02\x03def\0\0\0\x01a\0\x0c\x08\0\x20\0\0\0\x03\x02\0\0\0\0";
        assert_eq!(&out[5..5 + definition.len()], definition);
        let mut reply = Reply::new(Kind::Results, false);
        assert_eq!(reply.feed(&out), out.len());
        assert!(reply.is_done() && !reply.is_broken);
        assert!(out.ends_with(b"\x02\0\0\x06\xfb\0\x05\0\0\x07\xfe\x01\0\x02\0"));
    }
}
