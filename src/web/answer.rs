//! CGI answer: a script's header and body become an HTTP answer.
//!
//! In: pieces of FastCGI stdout. Out: bytes for the client, and whether the connection can live on.
//! Must not: send a byte before the header is whole (until then another host may be asked), let
//! through a line that would frame the answer differently.
//! Read first: RFC 3875 section 6; facts/web.md 1.3.

use std::fmt;
use std::str;

use super::coding::{self, Gzip};
use super::reply::{self, Stamp, Terms};
use super::request::{is_token_byte, parse_decimal};

/// One script's answer.
#[derive(Debug, Default)]
pub struct Answer {
    stage: Stage,
    /// The header as far as it is here, then the body that came with it.
    held: Vec<u8>,
    body_bytes: u64,
    /// A header line of ours that goes with it.
    line: Vec<u8>,
}

#[derive(Debug, Default)]
enum Stage {
    /// The header's end is not here; so many bytes were searched for it.
    #[default]
    Header,
    /// The header is whole and `held` is the body so far; nothing went to the client.
    Ready(Header),
    Sent {
        status: u16,
        delivery: Delivery,
        /// What compresses, and how much the script still owes where it gave a length.
        gzip: Option<(Box<Gzip>, Option<u64>)>,
    },
}

/// How the body's end is told to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Nothing,
    Length(u64),
    Chunked,
    UntilClose,
}

/// A script's header, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    status: u16,
    reason: String,
    /// The lines that are passed on, each with its CRLF.
    lines: Vec<u8>,
    length: Option<u64>,
    /// Text that may be compressed, by its type and all else but the client.
    is_plain_text: bool,
    /// nginx: X-Accel-Redirect, the path of the file to send instead.
    inside: Option<Vec<u8>>,
    has_date: bool,
    has_server: bool,
    has_hsts: bool,
}

/// What makes an answer a 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    HeaderTooLarge,
    Status,
    Line,
    Length,
    /// The answer ended within its header.
    Incomplete,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeaderTooLarge => "header of the script is too large",
            Self::Status => "status of the script is no status",
            Self::Line => "malformed header line from the script",
            Self::Length => "contradictory length from the script",
            Self::Incomplete => "answer ended within its header",
        })
    }
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client knows where it ended.
    Whole,
    /// The client's connection must be closed: that is, or shows, the end.
    Close,
}

/// Bytes of a script's header (nginx has 4 or 8 KiB; WordPress plugins have exceeded that).
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Header lines that concern only the hop to the script, or nginx itself.
const DROPPED: [&str; 8] = [
    "status",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const HSTS: &str = "strict-transport-security";

/// nginx: ngx_http_upstream_headers_in, what survives an internal redirect.
const KEPT_INSIDE: [&str; 5] =
    ["content-type", "content-disposition", "cache-control", "expires", "set-cookie"];

impl Answer {
    /// One that gets a header line of ours, unless it is 304, which renews what others have stored.
    #[must_use]
    pub fn with_line(line: Vec<u8>) -> Self {
        Self { line, ..Self::default() }
    }

    /// Whether anything went to the client.
    #[must_use]
    pub const fn is_sent(&self) -> bool {
        matches!(self.stage, Stage::Sent { .. })
    }

    /// Whether the header is whole, so that `start` will send it.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready(_))
    }

    /// Whether the script wants a file to be sent in place of its answer; nothing of it went out.
    #[must_use]
    pub const fn is_inside(&self) -> bool {
        matches!(&self.stage, Stage::Ready(header) if header.inside.is_some())
    }

    /// The file's path and the header lines that go with it (nginx: X-Accel-Redirect keeps these).
    #[must_use]
    pub fn inside(&self) -> Option<(&[u8], Vec<u8>)> {
        let Stage::Ready(header) = &self.stage else { return None };
        let lines = header.lines.split_inclusive(|&byte| byte == b'\n');
        let kept = lines.filter(|line| {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            KEPT_INSIDE.iter().any(|kept| name.eq_ignore_ascii_case(kept.as_bytes()))
        });
        Some((header.inside.as_deref()?, kept.flatten().copied().collect()))
    }

    /// Whether more is held back than is worth waiting for an end.
    #[must_use]
    pub const fn is_holding_much(&self) -> bool {
        self.held.len() > HEADER_BYTES_MAX
    }

    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match &self.stage {
            Stage::Header => None,
            Stage::Ready(header) => Some(header.status),
            Stage::Sent { status, .. } => Some(*status),
        }
    }

    /// Bytes of body that went to the client.
    #[must_use]
    pub const fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Takes a piece of stdout.
    pub fn stdout(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        match &mut self.stage {
            Stage::Header => {
                let scanned = self.held.len();
                self.held.extend_from_slice(bytes);
                if let Some(end) = find_end(&self.held, scanned) {
                    if end > HEADER_BYTES_MAX {
                        return Err(Error::HeaderTooLarge);
                    }
                    let body = self.held.split_off(end);
                    self.stage = Stage::Ready(Header::parse(&self.held)?);
                    self.held = body;
                } else if self.held.len() > HEADER_BYTES_MAX {
                    return Err(Error::HeaderTooLarge);
                }
            }
            Stage::Ready(_) => self.held.extend_from_slice(bytes),
            Stage::Sent { delivery, gzip: Some((gzip, left)), .. } => {
                self.body_bytes += deliver(delivery, &compress(gzip, left, bytes), out);
            }
            Stage::Sent { delivery, gzip: None, .. } => {
                self.body_bytes += deliver(delivery, bytes, out);
            }
        }
        Ok(())
    }

    /// Sends the header and what is held, if the header is whole. `is_ended`: no more will come, so
    /// that the length is known without the script's help. Clears `terms.is_keep_alive` where only
    /// the connection's end can tell the body's end.
    pub fn start(&mut self, is_ended: bool, terms: &mut Terms, stamp: &Stamp, out: &mut Vec<u8>) {
        let Stage::Ready(header) = &self.stage else { return };
        let held_bytes = u64::try_from(self.held.len()).unwrap_or(u64::MAX);
        let has_no_body = matches!(header.status, 204 | 304);
        let known = header.length.or(if is_ended { Some(held_bytes) } else { None });
        let is_gzip = header.is_plain_text
            && !terms.is_head
            && terms.gzip_min.is_some_and(|least| known.is_none_or(|length| length >= least));
        if is_gzip {
            self.start_gzip(is_ended, *terms, stamp, out);
            return;
        }
        let (mut delivery, length) = match header.length {
            _ if has_no_body => (Delivery::Nothing, None),
            Some(length) => (Delivery::Length(length), Some(length)),
            None if terms.is_head => (Delivery::Nothing, None),
            None if is_ended => (Delivery::Length(held_bytes), Some(held_bytes)),
            None if terms.is_http_10 => (Delivery::UntilClose, None),
            None => (Delivery::Chunked, None),
        };
        if terms.is_head {
            delivery = Delivery::Nothing;
        }
        if delivery == Delivery::UntilClose {
            terms.is_keep_alive = false;
        }
        header.emit(length, delivery == Delivery::Chunked, false, stamp, out);
        vary(header, *terms, out);
        if header.status != 304 {
            out.extend_from_slice(&self.line);
        }
        reply::end(out, header.left_to_say(*terms));
        let status = header.status;
        let held = std::mem::take(&mut self.held);
        self.body_bytes += deliver(&mut delivery, &held, out);
        self.stage = Stage::Sent { status, delivery, gzip: None };
    }

    /// The same for text that the client takes compressed.
    fn start_gzip(&mut self, is_ended: bool, terms: Terms, stamp: &Stamp, out: &mut Vec<u8>) {
        let Stage::Ready(header) = &self.stage else { return };
        let (status, mut left) = (header.status, header.length);
        let mut gzip = Box::new(Gzip::new());
        let held = std::mem::take(&mut self.held);
        let mut coded = compress(&mut gzip, &mut left, &held);
        let is_whole = is_ended && left.unwrap_or(0) == 0;
        if is_whole {
            coded.extend(gzip.finish());
        }
        let coded_bytes = Some(u64::try_from(coded.len()).unwrap_or(0)).filter(|_| is_whole);
        let mut delivery = coded_bytes.map_or(Delivery::Chunked, Delivery::Length);
        header.emit(coded_bytes, !is_whole, true, stamp, out);
        vary(header, terms, out);
        if status != 304 {
            out.extend_from_slice(&self.line);
        }
        reply::end(out, header.left_to_say(terms));
        self.body_bytes += deliver(&mut delivery, &coded, out);
        let gzip = Some((gzip, left)).filter(|_| !is_whole);
        self.stage = Stage::Sent { status, delivery, gzip };
    }

    /// The script is done: the body's end for the client.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Ending {
        if let Stage::Sent { gzip: Some((gzip, left)), delivery, .. } = &mut self.stage {
            if left.is_some_and(|left| left > 0) {
                return Ending::Close;
            }
            self.body_bytes += deliver(delivery, &gzip.finish(), out);
        }
        match &self.stage {
            Stage::Sent { delivery: Delivery::Nothing | Delivery::Length(0), .. } => Ending::Whole,
            Stage::Sent { delivery: Delivery::Chunked, .. } => {
                out.extend_from_slice(b"0\r\n\r\n");
                Ending::Whole
            }
            // Fewer bytes than promised: only a closed connection tells the client.
            Stage::Sent { delivery: Delivery::Length(_) | Delivery::UntilClose, .. }
            | Stage::Header
            | Stage::Ready(_) => Ending::Close,
        }
    }

    /// Whether the client has all that a Content-Length promised.
    #[must_use]
    pub const fn is_length_reached(&self) -> bool {
        if let Stage::Sent { gzip: Some((_, left)), .. } = &self.stage {
            return matches!(left, Some(0));
        }
        matches!(self.stage, Stage::Sent { delivery: Delivery::Nothing | Delivery::Length(0), .. })
    }

    /// The connection to the script ended without END_REQUEST and nothing was sent: what is
    /// here goes out, and the end of the client's connection is its end, unless the script gave
    /// a length.
    pub fn start_unended(&mut self, terms: &mut Terms, stamp: &Stamp, out: &mut Vec<u8>) {
        let terms_before = *terms;
        // Not compressed either: an end that nobody vouches for cannot be told in gzip.
        *terms = Terms { is_http_10: true, is_keep_alive: false, gzip_min: None, ..terms_before };
        self.start(false, terms, stamp, out);
        terms.is_http_10 = terms_before.is_http_10;
    }
}

fn vary(header: &Header, terms: Terms, out: &mut Vec<u8>) {
    if header.is_plain_text && terms.varies {
        out.extend_from_slice(b"Vary: Accept-Encoding\r\n");
    }
}

/// Compresses a piece, no more of it than the script promised.
fn compress(gzip: &mut Gzip, left: &mut Option<u64>, bytes: &[u8]) -> Vec<u8> {
    let Some(left) = left else { return gzip.add(bytes) };
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= u64::try_from(taken).unwrap_or(0);
    gzip.add(bytes.get(..taken).unwrap_or_default())
}

/// Appends a piece of body in its delivery; returns the bytes that counted.
fn deliver(delivery: &mut Delivery, bytes: &[u8], out: &mut Vec<u8>) -> u64 {
    if bytes.is_empty() {
        return 0;
    }
    let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    match delivery {
        Delivery::Nothing => 0,
        Delivery::Length(left) => {
            // More than promised is cut, or it would be read as the next answer.
            let taken = (*left).min(count);
            *left -= taken;
            let end = usize::try_from(taken).unwrap_or(bytes.len());
            out.extend_from_slice(bytes.get(..end).unwrap_or(bytes));
            taken
        }
        Delivery::Chunked => {
            out.extend_from_slice(&reply::hexadecimal(count));
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
            count
        }
        Delivery::UntilClose => {
            out.extend_from_slice(bytes);
            count
        }
    }
}

/// The end of a CGI header: a blank line, with CRLF or LF, possibly the very first one.
pub(super) fn find_end(bytes: &[u8], scanned: usize) -> Option<usize> {
    match bytes {
        [b'\n', ..] => return Some(1),
        [b'\r', b'\n', ..] => return Some(2),
        _ => {}
    }
    let from = scanned.saturating_sub(3);
    let tail = bytes.get(from..)?;
    tail.iter().enumerate().filter(|&(_, &byte)| byte == b'\n').find_map(|(at, _)| {
        match tail.get(at + 1..)? {
            [b'\n', ..] => Some(from + at + 2),
            [b'\r', b'\n', ..] => Some(from + at + 3),
            _ => None,
        }
    })
}

/// A line's name, in small letters as far as it may be one that is known here, and its value.
fn split_line(line: &[u8]) -> Option<(Name, &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..)?;
    // Before it is trimmed: the line is passed on as it is, and CR and FF are white space.
    let is_clean = value.iter().all(|&byte| byte == b'\t' || !byte.is_ascii_control());
    let is_name = !name.is_empty() && name.iter().copied().all(is_token_byte);
    if !is_clean || !is_name {
        return None;
    }
    let small = name.iter().take(Name::new().capacity()).map(u8::to_ascii_lowercase);
    Some((small.map(char::from).collect(), value.trim_ascii()))
}

/// One character longer than the longest that is known: what is cut equals none of them.
type Name = heapless::String<{ HSTS.len() + 1 }>;

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut header = Self {
            status: 200,
            reason: String::new(),
            lines: Vec::with_capacity(bytes.len() + 64),
            length: None,
            is_plain_text: false,
            inside: None,
            has_date: false,
            has_server: false,
            has_hsts: false,
        };
        let mut status = None;
        let mut has_location = false;
        let (mut is_text, mut is_fixed) = (false, false);
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            // nginx skips a status line in HTTP's own form as well.
            if line.is_empty() || (index == 0 && line.starts_with(b"HTTP/")) {
                continue;
            }
            let (name, value) = split_line(line).ok_or(Error::Line)?;
            match name.as_str() {
                "status" => status = Some(parse_status(value)?),
                "content-length" => {
                    let length = parse_decimal(value).ok_or(Error::Length)?;
                    if header.length.is_some_and(|before| before != length) {
                        return Err(Error::Length);
                    }
                    header.length = Some(length);
                    continue;
                }
                "location" => has_location = true,
                "x-accel-redirect" => header.inside = Some(value.to_vec()),
                // The script wants each piece to arrive at once, not to sit in gzip's window.
                "x-accel-buffering" => is_fixed |= value.eq_ignore_ascii_case(b"no"),
                "content-type" => is_text = coding::is_text(value),
                "content-encoding" | "content-range" => is_fixed = true,
                // RFC 9111, 5.2.2.6.
                "cache-control" => {
                    is_fixed |=
                        value.to_ascii_lowercase().windows(12).any(|w| w == b"no-transform");
                }
                // Once, if the script says it more often.
                "date" if std::mem::replace(&mut header.has_date, true) => continue,
                "server" if std::mem::replace(&mut header.has_server, true) => continue,
                HSTS if std::mem::replace(&mut header.has_hsts, true) => continue,
                _ => {}
            }
            if DROPPED.contains(&name.as_str()) || name.starts_with("x-accel-") {
                continue;
            }
            header.lines.extend_from_slice(line);
            header.lines.extend_from_slice(b"\r\n");
        }
        if let Some((code, reason)) = status {
            (header.status, header.reason) = (code, reason);
        } else if has_location {
            header.status = 302;
        }
        // nginx: ngx_http_gzip_header_filter.
        header.is_plain_text = is_text && !is_fixed && matches!(header.status, 200 | 403 | 404);
        Ok(header)
    }

    /// What the script has said itself is not said again.
    fn left_to_say(&self, terms: Terms) -> Terms {
        Terms { hsts: terms.hsts.filter(|_| !self.has_hsts), ..terms }
    }

    fn emit(
        &self,
        length: Option<u64>,
        is_chunked: bool,
        is_gzip: bool,
        stamp: &Stamp,
        out: &mut Vec<u8>,
    ) {
        let reason = if self.reason.is_empty() { reply::reason(self.status) } else { &self.reason };
        reply::status_line(out, self.status, reason);
        if !self.has_server {
            reply::line(out, b"Server", b"tandem");
        }
        if !self.has_date {
            reply::line(out, b"Date", stamp.http_date.as_bytes());
        }
        if is_gzip {
            emit_weakened(&self.lines, out);
            out.extend_from_slice(b"Content-Encoding: gzip\r\n");
        } else {
            out.extend_from_slice(&self.lines);
        }
        if let Some(length) = length {
            reply::line(out, b"Content-Length", &reply::decimal(length));
        }
        if is_chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
    }
}

/// Appends the lines with a strong ETag made weak: the bytes are others (RFC 9110, 8.8.1).
fn emit_weakened(lines: &[u8], out: &mut Vec<u8>) {
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        let (name, value) = line.split_at(line.len().min(5));
        let is_strong = value.trim_ascii_start().starts_with(b"\"");
        if name.eq_ignore_ascii_case(b"etag:") && is_strong {
            out.extend_from_slice(b"ETag: W/");
            out.extend_from_slice(value.trim_ascii_start());
        } else {
            out.extend_from_slice(line);
        }
    }
}

/// "404 Not Found": three digits from 200 on, since 1xx would not be the answer.
fn parse_status(value: &[u8]) -> Result<(u16, String), Error> {
    let text = str::from_utf8(value).map_err(|_| Error::Status)?;
    let (code, reason) = text.split_once(' ').unwrap_or((text, ""));
    if code.len() != 3 {
        return Err(Error::Status);
    }
    let code = parse_decimal(code.as_bytes()).and_then(|code| u16::try_from(code).ok());
    match code {
        Some(code @ 200..=999) => Ok((code, reason.trim().to_owned())),
        Some(_) | None => Err(Error::Status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp::new(1_700_000_000)
    }

    const TERMS: Terms = Terms {
        is_head: false,
        is_http_10: false,
        is_keep_alive: true,
        gzip_min: None,
        varies: false,
        hsts: None,
    };

    /// The whole answer as text, when stdout comes in pieces and END_REQUEST with the last.
    fn answer(stdout: &str, mut terms: Terms, size: usize) -> Result<(String, Ending), Error> {
        let mut answer = Answer::default();
        let mut out = Vec::new();
        let pieces: Vec<&[u8]> = stdout.as_bytes().chunks(size).collect();
        for (index, piece) in pieces.iter().enumerate() {
            answer.stdout(piece, &mut out)?;
            answer.start(index + 1 == pieces.len(), &mut terms, &stamp(), &mut out);
        }
        if !answer.is_sent() {
            return Err(Error::Incomplete);
        }
        let ending = answer.finish(&mut out);
        Ok((String::from_utf8(out).expect("text"), ending))
    }

    fn whole(stdout: &str) -> Result<String, Error> {
        answer(stdout, TERMS, usize::MAX).map(|(text, _)| text)
    }

    #[test]
    fn a_short_answer_gets_its_length() {
        let text = whole("Content-Type: text/html\r\n\r\nhello").expect("an answer");
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nServer: tandem\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n\
             Content-Type: text/html\r\nContent-Length: 5\r\n\r\nhello"
        );
    }

    #[test]
    fn a_long_answer_is_chunked_whatever_the_pieces() {
        let stdout = "Status: 404 Gone fishing\nA: b\n\nhello world";
        for size in 1..stdout.len() - 1 {
            let (text, ending) = answer(stdout, TERMS, size).expect("an answer");
            assert!(text.starts_with("HTTP/1.1 404 Gone fishing\r\n"), "{text}");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert_eq!(ending, Ending::Whole);
            if head.contains("chunked") {
                assert!(body.ends_with("\r\n0\r\n\r\n"), "{text}");
            } else {
                assert_eq!(body, "hello world", "pieces of {size}");
            }
        }
    }

    #[test]
    fn http_10_is_never_chunked() {
        let terms = Terms { is_http_10: true, ..TERMS };
        let (text, ending) = answer("A: b\r\n\r\nhello", terms, 8).expect("an answer");
        assert!(!text.contains("chunked") && text.contains("Connection: close\r\n"), "{text}");
        assert_eq!(ending, Ending::Close);
    }

    #[test]
    fn a_length_is_a_limit_and_a_promise() {
        let (text, ending) =
            answer("Content-Length: 4\r\n\r\n0123456789abc", TERMS, 99).expect("an answer");
        assert!(text.ends_with("\r\n\r\n0123") && ending == Ending::Whole, "{text}");
        let (text, ending) = answer("Content-Length: 100\r\n\r\n01234", TERMS, 99).expect("it");
        assert!(text.ends_with("01234") && ending == Ending::Close, "{text}");
    }

    #[test]
    fn no_body_where_none_may_be() {
        for status in [204, 304] {
            let text = whole(&format!("Status: {status} x\r\n\r\nbody")).expect("an answer");
            assert!(text.ends_with("\r\n\r\n") && !text.contains("Content-Length"), "{text}");
        }
        let terms = Terms { is_head: true, ..TERMS };
        let (text, ending) = answer("Content-Length: 9\r\n\r\nbody", terms, 99).expect("an answer");
        assert!(text.ends_with("\r\n\r\n") && text.contains("Content-Length: 9"), "{text}");
        assert_eq!(ending, Ending::Whole);
    }

    #[test]
    fn hop_headers_are_dropped_and_cookies_kept_apart() {
        let text = whole(
            "Transfer-Encoding: chunked\r\nConnection: close\r\nX-Accel-Redirect: /x\r\n\
             Set-Cookie: a\r\nset-cookie: b\r\nDate: D\r\nDate: E\r\nServer: S\r\n\r\nx",
        )
        .expect("an answer");
        for absent in ["chunked", "close", "X-Accel", "Date: E", "tandem"] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
        assert!(text.contains("Set-Cookie: a\r\nset-cookie: b\r\nDate: D\r\nServer: S\r\n"));
    }

    #[test]
    fn a_location_alone_is_a_redirect() {
        assert!(whole("Location: /x\r\n\r\n").expect("it").starts_with("HTTP/1.1 302 Found"));
        assert!(whole("Status: 201\r\nLocation: /x\r\n\r\n").expect("it").contains("201 Created"));
    }

    #[test]
    fn an_empty_header_is_200() {
        for stdout in ["\r\nx", "\nx"] {
            let text = whole(stdout).expect("an answer");
            assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("\r\n\r\nx"), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_header() {
        for (stdout, error) in [
            ("Status: abc\r\n\r\n", Error::Status),
            ("Status: 101 x\r\n\r\n", Error::Status),
            ("Status: 1000\r\n\r\n", Error::Status),
            ("no colon\r\n\r\n", Error::Line),
            ("A: b\rX: y\r\n\r\n", Error::Line),
            ("A: b\0\r\n\r\n", Error::Line),
            ("A: b\r\r\n\r\n", Error::Line),
            ("A:\x0cb\r\n\r\n", Error::Line),
            ("A b: c\r\n\r\n", Error::Line),
            (": c\r\n\r\n", Error::Line),
            ("Content-Length: -1\r\n\r\n", Error::Length),
            ("Content-Length: 1\r\nContent-Length: 2\r\n\r\n", Error::Length),
            ("A: b\r\n", Error::Incomplete),
        ] {
            assert_eq!(whole(stdout), Err(error), "{stdout:?}");
        }
        let huge = format!("A: {}\r\n\r\n", "b".repeat(70_000));
        assert_eq!(answer(&huge, TERMS, 8192).err(), Some(Error::HeaderTooLarge));
    }

    #[test]
    fn bit_flips_never_panic() {
        let stdout = b"Status: 200 OK\r\nContent-Length: 3\r\nA: b\n\nabc";
        for bit in 0..stdout.len() * 8 {
            let mut bytes = stdout.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (mut answer, mut out, mut terms) = (Answer::default(), Vec::new(), TERMS);
            for piece in bytes.chunks(5) {
                if answer.stdout(piece, &mut out).is_err() {
                    break;
                }
                answer.start(false, &mut terms, &stamp(), &mut out);
            }
            answer.finish(&mut out);
        }
    }

    fn unzip(bytes: &[u8]) -> String {
        let mut text = String::new();
        let mut decoder = flate2::read::GzDecoder::new(bytes);
        std::io::Read::read_to_string(&mut decoder, &mut text).expect("gzip");
        text
    }

    #[test]
    fn text_is_compressed_whole_or_in_pieces_and_its_etag_is_weak() {
        let body = "hello world ".repeat(1000);
        let terms = Terms { gzip_min: Some(100), varies: true, ..TERMS };
        for length in ["", "Content-Length: 12000\r\n"] {
            for size in [usize::MAX, 1000, 17] {
                let head = format!("Content-Type: text/html\r\nETag: \"x\"\r\n{length}\r\n");
                let stdout = [head.as_str(), body.as_str()].concat();
                let (mut answer, mut out, mut terms) = (Answer::default(), Vec::new(), terms);
                let pieces: Vec<&[u8]> = stdout.as_bytes().chunks(size).collect();
                for (index, piece) in pieces.iter().enumerate() {
                    answer.stdout(piece, &mut out).expect("a good answer");
                    answer.start(index + 1 == pieces.len(), &mut terms, &stamp(), &mut out);
                }
                assert_eq!(answer.finish(&mut out), Ending::Whole);
                let end = out.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
                let head = String::from_utf8_lossy(&out[..end]).into_owned();
                assert!(head.contains("ETag: W/\"x\"\r\n"), "{head}");
                assert!(head.contains("Content-Encoding: gzip\r\n"), "{head}");
                assert!(head.contains("Vary: Accept-Encoding\r\n"), "{head}");
                assert!(out.len() < 1000, "{}", out.len());
                if size == usize::MAX {
                    assert!(head.contains(&format!("Content-Length: {}\r\n", out.len() - end)));
                    assert_eq!(unzip(&out[end..]), body);
                } else {
                    assert!(head.contains("chunked") && out.ends_with(b"\r\n0\r\n\r\n"));
                }
            }
        }
    }

    #[test]
    fn what_is_short_coded_or_no_text_stays_as_it_is() {
        let terms = Terms { gzip_min: Some(100), varies: true, ..TERMS };
        let long = "x".repeat(200);
        for lines in [
            "Content-Type: image/png\r\n\r\n".to_owned() + &long,
            "Content-Type: text/html\r\nContent-Encoding: br\r\n\r\n".to_owned() + &long,
            "Content-Type: text/html\r\nCache-Control: No-Transform\r\n\r\n".to_owned() + &long,
            "Content-Type: text/event-stream\r\n\r\n".to_owned() + &long,
            "Status: 206\r\nContent-Type: text/html\r\n\r\n".to_owned() + &long,
            "Content-Type: text/html\r\n\r\nshort".to_owned(),
        ] {
            let (text, _) = answer(&lines, terms, usize::MAX).expect("an answer");
            assert!(!text.contains("Content-Encoding: gzip"), "{text}");
        }
    }

    #[test]
    fn less_than_promised_never_looks_whole_in_gzip() {
        let stdout = "Content-Type: text/html\r\nContent-Length: 5000\r\n\r\nhello";
        let terms = Terms { gzip_min: Some(100), varies: true, ..TERMS };
        let (mut answer, mut out, mut terms) = (Answer::default(), Vec::new(), terms);
        answer.stdout(stdout.as_bytes(), &mut out).expect("a good answer");
        answer.start(true, &mut terms, &stamp(), &mut out);
        assert_eq!(answer.finish(&mut out), Ending::Close);
        assert!(!answer.is_length_reached() && !out.ends_with(b"0\r\n\r\n"));
    }
}
