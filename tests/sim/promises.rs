//! What an acknowledged write is worth: the invariants of `durability`, and which a run has.
//!
//! In: acknowledgements, statements, notes, samples. Out: `World::fail`.
//! Must not: change anything but its own counters.
//! Read first: src/node/durable.rs; `semi_sync`.
//!
//! A write is promised when its answer reaches the client after the replica acknowledged it: the
//! source's half was on, and in force. Then each database has it, or has it in its relay log, and
//! whichever of the two opens next must have it, forced or not.
//!
//! Weaker than the ideal in one point: a database that goes down drops its relay log. What was in
//! it is back when the source has sent it again; where the source is lost before that, both copies
//! died, one after the other, and nothing is held against whoever opens without it.

use std::collections::BTreeSet;
use std::time::Duration;

use tandem::console::note::Note;
use tandem::repl::{Dialect, Durability};
use tandem::time::Instant;
use tandem::wire::{HostId, Role};

use super::mysqld::{Gtid, Life, Mysqld};
use super::world::World;

#[derive(Debug, Default)]
pub struct Promises {
    made: BTreeSet<Gtid>,
    /// By host: since when its operators are told that every write is on both.
    claimed_since: [Option<Instant>; 2],
    /// By host: when its source's half was turned off for writes that the other host has.
    let_go_at: [Option<Instant>; 2],
    /// By host: when it was told by its peer last where that stands, as a source.
    pub heard_source_at: [Option<Instant>; 2],
    /// By host: since when its database lives, and when it last did long enough to be asked.
    lives_since: [Option<Instant>; 2],
    lived_at: [Option<Instant>; 2],
    /// Acknowledged rows that some takeover has gone without.
    given_up: BTreeSet<u64>,
}

/// Which of the three a run has. Two in seven run without semi-synchronous replication.
pub fn durability(seed: u64) -> Durability {
    match seed % 7 {
        0 | 5 => Durability::Asynchronous,
        3 => Durability::Wait,
        _ => Durability::Continue,
    }
}

/// A look, as late as it may be, and the turn after it.
const CLAIM_AGE_MAX: Duration = Duration::from_secs(3);
/// What an unplanned failover may cost is younger, when the source was heard last: ten seconds, a
/// sample, a look.
const OLD: Duration = Duration::from_secs(13);
/// And this much a successor may lack, by what it can know: a sample and a look less than ten.
const YOUNG: Duration = Duration::from_secs(8);
/// A look, and the job that it leads to.
const LET_GO_MAX: Duration = Duration::from_millis(700);

/// What a daemon needs to see that its database is back, a look, and a replica to come back to it.
const LIFE_MIN: Duration = Duration::from_secs(1);

impl World {
    /// S2 `claim_is_true`: while operators are told that every write is on both hosts, no other
    /// write is acknowledged, but for as long as a look takes to see that the half is off.
    pub fn promise(&mut self, source: HostId, gtid: Gtid) {
        let Mysqld { semi_sync, binlog, .. } = &self.hosts[source.index()].database;
        if semi_sync.on_both.contains(&gtid) {
            self.checks.promises.made.insert(gtid);
            return;
        }
        // Nothing of ours tells who is killed by others.
        if semi_sync.answered_by_kill.contains(&gtid) {
            return;
        }
        let Promises { claimed_since, let_go_at, .. } = &self.checks.promises;
        let (claimed, let_go) = (claimed_since[source.index()], let_go_at[source.index()]);
        // An answer may be long on its way.
        let committed_at =
            binlog.iter().rev().find(|tx| tx.gtid == gtid).map_or(self.now, |tx| tx.at);
        let is_long = |since: Instant| committed_at.since(since) > CLAIM_AGE_MAX;
        if claimed.is_some_and(is_long) && is_long(semi_sync.changed_at) {
            let what = format!("{gtid:?} of {} is on one host", self.name(source));
            return self.fail("S2 claim_is_true", what);
        }
        let since = let_go.zip(semi_sync.client_since).map(|(at, client)| at.max(client));
        let is_late = since.is_some_and(|at| committed_at.since(at) > LET_GO_MAX);
        if is_late && self.hosts[source.index()].is_running() {
            let what = format!("{gtid:?} of {} did not wait", self.name(source));
            self.fail("S2 wait_waits", what);
        }
    }

    /// S2 `promised_on_both`: whoever opens has everything that was promised.
    pub fn keeps_promises(&mut self, host: HostId) {
        let database = &self.hosts[host.index()].database;
        let missing = self.checks.promises.made.difference(&database.has);
        let (excused, broken): (Vec<Gtid>, Vec<Gtid>) =
            missing.partition(|gtid| database.forgotten.contains(gtid));
        if let Some(gtid) = broken.first() {
            let what = format!("{} opens without {gtid:?}", self.name(host));
            return self.fail("S2 promised_on_both", what);
        }
        if let Some(gtid) = excused.first() {
            let count = excused.len();
            self.say(host, format!("opens without {gtid:?} and so on, {count} that it forgot"));
        }
        self.checks.promises.made.retain(|gtid| !excused.contains(gtid));
    }

    /// S2 `wait_waits`: where writes are to wait, the rule of the node lets nobody go whose write
    /// the other host lacks, and writes wait again at once; nor does waiting cost the role. A
    /// server that is being closed lets go whoever is left.
    pub fn waits_for_both(&mut self, host: HostId) {
        let released = std::mem::take(&mut self.host(host).database.semi_sync.released);
        let target = &self.hosts[host.index()];
        let waits = self.config.repl.durability == Durability::Wait;
        self.checks.promises.let_go_at[host.index()] =
            (waits && !released.is_empty()).then_some(self.now);
        if !waits || target.role != Role::Active || target.database.is_closing {
            return;
        }
        let other = &self.hosts[host.other().index()].database;
        if let Some(gtid) = released.iter().find(|gtid| !other.has_or_received(**gtid)) {
            let what = format!("{} lets {gtid:?} go, which it has alone", self.name(host));
            self.fail("S2 wait_waits", what);
        }
    }

    /// Whether a write may wait for as long as the other host is away.
    pub fn may_wait(&self) -> bool {
        let has_waiting = |host: HostId| self.hosts[host.index()].database.semi_sync.has_waiting();
        self.config.repl.durability == Durability::Wait
            && !self.plan.is_healed
            && HostId::ALL.into_iter().any(has_waiting)
    }

    pub fn durability_said(&mut self, host: HostId, note: &Note) {
        let claimed = &mut self.checks.promises.claimed_since[host.index()];
        match note {
            Note::Database { what } if what.starts_with("every write is on") => {
                *claimed = Some(self.now);
            }
            Note::Durability { .. } | Note::Started { .. } => *claimed = None,
            Note::RoleChanged { from, why, .. } => {
                *claimed = None;
                self.checks.promises.let_go_at[host.index()] = None;
                let Mysqld { semi_sync, is_full, .. } = &self.hosts[host.index()].database;
                let is_long = |since: Instant| self.now.since(since) > CLAIM_AGE_MAX;
                let waits = semi_sync.waits_since().is_some_and(is_long) && !is_full;
                if waits && *from == Role::Active && why.contains("a commit has not ended") {
                    self.fail("S2 wait_waits", format!("{} gives up its role", self.name(host)));
                }
            }
            _ => {}
        }
    }

    pub fn note_lives(&mut self) {
        for host in HostId::ALL {
            let target = &self.hosts[host.index()];
            let lives = target.is_awake() && target.database.life == Life::Up;
            let promises = &mut self.checks.promises;
            let since = &mut promises.lives_since[host.index()];
            *since = lives.then(|| since.unwrap_or(self.now));
            if since.is_some_and(|since| self.now.since(since) >= LIFE_MIN) {
                promises.lived_at[host.index()] = Some(self.now);
            }
        }
    }

    /// Acknowledged rows that a host has not, which no takeover has gone without yet.
    fn lost_writes(&self, host: HostId) -> Vec<(u64, Instant)> {
        let database = &self.hosts[host.index()].database;
        let lost = self.client.acknowledged.iter().filter(|(row, (gtid, _))| {
            !database.has_or_received(*gtid) && !self.checks.promises.given_up.contains(*row)
        });
        lost.map(|(row, (_, at))| (*row, *at)).collect()
    }

    /// The first of the rows that was acknowledged long before the source could be asked for it
    /// last. A database that is dead sends nothing, however long its daemon is heard: what it took
    /// along was young when it died.
    fn old_write(&self, host: HostId, lost: &[(u64, Instant)], old: Duration) -> Option<usize> {
        let Promises { heard_source_at, lived_at, .. } = &self.checks.promises;
        let heard_at = heard_source_at[host.index()]?.min(lived_at[host.other().index()]?);
        lost.iter().position(|(_, at)| heard_at.since(*at) > old)
    }

    /// Whether a standby waits rightly for the source, or for the operator.
    pub fn note_waiting(&mut self) {
        let is_idle = self.now.since(self.client.last_acknowledged_at) > OLD;
        self.checks.waits_rightly = HostId::ALL.map(|host| {
            is_idle
                && self.hosts[host.index()].role == Role::Standby
                && self.old_write(host, &self.lost_writes(host), YOUNG).is_some()
        });
    }

    /// S2 `old_writes_kept`: a standby that takes over by itself has what was acknowledged long
    /// ago, whatever the durability: a replica that lags or has just come waits for the source.
    pub fn old_writes_kept(&mut self, host: HostId, from: Role, why: &str) {
        let lost = self.lost_writes(host);
        let is_by_hand = why.starts_with("forced") || why.ends_with("hands over");
        let is_by_itself = from == Role::Standby && !is_by_hand;
        let old = self.old_write(host, &lost, OLD).map(|index| lost[index]);
        if let Some((row, at)) = old.filter(|_| is_by_itself) {
            let name = self.name(host).to_owned();
            let what = format!("{name} takes over without row {row}, acknowledged at {at:?}");
            return self.fail("S2 old_writes_kept", what);
        }
        // The taker of a handover comes up to the giver, or gives the role back.
        if !why.ends_with("hands over") {
            self.checks.promises.given_up.extend(lost.iter().map(|(row, _)| *row));
        }
    }

    /// After a statement of the node.
    pub fn check_durability(&mut self, host: HostId, sql: &str) {
        if sql == Dialect::Mariadb.statements().open {
            self.keeps_promises(host);
        } else if sql.contains("rpl_semi_sync") {
            self.waits_for_both(host);
        }
    }

    /// L5 `on_both_again`: with both hosts whole, writes wait for the replica, it acknowledges
    /// them, and operators are told so. What was promised is here.
    pub fn on_both_again(&mut self, active: HostId) {
        let [own, other] = [active, active.other()].map(|host| &self.hosts[host.index()]);
        if let Some(gtid) = self.checks.promises.made.difference(&own.database.has).next() {
            let what = format!("{gtid:?} is gone from {}", self.name(active));
            return self.fail("S2 promised_on_both", what);
        }
        let is_pair = other.role == Role::Standby;
        if !is_pair || self.config.repl.durability == Durability::Asynchronous {
            return;
        }
        let (source, replica) = (&own.database.semi_sync, &other.database.semi_sync);
        let last = self.client.acknowledged.values().max_by_key(|(_, at)| *at);
        let wrong = if replica.is_source() {
            "the standby waits for nobody"
        } else if !replica.is_replica() || !source.is_in_force() {
            "a half is off"
        } else if last.is_none_or(|(gtid, _)| !source.on_both.contains(gtid)) {
            "the last write was acknowledged by one host"
        } else if self.checks.promises.claimed_since[active.index()].is_none() {
            "nobody is told that writes are on both hosts"
        } else {
            return;
        };
        self.fail("L5 on_both_again", wrong.to_owned());
    }
}
