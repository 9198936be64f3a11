//! ICMP errors about VRRP that this host sent: what the other host's kernel says of its daemon.
//!
//! In: datagrams of a raw ICMP socket, IPv4 header first. Out: `Unreachable`, or `None` for what is
//! nothing of the kind. Must not: panic. Read first: RFC 792; facts/vrrp.md 3.1 b.
//!
//! A host on which nobody listens to protocol 112 says so when it is spoken to alone. One with a
//! daemon says nothing: so a killed keepalived, whose addresses stay, is told from one that lives
//! behind a filter of multicast.

use std::net::Ipv4Addr;

use crate::wire::Reader;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_VRRP: u8 = 112;
const TYPE_UNREACHABLE: u8 = 3;

/// Why a datagram of VRRP did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Code 2: nobody on that host listens to the protocol.
    NobodyListens,
    /// Code 9, 10 or 13: a firewall refuses it.
    Prohibited,
}

/// Destination unreachable, about a datagram of protocol 112 to `destination`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub reason: Reason,
}

impl Unreachable {
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let (outer, rest) = Header::parse(datagram)?;
        let mut reader = Reader::new(rest);
        let [kind, code] = reader.array().ok()?;
        let reason = match code {
            2 => Reason::NobodyListens,
            9 | 10 | 13 => Reason::Prohibited,
            _ => return None,
        };
        let _checksum_and_unused = reader.take(6).ok()?;
        let (inner, _) = Header::parse(reader.rest())?;
        let is_about_vrrp = outer.protocol == PROTOCOL_ICMP
            && kind == TYPE_UNREACHABLE
            && inner.protocol == PROTOCOL_VRRP;
        is_about_vrrp.then_some(Self {
            source: outer.source,
            destination: inner.destination,
            reason,
        })
    }
}

struct Header {
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

impl Header {
    /// An IPv4 header and what follows it.
    fn parse(datagram: &[u8]) -> Option<(Self, &[u8])> {
        let mut reader = Reader::new(datagram);
        let version_and_words = reader.u8().ok()?;
        reader.take(8).ok()?;
        let protocol = reader.u8().ok()?;
        reader.u16().ok()?;
        let header =
            Self { protocol, source: reader.ipv4().ok()?, destination: reader.ipv4().ok()? };
        let length = usize::from(version_and_words & 0xf) * 4;
        let rest = datagram.get(length..)?;
        (version_and_words >> 4 == 4 && length >= 20).then_some((header, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vectors::vector;

    const LINUX: &str = include_str!("../../tests/vectors/icmp/linux.txt");
    const PEER: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 101);

    #[test]
    fn reads_what_linux_says() {
        for (name, reason) in
            [("protocol", Reason::NobodyListens), ("prohibited", Reason::Prohibited)]
        {
            let said = Unreachable::parse(&vector(LINUX, name));
            assert_eq!(said, Some(Unreachable { source: PEER, destination: PEER, reason }));
        }
    }

    #[test]
    fn survives_truncation_and_every_bit_flip() {
        let datagram = vector(LINUX, "protocol");
        for length in 0..datagram.len() {
            let _any = Unreachable::parse(&datagram[..length]);
        }
        for bit in 0..datagram.len() * 8 {
            let mut flipped = datagram.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _any = Unreachable::parse(&flipped);
        }
    }
}
