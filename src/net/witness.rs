//! Witnesses: addresses beside the pair (a router, a name server) that tell a host whether it is
//! itself the one that is cut off.
//!
//! In: time, whether the peer is heard, ARP packets, ICMP datagrams. Out: questions; what is seen.
//! Must not: decide anything on it.
//! Read first: RFC 826, RFC 792 (echo); design section 5. An address on one of the two networks is
//! asked by ARP, which a host answers whatever its firewall says; any other by ICMP, on the way
//! that the routing table has.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::arp::{Arp, FRAME_BYTES, Mac, Operation};
use super::icmp::Echo;
use crate::time::{Instant, earliest};
use crate::wire::LinkId;

/// Between two questions while the peer is heard: to know before it matters.
const CALM_INTERVAL: Duration = Duration::from_secs(5);
/// A witness that did not answer for this long is worth a sentence.
const SILENCE_MIN: Duration = Duration::from_secs(16);
/// Questions that may go without an answer before nobody counts as seen: on a bad link some do.
const QUESTIONS: u32 = 8;
const PATIENCE_MIN: Duration = Duration::from_millis(300);
const PATIENCE_MAX: Duration = Duration::from_millis(1200);

/// How a witness is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// On this link, from this host's own address.
    Arp {
        link: LinkId,
        own: Ipv4Addr,
    },
    Icmp,
}

/// A question to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    Arp { link: LinkId, frame: [u8; FRAME_BYTES] },
    Echo { destination: Ipv4Addr, message: Vec<u8> },
}

/// What the witnesses say of this host while its peer is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// There is no witness: nothing can be said.
    Unknown,
    /// The answers may still come.
    Unsure,
    /// One answered lately.
    Seen,
    /// None answers: this host is the one that is cut off, as far as can be told.
    Blind,
}

#[derive(Debug)]
pub struct Witness {
    pub address: Ipv4Addr,
    pub way: Way,
    pub answered_at: Option<Instant>,
}

#[derive(Debug)]
pub struct Witnesses {
    list: Vec<Witness>,
    patience: Duration,
    /// Tells our echoes from those of others.
    identifier: u16,
    sequence: u16,
    started_at: Option<Instant>,
    alone_since: Option<Instant>,
    ask_at: Instant,
}

impl Witnesses {
    /// `master_down` is the time after which a standby takes over: an isolated host must know
    /// before.
    #[must_use]
    pub fn new(
        witnesses: impl Iterator<Item = (Ipv4Addr, Way)>,
        master_down: Duration,
        identifier: u16,
    ) -> Self {
        let list = witnesses.map(|(address, way)| Witness { address, way, answered_at: None });
        Self {
            list: list.collect(),
            patience: (master_down / 3).clamp(PATIENCE_MIN, PATIENCE_MAX),
            identifier,
            sequence: 0,
            started_at: None,
            alone_since: None,
            ask_at: Instant::ZERO,
        }
    }

    /// The questions that are due; `macs` are this host's, by link.
    pub fn tick(&mut self, now: Instant, is_alone: bool, macs: [Mac; 2]) -> Vec<Question> {
        self.started_at.get_or_insert(now);
        if is_alone != self.alone_since.is_some() {
            self.alone_since = is_alone.then_some(now);
            self.ask_at = now;
        }
        if self.list.is_empty() || now < self.ask_at {
            return Vec::new();
        }
        self.ask_at = now + if is_alone { self.patience / QUESTIONS } else { CALM_INTERVAL };
        self.sequence = self.sequence.wrapping_add(1);
        let (identifier, sequence) = (self.identifier, self.sequence);
        let ask = |witness: &Witness| match witness.way {
            Way::Arp { link, own } => {
                let frame = Arp::request(macs[link.index()], own, witness.address).emit();
                Question::Arp { link, frame }
            }
            Way::Icmp => {
                let message = Echo { identifier, sequence }.request();
                Question::Echo { destination: witness.address, message }
            }
        };
        self.list.iter().map(ask).collect()
    }

    /// Hears an ARP packet of a link. Only an answer to this host shows that both ways are open.
    pub fn hear_arp(&mut self, now: Instant, link: LinkId, arp: &Arp) {
        for witness in &mut self.list {
            let is_meant = matches!(witness.way, Way::Arp { link: at, own }
                if at == link && arp.target == own && arp.sender == witness.address);
            if is_meant && arp.operation == Operation::Reply {
                witness.answered_at = Some(now);
            }
        }
    }

    /// Hears an ICMP datagram, IP header first.
    pub fn hear_icmp(&mut self, now: Instant, datagram: &[u8]) {
        let Some((source, echo)) = Echo::parse_reply(datagram) else { return };
        if echo.identifier != self.identifier {
            return;
        }
        let asked = self.list.iter_mut().filter(|it| it.way == Way::Icmp && it.address == source);
        asked.for_each(|witness| witness.answered_at = Some(now));
    }

    /// Only while the peer is silent, which `tick` was told.
    #[must_use]
    pub fn sight(&self, now: Instant) -> Sight {
        let Some(since) = self.alone_since.filter(|_| !self.list.is_empty()) else {
            return if self.list.is_empty() { Sight::Unknown } else { Sight::Unsure };
        };
        let answers = self.list.iter().filter_map(|witness| witness.answered_at);
        match answers.filter(|at| *at >= since).max() {
            Some(last) if now.since(last) < self.patience => Sight::Seen,
            Some(_) => Sight::Blind,
            None if now.since(since) < self.patience => Sight::Unsure,
            None => Sight::Blind,
        }
    }

    #[must_use]
    pub fn list(&self) -> &[Witness] {
        &self.list
    }

    /// It has not answered for long.
    #[must_use]
    pub fn is_silent(&self, now: Instant, witness: &Witness) -> bool {
        let since = witness.answered_at.or(self.started_at);
        since.is_some_and(|at| now.since(at) >= SILENCE_MIN)
    }

    /// When the next questions are due, and when the last answer is too old.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.list.is_empty() {
            return None;
        }
        let verdict_at = self.alone_since.map(|since| {
            let answered = self.list.iter().filter_map(|witness| witness.answered_at).max();
            answered.map_or(since, |at| at.max(since)) + self.patience
        });
        earliest(Some(self.ask_at), verdict_at.filter(|at| *at > self.ask_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 96, 153, 1);
    const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const OWN: Ipv4Addr = Ipv4Addr::new(10, 96, 153, 110);
    const MACS: [Mac; 2] = [Mac([2; 6]), Mac([3; 6])];

    fn witnesses() -> Witnesses {
        let near = (ROUTER, Way::Arp { link: LinkId::Outside, own: OWN });
        Witnesses::new([near, (FAR, Way::Icmp)].into_iter(), Duration::from_millis(3600), 7)
    }

    fn reply(target: Ipv4Addr) -> Arp {
        let mac = Mac([9; 6]);
        Arp {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: ROUTER,
            target_mac: MACS[0],
            target,
        }
    }

    fn after(milliseconds: u64) -> Instant {
        START + Duration::from_millis(milliseconds)
    }

    #[test]
    fn is_asked_seldom_and_often_once_the_peer_is_silent() {
        let mut witnesses = witnesses();
        assert_eq!(witnesses.tick(START, false, MACS).len(), 2);
        assert_eq!(witnesses.tick(after(1000), false, MACS).len(), 0);
        assert_eq!(witnesses.tick(after(1100), true, MACS).len(), 2, "at once");
        assert_eq!(witnesses.tick(after(1200), true, MACS).len(), 0);
        assert_eq!(witnesses.deadline(), Some(after(1250)));
        let asked = witnesses.tick(after(1250), true, MACS);
        let [Question::Arp { link, frame }, Question::Echo { destination, .. }] = &asked[..] else {
            panic!("{asked:?}")
        };
        assert_eq!((*link, *destination), (LinkId::Outside, FAR));
        let arp = Arp::parse(frame).expect("is ARP");
        assert_eq!((arp.sender, arp.target), (OWN, ROUTER));
    }

    #[test]
    fn one_answer_is_sight_and_none_is_blindness() {
        let mut witnesses = witnesses();
        witnesses.tick(START, true, MACS);
        assert_eq!(witnesses.sight(after(1199)), Sight::Unsure);
        assert_eq!(witnesses.sight(after(1200)), Sight::Blind);
        witnesses.hear_arp(after(1300), LinkId::Inside, &reply(OWN));
        witnesses.hear_arp(after(1300), LinkId::Outside, &reply(FAR));
        assert_eq!(witnesses.sight(after(1300)), Sight::Blind, "not an answer to this host");
        witnesses.hear_arp(after(1300), LinkId::Outside, &reply(OWN));
        assert_eq!(witnesses.sight(after(1301)), Sight::Seen);
        assert_eq!(witnesses.sight(after(2500)), Sight::Blind, "it went silent");
        // The peer comes and goes: what was heard before counts no more.
        witnesses.tick(after(2600), false, MACS);
        witnesses.hear_arp(after(2700), LinkId::Outside, &reply(OWN));
        witnesses.tick(after(2800), true, MACS);
        assert_eq!(witnesses.sight(after(2801)), Sight::Unsure);
    }

    #[test]
    fn an_echo_of_another_program_is_no_answer() {
        let mut witnesses = witnesses();
        witnesses.tick(START, true, MACS);
        for (identifier, seen) in [(8, Sight::Unsure), (7, Sight::Seen)] {
            let reply = Echo { identifier, sequence: 1 }.reply(FAR, OWN);
            witnesses.hear_icmp(after(10), &reply);
            assert_eq!(witnesses.sight(after(11)), seen);
        }
    }

    #[test]
    fn without_witnesses_nothing_is_known_and_nothing_asked() {
        let mut nobody = Witnesses::new(std::iter::empty(), Duration::from_secs(3), 7);
        assert_eq!(nobody.tick(START, true, MACS), []);
        assert_eq!((nobody.sight(after(9000)), nobody.deadline()), (Sight::Unknown, None));
    }

    #[test]
    fn silence_is_told_after_three_questions() {
        let mut witnesses = witnesses();
        witnesses.tick(START, false, MACS);
        witnesses.hear_arp(after(5), LinkId::Outside, &reply(OWN));
        let is_silent = |it: &&Witness| witnesses.is_silent(after(16_000), it);
        let silent: Vec<_> =
            witnesses.list().iter().filter(is_silent).map(|it| it.address).collect();
        assert_eq!(silent, [FAR]);
    }
}
