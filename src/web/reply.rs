//! Replies that the front makes itself: the head's common lines, error pages, redirects.
//!
//! In: a status and the terms of the request. Out: bytes appended to what the client gets.
//! Must not: put anything of the request into a page. Read first: RFC 9110 section 15.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

/// What a request demands of its answer's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub is_head: bool,
    pub is_http_10: bool,
    pub is_keep_alive: bool,
    /// The shortest text of a script that the client gets compressed; none at all where absent.
    pub gzip_min: Option<u64>,
    /// Whether other clients may get it compressed.
    pub varies: bool,
    /// Seconds for which the client shall come in HTTPS only (RFC 6797, 6.1.1).
    pub hsts: Option<u64>,
}

/// The wall clock as text, renewed once a second by the hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    pub unix_seconds: u64,
    pub http_date: String,
    pub log_date: String,
}

impl Stamp {
    #[must_use]
    pub fn new(unix_seconds: u64) -> Self {
        Self {
            unix_seconds,
            http_date: http_date(unix_seconds),
            log_date: super::log::date(unix_seconds),
        }
    }
}

#[must_use]
pub fn http_date(unix_seconds: u64) -> String {
    // httpdate's range ends with the year 9999 (RFC 9110, 5.6.7 has four digits).
    let last = 253_402_300_799;
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_seconds.min(last)))
}

/// A number's digits, without a formatter: every answer has some.
#[must_use]
pub fn decimal(number: u64) -> heapless::Vec<u8, 20> {
    digits(number, 10)
}

#[must_use]
pub fn hexadecimal(number: u64) -> heapless::Vec<u8, 16> {
    digits(number, 16)
}

/// `N`: as many as the largest number has.
fn digits<const N: usize>(mut number: u64, base: u64) -> heapless::Vec<u8, N> {
    let mut digits = heapless::Vec::new();
    loop {
        let digit = u8::try_from(number % base).unwrap_or(0);
        let letter = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        digits.push(letter).expect("there is room for the largest number");
        number /= base;
        if number == 0 {
            digits.reverse();
            return digits;
        }
    }
}

/// A header line of ours.
pub(super) fn line<const N: usize>(out: &mut Vec<u8>, name: &[u8; N], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The status line, Server and Date.
pub fn begin(out: &mut Vec<u8>, status: u16, stamp: &Stamp) {
    status_line(out, status, reason(status));
    line(out, b"Server", b"tandem");
    line(out, b"Date", stamp.http_date.as_bytes());
}

pub(super) fn status_line(out: &mut Vec<u8>, status: u16, reason: &str) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&decimal(status.into()));
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The lines that the terms ask for, the Connection line where the version's own rule does not say
/// it, and the blank line.
pub fn end(out: &mut Vec<u8>, terms: Terms) {
    if let Some(seconds) = terms.hsts {
        let line = format!("Strict-Transport-Security: max-age={seconds}\r\n");
        out.extend_from_slice(line.as_bytes());
    }
    let line: &[u8] = match (terms.is_keep_alive, terms.is_http_10) {
        (false, _) => b"Connection: close\r\n\r\n",
        (true, true) => b"Connection: keep-alive\r\n\r\n",
        (true, false) => b"\r\n",
    };
    out.extend_from_slice(line);
}

/// A plain request on the port of HTTPS (nginx: NGX_HTTP_TO_HTTPS): a status for pages only.
pub const TO_HTTPS: u16 = 497;

/// The status that the client and the log get.
#[must_use]
pub const fn told(status: u16) -> u16 {
    if status == TO_HTTPS { 400 } else { status }
}

/// The operator's own error pages, by status.
pub type Pages = BTreeMap<u16, Vec<u8>>;

/// A whole answer with a small page, or the operator's. Returns the bytes of its body.
pub fn page(
    out: &mut Vec<u8>,
    status: u16,
    stamp: &Stamp,
    terms: Terms,
    extra: &str,
    pages: &Pages,
) -> u64 {
    let body = page_body(status, pages);
    begin(out, told(status), stamp);
    let lines = format!("{extra}Content-Type: text/html\r\nContent-Length: {}\r\n", body.len());
    out.extend_from_slice(lines.as_bytes());
    end(out, terms);
    if terms.is_head {
        return 0;
    }
    out.extend_from_slice(&body);
    u64::try_from(body.len()).unwrap_or(0)
}

/// The same as a script would give it (RFC 3875, 6.2).
pub fn script_page(out: &mut Vec<u8>, status: u16, extra: &str, pages: &Pages) -> u64 {
    let body = page_body(status, pages);
    let reason = reason(status);
    let lines = format!("Status: {status} {reason}\r\n{extra}Content-Type: text/html\r\n\r\n");
    out.extend_from_slice(lines.as_bytes());
    out.extend_from_slice(&body);
    u64::try_from(body.len()).unwrap_or(0)
}

fn page_body(status: u16, pages: &Pages) -> Cow<'_, [u8]> {
    if let Some(page) = pages.get(&status) {
        return page.into();
    }
    let (told, reason) = (told(status), reason(status));
    let body = format!(
        "<!DOCTYPE html>\n<html><head><title>{told} {reason}</title></head>\n\
         <body><h1>{told} {reason}</h1></body></html>\n"
    );
    body.into_bytes().into()
}

/// RFC 9110, section 15; the ones that this program sends or that scripts leave without a reason.
#[must_use]
pub const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        TO_HTTPS => "The plain HTTP request was sent to HTTPS port",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_library() {
        for number in [0, 9, 10, 65535, u64::MAX] {
            assert_eq!(decimal(number), number.to_string().as_bytes());
            assert_eq!(hexadecimal(number), format!("{number:x}").as_bytes());
        }
    }

    #[test]
    fn a_page_has_its_length_and_no_body_for_head() {
        let stamp = Stamp::new(1_700_000_000);
        let mut terms = Terms {
            is_head: false,
            is_http_10: false,
            is_keep_alive: false,
            gzip_min: None,
            varies: false,
            hsts: None,
        };
        let mut out = Vec::new();
        let body_bytes = page(&mut out, 503, &stamp, terms, "Retry-After: 1\r\n", &Pages::new());
        let text = String::from_utf8(out).expect("text");
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
        assert!(text.contains("Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n"), "{text}");
        assert!(text.contains("Connection: close\r\n") && text.contains("Retry-After: 1\r\n"));
        assert!(text.contains(&format!("Content-Length: {body_bytes}\r\n")), "{text}");
        assert!(!text.contains("Strict-Transport-Security"), "{text}");
        terms.hsts = Some(60);
        let mut out = Vec::new();
        page(&mut out, TO_HTTPS, &stamp, terms, "", &Pages::new());
        let text = String::from_utf8(out).expect("text");
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        assert!(text.contains("plain HTTP request was sent to HTTPS port"), "{text}");
        assert!(text.contains("\r\nStrict-Transport-Security: max-age=60\r\n"), "{text}");
        terms.is_head = true;
        let mut out = Vec::new();
        assert_eq!(page(&mut out, 404, &stamp, terms, "", &Pages::new()), 0);
        assert!(out.ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn a_date_beyond_the_calendar_does_not_panic() {
        assert_eq!(http_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
