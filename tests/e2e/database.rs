//! A database server of a host: made, started, stopped, asked.
//!
//! In: the flavour (what scripts/servers prints). Out: a server on port 3306 of every address of
//! the host, closed for writing at every boot, with the scenario's accounts and an empty binlog.
//! Must not: set replication up, open the server for writing; tandem does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, Row};
use nix::sys::signal::Signal;

use crate::host::{Host, text};
use crate::world::{Outcome, wait_until};

/// A kind of database server, as scripts/servers describes it.
#[derive(Debug, Clone)]
pub struct Flavour {
    pub name: String,
    pub version: String,
    server: Vec<String>,
    init: String,
    options: Vec<String>,
    /// How to run MySQL Router of the same release, where there is one.
    pub router: Option<Vec<String>>,
}

pub const ROOT_PASSWORD: &str = "Xp29at5F37";
pub const APP_PASSWORD: &str = "app-Xp29at5F37";
pub const PID_FILE: &str = "/run/mysqld/mysqld.pid";
pub const SOCKET: &str = "/run/mysqld/mysqld.sock";
const LOG: &str = "mysqld";
const START_LIMIT: Duration = Duration::from_secs(60);

impl Flavour {
    /// Installs the server if it is missing.
    pub fn find(name: &str) -> Outcome<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/servers");
        let output = Command::new("bash").arg(&script).arg(name).output().map_err(text)?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            let tail: Vec<&str> = why.lines().rev().take(3).collect();
            return Err(format!("scripts/servers {name}: {}", tail.join(" | ")));
        }
        let printed = String::from_utf8_lossy(&output.stdout);
        let value = |key: &str| {
            printed
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(|value| value.trim_matches('"').to_owned())
                .ok_or_else(|| format!("scripts/servers {name} prints no {key}"))
        };
        let words =
            |text: String| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        Ok(Self {
            name: value("MYSQL_FLAVOUR")?,
            version: value("MYSQL_VERSION")?,
            server: words(value("MYSQLD")?),
            init: value("MYSQL_INIT")?,
            options: words(value("MYSQL_OPTIONS")?),
            router: Some(words(value("MYSQL_ROUTER")?)).filter(|words| !words.is_empty()),
        })
    }

    fn is_mariadb(&self) -> bool {
        self.name == "mariadb"
    }

    fn has_super_read_only(&self) -> bool {
        self.name == "mysql97"
    }

    /// Options beside those of scripts/servers: what this host is, what a power cut must not take,
    /// and closed at boot, so that a host that returns is harmless before anybody looks at it.
    fn settings(&self, host: &Host) -> Vec<String> {
        let number = host.identity().number;
        let mut all: Vec<String> = self.options.clone();
        all.extend([
            "--datadir=/var/lib/mysql".into(),
            format!("--socket={SOCKET}"),
            format!("--pid-file={PID_FILE}"),
            "--port=3306".into(),
            "--bind-address=0.0.0.0".into(),
            format!("--server-id={number}"),
            format!("--report-host={}", host.name()),
            "--report-port=3306".into(),
            "--sync-binlog=1".into(),
            "--innodb-flush-log-at-trx-commit=1".into(),
        ]);
        // 3600 s by default on 5.6: a dead source would look alive for an hour.
        let timeout = if self.has_super_read_only() { "replica" } else { "slave" };
        all.push(format!("--{timeout}-net-timeout=4"));
        all
    }

    fn closed(&self) -> &'static [&'static str] {
        if self.has_super_read_only() {
            &["--read-only=1", "--super-read-only=1"]
        } else {
            &["--read-only=1"]
        }
    }

    /// One statement a line, for --init-file: not in the binlog, or the hosts would differ.
    fn accounts(&self) -> String {
        let mut lines = vec!["SET SESSION sql_log_bin=0;".to_owned()];
        let root = ("root", ROOT_PASSWORD, "*.*", " WITH GRANT OPTION");
        let app = ("app", APP_PASSWORD, "app.*", "");
        for (user, password, on, with) in [root, app] {
            let user = format!("'{user}'@'192.168.3.%'");
            if self.has_super_read_only() {
                lines.push(format!("CREATE USER {user} IDENTIFIED BY '{password}';"));
                lines.push(format!("GRANT ALL ON {on} TO {user}{with};"));
            } else {
                lines
                    .push(format!("GRANT ALL ON {on} TO {user} IDENTIFIED BY '{password}'{with};"));
            }
        }
        lines.join("\n") + "\n"
    }
}

/// Makes the data directory with its accounts, and starts the server on it, closed.
pub fn create(host: &mut Host, flavour: &Flavour) -> Outcome<()> {
    let directory = host.path("/var/lib/mysql");
    let output = Command::new(&flavour.init).arg(&directory).output().map_err(text)?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}: {}", host.name(), flavour.init, why.trim()));
    }
    fs::write(host.path("/etc/tandem-accounts.sql"), flavour.accounts()).map_err(text)?;
    spawn(host, flavour, &["--init-file=/etc/tandem-accounts.sql"])?;
    wait_ready(host)?;
    let close = if flavour.has_super_read_only() { "super_read_only" } else { "read_only" };
    ask(host, &format!("SET GLOBAL {close}=1")).map(drop)
}

/// Starts the server on the directory that is there, closed.
pub fn start(host: &mut Host, flavour: &Flavour) -> Outcome<()> {
    start_with(host, flavour, &[])
}

/// The same with further options.
pub fn start_with(host: &mut Host, flavour: &Flavour, more: &[&str]) -> Outcome<()> {
    spawn(host, flavour, &[flavour.closed(), more].concat())
}

/// Waits until the server answers.
pub fn wait_ready(host: &mut Host) -> Outcome<()> {
    let mut ended = None;
    let waited = wait_until(&format!("{}: the database answers", host.name()), START_LIMIT, || {
        ended = host.ended(LOG);
        ended.is_some() || ask(host, "SELECT 1").is_ok()
    });
    if let Some(status) = ended {
        return Err(format!("{}: mysqld ended: {status}\n{}", host.name(), host.log_text(LOG)));
    }
    waited.map(drop)
}

/// Kills the server as a crash does; nothing starts it again.
pub fn kill(host: &Host) -> Outcome<()> {
    host.signal(PID_FILE, Signal::SIGKILL)
}

/// Whether the server that was started last has ended.
pub fn has_ended(host: &mut Host) -> bool {
    !host.is_alive(PID_FILE) && host.bury(LOG)
}

/// Asks the server as its root, by the socket; the rows, each value as text.
pub fn ask(host: &Host, query: &str) -> Outcome<Vec<Vec<String>>> {
    let mut connection = connect(&host.live_path(SOCKET)?)?;
    let rows: Vec<Row> =
        connection.query(query).map_err(|error| format!("{}: {query}: {error}", host.name()))?;
    Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(show).collect()).collect())
}

/// A statement of root that leaves no trace in the binlog, closed server or not.
pub fn ask_unlogged(host: &Host, flavour: &Flavour, statement: &str) -> Outcome<()> {
    let mut connection = connect(&host.live_path(SOCKET)?)?;
    let strict = |state| format!("SET GLOBAL super_read_only={state}");
    let mut all = vec!["SET SESSION sql_log_bin=0".to_owned(), statement.to_owned()];
    if flavour.has_super_read_only() {
        all.insert(0, strict("OFF"));
        all.push(strict("ON"));
    }
    all.iter().try_for_each(|query| {
        connection.query_drop(query).map_err(|error| format!("{}: {query}: {error}", host.name()))
    })
}

/// Runs statements as a user of the splitter, at 127.0.0.1:1234 of the host.
pub fn through_splitter(host: &Host, user: &str, password: &str, all: &[&str]) -> Outcome<()> {
    let mut session = session(host, 1234, user, password)?;
    all.iter().try_for_each(|query| {
        session
            .query_drop(query)
            .map_err(|error| format!("{}: splitter: {query}: {error}", host.name()))
    })
}

/// A session of a program on the host itself: with the splitter (port 1234), or with the server.
pub fn session(host: &Host, port: u16, user: &str, password: &str) -> Outcome<Conn> {
    let address = if port == 1234 {
        "127.0.0.1"
    } else {
        host.identity().inside.split('/').next().unwrap_or_default()
    };
    let options = OptsBuilder::new()
        .ip_or_hostname(Some(address))
        .tcp_port(port)
        .prefer_socket(false)
        .user(Some(user))
        .pass(Some(password))
        .tcp_connect_timeout(Some(Duration::from_secs(5)))
        .read_timeout(Some(Duration::from_secs(20)));
    // A socket stays in the network that it was made in.
    host.on_network(|| Conn::new(options).map_err(text))?
        .map_err(|why: String| format!("{}: port {port}: {why}", host.name()))
}

fn connect(socket: &Path) -> Outcome<Conn> {
    let socket: PathBuf = socket.to_owned();
    let options = OptsBuilder::new()
        .socket(socket.to_str())
        .user(Some("root"))
        .read_timeout(Some(Duration::from_secs(20)));
    Conn::new(options).map_err(text)
}

fn spawn(host: &mut Host, flavour: &Flavour, more: &[&str]) -> Outcome<()> {
    let settings = flavour.settings(host);
    let mut words: Vec<&str> = flavour.server.iter().map(String::as_str).collect();
    words.extend(settings.iter().map(String::as_str));
    words.extend(more);
    host.start(LOG, &words)
}

fn show(value: mysql::Value) -> String {
    // The text protocol carries bytes and NULL only.
    if let mysql::Value::Bytes(bytes) = value {
        return String::from_utf8_lossy(&bytes).into_owned();
    }
    value.as_sql(true)
}

impl Flavour {
    /// What the demo calls it.
    pub fn title(&self) -> String {
        let name = if self.is_mariadb() { "MariaDB" } else { "MySQL" };
        format!("{name} {}", self.version.split('-').next().unwrap_or(&self.version))
    }
}
