//! The network layer: ARP and neighbour discovery frames, netlink messages, virtual addresses
//! desired and observed.
//!
//! Read first: facts/vrrp.md 1.6, 1.7 and 6.2.

pub mod addresses;
pub mod arp;
pub mod gateway;
pub mod icmp;
pub mod nd;
pub mod netlink;
pub mod sock_diag;
pub mod witness;

use std::net::IpAddr;

use arp::{Arp, Mac};
use nd::Neighbour;

/// The frame that asks "does anybody have this address?", in the words of its family.
#[must_use]
pub fn probe_frame(mac: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => Arp::probe(mac, address).emit().to_vec(),
        IpAddr::V6(address) => Neighbour::probe(mac, address).emit(),
    }
}
