//! The order in which two engines' jobs exchange the roles of their servers, and how it is undone.
//!
//! In: how each job ended. Out: the next job and whose it is. Must not: know any SQL, or repeat
//! what a job decides by itself.
//! Read first: facts/repl.md 2.1 "Switchover", section 0 item 5 (the hole of the original).
//!
//! ```text
//!  replica catches up -> source closes -> replica catches up -> replica is promoted -> demotion
//!        |                    |                  |                     |
//!        |                    v                  v                     v
//!        |                source reopens <-------+          replica is fenced: has it nothing
//!        v                                                   of its own, the source reopens and
//!  nothing was changed                                       the replica follows it again
//! ```
//! The source stays read-only from its closing on; it is opened again only when the replica is
//! known to be shut, and to have nothing that the source has not.

use std::time::Duration;

use super::gtid::{Flavour, Position};
use super::job::{Failure, Job, Outcome};

/// The roles at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    Source,
    Replica,
}

/// How far the exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    CatchingUp,
    Closing,
    Draining,
    Promoting,
    Demoting,
    /// Undoing: the replica is shut before the source opens again.
    Fencing,
    Reopening,
    Refollowing,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Run { stage: Stage, whom: Whom, job: Job },
    Over(Ending),
}

/// How the exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The replica is the source. `ended`: connections that were ended to close the old one.
    Switched { warnings: Vec<String>, ended: usize },
    /// The replica is the source, and the old source is read-only and follows nobody.
    NotDemoted { why: Failure, warnings: Vec<String> },
    /// As before.
    Undone { why: Failure, at: Stage },
    /// Nobody takes writes, and only an operator can tell who should.
    Stuck { why: Failure, at: Stage, then: String },
}

/// One exchange.
#[derive(Debug)]
pub struct Switchover {
    flavour: Flavour,
    limit: Duration,
    closed_limit: Duration,
    demotes: bool,
    ends_writers: bool,
    stage: Stage,
    /// Where the source stands, first while it is open, then for good.
    position: String,
    /// Where the new source stood when it was opened.
    promoted: String,
    ended: usize,
    warnings: Vec<String>,
    failed: Option<(Failure, Stage)>,
    ending: Option<Ending>,
}

impl Switchover {
    /// `limit` bounds the wait while the source is open, `closed_limit` the one while nobody
    /// can write. The old source is demoted, and writers that hold it open are ended, if it is
    /// said so.
    #[must_use]
    pub fn new(
        flavour: Flavour,
        position: String,
        limit: Duration,
        closed_limit: Duration,
        demotes: bool,
        ends_writers: bool,
    ) -> Self {
        Self {
            flavour,
            limit,
            closed_limit,
            demotes,
            ends_writers,
            stage: Stage::CatchingUp,
            position,
            promoted: String::new(),
            ended: 0,
            warnings: Vec::new(),
            failed: None,
            ending: None,
        }
    }

    /// The same until the job of this step has `ended`.
    #[must_use]
    pub fn next(&self) -> Step {
        if let Some(ending) = &self.ending {
            return Step::Over(ending.clone());
        }
        let catch_up = |limit| Job::CatchUp { position: self.position.clone(), limit };
        let follow = |position: &String| Job::Follow { peer_position: Some(position.clone()) };
        let (whom, job) = match self.stage {
            Stage::CatchingUp => (Whom::Replica, catch_up(self.limit)),
            Stage::Closing => {
                let ends_writers = self.ends_writers;
                (Whom::Source, Job::Close { limit: CLOSE_LIMIT, ends_writers })
            }
            Stage::Draining => (Whom::Replica, catch_up(self.closed_limit)),
            Stage::Promoting => (Whom::Replica, Job::Promote),
            Stage::Demoting => (Whom::Source, follow(&self.promoted)),
            Stage::Fencing => (Whom::Replica, Job::Fence),
            Stage::Reopening => (Whom::Source, Job::Reopen),
            Stage::Refollowing => (Whom::Replica, follow(&self.position)),
        };
        Step::Run { stage: self.stage, whom, job }
    }

    pub fn ended(&mut self, result: Result<Outcome, Failure>) {
        match result {
            Ok(outcome) => self.went_well(outcome),
            Err(failure) => self.went_wrong(failure),
        }
    }

    fn went_well(&mut self, outcome: Outcome) {
        match (self.stage, outcome) {
            (Stage::CatchingUp, _) => self.stage = Stage::Closing,
            (Stage::Closing, Outcome::Closed { position, ended }) => {
                (self.position, self.ended) = (position, ended);
                self.stage = Stage::Draining;
            }
            (Stage::Draining, _) => self.stage = Stage::Promoting,
            (Stage::Promoting, Outcome::Promoted { position, warnings }) => {
                (self.promoted, self.warnings) = (position, warnings);
                self.stage = Stage::Demoting;
                if !self.demotes {
                    self.switched();
                }
            }
            (Stage::Demoting, _) => self.switched(),
            (Stage::Fencing, Outcome::Fenced { position, .. }) => self.fenced(&position),
            (Stage::Reopening, _) => match &self.failed {
                Some((_, Stage::Promoting)) => self.stage = Stage::Refollowing,
                Some(_) | None => self.undone(),
            },
            (Stage::Refollowing, _) => self.undone(),
            // No job ends with another one's outcome.
            (Stage::Closing | Stage::Promoting | Stage::Fencing, other) => {
                self.went_wrong(Failure::Refused(format!("an outcome out of place: {other:?}")));
            }
        }
    }

    fn went_wrong(&mut self, failure: Failure) {
        let at = self.stage;
        match at {
            Stage::CatchingUp => self.ending = Some(Ending::Undone { why: failure, at }),
            Stage::Closing | Stage::Draining => {
                self.failed = Some((failure, at));
                self.stage = Stage::Reopening;
            }
            Stage::Promoting => {
                self.failed = Some((failure, at));
                self.stage = Stage::Fencing;
            }
            Stage::Demoting => {
                let warnings = std::mem::take(&mut self.warnings);
                self.ending = Some(Ending::NotDemoted { why: failure, warnings });
            }
            Stage::Fencing => self.stuck(format!("the replica cannot be shut: {failure}")),
            Stage::Reopening => self.stuck(format!("the source cannot be opened: {failure}")),
            Stage::Refollowing => self.undone(),
        }
    }

    /// The replica is shut. Whether it was ever open shows in what it has.
    fn fenced(&mut self, position: &str) {
        let parse = |text: &str| Position::parse(self.flavour, text);
        match (parse(position), parse(&self.position)) {
            (Ok(replica), Ok(source)) if source.contains(&replica) => {
                self.stage = Stage::Reopening;
            }
            (Ok(_), Ok(_)) => {
                self.stuck("the replica was open, and has transactions of its own".to_owned());
            }
            (Err(wrong), _) | (_, Err(wrong)) => self.stuck(wrong.to_string()),
        }
    }

    fn switched(&mut self) {
        let warnings = std::mem::take(&mut self.warnings);
        self.ending = Some(Ending::Switched { warnings, ended: self.ended });
    }

    fn undone(&mut self) {
        if let Some((why, at)) = self.failed.take() {
            self.ending = Some(Ending::Undone { why, at });
        }
    }

    fn stuck(&mut self, then: String) {
        if let Some((why, at)) = self.failed.take() {
            self.ending = Some(Ending::Stuck { why, at, then });
        }
    }
}

/// How long running writes may hold the source open before their connections are ended, or the
/// exchange is given up.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::super::job::JobKind;
    use super::*;
    use Stage::{
        CatchingUp, Closing, Demoting, Draining, Fencing, Promoting, Refollowing, Reopening,
    };

    const U: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn position(last: u32) -> String {
        format!("{U}:1-{last}")
    }

    fn failure() -> Failure {
        Failure::Refused("for the test".to_owned())
    }

    /// What a job yields when it goes well; the source gains transactions until it is closed.
    fn success(job: &Job) -> Outcome {
        match job.kind() {
            JobKind::Fence => Outcome::Fenced { position: position(9), ended: 0 },
            JobKind::Follow => Outcome::Following { was_following: false },
            JobKind::CatchUp => Outcome::CaughtUp { position: position(9) },
            JobKind::Promote => Outcome::Promoted { position: position(12), warnings: vec![] },
            JobKind::Close => Outcome::Closed { position: position(9), ended: 2 },
            JobKind::Reopen => Outcome::Reopened { warnings: vec![] },
            JobKind::StopReceiving => Outcome::ReceivingStopped,
            JobKind::SemiSync => Outcome::SemiSync { is_source: false },
            JobKind::Reseed => Outcome::Reseeded,
        }
    }

    /// Every job as "stage:job", failing at the stages named.
    fn played(fails: &[Stage], fenced_at: &str, demotes: bool) -> (Vec<Stage>, Ending) {
        let second = Duration::from_secs(1);
        let flavour = Flavour::Mysql;
        let mut plan = Switchover::new(flavour, position(7), second, second, demotes, true);
        let mut stages = Vec::new();
        loop {
            match plan.next() {
                Step::Over(ending) => return (stages, ending),
                Step::Run { stage, job, .. } => {
                    stages.push(stage);
                    assert!(stages.len() < 20, "it ends");
                    plan.ended(match (fails.contains(&stage), stage) {
                        (true, _) => Err(failure()),
                        (false, Fencing) => {
                            Ok(Outcome::Fenced { position: fenced_at.to_owned(), ended: 0 })
                        }
                        (false, _) => Ok(success(&job)),
                    });
                }
            }
        }
    }

    #[test]
    fn the_roles_are_exchanged_with_the_source_closed_all_along() {
        let (stages, ending) = played(&[], "", true);
        assert_eq!(stages, [CatchingUp, Closing, Draining, Promoting, Demoting]);
        assert_eq!(ending, Ending::Switched { warnings: vec![], ended: 2 });
        let (stages, _) = played(&[], "", false);
        assert_eq!(stages, [CatchingUp, Closing, Draining, Promoting]);
    }

    #[test]
    fn a_failure_before_the_replica_opens_restores_what_was() {
        for (stage, expected) in [
            (CatchingUp, vec![CatchingUp]),
            (Closing, vec![CatchingUp, Closing, Reopening]),
            (Draining, vec![CatchingUp, Closing, Draining, Reopening]),
        ] {
            let (stages, ending) = played(&[stage], "", true);
            assert_eq!(stages, expected);
            assert_eq!(ending, Ending::Undone { why: failure(), at: stage });
        }
        let (stages, ending) = played(&[Promoting], &position(9), true);
        assert_eq!(stages[3..], [Promoting, Fencing, Reopening, Refollowing]);
        assert_eq!(ending, Ending::Undone { why: failure(), at: Promoting });
    }

    #[test]
    fn the_source_stays_closed_while_the_replica_may_be_open() {
        let (stages, ending) = played(&[Promoting, Fencing], "", true);
        assert_eq!(stages.last(), Some(&Fencing));
        assert!(matches!(ending, Ending::Stuck { at: Promoting, .. }));
        // It was open for a moment, and somebody wrote.
        let (stages, ending) = played(&[Promoting], &position(10), true);
        assert_eq!(stages.last(), Some(&Fencing));
        assert!(matches!(ending, Ending::Stuck { .. }));
        let (_, ending) = played(&[Draining, Reopening], "", true);
        assert!(matches!(ending, Ending::Stuck { at: Draining, .. }));
    }

    #[test]
    fn a_failed_demotion_does_not_bring_the_old_source_back() {
        let (stages, ending) = played(&[Demoting], "", true);
        assert_eq!(stages.last(), Some(&Demoting));
        assert_eq!(ending, Ending::NotDemoted { why: failure(), warnings: vec![] });
    }
}
