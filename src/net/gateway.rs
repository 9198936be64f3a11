//! The gateway: whether the router on a link sees the virtual addresses that this host announces.
//!
//! In: an order to ask, ARP packets from the link, time. Out: ARP packets; a verdict.
//! Must not: decide anything on it. Read first: facts/vrrp.md 3.1 d and 3.3.
//!
//! A request from a virtual address is more than a question: whoever answers it has to look the
//! address up, so that it also refreshes routers that ignore gratuitous ARP. Only the host that
//! holds the address may ask so.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::arp::{Arp, FRAME_BYTES, Mac, Operation};
use crate::time::Instant;

/// How long an answer may take, and how often it is asked for one.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const ROUNDS: u32 = 3;

/// What the answers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was asked, or the answers may still come.
    Unknown,
    /// It answers the virtual addresses.
    Sees,
    /// It answers this host's own address and not a virtual one.
    BlocksVips,
    /// It answers nothing.
    Silent,
}

#[derive(Debug)]
pub struct Gateway {
    address: Ipv4Addr,
    /// This host's own address first, then the virtual ones; whether each was answered.
    senders: Vec<(Ipv4Addr, bool)>,
    mac: Option<Mac>,
    round: Option<(u32, Instant)>,
    verdict: Verdict,
}

impl Gateway {
    #[must_use]
    pub fn new(address: Ipv4Addr, own: Ipv4Addr, vips: impl Iterator<Item = Ipv4Addr>) -> Self {
        let senders = std::iter::once(own).chain(vips).map(|sender| (sender, false)).collect();
        Self { address, senders, mac: None, round: None, verdict: Verdict::Unknown }
    }

    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Begins a round of questions; only while this host holds the virtual addresses.
    pub fn ask(&mut self, now: Instant, mac: Mac) -> Vec<[u8; FRAME_BYTES]> {
        self.senders.iter_mut().for_each(|(_, is_answered)| *is_answered = false);
        self.send(now, mac, 1)
    }

    /// The addresses are let go of: nothing is known or asked any more.
    pub const fn stop(&mut self) {
        self.round = None;
        self.verdict = Verdict::Unknown;
    }

    /// Hears an ARP packet of the link.
    pub fn hear(&mut self, arp: &Arp) {
        if arp.sender != self.address {
            return;
        }
        self.mac = Some(arp.sender_mac);
        if arp.operation == Operation::Reply {
            let asked = self.senders.iter_mut().filter(|(sender, _)| *sender == arp.target);
            asked.for_each(|(_, is_answered)| *is_answered = true);
        }
        if self.round.is_some() && self.senders.iter().all(|(_, is_answered)| *is_answered) {
            self.round = None;
            self.verdict = Verdict::Sees;
        }
    }

    /// Asks again what was not answered in time, or comes to its verdict.
    pub fn tick(&mut self, now: Instant, mac: Mac) -> Vec<[u8; FRAME_BYTES]> {
        match self.round {
            Some((_, until)) if now < until => Vec::new(),
            Some((round, _)) if round < ROUNDS => self.send(now, mac, round + 1),
            Some(_) => {
                self.round = None;
                let is_own_answered = self.senders.first().is_some_and(|(_, it)| *it);
                self.verdict = if is_own_answered { Verdict::BlocksVips } else { Verdict::Silent };
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn send(&mut self, now: Instant, mac: Mac, round: u32) -> Vec<[u8; FRAME_BYTES]> {
        self.round = Some((round, now + ANSWER_LIMIT));
        // The last round is for all: the router may have another hardware address by now.
        let destination = self.mac.filter(|_| round < ROUNDS).unwrap_or(Mac::BROADCAST);
        let unanswered = self.senders.iter().filter(|(_, is_answered)| !is_answered);
        unanswered
            .map(|(sender, _)| Arp::request(mac, *sender, self.address).emit_to(destination))
            .collect()
    }

    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.round.map(|(_, until)| until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000);
    const MAC: Mac = Mac([2, 0, 0, 0, 1, 1]);
    const ROUTER: Mac = Mac([2, 0, 0, 0, 9, 9]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 1);
    const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 100);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 150);

    fn gateway() -> Gateway {
        Gateway::new(ADDRESS, OWN, [VIP].into_iter())
    }

    fn answer(target: Ipv4Addr) -> Arp {
        Arp {
            operation: Operation::Reply,
            sender_mac: ROUTER,
            sender: ADDRESS,
            target_mac: MAC,
            target,
        }
    }

    /// Lets every round end without a further answer.
    fn wait(gateway: &mut Gateway) -> Vec<usize> {
        let mut asked = Vec::new();
        while let Some(at) = gateway.deadline() {
            asked.push(gateway.tick(at, MAC).len());
        }
        asked
    }

    #[test]
    fn asks_from_its_own_address_and_from_every_virtual_one() {
        let mut gateway = gateway();
        let asked = gateway.ask(START, MAC);
        let senders: Vec<_> = asked.iter().map(|frame| Arp::parse(frame).unwrap().sender).collect();
        assert_eq!(senders, [OWN, VIP]);
        gateway.hear(&answer(OWN));
        assert_eq!(gateway.verdict(), Verdict::Unknown);
        gateway.hear(&answer(VIP));
        assert_eq!((gateway.verdict(), gateway.deadline()), (Verdict::Sees, None));
        let again = gateway.ask(START, MAC);
        assert!(again.iter().all(|frame| frame[..6] == ROUTER.0), "to the router alone");
    }

    #[test]
    fn a_router_that_answers_nothing_is_silent_after_three_rounds() {
        let mut gateway = gateway();
        gateway.ask(START, MAC);
        assert_eq!(wait(&mut gateway), [2, 2, 0]);
        assert_eq!(gateway.verdict(), Verdict::Silent);
    }

    #[test]
    fn a_virtual_address_that_is_not_answered_is_blocked() {
        let mut gateway = gateway();
        gateway.ask(START, MAC);
        gateway.hear(&answer(OWN));
        assert_eq!(wait(&mut gateway), [1, 1, 0]);
        assert_eq!(gateway.verdict(), Verdict::BlocksVips);
        gateway.stop();
        assert_eq!(gateway.verdict(), Verdict::Unknown);
    }
}
