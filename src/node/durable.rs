//! Durability: which halves of semi-synchronous replication are on, and when the source goes on
//! alone.
//!
//! In: the database as it was looked at, the peer's reports. Out: jobs; what an acknowledged write
//! is worth at this moment. Must not: choose a role.
//! Read first: facts/repl.md section 0 items 12 and 13, 3.2; `repl::Durability`.
//!
//! No timer of the server ends a wait: it would acknowledge in silence what the replica does not
//! have. The source's half is turned on when the replica follows and acknowledges, and turned off
//! only by the rule below, which is said.

use std::time::Duration;

use super::Node;
use crate::console::note::Note;
use crate::pair::Role;
use crate::peer::Report;
use crate::repl::{Durability, Flavour, Job, SemiSync};
use crate::time::Instant;

/// How long the peer may be unheard, or not replicate, before writes go on without it.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long commits may wait with no acknowledgement at all.
const STUCK_PATIENCE: Duration = Duration::from_millis(1500);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long after a job that went well a look has seen what it did: what a source that let go
/// answers until then is on one host.
const LOOK_DELAY: Duration = Duration::from_millis(100);
/// How long a replica must be seen to have all that waits before the wait is ended for its sake:
/// two looks and its beacons. By an older look it may acknowledge by now, and what waits is newer.
const RELEASE_DELAY: Duration = Duration::from_millis(1500);
/// A replica that was given up on must have followed for this long before writes wait for it again.
const TRUST_DELAY: Duration = Duration::from_secs(5);

/// How the source's half should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    On,
    Off,
    /// On, after it let go what waits.
    Released,
}

/// What the node remembers of it.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// The server cannot be given what is missing.
    pub(super) is_refused: bool,
    /// When a job may be ordered again.
    retry_at: Instant,
    /// Since when the replica is away, as far as the source can tell, and when it is believed in
    /// again.
    away_since: Option<Instant>,
    trusted_at: Instant,
    /// Since when the replica has all that waits, and commits wait all the same.
    has_all_since: Option<Instant>,
    /// The last count of acknowledgements, and since when it stands still while commits wait.
    stuck: Option<(Instant, u64)>,
    /// Since when writes are acknowledged by one host alone.
    alone_since: Option<Instant>,
    was_in_force: bool,
}

impl Node {
    /// Orders the halves that belong to this host's role, when they are others.
    pub(super) fn keep_semi_sync(&mut self, now: Instant) {
        let semi_sync = self.engine.observation().semi_sync;
        self.note_durability(now, semi_sync);
        let wanted = match self.role {
            Role::Standby if self.is_replicating() => Some(Half::Off),
            Role::Active if self.is_source_open() => self.source_half(now, semi_sync),
            Role::Standby | Role::Active => None,
            Role::Joining | Role::Promoting | Role::Demoting | Role::Refused => None,
        };
        let Some(half) = wanted.filter(|_| self.may_have_semi_sync()) else { return };
        let is_source = half == Half::On;
        let is_so = (semi_sync.source, semi_sync.replica) == (Some(is_source), Some(true));
        if is_so || !self.is_free() || now < self.guard.retry_at || !self.is_database_up() {
            return;
        }
        self.guard.retry_at = now + RETRY_INTERVAL;
        if half != Half::On {
            self.end_backing();
        }
        self.jobs.push_back(match half {
            Half::Released => Job::Release,
            Half::On | Half::Off => Job::SemiSync { is_source, is_replica: true },
        });
    }

    /// This host did not run for `span`: what it heard last says nothing of that time.
    pub(super) fn was_late(&mut self, span: Duration) {
        if span >= PATIENCE {
            self.guard.has_all_since = None;
        }
    }

    pub(super) fn halves_set(&mut self, now: Instant) {
        self.guard.retry_at = now + LOOK_DELAY;
    }

    /// MariaDB has it built in; MySQL may have to load it, and is asked for that once.
    fn may_have_semi_sync(&self) -> bool {
        let observation = self.engine.observation();
        let can_load = observation.flavour == Some(Flavour::Mysql) && !self.guard.is_refused;
        self.config.repl.durability != Durability::Asynchronous
            && !self.has_foreign_peer()
            && (observation.semi_sync.is_available() || can_load)
    }

    /// Whether the source's half should be on; `None`: as it is.
    fn source_half(&mut self, now: Instant, semi_sync: SemiSync) -> Option<Half> {
        let database = self
            .fresh(now)
            .filter(|peer| peer.role == Role::Standby && peer.database.is_replicating)
            .map(|peer| peer.database.clone());
        let is_stuck = self.is_stuck(now, semi_sync);
        // A receiver that connected anew has what was sent before, and acknowledges only what
        // comes: the wait is over, and nobody says so. MySQL's own position does not count what
        // waits, and so cannot tell.
        let counts_waiting = self.engine.observation().flavour == Some(Flavour::Mariadb);
        let has_all = is_stuck
            && counts_waiting
            && database.is_some()
            && self.fresh(now).is_some_and(|peer| self.has_shipped_all(peer));
        let has_had_all = if has_all {
            now.since(*self.guard.has_all_since.get_or_insert(now)) >= RELEASE_DELAY
        } else {
            self.guard.has_all_since = None;
            false
        };
        match (semi_sync.source, database) {
            (Some(true), Some(_)) if !is_stuck => {
                self.guard.away_since = None;
                None
            }
            (Some(true), _) => {
                let since = *self.guard.away_since.get_or_insert(now);
                let is_over = is_stuck || now.since(since) >= PATIENCE;
                let goes_on = self.config.repl.durability == Durability::Continue;
                let is_let_go = is_over && goes_on && !self.is_about_to_lose(now, since);
                if has_had_all {
                    return Some(Half::Released);
                }
                if !is_let_go {
                    return None;
                }
                self.guard.trusted_at = if has_all { now } else { now + TRUST_DELAY };
                Some(Half::Off)
            }
            (Some(false), Some(database)) => {
                let keeps_up = database.lag_seconds == Some(0) && semi_sync.replicas > 0;
                let is_trusted = keeps_up && now >= self.guard.trusted_at;
                Some(if is_trusted { Half::On } else { Half::Off })
            }
            (Some(false), None) => {
                self.guard.trusted_at = self.guard.trusted_at.max(now + PATIENCE);
                Some(Half::Off)
            }
            (None, _) => Some(Half::Off),
        }
    }

    /// A standby that lives and hears us on no link takes over as from the dead. Whatever is
    /// answered until then would be lost, so writes wait for it, as long as it may take.
    fn is_about_to_lose(&self, now: Instant, since: Instant) -> bool {
        let is_deaf = |peer: &Report| peer.role == Role::Standby && peer.hears == [false; 2];
        let limit = self.group.master_down_interval() + TRUST_DELAY;
        self.fresh(now).is_some_and(is_deaf) && now.since(since) < limit
    }

    /// Commits wait, and none was acknowledged from one look to the next.
    pub(super) fn waits_long(&self, now: Instant) -> bool {
        let limit = self.config.repl.probe_interval * 3 / 2;
        self.guard.stuck.is_some_and(|(since, _)| now.since(since) >= limit)
    }

    /// Commits wait and none is acknowledged: the replica is connected, and stands still.
    fn is_stuck(&mut self, now: Instant, semi_sync: SemiSync) -> bool {
        if semi_sync.waiting == 0 {
            self.guard.stuck = None;
            return false;
        }
        match self.guard.stuck {
            Some((since, count)) if count == semi_sync.acknowledged => {
                now.since(since) >= STUCK_PATIENCE
            }
            Some(_) | None => {
                self.guard.stuck = Some((now, semi_sync.acknowledged));
                false
            }
        }
    }

    /// Says when an acknowledged write begins to be on both hosts, and when it ends to be.
    fn note_durability(&mut self, now: Instant, semi_sync: SemiSync) {
        if self.role != Role::Active {
            self.guard.was_in_force = false;
            self.guard.alone_since = None;
            return;
        }
        let is_in_force = semi_sync.is_in_force();
        if is_in_force {
            self.guard.alone_since = None;
        } else {
            self.guard.alone_since.get_or_insert(now);
        }
        if std::mem::replace(&mut self.guard.was_in_force, is_in_force) != is_in_force {
            let name = self.peer_name();
            self.note(if is_in_force {
                let what = format!("every write is on {name} too before it is answered");
                Note::Database { what }
            } else if semi_sync.source == Some(true) {
                Note::Durability { what: format!("writes wait for {name}") }
            } else {
                Note::Durability { what: format!("writes are answered that {name} may not have") }
            });
        }
    }

    /// For the status: what an acknowledged write is worth.
    pub(super) fn durability(&self, now: Instant) -> Option<String> {
        if self.role != Role::Active {
            return None;
        }
        let semi_sync = self.engine.observation().semi_sync;
        let seconds = self.guard.alone_since.map_or(0, |since| now.since(since).as_secs());
        Some(match (self.config.repl.durability, semi_sync.source) {
            (Durability::Asynchronous, _) => "by this host alone, as configured".to_owned(),
            (_, None) => "by this host alone: the server cannot do better".to_owned(),
            (_, Some(true)) if semi_sync.is_in_force() => "by both hosts".to_owned(),
            (_, Some(true)) => {
                format!("once {} is back, for {seconds} s by now", self.peer_name())
            }
            (_, Some(false)) => format!("by this host alone for {seconds} s"),
        })
    }
}
