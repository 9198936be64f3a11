//! Semi-synchronous replication of the database's model, as MariaDB does it: AFTER_SYNC, no limit.
//!
//! In: commits, the receiver of the other server, SET, KILL. Out: commits that end, and whether the
//! other host has them; the rows that `repl` reads. Must not: acknowledge by a timer.
//! Read first: facts/repl.md 3.2; src/node/durable.rs. Seen on 10.11:
//!
//! ```text
//!  session --> queue --> [second group: logged, holds the log] --> [first group: waits] --> ended
//!                                       the replica has it, the half is off, or its leader is
//!                                       ended by KILL: the group is visible, all of its sessions
//! ```
//! So at most two groups are logged and not visible, whatever waits; SHOW MASTER STATUS waits for
//! the log as the queue does; one session at a time is counted as waiting. A session that is ended
//! loses its client at once, and commits all the same when it is its turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tandem::repl::{Dialect, Rows};
use tandem::time::Instant;

use super::mysqld::{Answer, Gtid, Io, Life, Mysqld, Payload, done};
use super::plants::Plant;

#[derive(Debug, Default)]
pub struct SemiSync {
    is_source: bool,
    is_replica: bool,
    /// Since when the source's half is on or off.
    pub changed_at: Instant,
    /// Since when a receiver is connected that acknowledges, as far as the source can tell.
    pub client_since: Option<Instant>,
    /// Entries of the binlog that it acknowledged.
    acknowledged: usize,
    /// How many commits ever had theirs.
    count: u64,
    /// And how many ended without.
    without: u64,
    groups: VecDeque<Vec<Member>>,
    queue: Vec<(u64, Payload)>,
    /// Ended by KILL, and still in a group or in the queue.
    killed: BTreeSet<u64>,
    /// Clients of those, which have not been told yet.
    lost: BTreeSet<u64>,
    committed: BTreeMap<u64, Gtid>,
    /// What the replica acknowledged before the client was answered.
    pub on_both: BTreeSet<Gtid>,
    /// What was answered without, since another one of its group was ended by KILL.
    pub answered_by_kill: BTreeSet<Gtid>,
    /// What was logged, waited, and was let go when the source's half was turned off last.
    pub released: Vec<Gtid>,
    /// The statement of the administrator that waits.
    own: Option<String>,
    does_applier_wait: bool,
}

/// A session in its commit; `end` is the length of the binlog with it.
#[derive(Debug)]
struct Member {
    session: u64,
    gtid: Gtid,
    end: usize,
    since: Instant,
}

/// How the commit of a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    Waits,
    Ended(Gtid),
    /// Its connection is gone.
    Lost,
}

/// The session of the node's own statements.
const OWN: u64 = 8;
/// Clients' sessions, from here on.
pub const CLIENTS: u64 = 10_000;
/// More are refused (max_connections).
const SESSIONS_MAX: usize = 60;

impl SemiSync {
    /// No commit is acknowledged before the replica has it.
    pub fn is_in_force(&self) -> bool {
        self.is_source && self.client_since.is_some()
    }

    /// By its file of settings both halves are off. What is under way is on its way to the clients.
    pub(super) fn restart(&mut self) {
        *self = Self {
            on_both: std::mem::take(&mut self.on_both),
            answered_by_kill: std::mem::take(&mut self.answered_by_kill),
            changed_at: self.changed_at,
            ..Self::default()
        };
    }

    pub fn is_replica(&self) -> bool {
        self.is_replica
    }

    pub fn is_source(&self) -> bool {
        self.is_source
    }

    pub fn has_waiting(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Since when the oldest commit is logged and waits.
    pub fn waits_since(&self) -> Option<Instant> {
        self.groups.front().map(|group| group[0].since)
    }

    pub fn is_crowded(&self) -> bool {
        self.sessions().count() >= SESSIONS_MAX
    }

    /// Nobody can write into the binlog, or ask where it ends.
    pub(super) fn is_log_held(&self) -> bool {
        self.groups.len() > 1
    }

    pub(super) fn does_applier_wait(&self) -> bool {
        self.does_applier_wait
    }

    fn sessions(&self) -> impl Iterator<Item = u64> {
        let members = self.groups.iter().flatten().map(|member| member.session);
        members.chain(self.queue.iter().map(|(session, _)| *session))
    }

    /// Lines of the process list: session and state. A session that was ended is there still.
    pub(super) fn processes(&self) -> Vec<(u64, &'static str)> {
        let leader = self.groups.front().map(|group| group[0].session);
        let state = |session| {
            let waits = Some(session) == leader;
            if waits { "Waiting for semi-sync ACK from slave" } else { "Commit" }
        };
        self.sessions().map(|session| (session, state(session))).collect()
    }
}

impl Mysqld {
    /// A session commits: at once where the source's half is off; else `how_stands` tells.
    pub fn enter(&mut self, now: Instant, session: u64, payload: Payload) -> Option<Gtid> {
        if !self.semi_sync.is_source || self.plant == Plant::SourceHalfInWords {
            return Some(self.commit(now, payload));
        }
        self.semi_sync.queue.push((session, payload));
        self.settle(now);
        None
    }

    pub fn how_stands(&mut self, session: u64) -> Commit {
        if self.semi_sync.lost.remove(&session) {
            return Commit::Lost;
        }
        self.semi_sync.committed.remove(&session).map_or(Commit::Waits, Commit::Ended)
    }

    /// A statement of the node that is logged.
    pub(super) fn commit_own(&mut self, now: Instant, sql: &str, payload: Payload) -> Answer {
        if self.semi_sync.own.as_deref() != Some(sql) {
            if self.enter(now, OWN, payload).is_some() {
                return done();
            }
            self.semi_sync.own = Some(sql.to_owned());
        }
        match self.how_stands(OWN) {
            Commit::Waits => Answer::Waits { seconds: 3600 },
            Commit::Ended(_) | Commit::Lost => {
                self.semi_sync.own = None;
                done()
            }
        }
    }

    /// Moves on whatever can move.
    fn settle(&mut self, now: Instant) {
        loop {
            if self.semi_sync.groups.len() < 2 && !self.semi_sync.queue.is_empty() {
                let mut group = Vec::new();
                for (session, payload) in std::mem::take(&mut self.semi_sync.queue) {
                    let gtid = self.commit(now, payload);
                    group.push(Member { session, gtid, end: self.binlog.len(), since: now });
                }
                self.semi_sync.groups.push_back(group);
            }
            let semi_sync = &mut self.semi_sync;
            let Some(group) = semi_sync.groups.front() else { return };
            let has_all = group.iter().all(|member| member.end <= semi_sync.acknowledged);
            let is_ended = semi_sync.killed.contains(&group[0].session);
            if semi_sync.is_source && !has_all && !is_ended {
                return;
            }
            for member in semi_sync.groups.pop_front().into_iter().flatten() {
                let is_on_both = semi_sync.is_source && member.end <= semi_sync.acknowledged;
                semi_sync.count += u64::from(is_on_both);
                semi_sync.without += u64::from(!is_on_both);
                if semi_sync.killed.remove(&member.session) {
                    continue;
                }
                semi_sync.committed.insert(member.session, member.gtid);
                if is_on_both {
                    semi_sync.on_both.insert(member.gtid);
                } else if semi_sync.is_source {
                    semi_sync.answered_by_kill.insert(member.gtid);
                }
            }
        }
    }

    /// KILL of a session in its commit.
    pub(super) fn end_commit(&mut self, now: Instant, session: u64) -> bool {
        let is_there = self.semi_sync.sessions().any(|it| it == session);
        if is_there && self.semi_sync.killed.insert(session) {
            self.semi_sync.lost.insert(session);
        }
        self.settle(now);
        is_there
    }

    pub(super) fn execute_semi_sync(&mut self, now: Instant, sql: &str) -> Option<Answer> {
        let words = Dialect::Mariadb.statements();
        let semi_sync = &self.semi_sync;
        let on = |is_on: bool| if is_on { "ON" } else { "OFF" }.to_owned();
        if sql == words.semi_sync_variables {
            return Some(values(&[
                ("rpl_semi_sync_master_enabled", on(semi_sync.is_source)),
                ("rpl_semi_sync_slave_enabled", on(semi_sync.is_replica)),
            ]));
        }
        if sql == words.semi_sync_status {
            let waiting = u8::from(semi_sync.has_waiting() && semi_sync.is_source);
            return Some(values(&[
                (
                    "Rpl_semi_sync_master_clients",
                    u8::from(semi_sync.client_since.is_some()).to_string(),
                ),
                ("Rpl_semi_sync_master_status", on(semi_sync.is_source)),
                ("Rpl_semi_sync_master_wait_sessions", waiting.to_string()),
                ("Rpl_semi_sync_master_yes_tx", semi_sync.count.to_string()),
                ("Rpl_semi_sync_master_no_tx", semi_sync.without.to_string()),
            ]));
        }
        let (source, replica) = sql
            .strip_prefix(
                "SET GLOBAL rpl_semi_sync_slave_kill_conn_timeout=1, \
                 GLOBAL rpl_semi_sync_master_timeout=4294967295, \
                 GLOBAL rpl_semi_sync_master_wait_no_slave=ON, \
                 GLOBAL rpl_semi_sync_master_wait_point=AFTER_SYNC, \
                 GLOBAL rpl_semi_sync_master_enabled=",
            )?
            .split_once(", GLOBAL rpl_semi_sync_slave_enabled=")?;
        self.set_halves(now, source == "ON", replica == "ON");
        Some(done())
    }

    /// Turned off, it lets everybody go who waits; turned on, it knows of no acknowledgement.
    fn set_halves(&mut self, now: Instant, is_source: bool, is_replica: bool) {
        let semi_sync = &mut self.semi_sync;
        semi_sync.is_replica = is_replica;
        if std::mem::replace(&mut semi_sync.is_source, is_source) != is_source {
            semi_sync.changed_at = now;
            semi_sync.acknowledged = 0;
            semi_sync.does_applier_wait = false;
            let members = semi_sync.groups.iter().flatten();
            let alive = members.filter(|member| !semi_sync.killed.contains(&member.session));
            semi_sync.released = alive.map(|member| member.gtid).collect();
        }
        self.settle(now);
    }

    /// The applier has logged a transaction: where the source's half is on, it waits for nobody.
    pub(super) fn applied(&mut self) {
        self.semi_sync.does_applier_wait = self.semi_sync.is_source;
    }

    /// A receiver tells its source when it connects whether it acknowledges.
    pub(super) fn acknowledges(&self) -> bool {
        self.semi_sync.is_replica && self.plant != Plant::AcknowledgesInWords
    }

    /// What the source hears of the other server's receiver; `path`: both hosts run, and both
    /// directions pass. What was received by the last turn is on the replica's disk, and one who
    /// connected anew says nothing of what it had before.
    pub fn hear_receiver(&mut self, now: Instant, replica: &Self, path: bool) {
        if self.plant == Plant::AcknowledgesUnreceived && self.semi_sync.client_since.is_some() {
            self.semi_sync.acknowledged = self.binlog.len();
            self.settle(now);
        }
        if self.life != Life::Up || !path || replica.life == Life::Hung {
            return;
        }
        let since = self.semi_sync.client_since.take();
        if let Some(receiver) = &replica.replica
            && let Io::Running { source_run, next, first, acknowledges, .. } = receiver.io
            && source_run == self.run
            && acknowledges
        {
            self.semi_sync.client_since = since.or(Some(now));
            if next > first {
                self.semi_sync.acknowledged = self.semi_sync.acknowledged.max(next);
            }
        }
        self.settle(now);
    }
}

/// As SHOW VARIABLES and SHOW STATUS answer.
fn values(lines: &[(&str, String)]) -> Answer {
    let columns = ["Variable_name", "Value"].map(str::to_owned).to_vec();
    let line = |(name, value): &(&str, String)| vec![Some((*name).to_owned()), Some(value.clone())];
    Answer::Now(Ok(Rows { columns, rows: lines.iter().map(line).collect() }))
}
