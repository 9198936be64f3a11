//! The status: what this host knows of itself and of the other one, for operators.
//!
//! In: machines, `Glance` of the hands. Out: `Status`. Must not: ask anything, the database least.
//! Read first: console/status.rs.

use super::errant::GTIDS_IN_STATUS;
use super::{Findings, Node};
use crate::config::SECTIONS;
use crate::console::finding::Finding;
use crate::console::message::RELEASE;
use crate::console::status::{
    ByLink, DatabaseStatus, Glance, Health, LinkStatus, LinksStatus, OrdersStatus,
    PeerDatabaseStatus, PeerStatus, Status, VipStatus,
};
use crate::peer::Report;
use crate::repl;
use crate::time::Instant;
use crate::wire::{LinkId, Role};

impl Node {
    pub(super) fn status(&self, now: Instant, glance: Glance) -> Status {
        let Glance { sql, web, children, notes } = glance;
        let findings = self.findings();
        Status {
            host: self.config.host(self.me).name.clone(),
            release: RELEASE.to_owned(),
            health: self.health(now, &findings),
            role: self.role,
            epoch: self.persistent.epoch,
            role_seconds: now.since(self.role_since).as_secs(),
            vips: self.addresses.held().map(|vip| vip.address.to_string()).collect(),
            addresses: self.vip_status(now),
            orders: OrdersStatus {
                hold: self.persistent.orders.hold.is_on,
                maintenance: self.persistent.orders.in_maintenance,
                peer_maintenance: self.fresh(now).is_some_and(|peer| peer.orders.in_maintenance),
            },
            config_digest: hexadecimal(self.config.digest),
            peer: self.peer_status(now),
            build: self.build_status(now),
            witnesses: self.witness_status(now),
            links: LinksStatus {
                outside: self.link_status(now, LinkId::Outside),
                inside: self.link_status(now, LinkId::Inside),
            },
            database: self.database_status(now),
            sql,
            web,
            children,
            notes,
            findings,
        }
    }

    fn health(&self, now: Instant, findings: &[String]) -> Health {
        let stands = |role| matches!(role, Role::Active | Role::Standby);
        let is_paired = self.fresh(now).is_some_and(|peer| stands(peer.role));
        match (stands(self.role), is_paired && findings.is_empty()) {
            (false, _) => Health::Down,
            (true, true) => Health::Healthy,
            (true, false) => Health::Degraded,
        }
    }

    fn vip_status(&self, now: Instant) -> Vec<VipStatus> {
        let is_at_peer = self.fresh(now).is_some_and(|peer| peer.holds_vips);
        let status = |(device, vip): (crate::wire::DeviceId, crate::units::IpCidr)| VipStatus {
            address: vip.to_string(),
            device: self.devices.get(device.index()).map_or_else(String::new, |it| it.name.clone()),
            is_here: self.addresses.held().any(|held| held.address == vip.address),
            is_at_peer,
        };
        self.addresses.all().map(status).collect()
    }

    fn link_status(&self, now: Instant, link: LinkId) -> LinkStatus {
        let facts = &self.links[link.index()];
        let ago = |at: Option<Instant>| {
            at.map(|at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX))
        };
        LinkStatus {
            device: self.devices[link.index()].name.clone(),
            carrier: self.group.has_carrier(link),
            address: facts.own.to_string(),
            peer_address: facts.peer.to_string(),
            beacon_ago_ms: ago(facts.ears.beacon_at),
            vrrp_ago_ms: ago(facts.ears.vrrp_at),
        }
    }

    fn peer_status(&self, now: Instant) -> PeerStatus {
        let fresh = self.fresh(now);
        PeerStatus {
            name: self.peer_name(),
            vrrp_checksum: self.group.heard_form().map(|form| form.to_string()),
            role: fresh.map(|peer| peer.role),
            epoch: self.peer.report().map_or(0, |peer| peer.epoch),
            heard: ByLink {
                outside: self.peer.is_heard(now, LinkId::Outside),
                inside: self.peer.is_heard(now, LinkId::Inside),
            },
            config_digest: self.peer.report().map(|peer| hexadecimal(peer.config_digest)),
            config_differs: fresh.map(|peer| self.differing_sections(peer)).unwrap_or_default(),
            database: fresh.map(|peer| PeerDatabaseStatus {
                is_up: peer.database.is_up,
                is_writable: peer.database.is_writable,
                is_replicating: peer.database.is_replicating,
                lag_seconds: peer.database.lag_seconds,
                position: peer.database.position.as_deref().map(str::to_owned),
            }),
        }
    }

    /// An older tandem tells no digests of sections.
    fn differing_sections(&self, peer: &Report) -> Vec<String> {
        if peer.sections == [0; SECTIONS.len()] || peer.config_digest == self.config.digest {
            return Vec::new();
        }
        let mine = self.config.sections.digests();
        let pairs = SECTIONS.into_iter().zip(mine.into_iter().zip(peer.sections));
        pairs.filter(|(_, (mine, theirs))| mine != theirs).map(|(name, _)| name.into()).collect()
    }

    /// Transactions that only the peer has, and that only this host has.
    fn difference(&self, now: Instant) -> Option<(u64, u64)> {
        let mine = self.parse(self.engine.observation().position.as_deref()?)?;
        let theirs = self.parse(self.fresh(now)?.database.position.as_deref()?)?;
        Some((theirs.beyond(&mine).transactions, mine.beyond(&theirs).transactions))
    }

    fn database_status(&self, now: Instant) -> DatabaseStatus {
        let observation = self.engine.observation();
        let replica = observation.replica.as_ref();
        let state = match (&observation.state, self.role, replica) {
            (repl::State::Unreachable(_) | repl::State::Denied(_), ..) => "unreachable",
            (repl::State::Up, Role::Active, _) if !self.is_fenced => "source",
            (repl::State::Up, _, Some(_)) => "replica",
            (repl::State::Up, _, None) => "closed",
        };
        let (missing, ahead) = self.difference(now).unzip();
        let error = replica.and_then(|replica| {
            [&replica.sql_error, &replica.io_error]
                .into_iter()
                .find(|error| !error.is_empty())
                .cloned()
        });
        DatabaseStatus {
            state: state.to_owned(),
            version: observation.version.clone(),
            position: observation.position.as_deref().map(cut),
            missing,
            ahead,
            lag_seconds: replica.and_then(|replica| replica.lag_seconds),
            durability: self.durability(now),
            error: error
                .or_else(|| self.findings.database.clone())
                .or_else(|| self.findings.job.clone()),
            errant: self.errant_status(),
        }
    }

    fn findings(&self) -> Vec<String> {
        let Findings { waiting, database, job, diverged, held, network } = &self.findings;
        // By the names of the notes that told them.
        let named = [
            ("waiting", waiting),
            ("database-trouble", database),
            ("database-trouble", job),
            ("diverged", diverged),
        ];
        let named = named.into_iter().filter_map(|(name, it)| Some((name, it.as_ref()?)));
        named
            .map(|(name, what)| format!("{name}: {what}"))
            .chain(held.iter().chain(network).map(Finding::to_string))
            .collect()
    }
}

/// A set of GTIDs may be longer than a frame; whoever needs all of it asks the server.
fn cut(position: &str) -> String {
    position.chars().take(GTIDS_IN_STATUS).collect()
}

fn hexadecimal(digest: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(digest))
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, EXAMPLE};
    use crate::console::explain::explain;
    use crate::console::finding::{Finding, HostTrouble};
    use crate::node::{Findings, Node, Persistent};
    use crate::wire::HostId;

    #[test]
    fn every_finding_begins_with_a_name_that_can_be_explained() {
        let config = Config::parse(EXAMPLE).expect("the example is valid");
        let mut node = Node::new(config, HostId::First, 1, Persistent::default());
        let some = || Some("words".to_owned());
        node.findings = Findings {
            waiting: some(),
            database: some(),
            job: some(),
            diverged: some(),
            held: Some(Finding::of_host(HostTrouble::Held)),
            network: vec![Finding::of_host(HostTrouble::LoopLate { milliseconds: 700 })],
        };
        let findings = node.findings();
        assert_eq!(findings.len(), 6);
        for finding in findings {
            let name = finding.split(' ').next().expect("a word");
            assert!(name.ends_with(':') && explain(name).is_ok(), "{finding}");
        }
    }
}
