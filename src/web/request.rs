//! Request head: HTTP/1.1 framing above httparse, where what is ambiguous is refused.
//!
//! In: the bytes of one head. Out: `Head`, or the `Refusal` to answer with before closing.
//! Must not: guess. A head that two programs could frame differently gets 400, since the second
//! program may stand before or behind us. Read first: RFC 9112 sections 2 to 7; facts/web.md 1.5.
//! Differs: a bare LF ends no line here (RFC 9112, 2.2 allows it), because smugglers use it.

use std::mem::MaybeUninit;
use std::str;

/// The method, as far as the front treats it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Put,
    Delete,
    Options,
    /// POST, PATCH and every word we do not know: what they did cannot be assumed to be undone.
    Other,
    /// TRACE and CONNECT: never passed on.
    Forbidden,
}

impl Method {
    #[must_use]
    pub fn parse(word: &str) -> Self {
        match word {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            "TRACE" | "CONNECT" => Self::Forbidden,
            _ => Self::Other,
        }
    }

    /// RFC 9110, 9.2.2: may be sent again when it is unknown whether it was executed.
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        match self {
            Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options => true,
            Self::Other | Self::Forbidden => false,
        }
    }
}

/// How the body is delimited (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Empty,
    Length(u64),
    Chunked,
}

/// Why a request is answered by us and its connection closed: the status says it all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub u16);

impl Refusal {
    pub const BAD_REQUEST: Self = Self(400);
    pub const HEAD_TOO_LARGE: Self = Self(431);
}

/// One request's head, borrowed from the bytes it came in.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    pub method: Method,
    pub method_word: &'a str,
    /// The target as received: REQUEST_URI and the log want it so.
    pub target: &'a str,
    /// The target's path, still percent-encoded.
    pub path: &'a [u8],
    pub query: &'a [u8],
    /// The effective host with its port: that of an absolute target wins (RFC 9112, 3.2.2).
    pub host: &'a [u8],
    pub is_http_10: bool,
    pub headers: &'a [httparse::Header<'a>],
    pub framing: Framing,
    pub is_keep_alive: bool,
    pub expects_continue: bool,
}

/// Room for the headers of one head, on the caller's stack, not filled beforehand: that would cost
/// 3 KB of writes a request.
pub type HeaderRoom<'a> = [MaybeUninit<httparse::Header<'a>>; HEADERS_MAX];

/// Headers in one head; one more is refused with 431.
pub const HEADERS_MAX: usize = 100;

#[must_use]
pub const fn header_room<'a>() -> HeaderRoom<'a> {
    [const { MaybeUninit::uninit() }; HEADERS_MAX]
}

/// Finds the end of a head in `bytes`, looking only from `scanned` on: the count of bytes up to and
/// including the blank line. A bare LF counts as a line end here, so that `parse` can refuse it.
#[must_use]
pub fn find_end(bytes: &[u8], scanned: usize) -> Option<usize> {
    let start = bytes.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
    let mut at = scanned.saturating_sub(3).max(start);
    while let Some(found) = bytes.get(at..)?.iter().position(|&byte| byte == b'\n') {
        let end = at + found + 1;
        match bytes.get(end..).unwrap_or_default() {
            [b'\n', ..] => return Some(end + 1),
            [b'\r', b'\n', ..] => return Some(end + 2),
            _ => at = end,
        }
    }
    None
}

/// Whether bytes without the end of a head can still become one: refuses a TLS greeting at once,
/// where waiting for a blank line would only waste the client's time.
#[must_use]
pub fn may_become_head(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .skip_while(|&&byte| byte == b'\r' || byte == b'\n')
        .take_while(|&&byte| byte != b' ')
        .take(32)
        .all(|&byte| is_token_byte(byte))
}

/// Parses one whole head, as delimited by `find_end`.
pub fn parse<'a>(bytes: &'a [u8], room: &'a mut HeaderRoom<'a>) -> Result<Head<'a>, Refusal> {
    if has_bare_line_end(bytes) {
        return Err(Refusal::BAD_REQUEST);
    }
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, room) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(Refusal::BAD_REQUEST),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HEAD_TOO_LARGE),
        Err(httparse::Error::Version) => return Err(Refusal(505)),
        Err(_) => return Err(Refusal::BAD_REQUEST),
    }
    let httparse::Request { method: Some(method_word), path: Some(target), version, headers } =
        request
    else {
        return Err(Refusal::BAD_REQUEST);
    };
    let headers: &'a [httparse::Header<'a>] = headers;
    let is_http_10 = version == Some(0);
    let method = Method::parse(method_word);
    let (authority, path, query) = split_target(method_word, target)?;
    let host = effective_host(headers, authority, is_http_10)?;
    let framing = framing(headers, is_http_10)?;
    let mut head = Head {
        method,
        method_word,
        target,
        path,
        query,
        host,
        is_http_10,
        headers,
        framing,
        is_keep_alive: false,
        expects_continue: false,
    };
    head.is_keep_alive = if is_http_10 {
        head.has_token("connection", "keep-alive") && !head.has_token("connection", "close")
    } else {
        !head.has_token("connection", "close")
    };
    // RFC 9110, 10.1.1: ignored from an HTTP/1.0 client.
    head.expects_continue =
        !is_http_10 && framing != Framing::Empty && head.has_token("expect", "100-continue");
    Ok(head)
}

impl<'a> Head<'a> {
    /// The value of the first header of that name (names are given in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        values(self.headers, name).next()
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        values(self.headers, name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// All values of a header name, in order.
pub fn values<'a>(
    headers: &'a [httparse::Header<'a>],
    name: &str,
) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value.trim_ascii())
}

fn has_bare_line_end(bytes: &[u8]) -> bool {
    let mut before = 0u8;
    for &byte in bytes {
        if (byte == b'\n') != (before == b'\r') {
            return true;
        }
        before = byte;
    }
    before == b'\r'
}

type Target<'a> = (Option<&'a [u8]>, &'a [u8], &'a [u8]);

/// Splits the four target forms of RFC 9112, 3.2.
fn split_target<'a>(method: &str, target: &'a str) -> Result<Target<'a>, Refusal> {
    if target.contains('#') {
        return Err(Refusal::BAD_REQUEST);
    }
    if method == "CONNECT" || (target == "*" && method == "OPTIONS") {
        return Ok((None, b"/", b""));
    }
    let (authority, rest) = if target.starts_with('/') {
        (None, target)
    } else {
        let after = |scheme: &str| {
            let (start, rest) = target.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        let rest = after("http://").or_else(|| after("https://")).ok_or(Refusal::BAD_REQUEST)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        (Some(authority.as_bytes()), rest)
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = if path.is_empty() { "/" } else { path };
    Ok((authority, path.as_bytes(), query.as_bytes()))
}

/// RFC 9112, 3.2: exactly one valid Host from an HTTP/1.1 client.
fn effective_host<'a>(
    headers: &'a [httparse::Header<'a>],
    authority: Option<&'a [u8]>,
    is_http_10: bool,
) -> Result<&'a [u8], Refusal> {
    let mut hosts = values(headers, "host");
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, _) if is_http_10 => b"",
        (None, _) | (Some(_), Some(_)) => return Err(Refusal::BAD_REQUEST),
    };
    let host_is_absent = host.is_empty() && is_http_10;
    for candidate in [Some(host).filter(|_| !host_is_absent), authority].into_iter().flatten() {
        if !is_valid_host(candidate) {
            return Err(Refusal::BAD_REQUEST);
        }
    }
    Ok(authority.unwrap_or(host))
}

fn is_valid_host(host: &[u8]) -> bool {
    let name = match host {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else { return false };
            let (address, port) = rest.split_at(end);
            let is_address = str::from_utf8(address)
                .is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
            return is_address && is_port_or_nothing(port.get(1..).unwrap_or_default());
        }
        _ => host,
    };
    let end = name.iter().position(|&byte| byte == b':').unwrap_or(name.len());
    let (name, port) = name.split_at(end);
    !name.is_empty()
        && name
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte))
        && is_port_or_nothing(port)
}

fn is_port_or_nothing(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// RFC 9112, 6.1 and 6.3, with every case refused that smuggling lives on.
fn framing(headers: &[httparse::Header<'_>], is_http_10: bool) -> Result<Framing, Refusal> {
    let mut codings = values(headers, "transfer-encoding");
    let mut lengths = values(headers, "content-length");
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::Empty),
        (Some(coding), None) => {
            let is_plain = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
            if is_plain && !is_http_10 { Ok(Framing::Chunked) } else { Err(Refusal::BAD_REQUEST) }
        }
        (None, Some(length)) if lengths.next().is_none() => match parse_decimal(length) {
            Some(0) => Ok(Framing::Empty),
            Some(length) => Ok(Framing::Length(length)),
            None => Err(Refusal::BAD_REQUEST),
        },
        (None | Some(_), Some(_)) => Err(Refusal::BAD_REQUEST),
    }
}

/// A number of decimal digits only: no sign, no space, no overflow.
#[must_use]
pub fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

/// RFC 9110, 5.6.2.
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
        | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal_of(text: &str) -> Option<u16> {
        let mut room = header_room();
        parse(text.as_bytes(), &mut room).err().map(|refusal| refusal.0)
    }

    #[test]
    fn parses_a_whole_head() {
        let text = "POST /a%20b.php/x?y=1 HTTP/1.1\r\nHost: a.test:80\r\nContent-Length: 5\r\n\
                    Expect: 100-Continue\r\nX-One: 1\r\n\r\n";
        let mut room = header_room();
        let head = parse(text.as_bytes(), &mut room).expect("parses");
        assert_eq!((head.method, head.method_word), (Method::Other, "POST"));
        assert_eq!((head.path, head.query), (&b"/a%20b.php/x"[..], &b"y=1"[..]));
        assert_eq!((head.host, head.framing), (&b"a.test:80"[..], Framing::Length(5)));
        assert!(head.expects_continue && head.is_keep_alive && !head.is_http_10);
        assert_eq!(head.header("x-one"), Some(&b"1"[..]));
    }

    #[test]
    fn the_host_of_an_absolute_target_wins() {
        let mut room = header_room();
        let text = b"GET http://a.test?q HTTP/1.1\r\nHost: evil.test\r\n\r\n";
        let head = parse(text, &mut room).expect("parses");
        assert_eq!((head.host, head.path, head.query), (&b"a.test"[..], &b"/"[..], &b"q"[..]));
    }

    #[test]
    fn refuses_what_is_ambiguous() {
        let host = "Host: a\r\n";
        for (lines, status) in [
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
            ("Content-Length: 1, 1\r\n", 400),
            ("Content-Length: +1\r\n", 400),
            ("Content-Length: 0x1\r\n", 400),
            ("Content-Length: -1\r\n", 400),
            ("Content-Length: \r\n", 400),
            ("Content-Length: 99999999999999999999\r\n", 400),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: gzip, chunked\r\n", 400),
            ("Transfer-Encoding: xchunked\r\n", 400),
            ("Transfer-Encoding : chunked\r\n", 400),
            ("Transfer-Encoding:\x0bchunked\r\n", 400),
            ("X: a\r\n b\r\n", 400),
            ("X: a\rb\r\n", 400),
            ("X: a\0b\r\n", 400),
            ("X: a\n", 400),
            ("X\r\n", 400),
            ("Host: b\r\n", 400),
        ] {
            let text = format!("GET / HTTP/1.1\r\n{host}{lines}\r\n");
            assert_eq!(refusal_of(&text), Some(status), "{lines:?}");
        }
        for (text, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\r\n\r\n", 400),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ] {
            assert_eq!(refusal_of(text), Some(status), "{text:?}");
        }
        let many: String = (0..=HEADERS_MAX).map(|n| format!("X{n}: 1\r\n")).collect();
        assert_eq!(refusal_of(&format!("GET / HTTP/1.1\r\n{many}\r\n")), Some(431));
    }

    #[test]
    fn keep_alive_follows_the_version() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ] {
            let mut room = header_room();
            let head = parse(text.as_bytes(), &mut room).expect("parses");
            assert_eq!(head.is_keep_alive, expected, "{text:?}");
        }
    }

    #[test]
    fn the_end_is_found_whatever_the_pieces() {
        let text = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /";
        for cut in 0..text.len() {
            let scanned = find_end(&text[..cut], 0).map_or(cut, |_| 0);
            assert_eq!(find_end(text, scanned), Some(29), "cut at {cut}");
            assert_eq!(find_end(&text[..cut], 0).is_some(), cut >= 29);
        }
        assert_eq!(find_end(b"GET / HTTP/1.0\n\n", 0), Some(16));
        assert!(may_become_head(b"GET /") && !may_become_head(b"\x16\x03\x01\x02"));
    }

    #[test]
    fn truncation_and_bit_flips_never_panic() {
        let text = b"POST http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\nContent-Length: 12\r\n\r\n";
        for cut in 0..text.len() {
            let mut room = header_room();
            assert!(parse(&text[..cut], &mut room).is_err(), "cut at {cut}");
        }
        for bit in 0..text.len() * 8 {
            let mut bytes = text.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut room = header_room();
            let _ = parse(&bytes, &mut room);
            let _ = find_end(&bytes, 0);
        }
    }
}
