//! Backing: whether all that a source acknowledged is on the other host too, so that what it has
//! too much when it comes back was acknowledged to nobody, and may be taken back without asking.
//!
//! In: the database as it was looked at, the peer's reports. Out: the epoch that is backed, on disk
//! and in beacons; an order to take back. Must not: take back anything that is not saved.
//! Read first: `durable`; facts/repl.md section 0 item 12, 3.2.
//!
//! A source that dies in the middle of a commit has that commit in its binlog, and its crash
//! recovery finishes it, though the replica never had it and nobody was told that it is done. In
//! about half of all crashes under load there are some. Two hosts must agree that they are no more
//! than that:
//!
//! ```text
//!  source    every commit waits for the peer, which has all from before that -> `backed` = epoch,
//!            on disk. Cleared there before any commit goes alone, and by whatever the host does
//!            but serve: it stands only where the host, or its MariaDB, died while it served.
//!  standby   replicates, has what the source says that it has, hears `backed` -> `keeps` = epoch,
//!            in memory: until its own database goes down or its relay log may go; once promoted
//!            it has applied everything, and that is on disk.
//!  return    the database came up closed, `backed` is what the new source `keeps` -> take back
//! ```
//! So two hosts that lost power together, a forced failover of one that lagged, a source that had
//! gone on alone: in none of these do both say so, and an operator decides (`node::errant`).

use std::time::Duration;

use super::{Node, Persistent};
use crate::pair::Role;
use crate::peer::Report;
use crate::repl::{Flavour, Observation};
use crate::time::Instant;

/// How long replication must have run without a break: a look and a beacon from before it are over.
const STEADY_TIME: Duration = Duration::from_secs(2);

/// What is remembered of it.
#[derive(Debug, Default)]
pub(super) struct Backing {
    /// Of a source: where it stood when commits were first seen to wait. The peer may lack nothing
    /// up to there.
    waits_from: Option<String>,
    /// Of a standby: since when its database replicates.
    replicates_since: Option<Instant>,
    /// The peer's epoch of which everything acknowledged is here: in the database, where that was
    /// promoted since, else in its relay log too.
    keeps: u64,
}

impl Backing {
    pub(super) fn new(persistent: &Persistent) -> Self {
        Self { keeps: persistent.keeps, ..Self::default() }
    }
}

impl Node {
    /// The database was looked at. A look that ends while no job is under way began after the last
    /// one, and shows what that did.
    pub(super) fn observe_backing(&mut self, now: Instant, observation: &Observation) {
        let semi_sync = observation.semi_sync;
        let waits = self.role == Role::Active
            && self.is_free()
            && self.is_database_up()
            && self.is_source_open()
            && semi_sync.is_in_force()
            // Another replica's acknowledgement says nothing of the peer.
            && semi_sync.replicas == 1;
        if !waits {
            self.backing.waits_from = None;
            return;
        }
        let Some(from) = self.backing.waits_from.clone() else {
            self.backing.waits_from.clone_from(&observation.position);
            return;
        };
        let has_all = self.fresh(now).is_some_and(|peer| {
            peer.role == Role::Standby
                && peer.database.is_replicating
                && peer.database.position.as_deref().is_some_and(|it| self.includes(it, &from))
        });
        if has_all {
            self.persist(Persistent { backed: self.persistent.epoch, ..self.persistent });
        }
    }

    /// At the end of a turn: what holds no longer is not on disk before the next one.
    pub(super) fn keep_backing(&mut self, now: Instant) {
        let observation = self.engine.observation();
        let is_up = self.is_database_up();
        let is_open = is_up && !observation.is_read_only;
        let semi_sync = observation.semi_sync;
        // A MySQL that is stopped in order tells who waits that it is done; a MariaDB does not.
        let may_have_been_stopped = !is_up && observation.flavour != Some(Flavour::Mariadb);
        let waits = semi_sync.source == Some(true) && semi_sync.replicas < 2;
        let is_backed = match self.role {
            Role::Active => !may_have_been_stopped && (!is_open || waits),
            Role::Joining | Role::Refused => !is_open,
            Role::Standby | Role::Promoting | Role::Demoting => false,
        };
        if !is_backed {
            self.end_backing();
        }
        self.keep_whole(now);
    }

    /// From here on a commit may be acknowledged that this host has alone.
    pub(super) fn end_backing(&mut self) {
        self.backing.waits_from = None;
        self.persist(Persistent { backed: 0, ..self.persistent });
    }

    fn keep_whole(&mut self, now: Instant) {
        let (is_up, keeps) = (self.is_database_up(), self.backing.keeps);
        if !is_up && keeps != self.persistent.keeps {
            return self.lose_whole();
        }
        // What was received stays, whether or not more is.
        if !is_up || self.role != Role::Standby || !self.is_replicating() {
            self.backing.replicates_since = None;
            return;
        }
        let since = *self.backing.replicates_since.get_or_insert(now);
        let Some(peer) = self.fresh(now).filter(|peer| peer.role == Role::Active) else { return };
        if peer.backed == keeps {
            return;
        }
        let observation = self.engine.observation();
        let positions = peer.database.position.as_deref().zip(observation.position.as_deref());
        let has_all = peer.backed == peer.epoch
            && now.since(since) >= STEADY_TIME
            && observation.semi_sync.replica == Some(true)
            && positions.is_some_and(|(theirs, mine)| self.includes(mine, theirs));
        self.backing.keeps = if has_all { peer.backed } else { 0 };
    }

    /// What this host's database had received may go.
    pub(super) fn lose_whole(&mut self) {
        self.backing.replicates_since = None;
        self.backing.keeps = 0;
        self.persist(Persistent { keeps: 0, ..self.persistent });
    }

    /// Everything that this host's database had received is applied.
    pub(super) fn whole_applied(&mut self) {
        self.persist(Persistent { keeps: self.backing.keeps, ..self.persistent });
    }

    /// The peer's epoch of which everything acknowledged is here; 0: of none.
    pub(super) const fn keeps(&self) -> u64 {
        self.backing.keeps
    }

    /// The peer has all that this host acknowledged when it served last.
    pub(super) fn is_backed_by_peer(&self, now: Instant) -> bool {
        let backed = self.persistent.backed;
        let keeps = |peer: &Report| peer.role == Role::Active && peer.keeps == backed;
        backed != 0 && self.fresh(now).is_some_and(keeps)
    }

    fn includes(&self, whole: &str, part: &str) -> bool {
        let parsed = self.parse(whole).zip(self.parse(part));
        parsed.is_some_and(|(whole, part)| whole.contains(&part))
    }
}
