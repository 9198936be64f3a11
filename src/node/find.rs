//! Finding: what is wrong with the network around this host, each trouble in one sentence with its
//! evidence and what to do.
//!
//! In: what was heard on each link, and when. Out: sentences for status; notes when one appears.
//! Must not: change a role: every rule here only explains.
//! Read first: facts/vrrp.md 3.1 and 3.8. Most of these make keepalived hosts fight in silence.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::Node;
use crate::console::note::Note;
use crate::pair::Role;
use crate::time::Instant;
use crate::vrrp::packet::ChecksumForm;
use crate::wire::LinkId;

/// How long a trouble must last before it is worth a sentence.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often this host looks for troubles.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was heard on a link, for explanations only.
#[derive(Debug, Default)]
pub(super) struct Ears {
    carrier_since: Option<Instant>,
    anything_at: Option<Instant>,
    /// An advertisement of our virtual router, accepted.
    vrrp_at: Option<Instant>,
    /// A frame of VRRP from the peer, seen before the firewall.
    frame_at: Option<Instant>,
    beacon_at: Option<Instant>,
    /// Somebody who is not the peer advertises our virtual router.
    stranger: Option<(Instant, Ipv4Addr)>,
    /// The peer advertises another list of addresses.
    list_differs_at: Option<Instant>,
}

impl Ears {
    pub(super) const fn carrier(&mut self, now: Instant, has_carrier: bool) {
        *self = Self {
            carrier_since: if has_carrier { Some(now) } else { None },
            anything_at: None,
            vrrp_at: None,
            frame_at: None,
            beacon_at: None,
            stranger: None,
            list_differs_at: None,
        };
    }

    pub(super) const fn traffic(&mut self, now: Instant) {
        self.anything_at = Some(now);
    }

    pub(super) const fn beacon(&mut self, now: Instant) {
        self.beacon_at = Some(now);
    }

    pub(super) const fn frame(&mut self, now: Instant) {
        self.frame_at = Some(now);
    }

    pub(super) const fn advertisement(&mut self, now: Instant) {
        self.vrrp_at = Some(now);
    }

    pub(super) const fn stranger(&mut self, now: Instant, source: Ipv4Addr) {
        self.stranger = Some((now, source));
    }

    pub(super) const fn list_differs(&mut self, now: Instant) {
        self.list_differs_at = Some(now);
    }
}

impl Node {
    /// Looks for troubles; a new one becomes a note.
    pub(super) fn find(&mut self, now: Instant) {
        if now < self.find_at {
            return;
        }
        self.find_at = now + INTERVAL;
        let found: Vec<String> =
            LinkId::ALL.into_iter().flat_map(|link| self.find_on(now, link)).collect();
        for what in &found {
            if !self.findings.network.contains(what) {
                self.note(Note::Network { what: what.clone() });
            }
        }
        self.findings.network = found;
    }

    fn find_on(&self, now: Instant, link: LinkId) -> Vec<String> {
        let mut found = Vec::new();
        let ears = &self.ears[link.index()];
        let facts = &self.links[link.index()];
        let (device, name) = (&facts.device, self.peer_name());
        let lately = |at: Option<Instant>| at.is_some_and(|at| now.since(at) < PATIENCE);
        let Some(since) = ears.carrier_since else {
            found.push(format!("{link}: {device} has no carrier: look at the cable"));
            return found;
        };
        if ears.anything_at.is_none() && now.since(since) > PATIENCE {
            found.push(format!(
                "{link}: {device} is up but nothing was received for {} s: the switch port may not \
                 forward yet; nothing is taken over meanwhile",
                now.since(since).as_secs() / 5 * 5
            ));
        }
        if let Some((at, source)) = ears.stranger
            && now.since(at) < PATIENCE
        {
            let vrid = self.config.link(link).vrid;
            found.push(format!(
                "{link}: {source}, which is not the peer, advertises VRID {vrid}: give one of the \
                 two another VRID"
            ));
        }
        if lately(ears.list_differs_at) {
            found.push(format!(
                "{link}: {name} advertises other virtual addresses: copy one configuration"
            ));
        }
        if lately(ears.beacon_at) && self.peer_hears(now, link) == Some(false) {
            found.push(format!(
                "{link}: {name} is heard here but does not hear us: a one-way link or its firewall"
            ));
        }
        // Only a host that serves advertises, and only for that long.
        let peer_serves = self
            .fresh(now)
            .is_some_and(|peer| peer.role == Role::Active && peer.carrier == [true; 2]);
        let is_deaf = peer_serves && !lately(ears.vrrp_at) && now.since(self.role_since) > PATIENCE;
        if is_deaf && lately(ears.frame_at) {
            found.push(format!(
                "{link}: VRRP from {name} arrives on {device} and the local firewall drops it: \
                 allow IP protocol 112"
            ));
        } else if is_deaf && lately(ears.beacon_at) {
            found.push(format!(
                "{link}: beacons of {name} arrive, its multicast does not: look at IGMP snooping \
                 and filters for 224.0.0.18 in between"
            ));
        }
        found
    }

    fn peer_hears(&self, now: Instant, link: LinkId) -> Option<bool> {
        // The peer's first beacons after a start say no before it could hear anything.
        let peer = self.fresh(now)?;
        let is_settled = now.since(self.role_since) > PATIENCE;
        is_settled.then(|| peer.hears[link.index()])
    }

    /// How the peer sums its version 3 advertisements, for the status.
    pub(super) fn peer_checksum_form(&self) -> Option<&'static str> {
        LinkId::ALL.into_iter().find_map(|link| {
            self.group.heard_form(link).map(|form| match form {
                ChecksumForm::PseudoHeader => "with pseudo-header",
                ChecksumForm::MessageOnly => "message only",
            })
        })
    }
}
