//! Balance: which of the peers that can be asked gets a request.
//!
//! In: weights, what is known of both peers, whom the request is bound to. Out: a peer, with its
//! place taken; or none while those that can be asked have no room.
//! Must not: keep a request waiting while a backup has room; ask a draining peer for a request that
//! is not of a session there, unless nobody else is left.
//! Read first: facts/web.md 2.1; nginx: ngx_http_upstream_get_peer, ngx_http_upstream_least_conn.

use serde::{Deserialize, Serialize};

use crate::time::Instant;
use crate::wire::HostId;

use super::sticky::Affinity;
use super::upstream::Upstream;

/// How peers take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// By weight (nginx: the default).
    #[default]
    RoundRobin,
    /// The one with the fewest requests for its weight; by turns where both have as many.
    LeastConn,
}

/// Of a weight of 1, when the peer has its whole share; what it rises through after its return.
const FULL: i32 = 16;

/// Of one host, so that a sum of both, sixteen times, is far from any limit.
pub const WEIGHT_MAX: u16 = 1000;

/// Whom a request may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    pub tried: [bool; 2],
    pub affinity: Affinity,
    /// When the request came.
    pub since: Instant,
}

impl Want {
    /// A peer was asked before.
    pub(super) const fn is_retry(&self) -> bool {
        let [first, second] = self.tried;
        first || second
    }

    /// Retries go before what nobody was asked for yet, the oldest first: a host that hangs gives
    /// up all its requests at once, and those sent just before it hung have waited longest.
    pub(super) fn goes_before(&self, other: Self) -> bool {
        self.is_retry() && !(other.is_retry() && other.since <= self.since)
    }

    pub(super) const fn kind(&self) -> Kind {
        let session = match self.affinity {
            Affinity::Session(host) => Some(host),
            Affinity::Nobody | Affinity::Address(_) => None,
        };
        Kind { tried: self.tried, session }
    }
}

/// What decides which peers a request may go to, beside what is known of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) tried: [bool; 2],
    pub(super) session: Option<HostId>,
}

impl Kind {
    pub(super) const COUNT: usize = 12;

    pub(super) const ALL: [Self; Self::COUNT] = {
        let mut all = [Self { tried: [false; 2], session: None }; Self::COUNT];
        let mut index = 0;
        while index < Self::COUNT {
            let session = match index / 4 {
                0 => None,
                1 => Some(HostId::First),
                _ => Some(HostId::Second),
            };
            all[index] = Self { tried: [index & 1 != 0, index & 2 != 0], session };
            index += 1;
        }
        all
    };

    /// Its place in `ALL`.
    pub(super) const fn index(self) -> usize {
        let session = match self.session {
            None => 0,
            Some(HostId::First) => 4,
            Some(HostId::Second) => 8,
        };
        let [first, second] = self.tried;
        session + first as usize + 2 * second as usize
    }
}

type Hosts = heapless::Vec<HostId, 2>;

impl Upstream {
    /// Chooses among the usable peers that have room. When none is usable, the likeliest of those
    /// that were not tried is tried all the same.
    pub(super) fn pick(&mut self, now: Instant, want: Want) -> Option<HostId> {
        let mut eligible = self.eligible(want.kind());
        let bound = self.bound(want.affinity).filter(|host| eligible.contains(host));
        let chosen = match bound {
            Some(host) => host,
            None => {
                if self.balance == Balance::LeastConn {
                    self.retain_least_conn(now, &mut eligible);
                }
                self.turn(now, &eligible)?
            }
        };
        let peer = self.peer_mut(chosen);
        peer.in_flight += 1;
        peer.requests += 1;
        Some(chosen)
    }

    /// Whether a peer has room for such a request.
    pub(super) fn has_room(&self, kind: Kind) -> bool {
        !self.eligible(kind).is_empty()
    }

    fn eligible(&self, kind: Kind) -> Hosts {
        let untried = |host: &HostId| !kind.tried[host.index()];
        let rank = |host: &HostId| self.rank(*host, kind.session);
        let best = HostId::ALL.iter().filter(|host| untried(host)).map(rank).max();
        let has_room = |host: &HostId| self.peer(*host).in_flight < self.peer(*host).requests_max;
        let mut eligible = Hosts::new();
        for host in HostId::ALL {
            if untried(&host) && has_room(&host) && Some(rank(&host)) == best {
                let _is_full = eligible.push(host);
            }
        }
        // nginx: a backup gets what the others have no room for.
        for is_worse in [
            |upstream: &Self, host: HostId| upstream.peer(host).is_busy,
            |upstream: &Self, host: HostId| upstream.peer(host).is_backup,
        ] {
            if eligible.iter().any(|&host| !is_worse(self, host)) {
                eligible.retain(|&host| !is_worse(self, host));
            }
        }
        eligible
    }

    /// What the pair knows of a host weighs more than what pings said of its php-fpm, and that more
    /// than an operator's wish to spare it.
    fn rank(&self, host: HostId, session: Option<HostId>) -> u8 {
        let peer = self.peer(host);
        // nginx: drain; sessions end where they are.
        let is_spared = peer.is_draining && session != Some(host);
        let is_first_choice = peer.is_usable() && !is_spared;
        u8::from(peer.is_host_alive) + u8::from(peer.is_usable()) + u8::from(is_first_choice)
    }

    fn bound(&self, affinity: Affinity) -> Option<HostId> {
        match affinity {
            Affinity::Nobody => None,
            Affinity::Session(host) => Some(host),
            // nginx: ip_hash goes over the weights.
            Affinity::Address(hash) => {
                let [first, second] = self.peers.each_ref().map(|peer| u32::from(peer.weight));
                let is_first = hash.checked_rem(first + second)? < first;
                Some(if is_first { HostId::First } else { HostId::Second })
            }
        }
    }

    fn retain_least_conn(&mut self, now: Instant, eligible: &mut Hosts) {
        let [first, second] = HostId::ALL.map(|host| {
            let in_flight = i64::try_from(self.peer(host).in_flight).unwrap_or(i64::MAX);
            (in_flight, i64::from(self.weigh(now, host)))
        });
        if eligible.len() < 2 {
            return;
        }
        // in_flight / weight, without a division.
        let (one, other) = (first.0.saturating_mul(second.1), second.0.saturating_mul(first.1));
        match one.cmp(&other) {
            std::cmp::Ordering::Less => eligible.retain(|&host| host == HostId::First),
            std::cmp::Ordering::Greater => eligible.retain(|&host| host == HostId::Second),
            std::cmp::Ordering::Equal => {}
        }
    }

    /// nginx: smooth weighted round robin.
    fn turn(&mut self, now: Instant, eligible: &[HostId]) -> Option<HostId> {
        let mut total = 0;
        for &host in eligible {
            let weight = self.weigh(now, host);
            self.peer_mut(host).current += weight;
            total += weight;
        }
        let chosen = *eligible.iter().rev().max_by_key(|&&host| self.peer(host).current)?;
        self.peer_mut(chosen).current -= total;
        Some(chosen)
    }

    /// nginx: slow_start.
    fn weigh(&mut self, now: Instant, host: HostId) -> i32 {
        let slow_start = self.slow_start;
        let peer = self.peer_mut(host);
        let full = i32::from(peer.weight) * FULL;
        let Some(returned_at) = peer.returned_at else { return full };
        let elapsed = now.since(returned_at);
        if elapsed >= slow_start {
            peer.returned_at = None;
            return full;
        }
        let share = elapsed.as_millis() * u128::try_from(full).unwrap_or(0);
        let share = share / slow_start.as_millis().max(1);
        i32::try_from(share).map_or(full, |weight| weight.clamp(i32::from(peer.weight), full))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::upstream::{Evidence, Hosts, Pick, Ticket};
    use super::*;
    use HostId::{First, Second};

    fn upstream(adjust: impl FnOnce(&mut Config)) -> Upstream {
        let mut config = Config { php_requests_max: 100, ..Config::default() };
        adjust(&mut config);
        let names = ["one".to_owned(), "two".to_owned()];
        Upstream::new(&config, &Hosts { me: First, names: &names }, Instant::ZERO, 1)
    }

    fn weigh(config: &mut Config, first: u16, second: u16) {
        config.php_weight = [("one".into(), first), ("two".into(), second)].into();
    }

    fn pick(upstream: &mut Upstream, affinity: Affinity) -> Pick {
        let ticket = Ticket { slot: 0, generation: 0 };
        upstream.acquire(Instant::ZERO, ticket, Want { affinity, ..Want::default() }, false)
    }

    fn share(upstream: &mut Upstream, count: usize, affinity: Affinity) -> usize {
        let picks = (0..count).map(|_| pick(upstream, affinity));
        picks.filter(|&pick| pick == Pick::Peer(First)).count()
    }

    #[test]
    fn turns_go_by_weight_and_smoothly() {
        let mut upstream = upstream(|config| weigh(config, 3, 1));
        let picks: Vec<Pick> = (0..8).map(|_| pick(&mut upstream, Affinity::Nobody)).collect();
        let first = picks.iter().filter(|&&pick| pick == Pick::Peer(First)).count();
        assert_eq!(first, 6, "{picks:?}");
        assert!(picks.windows(4).all(|four| four.contains(&Pick::Peer(Second))), "{picks:?}");
    }

    #[test]
    fn every_kind_has_its_place() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index);
        }
    }

    #[test]
    fn the_fewest_requests_for_the_weight_come_first() {
        let ticket = Ticket { slot: 0, generation: 0 };
        let mut upstream = upstream(|config| {
            config.balance = Balance::LeastConn;
            weigh(config, 2, 1);
        });
        assert_eq!(share(&mut upstream, 9, Affinity::Nobody), 6);
        // All at the second are done, none at the first: the second gets what evens it out.
        for _ in 0..3 {
            upstream.release(Second, ticket);
        }
        assert_eq!(share(&mut upstream, 3, Affinity::Nobody), 0);
        assert_eq!(share(&mut upstream, 3, Affinity::Nobody), 2);
    }

    #[test]
    fn a_backup_gets_what_the_other_cannot_take() {
        let mut upstream = upstream(|config| {
            config.php_requests_max = 3;
            config.php_backup = "peer".into();
        });
        assert_eq!(share(&mut upstream, 6, Affinity::Nobody), 3, "the first is full then");
        assert_eq!(pick(&mut upstream, Affinity::Nobody), Pick::Queued);
        let mut upstream = self::upstream(|config| config.php_backup = "two".into());
        assert_eq!(share(&mut upstream, 9, Affinity::Session(Second)), 9);
        upstream.connect_failed(First, Evidence::ConnectRefused);
        assert_eq!(share(&mut upstream, 9, Affinity::Nobody), 0);
    }

    #[test]
    fn sessions_stay_while_their_peer_can_be_asked() {
        let mut upstream = upstream(|_| {});
        assert_eq!(share(&mut upstream, 9, Affinity::Session(First)), 9);
        upstream.set_draining([true, false]);
        assert_eq!(share(&mut upstream, 9, Affinity::Session(First)), 9, "nginx: drain");
        assert_eq!(share(&mut upstream, 9, Affinity::Nobody), 0);
        upstream.connect_failed(First, Evidence::ConnectRefused);
        assert_eq!(share(&mut upstream, 9, Affinity::Session(First)), 0);
    }

    #[test]
    fn a_draining_peer_is_asked_when_nobody_else_is_left() {
        let mut upstream = upstream(|_| {});
        upstream.set_draining([true, false]);
        assert!(upstream.peer_status(First).is_draining);
        upstream.connect_failed(Second, Evidence::ConnectRefused);
        assert_eq!(share(&mut upstream, 4, Affinity::Nobody), 4);
        upstream.set_draining([false, false]);
        assert_eq!(share(&mut upstream, 4, Affinity::Nobody), 4);
        assert!(!upstream.peer_status(First).is_draining);
    }

    #[test]
    fn addresses_are_spread_by_weight_and_stay() {
        let mut upstream = upstream(|config| {
            config.php_requests_max = 9999;
            weigh(config, 1, 3);
        });
        let mut first = 0;
        for hash in 0..100 {
            let count = share(&mut upstream, 3, Affinity::Address(hash));
            assert!(count == 0 || count == 3, "{hash}");
            first += count / 3;
        }
        assert_eq!(first, 25);
        upstream.connect_failed(Second, Evidence::ConnectRefused);
        assert_eq!(share(&mut upstream, 3, Affinity::Address(3)), 3);
    }
}
