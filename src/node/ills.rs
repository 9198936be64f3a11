//! Ills of this host that do not end its service at once: whether the peer is the better place.
//!
//! In: php-fpm as the web front's pings see it, commits that are refused, a loop that runs late,
//! the peer's word that it is well. Out: one event to the table.
//! Must not: move the role to a host that is no better, or back and forth.
//! Read first: `judge`, which handles what ends the service; design section 5.

use std::time::Duration;

use super::Node;
use super::judge::Found;
use crate::pair::{Event, Role};
use crate::peer::Report;
use crate::repl::Commits;
use crate::time::Instant;

/// How long this host must be ill, and the peer well, before the role moves: longer than php-fpm
/// takes to be restarted, or a full disk to be noticed by whoever filled it.
const PATIENCE: Duration = Duration::from_secs(10);
/// A host that has just come to serve, or tried to give the role away, keeps it for this long.
const REST: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Ills {
    pub(super) since: Option<Instant>,
    peer_well_since: Option<Instant>,
    tried_at: Option<Instant>,
}

impl Node {
    /// What is wrong with this host, in a clause.
    fn ill(&self, now: Instant) -> Option<String> {
        match &self.engine.observation().commits {
            Commits::Refused(why) => return Some(format!("the database refuses writes: {why}")),
            Commits::End | Commits::Hang(_) => {}
        }
        if self.data.is_php_down {
            return Some("php-fpm does not answer".into());
        }
        self.troubles.is_often_late(now).then(|| "the daemon runs late again and again".into())
    }

    /// Notes since when each host is what it is.
    pub(super) fn observe_ills(&mut self, now: Instant) {
        let is_ill = self.ill(now).is_some();
        let is_peer_well = self.fresh(now).is_some_and(|peer| self.is_well(peer));
        let keep = |since: Option<Instant>, holds: bool| holds.then(|| since.unwrap_or(now));
        self.ills.since = keep(self.ills.since, is_ill);
        self.ills.peer_well_since = keep(self.ills.peer_well_since, is_peer_well);
    }

    fn is_well(&self, peer: &Report) -> bool {
        peer.role == Role::Standby
            && !peer.is_ill
            && peer.carrier == [true; 2]
            && peer.database.is_replicating
            && self.is_lag_fit(peer.database.lag_seconds)
    }

    pub(super) fn judge_ills(&mut self, now: Instant) -> Option<Found> {
        let lasts = |since: Option<Instant>, span| since.is_some_and(|at| now.since(at) >= span);
        let is_due = lasts(self.ills.since, PATIENCE)
            && lasts(self.ills.peer_well_since, PATIENCE)
            && now.since(self.role_since) >= REST
            && self.ills.tried_at.is_none_or(|at| now.since(at) >= REST);
        if !is_due || self.why_no_handover(now).is_some() {
            return None;
        }
        self.ills.tried_at = Some(now);
        let why = self.ill(now)?;
        Some((Event::Ailing, format!("{why}, and {} is well", self.peer_name())))
    }
}
