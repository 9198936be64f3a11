//! Two real servers on 127.0.0.1 and 127.0.0.2, each with an engine and its hands.
//!
//! In: a flavour. Out: servers that can be written to, killed, stopped and restarted; engines that
//! run jobs to their end. Must not: leave a process or a directory behind.
//! Read first: scripts/servers.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::{Duration, Instant as Clock};

use mysql::prelude::Queryable;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tandem::os::mysql::LocalServer;
use tandem::repl::{
    Config, Durability, Engine, Failure, Input, Job, Observation, Outcome, Output, Site, State,
};
use tandem::time::Instant;
use tandem::units::Secret;
use tandem::wire::HostId;

/// What `scripts/servers` printed.
pub(crate) struct Recipe {
    mysqld: Vec<String>,
    init: String,
    options: Vec<String>,
    pub(crate) flavour: &'static str,
}

impl Recipe {
    /// `None`, with the reason on stderr, where the server cannot be had.
    pub(crate) fn of(flavour: &'static str) -> Option<&'static Self> {
        static RECIPES: [OnceLock<Option<Recipe>>; 3] = [const { OnceLock::new() }; 3];
        let index = ["mariadb", "mysql56", "mysql97"].iter().position(|name| *name == flavour)?;
        RECIPES[index].get_or_init(|| Self::load(flavour)).as_ref()
    }

    /// What reads binlogs, beside the server; as words. `None` where the installation has none.
    pub(crate) fn binlog_program(&self) -> Option<Vec<String>> {
        if self.flavour == "mariadb" {
            let path = std::path::Path::new("/usr/bin/mariadb-binlog");
            return path.exists().then(|| vec![path.display().to_string()]);
        }
        let server = self.mysqld.iter().position(|word| word.ends_with("/mysqld"))?;
        let sbin = std::path::Path::new(&self.mysqld[server]).parent()?;
        let places = [sbin.join("mysqlbinlog"), sbin.join("../bin/mysqlbinlog")];
        let program = places.into_iter().find(|path| path.exists())?;
        let mut words = self.mysqld[..server].to_vec();
        words.push(program.display().to_string());
        Some(words)
    }

    fn load(flavour: &'static str) -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/servers");
        let output = Command::new(script).arg(flavour).output().expect("bash is installed");
        if !output.status.success() {
            eprintln!("skipped {flavour}: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        let text = String::from_utf8(output.stdout).expect("the script prints text");
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
            line.expect("documented in scripts/servers").trim_matches('"').to_owned()
        };
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
        Some(Self {
            mysqld: words(value("MYSQLD")),
            init: value("MYSQL_INIT"),
            options: words(value("MYSQL_OPTIONS")),
            flavour,
        })
    }
}

pub(crate) const ADMIN: (&str, &str) = ("tandem", "ta'n\\dem");
pub(crate) const APP: (&str, &str) = ("app", "app");
pub(crate) const REPLICATION_PASSWORD: &str = "r'p\\l \"@%:";

/// A connection for a thread that knows no more than where the server is.
pub(crate) fn log_in(
    address: SocketAddr,
    (user, password): (&str, &str),
) -> mysql::Result<mysql::Conn> {
    let opts = mysql::OptsBuilder::new()
        .ip_or_hostname(Some(address.ip().to_string()))
        .tcp_port(address.port())
        .user(Some(user))
        .pass(Some(password))
        .prefer_socket(false)
        .read_timeout(Some(Duration::from_secs(60)));
    mysql::Conn::new(opts)
}

/// A mysqld in a directory of its own; both end with it.
pub(crate) struct Server {
    recipe: &'static Recipe,
    pub(crate) address: SocketAddr,
    directory: PathBuf,
    child: Option<Child>,
    /// The binlog is on a file system of a few megabytes, which goes with the process.
    has_small_disk: bool,
}

impl Server {
    pub(crate) fn new(recipe: &'static Recipe, address: SocketAddr, has_small_disk: bool) -> Self {
        let name = format!("tandem-repl-{}-{}", std::process::id(), address).replace(':', "-");
        let directory = std::env::temp_dir().join(name);
        let _none_left = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("a temporary directory");
        let data = directory.join("data");
        let made = Command::new(&recipe.init).arg(&data).status().expect("the init script");
        assert!(made.success(), "no data directory");
        let quoted = ADMIN.1.replace('\\', "\\\\").replace('\'', "\\'");
        let mut sql = "SET SESSION sql_log_bin=0;\n".to_owned();
        for (user, password, grant) in
            [(ADMIN.0, &*quoted, "ALL ON *.*"), (APP.0, APP.1, "ALL ON app.*")]
        {
            sql += &if recipe.flavour == "mysql97" {
                format!(
                    "CREATE USER '{user}'@'%' IDENTIFIED BY '{password}';\n\
                     GRANT {grant} TO '{user}'@'%' WITH GRANT OPTION;\n"
                )
            } else {
                format!(
                    "GRANT {grant} TO '{user}'@'%' IDENTIFIED BY '{password}' WITH GRANT OPTION;\n"
                )
            };
        }
        fs::write(directory.join("first.sql"), sql).expect("the first start's SQL");
        let mut server = Self { recipe, address, directory, child: None, has_small_disk };
        server.start(&["--init-file=../first.sql"]);
        server
    }

    pub(crate) fn start(&mut self, extra: &[&str]) {
        let SocketAddr::V4(address) = self.address else { panic!("IPv4 only") };
        let data = self.data();
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))
            .expect("a log file");
        // The server ends with the test even when the test is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        let disk = self.disk();
        if self.has_small_disk {
            fs::create_dir_all(&disk).expect("a mount point");
            let script = "mount -t tmpfs -o size=4m tmpfs \"$0\" && exec \"$@\"";
            command.args(["unshare", "-m", "sh", "-c", script]).arg(&disk);
        }
        command
            .args(&self.recipe.mysqld)
            .args(&self.recipe.options)
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--tmpdir={}", self.directory.display()))
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--pid-file={}/pid", data.display()))
            .arg(format!("--port={}", address.port()))
            .arg(format!("--bind-address={}", address.ip()))
            .arg(format!("--report-host={}", address.ip()))
            .arg(format!("--server-id={}", address.ip().octets()[3]))
            .args(["--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0"])
            .args(self.has_small_disk.then(|| format!("--log-bin={}/binlog", disk.display())))
            .args(extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log again"))
            .stderr(log);
        self.child = Some(command.spawn().expect("mysqld starts"));
        let started = Clock::now();
        while self.try_connect(ADMIN).is_none() {
            if started.elapsed() > Duration::from_secs(60) {
                panic!("{} does not come up:\n{}", self.address, self.log());
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Where the file system of a few megabytes is.
    pub(crate) fn disk(&self) -> PathBuf {
        self.directory.join("disk")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Keeps a copy of the data of a server that does not run.
    pub(crate) fn keep_data(&self) {
        self.copy("data", "kept");
    }

    /// As after a power cut that took what was written since.
    pub(crate) fn put_data_back(&self) {
        self.copy("kept", "data");
    }

    /// A disk that was replaced: the data of a server that never ran.
    pub(crate) fn empty(&self) {
        let data = self.data();
        fs::remove_dir_all(&data).expect("our own directory");
        let made = Command::new(&self.recipe.init).arg(&data).status().expect("the init script");
        assert!(made.success(), "no data directory");
    }

    fn copy(&self, from: &str, to: &str) {
        let (from, to) = (self.directory.join(from), self.directory.join(to));
        let _none_left = fs::remove_dir_all(&to);
        let mut command = Command::new("cp");
        let copied = command.args(["-R", "--sparse=always"]).arg(from).arg(to).status();
        assert!(copied.expect("coreutils").success(), "no copy");
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("s")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    pub(crate) fn try_connect(&self, user: (&str, &str)) -> Option<mysql::Conn> {
        log_in(self.address, user).ok()
    }

    /// Writes on its file system of a few megabytes, of which only it knows, until nothing fits.
    pub(crate) fn fill_disk(&self) {
        let pid = self.child.as_ref().expect("it runs").id();
        let file = format!("/proc/{pid}/root{}/filler", self.disk().display());
        let mut file = fs::File::create(file).expect("its own disk");
        while std::io::Write::write(&mut file, &[0; 4096]).is_ok_and(|count| count > 0) {}
    }

    /// As the daemon logs in.
    pub(crate) fn login(&self) -> LocalServer {
        LocalServer::new(self.address, ADMIN.0, ADMIN.1)
    }

    pub(crate) fn connect(&self, user: (&str, &str)) -> mysql::Conn {
        self.try_connect(user).expect("the server is up")
    }

    /// As administrator.
    pub(crate) fn run(&self, sql: &str) {
        self.connect(ADMIN).query_drop(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The first value of the first row, as administrator.
    pub(crate) fn value(&self, sql: &str) -> String {
        let value: Option<Option<String>> =
            self.connect(ADMIN).query_first(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        value.flatten().unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("it runs").id();
        kill(Pid::from_raw(pid.try_into().expect("a pid")), signal).expect("our own child");
        // A thread that runs on another processor stops a moment later, and may answer till then.
        while signal == Signal::SIGSTOP && !is_stopped(pid) {
            sleep(Duration::from_millis(1));
        }
    }

    /// In order, as by an init system; whether it ended in time.
    pub(crate) fn stop(&mut self, limit: Duration) -> bool {
        self.signal(Signal::SIGTERM);
        let until = Clock::now() + limit;
        let child = self.child.as_mut().expect("it was started");
        while Clock::now() < until {
            if child.try_wait().expect("our own child").is_some() {
                return true;
            }
            sleep(Duration::from_millis(20));
        }
        false
    }

    /// As a power cut would.
    pub(crate) fn crash(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(15).collect::<Vec<_>>();
            eprintln!("---- log of {}, last line first\n{}", self.address, tail.join("\n"));
        }
        let _best_effort = fs::remove_dir_all(&self.directory);
    }
}

/// Whether every thread of the process is.
fn is_stopped(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("our own child");
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name before the state may have blanks and brackets in it.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}

/// One host: its engine, and the hands that answer it.
pub(crate) struct Host {
    engine: Engine,
    hands: LocalServer,
    config: Config,
    site: Site,
    started: Clock,
    /// Queries after which the daemon "dies".
    pub(crate) dies_after: Option<usize>,
    pub(crate) queries: usize,
    pub(crate) progress: Vec<String>,
    unlogged: LocalServer,
    /// Answers to commit probes, which are waited for beside everything else.
    probed: (Sender<Input>, Receiver<Input>),
}

/// How long each job may take in these tests; beyond it the test fails.
const JOB_LIMIT: Duration = Duration::from_secs(60);

impl Host {
    fn new(config: &Config, site: Site) -> Self {
        let address = SocketAddr::from((site.own_address(), config.port));
        let hands = LocalServer::new(address, &config.user, config.password.reveal());
        Self {
            engine: Engine::new(config, site.clone()),
            unlogged: hands.unlogged(),
            probed: channel(),
            hands,
            config: config.clone(),
            site,
            started: Clock::now(),
            dies_after: None,
            queries: 0,
            progress: Vec::new(),
        }
    }

    /// A daemon that was started anew.
    pub(crate) fn restart(&mut self) {
        *self = Self::new(&self.config, self.site.clone());
    }

    fn now(&self) -> Instant {
        // Never zero: the engine's first look is due at zero.
        let nanos = self.started.elapsed().as_nanos() + 1;
        Instant::from_nanos(nanos.try_into().expect("a short test"))
    }

    /// Runs the job to its end; `None` when the daemon died on the way.
    pub(crate) fn try_job(&mut self, job: Job) -> Option<Result<Outcome, Failure>> {
        let kind = job.kind();
        let began = Clock::now();
        self.engine.handle(self.now(), Input::Job(job));
        while began.elapsed() < JOB_LIMIT {
            match self.turn()? {
                Some(Output::Done { job, result }) if job == kind => return Some(result),
                Some(
                    Output::Query { .. }
                    | Output::Probe { .. }
                    | Output::Observed(_)
                    | Output::Done { .. }
                    | Output::Progress(_),
                )
                | None => {}
            }
        }
        panic!("{kind} did not end");
    }

    pub(crate) fn job(&mut self, job: Job) -> Result<Outcome, Failure> {
        self.try_job(job).expect("the daemon does not die")
    }

    /// The next finished look.
    pub(crate) fn observe(&mut self) -> Observation {
        let began = Clock::now();
        while began.elapsed() < JOB_LIMIT {
            if let Some(Output::Observed(observation)) = self.turn().expect("it does not die") {
                return *observation;
            }
        }
        panic!("no observation");
    }

    pub(crate) fn position(&mut self) -> String {
        loop {
            let observation = self.observe();
            if observation.state == State::Up {
                return observation.position.expect("an up server has a position");
            }
        }
    }

    /// One output, its query already answered; `Some(None)` after waiting for the deadline.
    fn turn(&mut self) -> Option<Option<Output>> {
        while let Ok(answer) = self.probed.1.try_recv() {
            self.engine.handle(self.now(), answer);
        }
        if let Some(output) = self.engine.poll_output() {
            if let Output::Probe { id, sql, limit } = output {
                let (hands, answers) = (self.unlogged.clone(), self.probed.0.clone());
                std::thread::spawn(move || {
                    let result = async_io::block_on(hands.query(sql.to_owned(), limit));
                    let _test_is_over = answers.send(Input::Answer { id, result });
                });
                return Some(None);
            }
            if let Output::Progress(clause) = &output {
                self.progress.push(clause.clone());
            }
            if let Output::Query { id, sql, limit } = output {
                if self.dies_after.is_some_and(|count| self.queries >= count) {
                    return None;
                }
                self.queries += 1;
                let result = async_io::block_on(self.hands.query(sql, limit));
                self.engine.handle(self.now(), Input::Answer { id, result });
                return Some(None);
            }
            return Some(Some(output));
        }
        let deadline = self.engine.deadline().expect("it always looks again");
        sleep(deadline.since(self.now()));
        self.engine.handle(self.now(), Input::Tick);
        Some(None)
    }
}

/// The pair. `a` starts as an empty server, like `b`.
pub(crate) struct Pair {
    pub(crate) a: Server,
    pub(crate) b: Server,
    pub(crate) host_a: Host,
    pub(crate) host_b: Host,
}

impl Pair {
    pub(crate) fn new(recipe: &'static Recipe) -> Self {
        Self::with(recipe, |_| {})
    }

    /// The binlogs are on file systems of a few megabytes.
    pub(crate) fn on_small_disks(recipe: &'static Recipe) -> Self {
        Self::build(recipe, |_| {}, true)
    }

    pub(crate) fn with(recipe: &'static Recipe, change: impl FnOnce(&mut Config)) -> Self {
        Self::build(recipe, change, false)
    }

    fn build(
        recipe: &'static Recipe,
        change: impl FnOnce(&mut Config),
        has_small_disk: bool,
    ) -> Self {
        let addresses = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
        let port = free_port(addresses);
        let mut config = Config {
            port,
            user: ADMIN.0.to_owned(),
            password: Secret::Text(ADMIN.1.to_owned()),
            replication_user: "rpl".to_owned(),
            replication_password: Secret::Text(REPLICATION_PASSWORD.to_owned()),
            drain_limit: Duration::from_secs(20),
            close_limit: Duration::from_secs(3),
            durability: Durability::default(),
            commit_probe: true,
            is_of_a_pair: true,
            probe_interval: Duration::from_millis(100),
        };
        change(&mut config);
        let server =
            |index: usize| Server::new(recipe, (addresses[index], port).into(), has_small_disk);
        let host = |me: HostId| {
            let names = ["first".to_owned(), "second".to_owned()];
            Host::new(&config, Site { me, addresses, names })
        };
        Self {
            a: server(0),
            b: server(1),
            host_a: host(HostId::First),
            host_b: host(HostId::Second),
        }
    }

    /// A is the source, with `app.t`; B replicates from it.
    pub(crate) fn set_up(&mut self) {
        self.host_a.job(Job::Fence).expect("a fresh server can be fenced");
        self.host_b.job(Job::Fence).expect("a fresh server can be fenced");
        let promoted = self.host_a.job(Job::Promote).expect("a fresh server can be promoted");
        assert!(matches!(&promoted, Outcome::Promoted { warnings, .. } if warnings.is_empty()));
        self.a.run("CREATE DATABASE app");
        self.a.run("CREATE TABLE app.t (id INT PRIMARY KEY, v VARCHAR(60)) ENGINE=InnoDB");
        let peer_position = Some(self.host_a.position());
        let followed = self.host_b.job(Job::Follow { peer_position });
        assert_eq!(followed, Ok(Outcome::Following { was_following: false }));
        self.catch_up_b();
    }

    pub(crate) fn catch_up_b(&mut self) {
        let position = self.host_a.position();
        let limit = Duration::from_secs(10);
        self.host_b.job(Job::CatchUp { position, limit }).expect("B catches up");
    }
}

/// For a server that is alone.
pub(crate) fn free_address() -> SocketAddr {
    let address = Ipv4Addr::LOCALHOST;
    (address, free_port([address, Ipv4Addr::new(127, 0, 0, 2)])).into()
}

/// A port that is free on both addresses, outside the range that the kernel gives to clients.
fn free_port(addresses: [Ipv4Addr; 2]) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = u16::try_from(std::process::id() % 8000).expect("less than 8000");
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % 8000;
        let port = 20_000 + (base * 7 % 8000 + step) % 8000;
        if addresses.iter().all(|address| TcpListener::bind((*address, port)).is_ok()) {
            return port;
        }
    }
}
