//! The replication engine: looks at the local database, and carries out one job at a time.
//!
//! In: jobs, answers, ticks. Out: queries (one in flight), observations, progress, how jobs ended.
//! Must not: decide what the host should be; remember what it can look up.
//! Read first: facts/repl.md sections 0 and 3.8; `job` for what may be asked.
//!
//! A turn: the answer goes to the look or to the job machine it belongs to; then, with nothing in
//! flight, the next thing is begun: a look for the job, or the periodical look.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::dialect::Dialect;
use super::job::{Act, Ask, Context, Failure, Job, JobKind, Machine, Outcome};
use super::look::{Facts, Observation, State};
use super::rows::{Rows, ServerError};
use super::{Config, Site};
use crate::limits;
use crate::time::{Instant, earliest};

/// What reaches the engine.
#[derive(Debug)]
pub enum Input {
    Job(Job),
    /// Drop the running job as soon as it is safe. A job that has begun to open the database runs
    /// to its end, which is near.
    Abandon,
    Answer {
        id: u64,
        result: Result<Rows, ServerError>,
    },
    Tick,
}

/// What the engine wants done, or has to say.
#[derive(Clone, PartialEq, Eq)]
pub enum Output {
    /// Send `sql` to the local database; answer within `limit`, at the latest with `TimedOut`.
    Query {
        id: u64,
        sql: String,
        limit: Duration,
    },
    /// A look was finished; during a job only when something changed.
    Observed(Box<Observation>),
    Done {
        job: JobKind,
        result: Result<Outcome, Failure>,
    },
    /// One clause for a person.
    Progress(String),
}

/// The replication engine of one host.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    site: Site,
    observation: Observation,
    dialect: Option<Dialect>,
    /// When to look next, while nothing else is going on.
    look_at: Instant,
    look: Option<Look>,
    job: Option<Running>,
    in_flight: Option<InFlight>,
    last_id: u64,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Running {
    kind: JobKind,
    machine: Machine,
    awaits: Awaits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    /// Facts, from a look that begins no earlier than this.
    Look(Instant),
    /// The answer to this step.
    Answer(&'static str),
}

#[derive(Debug)]
struct InFlight {
    id: u64,
    purpose: Purpose,
    /// When the engine itself gives up waiting for the hands.
    expires_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Look,
    Job,
    /// Its job is gone.
    Nobody,
}

/// A look in progress.
#[derive(Debug)]
struct Look {
    started_at: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Version,
    Variables(Dialect),
    Status(Dialect, Rows),
}

impl Engine {
    #[must_use]
    pub fn new(config: &Config, site: Site) -> Self {
        Self {
            config: config.clone(),
            site,
            observation: Observation::default(),
            dialect: None,
            look_at: Instant::ZERO,
            look: None,
            job: None,
            in_flight: None,
            last_id: 0,
            outputs: VecDeque::new(),
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Job(job) => self.order(now, job),
            Input::Abandon => self.abandon(),
            Input::Answer { id, result } => self.answer(now, id, result),
            Input::Tick => {}
        }
        if let Some(late) = self.in_flight.as_ref().filter(|query| now >= query.expires_at) {
            let id = late.id;
            self.answer(now, id, Err(ServerError::TimedOut));
        }
        self.begin_next(now);
    }

    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match (&self.in_flight, &self.job) {
            (Some(query), _) => Some(query.expires_at),
            (None, Some(Running { awaits: Awaits::Look(at), .. })) => {
                earliest(Some(*at), Some(self.look_at))
            }
            (None, Some(Running { awaits: Awaits::Answer(_), .. }) | None) => Some(self.look_at),
        }
    }

    #[must_use]
    pub const fn observation(&self) -> &Observation {
        &self.observation
    }

    /// The job that is being carried out.
    #[must_use]
    pub fn running(&self) -> Option<JobKind> {
        self.job.as_ref().map(|running| running.kind)
    }

    fn order(&mut self, now: Instant, job: Job) {
        let kind = job.kind();
        if let Some(running) = &self.job {
            let is_superseded = kind == JobKind::Promote
                && matches!(running.kind, JobKind::Follow | JobKind::CatchUp);
            if !is_superseded {
                let result =
                    Err(Failure::Refused(format!("busy with another job: {}", running.kind)));
                self.outputs.push_back(Output::Done { job: kind, result });
                return;
            }
            self.finish(Err(Failure::Abandoned));
        }
        let machine = Machine::new(job, now);
        // A look that is under way began before the order, and may be older than what it is about.
        self.look = None;
        self.disown();
        self.job = Some(Running { kind, machine, awaits: Awaits::Look(now) });
    }

    fn abandon(&mut self) {
        if self.job.as_ref().is_some_and(|running| running.machine.is_abandonable()) {
            self.look = None;
            self.finish(Err(Failure::Abandoned));
        }
    }

    /// Leaves the query in flight without an owner; nothing else is sent before it ends.
    const fn disown(&mut self) {
        if let Some(query) = &mut self.in_flight {
            query.purpose = Purpose::Nobody;
        }
    }

    fn finish(&mut self, result: Result<Outcome, Failure>) {
        if let Some(running) = self.job.take() {
            self.disown();
            self.outputs.push_back(Output::Done { job: running.kind, result });
        }
    }

    fn answer(&mut self, now: Instant, id: u64, result: Result<Rows, ServerError>) {
        let Some(query) = self.in_flight.take_if(|query| query.id == id) else { return };
        let result = result.map_err(|error| self.without_password(error));
        match query.purpose {
            Purpose::Look => self.look_answered(now, result),
            Purpose::Job => self.step(now, |machine, context| machine.answered(context, result)),
            Purpose::Nobody => {}
        }
    }

    /// Servers quote the statement that they refuse.
    fn without_password(&self, error: ServerError) -> ServerError {
        let password = self.config.replication_password.reveal();
        match error {
            ServerError::Refused { code, message } if !password.is_empty() => {
                ServerError::Refused { code, message: message.replace(password, "***") }
            }
            ServerError::Refused { .. } | ServerError::Unreachable(_) | ServerError::TimedOut => {
                error
            }
        }
    }

    fn begin_next(&mut self, now: Instant) {
        if self.in_flight.is_some() {
            return;
        }
        let is_due = match &self.job {
            Some(Running { awaits: Awaits::Look(at), .. }) => now >= *at,
            Some(Running { awaits: Awaits::Answer(_), .. }) => false,
            None => now >= self.look_at,
        };
        if is_due && self.look.is_none() {
            let stage = self.dialect.map_or(Stage::Version, Stage::Variables);
            self.look = Some(Look { started_at: now, stage });
            self.ask_look(now);
        }
    }

    // ---- looks ------------------------------------------------------------------------------

    fn ask_look(&mut self, now: Instant) {
        let Some(look) = &self.look else { return };
        let sql = match &look.stage {
            Stage::Version => "SELECT VERSION() AS version",
            Stage::Variables(dialect) => dialect.statements().variables,
            Stage::Status(dialect, _) => dialect.statements().replica_status,
        };
        let limit = limits::LOOK_LIMIT.saturating_sub(now.since(look.started_at));
        let sql = sql.to_owned();
        self.ask(now, Purpose::Look, sql, limit);
    }

    fn look_answered(&mut self, now: Instant, result: Result<Rows, ServerError>) {
        let Some(look) = self.look.take() else { return };
        let rows = match result {
            Ok(rows) => rows,
            Err(error) => return self.look_failed(now, error),
        };
        let stage = match look.stage {
            Stage::Version => {
                let version = rows.value(0, &["version"]).unwrap_or_default();
                self.observation.version = version.to_owned();
                match Dialect::from_version(version) {
                    Some(dialect) => Stage::Variables(dialect),
                    None => return self.version_unknown(now),
                }
            }
            Stage::Variables(dialect) => Stage::Status(dialect, rows),
            Stage::Status(dialect, variables) => {
                return self.look_finished(now, dialect, &variables, &rows);
            }
        };
        self.look = Some(Look { started_at: look.started_at, stage });
        self.ask_look(now);
    }

    fn look_failed(&mut self, now: Instant, error: ServerError) {
        // What answers next may be another version.
        self.dialect = None;
        let state = match &error {
            ServerError::Refused { .. } => State::Denied(error.to_string()),
            ServerError::Unreachable(reason) => State::Unreachable(reason.clone()),
            ServerError::TimedOut => {
                State::Unreachable(format!("no answer within {:?}", limits::LOOK_LIMIT))
            }
        };
        self.observed(now, |observation| observation.state = state);
        self.finish(Err(Failure::at(LOOKING, error)));
    }

    fn version_unknown(&mut self, now: Instant) {
        let clause = format!("version {:?} has no GTIDs", self.observation.version);
        let reason = clause.clone();
        self.observed(now, |observation| {
            observation.state = State::Up;
            observation.unfit = vec![clause];
        });
        self.finish(Err(Failure::Refused(reason)));
    }

    fn look_finished(&mut self, now: Instant, dialect: Dialect, variables: &Rows, status: &Rows) {
        self.dialect = Some(dialect);
        let facts = match Facts::parse(dialect, variables, status) {
            Ok(facts) => facts,
            Err(reason) => {
                let state = State::Denied(reason.clone());
                self.observed(now, |observation| observation.state = state);
                return self.finish(Err(Failure::Refused(reason)));
            }
        };
        self.observed(now, |observation| {
            observation.flavour = Some(dialect.flavour());
            facts.write_into(observation);
        });
        if self.job.is_some() {
            self.step(now, |machine, context| machine.looked(context, facts));
        }
    }

    fn observed(&mut self, now: Instant, change: impl FnOnce(&mut Observation)) {
        let before = self.observation.clone();
        change(&mut self.observation);
        self.look_at = now + self.config.probe_interval;
        if self.job.is_none() || before != self.observation {
            self.outputs.push_back(Output::Observed(Box::new(self.observation.clone())));
        }
    }

    // ---- jobs -------------------------------------------------------------------------------

    fn step(&mut self, now: Instant, run: impl FnOnce(&mut Machine, &mut Context<'_>) -> Act) {
        let (Some(running), Some(dialect)) = (&mut self.job, self.dialect) else { return };
        let mut notes = Vec::new();
        let mut context = Context {
            now,
            config: &self.config,
            site: &self.site,
            dialect,
            step: match running.awaits {
                Awaits::Answer(step) => step,
                Awaits::Look(_) => LOOKING,
            },
            notes: &mut notes,
        };
        let act = run(&mut running.machine, &mut context);
        self.outputs.extend(notes.into_iter().map(Output::Progress));
        match act {
            Act::Look => running.awaits = Awaits::Look(now),
            Act::LookAfter(pause) => running.awaits = Awaits::Look(now + pause),
            Act::Ask(Ask { step, sql, limit }) => {
                running.awaits = Awaits::Answer(step);
                self.ask(now, Purpose::Job, sql, limit);
            }
            Act::Finish(result) => {
                self.finish(result);
                // What the job has changed is seen at once.
                self.look_at = now;
            }
        }
    }

    fn ask(&mut self, now: Instant, purpose: Purpose, sql: String, limit: Duration) {
        self.last_id += 1;
        let id = self.last_id;
        let expires_at = now + limit + limits::ANSWER_GRACE;
        self.in_flight = Some(InFlight { id, purpose, expires_at });
        self.outputs.push_back(Output::Query { id, sql, limit });
    }
}

const LOOKING: &str = "looking at the database";

/// Statements that carry a password are cut off before it.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query { id, sql, limit } => {
                let end = ["IDENTIFIED BY", "_PASSWORD="].iter().filter_map(|word| sql.find(word));
                let shown = &sql[..end.min().unwrap_or(sql.len())];
                write!(f, "Query({id}, {shown:?}, {limit:?})")
            }
            Self::Observed(observation) => f.debug_tuple("Observed").field(observation).finish(),
            Self::Done { job, result } => write!(f, "Done({job}, {result:?})"),
            Self::Progress(clause) => f.debug_tuple("Progress").field(clause).finish(),
        }
    }
}
