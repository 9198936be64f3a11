//! Origin: who a request really comes from, where a trusted proxy stands in front.
//!
//! In: the connection's ends, a head, the networks that are trusted. Out: the ends as the script
//! and the log shall know them. Must not: believe a header of anybody else.
//! Read first: nginx ngx_http_realip_module, with real_ip_recursive on; RFC 7239 on what the
//! X-Forwarded headers stand for.

use std::net::{IpAddr, SocketAddr};
use std::str;

use crate::units::Cidr;

use super::params::Ends;
use super::request::{self, Head};

/// The client is the last address of X-Forwarded-For that no trusted proxy has, for each of them
/// appends the one that it saw.
#[must_use]
pub fn origin(head: &Head<'_>, ends: Ends, trusted: &[Cidr]) -> Ends {
    if !is_trusted(ends.client.ip(), trusted) {
        return ends;
    }
    let mut found = ends;
    let lists: Vec<&[u8]> = request::values(head.headers, "x-forwarded-for").collect();
    let all = lists.join(&b","[..]);
    for text in all.rsplit(|&byte| byte == b',') {
        // What cannot be read ends the chain: nothing before it can be vouched for.
        let Some(address) = address(text.trim_ascii()) else { break };
        found.client = address;
        if !is_trusted(address.ip(), trusted) {
            break;
        }
    }
    let proto = request::values(head.headers, "x-forwarded-proto").last();
    found.is_https |= proto.is_some_and(|proto| proto.eq_ignore_ascii_case(b"https"));
    found
}

#[must_use]
pub fn is_trusted(address: IpAddr, trusted: &[Cidr]) -> bool {
    let IpAddr::V4(address) = address.to_canonical() else { return false };
    trusted.iter().any(|network| network.contains(address))
}

/// An address, or one with its port.
fn address(text: &[u8]) -> Option<SocketAddr> {
    let text = str::from_utf8(text).ok()?;
    let plain = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    plain.parse().map(|address| SocketAddr::new(address, 0)).or_else(|_| text.parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::request::{header_room, parse};

    fn client_of(connection: &str, lines: &str) -> (String, bool) {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut room = header_room();
        let head = parse(text.as_bytes(), &mut room).expect("a good head");
        let client = connection.parse().expect("an address");
        let ends = Ends { client, local: client, is_https: false };
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        let found = origin(&head, ends, &trusted);
        (found.client.to_string(), found.is_https)
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_its_own_end_of_the_list() {
        let proto = "X-Forwarded-Proto: https\r\n";
        for (connection, lines, client, is_https) in [
            ("192.0.2.1:5", "X-Forwarded-For: 1.1.1.1\r\n", "192.0.2.1:5", false),
            ("192.0.2.1:5", proto, "192.0.2.1:5", false),
            ("10.0.0.1:5", proto, "10.0.0.1:5", true),
            ("10.0.0.1:5", "X-Forwarded-For: 6.6.6.6, 1.1.1.1\r\n", "1.1.1.1:0", false),
            ("10.0.0.1:5", "X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.2.2.2\r\n", "1.1.1.1:0", false),
            (
                "10.0.0.1:5",
                "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 10.2\r\n",
                "10.0.0.1:5",
                false,
            ),
            ("10.0.0.1:5", "X-Forwarded-For: 10.3.3.3, 10.2.2.2\r\n", "10.3.3.3:0", false),
            ("10.0.0.1:5", "X-Forwarded-For: 6.6.6.6, junk, 10.2.2.2\r\n", "10.2.2.2:0", false),
            ("10.0.0.1:5", "X-Forwarded-For: 2001:db8::1\r\n", "[2001:db8::1]:0", false),
            ("10.0.0.1:5", "X-Forwarded-For: [2001:db8::1]:7\r\n", "[2001:db8::1]:7", false),
            ("10.0.0.1:5", "X-Forwarded-For: 1.1.1.1:99\r\n", "1.1.1.1:99", false),
            ("10.0.0.1:5", "", "10.0.0.1:5", false),
        ] {
            assert_eq!(client_of(connection, lines), (client.into(), is_https), "{lines}");
        }
    }
}
