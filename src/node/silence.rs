//! Silence: whether the peer is gone, and asking before anything is taken.
//!
//! In: what was heard and when, ARP answers. Out: probes; whether silence may be believed.
//! Must not: choose a role (`judge`). Read first: facts/vrrp.md 6.1 and 6.3; RFC 5227, 2.1.

use std::time::Duration;

use super::links::LinkFacts;
use super::{Node, Output, PROBE_LEAD, Probes};
use crate::console::finding::{Finding, Trouble};
use crate::console::note::Note;
use crate::pair::Role;
use crate::time::Instant;
use crate::vrrp::packet;
use crate::vrrp::router::Datagram;
use crate::wire::LinkId;
/// Rounds of probes before the first takeover, and after every one had an answer.
const PROBE_ROUNDS: u32 = 3;
const PROBE_ROUNDS_MAX: u32 = 20;
/// When a virtual address that nobody refreshes is gone: 2.25 s at most (facts/vrrp.md 6.2), and a
/// beacon may be lost.
const LEASE_END: Duration = Duration::from_millis(2450);
/// A peer that claims the addresses for this long has taken them; each claim is answered, so that
/// the next one comes within a second.
const CLAIM_PATIENCE: Duration = Duration::from_millis(1500);
const CLAIM_MEMORY: Duration = Duration::from_secs(3);
/// How often a host that says nothing is asked by ARP whether it lives.
pub(super) const HELLO_INTERVAL: Duration = Duration::from_secs(1);
impl Node {
    /// When every path will have been silent for long enough: the master-down timers of all usable
    /// links, and four beacon intervals since the last beacon.
    ///
    /// Beacons come on both links and several times as often as advertisements. A tandem that is
    /// silent in both is therefore gone one interval sooner, but never before the kernel has ended
    /// the lease of a host that hangs, and before that host would know that it stalled.
    pub(super) fn silent_at(&self) -> Option<Instant> {
        let down_at = self.group.silent_at()?;
        let Some(beacon_at) = self.peer.heard_at() else { return Some(down_at) };
        let master_down = self.group.master_down_interval();
        let interval = self.config.vrrp.interval;
        let patience = master_down.saturating_sub(interval).max(LEASE_END);
        let silent_at = if patience < master_down {
            (down_at - (master_down - patience)).max(beacon_at + patience)
        } else {
            down_at
        };
        Some(silent_at.max(beacon_at + self.fresh_limit()))
    }

    pub(super) fn is_peer_silent(&self, now: Instant) -> bool {
        self.silent_at().is_some_and(|at| now >= at)
    }

    /// As a Master in VRRP no timer runs for the peer; its beacons are what can be silent.
    pub(super) fn is_silent_for_long(&self, now: Instant) -> bool {
        let master_down = 3 * self.config.vrrp.interval + Duration::from_secs(1);
        self.peer.heard_at().is_none_or(|at| now.since(at) > master_down)
    }

    /// Time between two rounds: all of them fit between the first advertisement that is missing and
    /// the end of the master-down timer, so that nothing is asked while the peer is heard.
    fn probe_lead(&self) -> Duration {
        PROBE_LEAD.min(self.config.vrrp.interval / 2)
    }

    fn probe_at(&self) -> Option<Instant> {
        matches!(self.role, Role::Standby | Role::Joining)
            .then(|| self.silent_at().map(|at| at - self.probe_lead() * PROBE_ROUNDS))?
    }

    pub(super) fn probe_deadline(&self) -> Option<Instant> {
        match self.probes.sent_at {
            Some(at) => Some(at + self.probe_lead()),
            None => self.probe_at(),
        }
    }

    /// Shortly before the takeover, asks by ARP who answers for the virtual addresses: in rounds,
    /// since a probe or an answer may be lost.
    pub(super) fn send_probes(&mut self, now: Instant) {
        match self.probe_at() {
            Some(at) if now >= at => {}
            Some(_) | None => {
                self.probes = Probes::default();
                return;
            }
        }
        if self.probes.sent_at.is_some_and(|at| now.since(at) < self.probe_lead()) {
            return;
        }
        let Probes { sent_at, answered_by, unanswered, wanted } = self.probes;
        let (unanswered, wanted) = match (sent_at, answered_by) {
            (None, _) => (0, PROBE_ROUNDS),
            (Some(_), None) => (unanswered + 1, wanted),
            (Some(_), Some(_)) => (0, (wanted + 1).min(PROBE_ROUNDS_MAX)),
        };
        self.probes = Probes { sent_at: Some(now), answered_by: None, unanswered, wanted };
        self.ask_for_vips();
        for link in LinkId::ALL {
            self.send_probe(link.into(), self.links[link.index()].peer.into());
        }
        if self.has_foreign_peer() {
            self.knock();
        }
    }

    /// Whether the last rounds of probes all ended without an answer for a virtual address.
    pub(super) fn nobody_answers(&mut self, now: Instant) -> bool {
        let Probes { sent_at, answered_by, unanswered, wanted } = self.probes;
        let Some((device, address, mac)) = answered_by else {
            let is_over = sent_at.is_some_and(|at| now.since(at) >= self.probe_lead());
            let is_unanswered = unanswered + u32::from(is_over) >= wanted && sent_at.is_some();
            if is_unanswered {
                self.findings.held = None;
            }
            return is_unanswered;
        };
        let link = device.link();
        let is_peer = link.is_some_and(|link| self.links[link.index()].peer_mac == Some(mac));
        if is_peer && self.has_foreign_peer() && self.is_peer_left_behind(now) {
            return true;
        }
        let trouble = if is_peer {
            Trouble::VipsLeftBehind { name: self.peer_name() }
        } else {
            Trouble::AddressConflict { address, mac: mac.to_string() }
        };
        let held = Finding { link, trouble };
        // Addresses of both links answer by turns: that is said once.
        let kind = std::mem::discriminant(&held.trouble);
        let before = self.findings.held.as_ref();
        if before.is_none_or(|before| std::mem::discriminant(&before.trouble) != kind) {
            self.note(Note::TakeoverHeld { why: held.to_string() });
        }
        self.findings.held = Some(held);
        false
    }

    /// The peer says by ARP that it has an address that this host holds.
    pub(super) fn note_peer_claim(&mut self, now: Instant) {
        let first = match self.peer_claims {
            Some((first, last)) if now.since(last) < CLAIM_MEMORY => first,
            Some(_) | None => now,
        };
        self.peer_claims = Some((first, now));
    }

    /// Both hold the addresses, and only ARP passes between them: neither knows the other's epoch.
    /// One of them yields, by what both know; what it wrote is found when they hear each other.
    pub(super) fn is_outclaimed(&self, now: Instant) -> bool {
        let priority = |host| self.config.host(host).priority;
        priority(self.me) < priority(self.me.other())
            && self.peer_claims.is_some_and(|(first, last)| {
                now.since(last) < CLAIM_MEMORY && last.since(first) >= CLAIM_PATIENCE
            })
    }

    /// The foreign peer's host lives and its keepalived does not: it sends no VRRP, whatever might
    /// be wrong with that or drop it here, and its kernel says that nobody there listens to any.
    /// Without both signs it may live behind a filter, and nothing is taken from the living.
    fn is_peer_left_behind(&self, now: Instant) -> bool {
        let limit = self.group.master_down_interval();
        let lately = |at: Option<Instant>| at.is_some_and(|at| now.since(at) < limit);
        self.links.iter().any(|link| lately(link.unheard_by_peer_at))
            && !self.links.iter().any(|link| lately(link.ears.frame_at))
    }

    /// Speaks VRRP to the peer's host alone, so that its kernel answers if nobody else does.
    fn knock(&mut self) {
        for link in LinkId::ALL {
            let LinkFacts { own, peer, .. } = self.links[link.index()];
            let (source, destination) = (own.into(), peer.into());
            let bytes = packet::empty(own, peer);
            let datagram = Datagram { source, destination, bytes };
            self.outputs.push_back(Output::SendVrrp { link, datagram });
        }
    }

    /// Asks by ARP whether a foreign peer's host lives; and, while this host serves and a tandem is
    /// silent, whether it holds the addresses too.
    pub(super) fn send_hellos(&mut self, now: Instant) {
        let is_unsure = self.addresses.is_desired() && self.fresh(now).is_none();
        if !(self.has_foreign_peer() || is_unsure) || now < self.hello_at {
            return;
        }
        self.hello_at = now + HELLO_INTERVAL;
        for link in LinkId::ALL {
            self.send_probe(link.into(), self.links[link.index()].peer.into());
        }
        if is_unsure && !self.has_foreign_peer() {
            self.ask_for_vips();
        }
    }

    fn ask_for_vips(&mut self) {
        let vips: Vec<_> = self.addresses.all().map(|(at, vip)| (at, vip.address)).collect();
        vips.into_iter().for_each(|(device, address)| self.send_probe(device, address));
    }
}
