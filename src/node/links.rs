//! The interfaces and links as this host knows them, and what was heard on each.
//!
//! In: what netlink, ARP and datagrams showed, and when. Out: facts for `judge`, `silence` and
//! `find`. Must not: decide. Read first: `find`, which explains them.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::Config;
use crate::net::arp::Mac;
use crate::net::gateway::Gateway;
use crate::peer;
use crate::time::Instant;
use crate::vrrp::packet::Refusal;
use crate::wire::{HostId, LinkId};

/// An interface: its name from the configuration, the rest as the kernel says.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) index: Option<u32>,
    /// Which one it was when this daemon opened its sockets.
    pub(super) first_index: Option<u32>,
    pub(super) mac: Mac,
    /// Its own link-local address, not a virtual one.
    pub(super) link_local: Option<IpAddr>,
}

impl Device {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            index: None,
            first_index: None,
            mac: Mac::default(),
            link_local: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct LinkFacts {
    pub(super) own: Ipv4Addr,
    pub(super) peer: Ipv4Addr,
    /// The kernel has `own`.
    pub(super) has_own: bool,
    /// Who answered by ARP for the peer's own address, and when.
    pub(super) peer_mac: Option<Mac>,
    pub(super) peer_answered_at: Option<Instant>,
    /// When the peer's kernel said that nobody there listens to VRRP.
    pub(super) unheard_by_peer_at: Option<Instant>,
    pub(super) was_heard: bool,
    pub(super) gateway: Option<Gateway>,
    pub(super) ears: Ears,
}

impl LinkFacts {
    pub(super) fn new(config: &Config, me: HostId, link: LinkId) -> Self {
        let own = config.host(me).address(link).address;
        let settings = config.link(link);
        // What stands on another interface is not this network's.
        let vips = settings.vip.iter().filter(|vip| vip.device.is_none());
        let vips = vips.filter_map(|vip| match vip.address.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        Self {
            own,
            peer: config.host(me.other()).address(link).address,
            has_own: false,
            peer_mac: None,
            peer_answered_at: None,
            unheard_by_peer_at: None,
            was_heard: false,
            gateway: settings.gateway.map(|address| Gateway::new(address, own, vips)),
            ears: Ears::default(),
        }
    }
}

/// What was heard on a link: for explanations, except `frame_at`.
#[derive(Debug, Default)]
pub(super) struct Ears {
    pub(super) carrier_since: Option<Instant>,
    pub(super) anything_at: Option<Instant>,
    /// An advertisement of our virtual router, accepted.
    pub(super) vrrp_at: Option<Instant>,
    /// A frame of VRRP on our VRID from the peer, seen before the firewall and before any check.
    pub(super) frame_at: Option<Instant>,
    pub(super) beacon_at: Option<Instant>,
    /// Somebody who is not the peer advertises our virtual router.
    pub(super) stranger: Option<(Instant, IpAddr)>,
    /// The peer advertises another list of addresses.
    pub(super) list_differs_at: Option<Instant>,
    pub(super) refused: Option<(Instant, IpAddr, Refusal)>,
    pub(super) beacon_refused: Option<(Instant, peer::Refusal)>,
    pub(super) config_differs_at: Option<Instant>,
    /// Somebody else is Master while this host serves.
    pub(super) rival: Option<(Instant, u8)>,
    /// A hardware address that claims a virtual address of ours, or our own one.
    pub(super) claim: Option<(Instant, IpAddr, Mac)>,
    pub(super) own_claim: Option<(Instant, Mac)>,
    /// The peer announced or answered for a virtual address that this host holds.
    pub(super) peer_claim: Option<(Instant, IpAddr)>,
    /// The peer's firewall refused VRRP that was sent to it alone.
    pub(super) rejected_at: Option<Instant>,
}

impl Ears {
    /// Carrier came or went: what was heard before says nothing.
    pub(super) fn carrier(&mut self, now: Instant, has_carrier: bool) {
        *self = Self { carrier_since: has_carrier.then_some(now), ..Self::default() };
    }
}
