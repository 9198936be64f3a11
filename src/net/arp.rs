//! ARP frames on Ethernet: announcements, probes, and what a received one claims.
//!
//! In: frames. Out: `Arp`, or `None` for what is no ARP of IPv4 on Ethernet. Must not: panic.
//! Read first: RFC 826; RFC 5227 (probes); facts/vrrp.md 1.6.

use std::fmt;
use std::net::Ipv4Addr;

use crate::wire::Reader;

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub const BROADCAST: Self = Self([0xff; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Request,
    Reply,
}

/// One ARP packet (RFC 826): who says what to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    pub operation: Operation,
    pub sender_mac: Mac,
    pub sender: Ipv4Addr,
    pub target_mac: Mac,
    pub target: Ipv4Addr,
}

/// Ethernet header 14 and ARP body 28 bytes.
pub const FRAME_BYTES: usize = 42;
pub const ETHERTYPE: [u8; 2] = [0x08, 0x06];
/// Hardware type 1 (Ethernet), protocol 0x0800 (IPv4), address lengths 6 and 4.
const PREFIX: [u8; 6] = [0, 1, 8, 0, 6, 4];

impl Arp {
    /// The gratuitous announcement in keepalived's form: a broadcast request whose target hardware
    /// address is all ones.
    #[must_use]
    pub const fn announcement(mac: Mac, address: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender: address,
            target_mac: Mac::BROADCAST,
            target: address,
        }
    }

    /// The same as a reply: some old stacks learn from this form only.
    #[must_use]
    pub const fn announcement_reply(mac: Mac, address: Ipv4Addr) -> Self {
        Self { operation: Operation::Reply, ..Self::announcement(mac, address) }
    }

    /// "Does anybody have this address?", without claiming any (RFC 5227, 1.1).
    #[must_use]
    pub const fn probe(mac: Mac, address: Ipv4Addr) -> Self {
        Self::request(mac, Ipv4Addr::UNSPECIFIED, address)
    }

    /// "Who has `target`?", asked from an address of this host, so that the answer comes to it.
    #[must_use]
    pub const fn request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender,
            target_mac: Mac([0; 6]),
            target,
        }
    }

    /// Reads an Ethernet frame; padding after the 42 bytes is ignored.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(frame);
        reader.take(12).ok()?;
        if reader.array::<2>().ok()? != ETHERTYPE || reader.array::<6>().ok()? != PREFIX {
            return None;
        }
        let operation = match reader.u16().ok()? {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        Some(Self {
            operation,
            sender_mac: Mac(reader.array().ok()?),
            sender: reader.ipv4().ok()?,
            target_mac: Mac(reader.array().ok()?),
            target: reader.ipv4().ok()?,
        })
    }

    /// The broadcast frame that carries it.
    #[must_use]
    pub fn emit(&self) -> [u8; FRAME_BYTES] {
        self.emit_to(Mac::BROADCAST)
    }

    /// The frame that carries it to one host.
    #[must_use]
    pub fn emit_to(&self, destination: Mac) -> [u8; FRAME_BYTES] {
        let mut frame = [0; FRAME_BYTES];
        let operation = match self.operation {
            Operation::Request => 1u16,
            Operation::Reply => 2,
        };
        let parts: [&[u8]; 9] = [
            &destination.0,
            &self.sender_mac.0,
            &ETHERTYPE,
            &PREFIX,
            &operation.to_be_bytes(),
            &self.sender_mac.0,
            &self.sender.octets(),
            &self.target_mac.0,
            &self.target.octets(),
        ];
        for (slot, byte) in frame.iter_mut().zip(parts.into_iter().flatten()) {
            *slot = *byte;
        }
        frame
    }

    /// Whether the sender claims `address` for itself, by an answer or an announcement. A probe
    /// claims nothing.
    #[must_use]
    pub fn claims(&self, address: Ipv4Addr) -> bool {
        self.sender == address
    }
}

impl fmt::Display for Arp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            Operation::Request => {
                write!(f, "ARP, Request who-has {} tell {}", self.target, self.sender)
            }
            Operation::Reply => write!(f, "ARP, Reply {} is-at {}", self.sender, self.sender_mac),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vectors::vector;

    /// keepalived 2.2.7's gratuitous ARP (facts/vrrp.md 4.2).
    const KEEPALIVED: &str = include_str!("../../tests/vectors/arp/keepalived-2.2.7.txt");
    const MAC: Mac = Mac([2, 0, 0, 0, 1, 1]);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 150);

    #[test]
    fn emits_keepalived_byte_for_byte() {
        let captured = vector(KEEPALIVED, "gratuitous");
        assert_eq!(Arp::announcement(MAC, VIP).emit()[..], captured);
    }

    #[test]
    fn round_trips() {
        for arp in
            [Arp::announcement(MAC, VIP), Arp::announcement_reply(MAC, VIP), Arp::probe(MAC, VIP)]
        {
            assert_eq!(Arp::parse(&arp.emit()), Some(arp));
        }
    }

    #[test]
    fn a_probe_claims_nothing() {
        assert!(!Arp::probe(MAC, VIP).claims(VIP));
        assert!(Arp::announcement(MAC, VIP).claims(VIP));
    }

    #[test]
    fn refuses_truncation_and_survives_every_bit_flip() {
        let captured = vector(KEEPALIVED, "gratuitous");
        for length in 0..FRAME_BYTES {
            assert_eq!(Arp::parse(&captured[..length]), None);
        }
        for bit in 0..FRAME_BYTES * 8 {
            let mut flipped = captured.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _any = Arp::parse(&flipped);
        }
    }

    #[test]
    fn a_frame_to_one_host_differs_in_its_destination_alone() {
        let request = Arp::request(MAC, VIP, Ipv4Addr::new(192, 168, 3, 1));
        let (all, one) = (request.emit(), request.emit_to(MAC));
        assert_eq!((&one[..6], &one[6..]), (&MAC.0[..], &all[6..]));
    }
}
