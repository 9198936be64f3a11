//! VRRP virtual router: the timers and the wire of one VRID on one link.
//!
//! In: datagrams, carrier, the order to serve or to yield. Out: datagrams, what was heard.
//! Must not: decide who serves (that is `pair`'s, for all links at once), open sockets.
//! Read first: RFC 3768 section 6; facts/vrrp.md 1.2 to 1.4, 3.1.
//! RFC 9568 says Active for Master; here Active is the pair's word only.
//! Differs: becoming Master is an order, never this timer's own act, because one state holds for
//! the whole host; while serving it advertises priority 254, so that whoever wakes up as Master
//! with its configured priority steps down again (facts/vrrp.md 3.1, design 2).
//!
//! ```text
//!  Initialize --carrier--> Listening --anything heard--> Backup --serve--> Master
//!       ^                      |                            |  <--yield--    |
//!       +------------------- no carrier ------------------------------------+
//! ```

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Transport;
use super::packet::{
    Addresses, Advertisement, ChecksumForm, Expected, Family, Received, Refusal, Version,
};
use crate::time::Instant;

/// What a host that serves advertises. 255 would claim to own the address.
pub const PRIORITY_SERVING: u8 = 254;

/// A quiet network arms the timer after this even when nothing was heard: longer than the 30 s
/// that a switch port or a Linux bridge with spanning tree takes to forward (facts/vrrp.md 3.1 a).
pub const LISTEN_MAX: Duration = Duration::from_secs(35);

/// One virtual router's configuration, ready to use.
#[derive(Debug, Clone)]
pub struct Config {
    pub family: Family,
    pub version: Version,
    pub vrid: u8,
    /// The priority that decides the skew of this host's master-down timer.
    pub priority: u8,
    pub interval: Duration,
    pub password: Option<[u8; 8]>,
    pub transport: Transport,
    /// This host's own address on the link: link-local in IPv6, `None` until the kernel has one.
    pub source: Option<IpAddr>,
    /// The other host's own address: nobody else's advertisements count. `None`: not known, so
    /// anybody's do.
    pub peer: Option<IpAddr>,
    pub addresses: Addresses,
}

/// A datagram to send, IP header included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub bytes: Vec<u8>,
}

/// One advertisement: to the group, to the peer, or to both.
pub type Datagrams = heapless::Vec<Datagram, 2>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Initialize,
    /// Carrier, but nothing heard: silence proves nothing about the peer.
    Listening {
        until: Instant,
    },
    Backup {
        down_at: Instant,
    },
    Master {
        next_at: Instant,
    },
}

/// What an accepted or refused datagram, or the lack of any, means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Somebody else serves this virtual router.
    Master { source: IpAddr, priority: u8 },
    /// The one that served resigns.
    Resigned,
    /// Somebody who is not the peer advertises our virtual router; no timer changed, so that
    /// nobody else can keep a backup from taking over.
    Stranger { source: IpAddr },
    /// Ignored, with the reason; no timer changed.
    Refused(Refusal),
}

#[derive(Debug)]
pub struct Router {
    config: Config,
    state: State,
    identification: u16,
    /// The master's interval, in version 3 as it advertises it (RFC 9568, 6.1).
    master_interval: Duration,
    /// How the last accepted advertisement was summed, and whether its list is ours.
    heard_form: Option<ChecksumForm>,
    is_list_different: bool,
}

impl Router {
    #[must_use]
    pub const fn new(config: Config) -> Self {
        let master_interval = config.interval;
        Self {
            config,
            state: State::Initialize,
            identification: 0,
            master_interval,
            heard_form: None,
            is_list_different: false,
        }
    }

    /// Carrier came or went. Coming back means listening first.
    pub fn set_carrier(&mut self, now: Instant, has_carrier: bool) {
        if !has_carrier {
            self.state = State::Initialize;
        } else if self.state == State::Initialize {
            self.state = State::Listening { until: now + LISTEN_MAX };
        }
    }

    /// Any frame from the link: it forwards, so that silence counts from here on.
    pub fn note_traffic(&mut self, now: Instant) {
        if let State::Listening { .. } = self.state {
            self.state = State::Backup { down_at: now + self.master_down_interval() };
        }
    }

    /// The master resigned, here or on another link: the skew time is left (RFC 3768, 6.4.2).
    pub fn note_resignation(&mut self, now: Instant) {
        if let State::Backup { down_at } = self.state {
            self.state = State::Backup { down_at: down_at.min(now + self.skew()) };
        }
    }

    /// After a stall nothing that was heard before counts.
    pub fn listen_again(&mut self, now: Instant) {
        if self.state != State::Initialize {
            self.state = State::Listening { until: now + LISTEN_MAX };
        }
    }

    /// Takes a datagram, IP header included.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Heard {
        let Config { version, vrid, password, interval, source: own, .. } = self.config;
        let expected = Expected { version, vrid, password, interval, own };
        let Received { source, form, advertisement } = match Received::parse(datagram, &expected) {
            Ok(received) => received,
            Err(refusal) => return Heard::Refused(refusal),
        };
        if self.config.peer.is_some_and(|peer| peer != source) {
            return Heard::Stranger { source };
        }
        self.heard_form = Some(form);
        // RFC 9568, 7.1: the list may be checked; keepalived before 2.3 drops what differs, so that
        // both become Master. It is accepted and reported.
        self.is_list_different = advertisement.addresses != self.config.addresses;
        self.master_interval = advertisement.interval;
        self.note_traffic(now);
        match advertisement.priority {
            0 => {
                self.note_resignation(now);
                Heard::Resigned
            }
            priority => {
                if let State::Backup { .. } = self.state {
                    self.state = State::Backup { down_at: now + self.master_down_interval() };
                }
                Heard::Master { source, priority }
            }
        }
    }

    /// Starts serving: the first advertisement is due at once.
    pub fn serve(&mut self, now: Instant) {
        if self.state != State::Initialize {
            self.master_interval = self.config.interval;
            self.state = State::Master { next_at: now };
        }
    }

    /// Stops serving without a word; the caller sends `resignation` where one is due.
    pub fn stop(&mut self, now: Instant) {
        if let State::Master { .. } = self.state {
            self.state = State::Backup { down_at: now + self.master_down_interval() };
        }
    }

    /// The advertisement that is due; empty when none is, or while there is nobody to send to.
    #[must_use]
    pub fn poll_advertisement(&mut self, now: Instant) -> Datagrams {
        let State::Master { next_at } = self.state else { return Datagrams::new() };
        if next_at > now {
            return Datagrams::new();
        }
        self.state = State::Master { next_at: now + self.config.interval };
        self.advertise(PRIORITY_SERVING)
    }

    /// Another claimant was heard: repeat ours at once (RFC 9568, 6.4.3).
    pub fn advertise_at_once(&mut self, now: Instant) {
        if let State::Master { .. } = self.state {
            self.state = State::Master { next_at: now };
        }
    }

    /// The advertisement of priority 0, which makes a backup take over within its skew time.
    #[must_use]
    pub fn resignation(&mut self) -> Datagrams {
        self.advertise(0)
    }

    fn advertise(&mut self, priority: u8) -> Datagrams {
        self.identification = self.identification.checked_add(1).unwrap_or(1);
        let Config { family, transport, source, peer, .. } = self.config;
        let Some(source) = source else { return Datagrams::new() };
        let advertisement = Advertisement {
            version: self.config.version,
            vrid: self.config.vrid,
            priority,
            interval: self.config.interval,
            password: self.config.password,
            addresses: self.config.addresses.clone(),
        };
        let (group, peer) = match transport {
            Transport::Multicast => (Some(family.group()), None),
            Transport::Unicast => (None, peer),
            Transport::Both => (Some(family.group()), peer),
        };
        [group, peer]
            .into_iter()
            .flatten()
            .map(|destination| Datagram {
                source,
                destination,
                bytes: advertisement.emit(source, destination, self.identification),
            })
            .collect()
    }

    /// When the master-down timer runs out: `None` while silence proves nothing (no carrier, or
    /// nothing heard yet) and while serving.
    #[must_use]
    pub const fn down_at(&self) -> Option<Instant> {
        // Without an address of its own on the link it could not hear the peer either.
        if self.config.source.is_none() {
            return None;
        }
        match self.state {
            State::Initialize | State::Master { .. } => None,
            State::Listening { until } => Some(until),
            State::Backup { down_at } => Some(down_at),
        }
    }

    /// When the next advertisement is due.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Master { next_at } => Some(next_at),
            State::Initialize | State::Listening { .. } | State::Backup { .. } => None,
        }
    }

    #[must_use]
    pub const fn family(&self) -> Family {
        self.config.family
    }

    /// This host's own address on the link, as the kernel has it.
    pub const fn set_source(&mut self, source: Option<IpAddr>) {
        self.config.source = source;
    }

    /// The other host's own address, once it is known.
    pub const fn set_peer(&mut self, peer: Option<IpAddr>) {
        self.config.peer = peer;
    }

    #[must_use]
    pub fn has_carrier(&self) -> bool {
        self.state != State::Initialize
    }

    /// (256 - priority) / 256, of a second in version 2 (RFC 3768, 6.1), of the master's interval
    /// in version 3 (RFC 9568, 6.1).
    fn skew(&self) -> Duration {
        let whole = match self.config.version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.master_interval,
        };
        whole * (256 - u32::from(self.config.priority)) / 256
    }

    /// Three intervals of the master and the skew.
    #[must_use]
    pub fn master_down_interval(&self) -> Duration {
        3 * self.master_interval + self.skew()
    }

    /// Whether the last accepted advertisement named other addresses.
    #[must_use]
    pub const fn is_list_different(&self) -> bool {
        self.is_list_different
    }

    /// How the peer sums its version 3 advertisements, once one was accepted.
    #[must_use]
    pub const fn heard_form(&self) -> Option<ChecksumForm> {
        self.heard_form
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::password_data;
    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000);

    fn router(priority: u8) -> Router {
        Router::new(Config {
            family: Family::V4,
            version: Version::V2,
            vrid: 51,
            priority,
            interval: Duration::from_secs(1),
            password: Some(password_data("3489")),
            transport: Transport::Multicast,
            source: Some(address("192.168.3.101")),
            peer: Some(address("192.168.3.101")),
            addresses: Addresses::from_slice(&[address("192.168.3.150")]).unwrap(),
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The one datagram of an advertisement.
    fn only(datagrams: Datagrams) -> Vec<u8> {
        assert_eq!(datagrams.len(), 1);
        datagrams[0].bytes.clone()
    }

    fn priority_of(router: &Router, datagram: &[u8]) -> u8 {
        let Config { version, vrid, password, interval, source: own, .. } = router.config;
        let expected = Expected { version, vrid, password, interval, own };
        Received::parse(datagram, &expected).unwrap().advertisement.priority
    }

    fn backup(priority: u8) -> Router {
        let mut router = router(priority);
        router.set_carrier(START, true);
        router.note_traffic(START);
        router
    }

    fn from_peer(priority: u8) -> Vec<u8> {
        only(router(100).advertise(priority))
    }

    #[test]
    fn master_down_interval_is_three_intervals_and_the_skew() {
        assert_eq!(router(100).master_down_interval(), Duration::from_micros(3_609_375));
        assert_eq!(router(101).master_down_interval(), Duration::from_nanos(3_605_468_750));
    }

    #[test]
    fn version_3_learns_the_masters_interval_and_scales_the_skew_with_it() {
        let mut fast = router(100);
        fast.config.version = Version::V3;
        fast.config.password = None;
        fast.config.interval = Duration::from_millis(100);
        let mut router = Router::new(fast.config.clone());
        assert_eq!(router.master_down_interval(), Duration::from_nanos(360_937_500));
        router.set_carrier(START, true);
        fast.config.interval = Duration::from_millis(200);
        let heard = router.handle_datagram(START, &only(fast.advertise(100)));
        assert!(matches!(heard, Heard::Master { .. }), "{heard:?}");
        assert_eq!(router.down_at(), Some(START + Duration::from_micros(721_875)));
        router.serve(START);
        assert_eq!(router.master_down_interval(), Duration::from_nanos(360_937_500), "its own");
    }

    #[test]
    fn no_timer_runs_before_something_was_heard() {
        let mut router = router(101);
        assert_eq!(router.down_at(), None, "no carrier");
        router.set_carrier(START, true);
        assert_eq!(router.down_at(), Some(START + LISTEN_MAX));
        router.note_traffic(START + Duration::from_secs(5));
        let down_at = START + Duration::from_secs(5) + router.master_down_interval();
        assert_eq!(router.down_at(), Some(down_at));
    }

    #[test]
    fn an_accepted_advertisement_restarts_the_timer_and_an_ignored_one_does_not() {
        let mut router = backup(101);
        let later = START + Duration::from_secs(1);
        let refused = [
            {
                let mut other = self::router(100);
                other.config.vrid = 52;
                only(other.advertise(100))
            },
            {
                let mut other = self::router(100);
                other.config.password = None;
                only(other.advertise(100))
            },
            {
                let mut other = self::router(100);
                other.config.password = Some([1; 8]);
                only(other.advertise(100))
            },
            {
                let mut other = self::router(100);
                other.config.interval *= 2;
                only(other.advertise(100))
            },
            vec![0; 40],
        ];
        for datagram in refused {
            let heard = router.handle_datagram(later, &datagram);
            assert!(matches!(heard, Heard::Refused(_)), "{heard:?}");
            assert_eq!(router.down_at(), Some(START + router.master_down_interval()));
        }
        router.handle_datagram(later, &from_peer(1));
        assert_eq!(router.down_at(), Some(later + router.master_down_interval()));
    }

    #[test]
    fn a_stranger_changes_no_timer() {
        let mut router = backup(101);
        router.config.peer = Some(address("192.168.3.102"));
        let heard = router.handle_datagram(START + Duration::from_secs(1), &from_peer(255));
        assert_eq!(heard, Heard::Stranger { source: address("192.168.3.101") });
        assert_eq!(router.down_at(), Some(START + router.master_down_interval()));
    }

    #[test]
    fn priority_zero_leaves_the_skew_time_only() {
        let mut router = backup(100);
        let heard = router.handle_datagram(START, &from_peer(0));
        assert!(heard == Heard::Resigned);
        assert_eq!(router.down_at(), Some(START + Duration::from_micros(609_375)));
    }

    #[test]
    fn a_master_advertises_254_at_once_and_then_every_interval() {
        let mut router = backup(101);
        router.serve(START);
        let first = only(router.poll_advertisement(START));
        assert_eq!(priority_of(&router, &first), PRIORITY_SERVING);
        assert!(router.poll_advertisement(START).is_empty(), "not twice");
        assert_eq!(router.deadline(), Some(START + Duration::from_secs(1)));
        only(router.poll_advertisement(START + Duration::from_secs(1)));
        router.advertise_at_once(START + Duration::from_millis(1100));
        only(router.poll_advertisement(START + Duration::from_millis(1100)));
    }

    #[test]
    fn losing_the_carrier_ends_serving_and_its_return_means_listening() {
        let mut router = backup(101);
        router.serve(START);
        router.set_carrier(START, false);
        assert_eq!(router.deadline(), None);
        assert!(router.poll_advertisement(START).is_empty());
        router.set_carrier(START, true);
        assert_eq!(router.down_at(), Some(START + LISTEN_MAX));
    }

    #[test]
    fn identification_is_never_zero() {
        let mut router = backup(101);
        router.identification = u16::MAX;
        assert_eq!(only(router.resignation())[4..6], [0, 1]);
    }

    #[test]
    fn unicast_goes_to_the_peer_alone_or_beside_the_group() {
        let destinations = |transport| {
            let mut router = backup(101);
            router.config.transport = transport;
            let sent = router.resignation().into_iter().map(|it| it.destination.to_string());
            sent.collect::<Vec<_>>()
        };
        assert_eq!(destinations(Transport::Multicast), ["224.0.0.18"]);
        assert_eq!(destinations(Transport::Unicast), ["192.168.3.101"]);
        assert_eq!(destinations(Transport::Both), ["224.0.0.18", "192.168.3.101"]);
    }

    #[test]
    fn ipv6_says_and_decides_nothing_until_it_has_an_address_of_its_own() {
        let mut router = router(101);
        router.config.family = Family::V6;
        router.config.version = Version::V3;
        router.config.password = None;
        router.config.source = None;
        router.config.peer = None;
        router.config.addresses = Addresses::from_slice(&[address("fe80::51")]).unwrap();
        router.set_carrier(START, true);
        router.serve(START);
        assert!(router.poll_advertisement(START).is_empty());
        router.stop(START);
        assert_eq!(router.down_at(), None);
        router.set_source(Some(address("fe80::1")));
        assert_eq!(router.down_at(), Some(START + router.master_down_interval()));
        let from_anybody = only(router.advertise(100));
        let heard = router.handle_datagram(START, &from_anybody);
        assert_eq!(heard, Heard::Master { source: address("fe80::1"), priority: 100 });
    }
}
