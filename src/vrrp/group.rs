//! Sync group: the virtual routers of all links, moved as one.
//!
//! In: what each router is told. Out: datagrams by link; when every usable link is silent.
//! Must not: decide who serves. Read first: facts/vrrp.md 1.5 and 6.1.
//! Differs: keepalived keeps a state for each instance and for the group; here the group has none
//! of its own. A resignation heard on one link counts for all (measured there: 3 s lost without).

use std::net::IpAddr;
use std::time::Duration;

use crate::time::{Instant, earliest};
use crate::wire::LinkId;

use super::packet::{ChecksumForm, Family};
use super::router::{Config, Datagram, Datagrams, Heard, Router};

/// One virtual router for each link and family of its addresses.
const ROUTERS_MAX: usize = 4;

#[derive(Debug)]
pub struct Group {
    routers: heapless::Vec<(LinkId, Router), ROUTERS_MAX>,
}

impl Group {
    #[must_use]
    pub fn new(configs: impl Iterator<Item = (LinkId, Config)>) -> Self {
        Self { routers: configs.map(|(link, config)| (link, Router::new(config))).collect() }
    }

    /// Takes a datagram, IP header included, for the router of its family. `None`: the link has no
    /// virtual address of that family.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        link: LinkId,
        datagram: &[u8],
    ) -> Option<Heard> {
        let family = match datagram.first()? >> 4 {
            6 => Family::V6,
            _ => Family::V4,
        };
        let router = self.on(link).find(|router| router.family() == family)?;
        let heard = router.handle_datagram(now, datagram);
        if heard == Heard::Resigned {
            // A sync group resigns as a whole. One that does not goes on advertising elsewhere, and
            // so holds this group too.
            self.routers.iter_mut().for_each(|(_, router)| router.note_resignation(now));
        }
        Some(heard)
    }

    pub fn set_carrier(&mut self, now: Instant, link: LinkId, has_carrier: bool) {
        self.on(link).for_each(|router| router.set_carrier(now, has_carrier));
    }

    /// Any frame from the link: it forwards.
    pub fn note_traffic(&mut self, now: Instant, link: LinkId) {
        self.on(link).for_each(|router| router.note_traffic(now));
    }

    /// This host's own address of that family on the link came or went.
    pub fn set_source(&mut self, link: LinkId, family: Family, source: Option<IpAddr>) {
        self.on(link).filter(|it| it.family() == family).for_each(|it| it.set_source(source));
    }

    /// The other host's own address of that family, once it is known.
    pub fn set_peer(&mut self, link: LinkId, family: Family, peer: Option<IpAddr>) {
        self.on(link).filter(|it| it.family() == family).for_each(|it| it.set_peer(peer));
    }

    pub fn serve(&mut self, now: Instant) {
        self.routers.iter_mut().for_each(|(_, router)| router.serve(now));
    }

    pub fn serve_on(&mut self, now: Instant, link: LinkId) {
        self.on(link).for_each(|router| router.serve(now));
    }

    pub fn stop(&mut self, now: Instant) {
        self.routers.iter_mut().for_each(|(_, router)| router.stop(now));
    }

    pub fn listen_again(&mut self, now: Instant) {
        self.routers.iter_mut().for_each(|(_, router)| router.listen_again(now));
    }

    pub fn advertise_at_once(&mut self, now: Instant) {
        self.routers.iter_mut().for_each(|(_, router)| router.advertise_at_once(now));
    }

    /// Every advertisement that is due, by link.
    #[must_use]
    pub fn poll_advertisements(&mut self, now: Instant) -> Vec<(LinkId, Datagram)> {
        self.collect(|router| router.poll_advertisement(now))
    }

    /// One advertisement of priority 0 for each virtual router.
    #[must_use]
    pub fn resignations(&mut self) -> Vec<(LinkId, Datagram)> {
        self.collect(Router::resignation)
    }

    fn collect(&mut self, say: impl Fn(&mut Router) -> Datagrams) -> Vec<(LinkId, Datagram)> {
        let said = |(link, router): &mut (LinkId, Router)| {
            let link = *link;
            say(router).into_iter().map(move |datagram| (link, datagram))
        };
        self.routers.iter_mut().flat_map(said).collect()
    }

    /// When the last usable link's master-down timer runs out; `None` while no link is usable. A
    /// link without carrier is this host's own failure and says nothing about the peer.
    #[must_use]
    pub fn silent_at(&self) -> Option<Instant> {
        self.routers.iter().filter_map(|(_, router)| router.down_at()).max()
    }

    /// Whether the last master on `link` named other addresses.
    #[must_use]
    pub fn is_list_different(&self, link: LinkId) -> bool {
        self.at(link).any(Router::is_list_different)
    }

    /// How the peer sums its version 3 advertisements over IPv4.
    #[must_use]
    pub fn heard_form(&self) -> Option<ChecksumForm> {
        let is_v4 = |it: &&(LinkId, Router)| it.1.family() == Family::V4;
        self.routers.iter().filter(is_v4).find_map(|(_, router)| router.heard_form())
    }

    /// The longest of the routers' master-down intervals.
    #[must_use]
    pub fn master_down_interval(&self) -> Duration {
        let intervals = self.routers.iter().map(|(_, router)| router.master_down_interval());
        intervals.fold(Duration::ZERO, Duration::max)
    }

    #[must_use]
    pub fn has_carrier(&self, link: LinkId) -> bool {
        self.at(link).any(Router::has_carrier)
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.routers.iter().fold(None, |first, (_, router)| earliest(first, router.deadline()))
    }

    fn on(&mut self, link: LinkId) -> impl Iterator<Item = &mut Router> {
        self.routers.iter_mut().filter(move |(at, _)| *at == link).map(|(_, router)| router)
    }

    fn at(&self, link: LinkId) -> impl Iterator<Item = &Router> {
        self.routers.iter().filter(move |(at, _)| *at == link).map(|(_, router)| router)
    }
}
