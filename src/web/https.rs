//! HTTPS: how a connection to its port begins, the redirect to it, and what is configured of it.
//!
//! In: section `[web]`, the first bytes of a connection, a head. Out: whether it is TLS, a
//! location, what is wrong with the section. Must not: know certificates or records (`os::tls`).
//! Read first: RFC 6797 (HSTS); nginx ngx_http_ssl_handshake, and its status 497.

use std::mem;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Config;
use super::request::{Head, Refusal};
use super::session::{Context, Session};
use super::site::host_name;

/// A version of TLS (nginx: ssl_protocols).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    #[serde(rename = "TLSv1.2")]
    Tls12,
    #[serde(rename = "TLSv1.3")]
    Tls13,
}

/// What a connection to the port of HTTPS turns out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    /// That is not known yet.
    More,
    /// TLS, whose records begin with these bytes.
    Tls(Vec<u8>),
    /// No TLS: the session tells the client so, or closes.
    Plain,
}

/// RFC 8446, 5.1: the content type of a handshake record, a client's first byte.
const HANDSHAKE: u8 = 22;

impl Session {
    /// Bytes of a connection to the port of HTTPS, as long as the answer is `More`.
    pub fn open(&mut self, cx: Context<'_>, bytes: &[u8]) -> Opening {
        self.inbound.extend_from_slice(bytes);
        if self.is_proxy_due && !self.take_proxy(cx) {
            if self.is_closed() {
                return Opening::Plain;
            }
            if self.is_proxy_due {
                return Opening::More;
            }
        }
        match self.inbound.first() {
            None => Opening::More,
            Some(&HANDSHAKE) => Opening::Tls(mem::take(&mut self.inbound)),
            // A method: whoever wrote http:// for https:// is told so.
            Some(byte) if byte.is_ascii_uppercase() => {
                self.is_misdirected = true;
                self.ends.is_https = false;
                // Else it goes on once its client is counted.
                if self.outputs.is_empty() {
                    self.try_head(cx);
                }
                Opening::Plain
            }
            Some(_) => {
                self.close();
                Opening::Plain
            }
        }
    }
}

/// Where the same is to be had in HTTPS, at the host that the client named; at the address that it
/// came to, where an HTTP/1.0 client named none.
pub(super) fn location(head: &Head<'_>, local: IpAddr, port: u16) -> Result<Vec<u8>, Refusal> {
    let mut location = b"https://".to_vec();
    match host_name(head.host) {
        b"" => location.extend(match local {
            IpAddr::V4(local) => local.to_string().into_bytes(),
            IpAddr::V6(local) => format!("[{local}]").into_bytes(),
        }),
        // `request` let through what RFC 3986 calls a host, which has more than a URL here needs.
        name if name.starts_with(b"[") || name.iter().all(is_name_byte) => {
            location.extend_from_slice(name);
        }
        _ => return Err(Refusal::BAD_REQUEST),
    }
    if port != 443 {
        location.extend(format!(":{port}").into_bytes());
    }
    if head.target.starts_with('/') {
        append_escaped(&mut location, head.target.as_bytes());
    } else {
        append_escaped(&mut location, head.path);
        if !head.query.is_empty() {
            location.push(b'?');
            append_escaped(&mut location, head.query);
        }
    }
    Ok(location)
}

/// The text as it came, but for bytes that no header line may have.
fn append_escaped(location: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        if byte.is_ascii_graphic() {
            location.push(byte);
        } else {
            location.extend(format!("%{byte:02X}").into_bytes());
        }
    }
}

fn is_name_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(byte)
}

/// What is wrong with HTTPS as it is configured, and what to write instead.
pub(super) fn check(config: &Config) -> Result<(), String> {
    check_pair("web", &config.ssl_certificate, &config.ssl_certificate_key)?;
    let has_own = config.ssl_certificate.is_some();
    for site in &config.sites {
        let place = format!("web.site {:?}", site.server_name.first().map_or("", |name| name));
        check_pair(&place, &site.ssl_certificate, &site.ssl_certificate_key)?;
        if site.ssl_certificate.is_some() && !has_own {
            return Err(format!(
                "{place}: ssl_certificate: name one in [web] too, for clients that ask for no \
                 name or for another one"
            ));
        }
    }
    if has_own && config.ssl_port == config.port {
        return Err(format!("web.ssl_port: {} is the port of HTTP: write another", config.port));
    }
    if config.ssl_protocols.is_empty() {
        return Err("web.ssl_protocols: write \"TLSv1.2\", \"TLSv1.3\" or both".into());
    }
    // A proxy in front may be the one that speaks TLS.
    let is_reached = has_own || !config.set_real_ip_from.is_empty();
    let is_redirect =
        config.ssl_redirect || config.sites.iter().any(|site| site.ssl_redirect == Some(true));
    if is_redirect && !is_reached {
        return Err("web.ssl_redirect: nothing speaks HTTPS: write ssl_certificate too".into());
    }
    if config.hsts_max_age.is_some() && !is_reached {
        return Err("web.hsts_max_age: nothing speaks HTTPS: write ssl_certificate too".into());
    }
    Ok(())
}

fn check_pair(
    place: &str,
    certificate: &Option<String>,
    key: &Option<String>,
) -> Result<(), String> {
    match (certificate, key) {
        (Some(_), None) => {
            Err(format!("{place}: ssl_certificate: write ssl_certificate_key beside it"))
        }
        (None, Some(_)) => {
            Err(format!("{place}: ssl_certificate_key: write ssl_certificate beside it"))
        }
        (Some(_), Some(_)) | (None, None) => Ok(()),
    }
}

/// The age in seconds for `Terms::hsts`: RFC 6797, 7.2, never to a client without TLS.
pub(super) fn hsts(config: &Config, is_https: bool) -> Option<u64> {
    config.hsts_max_age.filter(|_| is_https).as_ref().map(Duration::as_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;
    use crate::web::params::Ends;
    use crate::web::reply::Stamp;
    use crate::web::request::{header_room, parse};
    use crate::web::rules::Rules;
    use crate::web::session::Output;

    /// What a connection is found to be, given its first bytes in pieces of this length; whether
    /// the session closes it.
    fn opening(config: &Config, bytes: &[u8], piece: usize) -> (Opening, bool) {
        let address = "10.0.0.1:1".parse().expect("an address");
        let ends = Ends { client: address, local: address, is_https: true };
        let mut session = Session::new(Instant::ZERO, config, ends);
        let (rules, stamp) = (&Rules::new(config.clone()), &Stamp::new(0));
        let cx = Context { now: Instant::ZERO, rules, stamp, is_draining: false };
        let mut opening = Opening::More;
        for piece in bytes.chunks(piece) {
            opening = session.open(cx, piece);
            if opening != Opening::More {
                break;
            }
        }
        (opening, session.poll_output() == Some(Output::Close))
    }

    #[test]
    fn the_first_byte_tells_what_is_spoken() {
        let plain = Config::default();
        let text = "proxy_protocol = true\nset_real_ip_from = [\"10.0.0.0/8\"]";
        let proxied: Config = toml::from_str(text).expect("parses");
        let header = b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n";
        let tls = || Opening::Tls(vec![HANDSHAKE, 3, 1]);
        assert_eq!(opening(&plain, &[HANDSHAKE, 3, 1], 3), (tls(), false));
        assert_eq!(opening(&plain, b"", 1), (Opening::More, false));
        assert_eq!(opening(&plain, b"GET / HTTP/1.1", 20), (Opening::Plain, false));
        assert_eq!(opening(&plain, b"\x80\x2e", 2), (Opening::Plain, true));
        let behind = |bytes: &[u8]| [&header[..], bytes].concat();
        assert_eq!(opening(&proxied, &behind(&[HANDSHAKE, 3, 1]), 99), (tls(), false));
        for piece in 1..header.len() {
            let (opening, is_closed) = opening(&proxied, &behind(&[HANDSHAKE]), piece);
            assert!(opening == Opening::Tls(vec![HANDSHAKE]) && !is_closed, "{piece}");
        }
        assert_eq!(opening(&proxied, header, 7), (Opening::More, false));
        assert_eq!(opening(&proxied, &behind(b"GET"), 99), (Opening::Plain, false));
        assert_eq!(opening(&proxied, &[HANDSHAKE, 3, 1], 3), (Opening::Plain, true));
    }

    #[test]
    fn a_location_is_at_the_host_and_nowhere_else() {
        let local = "192.0.2.1".parse().expect("an address");
        let of = |text: &str, port| {
            let mut room = header_room();
            let head = parse(text.as_bytes(), &mut room).expect("a good head");
            location(&head, local, port).map(|location| String::from_utf8(location).expect("text"))
        };
        for (line, host, port, expected) in [
            ("/a/b?c=d", "a.test", 443, "https://a.test/a/b?c=d"),
            ("/", "A.test:80", 443, "https://A.test/"),
            ("/", "a.test:8080", 8443, "https://a.test:8443/"),
            ("/", "[::1]:80", 8443, "https://[::1]:8443/"),
            ("//evil.test/x", "a.test", 443, "https://a.test//evil.test/x"),
            ("/\u{e9}", "a.test", 443, "https://a.test/%C3%A9"),
            ("http://b.test?x", "a.test", 443, "https://b.test/?x"),
        ] {
            let text = format!("GET {line} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(of(&text, port).as_deref(), Ok(expected), "{line} of {host}");
        }
        assert_eq!(of("GET /x HTTP/1.0\r\n\r\n", 443).as_deref(), Ok("https://192.0.2.1/x"));
        for host in ["a%2f.test", "a;b", "a,b", "a'b"] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(of(&text, 443), Err(Refusal::BAD_REQUEST), "{host}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        let pair = "ssl_certificate = \"/c\"\nssl_certificate_key = \"/k\"\n";
        let check = |text: &str| check(&toml::from_str(text).expect("parses"));
        for (text, what) in [
            ("ssl_certificate = \"/c\"", "web: ssl_certificate: write ssl_certificate_key"),
            ("ssl_certificate_key = \"/k\"", "web: ssl_certificate_key: write ssl_certificate"),
            (&format!("[[site]]\nserver_name = [\"a\"]\n{pair}"), "web.site \"a\": ssl_cert"),
            (&format!("ssl_port = 80\n{pair}"), "ssl_port: 80 is the port"),
            ("ssl_protocols = []", "TLSv1.2"),
            ("ssl_redirect = true", "nothing speaks HTTPS"),
            ("[[site]]\nserver_name = [\"a\"]\nssl_redirect = true", "nothing speaks HTTPS"),
            ("hsts_max_age = \"1h\"", "nothing speaks HTTPS"),
        ] {
            let why = check(text).expect_err(text);
            assert!(why.contains(what), "{why}");
        }
        let all = "ssl_redirect = true\nhsts_max_age = \"8760h\"\nssl_protocols = [\"TLSv1.3\"]\n";
        assert_eq!(check(&format!("{pair}{all}")), Ok(()));
        assert_eq!(check(&format!("set_real_ip_from = [\"10.0.0.0/8\"]\n{all}")), Ok(()));
        toml::from_str::<Config>("ssl_protocols = [\"TLSv1.1\"]").expect_err("it is not spoken");
    }
}
