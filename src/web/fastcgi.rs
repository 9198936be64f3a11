//! FastCGI records: the header's codec, a request's records, and the decoder of an answer's stream.
//!
//! In: bytes of one connection. Out: stdout and stderr pieces, the end; or records to write.
//! Must not: multiplex (php-fpm never does), buffer content, believe padding or reserved bytes.
//! Read first: FastCGI 1.0, section 3 and 8; facts/web.md 1.1 and 1.2 (what php-fpm really does).
//!
//! ```text
//!   0        1       2            4                5              6               7
//!   version  type    request id   content length   padding length reserved
//! ```

use std::fmt;

use crate::wire::{Reader, Short};

mod field {
    pub(super) const VERSION: u8 = 1;
    pub(super) const HEADER_BYTES: usize = 8;
    /// BEGIN_REQUEST: role responder, flags 0. An idle kept connection pins a php-fpm worker
    /// (facts/web.md, fact 1), so KEEP_CONN is set for each connection by itself: `set_keep`.
    pub(super) const BEGIN_RESPONDER: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];
    /// Of a request that begins with BEGIN_REQUEST: the place of its flags.
    pub(super) const FLAGS_AT: usize = HEADER_BYTES + 2;
    pub(super) const KEEP_CONN: u8 = 1;
}

/// One request a connection, so one id will do (nginx does the same).
const REQUEST_ID: u16 = 1;

/// Content of one record that we send. With its padding it must stay below 65536, or php-fpm
/// resets the connection (facts/web.md, fact 7).
pub const CONTENT_BYTES_MAX: usize = 65528;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    BeginRequest,
    EndRequest,
    Params,
    Stdin,
    Stdout,
    Stderr,
    Unknown(u8),
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::BeginRequest => 1,
            Self::EndRequest => 3,
            Self::Params => 4,
            Self::Stdin => 5,
            Self::Stdout => 6,
            Self::Stderr => 7,
            Self::Unknown(code) => code,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::BeginRequest,
            3 => Self::EndRequest,
            4 => Self::Params,
            5 => Self::Stdin,
            6 => Self::Stdout,
            7 => Self::Stderr,
            code => Self::Unknown(code),
        }
    }
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub request_id: u16,
    pub content_bytes: u16,
    pub padding_bytes: u8,
}

/// What is wrong with an answer's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    Version(u8),
    RequestId(u16),
    Kind(Kind),
    Short,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "record of version {version}"),
            Self::RequestId(id) => write!(f, "record of request {id}"),
            Self::Kind(kind) => write!(f, "unexpected record {kind:?}"),
            Self::Short => write!(f, "record too short"),
        }
    }
}

impl From<Short> for Error {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl Header {
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let version = reader.u8()?;
        let kind = Kind::from_code(reader.u8()?);
        let request_id = reader.u16()?;
        let content_bytes = reader.u16()?;
        let padding_bytes = reader.u8()?;
        let _reserved = reader.u8()?;
        if version != field::VERSION {
            return Err(Error::Version(version));
        }
        Ok(Self { kind, request_id, content_bytes, padding_bytes })
    }

    #[must_use]
    pub const fn emit(self) -> [u8; field::HEADER_BYTES] {
        let [id_high, id_low] = self.request_id.to_be_bytes();
        let [high, low] = self.content_bytes.to_be_bytes();
        [field::VERSION, self.kind.code(), id_high, id_low, high, low, self.padding_bytes, 0]
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, request_id, content_bytes, padding_bytes } = self;
        write!(f, "FastCGI {kind:?}, id {request_id}, length {content_bytes}+{padding_bytes}")
    }
}

/// Appends BEGIN_REQUEST.
pub fn emit_begin(out: &mut Vec<u8>) {
    emit_record(out, Kind::BeginRequest, &field::BEGIN_RESPONDER);
}

/// Says in the BEGIN_REQUEST at the front whether php-fpm is to keep the connection after its
/// answer (FastCGI 1.0, 5.1).
pub fn set_keep(request: &mut [u8], keeps: bool) {
    if let Some(flags) = request.get_mut(field::FLAGS_AT) {
        *flags = if keeps { field::KEEP_CONN } else { 0 };
    }
}

/// Appends a stream's bytes as records of `kind`, none when there are no bytes: an empty record
/// would end the stream (see `emit_end`).
pub fn emit_stream(out: &mut Vec<u8>, kind: Kind, bytes: &[u8]) {
    for content in bytes.chunks(CONTENT_BYTES_MAX) {
        emit_record(out, kind, content);
    }
}

/// Appends the empty record that ends a stream.
pub fn emit_end(out: &mut Vec<u8>, kind: Kind) {
    emit_record(out, kind, &[]);
}

fn emit_record(out: &mut Vec<u8>, kind: Kind, content: &[u8]) {
    let content_bytes = u16::try_from(content.len()).expect("content is at most 65528 bytes");
    let padding_bytes = u8::try_from((8 - content.len() % 8) % 8).expect("less than 8");
    let header = Header { kind, request_id: REQUEST_ID, content_bytes, padding_bytes };
    out.extend_from_slice(&header.emit());
    out.extend_from_slice(content);
    out.extend_from_slice(&[0; 8][..usize::from(padding_bytes)]);
}

/// A request's PARAMS stream, in which no pair straddles two records.
#[derive(Debug)]
pub struct Params {
    out: Vec<u8>,
    record: Vec<u8>,
}

impl Params {
    /// Begins a request: BEGIN_REQUEST and room for its parameters.
    #[must_use]
    pub fn new() -> Self {
        let mut out = Vec::with_capacity(1024);
        emit_begin(&mut out);
        Self { out, record: Vec::with_capacity(1024) }
    }

    /// Adds a pair. False when it cannot fit one record, in which case it is not added.
    #[must_use]
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> bool {
        let pair_bytes = 8 + name.len() + value.len();
        if pair_bytes > CONTENT_BYTES_MAX {
            return false;
        }
        if self.record.len() + pair_bytes > CONTENT_BYTES_MAX {
            emit_record(&mut self.out, Kind::Params, &self.record);
            self.record.clear();
        }
        emit_length(&mut self.record, name.len());
        emit_length(&mut self.record, value.len());
        self.record.extend_from_slice(name);
        self.record.extend_from_slice(value);
        true
    }

    /// The records up to the end of PARAMS.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        emit_stream(&mut self.out, Kind::Params, &self.record);
        emit_end(&mut self.out, Kind::Params);
        self.out
    }
}

impl Default for Params {
    fn default() -> Self {
        Self::new()
    }
}

/// FastCGI 1.0, 3.4: one byte below 128, else four with the top bit set.
fn emit_length(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short) if short < 128 => out.push(short),
        Ok(_) | Err(_) => {
            let long = u32::try_from(length).expect("a pair fits one record");
            out.extend_from_slice(&(long | 1 << 31).to_be_bytes());
        }
    }
}

/// Decodes an answer's records, fed with the pieces that the socket gave.
#[derive(Debug, Default)]
pub struct Decoder {
    header: heapless::Vec<u8, { field::HEADER_BYTES }>,
    record: Option<Record>,
    /// The body of END_REQUEST as far as it is here.
    end: heapless::Vec<u8, 8>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    kind: Kind,
    content_left: usize,
    padding_left: usize,
}

/// What an answer consists of.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Stdout(&'a [u8]),
    Stderr(&'a [u8]),
    End {
        is_complete: bool,
    },
    /// The bytes are used up.
    More,
}

impl Decoder {
    /// Takes the next event off the front of `bytes`.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Event<'a>, Error> {
        loop {
            let Some(record) = &mut self.record else {
                let Some((&byte, rest)) = bytes.split_first() else { return Ok(Event::More) };
                *bytes = rest;
                self.header.push(byte).map_err(|_full| Error::Short)?;
                if self.header.is_full() {
                    self.record = Some(Record::begin(&self.header)?);
                    self.header.clear();
                }
                continue;
            };
            if record.content_left > 0 {
                let count = record.content_left.min(bytes.len());
                let (content, rest) = bytes.split_at(count);
                *bytes = rest;
                record.content_left -= count;
                if count == 0 {
                    return Ok(Event::More);
                }
                match record.kind {
                    Kind::Stdout => return Ok(Event::Stdout(content)),
                    Kind::Stderr => return Ok(Event::Stderr(content)),
                    Kind::EndRequest => {
                        for &byte in content {
                            // A longer body than the protocol has: its tail means nothing.
                            let _is_full = self.end.push(byte);
                        }
                        if record.content_left == 0 {
                            // FastCGI 1.0, 5.5: appStatus, then protocolStatus; 0 is complete.
                            let is_complete = self.end.get(4) == Some(&0);
                            return Ok(Event::End { is_complete });
                        }
                    }
                    kind @ (Kind::BeginRequest | Kind::Params | Kind::Stdin | Kind::Unknown(_)) => {
                        return Err(Error::Kind(kind));
                    }
                }
                continue;
            }
            let count = record.padding_left.min(bytes.len());
            *bytes = bytes.get(count..).unwrap_or_default();
            record.padding_left -= count;
            if record.padding_left > 0 {
                return Ok(Event::More);
            }
            self.record = None;
        }
    }

    /// Whether the bytes so far end where a record ends.
    #[must_use]
    pub fn is_between_records(&self) -> bool {
        self.record.is_none() && self.header.is_empty()
    }

    /// Whether END_REQUEST, which `next` has just told, ends these bytes together with its padding:
    /// what follows it would be read as the answer to the connection's next request.
    pub fn is_over(&mut self, mut bytes: &[u8]) -> bool {
        matches!(self.next(&mut bytes), Ok(Event::More)) && self.is_between_records()
    }
}

impl Record {
    fn begin(header: &[u8]) -> Result<Self, Error> {
        let header = Header::parse(&mut Reader::new(header))?;
        if header.request_id != REQUEST_ID {
            return Err(Error::RequestId(header.request_id));
        }
        match header.kind {
            Kind::EndRequest if header.content_bytes < 8 => return Err(Error::Short),
            Kind::Stdout | Kind::Stderr | Kind::EndRequest => {}
            kind @ (Kind::BeginRequest | Kind::Params | Kind::Stdin | Kind::Unknown(_)) => {
                return Err(Error::Kind(kind));
            }
        }
        Ok(Self {
            kind: header.kind,
            content_left: usize::from(header.content_bytes),
            padding_left: usize::from(header.padding_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// php-fpm 8.2: STDERR "Primary script unknown", STDOUT with a 404, END_REQUEST; shortened.
    const ANSWER: &[u8] = &[
        1, 7, 0, 1, 0, 4, 4, 0, b'o', b'o', b'p', b's', 9, 9, 9, 9, // stderr, padded
        1, 6, 0, 1, 0, 3, 0, 7, b'a', b'b', b'c', // stdout, garbage in the reserved byte
        1, 6, 0, 1, 0, 1, 1, 0, b'd', 9, // stdout
        1, 6, 0, 1, 0, 0, 0, 0, // the end of stdout
        1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, // end, appStatus 1, complete
    ];

    type Decoded = (Vec<u8>, Vec<u8>, Option<bool>);

    fn decode(bytes: &[u8], size: usize) -> Result<Decoded, Error> {
        let mut decoder = Decoder::default();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        for mut piece in bytes.chunks(size) {
            loop {
                match decoder.next(&mut piece)? {
                    Event::Stdout(content) => stdout.extend_from_slice(content),
                    Event::Stderr(content) => stderr.extend_from_slice(content),
                    Event::End { is_complete } => return Ok((stdout, stderr, Some(is_complete))),
                    Event::More => break,
                }
            }
        }
        Ok((stdout, stderr, None))
    }

    #[test]
    fn parses_an_answer_whatever_the_pieces() {
        for size in 1..=ANSWER.len() {
            let decoded = decode(ANSWER, size);
            assert_eq!(decoded, Ok((b"abcd".to_vec(), b"oops".to_vec(), Some(true))), "{size}");
        }
    }

    #[test]
    fn emits_a_request() {
        let mut params = Params::new();
        assert!(params.add(b"A", b"bc"));
        let mut out = params.finish();
        emit_stream(&mut out, Kind::Stdin, b"12345678");
        emit_end(&mut out, Kind::Stdin);
        let expected: &[u8] = &[
            1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0,
            0, // BEGIN_REQUEST: responder, no KEEP_CONN
            1, 4, 0, 1, 0, 5, 3, 0, 1, 2, b'A', b'b', b'c', 0, 0, 0, // PARAMS
            1, 4, 0, 1, 0, 0, 0, 0, // the end of PARAMS
            1, 5, 0, 1, 0, 8, 0, 0, b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8', // STDIN
            1, 5, 0, 1, 0, 0, 0, 0, // the end of STDIN
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn an_end_is_the_end_only_with_its_padding_and_nothing_behind_it() {
        let end = [1, 3, 0, 1, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 7, 1, 6];
        for (length, is_over) in [(16, false), (17, false), (18, true), (19, false), (20, false)] {
            let (mut decoder, mut bytes) = (Decoder::default(), &end[..length]);
            let event = decoder.next(&mut bytes);
            assert_eq!(event, Ok(Event::End { is_complete: true }));
            assert_eq!(decoder.is_over(bytes), is_over, "{length}");
        }
    }

    #[test]
    fn a_request_asks_for_its_connection_to_be_kept_or_not() {
        let mut request = Params::new().finish();
        for (keeps, flags) in [(true, 1), (false, 0)] {
            set_keep(&mut request, keeps);
            assert_eq!(request[..16], [1, 1, 0, 1, 0, 8, 0, 0, 0, 1, flags, 0, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn header_round_trips() {
        let bytes = [1, 6, 0, 1, 0x12, 0x34, 5, 0];
        let header = Header::parse(&mut Reader::new(&bytes)).expect("parses");
        assert_eq!(header.emit(), bytes);
        assert_eq!(header.to_string(), "FastCGI Stdout, id 1, length 4660+5");
    }

    #[test]
    fn lengths_grow_to_four_bytes_at_128() {
        for (length, expected) in
            [(0usize, vec![0u8]), (127, vec![127]), (128, vec![128, 0, 0, 128])]
        {
            let mut out = Vec::new();
            emit_length(&mut out, length);
            assert_eq!(out, expected, "{length}");
        }
    }

    #[test]
    fn no_pair_straddles_two_records() {
        let mut params = Params::new();
        let value = vec![b'v'; 40_000];
        assert!(params.add(b"A", &value) && params.add(b"B", &value));
        assert!(!params.add(b"C", &vec![b'v'; 65_528]), "a pair beyond one record is refused");
        let bytes = params.finish();
        let mut reader = Reader::new(bytes.get(16..).expect("BEGIN_REQUEST comes first"));
        for _ in 0..2 {
            let header = Header::parse(&mut reader).expect("a record");
            assert_eq!((header.kind, header.content_bytes), (Kind::Params, 40_006));
            let skipped = usize::from(header.content_bytes) + usize::from(header.padding_bytes);
            reader.take(skipped).expect("its content");
        }
        assert_eq!(Header::parse(&mut reader).map(|header| header.content_bytes), Ok(0));
    }

    #[test]
    fn refuses_other_versions_ids_and_kinds() {
        for (at, value, error) in [
            (0, 2, Error::Version(2)),
            (3, 7, Error::RequestId(7)),
            (1, 4, Error::Kind(Kind::Params)),
            (1, 99, Error::Kind(Kind::Unknown(99))),
        ] {
            let mut bytes = ANSWER.to_vec();
            bytes[at] = value;
            assert_eq!(decode(&bytes, 99), Err(error));
        }
    }

    #[test]
    fn truncation_never_ends_and_bit_flips_never_panic() {
        for cut in 0..ANSWER.len() {
            assert_eq!(decode(&ANSWER[..cut], 5).map(|(_, _, end)| end), Ok(None), "cut at {cut}");
        }
        for bit in 0..ANSWER.len() * 8 {
            let mut bytes = ANSWER.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = decode(&bytes, 3);
        }
    }
}
