//! A host: power, clock, the guard, the node's process, its disk, its data plane.
//!
//! In: inputs for the node, power, crashes. Out: what the hands do with each output of the node.
//! Must not: decide anything that the real hands or guard do not.
//! Read first: os/hands.rs, os/run.rs, os/guard.rs.

use std::collections::VecDeque;
use std::time::Duration;

use tandem::console::note::Note;
use tandem::node::{Input, Node, Output, Persistent, Will};
use tandem::repl::ServerError;
use tandem::time::{Instant, Rng};
use tandem::wire::{HostId, LinkId, Role};

use super::client::Data;
use super::kernel::Kernel;
use super::mysqld::{Answer, Life, Mysqld};
use super::wire::{CLIENT, Frame};
use super::world::{Event, Query, World};

#[derive(Debug)]
pub struct Host {
    pub id: HostId,
    pub is_powered: bool,
    /// The whole virtual machine stands still since then.
    pub frozen_since: Option<Instant>,
    /// What was under way inside it by then, for the node's run of that number.
    pub frozen_inputs: Vec<(u64, Input)>,
    pub clock: Clock,
    pub kernel: Kernel,
    pub disk: Persistent,
    /// What the peer had, by the last save.
    pub saved_for: String,
    pub database: Mysqld,
    pub data: Data,
    pub process: Option<Process>,
    /// Number of the node's present or last run.
    pub run: u64,
    pub guard: Guard,
    /// As its notes said last.
    pub role: Role,
    pub role_since: Instant,
}

#[derive(Debug)]
pub struct Process {
    node: Node,
    wake_at: Option<Instant>,
    pub started_at: Instant,
    /// What came in while the process did not run.
    pub stalled: Option<VecDeque<Input>>,
    stalled_at: Instant,
    pub is_terminating: bool,
}

#[derive(Debug, Default)]
pub struct Guard {
    /// Number of the guard's run; 0 while there is none.
    pub run: u64,
    will: Will,
    delay: Duration,
    is_ending: bool,
}

/// CLOCK_BOOTTIME of a host against true time.
#[derive(Debug)]
pub struct Clock {
    booted_at: Instant,
    /// Nanoseconds gained in a second.
    rate: i64,
    offset: u64,
    /// Time that the clock did not see pass.
    missed: u64,
}

const RESTART_DELAY_MIN: Duration = Duration::from_millis(500);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(30);
const STEADY_TIME: Duration = Duration::from_secs(60);
/// Inputs that wait for a process that does not run; sockets drop the rest.
const BACKLOG_MAX: usize = 512;

impl Clock {
    pub fn local(&self, now: Instant) -> Instant {
        let passed = now.as_nanos() - self.booted_at.as_nanos() - self.missed;
        let passed = i128::from(passed);
        let local = passed + passed * i128::from(self.rate) / 1_000_000_000;
        Instant::from_nanos(self.offset + u64::try_from(local).unwrap())
    }

    /// The first true instant at which the clock shows `local` or more.
    fn when(&self, local: Instant) -> Instant {
        let wanted = i128::from(local.as_nanos().saturating_sub(self.offset));
        let passed = wanted * 1_000_000_000 / (1_000_000_000 + i128::from(self.rate));
        let passed = u64::try_from(passed).unwrap() + self.missed;
        let mut at = self.booted_at + Duration::from_nanos(passed);
        while self.local(at) < local {
            at = at + Duration::from_nanos(1);
        }
        at
    }

    pub fn miss(&mut self, span: Duration) {
        self.missed += u64::try_from(span.as_nanos()).unwrap();
    }
}

impl Host {
    pub fn new(id: HostId, database: Mysqld, rng: &mut Rng) -> Self {
        // Half a percent either way: far more than real clocks err.
        let rate = i64::try_from(rng.below(10_000_001)).unwrap() - 5_000_000;
        let clock = Clock { booted_at: Instant::ZERO, rate, offset: 0, missed: 0 };
        Self {
            id,
            is_powered: false,
            frozen_since: None,
            frozen_inputs: Vec::new(),
            clock,
            kernel: Kernel::default(),
            disk: Persistent::default(),
            saved_for: String::new(),
            database,
            data: Data::default(),
            process: None,
            run: 0,
            guard: Guard::default(),
            role: Role::Joining,
            role_since: Instant::ZERO,
        }
    }

    pub fn is_awake(&self) -> bool {
        self.is_powered && self.frozen_since.is_none()
    }

    /// The node's process gets its turns.
    pub fn is_running(&self) -> bool {
        self.is_awake() && self.process.as_ref().is_some_and(|process| process.stalled.is_none())
    }

    /// What is sent to the node gets to it, now or once its process goes on.
    pub fn takes_input(&self) -> bool {
        let has_room = |process: &Process| {
            process.stalled.as_ref().is_none_or(|backlog| backlog.len() < BACKLOG_MAX)
        };
        self.is_awake() && self.process.as_ref().is_some_and(has_room)
    }

    pub fn wake_at(&self) -> Option<Instant> {
        if self.is_running() { self.process.as_ref()?.wake_at } else { None }
    }
}

impl World {
    pub fn host(&mut self, host: HostId) -> &mut Host {
        &mut self.hosts[host.index()]
    }

    // ---- power -----------------------------------------------------------------------------

    pub fn power_on(&mut self, host: HostId, delay: Duration) {
        let now = self.now;
        let (offset, slow) = (self.rng.below(1 << 40), self.rng.below(3000));
        let node = delay + Duration::from_millis(300 + self.rng.below(2000));
        let mysqld = delay + Duration::from_millis(200 + slow);
        let target = self.host(host);
        target.is_powered = true;
        target.clock.booted_at = now;
        target.clock.offset = offset;
        target.clock.missed = 0;
        target.guard =
            Guard { run: target.guard.run + 1, delay: RESTART_DELAY_MIN, ..Guard::default() };
        let guard_run = target.guard.run;
        self.after(node, Event::StartNode { host, guard_run });
        self.after(mysqld, Event::StartMysqld { host, guard_run });
    }

    /// Everything that is not on disk is gone.
    pub fn power_off(&mut self, host: HostId) {
        self.end_process(host);
        let target = self.host(host);
        target.is_powered = false;
        target.frozen_since = None;
        target.frozen_inputs.clear();
        target.guard.run += 1;
        target.kernel.held.clear();
        target.database.stop();
    }

    fn end_process(&mut self, host: HostId) {
        let target = self.host(host);
        target.process = None;
        target.run += 1;
        target.data = Data::default();
    }

    // ---- the guard -------------------------------------------------------------------------

    pub fn start_node(&mut self, host: HostId, guard_run: u64) {
        let config = self.config.clone();
        // Different for every run, as the wall clock is.
        let boot_id = self.now.as_nanos() << 1 | u64::from(host == HostId::Second);
        let now = self.now;
        let target = self.host(host);
        if target.guard.run != guard_run || target.guard.is_ending || target.process.is_some() {
            return;
        }
        target.run += 1;
        target.guard.will = Will::default();
        target.process = Some(Process {
            node: Node::new(config, host, boot_id, target.disk.on(target.guard.run)),
            wake_at: None,
            started_at: now,
            stalled: None,
            stalled_at: now,
            is_terminating: false,
        });
        target.role = Role::Joining;
        target.role_since = now;
        self.note_start(host);
        self.turn(host, Input::Wake);
    }

    /// The node's process is gone, without a word.
    pub fn crash_node(&mut self, host: HostId) {
        let Some(process) = self.host(host).process.take() else { return };
        let now = self.now;
        let target = self.host(host);
        if now.since(process.started_at) > STEADY_TIME {
            target.guard.delay = RESTART_DELAY_MIN;
        }
        self.end_process(host);
        let target = self.host(host);
        let (run, guard_run, delay) = (target.run, target.guard.run, target.guard.delay);
        if process.is_terminating {
            target.guard.is_ending = true;
            return;
        }
        target.guard.delay = (delay * 2).min(RESTART_DELAY_MAX);
        let seen = Duration::from_millis(1 + self.rng.below(10));
        self.after(seen, Event::CarryOut { host, run });
        self.after(seen + delay, Event::StartNode { host, guard_run });
    }

    /// Takes the addresses off and resigns in the node's place.
    pub fn carry_out(&mut self, host: HostId, run: u64) {
        let target = self.host(host);
        if target.run != run || !target.is_powered {
            return;
        }
        let will = std::mem::take(&mut target.guard.will);
        if self.plant.has_no_will() {
            return;
        }
        if will != Will::default() {
            self.say(host, "guard: carries out the will".into());
        }
        for request in &will.removals {
            self.kernel_request(host, request);
        }
        for (device, datagram) in will.resignations {
            let link =
                LinkId::ALL.into_iter().find(|link| self.config.link(*link).device == device);
            if let Some(link) = link {
                self.send(link, host.index(), &Frame::Vrrp(datagram.bytes));
            }
        }
    }

    /// The operator starts the daemon again.
    pub fn start_daemon(&mut self, host: HostId) {
        let target = self.host(host);
        if target.process.as_ref().is_some_and(|process| process.is_terminating) {
            self.after(Duration::from_secs(1), Event::StartDaemon { host });
            return;
        }
        if target.is_powered && target.process.is_none() && target.guard.is_ending {
            target.guard.is_ending = false;
            target.guard.delay = RESTART_DELAY_MIN;
            let guard_run = target.guard.run;
            self.start_node(host, guard_run);
        }
    }

    // ---- the loop --------------------------------------------------------------------------

    pub fn deliver(&mut self, host: HostId, input: Input) {
        let target = self.host(host);
        let is_awake = target.is_awake();
        let Some(process) = &mut target.process else { return };
        match &mut process.stalled {
            _ if !is_awake => {}
            // The kernel's own words are few, and have a buffer of their own.
            Some(backlog)
                if backlog.len() < BACKLOG_MAX || matches!(input, Input::Netlink { .. }) =>
            {
                backlog.push_back(input);
            }
            Some(_) => {}
            None => self.turn(host, input),
        }
    }

    /// One turn of os/run.rs: handle, then drain and perform; facts of the data plane come next.
    pub fn turn(&mut self, host: HostId, input: Input) {
        let mut next = Some(input);
        let mut count = 0;
        while let Some(input) = next.take() {
            count += 1;
            let now = self.now;
            let target = self.host(host);
            let local = target.clock.local(now);
            let Some(process) = &mut target.process else { return };
            process.is_terminating |= matches!(input, Input::Terminate);
            process.node.handle(local, input);
            let mut outputs = 0;
            while let Some(output) = self.poll(host) {
                outputs += 1;
                let has_routes = matches!(output, Output::Routes(_));
                if self.perform(host, output).is_err() {
                    self.crash_node(host);
                    return;
                }
                if has_routes {
                    next = Some(Input::DataPlane(self.host(host).data.facts()));
                }
            }
            if outputs > OUTPUTS_MAX || count > FACTS_MAX {
                self.fail("S9 bounded", format!("{outputs} outputs, {count} turns at once"));
            }
        }
        self.arm(host);
        self.check_turn(host);
    }

    fn poll(&mut self, host: HostId) -> Option<Output> {
        self.host(host).process.as_mut()?.node.poll_output()
    }

    /// A deadline in the past is met by the time that a turn takes.
    fn arm(&mut self, host: HostId) {
        let soonest = self.now + Duration::from_micros(10);
        let target = self.host(host);
        let Some(process) = &mut target.process else { return };
        let due = process.node.deadline().map(|local| target.clock.when(local));
        process.wake_at = due.map(|at| at.max(soonest));
        if due.is_none() {
            self.fail("S9 bounded", "no deadline: nothing would ever wake the node".into());
        }
    }

    /// What os/hands.rs does.
    fn perform(&mut self, host: HostId, output: Output) -> Result<(), ()> {
        let Some(output) = self.plant.bend(host, output) else { return Ok(()) };
        self.check_output(host, &output);
        match output {
            Output::SendVrrp { link, datagram } => {
                self.send(link, host.index(), &Frame::Vrrp(datagram.bytes));
            }
            Output::SendFrame { device, frame } => {
                let link = device.link().expect("the example names no further interface");
                self.send(link, host.index(), &Frame::Arp(frame));
            }
            Output::SendBeacon { link, datagram } => {
                self.send(link, host.index(), &Frame::Beacon(datagram));
            }
            Output::SendEcho { message, .. } => {
                self.send_to(LinkId::Outside, host.index(), CLIENT, Frame::Echo(message));
            }
            Output::Netlink { request } => self.kernel_request(host, &request),
            Output::Query { id, sql, limit } => self.send_query(host, id, sql, limit),
            Output::Probe { id, sql, limit } => self.send_query(host, id, sql.into(), limit),
            Output::EndDatabase => self.end_database(host),
            Output::CopyDatabase => self.say(host, "copies the peer's database".to_owned()),
            Output::SaveErrant { known } => {
                self.host(host).saved_for.clone_from(&known);
                self.call_rejoin(host, known, false);
            }
            Output::TakeBack { .. } => {
                let known = self.host(host).saved_for.clone();
                self.call_rejoin(host, known, true);
            }
            Output::TakeUpdate { place, .. } => self.say(host, format!("takes {place}")),
            Output::Routes(routes) => self.set_routes(host, routes),
            Output::Persist(persistent) => self.host(host).disk = persistent,
            Output::Will(will) => self.host(host).guard.will = will,
            Output::Reply { response, .. } => self.say(host, format!("answers: {response:?}")),
            Output::Reload { client } => self.say(host, format!("reads anew for {client}")),
            Output::Note(note) => self.note_said(host, &note),
            Output::Exit => return Err(()),
        }
        Ok(())
    }

    fn note_said(&mut self, host: HostId, note: &Note) {
        if let Note::RoleChanged { to, .. } = note {
            let now = self.now;
            let target = self.host(host);
            target.role = *to;
            target.role_since = now;
            self.role_changed(host, *to);
        }
        self.say(host, note.to_string());
    }

    /// The process stops running for a while; its kernel does not.
    pub fn stall(&mut self, host: HostId) {
        let now = self.now;
        let target = self.host(host);
        if let Some(process) = target.process.as_mut().filter(|process| process.stalled.is_none()) {
            process.stalled_at = target.clock.local(now);
            process.stalled = Some(VecDeque::new());
        }
    }

    /// It goes on: what waited in its sockets comes first, all at this instant.
    pub fn go_on(&mut self, host: HostId) {
        let now = self.now;
        let target = self.host(host);
        if target.frozen_since.is_some() {
            return self.after(Duration::ZERO, Event::GoOn { host });
        }
        let local = target.clock.local(now);
        let Some(process) = &mut target.process else { return };
        let Some(backlog) = process.stalled.take() else { return };
        let span = local.since(process.stalled_at);
        self.note_stall(host, span);
        for input in backlog {
            if self.hosts[host.index()].process.is_some() {
                self.turn(host, input);
            }
        }
        if self.hosts[host.index()].process.is_some() {
            self.turn(host, Input::Wake);
        }
    }

    // ---- the local database ----------------------------------------------------------------

    pub fn start_mysqld(&mut self, host: HostId, guard_run: u64) {
        let target = self.host(host);
        if target.is_powered && target.guard.run == guard_run && target.database.life == Life::Down
        {
            target.database.start();
            self.say(host, "mysqld: started, read-only".into());
        }
    }

    /// What watches over mysqld starts it again.
    pub fn end_database(&mut self, host: HostId) {
        let target = self.host(host);
        let guard_run = target.guard.run;
        if target.database.life != Life::Down {
            target.database.stop();
            let delay = Duration::from_millis(500 + self.rng.below(3000));
            self.after(delay, Event::StartMysqld { host, guard_run });
        }
    }

    fn send_query(&mut self, host: HostId, id: u64, sql: String, limit: Duration) {
        let target = self.host(host);
        let (node_run, mysqld_run) = (target.run, target.database.run);
        let expires_at = self.now + limit;
        let latency = Duration::from_micros(200 + self.rng.below(1500));
        let waits_until = None;
        let query = Query { host, node_run, mysqld_run, id, sql, expires_at, waits_until };
        self.after(latency, Event::Query(query));
    }

    /// A statement reaches the server, or is looked at again while it waits for a lock.
    pub fn query(&mut self, mut query: Query) {
        let Query { host, id, .. } = query;
        let now = self.now;
        if self.hosts[host.index()].frozen_since.is_some() {
            self.after(Duration::from_millis(20), Event::Query(query));
            return;
        }
        let target = self.host(host);
        let database = &mut target.database;
        let is_lost = query.waits_until.is_some() && database.run != query.mysqld_run;
        let result = match database.life {
            Life::Down => Err(ServerError::Unreachable("connection refused".into())),
            _ if is_lost => Err(ServerError::Unreachable("connection reset".into())),
            Life::Hung => {
                database.late.get_or_insert(query.sql);
                let at = query.expires_at;
                let input = Input::Answer { id, result: Err(ServerError::TimedOut) };
                self.at(at, Event::Input { host, run: query.node_run, input });
                return;
            }
            Life::Up => {
                let waited = query.waits_until.is_some_and(|until| now >= until);
                match database.execute(now, &query.sql, waited) {
                    Answer::Now(result) => result,
                    Answer::Waits { seconds } => {
                        let until = now + Duration::from_secs(seconds);
                        query.waits_until.get_or_insert(until);
                        query.mysqld_run = database.run;
                        self.after(Duration::from_millis(20), Event::Query(query));
                        return;
                    }
                    Answer::Unknown => {
                        let what = format!("mysqld does not know {:?}", query.sql);
                        self.fail("model", what);
                        return;
                    }
                }
            }
        };
        self.note_query(host, &query.sql, &result);
        let run = query.node_run;
        let delay = Duration::from_micros(100 + self.rng.below(1000));
        self.after(delay, Event::Input { host, run, input: Input::Answer { id, result } });
    }

    /// A hung server goes on: it finds what it was sent, whoever sent it.
    pub fn unhang(&mut self, host: HostId) {
        let now = self.now;
        let database = &mut self.host(host).database;
        if database.life != Life::Hung {
            return;
        }
        database.life = Life::Up;
        database.unhung_at = now;
        if let Some(sql) = database.late.take() {
            let answer = database.execute(now, &sql, true);
            if let Answer::Now(result) = answer {
                self.note_query(host, &sql, &result);
            }
        }
    }

    /// Statements that change something are worth a line.
    fn note_query(
        &mut self,
        host: HostId,
        sql: &str,
        result: &Result<tandem::repl::Rows, ServerError>,
    ) {
        self.check_statement(host, sql, result);
        let is_look = sql.starts_with("SELECT") || sql.starts_with("SHOW");
        match result {
            Ok(_) if is_look => {}
            Ok(_) => {
                let shown: String = sql.chars().take(60).collect();
                self.say(host, format!("sql: {shown}"));
            }
            Err(error) if !is_look => self.say(host, format!("sql: {sql:.50} -> {error}")),
            Err(_) => {}
        }
    }
}

/// Outputs of one input: the largest known burst is a takeover, about 40.
const OUTPUTS_MAX: usize = 200;
/// Inputs that the node gives itself in one turn by changing its routes.
const FACTS_MAX: usize = 20;
