//! Upstream: the two hosts' php-fpm; which of them gets a request, who waits, who is out.
//!
//! In: requests that want a peer, what became of connections and probes, `Routes.is_host_alive`.
//! Out: a peer or a place in the queue; orders to probe; "lost" for requests in flight there.
//! Must not: open sockets, eject the last usable peer, take a client's request as a probe.
//! Read first: facts/web.md 2.1 (smooth round robin), 6 "What tandem must beat".
//!
//! ```text
//!          2 probes failed, or one connect refused or late (and the other peer is usable)
//!     up ----------------------------------------------------------------------------> down
//!        <----------------------------------------------------------------------------
//!                              2 probes in a row answered
//! ```
//! A reset after the connection was made counts for nothing: it is evidence about the request, and
//! one poisonous GET would else take out both peers (facts/web.md, fact 3).

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::limits;
use crate::time::{Instant, Rng, earliest};
use crate::wire::HostId;

/// Finds a waiting request's session again: slot and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub slot: u32,
    pub generation: u16,
}

/// The group of both peers.
#[derive(Debug)]
pub struct Upstream {
    peers: [Peer; 2],
    requests_max: usize,
    waiting: VecDeque<Waiting>,
    orders: VecDeque<Order>,
    rng: Rng,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    ticket: Ticket,
    tried: [bool; 2],
}

#[derive(Debug)]
struct Peer {
    is_host_alive: bool,
    /// Why it is out; `None` while it is up.
    down: Option<Evidence>,
    failures: u8,
    successes: u8,
    in_flight: usize,
    /// nginx: ngx_http_upstream_rr_peer_t.current_weight.
    current: i32,
    probe: Probe,
    heard_at: Option<Instant>,
    requests: u64,
}

#[derive(Debug, Clone, Copy)]
enum Probe {
    Due(Instant),
    Running { since: Instant },
}

/// What speaks against a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    ConnectRefused,
    ConnectLate,
    ProbeLate,
    ProbeBroken,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectRefused => "connection refused or unreachable",
            Self::ConnectLate => "connection took too long",
            Self::ProbeLate => "ping not answered in time",
            Self::ProbeBroken => "ping answered by no FastCGI",
        })
    }
}

/// What a request that wants a peer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    Peer(HostId),
    /// Wait for `next_assigned`.
    Queued,
    /// The queue is full, or both peers were tried.
    Nothing,
}

/// What the hands do for the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Open a connection of its own and send `ping_request`.
    Probe(HostId),
    /// The probe's time is over: close its connection.
    EndProbe(HostId),
    /// The peer went out: offer every request in flight there to the other peer.
    Lost(HostId),
}

impl Upstream {
    #[must_use]
    pub fn new(requests_max: usize, now: Instant, seed: u64) -> Self {
        Self {
            peers: [Peer::new(now), Peer::new(now)],
            requests_max: requests_max.max(1),
            waiting: VecDeque::new(),
            orders: VecDeque::new(),
            rng: Rng::new(seed),
        }
    }

    /// Asks for a peer that is not in `tried`. A retry waits at the head of the queue.
    pub fn acquire(&mut self, ticket: Ticket, tried: [bool; 2]) -> Pick {
        if tried == [true, true] {
            return Pick::Nothing;
        }
        let is_retry = tried != [false, false];
        // Nobody overtakes those who wait, unless they wait for the other peer.
        let is_first = is_retry || !self.waiting.iter().any(|other| other.tried == tried);
        if let Some(host) = self.pick(tried).filter(|_| is_first) {
            return Pick::Peer(host);
        }
        if self.waiting.len() >= limits::WEB_QUEUE_MAX {
            return Pick::Nothing;
        }
        let waiting = Waiting { ticket, tried };
        if is_retry {
            self.waiting.push_front(waiting);
        } else {
            self.waiting.push_back(waiting);
        }
        Pick::Queued
    }

    /// The first waiting request that a peer has room for.
    pub fn next_assigned(&mut self) -> Option<(Ticket, HostId)> {
        for index in 0..self.waiting.len() {
            let waiting = *self.waiting.get(index)?;
            if let Some(host) = self.pick(waiting.tried) {
                self.waiting.remove(index);
                return Some((waiting.ticket, host));
            }
        }
        None
    }

    /// A waiting request gave up.
    pub fn leave(&mut self, ticket: Ticket) {
        self.waiting.retain(|waiting| waiting.ticket != ticket);
    }

    /// A request's connection to this peer is closed.
    pub fn release(&mut self, host: HostId) {
        let peer = self.peer_mut(host);
        debug_assert!(peer.in_flight > 0, "released more often than assigned");
        peer.in_flight = peer.in_flight.saturating_sub(1);
    }

    /// A request could not connect: counts at once.
    pub fn connect_failed(&mut self, host: HostId, evidence: Evidence) {
        self.peer_mut(host).failures = limits::WEB_PROBE_FAILURES;
        self.peer_mut(host).successes = 0;
        self.eject(host, evidence);
    }

    /// A request got bytes from this peer, so it is not hung, however late its ping is.
    pub fn heard(&mut self, now: Instant, host: HostId) {
        self.peer_mut(host).heard_at = Some(now);
    }

    /// The probe got a complete answer, whatever it said.
    pub fn probe_answered(&mut self, now: Instant, host: HostId) {
        let next = self.next_probe(now);
        let peer = self.peer_mut(host);
        peer.probe = next;
        peer.failures = 0;
        peer.successes = peer.successes.saturating_add(1);
        if peer.successes >= limits::WEB_PROBE_SUCCESSES {
            peer.down = None;
        }
    }

    pub fn probe_failed(&mut self, now: Instant, host: HostId, evidence: Evidence) {
        let next = self.next_probe(now);
        let peer = self.peer_mut(host);
        let Probe::Running { since } = peer.probe else { return };
        peer.probe = next;
        // Busy is not hung: a worker that answers a request proves the host.
        let is_busy = peer.heard_at.is_some_and(|heard_at| heard_at >= since);
        if evidence == Evidence::ProbeLate && is_busy {
            return;
        }
        peer.successes = 0;
        peer.failures = peer.failures.saturating_add(1);
        if peer.failures >= limits::WEB_PROBE_FAILURES {
            self.eject(host, evidence);
        } else {
            // The second opinion is wanted at once: requests may be stuck there.
            self.peer_mut(host).probe = Probe::Due(now);
        }
    }

    /// The probe could not be sent, for a reason that is ours.
    pub fn probe_skipped(&mut self, now: Instant, host: HostId) {
        self.peer_mut(host).probe = self.next_probe(now);
    }

    /// `Routes.is_host_alive`, as the pair knows it.
    pub fn set_alive(&mut self, is_host_alive: [bool; 2]) {
        for host in HostId::ALL {
            let was_alive = self.peer(host).is_host_alive;
            self.peer_mut(host).is_host_alive = is_host_alive[host.index()];
            if was_alive && !is_host_alive[host.index()] && is_host_alive[host.other().index()] {
                self.orders.push_back(Order::Lost(host));
            }
        }
    }

    /// Acts on every deadline up to `now`.
    pub fn expire(&mut self, now: Instant) {
        for host in HostId::ALL {
            match self.peer(host).probe {
                Probe::Due(at) if at <= now => {
                    self.peer_mut(host).probe = Probe::Running { since: now };
                    self.orders.push_back(Order::Probe(host));
                }
                Probe::Running { since } if since + limits::WEB_PROBE_LIMIT <= now => {
                    self.orders.push_back(Order::EndProbe(host));
                    self.probe_failed(now, host, Evidence::ProbeLate);
                }
                Probe::Due(_) | Probe::Running { .. } => {}
            }
        }
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let [first, second] = self.peers.each_ref().map(|peer| match peer.probe {
            Probe::Due(at) => at,
            Probe::Running { since } => since + limits::WEB_PROBE_LIMIT,
        });
        earliest(Some(first), Some(second))
    }

    #[must_use]
    pub fn poll_output(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    #[must_use]
    pub fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// Whether requests are sent there, how many are there, how many were, and why it is out.
    #[must_use]
    pub fn peer_status(&self, host: HostId) -> super::PeerStatus {
        let peer = self.peer(host);
        let reason = if peer.is_host_alive {
            peer.down.map_or_else(String::new, |evidence| evidence.to_string())
        } else {
            "the pair knows that the host is gone".into()
        };
        super::PeerStatus {
            name: String::new(),
            is_up: peer.is_usable(),
            reason,
            in_flight: peer.in_flight,
            requests: peer.requests,
        }
    }

    #[must_use]
    pub const fn is_usable(&self, host: HostId) -> bool {
        self.peer(host).is_usable()
    }

    /// nginx: ngx_http_upstream_get_peer, over the usable peers that have room. When none is
    /// usable, those that were not tried are tried all the same.
    fn pick(&mut self, tried: [bool; 2]) -> Option<HostId> {
        let untried = |host: &HostId| !tried[host.index()];
        let usable = |host: &HostId| self.peer(*host).is_usable();
        let is_any_usable = HostId::ALL.iter().any(|host| untried(host) && usable(host));
        let has_room = |host: &HostId| self.peer(*host).in_flight < self.requests_max;
        let mut eligible = heapless::Vec::<HostId, 2>::new();
        for host in HostId::ALL {
            if untried(&host) && has_room(&host) && (usable(&host) || !is_any_usable) {
                let _is_full = eligible.push(host);
            }
        }
        for &host in &eligible {
            self.peer_mut(host).current += 1;
        }
        let chosen = *eligible.iter().rev().max_by_key(|&&host| self.peer(host).current)?;
        let total = i32::try_from(eligible.len()).unwrap_or(2);
        let peer = self.peer_mut(chosen);
        peer.current -= total;
        peer.in_flight += 1;
        peer.requests += 1;
        Some(chosen)
    }

    /// Takes a peer out, unless it is the last usable one.
    fn eject(&mut self, host: HostId, evidence: Evidence) {
        if !self.peer(host.other()).is_usable() {
            return;
        }
        let peer = self.peer_mut(host);
        let was_usable = peer.is_usable();
        peer.down = Some(evidence);
        if was_usable {
            self.orders.push_back(Order::Lost(host));
        }
    }

    /// A tenth of jitter, so that two fronts do not ping in step.
    fn next_probe(&mut self, now: Instant) -> Probe {
        let jitter = Duration::from_millis(self.rng.below(40));
        Probe::Due(now + limits::WEB_PROBE_INTERVAL - Duration::from_millis(20) + jitter)
    }

    const fn peer(&self, host: HostId) -> &Peer {
        let [first, second] = &self.peers;
        match host {
            HostId::First => first,
            HostId::Second => second,
        }
    }

    const fn peer_mut(&mut self, host: HostId) -> &mut Peer {
        let [first, second] = &mut self.peers;
        match host {
            HostId::First => first,
            HostId::Second => second,
        }
    }
}

impl Peer {
    const fn new(now: Instant) -> Self {
        Self {
            is_host_alive: true,
            down: None,
            failures: 0,
            successes: 0,
            in_flight: 0,
            current: 0,
            probe: Probe::Due(now),
            heard_at: None,
            requests: 0,
        }
    }

    const fn is_usable(&self) -> bool {
        self.is_host_alive && self.down.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HostId::{First, Second};

    const NOBODY_TRIED: [bool; 2] = [false, false];

    fn upstream(requests_max: usize) -> Upstream {
        Upstream::new(requests_max, Instant::ZERO, 1)
    }

    fn ticket(slot: u32) -> Ticket {
        Ticket { slot, generation: 0 }
    }

    fn orders(upstream: &mut Upstream) -> Vec<Order> {
        std::iter::from_fn(|| upstream.poll_output()).collect()
    }

    fn after(milliseconds: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(milliseconds)
    }

    #[test]
    fn takes_turns_between_usable_peers() {
        let mut upstream = upstream(99);
        let picks: Vec<Pick> =
            (0..6).map(|slot| upstream.acquire(ticket(slot), NOBODY_TRIED)).collect();
        let count = picks.iter().filter(|&&pick| pick == Pick::Peer(First)).count();
        assert_eq!(count, 3, "{picks:?}");
        assert!(picks.windows(2).all(|pair| pair[0] != pair[1]), "{picks:?}");
    }

    #[test]
    fn beyond_the_cap_requests_wait_in_order() {
        let mut upstream = upstream(1);
        for slot in 0..4 {
            upstream.acquire(ticket(slot), NOBODY_TRIED);
        }
        assert_eq!(upstream.queued(), 2);
        assert_eq!(upstream.next_assigned(), None);
        upstream.release(Second);
        assert_eq!(upstream.next_assigned(), Some((ticket(2), Second)));
        upstream.leave(ticket(3));
        upstream.release(First);
        assert_eq!(upstream.next_assigned(), None);
    }

    #[test]
    fn a_retry_waits_at_the_head_and_for_the_other_peer_only() {
        let mut upstream = upstream(1);
        for slot in 0..3 {
            upstream.acquire(ticket(slot), NOBODY_TRIED);
        }
        assert_eq!(upstream.acquire(ticket(9), [true, false]), Pick::Queued);
        upstream.release(First);
        assert_eq!(upstream.next_assigned(), Some((ticket(2), First)));
        upstream.release(Second);
        assert_eq!(upstream.next_assigned(), Some((ticket(9), Second)));
        assert_eq!(upstream.acquire(ticket(9), [true, true]), Pick::Nothing);
    }

    #[test]
    fn a_refused_connection_ejects_at_once_and_two_pings_bring_back() {
        let mut upstream = upstream(9);
        upstream.connect_failed(First, Evidence::ConnectRefused);
        assert_eq!(orders(&mut upstream), [Order::Lost(First)]);
        for slot in 0..4 {
            assert_eq!(upstream.acquire(ticket(slot), NOBODY_TRIED), Pick::Peer(Second));
        }
        upstream.expire(after(0));
        upstream.probe_answered(after(1), First);
        assert!(!upstream.is_usable(First));
        upstream.probe_answered(after(400), First);
        assert!(upstream.is_usable(First));
    }

    #[test]
    fn two_late_pings_eject_within_700_milliseconds() {
        let mut upstream = upstream(9);
        upstream.expire(after(0));
        assert_eq!(orders(&mut upstream), [Order::Probe(First), Order::Probe(Second)]);
        upstream.probe_answered(after(1), Second);
        upstream.expire(after(300));
        assert_eq!(orders(&mut upstream), [Order::EndProbe(First)]);
        upstream.expire(after(300));
        assert_eq!(orders(&mut upstream), [Order::Probe(First)]);
        upstream.expire(after(600));
        assert!(orders(&mut upstream).contains(&Order::Lost(First)));
        assert!(!upstream.is_usable(First));
        assert_eq!(upstream.peer_status(First).reason, "ping not answered in time");
    }

    #[test]
    fn a_busy_peer_is_not_ejected() {
        let mut upstream = upstream(9);
        for round in 0..5 {
            upstream.expire(after(round * 1000));
            upstream.probe_answered(after(round * 1000), Second);
            upstream.heard(after(round * 1000 + 100), First);
            upstream.expire(after(round * 1000 + 300));
        }
        assert!(upstream.is_usable(First));
    }

    #[test]
    fn the_last_usable_peer_is_never_ejected() {
        let mut upstream = upstream(9);
        upstream.connect_failed(First, Evidence::ConnectRefused);
        upstream.connect_failed(Second, Evidence::ConnectRefused);
        assert!(upstream.is_usable(Second));
        for round in 0..5 {
            upstream.expire(after(round * 1000));
            upstream.expire(after(round * 1000 + 300));
        }
        assert!(upstream.is_usable(Second) && !upstream.is_usable(First));
    }

    #[test]
    fn a_dead_host_is_skipped_at_once_unless_both_are() {
        let mut upstream = upstream(9);
        upstream.set_alive([false, true]);
        assert_eq!(orders(&mut upstream), [Order::Lost(First)]);
        assert_eq!(upstream.acquire(ticket(0), NOBODY_TRIED), Pick::Peer(Second));
        assert_eq!(upstream.acquire(ticket(1), [false, true]), Pick::Peer(First), "a last chance");
        upstream.set_alive([false, false]);
        assert_eq!(orders(&mut upstream), []);
        assert!(matches!(upstream.acquire(ticket(2), NOBODY_TRIED), Pick::Peer(_)));
    }
}
