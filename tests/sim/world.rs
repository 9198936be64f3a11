//! The world: two hosts, two links, a client, virtual time, one queue of events.
//!
//! In: a seed. Out: a run, event by event, until its end or the first violation.
//! Must not: read a clock, use any order but (time, sequence).
//! Read first: style section 4; then `host` (a host's process and guard), `wire`, `kernel`,
//! `mysqld`, `client`, `faults`, `checks`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tandem::config::{Config, EXAMPLE};
use tandem::node::Input;
use tandem::time::{Instant, Rng, earliest};
use tandem::wire::{HostId, LinkId};

use super::checks::Checks;
use super::client::{Client, Request};
use super::errant::Call;
use super::faults::{Fault, Plan};
pub use super::host::Host;
use super::mysqld::Mysqld;
use super::plants::Plant;
use super::promises;
use super::transcript::Transcript;
use super::wire::{FAR_WITNESS, Frame, Link, NEAR_WITNESS};

#[derive(Debug)]
pub enum Event {
    Arrive {
        link: LinkId,
        from: usize,
        to: usize,
        frame: Frame,
    },
    /// An input for one run of a host's node.
    Input {
        host: HostId,
        run: u64,
        input: Input,
    },
    Query(Query),
    PowerLoss {
        host: HostId,
        until: Instant,
    },
    /// The daemon's call of `tandem rejoin` does its work.
    Rejoin(Call),
    LeaseEnds {
        host: HostId,
        key: (LinkId, IpAddr),
    },
    /// The guard sees that its node is gone, and later starts it again.
    CarryOut {
        host: HostId,
        run: u64,
    },
    StartNode {
        host: HostId,
        guard_run: u64,
    },
    /// The operator starts a daemon that was told to end.
    StartDaemon {
        host: HostId,
    },
    /// The guard's patience with a node that was told to end is over.
    KillLeaver {
        host: HostId,
        run: u64,
    },
    StartMysqld {
        host: HostId,
        guard_run: u64,
    },
    /// Replica threads of both hosts.
    Replicate,
    /// Samples for the checks.
    Sample,
    ClientTick,
    Request(Request),
    /// Open statements get no more time.
    OpenLimit {
        host: HostId,
        run: u64,
        version: u64,
    },
    WebDrained {
        host: HostId,
        run: u64,
    },
    NextFault,
    BadMoment,
    /// The operator seeds a refused host's database from the other one.
    Reseed {
        host: HostId,
    },
    EndFault(Fault),
    Hiccup(Fault),
    GoOn {
        host: HostId,
    },
    LiftOrders,
    HealAll,
    End,
}

/// A statement on its way to the local database.
#[derive(Debug)]
pub struct Query {
    pub host: HostId,
    pub node_run: u64,
    pub mysqld_run: u64,
    pub id: u64,
    pub sql: String,
    pub expires_at: Instant,
    /// Since when it waits for a lock, for as long as it may.
    pub waits_until: Option<Instant>,
}

/// What is found wrong: the invariant and the circumstances.
#[derive(Debug, Clone)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

#[derive(Debug)]
pub struct World {
    pub seed: u64,
    pub now: Instant,
    pub rng: Rng,
    pub config: Config,
    pub hosts: [Host; 2],
    pub links: [Link; 2],
    pub client: Client,
    pub plan: Plan,
    pub checks: Checks,
    pub transcript: Transcript,
    pub plant: Plant,
    pub violation: Option<Violation>,
    queue: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    is_over: bool,
}

/// The scenario's; every third run has a witness on the outside network, every ninth another one
/// beyond it.
fn configuration(seed: u64) -> String {
    let witnesses = match seed % 9 {
        0 | 3 => format!("[\"{NEAR_WITNESS}\"]"),
        6 => format!("[\"{NEAR_WITNESS}\", \"{FAR_WITNESS}\"]"),
        _ => return EXAMPLE.to_owned(),
    };
    EXAMPLE.replacen("[peer] ", &format!("[peer]\nwitnesses = {witnesses} "), 1)
}

/// How often the replica threads are given a turn.
const REPLICATE_INTERVAL: Duration = Duration::from_millis(20);

impl World {
    pub fn new(seed: u64, plant: Plant) -> Self {
        let mut rng = Rng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d);
        let mut config = Config::parse(&configuration(seed)).expect("the example parses");
        config.repl.durability = promises::durability(seed);
        let plan = Plan::draw(seed, &mut rng);
        let hosts = HostId::ALL.map(|host| {
            let mut database = Mysqld::new(&config, host);
            database.plant = plant;
            Host::new(host, database, &mut rng)
        });
        let client = Client::new(config.link(LinkId::Outside).vip[0].address.address);
        Self {
            seed,
            now: Instant::from_nanos(1_000_000),
            rng,
            config,
            hosts,
            links: [Link::new(), Link::new()],
            client,
            plan,
            checks: Checks::default(),
            transcript: Transcript::default(),
            plant,
            violation: None,
            queue: BTreeMap::new(),
            sequence: 0,
            is_over: false,
        }
    }

    /// Runs to the end; what was found wrong first.
    pub fn run(&mut self) -> Option<Violation> {
        self.begin();
        while !self.is_over && self.violation.is_none() {
            let due = self.queue.keys().next().map(|(at, _)| *at);
            let wakes = HostId::ALL.map(|host| self.hosts[host.index()].wake_at());
            let wake = earliest(wakes[0], wakes[1]);
            match (due, wake) {
                (None, None) => break,
                (due, Some(wake)) if due.is_none_or(|due| wake < due) => {
                    self.now = self.now.max(wake);
                    let first = if wakes[0] == Some(wake) { HostId::First } else { HostId::Second };
                    self.turn(first, Input::Wake);
                }
                (Some(_), _) | (None, Some(_)) => {
                    let ((at, _), event) = self.queue.pop_first().expect("it was looked at");
                    self.now = self.now.max(at);
                    self.happen(event);
                }
            }
        }
        self.violation.clone()
    }

    fn begin(&mut self) {
        let durability = self.config.repl.durability;
        self.note(format!("seed {}: {}, {durability:?}", self.seed, self.plan));
        for host in HostId::ALL {
            let delay = self.plan.boot_delays[host.index()];
            self.power_on(host, delay);
        }
        self.after(Duration::ZERO, Event::Replicate);
        self.after(Duration::from_secs(1), Event::Sample);
        self.after(Duration::from_secs(1), Event::ClientTick);
        self.after(self.plan.calm_before, Event::NextFault);
        self.after(self.plan.heal_after, Event::HealAll);
        self.after(self.plan.end_after, Event::End);
    }

    pub fn at(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
        if self.queue.len() > 20_000 {
            self.fail("S9 bounded", "20,000 events wait".into());
        }
    }

    pub fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { link, from, to, frame } => self.arrive(link, from, to, frame),
            Event::Input { host, run, input } => {
                let target = &mut self.hosts[host.index()];
                if target.run == run && target.frozen_since.is_some() {
                    target.frozen_inputs.push((run, input));
                } else if target.run == run {
                    self.deliver(host, input);
                }
            }
            Event::Query(query) => self.query(query),
            Event::PowerLoss { host, until } => self.await_commit(host, until),
            Event::Rejoin(call) => self.rejoin(call),
            Event::LeaseEnds { host, key } => self.lease_ends(host, key),
            // A machine that stands still runs nothing: what is due in it waits until it goes on.
            Event::CarryOut { host, .. }
            | Event::StartNode { host, .. }
            | Event::KillLeaver { host, .. }
            | Event::GoOn { host }
                if self.hosts[host.index()].frozen_since.is_some() =>
            {
                self.after(REPLICATE_INTERVAL, event);
            }
            Event::CarryOut { host, run } => self.carry_out(host, run),
            Event::StartNode { host, guard_run } => self.start_node(host, guard_run),
            Event::StartDaemon { host } => self.start_daemon(host),
            Event::KillLeaver { host, run } => {
                if self.hosts[host.index()].run == run {
                    self.crash_node(host);
                }
            }
            Event::StartMysqld { host, guard_run } => self.start_mysqld(host, guard_run),
            Event::Replicate => self.replicate(),
            Event::Sample => self.sample(),
            Event::ClientTick => self.client_tick(),
            Event::Request(request) => self.advance(request),
            Event::OpenLimit { host, run, version } => self.open_limit(host, run, version),
            Event::WebDrained { host, run } => self.web_drained(host, run),
            Event::NextFault => self.next_fault(),
            Event::BadMoment => self.draw_fault(),
            Event::Reseed { host } => self.reseed(host),
            Event::EndFault(fault) => self.end_fault(fault),
            Event::Hiccup(fault) => self.hiccup(fault),
            Event::GoOn { host } => self.go_on(host),
            Event::LiftOrders => self.lift_orders(),
            Event::HealAll => self.heal_all(),
            Event::End => {
                self.check_end();
                self.is_over = true;
            }
        }
    }

    fn replicate(&mut self) {
        self.after(REPLICATE_INTERVAL, Event::Replicate);
        for host in HostId::ALL {
            let other = host.other();
            let path = self.path(LinkId::Inside, host.index(), other.index())
                && self.hosts[other.index()].is_awake();
            let own = self.config.host(host).inside_address();
            let now = self.now;
            let [first, second] = &mut self.hosts;
            let (replica, source) = match host {
                HostId::First => (first, second),
                HostId::Second => (second, first),
            };
            source.database.hear_receiver(now, &replica.database, path && replica.is_awake());
            if !replica.is_awake() || replica.database.life != super::mysqld::Life::Up {
                continue;
            }
            if self.plan.has_long_transactions && !self.plan.is_healed && self.rng.below(300) == 0 {
                let length = Duration::from_millis(self.rng.below(4000));
                replica.database.busy_until = self.now + length;
            }
            // What is received is applied in the next tick at the earliest.
            replica.database.apply(self.now);
            replica.database.receive(self.now, &source.database, own, path);
        }
    }

    pub fn name(&self, host: HostId) -> &str {
        &self.config.host(host).name
    }

    /// A line of the transcript about a host.
    pub fn say(&mut self, host: HostId, what: String) {
        let line = format!("{} {what}", self.name(host));
        self.transcript.line(self.now, &line);
    }

    pub fn note(&mut self, what: String) {
        self.transcript.line(self.now, &what);
    }

    pub fn fail(&mut self, invariant: &'static str, what: String) {
        if self.violation.is_none() {
            self.transcript.line(self.now, &format!("VIOLATION {invariant}: {what}"));
            self.violation = Some(Violation { invariant, what });
        }
    }
}
