//! Semi-synchronous replication: turns its halves on and off, loads them where they are missing.
//!
//! In: facts, answers. Out: INSTALL PLUGIN, SET, a restarted receiver. Must not: decide when (the
//! node does), or leave a closed server open to administrators.
//! Read first: facts/repl.md section 0 items 12 and 13, 3.2.
//!
//! ```text
//!  look -> [let administrators in -> load both -> shut them out] -> set -> [stop receiver, start]
//! ```
//! A receiver tells its source whether it acknowledges only when it connects.

use super::job::{Act, Ask, Context, Failure, Outcome, out_of_step};
use super::look::{Facts, ThreadState};
use super::rows::{Rows, ServerError};
use crate::limits;

/// Bringing both halves to a wanted state.
#[derive(Debug)]
pub(super) struct Halves {
    is_source: bool,
    is_replica: bool,
    /// The source's half is turned off before it is turned on.
    releases: bool,
    has_looked: bool,
    is_open_to_administrators: bool,
    /// Still to be sent; the last is next.
    steps: Vec<(Step, String)>,
    current: Option<Step>,
    /// Why a half cannot be had.
    refusal: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    LettingIn,
    Loading,
    ShuttingOut,
    Setting,
    Restarting,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::LettingIn => "letting administrators in",
            Self::Loading => "loading semi-synchronous replication",
            Self::ShuttingOut => "shutting administrators out",
            Self::Setting => "setting semi-synchronous replication",
            Self::Restarting => "restarting the receiver",
        }
    }
}

impl Halves {
    pub(super) const fn new(is_source: bool, is_replica: bool) -> Self {
        Self {
            is_source,
            is_replica,
            releases: false,
            has_looked: false,
            is_open_to_administrators: false,
            steps: Vec::new(),
            current: None,
            refusal: None,
        }
    }

    pub(super) fn release() -> Self {
        Self { releases: true, ..Self::new(true, true) }
    }

    pub(super) const fn is_open_to_administrators(&self) -> bool {
        self.is_open_to_administrators
    }

    pub(super) fn looked(&mut self, context: &mut Context<'_>, facts: &Facts) -> Act {
        if self.has_looked {
            return out_of_step();
        }
        self.has_looked = true;
        let statements = context.dialect.statements();
        let acknowledged_before = context.semi_sync.replica == Some(true);
        let receives =
            facts.replica.as_ref().is_some_and(|replica| replica.io != ThreadState::Stopped);
        if self.is_replica && !acknowledged_before && receives {
            self.steps.push((Step::Restarting, statements.start.to_owned()));
            self.steps.push((Step::Restarting, statements.stop_receiver.to_owned()));
        }
        let set = context.dialect.set_semi_sync(self.is_source, self.is_replica);
        self.steps.push((Step::Setting, set));
        if self.releases {
            let off = context.dialect.set_semi_sync(false, self.is_replica);
            self.steps.push((Step::Setting, off));
        }
        if !context.semi_sync.is_available() {
            let shut = |is_shut| {
                context.dialect.shut_out_administrators(is_shut).filter(|_| facts.is_closed)
            };
            self.steps.extend(shut(true).map(|sql| (Step::ShuttingOut, sql)));
            let loads = context.dialect.load_semi_sync();
            self.steps.extend(loads.into_iter().map(|sql| (Step::Loading, sql)));
            self.steps.extend(shut(false).map(|sql| (Step::LettingIn, sql)));
        }
        self.next()
    }

    fn next(&mut self) -> Act {
        // Without the halves there is nothing to set, but a server that was let open is closed.
        if self.refusal.is_some() {
            self.steps.retain(|(step, _)| *step == Step::ShuttingOut);
        }
        if let Some((step, sql)) = self.steps.pop() {
            self.current = Some(step);
            self.is_open_to_administrators |= step == Step::LettingIn;
            return Act::Ask(Ask::new(step.name(), sql, limits::STATEMENT_SLOW_LIMIT));
        }
        Act::Finish(match self.refusal.take() {
            Some(reason) => Err(Failure::Refused(reason)),
            None => Ok(Outcome::SemiSync { is_source: self.is_source }),
        })
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context<'_>,
        result: Result<Rows, ServerError>,
    ) -> Act {
        let Some(step) = self.current.take() else { return out_of_step() };
        match (step, result) {
            (Step::ShuttingOut, Ok(_)) => {
                self.is_open_to_administrators = false;
                self.next()
            }
            (_, Ok(_)) => self.next(),
            // ER_UDF_EXISTS: it was loaded by somebody else, or only its other half was missing.
            (Step::Loading, Err(ServerError::Refused { code: 1125, .. })) => self.next(),
            (Step::Loading | Step::Setting, Err(ServerError::Refused { code, message })) => {
                self.refusal = Some(format!("this server has none: error {code}: {message}"));
                self.next()
            }
            (_, Err(error)) => context.fail(error),
        }
    }
}
