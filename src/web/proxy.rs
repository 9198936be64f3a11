//! PROXY protocol, versions 1 and 2: the line or header in which a balancer in front names the
//! client before the first request.
//!
//! In: the first bytes of a connection. Out: its length and the two ends, or that it is none.
//! Must not: guess. Where it is expected and not there, the connection is closed.
//! Read first: haproxy's doc/proxy-protocol.txt, 2.1 and 2.2.
//!
//! ```text
//!   0                       12            13            14            16
//!   0D0A0D0A000D0A515549540A  version cmd   family proto  length        addresses, then TLVs
//! ```

use std::net::{IpAddr, SocketAddr};
use std::str;

use crate::limits;
use crate::wire::Reader;

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Not all of it is here.
    More,
    /// So many bytes; client and local end, unless the balancer speaks for itself.
    Header(usize, Option<(SocketAddr, SocketAddr)>),
    Wrong,
}

mod field {
    pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
    pub(super) const HEADER_BYTES: usize = 16;
    /// The longest line of version 1, with its CRLF.
    pub(super) const LINE_BYTES_MAX: usize = 107;
    pub(super) const LOCAL: u8 = 0x20;
    pub(super) const PROXY: u8 = 0x21;
    pub(super) const TCP_V4: u8 = 0x11;
    pub(super) const TCP_V6: u8 = 0x21;
}

#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let signature = field::SIGNATURE;
    let common = bytes.len().min(signature.len());
    if bytes.get(..common) == signature.get(..common) {
        return if bytes.len() < field::HEADER_BYTES { Parsed::More } else { binary(bytes) };
    }
    let word = b"PROXY ";
    let common = bytes.len().min(word.len());
    if bytes.get(..common) != word.get(..common) {
        return Parsed::Wrong;
    }
    let room = bytes.get(..field::LINE_BYTES_MAX).unwrap_or(bytes);
    match room.windows(2).position(|window| window == b"\r\n") {
        Some(end) => text(bytes.get(..end).unwrap_or_default()),
        None if room.len() < field::LINE_BYTES_MAX => Parsed::More,
        None => Parsed::Wrong,
    }
}

/// "PROXY TCP4 192.0.2.1 192.0.2.2 56324 80"
fn text(line: &[u8]) -> Parsed {
    let length = line.len() + 2;
    let Ok(line) = str::from_utf8(line) else { return Parsed::Wrong };
    let words: Vec<&str> = line.split(' ').collect();
    let ends = match words.as_slice() {
        [_, "UNKNOWN", ..] => return Parsed::Header(length, None),
        [_, family @ ("TCP4" | "TCP6"), client, local, client_port, local_port] => {
            let end = |address: &str, port: &str| {
                let address: IpAddr = address.parse().ok()?;
                let is_family = address.is_ipv4() == (*family == "TCP4");
                Some(SocketAddr::new(address, port.parse().ok()?)).filter(|_| is_family)
            };
            end(client, client_port).zip(end(local, local_port))
        }
        _ => None,
    };
    ends.map_or(Parsed::Wrong, |ends| Parsed::Header(length, Some(ends)))
}

fn binary(bytes: &[u8]) -> Parsed {
    let mut reader = Reader::new(bytes.get(field::SIGNATURE.len()..).unwrap_or_default());
    let (Ok(command), Ok(family), Ok(length)) = (reader.u8(), reader.u8(), reader.u16()) else {
        return Parsed::Wrong;
    };
    let length = usize::from(length);
    let whole = field::HEADER_BYTES + length;
    if whole > limits::WEB_PROXY_BYTES_MAX {
        return Parsed::Wrong;
    }
    let Ok(body) = reader.take(length) else { return Parsed::More };
    let mut body = Reader::new(body);
    match (command, family) {
        (field::LOCAL, _) => Parsed::Header(whole, None),
        (field::PROXY, field::TCP_V4) => ended::<4>(&mut body, whole),
        (field::PROXY, field::TCP_V6) => ended::<16>(&mut body, whole),
        // The specification has the receiver go on with the connection's own ends.
        (field::PROXY, _) => Parsed::Header(whole, None),
        _ => Parsed::Wrong,
    }
}

fn ended<const N: usize>(body: &mut Reader<'_>, whole: usize) -> Parsed
where
    IpAddr: From<[u8; N]>,
{
    let (Ok(client), Ok(local)) = (body.array::<N>(), body.array::<N>()) else {
        return Parsed::Wrong;
    };
    let (Ok(client_port), Ok(local_port)) = (body.u16(), body.u16()) else {
        return Parsed::Wrong;
    };
    let end = |address: [u8; N], port| SocketAddr::new(IpAddr::from(address), port);
    Parsed::Header(whole, Some((end(client, client_port), end(local, local_port))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, local: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((client.parse().expect("an address"), local.parse().expect("an address")))
    }

    const V2: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0f\xc0\0\x02\x01\xc0\0\x02\x02\xdc\x04\0\x50TLV";

    #[test]
    fn both_versions_are_read_and_wait_for_their_end() {
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 80\r\n";
        let expected = ends("192.0.2.1:56324", "192.0.2.2:80");
        for bytes in [&line[..], V2] {
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Parsed::More, "{end}");
            }
            let more = [bytes, b"GET / "].concat();
            assert_eq!(parse(&more), Parsed::Header(bytes.len(), expected));
        }
        let line = b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n";
        assert_eq!(parse(line), Parsed::Header(32, ends("[2001:db8::1]:1", "[::1]:2")));
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Parsed::Header(15, None));
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 99999\r\n",
            "PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
            "proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        ] {
            assert_eq!(parse(text.as_bytes()), Parsed::Wrong, "{text}");
        }
        assert_eq!(parse(&[&b"PROXY TCP4 "[..], &[b'1'; 200]].concat()), Parsed::Wrong);
        let mut long = V2.to_vec();
        long[14] = 255;
        assert_eq!(parse(&long), Parsed::Wrong);
    }

    #[test]
    fn bit_flips_never_panic() {
        for bit in 0..V2.len() * 8 {
            let mut bytes = V2.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = parse(&bytes);
        }
    }
}
