//! Beacons: what each host tells the other about itself, authenticated, on both links.
//!
//! In: datagrams, this host's own report. Out: datagrams, the peer's report, when it was heard.
//! Must not: decide a role, know what a position means, open sockets.
//! Read first: facts/vrrp.md 6.5. A beacon is "TDM1", 16 bytes of HMAC-SHA256, a postcard `Report`.
//!
//! Replay: within one run of the peer's daemon (`boot_id`) the sequence must rise, also when
//! another run was heard in between: a run that ended has nothing newer to say, and a straggler of
//! it must not ban the present one.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::limits::{BEACON_BYTES_MAX, PLACE_BYTES_MAX, POSITION_BYTES_MAX};
use crate::time::Instant;
use crate::units::{self, Secret};
use crate::wire::{self, Hold, HostId, LinkId, Orders, Role};

/// Section `[peer]`: the conversation of the two daemons.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Key of the message authentication code; the same on both hosts, at least 16 characters.
    pub key: Secret,
    /// UDP port on both links.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Time between two beacons on each link, from 20 ms to three quarters of `vrrp.interval`.
    #[serde(default = "default_interval", with = "units::duration")]
    pub interval: Duration,
    /// What runs on the other host. Beside a keepalived roles follow VRRP's rules alone, and its
    /// database is left to its operator, until a tandem is heard from there.
    #[serde(default)]
    pub kind: Kind,
    /// Addresses beside the pair, 16 at most, that tell a host whether it is itself cut off: it
    /// serves alone only while one of them answers, ARP on the two networks, ICMP elsewhere.
    #[serde(default)]
    pub witnesses: Vec<Ipv4Addr>,
}

/// What the other host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Tandem,
    /// VRRP alone: no beacons, so nothing is known of its database, and roles follow VRRP's rules.
    Keepalived,
}

const fn default_port() -> u16 {
    7423
}

const fn default_interval() -> Duration {
    Duration::from_millis(200)
}

/// What a host says of itself. Append-only at its end (`wire::read_appended`), so that two versions
/// understand each other; the magic changes when the meaning does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub host: HostId,
    /// Differs for every run of the daemon.
    pub boot_id: u64,
    pub sequence: u64,
    /// Of the configuration's text.
    pub config_digest: [u8; 8],
    pub role: Role,
    pub epoch: u64,
    /// Whether this host was the last that it knows to have served.
    pub was_source: bool,
    /// By link: whether the receiver is heard here, and whether there is carrier.
    pub hears: [bool; 2],
    pub carrier: [bool; 2],
    pub holds_vips: bool,
    /// No statement for the source is in flight here, and none is let through.
    pub is_quiet: bool,
    pub is_leaving: bool,
    pub handover: Handover,
    /// The operator asked here for the roles to be exchanged; the number tells two wishes apart.
    pub wish: Option<u64>,
    pub database: DatabaseReport,
    /// By link: this host's own IPv6 address, so that a stranger's advertisements are told apart.
    pub link_local: [Option<Ipv6Addr>; 2],
    pub orders: Orders,
    /// It would serve, but not well: php-fpm, disk or loop.
    pub is_ill: bool,
    /// The peer's wish that this host declined; its notes say why.
    pub declined: Option<u64>,
    /// By host: whether its php-fpm is spared.
    pub php_drain: [Hold; 2],
    /// A digest of each section of the configuration (`config::SECTIONS`).
    pub sections: [u32; 8],
    /// Of an appliance.
    pub build: Build,
    /// What the receiver, an appliance, is to take.
    pub update: Option<UpdateOrder>,
    /// The receiver's order that came to nothing here.
    pub update_failed: Option<u64>,
    /// The sender's epoch, while the receiver has all that is acknowledged in it; else 0.
    pub backed: u64,
    /// The receiver's epoch of which the sender's database has all that was acknowledged; 0: none.
    pub keeps: u64,
}

/// The build that an appliance runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Build {
    /// Seconds since 1970; 0: this host is no appliance.
    pub built: u64,
    /// It is not known yet whether it is kept.
    pub is_on_trial: bool,
}

/// One host lets the other one take a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateOrder {
    /// Tells two orders apart.
    pub id: u64,
    /// The receiver's `boot_id`: another run of its daemon is not meant.
    pub run: u64,
    /// As the verb `update` takes it.
    pub place: heapless::String<PLACE_BYTES_MAX>,
}

/// Where a planned handover stands on the host that says so. `id` is the giver's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Handover {
    #[default]
    None,
    /// The giver holds its writes; the taker is to do the same.
    Holding { id: u64 },
    /// The giver's database is closed at the report's position.
    Closed { id: u64 },
    /// The taker does not take.
    Refused { id: u64 },
}

/// What a host says of its database.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DatabaseReport {
    pub is_up: bool,
    pub is_writable: bool,
    /// Both replication threads run, from the receiver's database.
    pub is_replicating: bool,
    pub lag_seconds: Option<u64>,
    /// Executed GTIDs as text; `None` when unknown or too long for a beacon.
    pub position: Option<heapless::String<POSITION_BYTES_MAX>>,
}

/// Why a datagram was dropped; nothing of it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotABeacon,
    /// Another key, or a forgery.
    Authentication,
    Content,
    Replayed,
    /// It says to come from this very host: one host name on both, or a loop.
    Ourselves,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotABeacon => "not a beacon",
            Self::Authentication => "its key differs from peer.key here",
            Self::Content => "its content is not understood: another version of tandem",
            Self::Replayed => "it was sent before",
            Self::Ourselves => "it says to come from this host: both hosts run under one name",
        })
    }
}

const MAGIC: &[u8; 4] = b"TDM1";
const TAG_BYTES: usize = 16;
/// Earlier runs of the peer's daemon that are remembered, each with its last sequence.
const BOOTS_REMEMBERED: usize = 8;

#[derive(Debug)]
pub struct Peer {
    me: HostId,
    key: Hmac<Sha256>,
    interval: Duration,
    sequence: u64,
    send_at: Instant,
    report: Option<Report>,
    heard_at: [Option<Instant>; 2],
    /// By link: the last sequence of the peer's present run.
    sequences: [u64; 2],
    past_boots: heapless::Deque<(u64, u64), BOOTS_REMEMBERED>,
}

impl Peer {
    /// `key` is the secret of `Config`; beacons start at once.
    #[must_use]
    pub fn new(config: &Config, me: HostId) -> Self {
        let key = Hmac::new_from_slice(config.key.reveal().as_bytes())
            .expect("HMAC takes a key of any length");
        Self {
            me,
            key,
            interval: config.interval,
            sequence: 0,
            send_at: Instant::ZERO,
            report: None,
            heard_at: [None; 2],
            sequences: [0; 2],
            past_boots: heapless::Deque::new(),
        }
    }

    /// Takes a datagram that came in on `link`. `Ok(true)` when the peer's daemon is a new run.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        link: LinkId,
        datagram: &[u8],
    ) -> Result<bool, Refusal> {
        let report = self.authenticate(datagram)?;
        if report.host == self.me {
            return Err(Refusal::Ourselves);
        }
        let mut is_new_run = false;
        if let Some(last) = &self.report {
            let past = self.past_boots.iter().find(|(boot, _)| *boot == report.boot_id);
            let said = past.map_or(0, |(_, sequence)| *sequence);
            is_new_run = last.boot_id != report.boot_id;
            if is_new_run {
                if report.sequence <= said {
                    return Err(Refusal::Replayed);
                }
                if self.past_boots.is_full() {
                    self.past_boots.pop_front();
                }
                let ended = (last.boot_id, self.sequences.into_iter().max().unwrap_or(0));
                self.past_boots.retain(|(boot, _)| ![ended.0, report.boot_id].contains(boot));
                self.past_boots.push_back(ended).expect("room was made above");
                self.sequences = [said; 2];
            } else if report.sequence <= self.sequences[link.index()] {
                return Err(Refusal::Replayed);
            }
        }
        self.sequences[link.index()] = report.sequence;
        self.heard_at[link.index()] = Some(now);
        // The slower link brings the same report once more, or an older one.
        if report.sequence >= self.sequences.into_iter().max().unwrap_or(0) {
            self.report = Some(report);
        }
        Ok(is_new_run)
    }

    fn authenticate(&self, datagram: &[u8]) -> Result<Report, Refusal> {
        let rest = datagram.strip_prefix(MAGIC).ok_or(Refusal::NotABeacon)?;
        let (tag, body) = rest.split_at_checked(TAG_BYTES).ok_or(Refusal::NotABeacon)?;
        let mut mac = self.key.clone();
        mac.update(body);
        mac.verify_truncated_left(tag).map_err(|_| Refusal::Authentication)?;
        wire::read_appended(body).map_err(|_| Refusal::Content)
    }

    /// The next beacon is due at once: something in the report changed that the peer waits for.
    pub fn hurry(&mut self, now: Instant) {
        self.send_at = self.send_at.min(now);
    }

    /// The beacon that is due, for both links; `report` is this host's, its sequence is set here.
    pub fn poll_beacon(&mut self, now: Instant, report: Report) -> Option<Vec<u8>> {
        if now < self.send_at {
            return None;
        }
        self.send_at = now + self.interval;
        Some(self.emit(report))
    }

    fn emit(&mut self, mut report: Report) -> Vec<u8> {
        self.sequence += 1;
        report.sequence = self.sequence;
        let encode = |report: &Report| postcard::to_stdvec(report).expect("a Report is plain data");
        let mut body = encode(&report);
        if MAGIC.len() + TAG_BYTES + body.len() > BEACON_BYTES_MAX {
            report.database.position = None;
            body = encode(&report);
        }
        let mut mac = self.key.clone();
        mac.update(&body);
        let tag = mac.finalize().into_bytes();
        let mut datagram = MAGIC.to_vec();
        datagram.extend(&tag[..TAG_BYTES]);
        datagram.extend(body);
        datagram
    }

    /// The peer's latest report, however old it is.
    #[must_use]
    pub const fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    /// The peer's latest report, if one was heard on any link within `age`.
    #[must_use]
    pub fn fresh_report(&self, now: Instant, age: Duration) -> Option<&Report> {
        let heard_at = self.heard_at.into_iter().flatten().max()?;
        self.report.as_ref().filter(|_| now.since(heard_at) <= age)
    }

    /// Whether the peer was heard on `link` within the last four intervals.
    #[must_use]
    pub fn is_heard(&self, now: Instant, link: LinkId) -> bool {
        self.heard_at[link.index()].is_some_and(|at| now.since(at) <= 4 * self.interval)
    }

    /// When the last beacon came in on any link.
    #[must_use]
    pub fn heard_at(&self) -> Option<Instant> {
        self.heard_at.into_iter().flatten().max()
    }

    /// After a stall nothing that was heard before counts as fresh.
    pub const fn listen_again(&mut self) {
        self.heard_at = [None; 2];
    }

    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.send_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    fn config(key: &str) -> Config {
        Config {
            key: Secret::Text(key.into()),
            port: default_port(),
            interval: default_interval(),
            kind: Kind::Tandem,
            witnesses: Vec::new(),
        }
    }

    fn report(host: HostId, boot_id: u64) -> Report {
        Report {
            host,
            boot_id,
            sequence: 0,
            config_digest: [7; 8],
            role: Role::Standby,
            epoch: 3,
            was_source: false,
            hears: [true; 2],
            carrier: [true; 2],
            holds_vips: false,
            is_quiet: false,
            is_leaving: false,
            handover: Handover::Closed { id: 9 },
            wish: None,
            database: DatabaseReport {
                position: heapless::String::try_from("0-1-5").ok(),
                ..DatabaseReport::default()
            },
            link_local: [None, Some(Ipv6Addr::LOCALHOST)],
            orders: Orders::default(),
            is_ill: false,
            declined: None,
            php_drain: [Hold::default(); 2],
            sections: [0; 8],
            build: Build::default(),
            update: None,
            update_failed: None,
            backed: 0,
            keeps: 0,
        }
    }

    fn pair() -> (Peer, Peer) {
        let config = config("a key of sixteen");
        (Peer::new(&config, HostId::First), Peer::new(&config, HostId::Second))
    }

    #[test]
    fn a_beacon_arrives_as_it_was_sent() {
        let (mut first, mut second) = pair();
        let beacon = first.poll_beacon(NOW, report(HostId::First, 1)).expect("due at once");
        assert_eq!(first.poll_beacon(NOW, report(HostId::First, 1)), None, "not twice");
        assert!(beacon.len() < 200, "{} bytes", beacon.len());
        assert_eq!(second.handle_datagram(NOW, LinkId::Inside, &beacon), Ok(false));
        let expected = Report { sequence: 1, ..report(HostId::First, 1) };
        assert_eq!(second.fresh_report(NOW, Duration::ZERO), Some(&expected));
        assert!(second.is_heard(NOW, LinkId::Inside) && !second.is_heard(NOW, LinkId::Outside));
        assert_eq!(second.fresh_report(NOW + Duration::from_secs(9), Duration::from_secs(1)), None);
    }

    #[test]
    fn the_same_beacon_counts_once_a_link() {
        let (mut first, mut second) = pair();
        let beacon = first.emit(report(HostId::First, 1));
        let later = NOW + Duration::from_millis(1);
        assert_eq!(second.handle_datagram(NOW, LinkId::Inside, &beacon), Ok(false));
        assert_eq!(second.handle_datagram(later, LinkId::Outside, &beacon), Ok(false));
        let replayed = second.handle_datagram(later, LinkId::Outside, &beacon);
        assert_eq!(replayed, Err(Refusal::Replayed));
    }

    #[test]
    fn older_beacons_and_past_runs_are_refused() {
        let (mut first, mut second) = pair();
        let old = first.emit(report(HostId::First, 1));
        let newer = first.emit(report(HostId::First, 1));
        let next_run =
            Peer::new(&config("a key of sixteen"), HostId::First).emit(report(HostId::First, 2));
        let mut hear = |beacon: &[u8]| second.handle_datagram(NOW, LinkId::Inside, beacon);
        assert_eq!(hear(&newer), Ok(false));
        assert_eq!(hear(&old), Err(Refusal::Replayed));
        assert_eq!(hear(&next_run), Ok(true), "a new run may start at 1 again");
        assert_eq!(hear(&newer), Err(Refusal::Replayed));
    }

    #[test]
    fn a_straggler_of_an_earlier_run_does_not_ban_the_present_one() {
        let (mut first, mut second) = pair();
        first.sequence = 500;
        let straggler = first.emit(report(HostId::First, 1));
        let mut present = Peer::new(&config("a key of sixteen"), HostId::First);
        let mut hear = |beacon: &[u8]| second.handle_datagram(NOW, LinkId::Inside, beacon);
        assert_eq!(hear(&present.emit(report(HostId::First, 2))), Ok(false));
        assert_eq!(hear(&straggler), Ok(true), "nothing tells which run is the later one");
        assert_eq!(hear(&present.emit(report(HostId::First, 2))), Ok(true));
        assert_eq!(hear(&straggler), Err(Refusal::Replayed));
        assert_eq!(hear(&present.emit(report(HostId::First, 2))), Ok(false));
    }

    #[test]
    fn another_key_is_refused() {
        let (mut first, _) = pair();
        let mut stranger = Peer::new(&config("another key of 16"), HostId::Second);
        let beacon = first.emit(report(HostId::First, 1));
        let refused = stranger.handle_datagram(NOW, LinkId::Inside, &beacon);
        assert_eq!(refused, Err(Refusal::Authentication));
        assert_eq!(stranger.report(), None);
    }

    #[test]
    fn our_own_beacon_is_refused() {
        let (mut first, _) = pair();
        let beacon = first.emit(report(HostId::First, 1));
        let refused = first.handle_datagram(NOW, LinkId::Inside, &beacon);
        assert_eq!(refused, Err(Refusal::Ourselves));
    }

    #[test]
    fn refuses_every_truncation_and_every_single_bit_flip() {
        let (mut first, mut second) = pair();
        let beacon = first.emit(report(HostId::First, 1));
        for length in 0..beacon.len() {
            assert!(second.handle_datagram(NOW, LinkId::Inside, &beacon[..length]).is_err());
        }
        for bit in 0..beacon.len() * 8 {
            let mut flipped = beacon.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(second.handle_datagram(NOW, LinkId::Inside, &flipped).is_err(), "bit {bit}");
        }
        assert_eq!(second.report(), None);
    }

    #[test]
    fn the_longest_position_fits_a_beacon() {
        let (mut first, mut second) = pair();
        let mut long = report(HostId::First, 1);
        let text = "x".repeat(POSITION_BYTES_MAX);
        long.database.position = heapless::String::try_from(text.as_str()).ok();
        let beacon = first.emit(long);
        assert!(beacon.len() <= BEACON_BYTES_MAX);
        assert_eq!(second.handle_datagram(NOW, LinkId::Inside, &beacon), Ok(false));
        assert!(second.report().is_some_and(|report| report.database.position.is_some()));
    }
}
