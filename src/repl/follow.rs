//! Becoming a replica of the peer (`Follow`), and waiting for a position (`CatchUp`).
//!
//! In: facts, the peer's position as text. Out: CHANGE MASTER / REPLICATION SOURCE, START.
//! Must not: attach a server whose transactions the peer does not have (MySQL would not mind), or
//! drop a relay log whose source may be dead.
//! A replica skips what bears its own number (server_id), and its threads run on as if nothing were
//! missing: a server that lost what it wrote can only be replaced by a copy.
//! Read first: facts/repl.md 3.4, 3.8 "rejoin".  Differs: a relay log that is already the peer's is
//! kept (START before CHANGE), since the peer may die before it sent everything again.
//! Not done: the servers' wait functions (one never ends, one only compares numbers, one blocks the
//! connection); looking every few milliseconds costs less than 1% of a core and can be abandoned.

use std::time::Duration;

use super::copy::OWN_SCHEMAS;
use super::dialect::Source;
use super::gtid::{Beyond, Flavour, Position, Writer};
use super::job::{Act, Ask, Context, Failure, Outcome, out_of_step};
use super::look::{Facts, ReplicaStatus, ThreadState};
use super::rows::{Rows, ServerError};
use crate::limits;
use crate::time::Instant;

/// Attaching the local database to the peer.
#[derive(Debug)]
pub(super) struct Follow {
    peer_position: Option<String>,
    phase: Phase,
    /// When both threads must run.
    deadline: Instant,
    has_changed_source: bool,
    has_set_halves: bool,
    has_counted: bool,
    has_settled: bool,
    /// Looks in a row at which nothing more came, with older transactions missing.
    looks_at_skipped: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Looking,
    /// It has executed nothing, it says: has it any rows?
    CountingTables,
    Closing,
    SettingHalves,
    Stopping,
    /// Looking what was executed in the end.
    Stopped,
    /// It has more than the peer: what it applies meanwhile would be taken for its own, too.
    Settling,
    AdoptingPosition,
    ChangingSource,
    Starting,
    /// Looking until both threads run, with this pause.
    Waiting(Duration),
    /// Both ran; a source that cannot serve us says so a moment later.
    Running,
}

impl Follow {
    pub(super) fn new(peer_position: Option<String>, now: Instant) -> Self {
        let deadline = now + limits::FOLLOW_LIMIT;
        Self {
            peer_position,
            phase: Phase::Looking,
            deadline,
            has_changed_source: false,
            has_set_halves: false,
            has_counted: false,
            has_settled: false,
            looks_at_skipped: 0,
        }
    }

    pub(super) fn looked(&mut self, context: &mut Context<'_>, facts: &Facts) -> Act {
        match self.phase {
            Phase::Looking => self.begin(context, facts),
            Phase::Stopped => self.adopt_position(context, facts),
            Phase::Waiting(pause) => self.wait(context, facts, pause),
            Phase::Running => self.wait(context, facts, limits::LOOK_PAUSE_MAX),
            Phase::CountingTables
            | Phase::Closing
            | Phase::SettingHalves
            | Phase::Stopping
            | Phase::Settling
            | Phase::AdoptingPosition
            | Phase::ChangingSource
            | Phase::Starting => out_of_step(),
        }
    }

    fn begin(&mut self, context: &mut Context<'_>, facts: &Facts) -> Act {
        match self.obstacle(context, facts) {
            Some(Failure::Diverged { .. }) if !self.has_settled && applies(facts) => {
                self.has_settled = true;
                return self.stop(context, Phase::Settling);
            }
            Some(failure) => return Act::Finish(Err(failure)),
            None => {}
        }
        if facts.position.is_empty() && facts.replica.is_none() && !self.has_counted {
            self.phase = Phase::CountingTables;
            return Act::Ask(Ask::new(COUNTING, count_tables(), limits::STATEMENT_SLOW_LIMIT));
        }
        let is_attached = facts.replica.as_ref().is_some_and(|r| is_well_pointed(context, r));
        if is_attached
            && facts.is_closed
            && facts.replica.as_ref().is_some_and(ReplicaStatus::is_running)
        {
            if self.skipped(context, facts).is_some() {
                self.phase = Phase::Running;
                return Act::LookAfter(limits::LOOK_PAUSE_MAX);
            }
            return Act::Finish(Ok(Outcome::Following { was_following: true }));
        }
        if facts.is_closed {
            return self.attach(context, facts);
        }
        self.phase = Phase::Closing;
        context.ask_to_close(limits::FENCE_PATIENCE)
    }

    /// Why this host must not be attached.
    fn obstacle(&self, context: &Context<'_>, facts: &Facts) -> Option<Failure> {
        if !facts.unfit.is_empty() {
            return Some(Failure::Refused(facts.unfit.join("; ")));
        }
        if let Some(failure) = strange_source(context, facts) {
            return Some(failure);
        }
        let text = self.peer_position.as_deref()?;
        let peer = match Position::parse(context.dialect.flavour(), text) {
            Ok(peer) => peer,
            Err(malformed) => return Some(Failure::Refused(format!("the peer's {malformed}"))),
        };
        // What was received from the peer is the peer's, however old its last beacon is.
        let received = received(context, facts);
        let known = received.as_ref().map_or_else(|| peer.clone(), |it| peer.union(it));
        if known.contains(&facts.position) {
            let had =
                received.map_or_else(|| facts.position.clone(), |it| facts.position.union(&it));
            let own = Writer { uuid: &facts.server_uuid, id: facts.server_id };
            let lost = peer.lost_of(&own, &had);
            let is_lost = lost.transactions > 0 && !takes_its_own_back(context, facts);
            return is_lost.then(|| Failure::Refused(lost_words(&lost)));
        }
        let Beyond { text: extra, transactions } = facts.position.beyond(&known);
        Some(Failure::Diverged { extra, transactions, known: known.to_string() })
    }

    fn attach(&mut self, context: &Context<'_>, facts: &Facts) -> Act {
        // The source's half would let the applier wait for an acknowledgement by nobody.
        if context.semi_sync.is_available() && !self.has_set_halves {
            self.has_set_halves = true;
            self.phase = Phase::SettingHalves;
            let sql = context.dialect.set_semi_sync(false, true);
            return Act::Ask(Ask::new("leaving the source's half", sql, limits::STATEMENT_LIMIT));
        }
        match &facts.replica {
            Some(replica) if is_well_pointed(context, replica) => self.start(context),
            Some(_) => self.stop(context, Phase::Stopping),
            None => self.adopt_position(context, facts),
        }
    }

    fn stop(&mut self, context: &Context<'_>, phase: Phase) -> Act {
        self.phase = phase;
        Act::Ask(Ask::new(
            "stopping replication",
            context.dialect.statements().stop,
            limits::STOP_REPLICA_LIMIT,
        ))
    }

    fn adopt_position(&mut self, context: &Context<'_>, facts: &Facts) -> Act {
        let position = facts.position_to_adopt.as_deref();
        match position.and_then(|position| context.dialect.adopt_position(position)) {
            Some(sql) => {
                self.phase = Phase::AdoptingPosition;
                Act::Ask(Ask::new("adopting the own position", sql, limits::STATEMENT_LIMIT))
            }
            None => self.change_source(context),
        }
    }

    fn change_source(&mut self, context: &Context<'_>) -> Act {
        self.phase = Phase::ChangingSource;
        self.has_changed_source = true;
        let sql = context.dialect.change_source(&Source {
            host: context.site.peer_address(),
            port: context.config.port,
            user: &context.config.replication_user,
            password: context.config.replication_password.reveal(),
        });
        Act::Ask(Ask::new("pointing at the peer", sql, limits::STATEMENT_SLOW_LIMIT))
    }

    fn start(&mut self, context: &Context<'_>) -> Act {
        self.phase = Phase::Starting;
        let sql = context.dialect.statements().start;
        Act::Ask(Ask::new("starting replication", sql, limits::STATEMENT_SLOW_LIMIT))
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context<'_>,
        result: Result<Rows, ServerError>,
    ) -> Act {
        if let (Phase::CountingTables, Ok(rows)) = (&self.phase, &result)
            && rows.value(0, &["count"]).is_none_or(|count| count != "0")
        {
            let why = "this database has tables and no position: where its rows come from is not \
                       known; `tandem reseed` makes it a copy, or tell it the position of the one \
                       that it is";
            return Act::Finish(Err(Failure::Refused(why.to_owned())));
        }
        let next: fn(&mut Self, &Context<'_>) -> Act = match self.phase {
            Phase::CountingTables => |job, _| {
                job.has_counted = true;
                job.phase = Phase::Looking;
                Act::Look
            },
            Phase::Closing | Phase::Settling | Phase::SettingHalves => |job, _| {
                job.phase = Phase::Looking;
                Act::Look
            },
            Phase::Stopping => |job, _| {
                job.phase = Phase::Stopped;
                Act::Look
            },
            Phase::AdoptingPosition => Self::change_source,
            Phase::ChangingSource => Self::start,
            Phase::Starting => |job, _| {
                job.phase = Phase::Waiting(limits::LOOK_PAUSE_MIN);
                Act::Look
            },
            Phase::Looking | Phase::Stopped | Phase::Waiting(_) | Phase::Running => {
                return out_of_step();
            }
        };
        match result {
            Ok(_) => next(self, context),
            Err(error) => context.fail(error),
        }
    }

    /// What others than the source wrote, when all that the source itself wrote has come: it sends
    /// the older ones first, so that these were skipped.
    fn skipped(&self, context: &Context<'_>, facts: &Facts) -> Option<Beyond> {
        let replica = facts.replica.as_ref()?;
        let (peer, had) = self.peer_and_had(context, facts)?;
        let source = Writer { uuid: &replica.source_uuid, id: 0 };
        let is_idle = replica.has_read_all || replica.sql_errno != 0;
        let is_over = is_idle && peer.lost_of(&source, &had).transactions == 0;
        let skipped = peer.lost_of_others(&source, &had);
        (is_over && skipped.transactions > 0).then_some(skipped)
    }

    /// The applier failed, and what the receiver still fetches may tell why.
    fn may_tell_why(&self, context: &Context<'_>, facts: &Facts) -> bool {
        let is_fetching = |replica: &ReplicaStatus| {
            replica.sql_errno != 0
                && replica.io == ThreadState::Running
                && self.peer_and_had(context, facts).is_some_and(|(peer, had)| {
                    let source = Writer { uuid: &replica.source_uuid, id: 0 };
                    peer.lost_of(&source, &had).transactions > 0
                })
        };
        facts.replica.as_ref().is_some_and(is_fetching)
    }

    /// The peer's position, and what this host had of it: received or executed.
    fn peer_and_had(&self, context: &Context<'_>, facts: &Facts) -> Option<(Position, Position)> {
        let text = self.peer_position.as_deref()?;
        let peer = Position::parse(context.dialect.flavour(), text).ok()?;
        Some((peer, received(context, facts)?.union(&facts.position)))
    }

    fn wait(&mut self, context: &mut Context<'_>, facts: &Facts, pause: Duration) -> Act {
        let Some(replica) = &facts.replica else {
            return Act::Finish(Err(Failure::NotReplicating("its source was forgotten".into())));
        };
        if replica.is_running() && self.phase == Phase::Running {
            let Some(skipped) = self.skipped(context, facts) else {
                return Act::Finish(Ok(Outcome::Following { was_following: false }));
            };
            self.looks_at_skipped += 1;
            if self.looks_at_skipped >= limits::PARTIAL_LOOKS {
                return Act::Finish(Err(Failure::NotReplicating(lost_words(&skipped))));
            }
            return Act::LookAfter(limits::LOOK_PAUSE_MAX);
        }
        if replica.is_running() {
            self.phase = Phase::Running;
            return Act::LookAfter(limits::LOOK_PAUSE_MAX);
        }
        let is_hopeless = replica.sql_errno != 0
            || (replica.io == ThreadState::Stopped && replica.io_errno != 0)
            || FINAL_IO_ERRORS.contains(&replica.io_errno);
        // A source that was found configured may have been so with an old password. It is alive, or
        // it could not refuse it, so the relay log may go.
        let may_change = replica.io_errno == ACCESS_DENIED && replica.sql_errno == 0;
        if may_change && !self.has_changed_source {
            self.deadline = context.now + limits::FOLLOW_LIMIT;
            return self.stop(context, Phase::Stopping);
        }
        let is_over = context.now >= self.deadline;
        if is_over || (is_hopeless && !self.may_tell_why(context, facts)) {
            // What comes after a transaction that was skipped often does not apply.
            let skipped = self.skipped(context, facts).filter(|_| replica.sql_errno != 0);
            let mut why = skipped.map_or_else(String::new, |it| format!("; {}", lost_words(&it)));
            if BINLOGS_GONE.contains(&replica.io_errno) {
                if facts.position.is_empty() {
                    return Act::Finish(Err(Failure::NeedsCopy(complaint(replica))));
                }
                why += "; a copy of the peer's database has what is missing (`tandem reseed`)";
            }
            return Act::Finish(Err(Failure::NotReplicating(complaint(replica) + &why)));
        }
        self.phase = Phase::Waiting((pause * 2).min(limits::LOOK_PAUSE_MAX));
        Act::LookAfter(pause)
    }
}

/// A strict MariaDB whose receiver acknowledges skips nothing; `attach` turns that half on before
/// it starts the receiver, and leaves one that runs alone.
fn takes_its_own_back(context: &Context<'_>, facts: &Facts) -> bool {
    let starts = !facts.replica.as_ref().is_some_and(ReplicaStatus::is_running);
    let acknowledges = context.semi_sync.replica == Some(true);
    context.dialect.flavour() == Flavour::Mariadb
        && facts.is_strict
        && context.semi_sync.is_available()
        && (starts || acknowledges)
}

/// What came from the source, executed or not.
fn received(context: &Context<'_>, facts: &Facts) -> Option<Position> {
    let received = facts.replica.as_ref().map_or("", |replica| &replica.retrieved);
    Position::parse(context.dialect.flavour(), received).ok()
}

fn lost_words(Beyond { text, transactions }: &Beyond) -> String {
    format!(
        "{transactions} transactions of the peer are lost here ({text}): this server, or one with \
         its number (server_id), wrote them, and a replica skips what bears its own number; \
         a copy of the peer's database has them (`tandem reseed`)"
    )
}

/// A replica of somebody else is not ours to attach or to promote.
pub(super) fn strange_source(context: &Context<'_>, facts: &Facts) -> Option<Failure> {
    let host = &facts.replica.as_ref()?.source_host;
    let clause = || format!("it is a replica of {host}, which is not the peer; detach it first");
    (!context.site.is_peer(host)).then(|| Failure::Refused(clause()))
}

/// A replica of the peer's host that needs no other settings.
const fn is_well_pointed(context: &Context<'_>, replica: &ReplicaStatus) -> bool {
    replica.is_by_gtid && replica.source_port == context.config.port
}

fn applies(facts: &Facts) -> bool {
    facts.replica.as_ref().is_some_and(|replica| replica.sql != ThreadState::Stopped)
}

/// What a replica has to say about why it does not run.
fn complaint(replica: &ReplicaStatus) -> String {
    match (replica.sql_errno, replica.io_errno) {
        (0, 0) => format!("its threads do not run (receiver {:?})", replica.io),
        (0, code) => format!("receiver: error {code}: {}", replica.io_error),
        (code, _) => format!("applier: error {code}: {}", replica.sql_error),
    }
}

const COUNTING: &str = "counting its tables";
/// Those of users, in a table of one number.
fn count_tables() -> String {
    format!(
        "SELECT COUNT(*) AS count FROM information_schema.TABLES \
         WHERE TABLE_TYPE='BASE TABLE' AND TABLE_SCHEMA NOT IN ({OWN_SCHEMAS})"
    )
}

/// ER_ACCESS_DENIED_ERROR.
const ACCESS_DENIED: u32 = 1045;

/// The source has purged what is needed (ER_SOURCE_FATAL_ERROR_READING_BINLOG and its successor).
const BINLOGS_GONE: [u32; 2] = [1236, 13114];

/// Receiver errors that trying again does not mend: wrong password (1045), needed binlogs gone or
/// histories diverged (1236, 13114), equal server ids or UUIDs (1593, 13117).
const FINAL_IO_ERRORS: [u32; 5] = [ACCESS_DENIED, 1236, 13114, 1593, 13117];

/// Waiting until a position is executed here.
#[derive(Debug)]
pub(super) struct CatchUp {
    position: String,
    deadline: Instant,
    pause: Duration,
    progress: Progress,
}

impl CatchUp {
    pub(super) fn new(position: String, deadline: Instant) -> Self {
        let pause = limits::LOOK_PAUSE_MIN;
        Self { position, deadline, pause, progress: Progress::default() }
    }

    pub(super) fn looked(&mut self, context: &mut Context<'_>, facts: &Facts) -> Act {
        let wanted = match Position::parse(context.dialect.flavour(), &self.position) {
            Ok(wanted) => wanted,
            Err(malformed) => return Act::Finish(Err(Failure::Refused(malformed.to_string()))),
        };
        if facts.position.contains(&wanted) {
            let position = facts.position.to_string();
            return Act::Finish(Ok(Outcome::CaughtUp { position }));
        }
        let left = wanted.beyond(&facts.position).transactions;
        let reason = match &facts.replica {
            None => Some("it is no replica".to_owned()),
            Some(replica) if replica.sql == ThreadState::Stopped => Some(complaint(replica)),
            Some(ReplicaStatus { delay_seconds: seconds @ 1.., .. }) => {
                Some(format!("it applies with a delay of {seconds} seconds"))
            }
            Some(_) if context.now >= self.deadline => Some("not in time".to_owned()),
            Some(_) => None,
        };
        if let Some(reason) = reason {
            return Act::Finish(Err(Failure::NotCaughtUp { reason, left }));
        }
        self.progress.report(context, left);
        let pause = self.pause;
        self.pause = (pause * 2).min(limits::LOOK_PAUSE_MAX);
        Act::LookAfter(pause)
    }
}

/// Receiving no more.
#[derive(Debug)]
pub(super) struct StopReceiving;

impl StopReceiving {
    pub(super) fn looked(&self, context: &Context<'_>, facts: &Facts) -> Act {
        match &facts.replica {
            Some(replica) if replica.io != ThreadState::Stopped => {
                let sql = context.dialect.statements().stop_receiver;
                let limit = limits::STATEMENT_LIMIT;
                Act::Ask(Ask::new("stopping the receiver", sql, limit))
            }
            Some(_) | None => Act::Finish(Ok(Outcome::ReceivingStopped)),
        }
    }

    pub(super) fn answered(&self, context: &Context<'_>, result: Result<Rows, ServerError>) -> Act {
        match result {
            Ok(_) => Act::Finish(Ok(Outcome::ReceivingStopped)),
            Err(error) => context.fail(error),
        }
    }
}

/// Says once a second how much is left.
#[derive(Debug, Default)]
pub(super) struct Progress {
    said: Option<(Instant, u64)>,
    most: u64,
}

impl Progress {
    pub(super) fn report(&mut self, context: &mut Context<'_>, left: u64) {
        self.most = self.most.max(left);
        let is_due =
            self.said.is_none_or(|(at, _)| context.now.since(at) >= limits::PROGRESS_INTERVAL);
        if is_due && self.said.is_none_or(|(_, said)| said != left) {
            self.said = Some((context.now, left));
            context.notes.push(format!("applying: {left} of {} transactions left", self.most));
        }
    }
}
