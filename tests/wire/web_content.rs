//! Targets of what the web front serves: a script's answer, a path, a range of a file.
//!
//! In: any bytes. Out: a panic where a law is broken. Must not: know a socket or a file.
//! Read first: `targets`; RFC 3875 section 6; RFC 9110, 14.2; facts/web.md 1.3 and 1.5.

use std::io::Read;

use flate2::read::GzDecoder;
use tandem::web::Config;
use tandem::web::answer::{Answer, Ending};
use tandem::web::files::{self, Plan};
use tandem::web::lookup::{Found, Lookup, Meta, Verdict};
use tandem::web::path;
use tandem::web::reply::{Stamp, Terms};
use tandem::web::request;
use tandem::web::site::Sites;

use super::Cut;
use super::web::{Headers, answer_head, one, unchunk};

// ---- a script's answer ---------------------------------------------------------------------

/// Two bytes choose the client's terms, the cuts, and whether the script's end is seen; the rest is
/// what it prints. Whatever that is, the client gets nothing, or one head and a body that any
/// client delimits alike and that holds the script's bytes, no more and no fewer than promised.
pub fn web_answer(input: &[u8]) {
    let mut cut = Cut::new(input);
    let (control, size) = (cut.byte(), 1 + usize::from(cut.byte()));
    let stream = cut.rest();
    let mut terms = Terms {
        is_head: control & 1 != 0,
        is_http_10: control & 2 != 0,
        is_keep_alive: control & 4 != 0,
        // Nobody compresses for HTTP/1.0, where no length could be told.
        gzip_min: Some(8).filter(|_| control & 10 == 8),
        varies: control & 8 != 0,
        hsts: None,
    };
    let asked = terms;
    let is_ended = control & 32 != 0;
    let stamp = Stamp::new(1_700_000_000);
    let (mut answer, mut out) = (Answer::default(), Vec::new());
    for piece in stream.chunks(size) {
        if answer.stdout(piece, &mut out).is_err() {
            assert_eq!(out, b"", "something went out of what is refused");
            return;
        }
        if answer.is_inside() {
            assert_eq!(out, b"");
            inside_laws(&answer);
            return;
        }
        if control & 16 != 0 {
            answer.start(false, &mut terms, &stamp, &mut out);
        }
    }
    if is_ended {
        answer.start(true, &mut terms, &stamp, &mut out);
    } else if !answer.is_sent() {
        answer.start_unended(&mut terms, &stamp, &mut out);
    }
    let split = cgi_split(stream);
    assert_eq!(answer.is_sent(), split.is_some());
    let Some((header, promised)) = split else {
        assert_eq!(out, b"", "there is no whole header");
        return;
    };
    let is_length_reached = answer.is_length_reached();
    let ending = answer.finish(&mut out);
    assert!(ending == Ending::Whole || !is_length_reached);
    assert_eq!(asked.is_http_10, terms.is_http_10);
    let may_be_ours = asked.gzip_min.is_some() && !is_coded(header);
    let (status, headers, content) = told_to_client(&out, terms, ending);
    assert_eq!(Some(status), answer.status());
    let Some(content) = content else { return };
    if may_be_ours && one(&headers, "content-encoding").as_deref() == Some("gzip") {
        assert!(ending == Ending::Close || unzip(&content) == promised);
    } else {
        assert!(content == promised);
    }
}

/// Status and headers that a client reads, and the body as it delimits it: none where there is
/// nothing to delimit.
fn told_to_client(out: &[u8], terms: Terms, ending: Ending) -> (u16, Headers, Option<Vec<u8>>) {
    let (status, headers, body) = answer_head(out).expect("a head that can be read");
    let is_closing = one(&headers, "connection").as_deref() == Some("close");
    assert_eq!(is_closing, !terms.is_keep_alive, "what is told is what is done");
    let length = one(&headers, "content-length").map(|it| it.parse::<usize>().expect("digits"));
    let coding = one(&headers, "transfer-encoding");
    assert!(length.is_none() || coding.is_none());
    assert!(coding.is_none() || !terms.is_http_10);
    if terms.is_head || matches!(status, 204 | 304) {
        assert_eq!((body, ending), (&b""[..], Ending::Whole));
        return (status, headers, None);
    }
    let content = match (length, coding.as_deref()) {
        (Some(length), _) => {
            assert!(body.len() <= length && (body.len() == length) == (ending == Ending::Whole));
            body.to_vec()
        }
        (None, Some(coding)) => {
            assert_eq!(coding, "chunked");
            let is_whole = ending == Ending::Whole;
            let ended = [body, if is_whole { b"" } else { &b"0\r\n\r\n"[..] }].concat();
            let (content, left) = unchunk(&ended).expect("chunks");
            assert_eq!(left, 0);
            content
        }
        (None, None) => {
            assert!(ending == Ending::Close && is_closing);
            body.to_vec()
        }
    };
    (status, headers, Some(content))
}

/// Whether the script says that it coded its body itself.
fn is_coded(header: &[u8]) -> bool {
    let mut lines = header.split(|&byte| byte == b'\n');
    lines.any(|line| line.to_ascii_lowercase().starts_with(b"content-encoding:"))
}

fn unzip(bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut content).expect("gzip");
    content
}

/// The lines that go with a file that a script names.
fn inside_laws(answer: &Answer) {
    let (path, lines) = answer.inside().expect("it is one");
    assert!(path.iter().all(|&byte| byte == b'\t' || !byte.is_ascii_control()));
    let head = [b"HTTP/1.1 200 OK\r\n", lines.as_slice(), b"\r\n"].concat();
    let (_, _, rest) = answer_head(&head).expect("header lines");
    assert_eq!(rest, b"");
}

/// The script's header, and the bytes of body that it allows for. `None`: it has no end.
fn cgi_split(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut rest, mut length) = (stream, None);
    loop {
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let text = String::from_utf8_lossy(line).to_ascii_lowercase();
        if let Some(value) = text.strip_prefix("content-length:") {
            length = value.trim().parse::<u64>().ok();
        }
    }
    let length = length.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX));
    Some((&stream[..stream.len() - rest.len()], &rest[..rest.len().min(length)]))
}

// ---- a path --------------------------------------------------------------------------------

/// The first byte says how the site is set up, some more what the hands find; the rest is a path as
/// a client sends it. Nothing above the root is looked at, and no source is sent.
pub fn web_path(input: &[u8]) {
    let mut cut = Cut::new(input);
    let (control, finds) = (cut.byte(), cut.number::<8>());
    let Some(path) = path::normalise(cut.rest()) else { return };
    path_laws(&path);
    let sites = Sites::new(&Config {
        front_controller: control & 1 != 0,
        gzip_static: control & 2 != 0,
        no_execute: if control & 4 == 0 { Vec::new() } else { vec!["/up/".into()] },
        ..Config::default()
    });
    let mut lookup = Lookup::new(0, path.clone());
    let text = "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br, gzip\r\n\r\n";
    let mut room = request::header_room();
    let head = request::parse(text.as_bytes(), &mut room).expect("a good one");
    if control & 8 != 0 {
        lookup = lookup.accepting(tandem::web::coding::Accepted::of(&head));
    }
    for number in 0.. {
        assert!(number < 12, "a lookup ends");
        let candidate = lookup.candidate(&sites);
        candidate_laws(&candidate);
        let meta = Meta { size_bytes: 1, modified_unix_seconds: 1 };
        let found = match finds.get(number).map_or(2, |find| find % 8) {
            0 | 1 => Found::File(meta),
            3 => Found::Directory,
            4 => Found::Denied,
            5 => Found::Failed,
            _ => Found::Missing,
        };
        match lookup.handle(&sites, found) {
            Verdict::Again => continue,
            Verdict::Send(_) => {
                let plain = lookup.plain(&sites);
                assert!(!is_source(&candidate) && !is_source(&plain));
                let coded = candidate.strip_prefix(plain.as_slice());
                assert!(matches!(coded, Some(b"" | b".br" | b".gz")), "a file beside another");
                assert_eq!(lookup.coding().is_some(), coded != Some(b""));
            }
            Verdict::Run(script) => {
                assert_eq!(script.name, candidate);
                assert!(script.name.ends_with(b".php") && !has_dot_segment(&script.name));
                assert!(matches!(script.path_info.as_slice(), [] | [b'/', ..]));
                let is_closed = control & 4 != 0 && script.name.starts_with(b"/up/");
                assert!(!is_closed, "a script that a visitor may have brought");
                if !script.path_info.is_empty() {
                    assert_eq!([script.name, script.path_info].concat(), path);
                }
            }
            Verdict::Redirect(target) => {
                assert_eq!(target, [path.as_slice(), b"/"].concat());
                let escaped = path::escape(&target);
                assert!(escaped.iter().all(u8::is_ascii_graphic) && !escaped.starts_with(b"//"));
            }
            Verdict::Refuse(status) => assert!(matches!(status, 403 | 404 | 503)),
        }
        return;
    }
}

/// A normalised path stays below its root, and means itself.
fn path_laws(path: &[u8]) {
    assert!(path.starts_with(b"/") && !path.contains(&0));
    let (_, inner) = path.split_at(1);
    let inner = inner.strip_suffix(b"/").unwrap_or(inner);
    let is_plain = |it: &[u8]| !matches!(it, b"" | b"." | b"..");
    assert!(inner.is_empty() || inner.split(|&byte| byte == b'/').all(is_plain));
    assert_eq!(path::normalise(&path::escape(path)).as_deref(), Some(path));
}

fn candidate_laws(path: &[u8]) {
    path_laws(path);
    assert!(path == b"/" || !path.ends_with(b"/"));
}

fn has_dot_segment(path: &[u8]) -> bool {
    path.windows(2).any(|pair| pair == b"/.") && !is_well_known(path)
}

fn is_well_known(path: &[u8]) -> bool {
    let hidden = path.split(|&byte| byte == b'/').filter(|it| it.starts_with(b"."));
    hidden.into_iter().all(|it| it == b".well-known")
}

/// What PHP is usually told to run, and what editors and people leave of it.
fn is_source(path: &[u8]) -> bool {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let ends = [".php", ".phtml", ".php~", ".php.bak", ".php.swp", ".php3", ".php7", ".phar"];
    ends.iter().any(|end| name.ends_with(end)) || has_dot_segment(path)
}

// ---- a range -------------------------------------------------------------------------------

/// Eight bytes are the size of a file, the rest what a client says in Range.
pub fn web_range(input: &[u8]) {
    let mut cut = Cut::new(input);
    let control = cut.byte();
    let size = u64::from_be_bytes(cut.number()) >> (control % 64);
    let range = cut.rest();
    let head = [b"GET /x HTTP/1.1\r\nHost: a\r\nRange: ", range, b"\r\n\r\n"].concat();
    let mut room = request::header_room();
    let Ok(head) = request::parse(&head, &mut room) else { return };
    // More than one line of Range is no range that anybody defined.
    if request::values(head.headers, "range").count() != 1 || head.headers.len() != 2 {
        return;
    }
    let plan = files::plan(&head, Meta { size_bytes: size, modified_unix_seconds: 1 });
    if let Plan::Part { first, last } = plan {
        assert!(first <= last && last < size);
    }
    assert_eq!(plan, model(range.trim_ascii(), size));
}

/// RFC 9110, 14.1.1 and 14.2: a single range; what is beyond 64 bits is beyond any file.
fn model(range: &[u8], size: u64) -> Plan {
    let text = String::from_utf8_lossy(range).to_ascii_lowercase();
    let Some(spec) = text.strip_prefix("bytes=").map(str::trim_ascii) else { return Plan::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Plan::Whole };
    let is_number = |it: &str| it.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(first) || !is_number(last) || first.len() + last.len() == 0 {
        return Plan::Whole;
    }
    let number = |digits: &str| digits.parse::<u64>().unwrap_or(u64::MAX);
    let (from, to) = match (first, last) {
        ("", suffix) => match number(suffix) {
            0 => return Plan::Unsatisfiable,
            suffix => (size.saturating_sub(suffix), u64::MAX),
        },
        (first, "") => (number(first), u64::MAX),
        (first, last) if number(first) > number(last) => return Plan::Whole,
        (first, last) => (number(first), number(last)),
    };
    if from >= size {
        return Plan::Unsatisfiable;
    }
    Plan::Part { first: from, last: to.min(size - 1) }
}
