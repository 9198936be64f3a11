//! Captured frames and datagrams: each is read, means what its name says, and has no spare bit.
//!
//! In: every vector of tests/vectors. Out: the vector and the place that is not noticed.
//! Read first: facts/vrrp.md 1.1 and 4.2. `src/vrrp/packet.rs` has the order of the checks.

use std::net::IpAddr;
use std::time::Duration;

use tandem::net::arp::Arp;
use tandem::vrrp::packet::{Expected, Family, Received, Version};

use super::seeds;
use super::targets::{nd_laws, netlink, receiver_of, vrrp_laws};

fn read(name: &str, datagram: &[u8], expected: &Expected) -> Received {
    vrrp_laws(datagram, expected).unwrap_or_else(|refusal| panic!("{name}: {refusal}"))
}

#[test]
fn every_advertisement_means_what_its_name_says() {
    for (name, datagram) in seeds::vrrp() {
        let expected = receiver_of(&datagram).expect(name);
        let Received { advertisement, .. } = read(name, &datagram, &expected);
        let words: Vec<&str> = name.split('-').collect();
        let version = if words[0] == "v2" { Version::V2 } else { Version::V3 };
        assert_eq!(advertisement.version, version, "{name}");
        let priority: u8 = words.last().unwrap().parse().unwrap();
        assert_eq!(advertisement.priority, priority, "{name}");
        assert_eq!(advertisement.vrid, if words.contains(&"outside") { 50 } else { 51 }, "{name}");
        let has_password = version == Version::V2 && !words.contains(&"open");
        assert_eq!(advertisement.password.is_some(), has_password, "{name}");
        if words.contains(&"several") {
            assert_eq!(advertisement.addresses.len(), 3, "{name}");
        }
        let is_fast = version == Version::V3 && !words.contains(&"ipv6");
        let interval = Duration::from_millis(if is_fast { 100 } else { 1000 });
        assert_eq!(advertisement.interval, interval, "{name}");
    }
}

/// But for what keepalived leaves to the kernel: identification and checksum of IPv4's header, flow
/// label and, by unicast, hop limit of IPv6's.
#[test]
fn every_advertisement_is_emitted_byte_for_byte() {
    for (name, mut datagram) in seeds::vrrp() {
        let expected = receiver_of(&datagram).expect(name);
        let Received { source, advertisement, .. } = read(name, &datagram, &expected);
        match Family::of(source) {
            Family::V4 => datagram[10..12].fill(0),
            Family::V6 => {
                datagram[1..4].fill(0);
                datagram[7] = 255;
            }
        }
        let identification = u16::from_be_bytes([datagram[4], datagram[5]]);
        let destination = expected.own.expect(name);
        assert_eq!(advertisement.emit(source, destination, identification), datagram, "{name}");
    }
}

#[test]
fn every_cut_advertisement_is_refused() {
    for (name, datagram) in seeds::vrrp() {
        let expected = receiver_of(&datagram).expect(name);
        for length in 0..datagram.len() {
            assert!(vrrp_laws(&datagram[..length], &expected).is_err(), "{name}, {length} bytes");
        }
    }
}

/// The message has a checksum; of the header the receiver reads what follows, and the sum of
/// version 2 does not cover the addresses in it.
#[test]
fn every_bit_of_an_advertisement_counts() {
    for (name, datagram) in seeds::vrrp() {
        let expected = receiver_of(&datagram).expect(name);
        let (header, source) = match datagram[0] >> 4 {
            4 => (20, 12..16),
            _ => (40, 8..24),
        };
        for bit in 0..datagram.len() * 8 {
            let mut flipped = datagram.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let parsed = vrrp_laws(&flipped, &expected);
            assert!(bit < header * 8 || parsed.is_err(), "{name}, bit {bit}");
            let is_summed = expected.version == Version::V3 && source.contains(&(bit / 8));
            assert!(!is_summed || parsed.is_err(), "{name}, bit {bit} of the source");
        }
    }
}

/// Its destination is the one thing that a unicast advertisement differs in.
#[test]
fn a_unicast_advertisement_is_taken_by_its_receiver_alone() {
    for (name, datagram) in seeds::vrrp().into_iter().filter(|(name, _)| name.contains("unicast")) {
        let expected = receiver_of(&datagram).expect(name);
        for own in [None, Some(IpAddr::from([192, 168, 3, 102]))] {
            let other = Expected { own, ..expected.clone() };
            assert!(vrrp_laws(&datagram, &other).is_err(), "{name}");
        }
    }
}

#[test]
fn every_frame_is_read_and_no_cut_one() {
    for (name, frame) in seeds::arp() {
        assert!(Arp::parse(&frame).is_some(), "{name}");
        for length in 0..frame.len() {
            assert_eq!(Arp::parse(&frame[..length]), None, "{name}, {length} bytes");
        }
    }
    for (name, frame) in seeds::nd() {
        assert!(nd_laws(&frame).is_some(), "{name}");
        for length in 0..frame.len() {
            assert_eq!(nd_laws(&frame[..length]), None, "{name}, {length} bytes");
        }
    }
}

/// ICMPv6 sums the addresses and the message; ARP sums nothing.
#[test]
fn every_bit_flip_of_a_frame_keeps_the_laws() {
    for (name, frame) in seeds::arp().into_iter().chain(seeds::nd()) {
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            super::targets::arp(&flipped);
            let parsed = nd_laws(&flipped);
            assert!(bit < 22 * 8 || parsed.is_none(), "{name}, bit {bit}");
        }
    }
}

#[test]
fn every_cut_and_every_bit_flip_of_netlink_keeps_the_laws() {
    for message in seeds::of("netlink") {
        for length in 0..message.len() {
            netlink(&message[..length]);
        }
        for bit in 0..message.len() * 8 {
            let mut flipped = message.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            netlink(&flipped);
        }
    }
}
