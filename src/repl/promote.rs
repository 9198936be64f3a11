//! Promotion: applies everything that was received, gives up the source, opens for writes.
//!
//! In: facts, answers. Out: STOP, RESET ALL, then `open`. Must not: forget the source before the
//! relay log is applied, or open while anything received is missing.
//! Read first: facts/repl.md 3.8 "failover(B)", section 0 items 2 and 8.
//!
//! Not done: taking a delay (MASTER_DELAY) off. MySQL 5.6 and MariaDB drop the relay log with it,
//! and nobody delays the replica of a pair; with anything left it is refused by name.
//!
//! MariaDB drops its relay log when its applier starts while both threads are stopped, so a stopped
//! applier is started before the receiver is stopped, and what was received is remembered here.
//!
//! ```text
//!  look -> stop receiver -> look until drained -> stop -> look -> forget source -> open -> look
//!    |  ^                                          | ^ does not end:
//!    |  +-- start applier                          +-+ end the applier, stop again
//!    +-- no replica: open
//! ```
//! A promotion that was cut off starts again from the look, and skips what was done.

use std::time::Duration;

use super::evict::{Evict, Round, Whom};
use super::follow::{Progress, strange_source};
use super::gtid::{Flavour, Position};
use super::job::{Act, Ask, Context, Failure, Outcome, out_of_step};
use super::look::{Facts, ReplicaStatus, ThreadState};
use super::open::{Open, Opened};
use super::rows::{Rows, ServerError};
use crate::limits;
use crate::time::Instant;

/// Making the local database the source.
#[derive(Debug)]
pub(super) struct Promote {
    phase: Phase,
    started_at: Instant,
    pause: Duration,
    progress: Progress,
    /// All that was ever seen as received.
    received: Option<Position>,
    /// Looks in a row at which the applier had read all, with only its last transaction missing.
    looks_at_partial: u32,
    stops: u32,
    warnings: Vec<String>,
}

#[derive(Debug)]
enum Phase {
    Looking,
    StoppingReceiver,
    StartingApplier,
    Draining,
    Stopping,
    EndingApplier(Evict),
    Stopped,
    ForgettingSource,
    Opening(Open),
    Verifying,
}

impl Promote {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Looking,
            started_at: now,
            pause: limits::LOOK_PAUSE_MIN,
            progress: Progress::default(),
            received: None,
            looks_at_partial: 0,
            stops: 0,
            warnings: Vec::new(),
        }
    }

    /// From here on there is only forward.
    pub(super) const fn is_opening(&self) -> bool {
        match self.phase {
            Phase::Looking
            | Phase::StoppingReceiver
            | Phase::StartingApplier
            | Phase::Draining
            | Phase::Stopping
            | Phase::EndingApplier(_)
            | Phase::Stopped => false,
            Phase::ForgettingSource | Phase::Opening(_) | Phase::Verifying => true,
        }
    }

    pub(super) fn looked(&mut self, context: &mut Context<'_>, facts: &Facts) -> Act {
        if let Some(replica) = &facts.replica {
            match Position::parse(context.dialect.flavour(), &replica.retrieved) {
                Ok(seen) => {
                    let before = self.received.take();
                    self.received = Some(before.map_or_else(|| seen.clone(), |b| b.union(&seen)));
                }
                Err(malformed) => {
                    let reason = format!("what it received: {malformed}");
                    return Act::Finish(Err(Failure::Refused(reason)));
                }
            }
        }
        match self.phase {
            Phase::Looking => self.begin(context, facts),
            Phase::Draining => self.drain(context, facts),
            Phase::Stopped => self.stopped(context, facts),
            Phase::Verifying if facts.is_read_only => {
                Act::Finish(Err(Failure::Refused("it was closed again meanwhile".to_owned())))
            }
            Phase::Verifying => Act::Finish(Ok(Outcome::Promoted {
                position: facts.position.to_string(),
                warnings: std::mem::take(&mut self.warnings),
            })),
            Phase::StoppingReceiver
            | Phase::StartingApplier
            | Phase::Stopping
            | Phase::EndingApplier(_)
            | Phase::ForgettingSource
            | Phase::Opening(_) => out_of_step(),
        }
    }

    fn begin(&mut self, context: &mut Context<'_>, facts: &Facts) -> Act {
        if !facts.unfit.is_empty() {
            return Act::Finish(Err(Failure::Refused(facts.unfit.join("; "))));
        }
        if let Some(failure) = strange_source(context, facts) {
            return Act::Finish(Err(failure));
        }
        let Some(replica) = &facts.replica else { return self.open(context) };
        if let Some(failure) = self.applier_error(context, facts, replica) {
            return Act::Finish(Err(failure));
        }
        let left = self.left(facts);
        if replica.delay_seconds > 0 && left > 0 {
            let seconds = replica.delay_seconds;
            return Act::Finish(Err(Failure::Delayed { seconds, left }));
        }
        if replica.sql == ThreadState::Stopped && left > 0 {
            return self.start_applier(context);
        }
        self.phase = Phase::StoppingReceiver;
        let sql = context.dialect.statements().stop_receiver;
        Act::Ask(Ask::new("stopping the receiver", sql, limits::STOP_REPLICA_LIMIT))
    }

    fn start_applier(&mut self, context: &Context<'_>) -> Act {
        self.phase = Phase::StartingApplier;
        let sql = context.dialect.statements().start_applier;
        Act::Ask(Ask::new("starting the applier", sql, limits::STATEMENT_SLOW_LIMIT))
    }

    /// The receiver is stopped, so what was received grows no more.
    fn drain(&mut self, context: &mut Context<'_>, facts: &Facts) -> Act {
        let Some(replica) = &facts.replica else { return self.open(context) };
        let left = self.left(facts);
        if left == 0 {
            return self.stop(context);
        }
        if let Some(failure) = self.applier_error(context, facts, replica) {
            return Act::Finish(Err(failure));
        }
        if replica.sql == ThreadState::Stopped {
            return self.start_applier(context);
        }
        if left == 1 && replica.has_read_all {
            // MySQL 5.6 lists a transaction of which only a part was received; it can never be
            // applied, and its source never acknowledged it.
            self.looks_at_partial += 1;
            if self.looks_at_partial >= limits::PARTIAL_LOOKS {
                self.warnings.push("the last transaction was received in part, and dropped".into());
                return self.stop(context);
            }
            return Act::LookAfter(limits::LOOK_PAUSE_MAX);
        }
        self.looks_at_partial = 0;
        if context.now.since(self.started_at) >= context.config.drain_limit {
            return Act::Finish(Err(Failure::NotDrained { left }));
        }
        self.progress.report(context, left);
        let pause = self.pause;
        self.pause = (pause * 2).min(limits::LOOK_PAUSE_MAX);
        Act::LookAfter(pause)
    }

    fn stop(&mut self, context: &Context<'_>) -> Act {
        self.phase = Phase::Stopping;
        self.stops += 1;
        let sql = context.dialect.statements().stop;
        Act::Ask(Ask::new(STOPPING, sql, limits::STOP_REPLICA_LIMIT))
    }

    fn stopped(&mut self, context: &mut Context<'_>, facts: &Facts) -> Act {
        let Some(replica) = &facts.replica else { return self.open(context) };
        if replica.sql != ThreadState::Stopped {
            return self.end_applier(context);
        }
        let left = self.left(facts);
        if left > u64::from(self.looks_at_partial > 0) {
            return Act::Finish(Err(Failure::NotDrained { left }));
        }
        self.phase = Phase::ForgettingSource;
        let sql = context.dialect.statements().forget_source;
        Act::Ask(Ask::new("forgetting the source", sql, limits::STATEMENT_SLOW_LIMIT))
    }

    fn end_applier(&mut self, context: &mut Context<'_>) -> Act {
        if self.stops >= limits::STOP_REPLICA_ATTEMPTS {
            let reason = "the applier does not stop".to_owned();
            return Act::Finish(Err(Failure::Unreachable { step: STOPPING, reason }));
        }
        context.notes.push("the applier does not stop: ending it".to_owned());
        let (round, ask) = context.evict(Whom::Appliers);
        self.phase = Phase::EndingApplier(round);
        Act::Ask(ask)
    }

    fn open(&mut self, context: &Context<'_>) -> Act {
        let (open, ask) = Open::start(context, true);
        self.phase = Phase::Opening(open);
        Act::Ask(ask)
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context<'_>,
        result: Result<Rows, ServerError>,
    ) -> Act {
        match &mut self.phase {
            Phase::StoppingReceiver => self.then_look(context, result, Phase::Draining),
            Phase::StartingApplier => self.then_look(context, result, Phase::Looking),
            Phase::Stopping if result == Err(ServerError::TimedOut) => self.end_applier(context),
            Phase::Stopping => self.then_look(context, result, Phase::Stopped),
            Phase::EndingApplier(round) => match round.answered(result) {
                Round::Ask(ask) => Act::Ask(ask),
                Round::Over { .. } => self.stop(context),
                Round::Failed(error) => context.fail(error),
            },
            Phase::ForgettingSource => match result {
                Ok(_) => self.open(context),
                Err(error) => context.fail(error),
            },
            Phase::Opening(open) => match open.answered(context, result) {
                Opened::Ask(ask) => Act::Ask(ask),
                Opened::Over { warnings } => {
                    self.warnings.extend(warnings);
                    self.phase = Phase::Verifying;
                    Act::Look
                }
                Opened::Failed(failure) => Act::Finish(Err(failure)),
            },
            Phase::Looking | Phase::Draining | Phase::Stopped | Phase::Verifying => out_of_step(),
        }
    }

    /// How much was received and is not executed.
    fn left(&self, facts: &Facts) -> u64 {
        self.received.as_ref().map_or(0, |received| received.beyond(&facts.position).transactions)
    }

    /// Why the applier cannot apply what is left. An applier that was ended while it waited for
    /// the rest of a transaction complains too, with nothing left.
    fn applier_error(
        &self,
        context: &Context<'_>,
        facts: &Facts,
        replica: &ReplicaStatus,
    ) -> Option<Failure> {
        let left = self.left(facts);
        if left == 0 || replica.sql != ThreadState::Stopped {
            return None;
        }
        let code = replica.sql_errno;
        if code != 0 {
            let message = replica.sql_error.clone();
            return Some(Failure::ApplierBroken { code, message, left });
        }
        let would_drop_relay_log = match context.dialect.flavour() {
            Flavour::Mysql => false,
            Flavour::Mariadb => replica.io == ThreadState::Stopped,
        };
        would_drop_relay_log.then(|| {
            let message = "both threads are stopped, and starting them drops the relay log".into();
            Failure::ApplierBroken { code, message, left }
        })
    }

    fn then_look(
        &mut self,
        context: &Context<'_>,
        result: Result<Rows, ServerError>,
        phase: Phase,
    ) -> Act {
        if let Err(error) = result {
            return context.fail(error);
        }
        self.phase = phase;
        Act::Look
    }
}

const STOPPING: &str = "stopping replication";
