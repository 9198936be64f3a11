//! Keepalive: which connections to this host's php-fpm wait for a next request, and how long.
//!
//! In: connections whose answers ended properly, fresh ones, time, the state of the peers. Out: a
//! kept connection for a request; orders to close those that wait too long or are in the way.
//! Must not: hold a worker that somebody else may need: php-fpm is a process for each connection,
//! so a kept one pins it (facts/web.md, fact 1); keep any to the other host, whose front does.
//! Read first: facts/web.md 2.3 and 6 point 5; nginx: keepalive, keepalive_timeout.
//!
//! Kept connections and requests together stay below the peer's cap. While a request on a fresh
//! connection has waited for its first byte for long, none is kept: it may be in the kernel's queue
//! behind the very workers that kept connections pin. A slow application therefore keeps none, and
//! loses nothing by it, since a connection costs less than a thousandth of a slow page.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits;
use crate::time::Instant;
use crate::wire::HostId;

use super::upstream::{Order, Ticket, Upstream};

/// The connections to one host's php-fpm that wait, by the number that the hands gave them.
#[derive(Debug)]
pub(super) struct Keepalive {
    host: HostId,
    /// nginx: keepalive.
    idle_max: usize,
    idle_limit: Duration,
    /// The one that waits longest comes first.
    idle: VecDeque<Idle>,
    /// Requests on fresh connections that got no byte yet, and since when; the oldest first.
    unanswered: VecDeque<(Ticket, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Idle {
    leg: u32,
    since: Instant,
    born_at: Instant,
}

impl Keepalive {
    pub(super) const fn new(host: HostId, idle_max: usize, idle_limit: Duration) -> Self {
        Self { host, idle_max, idle_limit, idle: VecDeque::new(), unanswered: VecDeque::new() }
    }

    pub(super) const fn configure(&mut self, idle_max: usize, idle_limit: Duration) {
        self.idle_max = idle_max;
        self.idle_limit = idle_limit;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.idle.front().map(|idle| idle.until(self.idle_limit))
    }

    pub(super) fn count(&self, host: HostId) -> usize {
        if host == self.host { self.idle.len() } else { 0 }
    }

    /// A request's connection got a byte, or is over.
    pub(super) fn heard(&mut self, ticket: Ticket) {
        if !self.unanswered.is_empty() {
            self.unanswered.retain(|&(other, _)| other != ticket);
        }
    }

    fn is_crowded(&self, now: Instant) -> bool {
        let oldest = self.unanswered.front();
        oldest.is_some_and(|&(_, since)| now.since(since) > limits::WEB_KEEP_CROWD_LIMIT)
    }
}

impl Idle {
    fn until(self, idle_limit: Duration) -> Instant {
        (self.since + idle_limit).min(self.born_at + limits::WEB_KEEP_AGE_MAX)
    }
}

impl Upstream {
    /// A kept connection for a request to this peer: the one that was busy last, so that the others
    /// come to their end.
    pub fn reuse(&mut self, now: Instant, host: HostId) -> Option<u32> {
        if host != self.keepalive.host {
            return None;
        }
        while let Some(idle) = self.keepalive.idle.pop_back() {
            if now < idle.until(self.keepalive.idle_limit) {
                return Some(idle.leg);
            }
            self.orders.push_back(Order::CloseIdle(idle.leg));
        }
        None
    }

    /// A fresh connection to this peer begins. Whether php-fpm shall keep it after its answer.
    pub fn begin_fresh(&mut self, now: Instant, host: HostId, ticket: Ticket) -> bool {
        if host != self.keepalive.host || self.keepalive.idle_max == 0 {
            return false;
        }
        let keeps = self.is_keeping(now);
        self.keepalive.heard(ticket);
        self.keepalive.unanswered.push_back((ticket, now));
        self.close_excess();
        keeps
    }

    /// A request is over and its connection could carry another one. Whether it is to be kept; if
    /// not, it is to be closed. Either way the request has left its peer.
    pub fn keep(
        &mut self,
        now: Instant,
        host: HostId,
        ticket: Ticket,
        leg: u32,
        born_at: Instant,
    ) -> bool {
        self.release(host, ticket);
        let is_kept = host == self.keepalive.host
            && self.is_keeping(now)
            && now.since(born_at) < limits::WEB_KEEP_AGE_MAX
            && self.keepalive.idle.len() < self.keepalive.idle_max
            && self.peer(host).in_flight + self.keepalive.idle.len() < self.peer(host).requests_max;
        if is_kept {
            self.keepalive.idle.push_back(Idle { leg, since: now, born_at });
        }
        is_kept
    }

    /// A kept connection ended, or got bytes that nobody asked for.
    pub fn idle_ended(&mut self, leg: u32) {
        self.keepalive.idle.retain(|idle| idle.leg != leg);
    }

    /// Closes what has waited its time.
    pub(super) fn expire_idle(&mut self, now: Instant) {
        while self.keepalive.deadline().is_some_and(|until| until <= now) {
            self.close_oldest();
        }
    }

    /// Closes what the peer's state has no room for any more.
    pub(super) fn close_excess(&mut self) {
        let host = self.keepalive.host;
        let peer = self.peer(host);
        let room = if peer.is_at_ease() {
            peer.requests_max.saturating_sub(peer.in_flight).min(self.keepalive.idle_max)
        } else {
            0
        };
        while self.keepalive.idle.len() > room {
            self.close_oldest();
        }
    }

    fn close_oldest(&mut self) {
        if let Some(idle) = self.keepalive.idle.pop_front() {
            self.orders.push_back(Order::CloseIdle(idle.leg));
        }
    }

    fn is_keeping(&self, now: Instant) -> bool {
        self.keepalive.idle_max > 0
            && self.peer(self.keepalive.host).is_at_ease()
            && !self.keepalive.is_crowded(now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::balance::Want;
    use super::super::upstream::{Evidence, Hosts, Pick, Pool};
    use super::*;
    use HostId::{First, Second};

    const TICKET: Ticket = Ticket { slot: 0, generation: 0 };

    fn at(milliseconds: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(milliseconds)
    }

    fn ticket(slot: u32) -> Ticket {
        Ticket { slot, ..TICKET }
    }

    /// Both peers have room for `requests_max`; `First` is this host.
    fn upstream(requests_max: usize) -> Upstream {
        let config = Config {
            php_requests_max: requests_max,
            keepalive: 8,
            keepalive_idle: Duration::from_millis(100),
            ..Config::default()
        };
        let names = ["one".to_owned(), "two".to_owned()];
        Upstream::new(&config, &Hosts { me: First, names: &names }, Instant::ZERO, 1)
    }

    fn only(host: HostId) -> Want {
        let tried = HostId::ALL.map(|other| other != host);
        Want { tried, ..Want::default() }
    }

    /// Brings a request to `First`, whichever turn it is.
    fn acquire(upstream: &mut Upstream, now: Instant, slot: u32) {
        let pick = upstream.acquire(now, ticket(slot), only(First), false);
        assert_eq!(pick, Pick::Peer(First));
    }

    fn closed(upstream: &mut Upstream) -> Vec<u32> {
        std::iter::from_fn(|| upstream.poll_output())
            .filter_map(|order| if let Order::CloseIdle(leg) = order { Some(leg) } else { None })
            .collect()
    }

    #[test]
    fn the_connection_that_was_busy_last_is_used_first_and_the_others_end() {
        let mut upstream = upstream(9);
        for leg in 0..3 {
            acquire(&mut upstream, at(0), leg);
            assert!(upstream.begin_fresh(at(0), First, ticket(leg)));
        }
        for leg in 0..3 {
            assert!(upstream.keep(at(u64::from(leg)), First, ticket(leg), leg, at(0)));
        }
        acquire(&mut upstream, at(50), 7);
        assert_eq!(upstream.reuse(at(50), First), Some(2));
        assert!(upstream.keep(at(60), First, ticket(7), 2, at(0)));
        assert_eq!(upstream.keepalive.deadline(), Some(at(100)));
        upstream.expire_idle(at(101));
        assert_eq!(closed(&mut upstream), [0, 1]);
        assert_eq!(upstream.peer_status(First).idle, 1);
        upstream.expire_idle(at(160));
        assert_eq!(closed(&mut upstream), [2]);
        assert_eq!(upstream.reuse(at(160), First), None);
    }

    #[test]
    fn nothing_is_kept_to_the_other_host_or_beyond_its_age() {
        let mut upstream = upstream(9);
        let pick = upstream.acquire(at(0), TICKET, only(Second), false);
        assert_eq!(pick, Pick::Peer(Second));
        assert!(!upstream.begin_fresh(at(0), Second, TICKET));
        assert!(!upstream.keep(at(0), Second, TICKET, 0, at(0)));
        assert_eq!(upstream.peer_status(Second).in_flight, 0);
        acquire(&mut upstream, at(0), 0);
        assert!(!upstream.keep(at(250), First, TICKET, 0, at(0)), "too old");
        acquire(&mut upstream, at(0), 0);
        assert!(upstream.keep(at(249), First, TICKET, 0, at(0)));
        assert_eq!(upstream.keepalive.deadline(), Some(at(250)), "its age ends it too");
        assert_eq!(upstream.reuse(at(250), First), None);
        assert_eq!(closed(&mut upstream), [0]);
    }

    #[test]
    fn a_request_that_waits_for_its_first_byte_keeps_others_from_being_kept() {
        let mut upstream = upstream(9);
        acquire(&mut upstream, at(0), 0);
        acquire(&mut upstream, at(0), 1);
        upstream.begin_fresh(at(0), First, ticket(0));
        upstream.begin_fresh(at(0), First, ticket(1));
        upstream.heard(at(1), First, ticket(1));
        assert!(upstream.keep(at(5), First, ticket(1), 1, at(0)), "not for long yet");
        acquire(&mut upstream, at(6), 1);
        assert_eq!(upstream.reuse(at(6), First), Some(1));
        assert!(!upstream.keep(at(6), First, ticket(1), 1, at(0)));
        upstream.release(First, ticket(0));
        acquire(&mut upstream, at(7), 1);
        assert!(upstream.keep(at(7), First, ticket(1), 2, at(6)));
    }

    #[test]
    fn kept_connections_give_way_to_requests() {
        let mut upstream = upstream(2);
        for slot in 0..2 {
            acquire(&mut upstream, at(0), slot);
        }
        assert_eq!(upstream.acquire(at(0), ticket(9), only(First), false), Pick::Queued);
        assert!(upstream.keep(at(1), First, ticket(0), 0, at(0)));
        // It is a POST that waits: it wants a fresh one, and there is no room for both.
        assert_eq!(upstream.next_assigned(at(1)), Some((ticket(9), First)));
        assert!(upstream.begin_fresh(at(1), First, ticket(9)));
        assert_eq!(closed(&mut upstream), [0]);
    }

    #[test]
    fn a_peer_that_is_busy_or_out_keeps_nothing() {
        let crowd = Pool { workers: None, waiting: 1 };
        let changes: [fn(&mut Upstream, Pool); 4] = [
            |upstream, crowd| upstream.pool_answered(at(2), First, crowd),
            |upstream, _| upstream.connect_failed(First, Evidence::ConnectRefused),
            |upstream, _| upstream.set_alive(at(2), [false, true]),
            |upstream, _| upstream.set_draining([true, false]),
        ];
        for change in changes {
            let mut upstream = upstream(9);
            acquire(&mut upstream, at(0), 0);
            acquire(&mut upstream, at(0), 1);
            assert!(upstream.keep(at(1), First, ticket(0), 0, at(0)));
            change(&mut upstream, crowd);
            assert_eq!(closed(&mut upstream), [0]);
            assert!(!upstream.keep(at(3), First, ticket(1), 1, at(0)));
            assert!(!upstream.begin_fresh(at(3), First, ticket(1)));
        }
    }
}
