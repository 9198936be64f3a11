//! Targets of the web front's connections: requests, chunks, FastCGI.
//!
//! In: any bytes. Out: a panic where a law is broken. Must not: know a socket or a file.
//! Read first: `targets`; RFC 9112 for framing; FastCGI 1.0, 3.3; facts/web.md 1.5.

use std::net::SocketAddr;

use tandem::time::Instant;
use tandem::web::Config;
use tandem::web::body::{Decoder, Step};
use tandem::web::fastcgi::{self, Event, Kind, Params};
use tandem::web::log::Entry;
use tandem::web::lookup::{Found, Meta};
use tandem::web::params::Ends;
use tandem::web::reply::Stamp;
use tandem::web::request::Framing;
use tandem::web::rules::Rules;
use tandem::web::session::{Context, Input, Output, Session};
use tandem::wire::HostId;

use super::Cut;

// ---- a connection --------------------------------------------------------------------------

/// The first byte chooses the configuration and where the client's bytes are cut: what is
/// answered, and what PHP is asked, does not depend on the cuts.
pub fn web_request(input: &[u8]) {
    let Some((&control, stream)) = input.split_first() else { return };
    let whole = Desk::run(control, stream, usize::MAX);
    whole.check();
    for size in [1, 2 + usize::from(control >> 3)] {
        let cut = Desk::run(control, stream, size);
        cut.check();
        assert_eq!(cut.outcomes(), whole.outcomes(), "cut every {size}");
        assert_eq!(cut.asked, whole.asked, "cut every {size}");
    }
}

/// A session whose hands find a file and three scripts, and whose PHP answers
/// as soon as it was asked.
struct Desk {
    rules: Rules,
    stamp: Stamp,
    session: Session,
    sent: Vec<u8>,
    entries: Vec<Entry>,
    /// What PHP was asked, request after request, and whether it was to keep the connection.
    asked: Vec<(bool, Vec<u8>)>,
    is_kept: bool,
    control: u8,
    is_closed: bool,
}

const FILE: &[u8] = b"0123456789";
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Desk {
    fn run(control: u8, stream: &[u8], size: usize) -> Self {
        let config = Config {
            access_log: "wanted".into(),
            body_max: tandem::units::ByteCount(200),
            proxy_protocol: control & 1 != 0,
            set_real_ip_from: vec!["127.0.0.0/8".parse().expect("a network")],
            front_controller: control & 2 != 0,
            gzip_static: control & 4 != 0,
            connections_max_per_client: usize::from(control & 8),
            ..Config::default()
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let ends = Ends { client: address, local: address, is_https: false };
        let mut desk = Self {
            session: Session::new(Instant::ZERO, &config, ends),
            rules: Rules::new(config),
            stamp: Stamp::new(1_700_000_000),
            sent: Vec::new(),
            entries: Vec::new(),
            asked: Vec::new(),
            is_kept: false,
            control,
            is_closed: false,
        };
        for piece in stream.chunks(size) {
            if !desk.session.wants_client() {
                assert!(desk.is_closed, "a connection that waits for nobody wants its client");
                break;
            }
            desk.feed(Input::Received(piece));
            desk.settle();
        }
        desk
    }

    fn feed(&mut self, input: Input<'_>) {
        let cx = Context {
            now: Instant::ZERO,
            rules: &self.rules,
            stamp: &self.stamp,
            is_draining: false,
        };
        self.session.handle(cx, input);
        while let Some(output) = self.session.poll_output() {
            assert!(!self.is_closed, "{output:?} after the end");
            let answer = match output {
                Output::Look => {
                    let (_, path) =
                        self.session.candidate(&self.rules.sites).expect("it is looking");
                    let files = [&b"/a.txt"[..], b"/t.php", b"/in.php", b"/index.php"];
                    let meta = Meta { size_bytes: 10, modified_unix_seconds: 1_600_000_000 };
                    let is_file = files.contains(&path.as_slice());
                    let is_folder = path == b"/" || path == b"/d";
                    let other = if is_folder { Found::Directory } else { Found::Missing };
                    Some(Input::Looked(if is_file { Found::File(meta) } else { other }))
                }
                Output::Finished => {
                    self.entries.push(*self.session.take_finished().expect("it is finished"));
                    None
                }
                Output::Acquire { tried, .. } => {
                    assert_eq!(tried, [false; 2], "PHP never fails here");
                    Some(Input::Assigned(HostId::First))
                }
                Output::Connect(_) if self.is_kept && self.session.may_reuse() => {
                    self.is_kept = false;
                    self.asked.push((true, Vec::new()));
                    Some(Input::Reused)
                }
                Output::Connect(_) => {
                    let keeps = self.control & 32 == 0;
                    self.asked.push((keeps, Vec::new()));
                    self.session.handle(cx, Input::Connecting { keeps });
                    Some(Input::Connected)
                }
                Output::Keep(_) => {
                    self.is_kept = self.asked.last().expect("it is connected").0;
                    None
                }
                Output::Count => Some(Input::Counted { is_one_too_many: self.control & 16 != 0 }),
                Output::AskRead => panic!("time stands still"),
                Output::Close => {
                    self.is_closed = true;
                    None
                }
                Output::Spool => panic!("no body here is that large"),
                Output::LeaveQueue | Output::Release(..) | Output::Shutdown => None,
            };
            if let Some(answer) = answer {
                self.session.handle(cx, answer);
            }
        }
    }

    /// Everybody does at once what can be done.
    fn settle(&mut self) {
        loop {
            let count = self.session.pending().len();
            let question = self.session.exchange().map(|it| it.pending().to_vec());
            if count > 0 {
                self.sent.extend_from_slice(self.session.pending());
                self.feed(Input::Wrote(count));
            } else if let Some(question) = question.filter(|it| !it.is_empty()) {
                self.feed(Input::UpstreamWrote(question.len()));
                let is_inside = question.windows(7).any(|it| it == b"/in.php");
                self.asked.last_mut().expect("it is connected").1.extend(question);
                let text: &[u8] =
                    if is_inside { b"X-Accel-Redirect: /a.txt\r\n\r\n" } else { b"\r\nhello" };
                let mut bytes = Vec::new();
                fastcgi::emit_stream(&mut bytes, Kind::Stdout, text);
                fastcgi::emit_stream(&mut bytes, Kind::EndRequest, &[0; 8]);
                self.feed(Input::Answered { bytes: &bytes, is_closing: false });
            } else if let Some(span) = self.session.file() {
                self.feed(Input::FileBytes(span.slice(FILE)));
            } else if self.session.is_head_due() {
                self.feed(Input::Proceed);
            } else {
                return;
            }
        }
    }

    /// One answer for each request, none behind one that said it was the last, each framed so
    /// that a client finds its end; and what PHP got is framed as well.
    fn check(&self) {
        let mut rest = self.sent.as_slice();
        let mut is_last = false;
        for entry in &self.entries {
            while let Some(after) = rest.strip_prefix(INTERIM) {
                rest = after;
            }
            assert!(!is_last, "an answer behind the last one: {entry:?}");
            let (status, headers, after) = answer_head(rest).expect("a whole head");
            assert_eq!(status, entry.status);
            let length = usize::try_from(entry.body_bytes).expect("short");
            let told = one(&headers, "content-length");
            assert!(one(&headers, "transfer-encoding").is_none());
            match told.map(|it| it.parse::<usize>().expect("a number")) {
                Some(told) => assert!(told == length || length == 0),
                // PHP's answer to HEAD has the length that the script says, or none.
                None => assert!(length == 0 && (status == 304 || entry.upstream.is_some())),
            }
            rest = &after[length..];
            is_last = one(&headers, "connection").as_deref() == Some("close");
            assert!(
                is_last || !matches!(status, 400 | 408 | 413 | 414 | 431 | 503 | 505),
                "{status}"
            );
        }
        let is_between = rest.is_empty() || (rest == INTERIM && !is_last);
        assert!(is_between, "{:?}", String::from_utf8_lossy(rest));
        assert!(!self.session.is_in_flight() || !is_last);
        self.asked.iter().for_each(|(keeps, question)| check_question(question, *keeps));
        let by_php = self.entries.iter().filter(|entry| entry.upstream.is_some()).count();
        assert_eq!(self.asked.len(), by_php);
    }

    /// Without the interim answers: they are not sent to a client whose body is here already.
    fn outcomes(&self) -> (Vec<(u16, u64)>, String) {
        let mut sent = Vec::new();
        let mut rest = self.sent.as_slice();
        while let Some((&byte, after)) = rest.split_first() {
            if let Some(after) = rest.strip_prefix(INTERIM) {
                rest = after;
            } else {
                sent.push(byte);
                rest = after;
            }
        }
        let entries = self.entries.iter().map(|entry| (entry.status, entry.body_bytes)).collect();
        (entries, String::from_utf8_lossy(&sent).into_owned())
    }
}

/// FastCGI 1.0, 3.3 and 6.1: BEGIN_REQUEST, PARAMS, STDIN, each stream with its end, and the length
/// that was told is the one that came.
fn check_question(bytes: &[u8], keeps: bool) {
    let records = records(bytes);
    assert_eq!(records.first(), Some(&(1, &[0, 1, keeps.into(), 0, 0, 0, 0, 0][..])));
    let of = |kind| records.iter().filter(move |it| it.0 == kind).map(|it| it.1);
    assert_eq!(of(4).count() + of(5).count() + 1, records.len());
    for kind in [4, 5] {
        let empty = of(kind).filter(|content| content.is_empty()).count();
        assert_eq!((empty, of(kind).next_back()), (1, Some(&[][..])), "one end, and at the end");
    }
    let pairs: Vec<_> = of(4).flat_map(pairs).collect();
    let value = |name: &[u8]| {
        let mut found = pairs.iter().filter(|pair| pair.0 == name).map(|pair| pair.1.clone());
        let first = found.next();
        assert!(found.next().is_none(), "{} twice", String::from_utf8_lossy(name));
        first
    };
    let length = String::from_utf8(value(b"CONTENT_LENGTH").expect("is told")).expect("digits");
    let stdin: usize = of(5).map(<[u8]>::len).sum();
    assert_eq!(length.parse().unwrap_or(0), stdin);
    assert_eq!(value(b"HTTP_PROXY"), None);
    let file = value(b"SCRIPT_FILENAME").expect("is told");
    assert!([&b"/t.php"[..], b"/in.php", b"/index.php"].iter().any(|it| file.ends_with(it)));
}

pub(super) type Headers = Vec<(String, Vec<u8>)>;

/// The head of an answer that any client reads alike, and what follows it.
pub(super) fn answer_head(bytes: &[u8]) -> Option<(u16, Headers, &[u8])> {
    let mut room = vec![httparse::EMPTY_HEADER; 4096];
    let mut response = httparse::Response::new(&mut room);
    let parsed = response.parse(bytes);
    let Ok(httparse::Status::Complete(length)) = parsed else { return None };
    let (head, rest) = bytes.split_at(length);
    let mut before = 0;
    for &byte in head {
        assert!((byte == b'\n') == (before == b'\r'), "a bare CR or LF");
        before = byte;
    }
    let lines = head.split(|&byte| byte == b'\n').count() - 3;
    assert_eq!(lines, response.headers.len(), "a line that is no header");
    let lower = |it: &httparse::Header<'_>| (it.name.to_ascii_lowercase(), it.value.to_vec());
    Some((response.code?, response.headers.iter().map(lower).collect(), rest))
}

/// The only value of a header that may be there once.
pub(super) fn one(headers: &Headers, name: &str) -> Option<String> {
    let mut values = headers.iter().filter(|it| it.0 == name);
    let first = values.next().map(|it| String::from_utf8(it.1.clone()).expect("text"));
    assert!(values.next().is_none(), "{name} twice");
    first
}

// ---- bodies --------------------------------------------------------------------------------

/// What a decoder made of a stream: the body, how much of the stream is not used, how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    body: Vec<u8>,
    left: usize,
    is_ended: bool,
    is_refused: bool,
}

/// The first two bytes choose a framing and the cuts; the rest is a stream, and a body to send.
pub fn web_chunked(input: &[u8]) {
    let mut cut = Cut::new(input);
    let (control, size) = (cut.byte(), 1 + usize::from(cut.byte() % 9));
    let stream = cut.rest();
    let framing = match control {
        0..=15 => Framing::Length(u64::from(control) * 3),
        16.. => Framing::Chunked,
    };
    let whole = decode(framing, stream, usize::MAX);
    for size in [1, size] {
        let cut = decode(framing, stream, size);
        assert_eq!((cut.is_ended, cut.is_refused), (whole.is_ended, whole.is_refused));
        assert_eq!(cut.body, whole.body);
        // Where a refused stream is left does not matter: its connection ends.
        assert!(whole.is_refused || cut.left == whole.left);
    }
    if framing == Framing::Chunked {
        let model = unchunk(stream);
        assert_eq!(model, whole.is_ended.then_some((whole.body, whole.left)));
    }
    let mut sent = Vec::new();
    for piece in stream.chunks(size) {
        sent.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        sent.extend_from_slice(piece);
        sent.extend_from_slice(b"\r\n");
    }
    sent.extend_from_slice(b"0\r\n\r\nnext");
    let expected = Decoded { body: stream.to_vec(), left: 4, is_ended: true, is_refused: false };
    assert_eq!(decode(Framing::Chunked, &sent, size), expected);
}

fn decode(framing: Framing, stream: &[u8], size: usize) -> Decoded {
    let mut decoder = Decoder::new(framing);
    let mut seen =
        Decoded { body: Vec::new(), left: stream.len(), is_ended: false, is_refused: false };
    for piece in stream.chunks(size) {
        let mut rest = piece;
        let is_over = loop {
            match decoder.next(&mut rest) {
                Ok(Step::Piece(piece)) => {
                    assert!(!piece.is_empty());
                    seen.body.extend_from_slice(piece);
                }
                Ok(Step::More) => {
                    assert!(rest.is_empty());
                    break false;
                }
                Ok(Step::Ended) => {
                    seen.is_ended = true;
                    break true;
                }
                Err(_) => {
                    seen.is_refused = true;
                    break true;
                }
            }
        };
        seen.left -= piece.len() - rest.len();
        if is_over {
            return seen;
        }
    }
    // The end may need no further byte.
    seen.is_ended = matches!(decoder.next(&mut &[][..]), Ok(Step::Ended));
    seen
}

/// RFC 9112, 7.1 of a whole stream at once, strictly: the body and how much is left. `None` if it
/// is not whole, or not well-formed.
pub(super) fn unchunk(mut stream: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    loop {
        let line = take_line(&mut stream)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        let is_extension = matches!(extension, [] | [b';', ..]) && extension.len() <= 4097;
        if digits == 0 || digits > 15 || !is_extension || !extension.iter().all(is_text) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        body.extend_from_slice(stream.get(..size)?);
        stream = stream.get(size..)?.strip_prefix(b"\r\n")?;
    }
    let mut trailers = 0;
    loop {
        let line = take_line(&mut stream)?;
        trailers += line.len();
        if trailers > 4096 || !line.iter().all(is_text) {
            return None;
        }
        if line.is_empty() {
            return Some((body, stream.len()));
        }
    }
}

/// A line that ends with CRLF, where CR stands nowhere else.
fn take_line<'a>(stream: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = stream.iter().position(|&byte| byte == b'\r' || byte == b'\n')?;
    let (line, rest) = stream.split_at(end);
    *stream = rest.strip_prefix(b"\r\n")?;
    Some(line)
}

fn is_text(byte: &u8) -> bool {
    *byte == b'\t' || !byte.is_ascii_control()
}

// ---- FastCGI -------------------------------------------------------------------------------

/// The first byte cuts the rest, which is read as an answer; then it is names and values.
pub fn web_fastcgi(input: &[u8]) {
    let Some((&control, stream)) = input.split_first() else { return };
    let whole = answer_of(stream, usize::MAX);
    for size in [1, 2 + usize::from(control % 13)] {
        assert_eq!(answer_of(stream, size), whole, "cut every {size}");
    }
    let mut params = Params::new();
    let mut expected = Vec::new();
    let mut cut = Cut::new(stream);
    while !cut.is_empty() && expected.len() < 64 {
        // Lengths around 128 and around what one record holds.
        let repeat = [1, 2, 260, 16_000][usize::from(cut.byte() % 4)];
        let name = cut.piece().to_vec();
        let value = cut.piece().repeat(repeat);
        let value = &value[..value.len().min(70_000)];
        let is_added = params.add(&name, value);
        assert_eq!(is_added, name.len() + value.len() + 8 <= fastcgi::CONTENT_BYTES_MAX);
        if is_added {
            expected.push((name, value.to_vec()));
        }
    }
    let mut bytes = params.finish();
    let body = stream.repeat(1 + usize::from(control) * 8);
    fastcgi::emit_stream(&mut bytes, Kind::Stdin, &body);
    fastcgi::emit_end(&mut bytes, Kind::Stdin);
    let records = records(&bytes);
    let of = |kind| records.iter().filter(move |it| it.0 == kind).map(|it| it.1);
    // Each record is read by itself: no pair lies in two.
    assert!(of(4).flat_map(pairs).eq(expected));
    assert!(of(5).flatten().eq(&body));
    for kind in [4, 5] {
        assert_eq!(of(kind).filter(|content| content.is_empty()).count(), 1, "one end");
        assert!(of(kind).next_back().is_some_and(<[u8]>::is_empty), "at the end");
    }
}

type Answered = (Vec<u8>, Vec<u8>, Option<bool>, Option<fastcgi::Error>);

fn answer_of(stream: &[u8], size: usize) -> Answered {
    let mut decoder = fastcgi::Decoder::default();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    for mut piece in stream.chunks(size) {
        loop {
            match decoder.next(&mut piece) {
                Ok(Event::Stdout(content)) => stdout.extend_from_slice(content),
                Ok(Event::Stderr(content)) => stderr.extend_from_slice(content),
                Ok(Event::End { is_complete, .. }) => {
                    return (stdout, stderr, Some(is_complete), None);
                }
                Ok(Event::More) => break,
                Err(error) => return (stdout, stderr, None, Some(error)),
            }
        }
        assert!(piece.is_empty());
    }
    (stdout, stderr, None, None)
}

/// FastCGI 1.0, 3.3, of whole records: the type and the content of each.
fn records(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut records = Vec::new();
    while let [version, kind, id_high, id_low, high, low, padding, _, rest @ ..] = bytes {
        assert_eq!((version, id_high, id_low), (&1, &0, &1));
        let content = usize::from(u16::from_be_bytes([*high, *low]));
        let padding = usize::from(*padding);
        // Beyond that php-fpm resets the connection (facts/web.md, fact 7).
        assert!(content + padding <= 65_535 && (content + padding) % 8 == 0);
        records.push((*kind, &rest[..content]));
        bytes = &rest[content + padding..];
    }
    assert!(bytes.is_empty());
    records
}

/// FastCGI 1.0, 3.4, of one record.
fn pairs(mut content: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::new();
    while !content.is_empty() {
        let mut length = || match *content {
            [short @ 0..128, ref rest @ ..] => {
                content = rest;
                usize::from(short)
            }
            [a, b, c, d, ref rest @ ..] => {
                content = rest;
                let length = usize::try_from(u32::from_be_bytes([a & 0x7f, b, c, d]));
                length.expect("32 bits")
            }
            _ => panic!("half a length"),
        };
        let (name, value) = (length(), length());
        let (name, rest) = content.split_at(name);
        let (value, rest) = rest.split_at(value);
        pairs.push((name.to_vec(), value.to_vec()));
        content = rest;
    }
    pairs
}
