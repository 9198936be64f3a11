//! Request body: finds its end by length or by chunks, and hands on the bytes in between.
//!
//! In: bytes after a head. Out: pieces of the body, how many bytes were consumed, whether it ended.
//! Must not: keep the body, accept a chunk that another program could read differently.
//! Read first: RFC 9112 section 7.1; facts/web.md 1.5 (smuggling by chunk lines).

use super::request::{Framing, Refusal};

/// Decodes one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoder {
    state: State,
    /// Of the body, handed on so far.
    body_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are left of a body with Content-Length.
    Length(u64),
    /// In a chunk's size: the value and how many digits it has by now.
    Size {
        value: u64,
        digits: u8,
    },
    /// In a chunk extension, which is skipped: the chunk's size, bytes of extension by now.
    Extension {
        value: u64,
        bytes: u16,
    },
    /// After the CR of a size line; the value decides what follows.
    SizeEnd(u64),
    /// So many bytes are left of a chunk; at zero its CR is due.
    Data(u64),
    DataLf,
    /// In the trailer: bytes by now, and whether the line has any.
    Trailer {
        bytes: u16,
        is_line_empty: bool,
    },
    TrailerLf {
        bytes: u16,
        is_line_empty: bool,
    },
    Ended,
}

/// One step: what was found at the front of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A piece of the body.
    Piece(&'a [u8]),
    /// The bytes are used up and the body goes on.
    More,
    Ended,
}

/// Bytes of a chunk's extension, or of all trailers; more is refused.
const SKIPPED_BYTES_MAX: u16 = 4096;

impl Decoder {
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty => State::Ended,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
        };
        Self { state, body_bytes: 0 }
    }

    /// Bytes of the body that were handed on so far.
    #[must_use]
    pub const fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    #[must_use]
    pub const fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Takes the next piece off the front of `bytes`.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Step<'a>, Refusal> {
        loop {
            match self.state {
                State::Ended | State::Length(0) => {
                    self.state = State::Ended;
                    return Ok(Step::Ended);
                }
                State::Length(left) => {
                    let Some((piece, left)) = self.take_piece(bytes, left) else {
                        return Ok(Step::More);
                    };
                    self.state = State::Length(left);
                    return Ok(Step::Piece(piece));
                }
                State::Data(left) if left > 0 => {
                    let Some((piece, left)) = self.take_piece(bytes, left) else {
                        return Ok(Step::More);
                    };
                    self.state = State::Data(left);
                    return Ok(Step::Piece(piece));
                }
                State::Size { .. }
                | State::Extension { .. }
                | State::SizeEnd(_)
                | State::Data(_)
                | State::DataLf
                | State::Trailer { .. }
                | State::TrailerLf { .. } => {
                    let Some((&byte, rest)) = bytes.split_first() else { return Ok(Step::More) };
                    *bytes = rest;
                    self.state = self.state.after(byte)?;
                }
            }
        }
    }

    /// The piece of the body at the front of `bytes`, and how much of it is left after that.
    fn take_piece<'a>(&mut self, bytes: &mut &'a [u8], left: u64) -> Option<(&'a [u8], u64)> {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        if count == 0 {
            return None;
        }
        let (piece, rest) = bytes.split_at(count);
        *bytes = rest;
        let count = u64::try_from(count).unwrap_or(left);
        self.body_bytes = self.body_bytes.saturating_add(count);
        Some((piece, left - count))
    }
}

impl State {
    /// The state after one byte of chunk framing.
    fn after(self, byte: u8) -> Result<Self, Refusal> {
        let refused = Err(Refusal::BAD_REQUEST);
        Ok(match (self, byte) {
            (Self::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                // Fifteen digits are beyond any disk, and 16 could overflow.
                if digits == 15 {
                    return refused;
                }
                Self::Size { value: value << 4 | hex(byte), digits: digits + 1 }
            }
            (Self::Size { digits: 0, .. }, _) => return refused,
            (Self::Size { value, .. }, b'\r') => Self::SizeEnd(value),
            (Self::Size { value, .. }, b';') => Self::Extension { value, bytes: 0 },
            (Self::Extension { value, .. }, b'\r') => Self::SizeEnd(value),
            (Self::Extension { value, bytes }, b'\t' | b' '..=b'~' | 0x80..) => {
                if bytes == SKIPPED_BYTES_MAX {
                    return refused;
                }
                Self::Extension { value, bytes: bytes + 1 }
            }
            (Self::Size { .. } | Self::Extension { .. }, _) => return refused,
            (Self::SizeEnd(0), b'\n') => Self::Trailer { bytes: 0, is_line_empty: true },
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::Data(_), b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size { value: 0, digits: 0 },
            (Self::SizeEnd(_) | Self::Data(_) | Self::DataLf, _) => return refused,
            (Self::Trailer { bytes, is_line_empty }, b'\r') => {
                Self::TrailerLf { bytes, is_line_empty }
            }
            (Self::Trailer { bytes, .. }, b'\t' | b' '..=b'~' | 0x80..) => {
                if bytes == SKIPPED_BYTES_MAX {
                    return refused;
                }
                Self::Trailer { bytes: bytes + 1, is_line_empty: false }
            }
            (Self::TrailerLf { is_line_empty: true, .. }, b'\n') => Self::Ended,
            (Self::TrailerLf { bytes, is_line_empty: false }, b'\n') => {
                Self::Trailer { bytes, is_line_empty: true }
            }
            (Self::Trailer { .. } | Self::TrailerLf { .. }, _) => return refused,
            (Self::Length(_) | Self::Ended, _) => self,
        })
    }
}

fn hex(byte: u8) -> u64 {
    u64::from(match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte.wrapping_sub(b'A').wrapping_add(10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body, and how many bytes of `bytes` were not used; fed in pieces of `size`.
    fn decode(framing: Framing, bytes: &[u8], size: usize) -> Result<(Vec<u8>, usize), Refusal> {
        let mut decoder = Decoder::new(framing);
        let mut body = Vec::new();
        let mut used = 0;
        for chunk in bytes.chunks(size) {
            let mut rest = chunk;
            loop {
                match decoder.next(&mut rest)? {
                    Step::Piece(piece) => body.extend_from_slice(piece),
                    Step::More => break,
                    Step::Ended => {
                        return Ok((body, bytes.len() - used - chunk.len() + rest.len()));
                    }
                }
            }
            used += chunk.len();
        }
        if decoder.is_ended() { Ok((body, 0)) } else { Err(Refusal(0)) }
    }

    const CHUNKED: &[u8] = b"3;a=\"b\"\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX: y\r\nZ: \r\n\r\nGET";

    #[test]
    fn chunks_are_joined_whatever_the_pieces() {
        for size in 1..=CHUNKED.len() {
            let decoded = decode(Framing::Chunked, CHUNKED, size);
            assert_eq!(decoded, Ok((b"abc0123456789".to_vec(), 3)), "pieces of {size}");
        }
    }

    #[test]
    fn a_length_leaves_the_next_request_alone() {
        for size in 1..8 {
            let decoded = decode(Framing::Length(5), b"helloGET", size);
            assert_eq!(decoded, Ok((b"hello".to_vec(), 3)), "pieces of {size}");
        }
    }

    #[test]
    fn refuses_every_odd_chunk_line() {
        for text in [
            "\r\n",
            "0x3\r\nabc\r\n",
            "+3\r\nabc\r\n",
            "-1\r\n",
            " 3\r\nabc\r\n",
            "3 \r\nabc\r\n",
            "3\nabc\r\n",
            "3\r\nabc\n",
            "3\r\nabcd\r\n",
            "3\rabc",
            "g\r\n",
            "3;a\nabc\r\n",
            "fffffffffffffffff\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\r\r\n",
            "3;\0\r\nabc\r\n",
        ] {
            assert_eq!(
                decode(Framing::Chunked, text.as_bytes(), 99),
                Err(Refusal(400)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn truncation_never_ends_a_body_and_flips_never_panic() {
        for cut in 0..CHUNKED.len() - 3 {
            assert_eq!(
                decode(Framing::Chunked, &CHUNKED[..cut], 7),
                Err(Refusal(0)),
                "cut at {cut}"
            );
        }
        for bit in 0..CHUNKED.len() * 8 {
            let mut bytes = CHUNKED.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = decode(Framing::Chunked, &bytes, 5);
        }
    }
}
