//! FastCGI records: the header's codec, a request's and an answer's records, name-value pairs, and
//! the decoder of an answer's stream.
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
    /// FastCGI 1.0, 8: what BEGIN_REQUEST, END_REQUEST and UNKNOWN_TYPE hold.
    pub(super) const BODY_BYTES: usize = 8;
    /// BEGIN_REQUEST: role responder, flags 0. An idle kept connection pins a php-fpm worker
    /// (facts/web.md, fact 1), so KEEP_CONN is set for each connection by itself: `set_keep`.
    pub(super) const BEGIN_RESPONDER: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];
    /// Of a request that begins with BEGIN_REQUEST: the place of its flags.
    pub(super) const FLAGS_AT: usize = HEADER_BYTES + 2;
    pub(super) const KEEP_CONN: u8 = 1;
}

/// One request a connection, so one id will do (nginx does the same).
const REQUEST_ID: u16 = 1;

/// The id of records that concern the connection and no request (FastCGI 1.0, 3.3).
pub const MANAGEMENT_ID: u16 = 0;

/// Content of one record that we send. With its padding it must stay below 65536, or php-fpm
/// resets the connection (facts/web.md, fact 7).
pub const CONTENT_BYTES_MAX: usize = 65528;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    BeginRequest,
    AbortRequest,
    EndRequest,
    Params,
    Stdin,
    Stdout,
    Stderr,
    Data,
    GetValues,
    GetValuesResult,
    UnknownType,
    Unknown(u8),
}

impl Kind {
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::BeginRequest => 1,
            Self::AbortRequest => 2,
            Self::EndRequest => 3,
            Self::Params => 4,
            Self::Stdin => 5,
            Self::Stdout => 6,
            Self::Stderr => 7,
            Self::Data => 8,
            Self::GetValues => 9,
            Self::GetValuesResult => 10,
            Self::UnknownType => 11,
            Self::Unknown(code) => code,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::BeginRequest,
            2 => Self::AbortRequest,
            3 => Self::EndRequest,
            4 => Self::Params,
            5 => Self::Stdin,
            6 => Self::Stdout,
            7 => Self::Stderr,
            8 => Self::Data,
            9 => Self::GetValues,
            10 => Self::GetValuesResult,
            11 => Self::UnknownType,
            code => Self::Unknown(code),
        }
    }

    const fn is_of_answer(self) -> bool {
        matches!(self, Self::Stdout | Self::Stderr | Self::EndRequest)
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

/// FastCGI 1.0, 5.5: what END_REQUEST says of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolStatus {
    RequestComplete,
    /// A second request began on a connection that takes one at a time.
    CantMpxConn,
    UnknownRole,
}

/// What is wrong with the records of a connection.
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
    /// Of a record with so much content, padded to eight bytes.
    fn of(request_id: u16, kind: Kind, content: usize) -> Self {
        let content_bytes = u16::try_from(content).expect("content is at most 65528 bytes");
        let padding_bytes = u8::try_from((8 - content % 8) % 8).expect("less than 8");
        Self { kind, request_id, content_bytes, padding_bytes }
    }

    fn pad(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0; 8][..usize::from(self.padding_bytes)]);
    }

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
    emit_record(out, REQUEST_ID, Kind::BeginRequest, &field::BEGIN_RESPONDER);
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
    emit_stream_of(out, REQUEST_ID, kind, bytes);
}

/// The same of any request.
pub fn emit_stream_of(out: &mut Vec<u8>, request_id: u16, kind: Kind, bytes: &[u8]) {
    for content in bytes.chunks(CONTENT_BYTES_MAX) {
        emit_record(out, request_id, kind, content);
    }
}

/// Appends the empty record that ends a stream.
pub fn emit_end(out: &mut Vec<u8>, kind: Kind) {
    emit_record(out, REQUEST_ID, kind, &[]);
}

/// Appends END_REQUEST. `app_status`: the script's exit code, where it ran.
pub fn emit_end_request(
    out: &mut Vec<u8>,
    request_id: u16,
    app_status: u32,
    protocol_status: ProtocolStatus,
) {
    let [a, b, c, d] = app_status.to_be_bytes();
    let status = match protocol_status {
        ProtocolStatus::RequestComplete => 0,
        ProtocolStatus::CantMpxConn => 1,
        ProtocolStatus::UnknownRole => 3,
    };
    emit_record(out, request_id, Kind::EndRequest, &[a, b, c, d, status, 0, 0, 0]);
}

/// Appends UNKNOWN_TYPE, about a management record of a type that nobody knows.
pub fn emit_unknown_type(out: &mut Vec<u8>, code: u8) {
    emit_record(out, MANAGEMENT_ID, Kind::UnknownType, &[code, 0, 0, 0, 0, 0, 0, 0]);
}

/// Appends GET_VALUES_RESULT with these pairs, which are short.
pub fn emit_values(out: &mut Vec<u8>, pairs: &[(&[u8], &[u8])]) {
    let mut content = Vec::new();
    for (name, value) in pairs {
        emit_pair(&mut content, name, value);
    }
    emit_record(out, MANAGEMENT_ID, Kind::GetValuesResult, &content);
}

fn emit_record(out: &mut Vec<u8>, request_id: u16, kind: Kind, content: &[u8]) {
    let header = Header::of(request_id, kind, content.len());
    out.extend_from_slice(&header.emit());
    out.extend_from_slice(content);
    header.pad(out);
}

/// A request's PARAMS stream, in which no pair straddles two records.
#[derive(Debug)]
pub struct Params {
    out: Vec<u8>,
    /// Where the record in the making begins.
    record_at: usize,
}

impl Params {
    /// Begins a request: BEGIN_REQUEST and room for its parameters.
    #[must_use]
    pub fn new() -> Self {
        let mut out = Vec::with_capacity(1024);
        emit_begin(&mut out);
        let mut params = Self { out, record_at: 0 };
        params.open_record();
        params
    }

    /// Adds a pair. False when it cannot fit one record, in which case it is not added.
    #[must_use]
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> bool {
        let fits = self.open_for(8 + name.len() + value.len());
        if fits {
            emit_pair(&mut self.out, name, value);
        }
        fits
    }

    /// The same, of a value in two parts and a name that is known when this is compiled: then it is
    /// a few moves, where a copy of some bytes by memcpy(3) costs more than the pair.
    #[must_use]
    pub fn add_named<const N: usize>(&mut self, name: &[u8; N], parts: [&[u8]; 2]) -> bool {
        let [first, second] = parts;
        let value_bytes = first.len() + second.len();
        let fits = self.open_for(8 + N + value_bytes);
        if fits {
            emit_length(&mut self.out, N);
            emit_length(&mut self.out, value_bytes);
            self.out.extend_from_slice(name);
            for part in parts.into_iter().filter(|part| !part.is_empty()) {
                self.out.extend_from_slice(part);
            }
        }
        fits
    }

    /// Makes sure that the record in the making has room for so much more. False: none would have.
    fn open_for(&mut self, pair_bytes: usize) -> bool {
        if pair_bytes > CONTENT_BYTES_MAX {
            return false;
        }
        if self.content_bytes() + pair_bytes > CONTENT_BYTES_MAX {
            self.close_record();
            self.open_record();
        }
        true
    }

    /// Leaves room for a record's header.
    fn open_record(&mut self) {
        self.record_at = self.out.len();
        self.out.extend_from_slice(&[0; field::HEADER_BYTES]);
    }

    fn content_bytes(&self) -> usize {
        self.out.len() - self.record_at - field::HEADER_BYTES
    }

    /// A record without content would end the stream: it is taken back.
    fn close_record(&mut self) {
        let content_bytes = self.content_bytes();
        if content_bytes == 0 {
            self.out.truncate(self.record_at);
            return;
        }
        let header = Header::of(REQUEST_ID, Kind::Params, content_bytes);
        let place = self.out.get_mut(self.record_at..self.record_at + field::HEADER_BYTES);
        place.unwrap_or_default().copy_from_slice(&header.emit());
        header.pad(&mut self.out);
    }

    /// The records up to the end of PARAMS.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.close_record();
        emit_end(&mut self.out, Kind::Params);
        self.out
    }
}

impl Default for Params {
    fn default() -> Self {
        Self::new()
    }
}

fn emit_pair(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    emit_length(out, name.len());
    emit_length(out, value.len());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
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

/// Takes a name and its value off the front of a whole PARAMS or GET_VALUES stream.
pub fn parse_pair<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8]), Short> {
    let (name_bytes, value_bytes) = (parse_length(reader)?, parse_length(reader)?);
    Ok((reader.take(name_bytes)?, reader.take(value_bytes)?))
}

fn parse_length(reader: &mut Reader<'_>) -> Result<usize, Short> {
    let first = reader.u8()?;
    if first < 128 {
        return Ok(usize::from(first));
    }
    let [b, c, d] = reader.array()?;
    usize::try_from(u32::from_be_bytes([first & 127, b, c, d])).map_err(|_| Short)
}

/// Decodes an answer's records, fed with the pieces that the socket gave.
#[derive(Debug, Default)]
pub struct Decoder {
    header: heapless::Vec<u8, { field::HEADER_BYTES }>,
    record: Option<Record>,
    /// The body of END_REQUEST as far as it is here.
    end: heapless::Vec<u8, { field::BODY_BYTES }>,
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
        app_status: u32,
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
                if record.kind == Kind::Stdout {
                    return Ok(Event::Stdout(content));
                }
                if record.kind == Kind::Stderr {
                    return Ok(Event::Stderr(content));
                }
                for &byte in content {
                    // A longer body than the protocol has: its tail means nothing.
                    let _is_full = self.end.push(byte);
                }
                if record.content_left == 0 {
                    // FastCGI 1.0, 5.5: appStatus, then protocolStatus; 0 is complete.
                    let mut body = Reader::new(&self.end);
                    let app_status = body.u32()?;
                    return Ok(Event::End { app_status, is_complete: body.u8()? == 0 });
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
        if !header.kind.is_of_answer() {
            return Err(Error::Kind(header.kind));
        }
        let content_left = usize::from(header.content_bytes);
        if header.kind == Kind::EndRequest && content_left < field::BODY_BYTES {
            return Err(Error::Short);
        }
        let padding_left = usize::from(header.padding_bytes);
        Ok(Self { kind: header.kind, content_left, padding_left })
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

    type Decoded = (Vec<u8>, Vec<u8>, Option<(u32, bool)>);

    fn decode(bytes: &[u8], size: usize) -> Result<Decoded, Error> {
        let mut decoder = Decoder::default();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        for mut piece in bytes.chunks(size) {
            loop {
                match decoder.next(&mut piece)? {
                    Event::Stdout(content) => stdout.extend_from_slice(content),
                    Event::Stderr(content) => stderr.extend_from_slice(content),
                    Event::End { app_status, is_complete } => {
                        return Ok((stdout, stderr, Some((app_status, is_complete))));
                    }
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
            assert_eq!(
                decoded,
                Ok((b"abcd".to_vec(), b"oops".to_vec(), Some((1, true)))),
                "{size}"
            );
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
            assert_eq!(event, Ok(Event::End { app_status: 0, is_complete: true }));
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
    fn emits_what_a_responder_says() {
        let mut out = Vec::new();
        emit_stream_of(&mut out, 300, Kind::Stdout, b"12345678");
        emit_end_request(&mut out, 300, 7, ProtocolStatus::CantMpxConn);
        emit_unknown_type(&mut out, 77);
        emit_values(&mut out, &[(b"A", b"1"), (b"BC", b"")]);
        let expected: &[u8] = &[
            1, 6, 1, 44, 0, 8, 0, 0, b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8', // STDOUT
            1, 3, 1, 44, 0, 8, 0, 0, 0, 0, 0, 7, 1, 0, 0, 0, // END_REQUEST, cannot multiplex
            1, 11, 0, 0, 0, 8, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, // UNKNOWN_TYPE
            1, 10, 0, 0, 0, 8, 0, 0, 1, 1, b'A', b'1', 2, 0, b'B', b'C', // GET_VALUES_RESULT
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn pairs_round_trip_at_every_length() {
        let value = vec![b'v'; 40_000];
        for length in [0, 1, 127, 128, 300, 40_000] {
            let mut out = Vec::new();
            emit_pair(&mut out, b"NAME", &value[..length]);
            let mut reader = Reader::new(&out);
            assert_eq!(parse_pair(&mut reader), Ok((&b"NAME"[..], &value[..length])));
            assert!(reader.is_empty());
            for cut in (0..out.len()).step_by(1 + length / 10) {
                assert_eq!(parse_pair(&mut Reader::new(&out[..cut])), Err(Short));
            }
        }
        assert_eq!(parse_pair(&mut Reader::new(&[0xff; 9])), Err(Short));
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
