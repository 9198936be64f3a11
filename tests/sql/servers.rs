//! Two real servers that know nothing of each other, and a splitter in front of them. Each has a
//! position by which it has got all that the other one will ever write, so that a session's own
//! writes keep its reads on the source no longer than on a pair without lag.
//!
//! In: what a test wants to happen. Out: addresses to connect to. Must not: talk to anything but
//! 127.0.0.1, or leave a process behind. Read first: `tandem::os::serve_sql`.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant as Clock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use tandem::limits;
use tandem::os::plane::{Plane, Turn};
use tandem::os::serve_sql::{ServeSql, Site, Source};
use tandem::routes::{Flow, Routes, WebIntake};
use tandem::sql;
use tandem::time::Instant;
use tandem::units::Secret;
use tandem::wire::HostId;

use super::laws::Kind;

pub(super) const PASSWORD: &str = "secret";

/// One mariadbd in its own directory.
pub(super) struct Database {
    child: Child,
    port: u16,
    directory: PathBuf,
}

impl Database {
    fn start(template: &Path, name: &str, more: &[String]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = base().join(format!("{name}{number}"));
        run(Command::new("cp").arg("-r").arg(template).arg(&directory));
        let port = free_port();
        let child = Command::new("mariadbd")
            .args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1"])
            .args(SMALL)
            .args(["--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0"])
            .args(["--innodb-flush-method=nosync", "--max-allowed-packet=64M"])
            .args(["--skip-name-resolve", "--performance-schema=off", "--max-connections=100"])
            .args(["--log-bin=binlog", "--sync-binlog=0", "--log-bin-trust-function-creators=1"])
            .arg(format!("--server-id={}", number + 1))
            .arg(format!("--gtid-domain-id={}", number + 1))
            .args(more)
            .arg(format!("--general-log-file={}", directory.join("general").display()))
            .arg(format!("--tmpdir={}", directory.display()))
            .arg(format!("--port={port}"))
            .arg(format!("--datadir={}", directory.display()))
            .arg(format!("--socket={}", directory.join("socket").display()))
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("log")).expect("a log file"))
            .spawn()
            .expect("mariadbd starts");
        RUNNING.fetch_add(1, Ordering::SeqCst);
        let database = Self { child, port, directory };
        database.fill(name);
        database
    }

    /// A MySQL that `scripts/servers` has unpacked: 5.6 or 9.7, from its template.
    fn start_mysql(home: &Path, name: &str, more: &[String]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = base().join(format!("mysql{number}"));
        let data = directory.join("data");
        fs::create_dir_all(&directory).expect("a directory for the server");
        run(Command::new("cp").arg("-r").arg(home.join("template")).arg(&data));
        let (root, old) = (home.join("root/usr"), home.join("package/server"));
        let mut command = if root.exists() {
            // Built for a newer system: its own loader and libraries.
            let libraries = root.join("lib/x86_64-linux-gnu");
            let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
            let private = libraries.join("mysql/private");
            command.arg("--library-path");
            command.arg(format!("{}:{}", libraries.display(), private.display()));
            command.arg(root.join("sbin/mysqld")).args(["--no-defaults", "--mysqlx=OFF"]);
            command.args(["--skip-log-bin", "--innodb-redo-log-capacity=16M"]);
            command.args(["--gtid-mode=ON", "--enforce-gtid-consistency=ON"]);
            command.args(["--secure-file-priv="]);
            command.arg(format!("--basedir={}", root.display()));
            command
        } else {
            let mut command = Command::new(old.join("mysqld"));
            command.env("LD_LIBRARY_PATH", &old).arg("--no-defaults");
            command.arg(format!("--basedir={}", old.display()));
            command.arg(format!("--lc-messages-dir={}", old.join("share").display()));
            command.arg(format!("--character-sets-dir={}", old.join("share/charsets").display()));
            command.arg("--innodb-log-file-size=5M");
            command.args(["--log-bin=binlog", "--log-slave-updates", "--server-id=1"]);
            command.arg("--log-bin-trust-function-creators=1");
            command.args(["--gtid-mode=ON", "--enforce-gtid-consistency=ON"]);
            command
        };
        let port = free_port();
        let child = command
            .args(["--user=root", "--bind-address=127.0.0.1", "--skip-name-resolve"])
            .args(["--innodb-buffer-pool-size=32M", "--performance-schema=OFF"])
            .args(["--innodb-flush-log-at-trx-commit=0", "--max-connections=100", "--log-raw"])
            .args(more)
            .arg(format!("--general-log-file={}", directory.join("general").display()))
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--tmpdir={}", directory.display()))
            .arg(format!("--port={port}"))
            .arg(format!("--socket={}", directory.join("socket").display()))
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("log")).expect("a log file"))
            .spawn()
            .expect("mysqld starts");
        RUNNING.fetch_add(1, Ordering::SeqCst);
        let database = Self { child, port, directory };
        database.fill(name);
        database
    }

    /// Makes this server one that has got all that the other ever writes.
    fn has_got(&self, other: &Self) {
        let version = self.sql("SELECT VERSION()");
        if version.contains("MariaDB") {
            let domain = other.sql("SELECT @@gtid_domain_id");
            self.sql(&format!("SET GLOBAL gtid_slave_pos = '{domain}-1000-1000000000'"));
            return;
        }
        let is_old = version.starts_with("5.6");
        let reset = if is_old { "RESET MASTER" } else { "RESET BINARY LOGS AND GTIDS" };
        let uuid = other.sql("SELECT @@server_uuid");
        self.sql(&format!("{reset}; SET GLOBAL gtid_purged = '{uuid}:1-1000000000'"));
    }

    fn both(servers: [Self; 2]) -> Mutex<[Self; 2]> {
        servers[0].has_got(&servers[1]);
        servers[1].has_got(&servers[0]);
        Mutex::new(servers)
    }

    /// Waits until the server listens, then gives it users and tables that say which one it is.
    fn fill(&self, name: &str) {
        let since = Clock::now();
        let socket = self.directory.join("socket");
        let listens = || {
            UnixStream::connect(&socket).is_ok()
                && TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        };
        while !listens() {
            assert!(since.elapsed() < Duration::from_secs(60), "the server does not listen");
            thread::sleep(Duration::from_millis(50));
        }
        self.sql(&format!(
            "CREATE USER app@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'; \
             CREATE USER other@'127.0.0.1' IDENTIFIED BY ''; \
             GRANT ALL ON *.* TO app@'127.0.0.1'; GRANT ALL ON t.* TO other@'127.0.0.1'; \
             CREATE DATABASE t; CREATE DATABASE u; \
             CREATE TABLE t.mark (name VARCHAR(20)); INSERT INTO t.mark VALUES ('{name}'); \
             CREATE TABLE u.mark (name VARCHAR(20)); INSERT INTO u.mark VALUES ('{name}-u')"
        ));
    }

    /// Runs statements as root on this server itself.
    pub(super) fn sql(&self, text: &str) -> String {
        let output = Command::new("mariadb")
            .args(["--no-defaults", "--skip-ssl", "-N", "-uroot"])
            .arg(format!("--socket={}", self.directory.join("socket").display()))
            .arg("-e")
            .arg(text)
            .output()
            .expect("the client runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
        // The last one takes the template with it. Not while another is being made.
        if RUNNING.fetch_sub(1, Ordering::SeqCst) == 1
            && let Ok(mut template) = TEMPLATE.try_lock()
        {
            let _ = fs::remove_dir_all(base());
            *template = None;
        }
    }
}

/// A data directory that every MariaDB starts as a copy of.
static TEMPLATE: Mutex<Option<PathBuf>> = Mutex::new(None);
static RUNNING: AtomicU32 = AtomicU32::new(0);

/// The two servers, `first` and `second`.
pub(super) struct Pair(Mutex<[Database; 2]>);

impl Pair {
    /// The pair that tests share; it ends with the last test that uses it.
    pub(super) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Pair>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|it| it.into_inner());
        if let Some(pair) = shared.upgrade() {
            return pair;
        }
        let pair = Arc::new(Self::own());
        *shared = Arc::downgrade(&pair);
        pair
    }

    /// A pair of which a server may be killed.
    pub(super) fn own() -> Self {
        Self::with(&[])
    }

    /// The same, with further options of the servers.
    pub(super) fn with(more: &[String]) -> Self {
        let mut template = TEMPLATE.lock().unwrap_or_else(|it| it.into_inner());
        let template = template.get_or_insert_with(|| {
            let directory = base().join("template");
            fs::create_dir_all(base()).expect("a directory for the test");
            run(Command::new("mariadb-install-db")
                .args(["--no-defaults", "--auth-root-authentication-method=normal"])
                .args(["--skip-test-db", "--user=root"])
                .args(SMALL)
                .arg(format!("--tmpdir={}", base().display()))
                .arg(format!("--datadir={}", directory.display())));
            directory
        });
        let start = |name| Database::start(template, name, more);
        Self(Database::both([start("first"), start("second")]))
    }

    /// A pair of MySQL 9.7, where `scripts/servers` has unpacked it.
    pub(super) fn mysql97() -> Option<Self> {
        Self::mysql(MYSQL97, &[])
    }

    /// A pair of MySQL 5.6, where `scripts/servers` has unpacked it.
    pub(super) fn mysql56() -> Option<Self> {
        Self::mysql56_with(&[])
    }

    /// The same, with further options of the servers.
    pub(super) fn mysql56_with(more: &[String]) -> Option<Self> {
        Self::mysql(MYSQL56, more)
    }

    fn mysql(place: (&str, &str), more: &[String]) -> Option<Self> {
        let home = home(place)?;
        let _template = TEMPLATE.lock().unwrap_or_else(|it| it.into_inner());
        let start = |name| Database::start_mysql(&home, name, more);
        Some(Self(Database::both([start("first"), start("second")])))
    }

    pub(super) fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::MariaDb => Some(Self::own()),
            Kind::MySql97 => Self::mysql97(),
            Kind::MySql56 => Self::mysql56(),
        }
    }

    /// Lets the servers end with this process, however it ends, for a pair that nobody drops.
    pub(super) fn keep(&self) -> Keeper {
        let servers = self.0.lock().unwrap_or_else(|it| it.into_inner());
        let script = "trap '' INT HUP; read _; kill -9 \"$2\" \"$3\"; sleep 0.2; rm -rf \"$1\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "keeper"]).arg(base());
        command.args(servers.iter().map(|it| it.child.id().to_string()));
        Keeper { _child: command.stdin(Stdio::piped()).spawn().expect("a shell") }
    }

    /// Where a server writes what it is asked, once `general_log` is on.
    pub(super) fn general_log(&self, host: usize) -> PathBuf {
        let servers = self.0.lock().unwrap_or_else(|it| it.into_inner());
        servers[host].directory.join("general")
    }

    pub(super) fn ports(&self) -> [u16; 2] {
        let servers = self.0.lock().unwrap_or_else(|it| it.into_inner());
        [servers[0].port, servers[1].port]
    }

    /// A file in the data directory of a MySQL.
    pub(super) fn data_file(&self, host: usize, name: &str) -> String {
        let servers = self.0.lock().unwrap_or_else(|it| it.into_inner());
        servers[host].directory.join("data").join(name).to_str().expect("a plain path").to_owned()
    }

    /// The path where a server listens.
    pub(super) fn socket(&self, host: usize) -> String {
        let servers = self.0.lock().unwrap_or_else(|it| it.into_inner());
        servers[host].directory.join("socket").to_str().expect("a plain path").to_owned()
    }

    pub(super) fn sql(&self, host: usize, text: &str) -> String {
        self.0.lock().unwrap_or_else(|it| it.into_inner())[host].sql(text)
    }

    pub(super) fn kill(&self, host: usize) {
        self.0.lock().unwrap_or_else(|it| it.into_inner())[host].kill();
    }
}

/// A shell that waits for the end of its input, which is the end of this process.
pub(super) struct Keeper {
    _child: Child,
}

enum Order {
    Route(Routes, Sender<()>),
    Ask(Sender<(sql::Status, bool, Duration)>),
    Stop,
}

/// A splitter on its own thread.
pub(super) struct Front {
    pub(super) address: SocketAddr,
    /// The admin port, where the configuration has one.
    pub(super) admin: Option<SocketAddr>,
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Front {
    pub(super) fn start(ports: [u16; 2], change: impl FnOnce(&mut sql::Config)) -> Self {
        Self::of_file(ports, None, change)
    }

    pub(super) fn before(servers: [SocketAddr; 2], change: impl FnOnce(&mut sql::Config)) -> Self {
        Self::with(servers, None, change)
    }

    /// One that has a file to save in.
    pub(super) fn of_file(
        ports: [u16; 2],
        source: Option<Source>,
        change: impl FnOnce(&mut sql::Config),
    ) -> Self {
        Self::with(ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port))), source, change)
    }

    fn with(
        servers: [SocketAddr; 2],
        source: Option<Source>,
        change: impl FnOnce(&mut sql::Config),
    ) -> Self {
        let user = |name: &str, password: &str| sql::User {
            name: name.to_owned(),
            password: Secret::Text(password.to_owned()),
        };
        let mut config = sql::Config {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            users: vec![user("app", PASSWORD), user("other", "")],
            hold_limit: Duration::from_secs(5),
            ..sql::Config::default()
        };
        change(&mut config);
        let site = Site { me: HostId::First, servers, source };
        let (orders, inbox) = mpsc::channel();
        let (bound, binding) = mpsc::channel();
        let thread = Some(thread::spawn(move || {
            let plane = Plane::new().expect("an epoll");
            let front = ServeSql::new(&config, site, &plane).expect("binds");
            bound.send(front.addresses().expect("bound")).expect("the test waits");
            serve(front, plane, &inbox);
        }));
        let addresses = binding.recv().expect("bound");
        let (address, admin) = (addresses[0], addresses.get(1).copied());
        let front = Self { address, admin, orders, thread };
        front.route(&routes(Some(HostId::First), [false, true]));
        front
    }

    pub(super) fn route(&self, routes: &Routes) {
        let (done, waiting) = mpsc::channel();
        self.orders.send(Order::Route(routes.clone(), done)).expect("the splitter runs");
        waiting.recv().expect("the splitter obeys");
    }

    pub(super) fn status(&self) -> sql::Status {
        self.ask().0
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.ask().1
    }

    /// Processor time that the splitter's thread has used.
    pub(super) fn cpu(&self) -> Duration {
        self.ask().2
    }

    fn ask(&self) -> (sql::Status, bool, Duration) {
        let (answer, inbox) = mpsc::channel();
        self.orders.send(Order::Ask(answer)).expect("the splitter runs");
        inbox.recv().expect("the splitter answers")
    }

    /// Waits until the splitter's status is as wanted.
    pub(super) fn wait(&self, what: &str, is_so: impl Fn(&sql::Status) -> bool) {
        let since = Clock::now();
        while !is_so(&self.status()) {
            let status = self.status();
            assert!(since.elapsed() < Duration::from_secs(10), "{what}: {status:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes flow to `source`; `fit` says which hosts may serve reads.
pub(super) fn routes(source: Option<HostId>, fit: [bool; 2]) -> Routes {
    Routes {
        version: 1,
        source,
        is_replica_fit: fit,
        writes: Flow::Flowing,
        is_host_alive: [true; 2],
        is_php_draining: [false; 2],
        web: WebIntake::Serving,
    }
}

/// As the node's loop does it: wait, stamp the time once, handle.
fn serve(mut front: ServeSql, mut plane: Plane, orders: &Receiver<Order>) {
    let started = Clock::now();
    let mut buffer = vec![0; limits::READ_BUFFER_BYTES];
    let mut ready = Vec::new();
    loop {
        let elapsed = started.elapsed();
        let now = Instant::from_nanos(1_000_000_000 + u64::try_from(elapsed.as_nanos()).unwrap());
        let is_more = plane.poll(&mut ready).expect("polls");
        let mut turn = Turn { now, plane: &plane, buffer: &mut buffer };
        for &event in &ready {
            front.ready(&mut turn, event);
        }
        let is_more = front.resume(&mut turn) || is_more;
        if front.deadline().is_some_and(|at| at <= now) {
            front.expire(&mut turn);
        }
        while let Ok(order) = orders.try_recv() {
            match order {
                Order::Route(routes, done) => {
                    front.set_routes(&mut turn, &routes);
                    let _ = done.send(());
                }
                Order::Ask(answer) => {
                    let cpu = clock_gettime(ClockId::ThreadCPUTime);
                    let cpu = Duration::new(
                        cpu.tv_sec.try_into().unwrap_or(0),
                        cpu.tv_nsec.try_into().unwrap_or(0),
                    );
                    let _ = answer.send((front.status(), front.is_quiet(), cpu));
                }
                Order::Stop => return,
            }
        }
        if !is_more {
            let wait = front.deadline().map_or(Duration::from_millis(5), |at| at.since(now));
            let wait = wait.min(Duration::from_millis(5));
            let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
            let epoll = plane.epoll();
            let _ = poll(&mut [PollFd::new(epoll, PollFlags::IN)], Some(&wait));
        }
    }
}

/// Where `scripts/servers` has unpacked a MySQL: the variable that says so, and the usual place.
const MYSQL97: (&str, &str) = ("TANDEM_MYSQL97", "/var/cache/tandem/servers/mysql97");
const MYSQL56: (&str, &str) = ("TANDEM_MYSQL56", "/var/cache/tandem/servers/mysql56");

fn home((variable, usual): (&str, &str)) -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os(variable).unwrap_or_else(|| usual.into()));
    home.join("stamp").exists().then_some(home)
}

/// The data directory that every MySQL 9.7 starts as a copy of.
pub(super) fn mysql97_template() -> Option<PathBuf> {
    home(MYSQL97).map(|home| home.join("template"))
}

/// The command line client of MySQL 9.7, on its own libraries.
pub(super) fn mysql97_client() -> Option<Command> {
    let root = home(MYSQL97)?.join("root/usr");
    let libraries = root.join("lib/x86_64-linux-gnu");
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&libraries).arg(root.join("bin/mysql"));
    Some(command)
}

pub(super) fn base() -> PathBuf {
    std::env::temp_dir().join(format!("tandem-sql-{}", std::process::id()))
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("bound").port()
}

const SMALL: [&str; 3] = [
    "--innodb-log-file-size=8M",
    "--innodb-data-file-path=ibdata1:10M:autoextend",
    "--innodb-temp-data-file-path=ibtmp1:8M:autoextend",
];
