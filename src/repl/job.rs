//! Jobs: what the node may ask of the local database, and how a job ends.
//!
//! In: nothing. Out: the types that the job machines share. Must not: know any SQL.
//! Read first: facts/repl.md section 3.8.

use std::fmt;
use std::time::Duration;

use super::dialect::Dialect;
use super::evict::{Evict, Whom};
use super::look::{Facts, SemiSync};
use super::rows::{Rows, ServerError};
use super::{Config, Site};
use crate::limits;
use crate::time::Instant;

/// An order to the engine. Every job starts from what it finds, so that a job that was cut off at
/// any step is simply ordered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Shut out every writer at once, whatever the server was; a starting node's first act.
    Fence,
    /// Make the local database a replica of the peer, which should be alive: MariaDB drops what it
    /// received and did not apply when it starts to replicate again. Refused when it has
    /// transactions that are neither in `peer_position` nor received from the peer.
    Follow { peer_position: Option<String> },
    /// Wait until everything in `position` is executed here.
    CatchUp { position: String, limit: Duration },
    /// Apply all that was received, stop being a replica, open for writes. When it fails or is
    /// abandoned before that, nothing was thrown away, but the receiver is stopped: order it
    /// again, or `Follow`. What a restarted MariaDB had received is not known to it, so whoever
    /// orders this compares the observed position with the last one known of the source.
    Promote,
    /// Shut out writers, letting running statements end within `limit`; yields the final position.
    /// To keep the pause short, let the replica `CatchUp` with the open source first. However it
    /// fails or is abandoned, `Reopen` undoes whatever it did. Statements that run for longer are
    /// ended, or else this fails.
    Close { limit: Duration, ends_writers: bool },
    /// Undo `Close`.
    Reopen,
    /// Stop receiving from a source that is silent; what was received is applied further. A MariaDB
    /// receiver that acknowledges connects to its source once more before it stops, which takes a
    /// second if that is dead: a promotion must not wait for it.
    StopReceiving,
    /// Turn the halves of semi-synchronous replication on or off, loading them where they are
    /// missing. The source's half belongs on an open source with a replica that acknowledges and
    /// nowhere else: on a replica it stops the applier.
    SemiSync { is_source: bool, is_replica: bool },
    /// Let go what waits for a replica that has it and does not say so; what comes waits again.
    Release,
    /// Replace everything here by a copy of the peer's database. The server ends or starts anew at
    /// the end, and whatever it had is gone from the moment the copy begins.
    Reseed,
}

impl Job {
    #[must_use]
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::Fence => JobKind::Fence,
            Self::Follow { .. } => JobKind::Follow,
            Self::CatchUp { .. } => JobKind::CatchUp,
            Self::Promote => JobKind::Promote,
            Self::Close { .. } => JobKind::Close,
            Self::Reopen => JobKind::Reopen,
            Self::StopReceiving => JobKind::StopReceiving,
            Self::SemiSync { .. } | Self::Release => JobKind::SemiSync,
            Self::Reseed => JobKind::Reseed,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobKind {
    Fence,
    Follow,
    CatchUp,
    Promote,
    Close,
    Reopen,
    StopReceiving,
    SemiSync,
    Reseed,
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fence => "fence",
            Self::Follow => "follow",
            Self::CatchUp => "catch up",
            Self::Promote => "promote",
            Self::Close => "close",
            Self::Reopen => "reopen",
            Self::StopReceiving => "stop receiving",
            Self::SemiSync => "semi-synchronous replication",
            Self::Reseed => "reseed",
        })
    }
}

/// How a job ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Read-only; this many connections were ended.
    Fenced {
        position: String,
        ended: usize,
    },
    /// Both threads run. `was_following`: nothing had to be done.
    Following {
        was_following: bool,
    },
    CaughtUp {
        position: String,
    },
    /// Open for writes. The warnings are things that an operator should mend.
    Promoted {
        position: String,
        warnings: Vec<String>,
    },
    /// Read-only; nothing can be added to `position` but by an administrator.
    Closed {
        position: String,
        ended: usize,
    },
    Reopened {
        warnings: Vec<String>,
    },
    ReceivingStopped,
    SemiSync {
        is_source: bool,
    },
    /// It is a copy of the peer's database, once it is started again.
    Reseeded,
}

/// How a job ended badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The database did not answer, or the connection broke, at this step. What the step asked for
    /// may have happened.
    Unreachable { step: &'static str, reason: String },
    /// The server refused a step.
    Server { step: &'static str, code: u16, message: String },
    /// The job does not fit what was found; says what.
    Refused(String),
    /// This host has transactions that the peer has not.
    Diverged {
        extra: String,
        transactions: u64,
        /// What the peer has, as far as it is known here.
        known: String,
    },
    /// The applier stands on an error: received transactions cannot be applied.
    ApplierBroken { code: u32, message: String, left: u64 },
    /// Not everything received was applied within the limit; nothing was thrown away.
    NotDrained { left: u64 },
    /// The applier is kept behind its source on purpose, so that waiting for it is no use.
    Delayed { seconds: u64, left: u64 },
    /// The position was not reached in time, or nothing is replicating towards it.
    NotCaughtUp { reason: String, left: u64 },
    /// The peer cannot be replicated from.
    NotReplicating(String),
    /// This database is empty, and the peer's binlogs do not reach back to its beginning.
    NeedsCopy(String),
    /// A running write or a table lock holds the server open, and ending connections did not help.
    Blocked { ended: usize },
    /// Abandoned, or superseded by a promotion.
    Abandoned,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { step, reason } => write!(f, "{step}: {reason}"),
            Self::Server { step, code, message } => write!(f, "{step}: error {code}: {message}"),
            Self::Refused(reason) | Self::NotReplicating(reason) | Self::NeedsCopy(reason) => {
                f.write_str(reason)
            }
            Self::Diverged { extra, transactions, .. } => {
                write!(f, "{transactions} transactions are here and not on the peer: {extra}")
            }
            Self::ApplierBroken { code, message, left } => {
                write!(f, "{left} received transactions cannot be applied: error {code}: {message}")
            }
            Self::NotDrained { left } => {
                write!(f, "{left} received transactions are still to be applied")
            }
            Self::Delayed { seconds, left } => write!(
                f,
                "{left} received transactions are held back by a delay of {seconds} seconds"
            ),
            Self::NotCaughtUp { reason, left } => {
                write!(f, "{left} transactions are missing: {reason}")
            }
            Self::Blocked { ended: 0 } => {
                f.write_str("a statement that runs, or a table lock, holds it open for writes")
            }
            Self::Blocked { ended } => {
                write!(f, "still open for writes after ending {ended} connections")
            }
            Self::Abandoned => f.write_str("abandoned"),
        }
    }
}

/// What a job machine wants next.
#[derive(Debug)]
pub(super) enum Act {
    /// Look at the server and call `looked`.
    Look,
    /// The same after a pause.
    LookAfter(Duration),
    /// Send this and call `answered`.
    Ask(Ask),
    Finish(Result<Outcome, Failure>),
}

/// One statement of a job.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) step: &'static str,
    pub(super) sql: String,
    pub(super) limit: Duration,
}

impl Ask {
    pub(super) fn new(step: &'static str, sql: impl Into<String>, limit: Duration) -> Self {
        Self { step, sql: sql.into(), limit }
    }
}

/// What every job machine may read, and where it leaves its notes.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) config: &'a Config,
    pub(super) site: &'a Site,
    pub(super) dialect: Dialect,
    /// As it was at the last look that asked for it.
    pub(super) semi_sync: SemiSync,
    /// The step whose answer is at hand.
    pub(super) step: &'static str,
    pub(super) notes: &'a mut Vec<String>,
}

impl Context<'_> {
    /// Begins to end connections of others.
    pub(super) fn evict(&self, whom: Whom) -> (Evict, Ask) {
        Evict::start(whom, &self.config.user, &self.config.replication_user)
    }

    /// Closes the server, waiting for writes that run; in whole seconds, as its lock wait is.
    pub(super) fn ask_to_close(&self, patience: Duration) -> Act {
        let seconds = patience.clamp(limits::FENCE_PATIENCE, limits::CLOSE_PATIENCE_MAX).as_secs();
        let limit = Duration::from_secs(seconds) + limits::STATEMENT_LIMIT;
        Act::Ask(Ask::new("closing for writes", self.dialect.close(seconds), limit))
    }

    /// The step was refused, or not answered: the job ends.
    pub(super) fn fail(&self, error: ServerError) -> Act {
        Act::Finish(Err(Failure::at(self.step, error)))
    }
}

impl Failure {
    pub(super) fn at(step: &'static str, error: ServerError) -> Self {
        match error {
            ServerError::Refused { code, message } => Self::Server { step, code, message },
            ServerError::Unreachable(reason) => Self::Unreachable { step, reason },
            ServerError::TimedOut => {
                Self::Unreachable { step, reason: ServerError::TimedOut.to_string() }
            }
        }
    }
}

/// A machine was called in a phase that waits for something else: a bug of the engine, reported
/// rather than panicked on, because a promotion may hang on it.
pub(super) fn out_of_step() -> Act {
    Act::Finish(Err(Failure::Refused("the job lost its step".to_owned())))
}

/// The running job.
#[derive(Debug)]
pub(super) enum Machine {
    Shut(super::shut::Shut),
    Follow(super::follow::Follow),
    CatchUp(super::follow::CatchUp),
    Promote(super::promote::Promote),
    Reopen(super::open::Reopen),
    StopReceiving(super::follow::StopReceiving),
    SemiSync(super::semi_sync::Halves),
    Reseed(super::reseed::Reseed),
}

impl Machine {
    pub(super) fn new(job: Job, now: Instant) -> Self {
        match job {
            Job::Fence => Self::Shut(super::shut::Shut::fence()),
            Job::Follow { peer_position } => {
                Self::Follow(super::follow::Follow::new(peer_position, now))
            }
            Job::CatchUp { position, limit } => {
                Self::CatchUp(super::follow::CatchUp::new(position, now + limit))
            }
            Job::Promote => Self::Promote(super::promote::Promote::new(now)),
            Job::Close { limit, ends_writers } => {
                Self::Shut(super::shut::Shut::close(limit, ends_writers))
            }
            Job::Reopen => Self::Reopen(super::open::Reopen::new()),
            Job::StopReceiving => Self::StopReceiving(super::follow::StopReceiving),
            Job::Release => Self::SemiSync(super::semi_sync::Halves::release()),
            Job::SemiSync { is_source, is_replica } => {
                Self::SemiSync(super::semi_sync::Halves::new(is_source, is_replica))
            }
            Job::Reseed => Self::Reseed(super::reseed::Reseed::default()),
        }
    }

    pub(super) fn looked(&mut self, context: &mut Context<'_>, facts: Facts) -> Act {
        match self {
            Self::Shut(job) => job.looked(context, &facts),
            Self::Follow(job) => job.looked(context, &facts),
            Self::CatchUp(job) => job.looked(context, &facts),
            Self::Promote(job) => job.looked(context, &facts),
            Self::Reopen(job) => job.looked(context, &facts),
            Self::StopReceiving(job) => job.looked(context, &facts),
            Self::SemiSync(job) => job.looked(context, &facts),
            Self::Reseed(job) => job.looked(context, &facts),
        }
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context<'_>,
        result: Result<Rows, ServerError>,
    ) -> Act {
        match self {
            Self::Shut(job) => job.answered(context, result),
            Self::Follow(job) => job.answered(context, result),
            Self::CatchUp(_) => out_of_step(),
            Self::Promote(job) => job.answered(context, result),
            Self::Reopen(job) => job.answered(context, result),
            Self::StopReceiving(job) => job.answered(context, result),
            Self::SemiSync(job) => job.answered(context, result),
            Self::Reseed(job) => job.answered(context, result),
        }
    }

    /// Whether it can be dropped between two statements without leaving the server half open.
    pub(super) fn is_abandonable(&self) -> bool {
        match self {
            Self::Shut(_) | Self::Follow(_) | Self::CatchUp(_) | Self::StopReceiving(_) => true,
            Self::Promote(job) => !job.is_opening(),
            Self::Reopen(job) => !job.is_opening(),
            Self::SemiSync(job) => !job.is_open_to_administrators(),
            Self::Reseed(_) => false,
        }
    }
}
