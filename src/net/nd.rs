//! Neighbour discovery frames on Ethernet: announcements, probes, and what a received one claims.
//!
//! In: frames. Out: `Neighbour`, or `None` for what is neither a solicitation nor an advertisement.
//! Must not: panic. Read first: RFC 4861 sections 4.3, 4.4 and 7.1; facts/vrrp.md 1.6.

use std::fmt;
use std::net::Ipv6Addr;

use super::arp::Mac;
use crate::wire::{Reader, internet_checksum};

/// ff02::1, every host of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub const ETHERTYPE: [u8; 2] = [0x86, 0xdd];
const NEXT_HEADER_ICMPV6: u8 = 58;
const TYPE_SOLICITATION: u8 = 135;
const TYPE_ADVERTISEMENT: u8 = 136;
/// The override flag: it replaces what a neighbour knew (RFC 4861, 4.4).
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_SOURCE_MAC: u8 = 1;
const OPTION_TARGET_MAC: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Solicitation,
    Advertisement,
}

/// One message of neighbour discovery: who says what about `target`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    pub kind: Kind,
    pub sender_mac: Mac,
    /// Unspecified in a probe.
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub target: Ipv6Addr,
}

impl Neighbour {
    /// The unsolicited advertisement in keepalived's form: from the address itself, to all nodes.
    #[must_use]
    pub const fn announcement(mac: Mac, address: Ipv6Addr) -> Self {
        Self {
            kind: Kind::Advertisement,
            sender_mac: mac,
            source: address,
            destination: ALL_NODES,
            target: address,
        }
    }

    /// "Does anybody have this address?", without claiming any (RFC 4862, 5.4.2). Whoever has it
    /// answers to all nodes.
    #[must_use]
    pub fn probe(mac: Mac, address: Ipv6Addr) -> Self {
        Self {
            kind: Kind::Solicitation,
            sender_mac: mac,
            source: Ipv6Addr::UNSPECIFIED,
            destination: solicited_node(address),
            target: address,
        }
    }

    /// Reads an Ethernet frame. What a router forwarded (hop limit below 255) or what was bent on
    /// the way is nothing (RFC 4861, 7.1).
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(frame);
        reader.take(6).ok()?;
        let sender_mac = Mac(reader.array().ok()?);
        if reader.array::<2>().ok()? != ETHERTYPE || reader.u32().ok()? >> 28 != 6 {
            return None;
        }
        let length = usize::from(reader.u16().ok()?);
        if reader.array().ok()? != [NEXT_HEADER_ICMPV6, 255] {
            return None;
        }
        let (source, destination) = (reader.ipv6().ok()?, reader.ipv6().ok()?);
        let message = reader.take(length).ok()?;
        if checksum(source, destination, message) != 0 {
            return None;
        }
        let mut reader = Reader::new(message);
        let kind = match reader.array::<2>().ok()? {
            [TYPE_SOLICITATION, 0] => Kind::Solicitation,
            [TYPE_ADVERTISEMENT, 0] => Kind::Advertisement,
            _ => return None,
        };
        let _checksum_and_flags = reader.take(6).ok()?;
        let target = reader.ipv6().ok()?;
        Some(Self { kind, sender_mac, source, destination, target })
    }

    /// The frame that carries it, to the multicast address of its destination.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let (kind, flags, option) = match self.kind {
            Kind::Solicitation => (TYPE_SOLICITATION, 0, OPTION_SOURCE_MAC),
            Kind::Advertisement => (TYPE_ADVERTISEMENT, FLAG_OVERRIDE, OPTION_TARGET_MAC),
        };
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend(self.target.octets());
        // A probe must not carry its sender's address (RFC 4861, 4.3).
        if !self.source.is_unspecified() {
            message.extend([option, 1]);
            message.extend(self.sender_mac.0);
        }
        let [high, low] = checksum(self.source, self.destination, &message).to_be_bytes();
        message[2] = high;
        message[3] = low;
        let [.., a, b, c, d] = self.destination.octets();
        // RFC 2464, 7: 33:33 and the last four octets.
        let mut frame = vec![0x33, 0x33, a, b, c, d];
        frame.extend(self.sender_mac.0);
        frame.extend(ETHERTYPE);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(u16::try_from(message.len()).expect("at most 32 bytes").to_be_bytes());
        frame.extend([NEXT_HEADER_ICMPV6, 255]);
        frame.extend(self.source.octets());
        frame.extend(self.destination.octets());
        frame.extend(message);
        frame
    }

    /// Whether the sender claims `address`: a solicitation claims nothing.
    #[must_use]
    pub fn claims(&self, address: Ipv6Addr) -> bool {
        self.kind == Kind::Advertisement && self.target == address
    }
}

/// ff02::1:ff and the last three octets (RFC 4291, 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// Over the message and its pseudo-header (RFC 8200, 8.1).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u16::try_from(message.len()).unwrap_or(0).to_be_bytes();
    let protocol = [0, NEXT_HEADER_ICMPV6];
    internet_checksum(&[&source.octets(), &destination.octets(), &length, &protocol, message])
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Solicitation => write!(f, "ND, who has {} tell {}", self.target, self.source),
            Kind::Advertisement => write!(f, "ND, {} is at {}", self.target, self.sender_mac),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vectors::vector;

    const KEEPALIVED: &str = include_str!("../../tests/vectors/nd/keepalived-2.2.7.txt");
    const MAC: Mac = Mac([2, 0, 0, 0, 1, 1]);
    const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 0x150);
    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x51);

    #[test]
    fn emits_keepalived_byte_for_byte() {
        for (name, address) in [("global", VIP), ("link-local", LINK_LOCAL)] {
            assert_eq!(Neighbour::announcement(MAC, address).emit(), vector(KEEPALIVED, name));
        }
    }

    #[test]
    fn round_trips() {
        for message in [Neighbour::announcement(MAC, VIP), Neighbour::probe(MAC, VIP)] {
            assert_eq!(Neighbour::parse(&message.emit()), Some(message));
        }
        let probe = Neighbour::probe(MAC, VIP);
        assert_eq!(probe.destination.to_string(), "ff02::1:ff00:150");
        assert_eq!(probe.emit()[..6], [0x33, 0x33, 0xff, 0, 1, 0x50]);
    }

    #[test]
    fn a_probe_claims_nothing() {
        assert!(!Neighbour::probe(MAC, VIP).claims(VIP));
        assert!(Neighbour::announcement(MAC, VIP).claims(VIP));
        assert!(!Neighbour::announcement(MAC, VIP).claims(LINK_LOCAL));
    }

    #[test]
    fn refuses_truncation_and_every_bit_flip_behind_the_header() {
        let frame = vector(KEEPALIVED, "global");
        for length in 0..frame.len() {
            assert_eq!(Neighbour::parse(&frame[..length]), None);
        }
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let parsed = Neighbour::parse(&flipped);
            assert!(bit < 54 * 8 || parsed.is_none(), "bit {bit}");
        }
    }
}
