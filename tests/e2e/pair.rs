//! The scenario's installation: two servers and a client on two switches, everything real.
//!
//! In: which database, which configuration. Out: a pair whose parts can be started, killed,
//! unplugged and asked. Must not: set up what tandem sets up (replication, virtual addresses).

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::database::{self, Flavour};
use crate::host::{Host, Identity, text};
use crate::load::{Load, Rates};
use crate::php;
use crate::sampler::{Sampler, Span, overlap};
use crate::world::{Link, Outcome, World, wait_until};
use crate::writers::{Interval, Watch, common, united};

pub const OUTSIDE_VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 153, 239);
pub const INSIDE_VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 150);
pub const VIPS: [Ipv4Addr; 2] = [OUTSIDE_VIP, INSIDE_VIP];
pub const GUARD_PID: &str = "/run/tandem/guard.pid";
pub const NODE_PID: &str = "/run/tandem/node.pid";
pub const CONFIG: &str = "/etc/tandem/tandem.toml";
/// The text that both servers carry, to the byte.
pub const EXAMPLE: &str = include_str!("../../src/example.toml");

const SERVERS: [Identity; 2] = [
    Identity {
        name: "server1",
        number: 1,
        outside: "10.96.153.110/24",
        inside: "192.168.3.100/24",
    },
    Identity {
        name: "server2",
        number: 2,
        outside: "10.96.153.114/24",
        inside: "192.168.3.101/24",
    },
];
pub const CLIENT: Identity =
    Identity { name: "client", number: 9, outside: "10.96.153.1/24", inside: "192.168.3.1/24" };
const NAMES: &str = "127.0.0.1 localhost\n192.168.3.100 server1\n192.168.3.101 server2\n";
/// Both hosts, their databases and tandem together.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(45);
/// Longer than the master-down interval: an election, had there been one, would be over.
pub const ELECTION: Duration = Duration::from_millis(4500);

/// Dropped in this order: the world first, which ends every process; then the handles.
#[derive(Debug)]
pub struct Pair {
    pub world: World,
    pub servers: [Server; 2],
    pub client: Host,
    pub flavour: Flavour,
    binary: PathBuf,
    /// What starts tandem, if it is not to be started as it is.
    prefix: Vec<&'static str>,
}

#[derive(Debug)]
pub struct Server {
    pub host: Host,
    sampler: Option<Sampler>,
    /// What earlier boots held.
    spans: Vec<Span>,
    is_watched: bool,
    watch: Option<Watch>,
    /// When the database was open in earlier boots.
    writable: Vec<Interval>,
}

impl Pair {
    /// Three hosts, and on the servers a database and php-fpm each; tandem is not started yet.
    pub fn new(flavour: Flavour) -> Outcome<Self> {
        let binary = binary();
        let world = World::new()?;
        let mut client = Host::new(&world, CLIENT)?;
        client.boot(&world)?;
        let [first, second] = SERVERS;
        let servers = [Server::new(&world, first)?, Server::new(&world, second)?];
        let prefix = Vec::new();
        let mut pair = Self { world, servers, client, flavour, binary, prefix };
        for server in &mut pair.servers {
            let host = &mut server.host;
            fs::write(host.path("/etc/hosts"), NAMES).map_err(text)?;
            fs::write(host.path(CONFIG), EXAMPLE).map_err(text)?;
            fs::copy(&pair.binary, server.host.path("/sbin/tandem"))
                .map_err(|error| format!("{}: {error}", pair.binary.display()))?;
            php::install(&server.host)?;
            server.switch_on(&pair.world)?;
        }
        // Both at once: the second host's disk need not wait for the first one's.
        let [one, other] = &mut pair.servers;
        let flavour = &pair.flavour;
        let create = |server: &mut Server| {
            database::create(&mut server.host, flavour)?;
            php::start(&mut server.host)
        };
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| create(one));
            let second = create(other);
            (first.join(), second)
        });
        first.map_err(|_| "a thread panicked".to_owned())??;
        second?;
        Ok(pair)
    }

    /// A pair in service: server1 active, server2 its replica, the application's table made.
    pub fn in_service(flavour: Flavour) -> Outcome<Self> {
        let mut pair = Self::new(flavour)?;
        match pair.settle() {
            Ok(()) => Ok(pair),
            Err(why) => Err(format!("{why}\n{}", pair.logs())),
        }
    }

    /// Starts both tandems and makes the table of the application.
    pub fn settle(&mut self) -> Outcome<()> {
        self.start_tandem(0)?;
        self.start_tandem(1)?;
        self.wait_settled(0, SETTLE_LIMIT)?;
        self.make_schema()
    }

    /// Replaces the configuration of one server.
    pub fn configure(&self, number: usize, config: &str) -> Outcome<()> {
        fs::write(self.servers[number].host.path(CONFIG), config).map_err(text)
    }

    pub fn start_tandem(&mut self, number: usize) -> Outcome<()> {
        let words = ["/usr/local/sbin/tandem", "run", "--config", CONFIG];
        let words: Vec<&str> = self.prefix.iter().chain(&words).copied().collect();
        self.servers[number].host.start("tandem", &words)
    }

    /// From now on tandem is started by these words before its own.
    pub fn start_by(&mut self, prefix: &[&'static str]) {
        self.prefix = prefix.to_vec();
    }

    /// Tells the daemon of a host to end, and waits until it has.
    pub fn stop_tandem(&mut self, number: usize) -> Outcome<()> {
        self.servers[number].signal_guard(Signal::SIGTERM)?;
        let host = &mut self.servers[number].host;
        wait_until("tandem ends", Duration::from_secs(15), || host.ended("tandem").is_some())
            .map(drop)
    }

    /// The application's table, made as an operator would make it: through the splitter.
    pub fn make_schema(&self) -> Outcome<()> {
        let statements = [
            "CREATE DATABASE IF NOT EXISTS app",
            "CREATE TABLE IF NOT EXISTS app.written (id BIGINT PRIMARY KEY, \
             php VARCHAR(64) NOT NULL, server INT NOT NULL)",
        ];
        let host = &self.servers[0].host;
        database::through_splitter(host, "root", database::ROOT_PASSWORD, &statements)?;
        wait_until("the table is on both servers", Duration::from_secs(10), || {
            self.servers.iter().all(|it| it.rows().is_ok())
        })
        .map(drop)
    }

    /// Steady requests from the client to the outside virtual address.
    pub fn load(&self) -> Outcome<Load> {
        self.load_at(Rates::STEADY)
    }

    pub fn load_at(&self, rates: Rates) -> Outcome<Load> {
        self.load_from(1, rates)
    }

    /// The same after earlier loads, whose rows are there.
    pub fn load_from(&self, first_id: u64, rates: Rates) -> Outcome<Load> {
        Load::start(&self.client, OUTSIDE_VIP, rates, &php::static_text(), first_id)
    }

    /// Pulls the plug. Returns the moment.
    pub fn power_off(&mut self, number: usize) -> Outcome<Instant> {
        let server = &mut self.servers[number];
        let moment = server.host.power_off(&self.world)?;
        if let Some(sampler) = server.sampler.take() {
            server.spans.extend(sampler.stop(moment)?);
        }
        if let Some(watch) = server.watch.take() {
            server.writable.extend(watch.stop(moment));
        }
        Ok(moment)
    }

    /// Switches a server on again; its programs start as an init system would start them, without
    /// waiting for one another.
    pub fn power_on(&mut self, number: usize) -> Outcome<()> {
        self.servers[number].switch_on(&self.world)?;
        self.start_programs(number)
    }

    /// The same while the switches do not forward what the server sends, nor anything to it.
    pub fn power_on_muted(&mut self, number: usize) -> Outcome<()> {
        self.servers[number].switch_on(&self.world)?;
        self.mute(number, true)?;
        self.start_programs(number)
    }

    fn start_programs(&mut self, number: usize) -> Outcome<()> {
        self.start_tandem(number)?;
        let server = &mut self.servers[number];
        database::start(&mut server.host, &self.flavour)?;
        php::start(&mut server.host)
    }

    pub fn pull(&self, number: usize, links: &[Link]) -> Outcome<()> {
        self.world.cable(self.servers[number].host.name(), links, false)
    }

    pub fn replug(&self, number: usize, links: &[Link]) -> Outcome<()> {
        self.world.cable(self.servers[number].host.name(), links, true)
    }

    /// Cuts both cables in silence, or mends them.
    pub fn mute(&self, number: usize, is_mute: bool) -> Outcome<()> {
        let name = self.servers[number].name();
        Link::ALL.into_iter().try_for_each(|link| self.world.mute(name, link, is_mute))
    }

    /// Lets no multicast through to either server.
    pub fn filter_multicast(&self, is_filtered: bool) -> Outcome<()> {
        self.servers.iter().try_for_each(|server| {
            Link::ALL
                .into_iter()
                .try_for_each(|link| self.world.filter_multicast(server.name(), link, is_filtered))
        })
    }

    /// Server `active` serves and is the source, the other one is its replica and keeps up.
    pub fn is_settled(&self, active: usize) -> bool {
        let (one, other) = (&self.servers[active], &self.servers[1 - active]);
        let is = |server: &Server, role: &str, state: &str| {
            server.status().is_ok_and(|it| it["role"] == role && it["database"]["state"] == state)
        };
        is(one, "active", "source")
            && is(other, "standby", "replica")
            && one.holds_all()
            && other.holds_none()
    }

    pub fn wait_settled(&self, active: usize, limit: Duration) -> Outcome<Duration> {
        let (one, other) = (self.servers[active].name(), self.servers[1 - active].name());
        let what = format!("{one} active and source, {other} standby and replica");
        wait_until(&what, limit, || self.is_settled(active)).map_err(|why| {
            let seen: Vec<String> = self.servers.iter().map(Server::summary).collect();
            format!("{why}; seen: {}", seen.join("; "))
        })
    }

    /// A host that lost its power while it served is a replica again. A commit that nobody was
    /// answered may be in its binlog alone: then the host says by which command it is taken back,
    /// and that is done. Yields whether it was.
    pub fn wait_rejoined(&self, number: usize) -> Outcome<bool> {
        let server = &self.servers[number];
        let says_so = || {
            server.status().is_ok_and(|status| {
                let says = status["findings"].to_string();
                status["role"] == "refused" && says.contains("`tandem rejoin --discard`")
            })
        };
        let mut is_discarded = false;
        wait_until("the dead host is a replica again", SETTLE_LIMIT, || {
            if !is_discarded && says_so() {
                let words = ["tandem", "rejoin", "--discard", "--yes"];
                let ran = server.host.run_within(SETTLE_LIMIT, &words);
                is_discarded = ran.is_ok_and(|it| it.status.success());
            }
            self.is_settled(1 - number)
        })
        .map_err(|why| {
            let seen: Vec<String> = self.servers.iter().map(Server::summary).collect();
            format!("{why}; seen: {}", seen.join("; "))
        })?;
        Ok(is_discarded)
    }

    /// For how long any virtual address was on both hosts.
    pub fn two_holders(&self) -> Duration {
        overlap(&self.servers[0].spans(), &self.servers[1].spans())
    }

    /// From now on the databases are asked all the time whether they take writes.
    pub fn watch_writers(&mut self) -> Outcome<()> {
        self.servers.iter_mut().try_for_each(|server| {
            server.is_watched = true;
            server.watch = Some(Watch::start(&server.host)?);
            Ok(())
        })
    }

    /// For how long both hosts held an address, any, with a database that took writes.
    pub fn two_writers(&self) -> Duration {
        let [one, other] = [&self.servers[0], &self.servers[1]].map(Server::wrote);
        let shared = common(&one, &other);
        shared.iter().map(|(from, to)| to.duration_since(*from)).sum()
    }

    /// The last lines of every log of both servers.
    pub fn logs(&self) -> String {
        self.servers.iter().map(|server| server.host.logs(40)).collect()
    }
}

impl Server {
    fn new(world: &World, identity: Identity) -> Outcome<Self> {
        let host = Host::new(world, identity)?;
        let (spans, writable) = (Vec::new(), Vec::new());
        Ok(Self { host, sampler: None, spans, is_watched: false, watch: None, writable })
    }

    fn switch_on(&mut self, world: &World) -> Outcome<()> {
        self.host.boot(world)?;
        self.sampler = Some(Sampler::start(&self.host, &VIPS)?);
        if self.is_watched {
            self.watch = Some(Watch::start(&self.host)?);
        }
        Ok(())
    }

    pub const fn name(&self) -> &'static str {
        self.host.name()
    }

    /// `tandem status --json`; its exit code says whether the pair is whole, which is not asked.
    pub fn status(&self) -> Outcome<Value> {
        let output = self.host.run(&["tandem", "status", "--json"])?;
        serde_json::from_slice(&output.stdout).map_err(|error| {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            format!("{}: status is not JSON: {error} {said}", self.name())
        })
    }

    /// The role that the status says, or why there is none.
    pub fn role(&self) -> String {
        match self.status() {
            Ok(status) => status["role"].as_str().unwrap_or("none").to_owned(),
            Err(why) => why,
        }
    }

    /// One line for a message.
    pub fn summary(&self) -> String {
        let held = self.held();
        match self.status() {
            Ok(it) => format!(
                "{} role {} database {} addresses {held:?}",
                self.name(),
                it["role"],
                it["database"]
            ),
            Err(why) => why,
        }
    }

    /// The virtual addresses that the kernel has.
    pub fn held(&self) -> Vec<Ipv4Addr> {
        self.sampler.as_ref().map(Sampler::held).unwrap_or_default()
    }

    pub fn holds_all(&self) -> bool {
        let held = self.held();
        VIPS.iter().all(|vip| held.contains(vip))
    }

    pub fn holds_none(&self) -> bool {
        self.held().is_empty()
    }

    /// The intervals of every boot until now.
    pub fn spans(&self) -> Vec<Span> {
        let mut all = self.spans.clone();
        all.extend(self.sampler.iter().flat_map(Sampler::spans));
        all
    }

    /// When this host held an address and its database took writes.
    fn wrote(&self) -> Vec<Interval> {
        let mut open = self.writable.clone();
        open.extend(self.watch.iter().flat_map(Watch::intervals));
        let held: Vec<Interval> = self.spans().iter().map(|it| (it.from, it.to)).collect();
        common(&united(held), &united(open))
    }

    /// How blind the running sampler was at worst.
    pub fn blind(&self) -> Duration {
        self.sampler.as_ref().map_or(Duration::ZERO, |it| it.sight().1)
    }

    /// Every row of the application's table, by the server's socket.
    pub fn rows(&self) -> Outcome<Vec<Vec<String>>> {
        database::ask(&self.host, "SELECT id, php, server FROM app.written ORDER BY id")
    }

    pub fn signal_guard(&self, signal: Signal) -> Outcome<()> {
        self.host.signal(GUARD_PID, signal)
    }

    pub fn signal_node(&self, signal: Signal) -> Outcome<()> {
        self.host.signal(NODE_PID, signal)
    }
}

/// What scripts/build made, if the caller says so; else what cargo built beside this test.
pub fn binary() -> PathBuf {
    std::env::var_os("TANDEM_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_tandem")), PathBuf::from)
}
