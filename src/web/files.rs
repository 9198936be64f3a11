//! Static answers: conditions, a single range, validators and media types of a file that was found.
//!
//! In: a head and the file's size and time. Out: a plan, and the answer's head.
//! Must not: open or read the file. Read first: RFC 9110 sections 13 and 14.
//! Differs: If-Modified-Since later than the file is 304 (nginx's default wants an exact match).

use std::str;
use std::time::UNIX_EPOCH;

use super::coding::{self, Coding};
use super::lookup::Meta;
use super::reply::{self, Pages, Stamp, Terms};
use super::request::{self, Head, Method};

/// What to send of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    Whole,
    /// First and last byte, both sent.
    Part {
        first: u64,
        last: u64,
    },
    NotModified,
    PreconditionFailed,
    Unsatisfiable,
}

/// The bytes of the file that follow the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub offset: u64,
    pub length: u64,
}

impl Span {
    /// This part of a whole file.
    #[must_use]
    pub fn slice(self, file: &[u8]) -> &[u8] {
        let start = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let rest = file.get(start..).unwrap_or_default();
        usize::try_from(self.length).ok().and_then(|length| rest.get(..length)).unwrap_or_default()
    }
}

/// nginx: ngx_http_set_etag, hexadecimal time and size.
#[must_use]
pub fn etag(meta: Meta) -> heapless::Vec<u8, 35> {
    let time = reply::hexadecimal(meta.modified_unix_seconds);
    let size = reply::hexadecimal(meta.size_bytes);
    [&b"\""[..], &time, b"-", &size, b"\""].into_iter().flatten().copied().collect()
}

/// Decides in the order of RFC 9110, 13.2.2.
#[must_use]
pub fn plan(head: &Head<'_>, meta: Meta) -> Plan {
    let etag = etag(meta);
    let etag = etag.as_slice();
    let modified = meta.modified_unix_seconds;
    if let Some(tags) = all_values(head, "if-match") {
        if !has_tag(&tags, etag, false) {
            return Plan::PreconditionFailed;
        }
    } else if date_of(head, "if-unmodified-since").is_some_and(|date| modified > date) {
        return Plan::PreconditionFailed;
    }
    if let Some(tags) = all_values(head, "if-none-match") {
        if has_tag(&tags, etag, true) {
            return Plan::NotModified;
        }
    } else if date_of(head, "if-modified-since").is_some_and(|date| modified <= date) {
        return Plan::NotModified;
    }
    // RFC 9110, 14.2: Range means something with GET only.
    match head.header("range") {
        Some(range) if head.method == Method::Get && is_range_valid(head, etag, modified) => {
            plan_range(range, meta.size_bytes)
        }
        Some(_) | None => Plan::Whole,
    }
}

/// RFC 9110, 13.1.5: If-Range wants a strong match, or the very date.
fn is_range_valid(head: &Head<'_>, etag: &[u8], modified: u64) -> bool {
    match head.header("if-range") {
        None => true,
        Some(value) if value.ends_with(b"\"") => value == etag,
        Some(value) => parse_date(value) == Some(modified),
    }
}

fn all_values(head: &Head<'_>, name: &str) -> Option<Vec<u8>> {
    let values: Vec<&[u8]> = request::values(head.headers, name).collect();
    if values.is_empty() { None } else { Some(values.join(&b", "[..])) }
}

fn has_tag(list: &[u8], etag: &[u8], is_weak_allowed: bool) -> bool {
    list == b"*"
        || list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).any(|tag| {
            match tag.strip_prefix(b"W/") {
                Some(weak) => is_weak_allowed && weak == etag,
                None => tag == etag,
            }
        })
}

fn date_of(head: &Head<'_>, name: &str) -> Option<u64> {
    parse_date(head.header(name)?)
}

fn parse_date(value: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(str::from_utf8(value).ok()?).ok()?;
    date.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// One range is honoured; several, or what is no range, get the whole file (RFC 9110, 14.2).
fn plan_range(range: &[u8], size: u64) -> Plan {
    let unit = b"bytes=";
    let is_bytes = range.get(..unit.len()).is_some_and(|head| head.eq_ignore_ascii_case(unit));
    let spec = range.get(unit.len()..).unwrap_or_default().trim_ascii();
    let Some(dash) = spec.iter().position(|&byte| byte == b'-').filter(|_| is_bytes) else {
        return Plan::Whole;
    };
    let (first, last) = spec.split_at(dash);
    let last = last.get(1..).unwrap_or_default();
    match (position(first), position(last)) {
        (None, Some(0)) if first.is_empty() => Plan::Unsatisfiable,
        (None, Some(suffix)) if first.is_empty() => match size.checked_sub(1) {
            None => Plan::Unsatisfiable,
            Some(end) => Plan::Part { first: size.saturating_sub(suffix), last: end },
        },
        (Some(first), Some(last)) if first > last => Plan::Whole,
        (Some(first), Some(last)) => part(first, last, size),
        (Some(first), None) if last.is_empty() => part(first, u64::MAX, size),
        (None | Some(_), _) => Plan::Whole,
    }
}

/// A number of decimal digits; what is beyond 64 bits is beyond any file all the same.
fn position(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| request::parse_decimal(digits).unwrap_or(u64::MAX))
}

fn part(first: u64, last: u64, size: u64) -> Plan {
    match size.checked_sub(1) {
        Some(end) if first <= end => Plan::Part { first, last: last.min(end) },
        Some(_) | None => Plan::Unsatisfiable,
    }
}

/// How a file is sent.
#[derive(Debug, Clone, Copy)]
pub struct Kind<'a> {
    pub media_type: &'static str,
    pub coding: Option<Coding>,
    /// Other clients may get it in another coding.
    pub has_variants: bool,
    /// Header lines of the script that asked for the file; a type in them wins.
    pub lines: &'a [u8],
}

/// Appends the answer's head (or the whole answer, where there is no file to send) and returns the
/// status and what follows from the file.
pub fn answer(
    out: &mut Vec<u8>,
    plan: Plan,
    kind: Kind<'_>,
    meta: Meta,
    stamp: &Stamp,
    terms: Terms,
) -> (u16, Span) {
    let nothing = Span { offset: 0, length: 0 };
    let size = meta.size_bytes;
    let (status, span) = match plan {
        Plan::Whole => (200, Span { offset: 0, length: size }),
        Plan::Part { first, last } => (206, Span { offset: first, length: last - first + 1 }),
        Plan::NotModified => (304, nothing),
        Plan::PreconditionFailed => {
            reply::page(out, 412, stamp, terms, "", &Pages::new());
            return (412, nothing);
        }
        Plan::Unsatisfiable => {
            let extra = format!("Content-Range: bytes */{size}\r\n");
            reply::page(out, 416, stamp, terms, &extra, &Pages::new());
            return (416, nothing);
        }
    };
    reply::begin(out, status, stamp);
    let date = reply::http_date(meta.modified_unix_seconds);
    reply::line(out, b"Last-Modified", date.as_bytes());
    reply::line(out, b"ETag", &etag(meta));
    if kind.has_variants && coding::is_text(kind.media_type.as_bytes()) {
        out.extend_from_slice(b"Vary: Accept-Encoding\r\n");
    }
    if let Some(coding) = kind.coding {
        reply::line(out, b"Content-Encoding", coding.name().as_bytes());
    }
    out.extend_from_slice(kind.lines);
    if plan != Plan::NotModified {
        let is_typed = kind.lines.split(|&byte| byte == b'\n').any(|line| {
            line.get(..13).is_some_and(|name| name.eq_ignore_ascii_case(b"content-type:"))
        });
        if !is_typed {
            reply::line(out, b"Content-Type", kind.media_type.as_bytes());
        }
        reply::line(out, b"Accept-Ranges", b"bytes");
        reply::line(out, b"Content-Length", &reply::decimal(span.length));
    }
    if let Plan::Part { first, last } = plan {
        let line = format!("Content-Range: bytes {first}-{last}/{size}\r\n");
        out.extend_from_slice(line.as_bytes());
    }
    reply::end(out, terms);
    (status, if terms.is_head { nothing } else { span })
}

/// By the name's suffix, whatever its case; application/octet-stream where there is none.
#[must_use]
pub fn media_type(path: &[u8]) -> &'static str {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let Some(dot) = name.iter().rposition(|&byte| byte == b'.') else { return UNKNOWN_TYPE };
    let suffix = name.get(dot + 1..).unwrap_or_default().to_ascii_lowercase();
    let suffix = str::from_utf8(&suffix).unwrap_or_default();
    MEDIA_TYPES
        .binary_search_by_key(&suffix, |&(known, _)| known)
        .ok()
        .and_then(|index| MEDIA_TYPES.get(index))
        .map_or(UNKNOWN_TYPE, |&(_, media_type)| media_type)
}

const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Sorted by suffix (a test checks it). Text has no charset, as with nginx: a page says its own.
const MEDIA_TYPES: [(&str, &str); 66] = [
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("apk", "application/vnd.android.package-archive"),
    ("apng", "image/apng"),
    ("atom", "application/atom+xml"),
    ("avif", "image/avif"),
    ("bin", "application/octet-stream"),
    ("bmp", "image/bmp"),
    ("bz2", "application/x-bzip2"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("eot", "application/vnd.ms-fontobject"),
    ("epub", "application/epub+zip"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ico", "image/x-icon"),
    ("ics", "text/calendar"),
    ("jar", "application/java-archive"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("jsonld", "application/ld+json"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("map", "application/json"),
    ("md", "text/markdown"),
    ("mjs", "text/javascript"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("rss", "application/rss+xml"),
    ("rtf", "application/rtf"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "text/xml"),
    ("zip", "application/zip"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::request::{header_room, parse};

    /// facts/web.md 4.2: range.txt, 1000 bytes, Tue, 14 Nov 2023 22:13:20 GMT.
    const META: Meta = Meta { size_bytes: 1000, modified_unix_seconds: 1_700_000_000 };
    const ETAG: &str = "\"6553f100-3e8\"";

    fn plan_of(method: &str, lines: &str) -> Plan {
        let text = format!("{method} /range.txt HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut room = header_room();
        plan(&parse(text.as_bytes(), &mut room).expect("a good head"), META)
    }

    #[test]
    fn conditions_follow_rfc_9110() {
        use Plan::{NotModified, PreconditionFailed, Whole};
        assert_eq!(etag(META), ETAG.as_bytes());
        for (lines, expected) in [
            ("If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT\r\n".into(), NotModified),
            ("If-Modified-Since: Tue, 14 Nov 2023 22:13:19 GMT\r\n".into(), Whole),
            ("If-Modified-Since: Tue, 14 Nov 2023 22:13:21 GMT\r\n".into(), NotModified),
            ("If-Modified-Since: blah\r\n".into(), Whole),
            ("If-None-Match: *\r\n".into(), NotModified),
            (format!("If-None-Match: \"x\", W/{ETAG}\r\n"), NotModified),
            (
                "If-None-Match: \"x\"\r\nIf-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
                    .into(),
                Whole,
            ),
            ("If-Match: \"foo\"\r\n".into(), PreconditionFailed),
            (format!("If-Match: W/{ETAG}\r\n"), PreconditionFailed),
            (format!("If-Match: \"foo\", {ETAG}\r\n"), Whole),
            ("If-Match: *\r\n".into(), Whole),
            ("If-Unmodified-Since: Tue, 14 Nov 2023 22:13:19 GMT\r\n".into(), PreconditionFailed),
            ("If-Unmodified-Since: Tue, 14 Nov 2023 22:13:20 GMT\r\n".into(), Whole),
        ] {
            assert_eq!(plan_of("GET", &lines), expected, "{lines}");
        }
    }

    #[test]
    fn a_single_range_is_honoured() {
        use Plan::{Part, Unsatisfiable, Whole};
        for (range, expected) in [
            ("bytes=0-0", Part { first: 0, last: 0 }),
            ("Bytes=0-99", Part { first: 0, last: 99 }),
            ("bytes=990-", Part { first: 990, last: 999 }),
            ("bytes=-10", Part { first: 990, last: 999 }),
            ("bytes=-5000", Part { first: 0, last: 999 }),
            ("bytes=900-5000", Part { first: 900, last: 999 }),
            ("bytes=5-99999999999999999999999", Part { first: 5, last: 999 }),
            ("bytes=1000-", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=-99999999999999999999999", Part { first: 0, last: 999 }),
            ("bytes=-0", Unsatisfiable),
            ("bytes=5-2", Whole),
            ("bytes=0-1,5-6", Whole),
            ("bytes=a-", Whole),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("lines=0-1", Whole),
        ] {
            assert_eq!(plan_of("GET", &format!("Range: {range}\r\n")), expected, "{range}");
        }
        assert_eq!(plan_of("HEAD", "Range: bytes=0-0\r\n"), Whole);
    }

    #[test]
    fn if_range_needs_the_same_file() {
        for (value, is_part) in [
            (ETAG, true),
            ("\"x\"", false),
            ("Tue, 14 Nov 2023 22:13:20 GMT", true),
            ("Tue, 14 Nov 2023 22:13:21 GMT", false),
        ] {
            let plan = plan_of("GET", &format!("Range: bytes=1-2\r\nIf-Range: {value}\r\n"));
            assert_eq!(plan == Plan::Part { first: 1, last: 2 }, is_part, "{value}");
        }
    }

    #[test]
    fn an_empty_file_has_no_ranges() {
        assert_eq!(plan_range(b"bytes=0-", 0), Plan::Unsatisfiable);
        assert_eq!(plan_range(b"bytes=-1", 0), Plan::Unsatisfiable);
    }

    #[test]
    fn media_types_are_sorted_and_found() {
        assert!(MEDIA_TYPES.is_sorted_by_key(|&(suffix, _)| suffix));
        assert_eq!(media_type(b"/a/B.JPG"), "image/jpeg");
        assert_eq!(media_type(b"/a.b/c"), UNKNOWN_TYPE);
        assert_eq!(media_type(b"/x.woff2"), "font/woff2");
    }
}
