//! A real pair with the accounts of the transcripts, and applets run against it.
//!
//! In: a recipe. Out: what was said, what is in the databases.
//! Read first: tests/repl/pair.rs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use tandem::repl::{Position, ThreadState};

use super::pair::{ADMIN, APP, Pair, Recipe, Server, log_in};
use super::said::{Said, Transcript, binary};

pub(crate) struct Stage {
    pub(crate) pair: Pair,
    pub(crate) port: u16,
    flavour: &'static str,
}

/// A client under load.
pub(crate) struct Writer {
    stops: Arc<AtomicBool>,
    thread: JoinHandle<Written>,
}

/// A statement under way.
pub(crate) struct Running {
    pub(crate) id: u32,
    pub(crate) thread: JoinHandle<mysql::Result<()>>,
}

/// What a client was told.
pub(crate) struct Written {
    pub(crate) acknowledged: Vec<u32>,
    /// The longest time between two of them.
    pub(crate) gap: Duration,
}

impl Written {
    /// Acknowledged, and not there.
    pub(crate) fn lost(&self, server: &Server) -> usize {
        let rows: Vec<u32> =
            server.connect(ADMIN).query("SELECT id FROM app.t").expect("an administrator");
        let rows: BTreeSet<u32> = rows.into_iter().collect();
        self.acknowledged.iter().filter(|id| !rows.contains(id)).count()
    }
}

impl Writer {
    pub(crate) fn stop(self) -> Written {
        self.stops.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer ends")
    }
}

fn write_until(servers: &[SocketAddr; 2], first: u32, stops: &AtomicBool) -> Written {
    let connect = |address: SocketAddr| log_in(address, APP).expect("both servers are up");
    let mut conns = servers.map(connect);
    let (mut at, mut id) = (0, first);
    let mut written = Written { acknowledged: Vec::new(), gap: Duration::ZERO };
    let mut last = Instant::now();
    while !stops.load(Ordering::Relaxed) {
        id += 1;
        match conns[at].query_drop(format!("INSERT INTO app.t VALUES ({id})")) {
            Ok(()) => {
                written.gap = written.gap.max(last.elapsed());
                last = Instant::now();
                written.acknowledged.push(id);
                thread::sleep(Duration::from_millis(1));
            }
            Err(_) => {
                at = 1 - at;
                if conns[at].query_drop("SELECT 1").is_err() {
                    conns[at] = connect(servers[at]);
                }
            }
        }
    }
    written
}

impl Stage {
    /// Two fresh servers that know each other only by their accounts.
    pub(crate) fn new(recipe: &'static Recipe) -> Self {
        let pair = Pair::new(recipe);
        let port = pair.a.address.port();
        for server in [&pair.a, &pair.b] {
            let_root_in(server);
        }
        Self { pair, port, flavour: recipe.flavour }
    }

    /// A third server, on 127.0.0.3, which SERVER3 stands for.
    pub(crate) fn third(&self, recipe: &'static Recipe) -> Server {
        let server = Server::new(recipe, ([127, 0, 0, 3], self.port).into(), false);
        let_root_in(&server);
        server
    }

    /// Runs an applet; SERVER1 and SERVER2 stand for host and port.
    pub(crate) fn run(&self, line: &str) -> Said {
        self.run_with(line, &[])
    }

    pub(crate) fn ok(&self, line: &str) -> Said {
        let said = self.run(line);
        assert_eq!(said.code, 0, "{line}\n{}", said.text);
        said
    }

    pub(crate) fn fails(&self, line: &str) -> Said {
        let said = self.run(line);
        assert_eq!(said.code, 1, "{line}\n{}", said.text);
        said
    }

    pub(crate) fn run_with(&self, line: &str, environment: &[(&str, &str)]) -> Said {
        let words = self.words(line);
        Said::of(&words[0], &words[1..], environment)
    }

    /// Ends the applet with SIGKILL; true when it had ended by itself.
    pub(crate) fn run_killed(&self, line: &str, after: Duration) -> bool {
        let mut child = Command::new(binary())
            .args(self.words(line))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary runs");
        thread::sleep(after);
        let was_over = child.try_wait().expect("our own child").is_some();
        let _ended_already = child.kill();
        child.wait().expect("our own child");
        was_over
    }

    /// Starts an applet; `end` waits for it.
    pub(crate) fn begin(&self, line: &str) -> Child {
        let mut command = Command::new(binary());
        command.args(self.words(line)).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).spawn().expect("the binary runs")
    }

    pub(crate) fn end(&self, child: Child) -> Said {
        let output = child.wait_with_output().expect("our own child");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        Said { code: output.status.code().unwrap_or(-1), text }
    }

    /// A statement of the application that takes its time; it is under way when this returns.
    pub(crate) fn long_statement(&self, server: &Server, sql: &'static str) -> Running {
        let mut conn = server.connect(APP);
        let id = conn.connection_id();
        let thread = thread::spawn(move || conn.query_drop(sql));
        let state = format!(
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID={id} \
                             AND COMMAND='Query'"
        );
        eventually("it runs", || server.value(&state) == "1");
        thread::sleep(Duration::from_millis(100));
        Running { id, thread }
    }

    /// A statement about replication, in the words of this version.
    pub(crate) fn in_its_words(&self, sql: &str) -> String {
        if !self.is_new() {
            return sql.to_owned();
        }
        sql.replace("CHANGE MASTER TO", "CHANGE REPLICATION SOURCE TO")
            .replace("MASTER_", "SOURCE_")
            .replace("SLAVE", "REPLICA")
    }

    fn words(&self, line: &str) -> Vec<String> {
        let place = |word: &str| {
            word.replace("SERVER1", &format!("127.0.0.1:{}", self.port))
                .replace("SERVER2", &format!("127.0.0.2:{}", self.port))
                .replace("SERVER3", &format!("127.0.0.3:{}", self.port))
        };
        line.split_whitespace().map(place).collect()
    }

    /// The command of a transcript, and everything that its original said.
    pub(crate) fn replay(&self, name: &str) {
        self.replay_but(name, &[]);
    }

    pub(crate) fn replay_but(&self, name: &str, tolerates: &[&str]) {
        let transcript = Transcript::load(name);
        let said = Said::of(&transcript.program, &transcript.arguments_for(self.port), &[]);
        transcript.compare(name, &said, self.port, tolerates);
    }

    pub(crate) fn write(&self, ids: Range<u32>) {
        write(&self.pair.a, ids);
    }

    pub(crate) fn write_on_b(&self, ids: Range<u32>) {
        write(&self.pair.b, ids);
    }

    /// Holds B's applier, as a long statement would, until dropped.
    pub(crate) fn hold_applier(&self) -> mysql::Conn {
        let mut conn = self.pair.b.connect(ADMIN);
        conn.query_drop("LOCK TABLES app.t READ").expect("a lock");
        conn
    }

    pub(crate) fn eventually_has(&self, server: &Server, count: usize) {
        eventually("rows arrive", || rows(server) == count);
    }

    /// Until B has received all that A has.
    pub(crate) fn wait_until_received(&mut self) {
        let flavour = self.pair.host_a.observe().flavour.expect("A is up");
        let parse = |text: &str| Position::parse(flavour, text).expect("a position");
        let wanted = parse(&self.pair.host_a.position());
        eventually("B receives", || {
            let seen = self.pair.host_b.observe();
            let received = seen.replica.map(|replica| replica.retrieved).unwrap_or_default();
            let applied = parse(&seen.position.unwrap_or_default());
            applied.union(&parse(&received)).contains(&wanted)
        });
    }

    pub(crate) fn wait_until_applier_stops(&mut self) {
        eventually("B's applier stops", || {
            let seen = self.pair.host_b.observe();
            seen.replica.is_some_and(|replica| replica.sql == ThreadState::Stopped)
        });
    }

    /// A row that only B has, and no binlog knows of.
    pub(crate) fn plant_on_b(&self, id: u32) {
        let mut conn = self.pair.b.connect(ADMIN);
        self.open_b();
        conn.query_drop("SET SESSION sql_log_bin=0").expect("an administrator");
        conn.query_drop(format!("INSERT INTO app.t VALUES ({id})")).expect("a write");
    }

    pub(crate) fn open_b(&self) {
        if self.is_new() {
            self.pair.b.run("SET GLOBAL super_read_only=OFF");
        }
        self.pair.b.run("SET GLOBAL read_only=OFF");
    }

    pub(crate) fn forget_source_on_b(&self) {
        let word = self.word();
        self.pair.b.run(&format!("STOP {word}"));
        self.pair.b.run(&format!("RESET {word} ALL"));
    }

    /// REPLICA or SLAVE.
    pub(crate) fn word(&self) -> &'static str {
        if self.is_new() { "REPLICA" } else { "SLAVE" }
    }

    fn is_new(&self) -> bool {
        self.flavour == "mysql97"
    }

    /// Writes to whichever server takes it, as fast as answers come.
    pub(crate) fn writer(&self, first: u32) -> Writer {
        let opts = [&self.pair.a, &self.pair.b].map(|server| server.address);
        let stops = Arc::new(AtomicBool::new(false));
        let seen = stops.clone();
        let thread = thread::spawn(move || write_until(&opts, first, &seen));
        Writer { stops, thread }
    }

    pub(crate) fn rows_of_both(&self) -> (usize, usize) {
        (rows(&self.pair.a), rows(&self.pair.b))
    }
}

/// As the transcripts do.
fn let_root_in(server: &Server) {
    let mut conn = server.connect(ADMIN);
    conn.query_drop("SET SESSION sql_log_bin=0").expect("an administrator");
    // Without a password, and preferred to the one below.
    let _not_everywhere = conn.query_drop("DROP USER 'root'@'127.0.0.1'");
    conn.query_drop("CREATE USER 'root'@'%' IDENTIFIED BY 'pw'").expect("a user");
    conn.query_drop("GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION").expect("a grant");
}

/// As the application; the first rows make their table.
fn write(server: &Server, ids: Range<u32>) {
    let mut conn = server.connect(APP);
    if ids.start == 0 {
        let mut admin = server.connect(ADMIN);
        admin.query_drop("CREATE DATABASE IF NOT EXISTS app").expect("a database");
        admin.query_drop("CREATE TABLE app.t (id INT PRIMARY KEY) ENGINE=InnoDB").expect("a table");
    }
    for id in ids {
        conn.query_drop(format!("INSERT INTO app.t VALUES ({id})")).expect("a write");
    }
}

pub(crate) fn rows(server: &Server) -> usize {
    server.value("SELECT COUNT(*) FROM app.t").parse().expect("a count")
}

pub(crate) const REPLICATE: &str =
    "mysqlreplicate --master=root:pw@SERVER1 --slave=root:pw@SERVER2 --rpl-user=rpl:pw";
pub(crate) const SWITCH: &str = "mysqlrpladmin --master=root:pw@SERVER1 \
    --new-master=root:pw@SERVER2 --demote-master --slaves=root:pw@SERVER2 --rpl-user=rpl:pw \
    switchover";
pub(crate) const SWITCH_BACK: &str = "mysqlrpladmin --master=root:pw@SERVER2 \
    --new-master=root:pw@SERVER1 --demote-master --discover-slaves-login=root:pw \
    --rpl-user=rpl:pw switchover";

pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}
