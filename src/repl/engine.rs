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
use super::look::{Facts, Observation, SemiSync, State};
use super::probe::{Answered, CommitProbe};
use super::rows::{Rows, ServerError};
use super::{Config, Durability, Site};
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
    /// The same on a connection of its own, whose writes are not logged (sql_log_bin=0).
    Probe {
        id: u64,
        sql: &'static str,
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
    probe: CommitProbe,
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
    SemiSync(Box<Facts>),
    SemiSyncStatus(Box<Facts>, Rows),
    /// The commit probe is overdue: what does it wait for?
    Commits(Box<Facts>),
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
            probe: CommitProbe::default(),
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

    /// Both threads run and the source is the peer.
    #[must_use]
    pub fn is_following(&self) -> bool {
        let replica = self.observation.replica.as_ref();
        replica.is_some_and(|it| it.is_running() && self.site.is_peer(&it.source_host))
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
            // Whoever opens leaves the source's half; what was seen before would be believed until
            // the next look.
            if let Ok(Outcome::Promoted { .. } | Outcome::Reopened { .. }) = &result
                && let Some(source) = &mut self.observation.semi_sync.source
            {
                *source = false;
            }
            self.outputs.push_back(Output::Done { job: running.kind, result });
        }
    }

    fn answer(&mut self, now: Instant, id: u64, result: Result<Rows, ServerError>) {
        if self.probe.is_asked(id) {
            return self.probe_answered(now, result);
        }
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
            Stage::SemiSync(facts) => facts.dialect.statements().semi_sync_variables,
            Stage::SemiSyncStatus(facts, _) => facts.dialect.statements().semi_sync_status,
            Stage::Commits(_) => "SHOW PROCESSLIST",
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
                match self.facts(now, dialect, &variables, &rows) {
                    Some(facts) if self.must_judge_probe(now, &facts) => {
                        Stage::Commits(Box::new(facts))
                    }
                    Some(facts) if self.wants_semi_sync() => Stage::SemiSync(Box::new(facts)),
                    Some(facts) => return self.look_finished(now, facts),
                    None => return,
                }
            }
            Stage::Commits(facts) => {
                let log_position = facts.dialect.statements().log_position;
                self.observation.commits = self.probe.judge(&rows, log_position);
                if !self.wants_semi_sync() {
                    return self.look_finished(now, *facts);
                }
                Stage::SemiSync(facts)
            }
            // A replica's own half tells nothing more.
            Stage::SemiSync(facts) if rows.rows.is_empty() || facts.replica.is_some() => {
                self.observation.semi_sync = SemiSync::parse(&rows, &Rows::default());
                return self.look_finished(now, *facts);
            }
            Stage::SemiSync(facts) => Stage::SemiSyncStatus(facts, rows),
            Stage::SemiSyncStatus(facts, variables) => {
                self.observation.semi_sync = SemiSync::parse(&variables, &rows);
                return self.look_finished(now, *facts);
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

    /// Jobs look often, and need it once: whether there is something to leave or to turn on.
    fn wants_semi_sync(&self) -> bool {
        self.config.durability != Durability::Asynchronous
            && (self.running().is_none_or(|kind| kind == JobKind::SemiSync)
                || !self.observation.semi_sync.is_available())
    }

    fn facts(
        &mut self,
        now: Instant,
        dialect: Dialect,
        variables: &Rows,
        status: &Rows,
    ) -> Option<Facts> {
        self.dialect = Some(dialect);
        match Facts::parse(dialect, variables, status) {
            Ok(facts) => Some(facts),
            Err(reason) => {
                let state = State::Denied(reason.clone());
                self.observed(now, |observation| observation.state = state);
                self.finish(Err(Failure::Refused(reason)));
                None
            }
        }
    }

    fn look_finished(&mut self, now: Instant, facts: Facts) {
        let dialect = facts.dialect;
        self.observed(now, |observation| {
            observation.flavour = Some(dialect.flavour());
            facts.write_into(observation);
        });
        if self.job.is_some() {
            self.step(now, |machine, context| machine.looked(context, facts));
        } else if self.config.commit_probe && facts.is_open_source() {
            let id = self.last_id + 1;
            if let Some(sql) = self.probe.begin(now, id) {
                self.ask_probe(id, sql);
            }
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

    // ---- the commit probe -------------------------------------------------------------------

    fn must_judge_probe(&self, now: Instant, facts: &Facts) -> bool {
        self.job.is_none() && facts.is_open_source() && self.probe.is_overdue(now)
    }

    fn ask_probe(&mut self, id: u64, sql: &'static str) {
        self.last_id = id;
        let limit = limits::SERVER_READ_MAX;
        self.outputs.push_back(Output::Probe { id, sql, limit });
    }

    fn probe_answered(&mut self, now: Instant, result: Result<Rows, ServerError>) {
        let Some(dialect) = self.dialect else { return self.probe.forget() };
        let id = self.last_id + 1;
        match self.probe.answered(now, dialect, id, result) {
            Answered::Ask(sql) => self.ask_probe(id, sql),
            // It may have been closed meanwhile.
            Answered::Verdict(commits) if !self.observation.is_read_only => {
                if self.observation.commits != commits {
                    self.observation.commits = commits;
                    self.outputs.push_back(Output::Observed(Box::new(self.observation.clone())));
                }
            }
            Answered::Verdict(_) | Answered::Nothing => {}
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
            semi_sync: self.observation.semi_sync,
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
            Self::Probe { id, sql, limit } => write!(f, "Probe({id}, {sql:?}, {limit:?})"),
            Self::Observed(observation) => f.debug_tuple("Observed").field(observation).finish(),
            Self::Done { job, result } => write!(f, "Done({job}, {result:?})"),
            Self::Progress(clause) => f.debug_tuple("Progress").field(clause).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::look::ThreadState;
    use super::*;
    use crate::units::Secret;
    use crate::wire::HostId;
    use std::net::Ipv4Addr;

    const U: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    /// The peer's server.
    const V: &str = "4f22fa47-71ca-11e1-9e33-c80aa9429562";

    /// An engine in virtual time, in front of a server that says what the test wants.
    struct Bench {
        engine: Engine,
        now: Instant,
        /// Queries not answered yet.
        asked: Vec<(u64, String, Duration)>,
        done: Vec<(JobKind, Result<Outcome, Failure>)>,
        observed: usize,
        version: &'static str,
        executed: &'static str,
        is_closed: bool,
        /// Source host, whether both threads run, what was received.
        replica: Option<(&'static str, bool, &'static str)>,
        /// The applier's last error; the receiver runs on.
        applier_errno: &'static str,
        /// Whether the halves of semi-synchronous replication are loaded.
        has_halves: bool,
    }

    fn table(columns: &[(&str, &str)]) -> Rows {
        Rows {
            columns: columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
            rows: vec![columns.iter().map(|(_, value)| Some((*value).to_owned())).collect()],
        }
    }

    impl Bench {
        fn new() -> Self {
            let config = Config {
                port: 3306,
                user: "tandem".to_owned(),
                password: Secret::Text("admin".to_owned()),
                replication_user: "rpl".to_owned(),
                replication_password: Secret::Text("secret".to_owned()),
                drain_limit: Duration::from_secs(60),
                close_limit: Duration::from_secs(3),
                durability: Durability::Continue,
                commit_probe: false,
                is_of_a_pair: true,
                probe_interval: Duration::from_millis(500),
            };
            let addresses = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
            let names = ["first".to_owned(), "second".to_owned()];
            let site = Site { me: HostId::First, addresses, names };
            Self {
                engine: Engine::new(&config, site),
                now: Instant::from_nanos(1_000_000_000),
                asked: Vec::new(),
                done: Vec::new(),
                observed: 0,
                version: "9.7.4",
                executed: "",
                is_closed: true,
                replica: None,
                applier_errno: "0",
                has_halves: false,
            }
        }

        fn handle(&mut self, input: Input) {
            self.engine.handle(self.now, input);
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Query { id, sql, limit } => self.asked.push((id, sql, limit)),
                    Output::Observed(_) => self.observed += 1,
                    Output::Done { job, result } => self.done.push((job, result)),
                    Output::Progress(_) | Output::Probe { .. } => {}
                }
            }
            assert!(self.asked.len() <= 1, "one query at a time: {:?}", self.asked);
        }

        fn wait(&mut self, span: Duration) {
            self.now = self.now + span;
            self.handle(Input::Tick);
        }

        fn answer(&mut self, result: Result<Rows, ServerError>) -> String {
            let (id, sql, _) = self.asked.pop().expect("a query is in flight");
            self.handle(Input::Answer { id, result });
            sql
        }

        fn reply(&self, sql: &str) -> Rows {
            let closed = if self.is_closed { "1" } else { "0" };
            if sql.contains("VERSION()") {
                return table(&[("version", self.version)]);
            }
            if sql.starts_with("SELECT COUNT(*)") {
                return table(&[("count", "0")]);
            }
            if sql.contains("@@GLOBAL.read_only") {
                return table(&[
                    ("read_only", closed),
                    ("is_closed", closed),
                    ("position", self.executed),
                    ("replica_position", ""),
                    ("server_id", "1"),
                    ("event_scheduler", "OFF"),
                    ("log_bin", "1"),
                    ("log_slave_updates", "1"),
                    ("gtid_mode", "ON"),
                ]);
            }
            if sql.starts_with("SHOW GLOBAL VARIABLES LIKE 'rpl") && self.has_halves {
                let row = |name: &str| vec![Some(name.to_owned()), Some("OFF".to_owned())];
                let columns = ["Variable_name", "Value"].map(str::to_owned).to_vec();
                let halves = ["rpl_semi_sync_source_enabled", "rpl_semi_sync_replica_enabled"];
                return Rows { columns, rows: halves.map(row).to_vec() };
            }
            match self.replica {
                Some((host, is_running, received)) if sql.starts_with("SHOW REPLICA STATUS") => {
                    let said = |is_running| if is_running { "Yes" } else { "No" };
                    let has_failed = self.applier_errno != "0";
                    table(&[
                        ("Source_Host", host),
                        ("Source_Port", "3306"),
                        ("Source_UUID", V),
                        ("Replica_IO_Running", said(is_running)),
                        ("Replica_SQL_Running", said(is_running && !has_failed)),
                        ("Last_SQL_Errno", self.applier_errno),
                        ("Retrieved_Gtid_Set", received),
                        ("Auto_Position", "1"),
                    ])
                }
                Some(_) | None => Rows::default(),
            }
        }

        /// Answers until `until` is asked (and not yet answered), or nothing is.
        fn run_until(&mut self, until: &str) -> bool {
            for _ in 0..10_000 {
                match self.asked.last() {
                    Some((_, sql, _)) if sql.starts_with(until) => return true,
                    Some((_, sql, _)) => {
                        let rows = self.reply(sql);
                        self.answer(Ok(rows));
                    }
                    None if self.engine.running().is_some() => self.wait(limits::LOOK_PAUSE_MAX),
                    None => return false,
                }
            }
            panic!("the job goes round in circles");
        }

        /// Runs the job to its end; the statements that are no looks.
        fn statements(&mut self, refuses: &str) -> Vec<String> {
            let mut sent = Vec::new();
            while self.engine.running().is_some() {
                let Some((_, sql, _)) = self.asked.last().cloned() else {
                    self.wait(limits::LOOK_PAUSE_MAX);
                    continue;
                };
                let is_look = sql.starts_with("SHOW") || sql.starts_with("SELECT");
                let result = if !refuses.is_empty() && sql.starts_with(refuses) {
                    Err(ServerError::Refused { code: 1126, message: "no such file".into() })
                } else {
                    Ok(self.reply(&sql))
                };
                sent.extend((!is_look).then_some(sql));
                self.answer(result);
            }
            sent
        }

        fn run(&mut self) -> &Result<Outcome, Failure> {
            assert!(!self.run_until("nothing that is asked"));
            &self.done.last().expect("the job is done").1
        }
    }

    #[test]
    fn looks_every_probe_interval_and_reads_the_version_once() {
        let mut bench = Bench::new();
        bench.wait(Duration::ZERO);
        assert_eq!(bench.asked[0].1, "SELECT VERSION() AS version");
        bench.run_until("x");
        assert_eq!(bench.observed, 1);
        assert_eq!(bench.engine.observation().state, State::Up);
        bench.wait(Duration::from_millis(499));
        assert_eq!(bench.asked.len(), 0, "not due yet");
        bench.wait(Duration::from_millis(1));
        assert!(bench.asked[0].1.contains("@@GLOBAL.read_only"));
        bench.run_until("x");
        assert_eq!(bench.observed, 2);
    }

    #[test]
    fn a_server_that_says_nothing_is_unreachable_and_its_late_answer_ignored() {
        let mut bench = Bench::new();
        bench.wait(Duration::ZERO);
        let (late, ..) = bench.asked.pop().expect("a look");
        let deadline = bench.engine.deadline().expect("the look expires");
        bench.now = deadline;
        bench.handle(Input::Tick);
        let state = bench.engine.observation().state.clone();
        assert_eq!(state, State::Unreachable("no answer within 2s".to_owned()));
        assert_eq!(bench.observed, 1);
        bench.handle(Input::Answer { id: late, result: Ok(Rows::default()) });
        assert_eq!(bench.engine.observation().state, state);
        // It may come back as another version.
        bench.wait(Duration::from_millis(500));
        bench.version = "10.11.19-MariaDB";
        bench.run_until("x");
        assert_eq!(bench.engine.observation().state, State::Up);
        assert_eq!(bench.engine.observation().version, "10.11.19-MariaDB");
    }

    #[test]
    fn a_refused_look_is_not_a_dead_server() {
        let mut bench = Bench::new();
        bench.wait(Duration::ZERO);
        let message = "Too many connections".to_owned();
        bench.answer(Err(ServerError::Refused { code: 1040, message }));
        assert!(matches!(bench.engine.observation().state, State::Denied(_)));
    }

    #[test]
    fn a_second_job_is_refused_and_the_first_goes_on() {
        let mut bench = Bench::new();
        bench.handle(Input::Job(Job::Fence));
        bench.handle(Input::Job(Job::Reopen));
        assert!(matches!(bench.done[..], [(JobKind::Reopen, Err(Failure::Refused(_)))]));
        assert!(matches!(bench.run(), Ok(Outcome::Fenced { .. })));
    }

    #[test]
    fn promote_supersedes_catch_up_after_its_query_ended() {
        let mut bench = Bench::new();
        bench.replica = Some(("10.0.0.2", true, ""));
        let limit = Duration::from_secs(60);
        bench.handle(Input::Job(Job::CatchUp { position: format!("{U}:1"), limit }));
        assert!(bench.run_until("SHOW REPLICA STATUS"));
        bench.handle(Input::Job(Job::Promote));
        assert_eq!(bench.done, [(JobKind::CatchUp, Err(Failure::Abandoned))]);
        assert_eq!(bench.asked.len(), 1, "the old query is still in flight, and nothing else");
        assert!(bench.run_until("STOP REPLICA IO_THREAD"));
    }

    #[test]
    fn a_promotion_is_abandoned_before_it_opens_and_not_after() {
        let mut bench = Bench::new();
        bench.replica = Some(("10.0.0.2", true, ""));
        bench.handle(Input::Job(Job::Promote));
        assert!(bench.run_until("STOP REPLICA IO_THREAD"));
        bench.handle(Input::Abandon);
        assert_eq!(bench.done, [(JobKind::Promote, Err(Failure::Abandoned))]);

        bench.handle(Input::Job(Job::Promote));
        assert!(bench.run_until("SHOW REPLICA STATUS"));
        assert!(bench.run_until("STOP REPLICA"));
        bench.answer(Ok(Rows::default()));
        bench.replica = Some(("10.0.0.2", false, ""));
        assert!(bench.run_until("RESET REPLICA ALL"));
        bench.handle(Input::Abandon);
        assert_eq!(bench.done.len(), 1, "it goes on");
        bench.replica = None;
        assert!(bench.run_until("SET GLOBAL super_read_only=OFF, GLOBAL read_only=OFF"));
        bench.is_closed = false;
        assert!(matches!(bench.run(), Ok(Outcome::Promoted { .. })));
    }

    #[test]
    fn an_applier_that_does_not_stop_is_ended() {
        let mut bench = Bench::new();
        bench.replica = Some(("10.0.0.2", true, ""));
        bench.handle(Input::Job(Job::Promote));
        assert!(bench.run_until("STOP REPLICA IO_THREAD"));
        bench.answer(Ok(Rows::default()));
        assert!(bench.run_until("STOP REPLICA"));
        bench.answer(Err(ServerError::TimedOut));
        assert!(bench.run_until("SHOW PROCESSLIST"));
        bench.answer(Ok(table(&[
            ("ID", "5"),
            ("USER", "system user"),
            ("COMMAND", "Query"),
            ("STATE", "Waiting for an event from Coordinator"),
        ])));
        assert!(bench.run_until("KILL 5"));
        bench.answer(Ok(Rows::default()));
        assert_eq!(bench.asked[0].1, "STOP REPLICA");
    }

    #[test]
    fn a_promotion_forgets_no_source_while_something_received_is_missing() {
        let mut bench = Bench::new();
        let received: &'static str = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-9";
        bench.replica = Some(("10.0.0.2", true, received));
        bench.handle(Input::Job(Job::Promote));
        assert!(bench.run_until("STOP REPLICA IO_THREAD"));
        bench.answer(Ok(Rows::default()));
        // The server loses its memory of what it received; the job does not.
        bench.replica = Some(("10.0.0.2", true, ""));
        assert_eq!(bench.run(), &Err(Failure::NotDrained { left: 9 }));
    }

    #[test]
    fn follow_refuses_what_the_peer_has_not_and_takes_what_came_from_it() {
        let peer_position = Some(format!("{U}:1-5"));
        let mut bench = Bench::new();
        bench.executed = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-7";
        bench.handle(Input::Job(Job::Follow { peer_position: peer_position.clone() }));
        let (extra, known) = (format!("{U}:6-7"), format!("{U}:1-5"));
        assert_eq!(bench.run(), &Err(Failure::Diverged { extra, transactions: 2, known }));

        // The same, but they were received from the peer after its last beacon.
        bench.replica = Some(("10.0.0.2", true, "3e11fa47-71ca-11e1-9e33-c80aa9429562:3-7"));
        bench.handle(Input::Job(Job::Follow { peer_position }));
        assert_eq!(bench.run(), &Ok(Outcome::Following { was_following: true }));
        let replica = bench.engine.observation().replica.as_ref().expect("a replica");
        assert_eq!(replica.io, ThreadState::Running);
    }

    #[test]
    fn a_replica_with_transactions_of_its_own_stands_still_when_they_are_told() {
        let mut bench = Bench::new();
        bench.executed = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-7";
        bench.replica = Some(("10.0.0.2", true, ""));
        bench.handle(Input::Job(Job::Follow { peer_position: Some(format!("{U}:1-5")) }));
        assert!(bench.run_until("STOP REPLICA"));
        bench.answer(Ok(Rows::default()));
        // What was applied meanwhile is the peer's, and was received from it.
        bench.executed = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-8";
        bench.replica = Some(("10.0.0.2", false, "3e11fa47-71ca-11e1-9e33-c80aa9429562:8"));
        let (extra, known) = (format!("{U}:6-7"), format!("{U}:1-5:8"));
        assert_eq!(bench.run(), &Err(Failure::Diverged { extra, transactions: 2, known }));
        // It stays so, and is not asked again and again.
        bench.handle(Input::Job(Job::Follow { peer_position: Some(format!("{U}:1-5")) }));
        assert!(!bench.run_until("STOP REPLICA"));
    }

    #[test]
    fn follow_refuses_a_replica_of_a_stranger() {
        let mut bench = Bench::new();
        bench.replica = Some(("10.9.9.9", true, ""));
        bench.handle(Input::Job(Job::Follow { peer_position: None }));
        assert!(
            matches!(bench.run(), Err(Failure::Refused(reason)) if reason.contains("10.9.9.9"))
        );
        // One that an operator made by name is the peer's.
        bench.replica = Some(("SECOND", true, ""));
        bench.handle(Input::Job(Job::Follow { peer_position: None }));
        assert_eq!(bench.run(), &Ok(Outcome::Following { was_following: true }));
    }

    #[test]
    fn follow_says_why_a_row_has_no_table_though_more_is_still_coming() {
        let mut bench = Bench::new();
        bench.replica = Some(("10.0.0.2", true, "4f22fa47-71ca-11e1-9e33-c80aa9429562:1"));
        bench.is_closed = false;
        bench.applier_errno = "1146";
        let peer_position = Some(format!("{U}:1-9,{V}:1-2"));
        bench.handle(Input::Job(Job::Follow { peer_position: peer_position.clone() }));
        bench.run_until("SET");
        bench.is_closed = true;
        assert!(bench.run_until("START REPLICA"));
        for _ in 0..20 {
            let rows = bench.reply(bench.asked.last().map_or("", |it| &it.1));
            bench.answer(Ok(rows));
            bench.wait(limits::LOOK_PAUSE_MAX);
        }
        assert_eq!(bench.done, [], "the receiver has not all of it yet");
        bench.replica = Some(("10.0.0.2", true, "4f22fa47-71ca-11e1-9e33-c80aa9429562:1-2"));
        let is_told = |done: &Result<Outcome, Failure>| {
            let Err(Failure::NotReplicating(why)) = done else { return false };
            why.contains("9 transactions of the peer are lost")
        };
        assert!(is_told(bench.run()));
        // It ends if the rest never comes.
        bench.replica = Some(("10.0.0.2", true, "4f22fa47-71ca-11e1-9e33-c80aa9429562:1"));
        let start = bench.now;
        bench.handle(Input::Job(Job::Follow { peer_position }));
        assert!(!is_told(bench.run()));
        assert!(bench.now < start + 2 * limits::FOLLOW_LIMIT);
    }

    #[test]
    fn follow_keeps_the_relay_log_of_a_source_that_does_not_answer() {
        let mut bench = Bench::new();
        bench.replica = Some(("10.0.0.2", false, "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-9"));
        bench.handle(Input::Job(Job::Follow { peer_position: None }));
        assert!(!bench.run_until("CHANGE"), "it is started, not changed");
        assert!(matches!(bench.done[..], [(JobKind::Follow, Err(Failure::NotReplicating(_)))]));
    }

    #[test]
    fn a_password_is_shown_by_nothing() {
        let mut bench = Bench::new();
        bench.handle(Input::Job(Job::Follow { peer_position: None }));
        assert!(bench.run_until("CHANGE REPLICATION SOURCE"));
        let (id, sql, limit) = bench.asked[0].clone();
        assert!(sql.contains("SOURCE_PASSWORD='secret'"));
        assert!(!format!("{:?}", Output::Query { id, sql, limit }).contains("secret"));
        let message = "syntax error near 'secret'".to_owned();
        bench.answer(Err(ServerError::Refused { code: 1064, message }));
        let (_, result) = bench.done.last().expect("it failed");
        assert!(!format!("{result:?}").contains("secret"), "{result:?}");
    }

    #[test]
    fn semi_sync_is_loaded_and_set_and_the_server_closed_again() {
        let mut bench = Bench::new();
        bench.replica = Some(("10.0.0.2", true, ""));
        bench.handle(Input::Job(Job::SemiSync { is_source: false, is_replica: true }));
        let sent = bench.statements("");
        let words: Vec<&str> = sent.iter().map(String::as_str).collect();
        assert_eq!(words[0], "SET GLOBAL super_read_only=OFF");
        assert!(words[1..3].iter().all(|sql| sql.starts_with("INSTALL PLUGIN rpl_semi_sync_")));
        assert_eq!(words[3], "SET GLOBAL super_read_only=ON");
        assert!(words[4].ends_with("source_enabled=OFF, GLOBAL rpl_semi_sync_replica_enabled=ON"));
        // A receiver says only when it connects that it acknowledges.
        assert_eq!(words[5..], ["STOP REPLICA IO_THREAD", "START REPLICA"]);
        assert_eq!(bench.done.last().map(|(_, it)| it.is_ok()), Some(true));
    }

    #[test]
    fn a_server_without_semi_sync_is_refused_and_closed_again() {
        let mut bench = Bench::new();
        bench.handle(Input::Job(Job::SemiSync { is_source: false, is_replica: true }));
        let sent = bench.statements("INSTALL");
        assert_eq!(sent.len(), 3, "{sent:?}");
        assert_eq!(sent[2], "SET GLOBAL super_read_only=ON");
        assert!(matches!(bench.done.last(), Some((_, Err(Failure::Refused(_))))));
    }

    #[test]
    fn halves_that_are_there_are_only_set() {
        let mut bench = Bench::new();
        (bench.has_halves, bench.is_closed) = (true, false);
        bench.handle(Input::Job(Job::SemiSync { is_source: true, is_replica: true }));
        let sent = bench.statements("");
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert!(sent[0].contains("source_enabled=ON"), "{sent:?}");
    }
}
