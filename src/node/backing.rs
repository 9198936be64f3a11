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
//!            on disk. Cleared there before any commit may go alone, and by whatever the host does
//!            but serve: it stands only where the machine died while it served.
//!  standby   replicates, has what the source says that it has, hears `backed` -> `keeps` = epoch,
//!            in memory: until its database goes down, or its relay log may go.
//!  return    the machine booted, the database came up closed, what it has too much is of its last
//!            run before that, and `backed` is what the new source `keeps` -> take back
//! ```
//! So two hosts that lost power together, a forced failover of one that lagged, a source that had
//! gone on alone: in none of these do both say so, and an operator decides (`node::errant`). The
//! same holds for a database that ended while its host lived: one that is stopped in order may tell
//! those who wait that they are done (MySQL does), and so may a KILL of one who waits, for those
//! whose commits are of one group with his (MariaDB).

use std::time::Duration;

use super::{Node, Persistent};
use crate::pair::Role;
use crate::peer::Report;
use crate::repl::{Observation, State};
use crate::time::Instant;

/// How long commits must wait, or replication run, without a break: looks and beacons from before
/// it are over.
const STEADY_TIME: Duration = Duration::from_secs(2);

/// What is remembered of it.
#[derive(Debug, Default)]
pub(super) struct Backing {
    /// Of a source: since when every look shows that commits wait, and commits that had not by
    /// then.
    waits_since: Option<(Instant, u64)>,
    /// Where the source stood when that was certain: the peer may lack nothing up to there.
    waits_from: Option<String>,
    /// Of a standby: since when its database replicates.
    replicates_since: Option<Instant>,
    /// The peer's epoch of which everything acknowledged is in this host's database, or in its
    /// relay log.
    keeps: u64,
}

impl Node {
    /// The database was looked at.
    pub(super) fn observe_backing(&mut self, now: Instant, observation: &Observation) {
        let semi_sync = observation.semi_sync;
        let waits = self.role == Role::Active
            && self.is_free()
            && self.is_database_up()
            && self.is_source_open()
            && semi_sync.is_in_force()
            && semi_sync.is_active
            // Another replica's acknowledgement says nothing of the peer.
            && semi_sync.replicas == 1;
        if !waits {
            self.backing.waits_since = None;
            self.backing.waits_from = None;
            return;
        }
        let since = self.backing.waits_since.get_or_insert((now, semi_sync.unacknowledged)).0;
        // What is shown of the time before the last job is over, and what went into the binlog
        // before commits had to wait has ended.
        let is_backed = self.persistent.backed == self.persistent.epoch;
        if is_backed || now.since(since) < STEADY_TIME {
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
        let is_up = self.is_database_up();
        let is_open = is_up && !self.engine.observation().is_read_only;
        let is_backed = match self.role {
            Role::Active => is_up && (!is_open || self.do_commits_wait(now)),
            Role::Joining | Role::Refused => !is_open,
            Role::Standby | Role::Promoting | Role::Demoting => false,
        };
        if !is_backed {
            self.end_backing();
        }
        self.keep_whole(now);
    }

    /// As far as the last look goes: for the peer, and not for so long that somebody ends it.
    fn do_commits_wait(&self, now: Instant) -> bool {
        let semi_sync = self.engine.observation().semi_sync;
        let before = self.backing.waits_since.map(|(_, unacknowledged)| unacknowledged);
        let does_peer_replicate = self.fresh(now).is_none_or(|it| it.database.is_replicating);
        semi_sync.source == Some(true)
            && semi_sync.is_active
            && semi_sync.replicas < 2
            && before.is_none_or(|before| before == semi_sync.unacknowledged)
            && does_peer_replicate
            && !self.waits_long(now)
    }

    /// From here on a commit may be acknowledged that this host has alone.
    pub(super) fn end_backing(&mut self) {
        self.backing.waits_since = None;
        self.backing.waits_from = None;
        self.persist(Persistent { backed: 0, ..self.persistent });
    }

    fn keep_whole(&mut self, now: Instant) {
        if matches!(self.engine.observation().state, State::Unreachable(_)) {
            return self.lose_whole();
        }
        // What was received stays, whether or not more is.
        if self.role != Role::Standby || !self.is_replicating() {
            self.backing.replicates_since = None;
            return;
        }
        let Some(since) = self.backing.replicates_since else {
            // A receiver that starts anew may have dropped what it had.
            self.lose_whole();
            self.backing.replicates_since = Some(now);
            return;
        };
        let Some(peer) = self.fresh(now).filter(|peer| peer.role == Role::Active) else { return };
        if peer.backed == self.backing.keeps {
            return;
        }
        let observation = self.engine.observation();
        let positions = peer.database.position.as_deref().zip(observation.position.as_deref());
        let has_all = peer.backed == peer.epoch
            && peer.database.is_up
            && now.since(since) >= STEADY_TIME
            && observation.semi_sync.replica == Some(true)
            && positions.is_some_and(|(theirs, mine)| self.includes(mine, theirs));
        self.backing.keeps = if has_all { peer.backed } else { 0 };
    }

    /// What this host's database had received may go.
    pub(super) fn lose_whole(&mut self) {
        self.backing.replicates_since = None;
        self.backing.keeps = 0;
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
