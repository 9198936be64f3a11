//! Finding: what is wrong with the network around this host, each trouble with its evidence and
//! what to do.
//!
//! In: what was heard on each link, and when. Out: findings for status; notes when one appears.
//! Must not: change a role: every rule here only explains.
//! Read first: `console::finding`; facts/vrrp.md 3.1 to 3.11.

use std::net::IpAddr;
use std::time::Duration;

use super::Node;
use super::links::Ears;
use crate::console::finding::{Finding, HostTrouble, Trouble};
use crate::console::note::Note;
use crate::net::gateway::Verdict;
use crate::pair::Role;
use crate::time::Instant;
use crate::units::IpCidr;
use crate::vrrp::packet::Refusal;
use crate::wire::LinkId;

/// How long a trouble must last before it is worth a sentence, and how long it is worth one after
/// it was last seen.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what happens once (a late loop, a set clock) stays in the status.
const MEMORY: Duration = Duration::from_secs(60);
/// How often this host looks for troubles.
const INTERVAL: Duration = Duration::from_secs(1);
/// A trouble that comes and goes is noted this often at most.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);
/// A busy machine is late by less than this all the time.
pub(super) const LATE_MIN: Duration = Duration::from_millis(250);
/// So late and so often within `MEMORY` that the role is better elsewhere.
const LATE_BADLY: Duration = Duration::from_millis(500);
const LATE_TIMES: usize = 4;
/// The wall clock may be corrected by this much without a word.
const CLOCK_STEP_MAX: i64 = 1;

/// Troubles of the host itself, and which ones were noted when.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    look_at: Instant,
    noted: heapless::Vec<(Option<LinkId>, &'static str, Instant), 64>,
    /// The deadline that the last turn left.
    due: Option<Instant>,
    late: Option<(Instant, Duration)>,
    /// The last turns that were badly late, oldest first.
    badly_late: heapless::Deque<Instant, LATE_TIMES>,
    clock: Option<(Instant, i64)>,
    deleted: Option<Deletions>,
    /// What the kernel said to a virtual address, as errno.
    refused: Option<(Instant, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Deletions {
    at: Instant,
    address: IpCidr,
    times: u32,
}

impl Troubles {
    /// A turn begins; the loop should have begun it at the deadline, give or take `tolerance`.
    pub(super) fn turn(&mut self, now: Instant, tolerance: Duration) {
        let late = self.due.map_or(Duration::ZERO, |due| now.since(due));
        if late > tolerance {
            let worst = self.late.filter(|(at, _)| now.since(*at) < MEMORY);
            self.late = Some((now, late.max(worst.map_or(Duration::ZERO, |(_, worst)| worst))));
        }
        if late >= LATE_BADLY {
            if self.badly_late.is_full() {
                self.badly_late.pop_front();
            }
            self.badly_late.push_back(now).expect("room was made above");
        }
    }

    /// The machine is overloaded, not just busy for a moment.
    pub(super) fn is_often_late(&self, now: Instant) -> bool {
        let oldest = self.badly_late.front().filter(|_| self.badly_late.is_full());
        oldest.is_some_and(|at| now.since(*at) < MEMORY)
    }

    pub(super) const fn due(&mut self, deadline: Option<Instant>) {
        self.due = deadline;
    }

    pub(super) const fn clock_set(&mut self, now: Instant, seconds: i64) {
        if seconds.abs() > CLOCK_STEP_MAX {
            self.clock = Some((now, seconds));
        }
    }

    /// Somebody else deleted a virtual address that this host holds.
    pub(super) fn vip_deleted(&mut self, now: Instant, address: IpCidr) {
        let lately = self.deleted.filter(|it| now.since(it.at) < MEMORY);
        let times = lately.map_or(0, |it| it.times) + 1;
        self.deleted = Some(Deletions { at: now, address, times });
    }

    /// The kernel does not take a virtual address.
    pub(super) const fn address_refused(&mut self, now: Instant, errno: u32) {
        self.refused = Some((now, errno));
    }

    fn of_host(&self, now: Instant) -> impl Iterator<Item = HostTrouble> {
        let is_recent = move |at: Instant| now.since(at) < MEMORY;
        let late = self.late.filter(|(at, _)| is_recent(*at)).map(|(_, late)| {
            let milliseconds = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
            HostTrouble::LoopLate { milliseconds }
        });
        let clock = self.clock.filter(|(at, _)| is_recent(*at));
        let clock = clock.map(|(_, seconds)| HostTrouble::ClockJumped { seconds });
        let deleted = self
            .deleted
            .filter(|it| is_recent(it.at))
            .map(|it| HostTrouble::VipDeleted { address: it.address.to_string(), times: it.times });
        let refused = self.refused.filter(|(at, _)| now.since(*at) < PATIENCE);
        let refused = refused.map(|(_, errno)| HostTrouble::VipRefused { errno });
        [late, clock, deleted, refused].into_iter().flatten()
    }

    /// Whether a trouble is to be noted: not one that was noted a moment ago.
    fn is_news(&mut self, now: Instant, finding: &Finding) -> bool {
        self.noted.retain(|(_, _, at)| now.since(*at) < NOTE_INTERVAL);
        let name = finding.trouble.name();
        let is_known = self.noted.iter().any(|(link, it, _)| (*link, *it) == (finding.link, name));
        // When the list is full, a flood of names is not noted: the status has them all.
        !is_known && self.noted.push((finding.link, name, now)).is_ok()
    }
}

impl Node {
    /// Looks for troubles; a new one becomes a note.
    pub(super) fn find(&mut self, now: Instant) {
        if now < self.troubles.look_at {
            return;
        }
        self.troubles.look_at = now + INTERVAL;
        let mut found: Vec<Finding> =
            self.troubles.of_host(now).chain(self.find_orders(now)).map(Finding::of_host).collect();
        for link in LinkId::ALL {
            let troubles = self.find_on(now, link);
            found.extend(troubles.into_iter().map(|it| Finding { link: Some(link), trouble: it }));
        }
        found.extend(self.find_witnesses(now));
        for finding in &found {
            let was_there =
                self.findings.network.iter().any(|it| {
                    (it.link, it.trouble.name()) == (finding.link, finding.trouble.name())
                });
            if !was_there && self.troubles.is_news(now, finding) {
                self.note(Note::Network { what: finding.to_string() });
            }
        }
        self.findings.network = found;
    }

    fn find_on(&self, now: Instant, link: LinkId) -> Vec<Trouble> {
        let facts = &self.links[link.index()];
        let device = self.devices[link.index()].name.clone();
        let Some(since) = facts.ears.carrier_since else {
            // Until the kernel has answered, nothing is known of any carrier.
            return if self.is_dumped { vec![Trouble::NoCarrier { device }] } else { Vec::new() };
        };
        let mut found = Vec::new();
        if self.is_dumped && !facts.has_own && now.since(since) > PATIENCE {
            let address = IpAddr::from(facts.own);
            found.push(Trouble::NoOwnAddress { device: device.clone(), address });
        }
        if facts.ears.anything_at.is_none() && now.since(since) > PATIENCE {
            let seconds = now.since(since).as_secs();
            found.push(Trouble::LinkSilent { device, seconds });
        }
        found.extend(self.find_strangers(now, link));
        found.extend(self.find_refusals(now, link));
        found.extend(self.find_deafness(now, link));
        let gateway = facts.gateway.as_ref().and_then(|gateway| match gateway.verdict() {
            Verdict::Unknown | Verdict::Sees => None,
            Verdict::BlocksVips => Some(Trouble::VipFramesBlocked { gateway: gateway.address() }),
            Verdict::Silent => Some(Trouble::GatewaySilent { gateway: gateway.address() }),
        });
        found.extend(gateway);
        found
    }

    /// Who else uses what is ours.
    fn find_strangers(&self, now: Instant, link: LinkId) -> impl Iterator<Item = Trouble> {
        let Ears { stranger, claim, own_claim, peer_claim, rival, list_differs_at, .. } =
            &self.links[link.index()].ears;
        let own = self.links[link.index()].own;
        let vrid = self.config.link(link).vrid;
        let lately = move |at: Instant| now.since(at) < self.patience();
        let stranger = stranger
            .filter(|(at, _)| lately(*at))
            .map(|(_, source)| Trouble::VridTaken { vrid, source });
        let claim = claim
            .filter(|(at, ..)| lately(*at))
            .map(|(_, address, mac)| Trouble::AddressConflict { address, mac: mac.to_string() });
        let own_claim = own_claim
            .filter(|(at, _)| lately(*at))
            .map(|(_, mac)| Trouble::OwnAddressConflict { address: own, mac: mac.to_string() });
        let is_serving = self.addresses.is_desired();
        let rival = rival
            .filter(|(at, _)| is_serving && lately(*at))
            .map(|(_, priority)| Trouble::TwoMasters { name: self.peer_name(), priority });
        let vips = list_differs_at
            .filter(|at| lately(*at))
            .map(|_| Trouble::VipsDiffer { name: self.peer_name() });
        let peer_claim = peer_claim
            .filter(|(at, _)| is_serving && rival.is_none() && lately(*at))
            .map(|(_, address)| Trouble::PeerClaims { name: self.peer_name(), address });
        [stranger, claim, own_claim, rival, peer_claim, vips].into_iter().flatten()
    }

    /// What was heard and not believed.
    fn find_refusals(&self, now: Instant, link: LinkId) -> impl Iterator<Item = Trouble> {
        let Ears { refused, beacon_refused, config_differs_at, rejected_at, .. } =
            &self.links[link.index()].ears;
        let peer = IpAddr::from(self.links[link.index()].peer);
        let lately = move |at: Instant| now.since(at) < self.patience();
        let refused = refused.filter(|(at, ..)| lately(*at)).map(|(_, source, refusal)| {
            of_refusal(self.peer_name(), source == peer, source, refusal)
        });
        let beacon = beacon_refused
            .filter(|(at, _)| lately(*at))
            .map(|(_, refusal)| Trouble::BeaconsRefused { why: refusal.to_string() });
        let config = config_differs_at
            .filter(|at| lately(*at))
            .map(|_| Trouble::ConfigDiffers { name: self.peer_name() });
        let rejected = rejected_at
            .filter(|at| lately(*at))
            .map(|_| Trouble::VrrpRejected { name: self.peer_name() });
        [refused, beacon, config, rejected].into_iter().flatten()
    }

    /// What should be heard and is not.
    fn find_deafness(&self, now: Instant, link: LinkId) -> Option<Trouble> {
        let facts = &self.links[link.index()];
        let name = self.peer_name();
        let lately = |at: Option<Instant>| at.is_some_and(|at| now.since(at) < self.patience());
        let Ears { beacon_at, frame_at, vrrp_at, refused, .. } = facts.ears;
        if lately(beacon_at) && self.peer_hears(now, link) == Some(false) {
            return Some(Trouble::OneWayLink { name });
        }
        if lately(vrrp_at) || now.since(self.role_since) <= PATIENCE {
            return None;
        }
        if lately(frame_at) {
            // What the raw socket received and was refused is no firewall's work.
            let is_received = refused.is_some_and(|(at, ..)| lately(Some(at)));
            let device = self.devices[link.index()].name.clone();
            return (!is_received).then_some(Trouble::VrrpFirewalled { name, device });
        }
        // Only a host that serves advertises, and only for that long.
        let peer_serves = self
            .fresh(now)
            .is_some_and(|peer| peer.role == Role::Active && peer.carrier == [true; 2]);
        let is_held_back = self.has_foreign_peer() && self.findings.held.is_some();
        let is_alive =
            (peer_serves && lately(beacon_at)) || (is_held_back && lately(facts.peer_answered_at));
        is_alive.then_some(Trouble::MulticastBlocked { name })
    }

    /// A slow VRRP is heard seldom, and no trouble for that.
    fn patience(&self) -> Duration {
        PATIENCE.max(self.config.vrrp.interval * 3)
    }

    fn peer_hears(&self, now: Instant, link: LinkId) -> Option<bool> {
        // The peer's first beacons after a start say no before it could hear anything.
        let peer = self.fresh(now)?;
        let is_settled = now.since(self.role_since) > PATIENCE;
        is_settled.then(|| peer.hears[link.index()])
    }
}

/// The trouble behind an advertisement on our VRID that is ignored.
pub(super) fn of_refusal(name: String, is_peer: bool, source: IpAddr, refusal: Refusal) -> Trouble {
    let why = refusal.to_string();
    if !is_peer {
        return Trouble::PacketsRefused { source, why };
    }
    match refusal {
        Refusal::Password | Refusal::AuthType => Trouble::PasswordDiffers { name, why },
        Refusal::Interval { .. } => Trouble::IntervalDiffers { name, why },
        Refusal::Version(_) => Trouble::VersionDiffers { name, why },
        Refusal::Truncated
        | Refusal::NotVrrp
        | Refusal::OtherVrid(_)
        | Refusal::UnknownVersion(_)
        | Refusal::Length { .. }
        | Refusal::Ttl(_)
        | Refusal::UnknownAuthType(_)
        | Refusal::Type(_)
        | Refusal::Checksum
        | Refusal::Destination(_)
        | Refusal::Count(_)
        | Refusal::NoInterval => Trouble::PacketsRefused { source, why },
    }
}
