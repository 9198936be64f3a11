//! Sync group: the virtual routers of all links, moved as one.
//!
//! In: what each router is told. Out: datagrams by link; when every usable link is silent.
//! Must not: decide who serves. Read first: facts/vrrp.md 1.5 and 6.1.
//! Differs: keepalived keeps a state for each instance and for the group; here the group has none
//! of its own. A resignation heard on one link counts for all (measured there: 3 s lost without).

use std::time::Duration;

use crate::time::{Instant, earliest};
use crate::wire::LinkId;

use super::packet::ChecksumForm;
use super::router::{Config, Heard, Router};

#[derive(Debug)]
pub struct Group {
    routers: [Router; 2],
}

impl Group {
    #[must_use]
    pub fn new(configs: [Config; 2]) -> Self {
        Self { routers: configs.map(Router::new) }
    }

    pub fn router(&mut self, link: LinkId) -> &mut Router {
        let [outside, inside] = &mut self.routers;
        match link {
            LinkId::Outside => outside,
            LinkId::Inside => inside,
        }
    }

    pub fn handle_datagram(&mut self, now: Instant, link: LinkId, datagram: &[u8]) -> Heard {
        self.router(link).handle_datagram(now, datagram)
    }

    pub fn serve(&mut self, now: Instant) {
        self.routers.iter_mut().for_each(|router| router.serve(now));
    }

    pub fn stop(&mut self, now: Instant) {
        self.routers.iter_mut().for_each(|router| router.stop(now));
    }

    pub fn listen_again(&mut self, now: Instant) {
        self.routers.iter_mut().for_each(|router| router.listen_again(now));
    }

    pub fn advertise_at_once(&mut self, now: Instant) {
        self.routers.iter_mut().for_each(|router| router.advertise_at_once(now));
    }

    /// The next datagram that is due on any link: call until `None`.
    pub fn poll_advertisement(&mut self, now: Instant) -> Option<(LinkId, Vec<u8>)> {
        LinkId::ALL
            .into_iter()
            .find_map(|link| Some((link, self.router(link).poll_advertisement(now)?)))
    }

    /// One advertisement of priority 0 for each link.
    #[must_use]
    pub fn resignations(&mut self) -> [(LinkId, Vec<u8>); 2] {
        LinkId::ALL.map(|link| (link, self.router(link).resignation()))
    }

    /// When the last usable link's master-down timer runs out; `None` while no link is usable. A
    /// link without carrier is this host's own failure and says nothing about the peer.
    #[must_use]
    pub fn silent_at(&self) -> Option<Instant> {
        self.routers.iter().filter_map(Router::down_at).max()
    }

    /// Whether the last master on `link` named other addresses.
    #[must_use]
    pub fn is_list_different(&self, link: LinkId) -> bool {
        self.routers[link.index()].is_list_different()
    }

    /// How the peer sums its version 3 advertisements on `link`.
    #[must_use]
    pub fn heard_form(&self, link: LinkId) -> Option<ChecksumForm> {
        self.routers[link.index()].heard_form()
    }

    /// The longer of the links' master-down intervals.
    #[must_use]
    pub fn master_down_interval(&self) -> Duration {
        self.routers.iter().map(Router::master_down_interval).fold(Duration::ZERO, Duration::max)
    }

    #[must_use]
    pub fn has_carrier(&self, link: LinkId) -> bool {
        let [outside, inside] = &self.routers;
        match link {
            LinkId::Outside => outside.has_carrier(),
            LinkId::Inside => inside.has_carrier(),
        }
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.routers.iter().fold(None, |first, router| earliest(first, router.deadline()))
    }
}
