//! The network layer: ARP and neighbour discovery frames, netlink messages, virtual addresses
//! desired and observed.
//!
//! Read first: facts/vrrp.md 1.6, 1.7 and 6.2.

pub mod addresses;
pub mod arp;
pub mod gateway;
pub mod nd;
pub mod netlink;
