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

use std::net::Ipv4Addr;
use std::time::Duration;

use super::packet::{self, ADDRESSES_MAX, Advertisement, ChecksumForm, Received, Version};
use crate::time::Instant;

/// What a host that serves advertises. 255 would claim to own the address.
pub const PRIORITY_SERVING: u8 = 254;

/// A quiet network arms the timer after this even when nothing was heard: longer than the 30 s
/// that a switch port or a Linux bridge with spanning tree takes to forward (facts/vrrp.md 3.1 a).
pub const LISTEN_MAX: Duration = Duration::from_secs(35);

/// One virtual router's configuration, ready to use.
#[derive(Debug, Clone)]
pub struct Config {
    pub version: Version,
    pub vrid: u8,
    /// The priority that decides the skew of this host's master-down timer.
    pub priority: u8,
    pub interval: Duration,
    pub password: Option<[u8; 8]>,
    pub source: Ipv4Addr,
    /// The other host's own address: nobody else's advertisements count.
    pub peer: Ipv4Addr,
    pub addresses: heapless::Vec<Ipv4Addr, ADDRESSES_MAX>,
}

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
    Master { source: Ipv4Addr, priority: u8 },
    /// The one that served resigns.
    Resigned,
    /// Somebody who is not the peer advertises our virtual router; no timer changed, so that
    /// nobody else can keep a backup from taking over.
    Stranger { source: Ipv4Addr },
    /// Ignored, with the reason; no timer changed.
    Refused(Refusal),
}

/// Why an advertisement was ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Packet(packet::Error),
    OtherVrid(u8),
    VersionDiffers,
    AuthTypeDiffers,
    PasswordDiffers,
    /// Version 2 only; version 3 learns the master's interval.
    IntervalDiffers {
        theirs: Duration,
    },
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

    /// After a stall nothing that was heard before counts.
    pub fn listen_again(&mut self, now: Instant) {
        if self.state != State::Initialize {
            self.state = State::Listening { until: now + LISTEN_MAX };
        }
    }

    /// Takes a datagram, IPv4 header included.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Heard {
        let Received { source, form, advertisement } = match Received::parse(datagram) {
            Ok(received) => received,
            Err(error) => return Heard::Refused(Refusal::Packet(error)),
        };
        if let Err(refusal) = self.check(&advertisement) {
            return Heard::Refused(refusal);
        }
        if source != self.config.peer {
            return Heard::Stranger { source };
        }
        self.heard_form = Some(form);
        // RFC 9568, 7.1: the list may be checked; keepalived before 2.3 drops what differs, so that
        // both become Master. It is accepted and reported.
        self.is_list_different = advertisement.addresses != self.config.addresses;
        self.master_interval = advertisement.interval;
        self.note_traffic(now);
        let priority = advertisement.priority;
        if let State::Backup { .. } = self.state {
            // RFC 3768, 6.4.2: priority 0 sets the timer to the skew time.
            let wait = if priority == 0 { self.skew() } else { self.master_down_interval() };
            self.state = State::Backup { down_at: now + wait };
        }
        match priority {
            0 => Heard::Resigned,
            priority => Heard::Master { source, priority },
        }
    }

    fn check(&self, advertisement: &Advertisement) -> Result<(), Refusal> {
        if advertisement.vrid != self.config.vrid {
            return Err(Refusal::OtherVrid(advertisement.vrid));
        }
        if advertisement.version != self.config.version {
            return Err(Refusal::VersionDiffers);
        }
        if advertisement.password.is_some() != self.config.password.is_some() {
            return Err(Refusal::AuthTypeDiffers);
        }
        if advertisement.password != self.config.password {
            return Err(Refusal::PasswordDiffers);
        }
        let theirs = advertisement.interval;
        if advertisement.version == Version::V2 && theirs != self.config.interval {
            return Err(Refusal::IntervalDiffers { theirs });
        }
        Ok(())
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

    /// The next advertisement, when one is due: call until `None`.
    pub fn poll_advertisement(&mut self, now: Instant) -> Option<Vec<u8>> {
        let State::Master { next_at } = self.state else { return None };
        if next_at > now {
            return None;
        }
        self.state = State::Master { next_at: now + self.config.interval };
        Some(self.advertise(PRIORITY_SERVING))
    }

    /// Another claimant was heard: repeat ours at once (RFC 9568, 6.4.3).
    pub fn advertise_at_once(&mut self, now: Instant) {
        if let State::Master { .. } = self.state {
            self.state = State::Master { next_at: now };
        }
    }

    /// The advertisement of priority 0, which makes a backup take over within its skew time.
    #[must_use]
    pub fn resignation(&mut self) -> Vec<u8> {
        self.advertise(0)
    }

    fn advertise(&mut self, priority: u8) -> Vec<u8> {
        self.identification = self.identification.checked_add(1).unwrap_or(1);
        Advertisement {
            version: self.config.version,
            vrid: self.config.vrid,
            priority,
            interval: self.config.interval,
            password: self.config.password,
            addresses: self.config.addresses.clone(),
        }
        .emit(self.config.source, self.identification)
    }

    /// When the master-down timer runs out: `None` while silence proves nothing (no carrier, or
    /// nothing heard yet) and while serving.
    #[must_use]
    pub const fn down_at(&self) -> Option<Instant> {
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
    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000);

    fn router(priority: u8) -> Router {
        Router::new(Config {
            version: Version::V2,
            vrid: 51,
            priority,
            interval: Duration::from_secs(1),
            password: Some(packet::password_data("3489")),
            source: Ipv4Addr::new(192, 168, 3, 101),
            peer: Ipv4Addr::new(192, 168, 3, 101),
            addresses: heapless::Vec::from_slice(&[Ipv4Addr::new(192, 168, 3, 150)]).unwrap(),
        })
    }

    fn backup(priority: u8) -> Router {
        let mut router = router(priority);
        router.set_carrier(START, true);
        router.note_traffic(START);
        router
    }

    fn from_peer(priority: u8) -> Vec<u8> {
        router(100).advertise(priority)
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
        let heard = router.handle_datagram(START, &fast.advertise(100));
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
                other.advertise(100)
            },
            {
                let mut other = self::router(100);
                other.config.password = None;
                other.advertise(100)
            },
            {
                let mut other = self::router(100);
                other.config.password = Some([1; 8]);
                other.advertise(100)
            },
            {
                let mut other = self::router(100);
                other.config.interval *= 2;
                other.advertise(100)
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
        router.config.peer = Ipv4Addr::new(192, 168, 3, 102);
        let heard = router.handle_datagram(START + Duration::from_secs(1), &from_peer(255));
        assert_eq!(heard, Heard::Stranger { source: Ipv4Addr::new(192, 168, 3, 101) });
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
        let first = router.poll_advertisement(START).expect("due at once");
        assert_eq!(Received::parse(&first).unwrap().advertisement.priority, PRIORITY_SERVING);
        assert_eq!(router.poll_advertisement(START), None);
        assert_eq!(router.deadline(), Some(START + Duration::from_secs(1)));
        assert!(router.poll_advertisement(START + Duration::from_secs(1)).is_some());
        router.advertise_at_once(START + Duration::from_millis(1100));
        assert!(router.poll_advertisement(START + Duration::from_millis(1100)).is_some());
    }

    #[test]
    fn losing_the_carrier_ends_serving_and_its_return_means_listening() {
        let mut router = backup(101);
        router.serve(START);
        router.set_carrier(START, false);
        assert_eq!((router.deadline(), router.poll_advertisement(START)), (None, None));
        router.set_carrier(START, true);
        assert_eq!(router.down_at(), Some(START + LISTEN_MAX));
    }

    #[test]
    fn identification_is_never_zero() {
        let mut router = backup(101);
        router.identification = u16::MAX;
        assert_eq!(router.resignation()[4..6], [0, 1]);
    }
}
