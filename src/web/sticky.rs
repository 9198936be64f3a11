//! Sticky: what binds a client's requests to one host's php-fpm.
//!
//! In: a request's cookies, its client's address. Out: whom it is bound to; the line that sets the
//! cookie. Must not: say anything about a host in the cookie but which one of the two it is.
//! Read first: nginx: sticky cookie, ip_hash; RFC 6265 section 4 (Set-Cookie, Cookie).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::wire::HostId;

use super::Config;
use super::request;

/// How clients are bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sticky {
    #[default]
    Off,
    /// By a cookie of ours (nginx: sticky cookie).
    Cookie,
    /// By the client's network (nginx: ip_hash).
    IpHash,
}

/// Whom a request is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Affinity {
    #[default]
    Nobody,
    /// Its cookie names this host.
    Session(HostId),
    /// The hash of its client's address: the weights say whom that is.
    Address(u32),
}

/// Whom a request with these Cookie lines is bound to.
#[must_use]
pub fn affinity<'a>(
    config: &Config,
    mut cookies: impl Iterator<Item = &'a [u8]>,
    client: IpAddr,
) -> Affinity {
    match config.sticky {
        Sticky::Off => Affinity::Nobody,
        Sticky::IpHash => Affinity::Address(hash(client)),
        Sticky::Cookie => {
            let name = config.sticky_cookie.as_str();
            let found = cookies.find_map(|line| named(line, name));
            let host = HostId::ALL
                .into_iter()
                .find(|&host| found.is_some_and(|value| value == mark(name, host).as_bytes()));
            host.map_or(Affinity::Nobody, Affinity::Session)
        }
    }
}

/// The line that binds a client to the host that answers it; none where it is bound already.
#[must_use]
pub fn line(config: &Config, affinity: Affinity, host: HostId, is_https: bool) -> Vec<u8> {
    if config.sticky != Sticky::Cookie || affinity == Affinity::Session(host) {
        return Vec::new();
    }
    let name = &config.sticky_cookie;
    let secure = if is_https { "; Secure" } else { "" };
    let mark = mark(name, host);
    format!("Set-Cookie: {name}={mark}; Path=/; HttpOnly; SameSite=Lax{secure}\r\n").into_bytes()
}

/// RFC 6265, 4.1.1: a cookie's name is a token.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(request::is_token_byte)
}

/// The first value of that name in a Cookie line.
fn named<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    line.split(|&byte| byte == b';').find_map(|pair| {
        let pair = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        pair.strip_prefix(b"=")
    })
}

/// The same on both hosts, which have one configuration, and no name that means anything elsewhere.
fn mark(name: &str, host: HostId) -> String {
    let number = if host == HostId::First { 1 } else { 2 };
    format!("{:016x}", fingerprint(&[name.as_bytes(), &[0, number]].concat()))
}

/// FNV-1a, 64 bits: tells texts apart that nobody made to be alike.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// nginx: ngx_http_upstream_get_ip_hash_peer: the first three octets, or the whole IPv6 address.
fn hash(client: IpAddr) -> u32 {
    let octets = match client.to_canonical() {
        IpAddr::V4(address) => address.octets().get(..3).unwrap_or_default().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets.iter().fold(89, |hash, &octet| (hash * 113 + u32::from(octet)) % 6271)
}

#[cfg(test)]
mod tests {
    use super::*;
    use HostId::{First, Second};

    fn bound(sticky: Sticky, client: &str, lines: &str) -> Affinity {
        let config = Config { sticky, ..Config::default() };
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut room = request::header_room();
        let head = request::parse(text.as_bytes(), &mut room).expect("a good head");
        let cookies = request::values(head.headers, "cookie");
        affinity(&config, cookies, client.parse().expect("an address"))
    }

    #[test]
    fn a_cookie_names_its_host_and_any_other_nobody() {
        let config = Config { sticky: Sticky::Cookie, ..Config::default() };
        for host in HostId::ALL {
            let line = String::from_utf8(line(&config, Affinity::Nobody, host, false));
            let line = line.expect("text");
            assert!(line.ends_with("; Path=/; HttpOnly; SameSite=Lax\r\n"), "{line}");
            let pair = line["Set-Cookie: ".len()..].split(';').next().expect("a pair");
            for lines in [
                format!("Cookie: {pair}\r\n"),
                format!("Cookie: a=b;{pair}; c=d\r\n"),
                format!("Cookie: x{pair}\r\nCookie: a=b\r\nCookie: {pair}\r\n"),
            ] {
                let bound = bound(Sticky::Cookie, "192.0.2.1", &lines);
                assert_eq!(bound, Affinity::Session(host), "{lines}");
            }
            let session = Affinity::Session(host);
            assert_eq!(super::line(&config, session, host, false), b"", "it is bound already");
            assert!(!super::line(&config, session, host.other(), false).is_empty());
        }
        let secure = line(&config, Affinity::Nobody, First, true);
        assert!(secure.ends_with(b"; Secure\r\n"));
        for lines in ["", "Cookie: srv_id=x\r\n", "Cookie: srv_id\r\n", "Cookie: ;=;\r\n"] {
            assert_eq!(bound(Sticky::Cookie, "192.0.2.1", lines), Affinity::Nobody, "{lines}");
        }
        assert_eq!(line(&Config::default(), Affinity::Nobody, Second, false), b"");
    }

    #[test]
    fn addresses_hash_as_in_nginx() {
        // ((89 * 113 + 192) % 6271 * 113 + 0) % 6271 * 113 + 2) % 6271
        let expected = (((89 * 113 + 192) % 6271 * 113) % 6271 * 113 + 2) % 6271;
        for client in ["192.0.2.1", "192.0.2.254", "::ffff:192.0.2.7"] {
            assert_eq!(bound(Sticky::IpHash, client, ""), Affinity::Address(expected), "{client}");
        }
        let [one, other] = ["2001:db8::1", "2001:db8::2"].map(|ip| bound(Sticky::IpHash, ip, ""));
        assert_ne!(one, other);
    }

    #[test]
    fn a_name_is_a_token() {
        assert!(is_name("srv_id"));
        for name in ["", "a b", "a;", "a=b", "a\r\n"] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
