//! CGI parameters: what php-fpm is told of a request.
//!
//! In: a head, the script that was found, the connection's addresses. Out: `fastcgi::Params`
//! without CONTENT_LENGTH, which is known once the body is here. Must not: pass on a header that
//! could pose as another one. Read first: RFC 3875 section 4.1; facts/web.md 1.4 and 1.5 (httpoxy).

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::fastcgi::Params;
use super::lookup::Script;
use super::reply;
use super::request::{self, Head, Refusal};
use super::site::host_name;

/// The two ends of the client's connection.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    pub client: SocketAddr,
    pub local: SocketAddr,
    /// The client speaks TLS, to us or to a proxy in front.
    pub is_https: bool,
}

/// Headers that concern only this hop or would be taken for something else (facts/web.md 1.4).
const DROPPED: [&str; 11] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// All parameters but CONTENT_LENGTH; refused with 431 when one of them fits no record.
pub fn build(
    head: &Head<'_>,
    ends: Ends,
    user: &[u8],
    root: &str,
    script: &Script,
    document_path: &[u8],
) -> Result<Params, Refusal> {
    let root = root.trim_end_matches('/').as_bytes();
    let request_uri = if head.target.starts_with('/') {
        Cow::Borrowed(head.target.as_bytes())
    } else if head.query.is_empty() {
        Cow::Borrowed(head.path)
    } else {
        Cow::Owned([head.path, b"?", head.query].concat())
    };
    let (client_address, client_port) = texts(ends.client);
    let (local_address, local_port) = texts(ends.local);
    let name = host_name(head.host);
    let server_name = if name.is_empty() { local_address.as_slice() } else { name };
    let protocol: &[u8] = if head.is_http_10 { b"HTTP/1.0" } else { b"HTTP/1.1" };
    let scheme: &[u8] = if user.is_empty() { b"" } else { b"Basic" };
    let content_type = head.header("content-type").unwrap_or_default();

    let mut params = Params::new();
    let all = &mut params;
    add(all, b"QUERY_STRING", head.query)?;
    add(all, b"REQUEST_METHOD", head.method_word.as_bytes())?;
    add(all, b"CONTENT_TYPE", content_type)?;
    add(all, b"SCRIPT_NAME", &script.name)?;
    join(all, b"SCRIPT_FILENAME", [root, &script.name])?;
    add(all, b"REQUEST_URI", &request_uri)?;
    add(all, b"DOCUMENT_URI", document_path)?;
    add(all, b"DOCUMENT_ROOT", root)?;
    add(all, b"SERVER_PROTOCOL", protocol)?;
    add(all, b"REQUEST_SCHEME", if ends.is_https { b"https" } else { b"http" })?;
    add(all, b"GATEWAY_INTERFACE", b"CGI/1.1")?;
    add(all, b"SERVER_SOFTWARE", b"tandem")?;
    add(all, b"REMOTE_ADDR", &client_address)?;
    add(all, b"REMOTE_PORT", &client_port)?;
    add(all, b"REMOTE_USER", user)?;
    add(all, b"AUTH_TYPE", scheme)?;
    add(all, b"SERVER_ADDR", &local_address)?;
    add(all, b"SERVER_PORT", &local_port)?;
    add(all, b"SERVER_NAME", server_name)?;
    // php built with force-cgi-redirect runs nothing without it.
    add(all, b"REDIRECT_STATUS", b"200")?;
    if ends.is_https {
        add(all, b"HTTPS", b"on")?;
    }
    if !head.host.is_empty() {
        add(all, b"HTTP_HOST", head.host)?;
    }
    if !script.path_info.is_empty() {
        add(all, b"PATH_INFO", &script.path_info)?;
        join(all, b"PATH_TRANSLATED", [root, &script.path_info])?;
    }
    add_headers(all, head)?;
    Ok(params)
}

/// An address and its port, without an allocation or a formatter: every request has four of them.
fn texts(end: SocketAddr) -> (heapless::Vec<u8, 45>, heapless::Vec<u8, 20>) {
    let address = match end.ip() {
        IpAddr::V4(address) => dotted(address),
        IpAddr::V6(address) => {
            let mut text = heapless::String::<45>::new();
            write!(text, "{address}").expect("an address has at most 45 characters");
            text.into_bytes()
        }
    };
    (address, reply::decimal(end.port().into()))
}

fn dotted(address: Ipv4Addr) -> heapless::Vec<u8, 45> {
    let mut text = heapless::Vec::new();
    for (index, octet) in address.octets().into_iter().enumerate() {
        let dot = (index > 0).then_some(b'.');
        let digits = reply::decimal(octet.into());
        text.extend(dot.into_iter().chain(digits));
    }
    text
}

fn add<const N: usize>(params: &mut Params, name: &[u8; N], value: &[u8]) -> Result<(), Refusal> {
    join(params, name, [value, b""])
}

fn join<const N: usize>(
    params: &mut Params,
    name: &[u8; N],
    parts: [&[u8]; 2],
) -> Result<(), Refusal> {
    if params.add_named(name, parts) { Ok(()) } else { Err(Refusal::HEAD_TOO_LARGE) }
}

fn add_header(params: &mut Params, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
    if params.add(name, value) { Ok(()) } else { Err(Refusal::HEAD_TOO_LARGE) }
}

/// Each header once, as HTTP_NAME; repeats are joined (RFC 9110, 5.3; Cookie: RFC 6265, 5.4).
fn add_headers(params: &mut Params, head: &Head<'_>) -> Result<(), Refusal> {
    let mut name = Vec::with_capacity(32);
    for (index, header) in head.headers.iter().enumerate() {
        // An underscore, or another odd character, would collide with a name that has a hyphen.
        let is_plain = header.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_dropped = DROPPED.iter().any(|dropped| header.name.eq_ignore_ascii_case(dropped));
        let (before, _) = head.headers.split_at(index);
        let is_repeat = before.iter().any(|other| other.name.eq_ignore_ascii_case(header.name));
        if !is_plain || is_dropped || is_repeat {
            continue;
        }
        name.clear();
        name.extend_from_slice(b"HTTP_");
        name.extend(header.name.bytes().map(|byte| match byte {
            b'-' => b'_',
            byte => byte.to_ascii_uppercase(),
        }));
        let mut values = request::values(head.headers, header.name);
        let (first, second) = (values.next().unwrap_or_default(), values.next());
        let Some(second) = second else {
            add_header(params, &name, first)?;
            continue;
        };
        let separator: &[u8] =
            if header.name.eq_ignore_ascii_case("cookie") { b"; " } else { b", " };
        let values: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
        add_header(params, &name, &values.join(separator))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::request::{header_room, parse};
    use crate::wire::Reader;

    fn length(reader: &mut Reader<'_>) -> usize {
        let first = reader.u8().expect("a length");
        if first < 128 {
            return usize::from(first);
        }
        let rest = reader.array::<3>().expect("a long length");
        usize::try_from(u32::from_be_bytes([first & 127, rest[0], rest[1], rest[2]])).expect("fits")
    }

    /// The pairs of a request's only PARAMS record, as text.
    fn pairs(text: &str) -> Vec<(String, String)> {
        let mut room = header_room();
        let head = parse(text.as_bytes(), &mut room).expect("a good head");
        let ends = Ends {
            client: "192.0.2.1:1234".parse().expect("an address"),
            local: "192.0.2.2:80".parse().expect("an address"),
            is_https: false,
        };
        let script = Script { name: b"/t.php".to_vec(), path_info: b"/p".to_vec() };
        let bytes = build(&head, ends, b"", "/srv/", &script, b"/t.php/p").expect("fits").finish();
        let content_bytes = usize::from(u16::from_be_bytes([bytes[20], bytes[21]]));
        let mut reader = Reader::new(&bytes[24..24 + content_bytes]);
        let mut pairs = Vec::new();
        while !reader.is_empty() {
            let (name, value) = (length(&mut reader), length(&mut reader));
            let mut text = |count| {
                String::from_utf8(reader.take(count).expect("its bytes").to_vec()).expect("text")
            };
            pairs.push((text(name), text(value)));
        }
        pairs
    }

    fn value(pairs: &[(String, String)], name: &str) -> Option<String> {
        let mut found = pairs.iter().filter(|(other, _)| other == name);
        let value = found.next().map(|(_, value)| value.clone());
        assert!(found.next().is_none(), "{name} is there twice");
        value
    }

    #[test]
    fn the_standard_set_is_there() {
        let pairs = pairs("GET http://a.test:81/t.php/p?x=%20 HTTP/1.1\r\nHost: evil.test\r\n\r\n");
        for (name, expected) in [
            ("HTTP_HOST", "a.test:81"),
            ("SERVER_NAME", "a.test"),
            ("REQUEST_URI", "/t.php/p?x=%20"),
            ("DOCUMENT_URI", "/t.php/p"),
            ("SCRIPT_FILENAME", "/srv/t.php"),
            ("PATH_INFO", "/p"),
            ("PATH_TRANSLATED", "/srv/p"),
            ("QUERY_STRING", "x=%20"),
            ("REMOTE_ADDR", "192.0.2.1"),
            ("SERVER_PORT", "80"),
            ("REDIRECT_STATUS", "200"),
        ] {
            assert_eq!(value(&pairs, name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(value(&pairs, "HTTPS"), None);
    }

    #[test]
    fn no_header_poses_as_another() {
        let name = "X".repeat(200);
        let text = format!(
            "POST /t.php HTTP/1.1\r\nHost: a\r\nProxy: http://evil/\r\nX_Real_Ip: 6.6.6.6\r\n\
             X-Forwarded-For: a\r\nCookie: a=1\r\nx-forwarded-for: b\r\nCookie: b=2\r\n\
             Content-Type: t/x\r\nTransfer-Encoding: chunked\r\nPHP-VALUE: a=b\r\n{name}: y\r\n\r\n"
        );
        let pairs = pairs(&text);
        for (name, expected) in [
            ("HTTP_X_FORWARDED_FOR", Some("a, b")),
            ("HTTP_COOKIE", Some("a=1; b=2")),
            ("CONTENT_TYPE", Some("t/x")),
            ("HTTP_PHP_VALUE", Some("a=b")),
            ("PHP_VALUE", None),
            ("HTTP_PROXY", None),
            ("HTTP_X_REAL_IP", None),
            ("HTTP_CONTENT_TYPE", None),
            ("HTTP_TRANSFER_ENCODING", None),
        ] {
            assert_eq!(value(&pairs, name).as_deref(), expected, "{name}");
        }
        assert_eq!(value(&pairs, &format!("HTTP_{name}")).as_deref(), Some("y"));
    }

    #[test]
    fn addresses_are_written_as_the_library_writes_them() {
        for end in ["0.0.0.0:0", "10.96.153.110:80", "255.255.255.255:65535", "[fe80::1]:443"] {
            let end: SocketAddr = end.parse().expect("an address");
            let (address, port) = texts(end);
            assert_eq!(address, end.ip().to_string().as_bytes());
            assert_eq!(port, end.port().to_string().as_bytes());
        }
    }

    #[test]
    fn values_around_128_bytes_are_exact() {
        for length in [0, 1, 126, 127, 128, 129, 7000] {
            let long = "v".repeat(length);
            let pairs = pairs(&format!("GET /t.php HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"));
            assert_eq!(value(&pairs, "HTTP_X"), Some(long));
        }
    }
}
