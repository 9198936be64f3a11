//! Shuts out writers: `Fence` (at once, whatever it takes) and `Close` (a switchover's first half).
//!
//! In: facts, answers. Out: SET, KILL. Must not: write anything that reaches the binlog.
//! Read first: facts/repl.md 2.2 and 3.3.  Differs: no FLUSH TABLES WITH READ LOCK, which waits for
//! SELECTs; the server's own read-only lock does not.
//! Not done: an administrator's session (SUPER on 5.6 and MariaDB) still writes; only ending it
//! helps, which happens where it holds a transaction open.

use std::time::Duration;

use super::evict::{Evict, Round, Whom};
use super::job::{Act, Ask, Context, Failure, Outcome, out_of_step};
use super::look::Facts;
use super::rows::{Rows, ServerError};
use crate::limits;

/// Closing the local database.
#[derive(Debug)]
pub(super) struct Shut {
    is_fence: bool,
    /// How long running writes may take before their connections are ended.
    patience: Duration,
    phase: Phase,
    ended: usize,
    attempts: u32,
    has_closed: bool,
    ends_writers: bool,
}

#[derive(Debug)]
enum Phase {
    Looking,
    Closing,
    /// The lock was not to be had; after this round it is asked for again.
    EndingBlockers(Evict),
    /// Commits wait for a replica that is away, and their connections have been ended: nobody is
    /// told that they succeeded when the wait is.
    Releasing,
    StoppingEvents,
    EndingTransactions(Evict),
    Verifying,
}

impl Shut {
    pub(super) fn fence() -> Self {
        Self::new(true, limits::FENCE_PATIENCE, true)
    }

    pub(super) fn close(limit: Duration, ends_writers: bool) -> Self {
        Self::new(false, limit, ends_writers)
    }

    fn new(is_fence: bool, patience: Duration, ends_writers: bool) -> Self {
        let phase = Phase::Looking;
        Self { is_fence, patience, phase, ended: 0, attempts: 0, has_closed: false, ends_writers }
    }

    pub(super) fn looked(&mut self, context: &mut Context<'_>, facts: &Facts) -> Act {
        match self.phase {
            Phase::Looking => self.begin(context, facts),
            Phase::Verifying if facts.is_closed => {
                let (position, ended) = (facts.position.to_string(), self.ended);
                Act::Finish(Ok(if self.is_fence {
                    Outcome::Fenced { position, ended }
                } else {
                    Outcome::Closed { position, ended }
                }))
            }
            // Somebody opened it again meanwhile.
            Phase::Verifying => Act::Finish(Err(Failure::Blocked { ended: self.ended })),
            Phase::Closing
            | Phase::EndingBlockers(_)
            | Phase::Releasing
            | Phase::StoppingEvents
            | Phase::EndingTransactions(_) => out_of_step(),
        }
    }

    fn begin(&mut self, context: &mut Context<'_>, facts: &Facts) -> Act {
        if let (false, Some(replica)) = (self.is_fence, &facts.replica) {
            return Act::Finish(Err(Failure::Refused(format!(
                "it is a replica of {}, and has nothing to hand over",
                replica.source_host
            ))));
        }
        let stops_events = facts.event_scheduler.eq_ignore_ascii_case("ON");
        if !facts.is_closed {
            return self.ask_to_close(context);
        }
        if stops_events {
            return self.stop_events();
        }
        // A closed replica has no writers, and its readers are left alone.
        if facts.replica.is_some() {
            self.phase = Phase::Verifying;
            return self.looked(context, facts);
        }
        self.end_transactions(context)
    }

    fn ask_to_close(&mut self, context: &Context<'_>) -> Act {
        // The first time writes may end by themselves; then their connections have been ended.
        let patience = if self.attempts == 0 { self.patience } else { limits::FENCE_PATIENCE };
        self.attempts += 1;
        self.phase = Phase::Closing;
        context.ask_to_close(patience)
    }

    fn stop_events(&mut self) -> Act {
        self.phase = Phase::StoppingEvents;
        let sql = "SET GLOBAL event_scheduler=OFF";
        Act::Ask(Ask::new("stopping the event scheduler", sql, limits::STATEMENT_LIMIT))
    }

    fn end_transactions(&mut self, context: &Context<'_>) -> Act {
        let whom =
            if self.is_fence && self.has_closed { Whom::Applications } else { Whom::Transactions };
        let (round, ask) = context.evict(whom);
        self.phase = Phase::EndingTransactions(round);
        Act::Ask(ask)
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context<'_>,
        result: Result<Rows, ServerError>,
    ) -> Act {
        match &mut self.phase {
            Phase::Closing => self.asked_to_close(context, result),
            Phase::EndingBlockers(round) => match round.answered(result) {
                Round::Ask(ask) => Act::Ask(ask),
                Round::Over { ended } => {
                    self.ended += ended;
                    if self.is_fence && context.semi_sync.source == Some(true) {
                        self.phase = Phase::Releasing;
                        let sql = context.dialect.set_semi_sync(false, true);
                        let step = "ending the wait for the replica";
                        return Act::Ask(Ask::new(step, sql, limits::STATEMENT_LIMIT));
                    }
                    self.ask_to_close(context)
                }
                Round::Failed(error) => context.fail(error),
            },
            Phase::Releasing => match result {
                Ok(_) | Err(ServerError::Refused { .. }) => self.ask_to_close(context),
                Err(error) => context.fail(error),
            },
            Phase::StoppingEvents => match result {
                // A scheduler that was disabled at start cannot be turned off, and need not be.
                Ok(_) | Err(ServerError::Refused { code: OPTION_PREVENTS_STATEMENT, .. }) => {
                    self.end_transactions(context)
                }
                Err(error) => context.fail(error),
            },
            Phase::EndingTransactions(round) => match round.answered(result) {
                Round::Ask(ask) => Act::Ask(ask),
                Round::Over { ended } => {
                    self.ended += ended;
                    self.phase = Phase::Verifying;
                    Act::Look
                }
                Round::Failed(error) => context.fail(error),
            },
            Phase::Looking | Phase::Verifying => out_of_step(),
        }
    }

    fn asked_to_close(
        &mut self,
        context: &mut Context<'_>,
        result: Result<Rows, ServerError>,
    ) -> Act {
        match result {
            Ok(_) => {
                self.has_closed = true;
                // Stopping a scheduler that is off costs a fraction of a millisecond, which is
                // less than knowing.
                self.stop_events()
            }
            Err(ServerError::Refused { code: LOCK_WAIT_TIMEOUT, .. }) => {
                if self.attempts >= limits::CLOSE_ATTEMPTS || !self.ends_writers {
                    return Act::Finish(Err(Failure::Blocked { ended: self.ended }));
                }
                context.notes.push("writes are still running: ending their connections".to_owned());
                let (round, ask) = context.evict(Whom::Applications);
                self.phase = Phase::EndingBlockers(round);
                Act::Ask(ask)
            }
            Err(error) => context.fail(error),
        }
    }
}

/// ER_LOCK_WAIT_TIMEOUT.
const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// ER_OPTION_PREVENTS_STATEMENT.
const OPTION_PREVENTS_STATEMENT: u16 = 1290;
