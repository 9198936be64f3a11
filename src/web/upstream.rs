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
//! A reset after the connection was made takes nobody out: it is evidence about the request. Three
//! different requests that are reset in a row make the next ping come at once.
//!
//! A ping that is late while the pool's own status answers is a busy peer, not a hung one: it
//! stays, and gets what the other one has no room for. A peer that returns begins with a sixteenth
//! of its share (`balance`). Retries after an unknown outcome are paid from one budget.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::limits;
use crate::time::{Instant, Rng, earliest};
use crate::wire::HostId;

use super::Config;
use super::balance::{Balance, Want};
use super::keepalive::Keepalive;
use super::queue::Queue;

/// Finds a waiting request's session again: slot and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub slot: u32,
    pub generation: u16,
}

/// The group of both peers.
#[derive(Debug)]
pub struct Upstream {
    pub(super) peers: [Peer; 2],
    pub(super) keepalive: Keepalive,
    pub(super) balance: Balance,
    pub(super) slow_start: Duration,
    /// What retries are paid from: a request earns 1, a retry costs `WEB_RETRY_REQUESTS`.
    budget: u32,
    budget_max: u32,
    queue: Queue,
    pub(super) orders: VecDeque<Order>,
    rng: Rng,
}

/// What a pool says of itself (php-fpm: pm.status_path).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Its workers, if their number is fixed.
    pub workers: Option<usize>,
    /// Connections that wait for a worker (php-fpm: listen queue).
    pub waiting: usize,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) is_host_alive: bool,
    pub(super) weight: u16,
    /// Asked only for what the other one cannot take.
    pub(super) is_backup: bool,
    /// An operator spares it.
    pub(super) is_draining: bool,
    /// Why it is out; `None` while it is up.
    down: Option<Evidence>,
    failures: u8,
    successes: u8,
    pub(super) in_flight: usize,
    /// The cap: as configured, and as far as the pool has workers for it.
    config_max: usize,
    pub(super) requests_max: usize,
    /// nginx: ngx_http_upstream_rr_peer_t.current_weight.
    pub(super) current: i32,
    /// Since when it is back, until its share is whole again.
    pub(super) returned_at: Option<Instant>,
    /// Different requests that were reset there, with nothing from it between them.
    resets: heapless::Vec<u64, { limits::WEB_RESETS_MAX }>,
    probe: Probe,
    /// When it last sent a client's answer, or its pool's status.
    heard_at: Option<Instant>,
    /// The last ping was late, and yet it lives.
    pub(super) is_busy: bool,
    /// Its pool's status has answered once.
    has_status: bool,
    /// Its pool's status told of connections that wait for a worker.
    is_crowded: bool,
    pub(super) requests: u64,
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
    Unreachable,
    ConnectLate,
    ProbeLate,
    ProbeBroken,
}

impl Evidence {
    /// Whether requests there may wait for nothing. Where the host still speaks, its kernel ends
    /// the connections of a dead php-fpm by itself, and a living one finishes what it has begun.
    const fn is_silence(self) -> bool {
        match self {
            Self::Unreachable | Self::ConnectLate | Self::ProbeLate => true,
            Self::ConnectRefused | Self::ProbeBroken => false,
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectRefused => "connection refused",
            Self::Unreachable => "host unreachable",
            Self::ConnectLate => "connection took too long",
            Self::ProbeLate => "ping not answered in time",
            Self::ProbeBroken => "ping closed without an answer (listen.allowed_clients?)",
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
    /// The peer is silent or gone: offer every request in flight there to the other peer.
    Lost(HostId),
    /// Close this kept connection.
    CloseIdle(u32),
}

/// Which hosts there are.
#[derive(Debug, Clone, Copy)]
pub struct Hosts<'a> {
    /// Whose php-fpm is asked over loopback.
    pub me: HostId,
    pub names: &'a [String; 2],
}

impl Upstream {
    #[must_use]
    pub fn new(config: &Config, hosts: &Hosts<'_>, now: Instant, seed: u64) -> Self {
        let requests_max = config.php_requests_max.max(1);
        // A host that dies with all its requests must not empty it: twice the cap.
        let retries = u32::try_from(requests_max).unwrap_or(u32::MAX).saturating_mul(2);
        let budget = retries.saturating_mul(limits::WEB_RETRY_REQUESTS);
        Self {
            peers: HostId::ALL.map(|host| Peer {
                weight: config.weight(hosts, host),
                is_backup: config.backup(hosts) == Some(host),
                ..Peer::new(requests_max, now)
            }),
            balance: config.balance,
            keepalive: Keepalive::new(hosts.me, config.keepalive, config.keepalive_idle),
            slow_start: config.slow_start,
            budget,
            budget_max: budget,
            queue: Queue::default(),
            orders: VecDeque::new(),
            rng: Rng::new(seed),
        }
    }

    /// Other settings from now on; what is known of the peers stays.
    pub fn configure(&mut self, config: &Config, hosts: &Hosts<'_>) {
        self.slow_start = config.slow_start;
        self.balance = config.balance;
        self.keepalive.configure(config.keepalive, config.keepalive_idle);
        for host in HostId::ALL {
            let peer = self.peer_mut(host);
            // A pool's own limit comes back with its next status.
            peer.config_max = config.php_requests_max.max(1);
            peer.requests_max = peer.config_max;
            peer.weight = config.weight(hosts, host);
            peer.is_backup = config.backup(hosts) == Some(host);
        }
        self.close_excess();
    }

    /// Asks for a peer that was not tried. It is charged to the budget where the first try may have
    /// been executed.
    pub fn acquire(&mut self, now: Instant, ticket: Ticket, want: Want, is_charged: bool) -> Pick {
        if want.tried == [true, true] {
            return Pick::Nothing;
        }
        if !want.is_retry() {
            self.budget = self.budget_max.min(self.budget + 1);
        } else if is_charged && !self.charge() {
            return Pick::Nothing;
        }
        // Nobody overtakes those who wait, unless they wait for the other peer.
        if self.queue.is_first(want)
            && let Some(host) = self.pick(now, want)
        {
            return Pick::Peer(host);
        }
        if self.queue.push(ticket, want) { Pick::Queued } else { Pick::Nothing }
    }

    /// Pays for a second try of a request whose first may have been executed. False: there is no
    /// budget for it.
    #[must_use]
    pub fn charge(&mut self) -> bool {
        match self.budget.checked_sub(limits::WEB_RETRY_REQUESTS) {
            Some(rest) => {
                self.budget = rest;
                true
            }
            None => false,
        }
    }

    /// The first waiting request that a peer has room for.
    pub fn next_assigned(&mut self, now: Instant) -> Option<(Ticket, HostId)> {
        let kinds = self.queue.kinds(|kind| self.has_room(kind));
        let (ticket, want) = self.queue.take(kinds)?;
        let host = self.pick(now, want)?;
        Some((ticket, host))
    }

    /// A waiting request gave up.
    pub fn leave(&mut self, ticket: Ticket) {
        self.queue.leave(ticket);
    }

    /// A request's connection to this peer is closed.
    pub fn release(&mut self, host: HostId, ticket: Ticket) {
        self.keepalive.heard(ticket);
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
    pub fn heard(&mut self, now: Instant, host: HostId, ticket: Ticket) {
        self.keepalive.heard(ticket);
        let peer = self.peer_mut(host);
        peer.heard_at = Some(now);
        peer.resets.clear();
    }

    /// A request's connection there broke without a byte of an answer. That is evidence about the
    /// request, and one poisonous page would else take out both peers (facts/web.md, fact 3). When
    /// it happens to different requests with nothing between them, a ping tells more at once.
    pub fn reset(&mut self, now: Instant, host: HostId, request: u64) {
        let peer = self.peer_mut(host);
        if !peer.resets.contains(&request) {
            let _is_full = peer.resets.push(request);
        }
        if peer.resets.is_full() {
            peer.resets.clear();
            if let Probe::Due(_) = peer.probe {
                peer.probe = Probe::Due(now);
            }
        }
    }

    /// The operator's wish to spare a host's php-fpm: what is there ends, what is new goes to the
    /// other one (nginx: drain).
    pub fn set_draining(&mut self, is_draining: [bool; 2]) {
        for host in HostId::ALL {
            self.peer_mut(host).is_draining = is_draining[host.index()];
        }
        self.close_excess();
    }

    /// The probe got a complete answer, whatever it said.
    pub fn probe_answered(&mut self, now: Instant, host: HostId) {
        let next = self.next_probe(now, host);
        let peer = self.peer_mut(host);
        peer.probe = next;
        peer.failures = 0;
        peer.is_busy = false;
        peer.successes = peer.successes.saturating_add(1);
        if peer.successes >= limits::WEB_PROBE_SUCCESSES && peer.down.take().is_some() {
            peer.returned_at = Some(now);
        }
    }

    /// The pool's own process spoke, which it does while every worker is busy.
    pub fn pool_answered(&mut self, now: Instant, host: HostId, pool: Pool) {
        let peer = self.peer_mut(host);
        peer.heard_at = Some(now);
        peer.has_status = true;
        // One worker is left for pings and for what comes past this front.
        peer.requests_max = pool
            .workers
            .map_or(peer.config_max, |workers| peer.config_max.min(workers.saturating_sub(1)))
            .max(1);
        peer.is_crowded = pool.waiting > 0;
        self.close_excess();
    }

    pub fn probe_failed(&mut self, now: Instant, host: HostId, evidence: Evidence) {
        let next = self.next_probe(now, host);
        let peer = self.peer_mut(host);
        let Probe::Running { since } = peer.probe else { return };
        peer.probe = next;
        // Busy is not hung: a worker that answers a request proves the host.
        let is_busy = peer.heard_at.is_some_and(|heard_at| heard_at >= since);
        if evidence == Evidence::ProbeLate && is_busy {
            peer.is_busy = true;
            if peer.has_status {
                // What was heard may have been its last: a reload lets requests end and takes no
                // new. Without a status, workers that all wait for a database look the same.
                peer.probe = Probe::Due(now);
            }
            self.close_excess();
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
        self.peer_mut(host).probe = self.next_probe(now, host);
    }

    /// `Routes.is_host_alive`, as the pair knows it.
    pub fn set_alive(&mut self, now: Instant, is_host_alive: [bool; 2]) {
        for host in HostId::ALL {
            let was_alive = self.peer(host).is_host_alive;
            self.peer_mut(host).is_host_alive = is_host_alive[host.index()];
            if !was_alive && is_host_alive[host.index()] {
                self.peer_mut(host).returned_at = Some(now);
            }
            if was_alive && !is_host_alive[host.index()] && is_host_alive[host.other().index()] {
                self.orders.push_back(Order::Lost(host));
            }
        }
        self.close_excess();
    }

    /// Acts on every deadline up to `now`.
    pub fn expire(&mut self, now: Instant) {
        self.expire_idle(now);
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
        earliest(earliest(Some(first), Some(second)), self.keepalive.deadline())
    }

    #[must_use]
    pub fn poll_output(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether requests are sent there, how many are there, how many were, and why it is out.
    #[must_use]
    pub fn peer_status(&self, host: HostId) -> super::PeerStatus {
        let peer = self.peer(host);
        let reason = if peer.is_host_alive {
            peer.down.map_or_else(String::new, |evidence| evidence.to_string())
        } else {
            "taken out by the pair: gone, leaving or in maintenance".into()
        };
        super::PeerStatus {
            name: String::new(),
            is_up: peer.is_usable(),
            is_draining: peer.is_draining,
            reason,
            in_flight: peer.in_flight,
            idle: self.keepalive.count(host),
            requests: peer.requests,
        }
    }

    /// Its pings are not answered, whatever the pair knows of the host.
    #[must_use]
    pub const fn is_down(&self, host: HostId) -> bool {
        self.peer(host).down.is_some()
    }

    #[must_use]
    pub const fn is_usable(&self, host: HostId) -> bool {
        self.peer(host).is_usable()
    }

    /// Takes a peer out, unless it is the last usable one.
    fn eject(&mut self, host: HostId, evidence: Evidence) {
        if !self.peer(host.other()).is_usable() {
            return;
        }
        let peer = self.peer_mut(host);
        let was_usable = peer.is_usable();
        peer.down = Some(evidence);
        self.close_excess();
        if was_usable && evidence.is_silence() {
            self.orders.push_back(Order::Lost(host));
        }
    }

    fn next_probe(&mut self, now: Instant, host: HostId) -> Probe {
        let interval = match self.peer(host).in_flight {
            0 => limits::WEB_PROBE_INTERVAL,
            _ => limits::WEB_PROBE_INTERVAL_BUSY,
        };
        let half = limits::WEB_PROBE_JITTER;
        let width = u64::try_from(half.as_millis() * 2).unwrap_or(1);
        let jitter = Duration::from_millis(self.rng.below(width));
        Probe::Due(now + interval - half + jitter)
    }

    pub(super) const fn peer(&self, host: HostId) -> &Peer {
        let [first, second] = &self.peers;
        match host {
            HostId::First => first,
            HostId::Second => second,
        }
    }

    pub(super) const fn peer_mut(&mut self, host: HostId) -> &mut Peer {
        let [first, second] = &mut self.peers;
        match host {
            HostId::First => first,
            HostId::Second => second,
        }
    }
}

impl Peer {
    const fn new(requests_max: usize, now: Instant) -> Self {
        Self {
            is_host_alive: true,
            weight: 1,
            is_backup: false,
            is_draining: false,
            down: None,
            failures: 0,
            successes: 0,
            in_flight: 0,
            config_max: requests_max,
            requests_max,
            current: 0,
            returned_at: None,
            resets: heapless::Vec::new(),
            probe: Probe::Due(now),
            heard_at: None,
            is_busy: false,
            has_status: false,
            is_crowded: false,
            requests: 0,
        }
    }

    pub(super) const fn is_usable(&self) -> bool {
        self.is_host_alive && self.down.is_none()
    }

    /// Whether a worker of it may be held for a next request.
    pub(super) const fn is_at_ease(&self) -> bool {
        self.is_usable() && !self.is_busy && !self.is_crowded && !self.is_draining
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HostId::{First, Second};

    const NOBODY_TRIED: [bool; 2] = [false, false];

    fn upstream(requests_max: usize) -> Upstream {
        let config = Config { php_requests_max: requests_max, ..Config::default() };
        let names = ["one".to_owned(), "two".to_owned()];
        Upstream::new(&config, &Hosts { me: First, names: &names }, Instant::ZERO, 1)
    }

    fn acquire(upstream: &mut Upstream, slot: u32, tried: [bool; 2]) -> Pick {
        upstream.acquire(Instant::ZERO, ticket(slot), want(tried), true)
    }

    fn want(tried: [bool; 2]) -> Want {
        Want { tried, ..Want::default() }
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
            (0..6).map(|slot| acquire(&mut upstream, slot, NOBODY_TRIED)).collect();
        let count = picks.iter().filter(|&&pick| pick == Pick::Peer(First)).count();
        assert_eq!(count, 3, "{picks:?}");
        assert!(picks.windows(2).all(|pair| pair[0] != pair[1]), "{picks:?}");
    }

    #[test]
    fn beyond_the_cap_requests_wait_in_order() {
        let mut upstream = upstream(1);
        for slot in 0..4 {
            acquire(&mut upstream, slot, NOBODY_TRIED);
        }
        assert_eq!(upstream.queued(), 2);
        assert_eq!(upstream.next_assigned(Instant::ZERO), None);
        upstream.release(Second, ticket(0));
        assert_eq!(upstream.next_assigned(Instant::ZERO), Some((ticket(2), Second)));
        upstream.leave(ticket(3));
        upstream.release(First, ticket(0));
        assert_eq!(upstream.next_assigned(Instant::ZERO), None);
    }

    #[test]
    fn a_retry_waits_at_the_head_and_for_the_other_peer_only() {
        let mut upstream = upstream(1);
        for slot in 0..3 {
            acquire(&mut upstream, slot, NOBODY_TRIED);
        }
        assert_eq!(acquire(&mut upstream, 9, [true, false]), Pick::Queued);
        upstream.release(First, ticket(0));
        assert_eq!(upstream.next_assigned(Instant::ZERO), Some((ticket(2), First)));
        upstream.release(Second, ticket(0));
        assert_eq!(upstream.next_assigned(Instant::ZERO), Some((ticket(9), Second)));
        assert_eq!(acquire(&mut upstream, 9, [true, true]), Pick::Nothing);
    }

    #[test]
    fn of_the_requests_that_a_hung_host_gives_up_the_oldest_goes_first() {
        let mut upstream = upstream(1);
        for slot in 0..3 {
            acquire(&mut upstream, slot, NOBODY_TRIED);
        }
        let retry = |upstream: &mut Upstream, slot: u32, age: u64| {
            let want = Want { since: after(500 - age), ..want([false, true]) };
            upstream.acquire(after(500), ticket(slot), want, false)
        };
        for (slot, age) in [(7, 100), (8, 400), (9, 300)] {
            assert_eq!(retry(&mut upstream, slot, age), Pick::Queued);
        }
        upstream.release(First, ticket(0));
        assert_eq!(retry(&mut upstream, 6, 200), Pick::Queued, "older ones wait");
        for next in [8, 9, 6, 7, 2] {
            let assigned = upstream.next_assigned(after(500));
            assert_eq!(assigned, Some((ticket(next), First)));
            upstream.release(First, ticket(next));
        }
    }

    #[test]
    fn a_refused_connection_ejects_at_once_and_two_pings_bring_back() {
        let mut upstream = upstream(9);
        upstream.connect_failed(First, Evidence::ConnectRefused);
        assert_eq!(orders(&mut upstream), [], "its connections end by themselves");
        for slot in 0..4 {
            assert_eq!(acquire(&mut upstream, slot, NOBODY_TRIED), Pick::Peer(Second));
        }
        upstream.expire(after(0));
        upstream.probe_answered(after(1), First);
        assert!(!upstream.is_usable(First));
        upstream.probe_answered(after(400), First);
        assert!(upstream.is_usable(First));
    }

    #[test]
    fn two_late_pings_eject_within_400_milliseconds() {
        let mut upstream = upstream(9);
        upstream.expire(after(0));
        assert_eq!(orders(&mut upstream), [Order::Probe(First), Order::Probe(Second)]);
        upstream.probe_answered(after(1), Second);
        upstream.expire(after(200));
        assert_eq!(orders(&mut upstream), [Order::EndProbe(First)]);
        upstream.expire(after(200));
        assert_eq!(orders(&mut upstream), [Order::Probe(First)]);
        upstream.expire(after(400));
        assert!(orders(&mut upstream).contains(&Order::Lost(First)));
        assert!(!upstream.is_usable(First));
        assert_eq!(upstream.peer_status(First).reason, "ping not answered in time");
    }

    #[test]
    fn a_host_with_requests_is_asked_more_often() {
        let mut upstream = upstream(9);
        let due_in = |upstream: &mut Upstream, at: u64| {
            upstream.expire(after(at));
            upstream.probe_answered(after(at), First);
            upstream.probe_answered(after(at), Second);
            let next = upstream.deadline().expect("a ping");
            u64::try_from(next.since(after(at)).as_millis()).expect("soon")
        };
        assert!((230..270).contains(&due_in(&mut upstream, 0)), "idle");
        acquire(&mut upstream, 0, NOBODY_TRIED);
        assert!((110..150).contains(&due_in(&mut upstream, 300)), "busy");
    }

    #[test]
    fn a_busy_peer_is_not_ejected() {
        let mut upstream = upstream(9);
        for round in 0..5 {
            upstream.expire(after(round * 1000));
            upstream.probe_answered(after(round * 1000), Second);
            upstream.heard(after(round * 1000 + 100), First, ticket(0));
            upstream.expire(after(round * 1000 + 200));
        }
        assert!(upstream.is_usable(First));
    }

    #[test]
    fn a_pool_that_ends_its_requests_and_takes_no_more_is_out_600_milliseconds_after_a_ping() {
        let mut upstream = upstream(9);
        upstream.expire(after(0));
        upstream.probe_answered(after(1), Second);
        upstream.pool_answered(after(150), First, Pool { workers: None, waiting: 0 });
        for milliseconds in [200, 201, 401, 402, 602] {
            assert!(upstream.is_usable(First));
            upstream.expire(after(milliseconds));
        }
        assert!(!upstream.is_usable(First));
    }

    #[test]
    fn a_silent_peer_loses_its_requests() {
        let mut upstream = upstream(9);
        upstream.connect_failed(Second, Evidence::ConnectLate);
        assert_eq!(orders(&mut upstream), [Order::Lost(Second)]);
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
        upstream.set_alive(after(0), [false, true]);
        assert_eq!(orders(&mut upstream), [Order::Lost(First)]);
        assert_eq!(acquire(&mut upstream, 0, NOBODY_TRIED), Pick::Peer(Second));
        assert_eq!(acquire(&mut upstream, 1, [false, true]), Pick::Peer(First), "a last chance");
        upstream.connect_failed(Second, Evidence::ConnectRefused);
        assert_eq!(acquire(&mut upstream, 2, NOBODY_TRIED), Pick::Peer(Second), "alive at least");
        upstream.set_alive(after(0), [false, false]);
        assert_eq!(orders(&mut upstream), []);
        assert!(matches!(acquire(&mut upstream, 2, NOBODY_TRIED), Pick::Peer(_)));
    }

    #[test]
    fn a_pool_that_answers_is_busy_and_gets_what_the_other_has_no_room_for() {
        let mut upstream = upstream(2);
        for round in 0..5 {
            upstream.expire(after(round * 1000));
            upstream.probe_answered(after(round * 1000), Second);
            upstream.pool_answered(
                after(round * 1000 + 100),
                First,
                Pool { workers: None, waiting: 0 },
            );
            upstream.expire(after(round * 1000 + 200));
        }
        assert!(upstream.is_usable(First));
        let picks: Vec<Pick> =
            (0..4).map(|slot| acquire(&mut upstream, slot, NOBODY_TRIED)).collect();
        assert_eq!(picks, [Second, Second, First, First].map(Pick::Peer));
    }

    #[test]
    fn the_cap_follows_a_static_pool() {
        let mut upstream = upstream(9);
        upstream.set_alive(after(0), [true, false]);
        upstream.pool_answered(after(0), First, Pool { workers: Some(3), waiting: 0 });
        for slot in 0..5 {
            acquire(&mut upstream, slot, NOBODY_TRIED);
        }
        assert_eq!(upstream.queued(), 3);
        upstream.pool_answered(after(0), First, Pool { workers: None, waiting: 0 });
        assert_eq!(upstream.next_assigned(after(0)), Some((ticket(2), First)));
    }

    #[test]
    fn a_peer_that_returns_gets_its_share_little_by_little() {
        let mut upstream = upstream(9999);
        upstream.set_alive(after(0), [false, true]);
        upstream.set_alive(after(1000), [true, true]);
        let mut share_at = |milliseconds| {
            let picks = (0..160).map(|slot| {
                upstream.acquire(after(milliseconds), ticket(slot), want(NOBODY_TRIED), false)
            });
            picks.filter(|&pick| pick == Pick::Peer(First)).count()
        };
        let shares = [1000, 3500, 6000, 11_000].map(&mut share_at);
        assert!(shares[0] < 12 && (25..40).contains(&shares[1]), "{shares:?}");
        assert!((48..60).contains(&shares[2]) && shares[3] == 80, "{shares:?}");
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_retried_and_free_moves_always() {
        let mut upstream = upstream(1000);
        let mut retries = |count: usize, is_charged| {
            (0..count)
                .map(|_| upstream.acquire(after(0), ticket(0), want([true, false]), is_charged))
                .filter(|pick| matches!(pick, Pick::Peer(_) | Pick::Queued))
                .count()
        };
        assert_eq!(retries(3000, true), 2000, "twice the cap is there from the beginning");
        assert_eq!(retries(10, false), 10);
        for slot in 0..100 {
            acquire(&mut upstream, slot, NOBODY_TRIED);
        }
        let again = (0..100).map(|_| acquire(&mut upstream, 0, [true, false]));
        assert_eq!(again.filter(|&pick| pick != Pick::Nothing).count(), 20);
    }

    #[test]
    fn different_requests_that_are_reset_bring_the_next_ping_at_once() {
        let pinged = |requests: [u64; 3], is_heard| {
            let mut upstream = upstream(9);
            upstream.expire(after(0));
            for host in HostId::ALL {
                upstream.probe_answered(after(1), host);
            }
            orders(&mut upstream);
            for request in requests {
                upstream.reset(after(2), First, request);
                if is_heard {
                    upstream.heard(after(2), First, ticket(0));
                }
            }
            upstream.expire(after(2));
            orders(&mut upstream) == [Order::Probe(First)]
        };
        assert!(pinged([1, 2, 3], false));
        assert!(!pinged([1, 2, 1], false), "a poisonous page that is asked for again and again");
        assert!(!pinged([1, 2, 3], true), "others are answered there");
    }
}
