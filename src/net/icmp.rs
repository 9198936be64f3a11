//! ICMP: errors about VRRP that this host sent, which is what the other host's kernel says of its
//! daemon; and echoes, which witnesses are asked by.
//!
//! In: datagrams of a raw ICMP socket, IPv4 header first. Out: `Unreachable`, `Echo`, or `None` for
//! what is nothing of the kind. Must not: panic. Read first: RFC 792; facts/vrrp.md 3.1 b.
//!
//! A host on which nobody listens to protocol 112 says so when it is spoken to alone. One with a
//! daemon says nothing: so a killed keepalived, whose addresses stay, is told from one that lives
//! behind a filter of multicast.

use std::net::Ipv4Addr;

use crate::wire::{Reader, internet_checksum};

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_VRRP: u8 = 112;
const TYPE_UNREACHABLE: u8 = 3;
const TYPE_ECHO: u8 = 8;
const TYPE_ECHO_REPLY: u8 = 0;

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

/// An echo (RFC 792), without data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    pub identifier: u16,
    pub sequence: u16,
}

impl Echo {
    /// The message, for a raw socket that puts the IP header before it.
    #[must_use]
    pub fn request(self) -> Vec<u8> {
        self.message(TYPE_ECHO)
    }

    fn message(self, kind: u8) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0];
        message.extend(self.identifier.to_be_bytes());
        message.extend(self.sequence.to_be_bytes());
        let sum = internet_checksum(&[&message]).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        message
    }

    /// What `source` answers, as a whole datagram: for simulated networks.
    #[must_use]
    pub fn reply(self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let mut datagram = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, PROTOCOL_ICMP, 0, 0];
        datagram.extend(source.octets());
        datagram.extend(destination.octets());
        datagram.extend(self.message(TYPE_ECHO_REPLY));
        datagram
    }

    /// Whose answer it is, and to what. Of the checksums the kernel has looked at IP's alone.
    #[must_use]
    pub fn parse_reply(datagram: &[u8]) -> Option<(Ipv4Addr, Self)> {
        let (header, rest) = Header::parse(datagram)?;
        let mut reader = Reader::new(rest);
        let [kind, code] = reader.array().ok()?;
        let _checksum = reader.u16().ok()?;
        let echo = Self { identifier: reader.u16().ok()?, sequence: reader.u16().ok()? };
        let is_reply = header.protocol == PROTOCOL_ICMP && (kind, code) == (TYPE_ECHO_REPLY, 0);
        let is_whole = internet_checksum(&[rest]) == 0;
        (is_reply && is_whole).then_some((header.source, echo))
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
    fn asks_and_reads_the_answer() {
        let echo = Echo { identifier: 0x1234, sequence: 1 };
        assert_eq!(echo.request(), [8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1]);
        let reply = echo.reply(PEER, Ipv4Addr::LOCALHOST);
        assert_eq!(Echo::parse_reply(&reply), Some((PEER, echo)));
        assert_eq!(Unreachable::parse(&reply), None);
        assert_eq!(Echo::parse_reply(&vector(LINUX, "protocol")), None);
    }

    #[test]
    fn survives_truncation_and_every_bit_flip() {
        let echo = Echo { identifier: 1, sequence: 2 };
        for datagram in [vector(LINUX, "protocol"), echo.reply(PEER, PEER)] {
            for length in 0..datagram.len() {
                let _any = Unreachable::parse(&datagram[..length]);
                let _any = Echo::parse_reply(&datagram[..length]);
            }
            for bit in 0..datagram.len() * 8 {
                let mut flipped = datagram.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let _any = Unreachable::parse(&flipped);
                let _any = Echo::parse_reply(&flipped);
            }
        }
    }
}
