//! Witnesses in the pair's judgement: a host that is cut off must not take over, nor go on.
//!
//! In: whether the peer is heard, what the witnesses answered. Out: questions; guards for `judge`.
//! Must not: keep a host from what the operator forces.
//! Read first: `net::witness`; design section 5.

use super::{Node, Output, Probes};
use crate::config::Config;
use crate::console::finding::{Finding, Trouble};
use crate::console::status::WitnessStatus;
use crate::net::witness::{Question, Sight, Way, Witness, Witnesses};
use crate::time::Instant;
use crate::wire::{HostId, LinkId};

#[derive(Debug)]
pub(super) struct Lookout {
    pub(super) witnesses: Witnesses,
    /// No witness answered while the peer was silent, and when one did again.
    was_blind: bool,
    sighted_at: Option<Instant>,
}

impl Lookout {
    /// Each witness of the configuration with the way to it.
    pub(super) fn new(config: &Config, me: HostId, boot_id: u64) -> Self {
        let way = |address| {
            let is_on = |link: &LinkId| config.host(me).address(*link).contains(address);
            match LinkId::ALL.into_iter().find(is_on) {
                Some(link) => Way::Arp { link, own: config.host(me).address(link).address },
                None => Way::Icmp,
            }
        };
        let list = config.peer.witnesses.iter().map(|address| (*address, way(*address)));
        // As routers of VRRP: three intervals and a skew of less than one.
        let master_down = 4 * config.vrrp.interval;
        let [.., high, low] = boot_id.to_be_bytes();
        let witnesses = Witnesses::new(list, master_down, u16::from_be_bytes([high, low]));
        Self { witnesses, was_blind: false, sighted_at: None }
    }
}

impl Node {
    pub(super) fn run_witnesses(&mut self, now: Instant) {
        let is_alone = self.fresh(now).is_none();
        let sight = self.lookout.witnesses.sight(now);
        if !is_alone || sight == Sight::Seen {
            self.operator.is_pardoned = false;
        }
        match sight {
            Sight::Blind => self.lookout.was_blind = true,
            Sight::Seen if self.lookout.was_blind => {
                self.lookout.was_blind = false;
                self.lookout.sighted_at = Some(now);
                self.probes = Probes::default();
            }
            Sight::Seen | Sight::Unknown | Sight::Unsure => {}
        }
        let macs = LinkId::ALL.map(|link| self.devices[link.index()].mac);
        for question in self.lookout.witnesses.tick(now, is_alone, macs) {
            self.outputs.push_back(match question {
                Question::Arp { link, frame } => {
                    Output::SendFrame { device: link.into(), frame: frame.to_vec() }
                }
                Question::Echo { destination, message } => {
                    Output::SendEcho { destination, message }
                }
            });
        }
    }

    /// The peer and every witness are silent: this host is the one that is cut off. Not if the
    /// operator made it serve all the same.
    pub(super) fn is_cut_off(&self, now: Instant) -> bool {
        self.lookout.witnesses.sight(now) == Sight::Blind && !self.operator.is_pardoned
    }

    /// Whether a silent peer may be taken for dead. What was not heard while this host was cut off
    /// says nothing: the first sign that it is not may be the witness's, and the peer's next.
    pub(super) fn may_serve_alone(&mut self, now: Instant) -> bool {
        let patience = self.group.master_down_interval();
        match self.lookout.witnesses.sight(now) {
            Sight::Unknown => true,
            Sight::Seen => self.lookout.sighted_at.is_none_or(|at| now.since(at) >= patience),
            Sight::Unsure => false,
            Sight::Blind => {
                let why = format!(
                    "{} is silent and so is every witness: this host may be the one that is cut \
                     off; `tandem failover --force` serves all the same",
                    self.peer_name()
                );
                self.wait_for(why);
                false
            }
        }
    }

    pub(super) fn find_witnesses(&self, now: Instant) -> Vec<Finding> {
        let finding = |witness: &Witness| {
            let (link, how) = match witness.way {
                Way::Arp { link, .. } => (Some(link), "ARP"),
                Way::Icmp => (None, "ICMP"),
            };
            Finding { link, trouble: Trouble::WitnessSilent { address: witness.address, how } }
        };
        let witnesses = &self.lookout.witnesses;
        witnesses.list().iter().filter(|it| witnesses.is_silent(now, it)).map(finding).collect()
    }

    pub(super) fn witness_status(&self, now: Instant) -> Vec<WitnessStatus> {
        let witnesses = &self.lookout.witnesses;
        let status = |witness: &Witness| WitnessStatus {
            address: witness.address.to_string(),
            answers: witness.answered_at.is_some() && !witnesses.is_silent(now, witness),
        };
        witnesses.list().iter().map(status).collect()
    }
}
