//! MySQL packets: the frame, the walker that finds packet ends in a stream, and OK and ERR.
//!
//! In: bytes of either direction. Out: packet boundaries with the first payload bytes; frames.
//! Must not: keep payloads, know what a packet means beyond its first byte.
//! Read first: MySQL internals, "Protocol::Packet", "OK_Packet", "ERR_Packet"; facts/sql.md 5.4.
//!
//! ```text
//!  0        1        2        3        4
//! +--------+--------+--------+--------+----------- - -
//! | payload length, little-endian     |sequence| payload
//! +--------+--------+--------+--------+----------- - -
//! length 0xffffff: the payload continues in the next packet, which may be empty
//! ```

use std::fmt;

use crate::wire::{Reader, Short};

pub const HEADER_BYTES: usize = 4;

/// The length that says "continues in the next packet".
pub const PAYLOAD_MAX: usize = 0xff_ffff;

/// Status flags of OK and EOF packets.
pub mod status {
    pub const IN_TRANS: u16 = 0x0001;
    pub const AUTOCOMMIT: u16 = 0x0002;
    pub const MORE_RESULTS: u16 = 0x0008;
    pub const CURSOR_EXISTS: u16 = 0x0040;
    pub const NO_BACKSLASH_ESCAPES: u16 = 0x0200;
    /// A result set of OUT parameters.
    pub const PS_OUT_PARAMS: u16 = 0x1000;
}

/// First payload bytes that mark a packet's kind.
pub mod mark {
    pub const OK: u8 = 0x00;
    pub const AUTH_MORE: u8 = 0x01;
    pub const LOCAL_INFILE: u8 = 0xfb;
    pub const EOF: u8 = 0xfe;
    pub const ERR: u8 = 0xff;
}

/// The four bytes in front of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub length: usize,
    pub sequence: u8,
}

impl Header {
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, Short> {
        let [a, b, c, sequence] = reader.array()?;
        Ok(Self { length: length(a, b, c), sequence })
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packet {}, {} bytes", self.sequence, self.length)
    }
}

fn length(a: u8, b: u8, c: u8) -> usize {
    usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16
}

/// The packet at the front of `bytes`, if it is there whole: header, payload, and what follows.
#[must_use]
pub fn split(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let mut reader = Reader::new(bytes);
    let header = Header::parse(&mut reader).ok()?;
    let payload = reader.take(header.length).ok()?;
    Some((header, payload, reader.rest()))
}

/// Appends one packet whose payload `fill` writes. For our own packets, which are short.
pub fn frame(out: &mut Vec<u8>, sequence: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, sequence]);
    fill(out);
    let length = out.len() - start - HEADER_BYTES;
    debug_assert!(length < PAYLOAD_MAX, "the splitter's own packets are short");
    let [a, b, c, ..] = u32::try_from(length).unwrap_or(0).to_le_bytes();
    if let Some(header) = out.get_mut(start..start + 3) {
        header.copy_from_slice(&[a, b, c]);
    }
}

/// A command packet: sequence 0, the command byte, its argument.
pub fn command(out: &mut Vec<u8>, code: u8, argument: &[u8]) {
    frame(out, 0, |out| {
        out.push(code);
        out.extend_from_slice(argument);
    });
}

/// OK without rows or insert id.
pub fn ok(out: &mut Vec<u8>, sequence: u8, status: u16) {
    frame(out, sequence, |out| {
        out.extend_from_slice(&[mark::OK, 0, 0]);
        out.extend_from_slice(&status.to_le_bytes());
        out.extend_from_slice(&[0, 0]);
    });
}

/// An error as it goes to a client or came from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    pub code: u16,
    pub state: [u8; 5],
    pub message: String,
}

impl ServerError {
    #[must_use]
    pub fn new(code: u16, state: &[u8; 5], message: impl Into<String>) -> Self {
        Self { code, state: *state, message: message.into() }
    }

    /// Parses the payload of an ERR packet; the SQL state is absent before log-in is complete.
    pub fn parse(payload: &[u8]) -> Result<Self, Short> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != mark::ERR {
            return Err(Short);
        }
        let code = reader.u16_le()?;
        let mut state = *b"HY000";
        if reader.rest().first() == Some(&b'#') {
            reader.take(1)?;
            state = reader.array()?;
        }
        Ok(Self { code, state, message: String::from_utf8_lossy(reader.rest()).into_owned() })
    }

    pub fn emit(&self, out: &mut Vec<u8>, sequence: u8) {
        frame(out, sequence, |out| {
            out.push(mark::ERR);
            out.extend_from_slice(&self.code.to_le_bytes());
            out.push(b'#');
            out.extend_from_slice(&self.state);
            let text = self.message.as_bytes();
            out.extend_from_slice(text.get(..MESSAGE_BYTES_MAX).unwrap_or(text));
        });
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = String::from_utf8_lossy(&self.state);
        write!(f, "error {} ({state}): {}", self.code, self.message)
    }
}

/// Reads a length-encoded integer. 0xfb and 0xff are no integers and count as short.
pub fn lenenc(reader: &mut Reader<'_>) -> Result<u64, Short> {
    match reader.u8()? {
        value @ 0..=0xfa => Ok(value.into()),
        0xfc => reader.u16_le().map(u64::from),
        0xfd => reader.u24_le().map(u64::from),
        0xfe => reader.u64_le(),
        0xfb | 0xff => Err(Short),
    }
}

/// Reads a length-encoded string.
pub fn lenenc_bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Short> {
    let count = lenenc(reader)?;
    reader.take(usize::try_from(count).map_err(|_| Short)?)
}

/// One packet that a `Walker` has seen to its end.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    pub length: usize,
    /// The start of the payload: all of it or at least `HEAD_BYTES`.
    pub head: &'a [u8],
    /// Whether it continues the packet before it, so that its first byte means nothing.
    pub is_continuation: bool,
}

/// Finds packet ends in a stream of bytes, keeping no more than the head of a split packet.
#[derive(Debug, Clone)]
pub struct Walker {
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    length: usize,
    left: usize,
    is_continuation: bool,
}

impl Default for Walker {
    fn default() -> Self {
        Self {
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            head: [0; HEAD_BYTES],
            head_bytes: 0,
            length: 0,
            left: 0,
            is_continuation: false,
        }
    }
}

impl Walker {
    /// Consumes bytes up to the end of one packet. Returns how many, and the packet if it ended.
    pub fn walk<'a>(&'a mut self, bytes: &'a [u8]) -> (usize, Option<Packet<'a>>) {
        if self.header_bytes == 0
            && let Some((header, payload, _)) = split(bytes)
        {
            let is_continuation = self.is_continuation;
            self.is_continuation = header.length == PAYLOAD_MAX;
            let packet = Packet { length: header.length, head: payload, is_continuation };
            return (HEADER_BYTES + header.length, Some(packet));
        }
        self.walk_split(bytes)
    }

    /// Whether the stream stands between two packets.
    #[must_use]
    pub const fn is_between(&self) -> bool {
        self.header_bytes == 0 && !self.is_continuation
    }

    fn walk_split<'a>(&'a mut self, bytes: &'a [u8]) -> (usize, Option<Packet<'a>>) {
        let mut used = 0;
        while self.header_bytes < HEADER_BYTES {
            let (Some(&byte), Some(place)) =
                (bytes.get(used), self.header.get_mut(self.header_bytes))
            else {
                return (used, None);
            };
            *place = byte;
            used += 1;
            self.header_bytes += 1;
            if self.header_bytes == HEADER_BYTES {
                let [a, b, c, _] = self.header;
                self.length = length(a, b, c);
                self.left = self.length;
                self.head_bytes = 0;
            }
        }
        let rest = bytes.get(used..).unwrap_or(&[]);
        let payload = rest.get(..self.left).unwrap_or(rest);
        for (place, &byte) in self.head.iter_mut().skip(self.head_bytes).zip(payload) {
            *place = byte;
            self.head_bytes += 1;
        }
        self.left -= payload.len();
        used += payload.len();
        if self.left > 0 {
            return (used, None);
        }
        self.header_bytes = 0;
        let is_continuation = self.is_continuation;
        self.is_continuation = self.length == PAYLOAD_MAX;
        let head = self.head.get(..self.head_bytes).unwrap_or(&[]);
        (used, Some(Packet { length: self.length, head, is_continuation }))
    }
}

/// Payload bytes that a split packet keeps: enough for an OK packet up to its warnings.
pub const HEAD_BYTES: usize = 32;

/// MySQL: MYSQL_ERRMSG_SIZE; longer texts are cut.
const MESSAGE_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const ERR: &[u8] = b"\x17\0\0\x01\xff\x15\x04#28000Access denied.";

    #[test]
    fn parses() {
        let (header, payload, rest) = split(ERR).expect("whole");
        assert_eq!((header.length, header.sequence, rest.len()), (23, 1, 0));
        let error = ServerError::parse(payload).expect("an error");
        assert_eq!((error.code, &error.state), (1045, b"28000"));
        assert_eq!(error.to_string(), "error 1045 (28000): Access denied.");
    }

    #[test]
    fn emits() {
        let mut out = Vec::new();
        ServerError::new(1045, b"28000", "Access denied.").emit(&mut out, 1);
        assert_eq!(out, ERR);
        out.clear();
        ok(&mut out, 1, 2);
        assert_eq!(out, b"\x07\0\0\x01\0\0\0\x02\0\0\0");
    }

    #[test]
    fn refuses_truncation_at_every_length() {
        for cut in 0..ERR.len() {
            assert!(split(&ERR[..cut]).is_none());
        }
        for cut in 0..9 {
            let _ = ServerError::parse(&ERR[4..4 + cut]);
        }
    }

    #[test]
    fn the_walker_finds_the_same_ends_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        for size in [0usize, 1, 5, 40, 300] {
            frame(&mut stream, 1, |out| {
                out.extend((0..size).map(|i| u8::try_from(i % 251).unwrap()))
            });
        }
        let walk = |chunk: usize| {
            let mut walker = Walker::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(chunk) {
                let mut rest = piece;
                loop {
                    let (used, packet) = walker.walk(rest);
                    rest = &rest[used..];
                    let Some(packet) = packet else { break };
                    let head = &packet.head[..packet.head.len().min(HEAD_BYTES)];
                    seen.push((packet.length, head.to_vec(), packet.is_continuation));
                    if rest.is_empty() {
                        break;
                    }
                }
            }
            assert!(walker.is_between());
            seen
        };
        let whole = walk(stream.len());
        assert_eq!(whole.len(), 5);
        for chunk in 1..stream.len() {
            assert_eq!(walk(chunk), whole, "chunks of {chunk}");
        }
    }

    #[test]
    fn a_full_packet_continues_in_the_next_even_if_that_is_empty() {
        let mut stream = vec![0xff, 0xff, 0xff, 0];
        stream.resize(HEADER_BYTES + PAYLOAD_MAX, 7);
        stream.extend_from_slice(&[0, 0, 0, 1]);
        let mut walker = Walker::default();
        let (used, packet) = walker.walk(&stream);
        assert!(packet.is_some_and(|packet| !packet.is_continuation));
        let (_, packet) = walker.walk(&stream[used..]);
        assert!(packet.is_some_and(|packet| packet.is_continuation && packet.length == 0));
    }

    #[test]
    fn lenenc_reads_every_width() {
        for (bytes, value) in [
            (&b"\xfa"[..], Ok(0xfa)),
            (b"\xfc\x01\x02", Ok(0x0201)),
            (b"\xfd\x01\x02\x03", Ok(0x03_0201)),
            (b"\xfe\x01\0\0\0\0\0\0\0", Ok(1)),
            (b"\xfb", Err(Short)),
            (b"\xfc\x01", Err(Short)),
            (b"", Err(Short)),
        ] {
            assert_eq!(lenenc(&mut Reader::new(bytes)), value);
        }
    }
}
