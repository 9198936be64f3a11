//! One connection to the local database, and the worker thread that waits for it.
//!
//! In: SQL text with a limit. Out: rows of text, or `ServerError`. Must not: decide anything, block
//! the executor's thread, or log SQL (it carries passwords).
//! Read first: facts/repl.md 3.1 (a hung server accepts connections and never greets).
//!
//! A query that is not answered within its limit is abandoned: its socket is shut down, so that its
//! thread comes back, and the next query opens a connection of its own.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mysql::consts::CapabilityFlags;
use mysql::prelude::Queryable;
use mysql::{BinlogDumpFlags, BinlogRequest, Conn, Opts, OptsBuilder, Params, Value};
use mysql_common::binlog::events::Event;
use nix::sys::socket::{Shutdown, shutdown};

use crate::config::Config;
use crate::limits;
use crate::repl::{Rows, ServerError};
use crate::wire::HostId;

/// The local database server. Clones share the connection; two queries at once use two.
#[derive(Clone)]
pub struct LocalServer {
    /// For messages.
    address: String,
    opts: Opts,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    idle: Mutex<Option<Conn>>,
    /// Worker threads with a query whose asker has gone.
    abandoned: AtomicUsize,
}

impl fmt::Debug for LocalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalServer({})", self.address)
    }
}

impl LocalServer {
    #[must_use]
    pub fn new(address: SocketAddr, user: &str, password: &str) -> Self {
        let place = OptsBuilder::new()
            .ip_or_hostname(Some(address.ip().to_string()))
            .tcp_port(address.port());
        Self::at(address.to_string(), place, user, password)
    }

    /// The database of one of the two hosts, for its administrator.
    #[must_use]
    pub fn of(config: &Config, host: HostId) -> Self {
        let address = (config.host(host).inside_address(), config.repl.port).into();
        Self::new(address, &config.repl.user, config.repl.password.reveal())
    }

    /// Over a socket of this host.
    #[must_use]
    pub fn on_socket(path: &str, user: &str, password: &str) -> Self {
        Self::at(path.to_owned(), OptsBuilder::new().socket(Some(path)), user, password)
    }

    /// The same server over a connection of its own, whose writes reach no binlog.
    #[must_use]
    pub fn unlogged(&self) -> Self {
        let setting = format!("{SESSION}, sql_log_bin=0");
        let opts = OptsBuilder::from_opts(self.opts.clone()).init(vec![setting]);
        Self { address: self.address.clone(), opts: opts.into(), shared: Arc::default() }
    }

    /// Logs in.
    pub fn session(&self) -> Result<Session, ServerError> {
        let opts = OptsBuilder::from_opts(self.opts.clone()).read_timeout(None);
        Ok(Session { conn: Conn::new(opts).map_err(server_error)? })
    }

    /// The same for whole tables: packets as large as the server takes them, and a host that lost
    /// its power is noticed, as is a server that says nothing for `silence`.
    pub fn bulk_session(&self, silence: Option<Duration>) -> Result<Session, ServerError> {
        let opts = OptsBuilder::from_opts(self.opts.clone())
            .read_timeout(silence)
            .write_timeout(None)
            .max_allowed_packet(None)
            .tcp_keepalive_time_ms(Some(10_000))
            .tcp_keepalive_probe_interval_secs(Some(5))
            .tcp_keepalive_probe_count(Some(4));
        Ok(Session { conn: Conn::new(opts).map_err(server_error)? })
    }

    fn at(address: String, place: OptsBuilder, user: &str, password: &str) -> Self {
        let opts = place
            .user(Some(user))
            .pass(Some(password))
            .prefer_socket(false)
            .tcp_connect_timeout(Some(limits::STATEMENT_LIMIT))
            .read_timeout(Some(limits::SERVER_READ_MAX))
            .write_timeout(Some(limits::STATEMENT_LIMIT))
            .additional_capabilities(CapabilityFlags::empty())
            // Known, so that the driver does not ask.
            .max_allowed_packet(Some(PACKET_BYTES_MAX))
            .init(vec![SESSION]);
        Self { address, opts: opts.into(), shared: Arc::default() }
    }

    /// Sends `sql` and reads the whole answer, log-in included where a connection has to be opened.
    pub async fn query(&self, sql: String, limit: Duration) -> Result<Rows, ServerError> {
        if self.shared.abandoned.load(Ordering::Relaxed) >= limits::QUERIES_ABANDONED_MAX {
            return Err(ServerError::TimedOut);
        }
        let mut asker =
            Asker { job: Arc::default(), shared: self.shared.clone(), is_served: false };
        let (job, mut opts) = (asker.job.clone(), self.opts.clone());
        let mut idle = lock(&self.shared.idle).take();
        if limit > limits::SERVER_READ_MAX {
            // It takes its time and says nothing: no connection for others.
            idle = None;
            opts = OptsBuilder::from_opts(opts).read_timeout(Some(limit)).into();
        }
        let work = smol::unblock(move || serve(&job, &opts, idle, &sql));
        let answer = smol::future::or(async { Some(work.await) }, async {
            async_io::Timer::after(limit).await;
            None
        });
        let Some((conn, result)) = answer.await else { return Err(ServerError::TimedOut) };
        asker.is_served = true;
        *lock(&self.shared.idle) = conn;
        result
    }
}

/// A connection for a program that waits: every statement runs to its end, however long.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
}

impl Session {
    /// The rows of the last of `sql`'s statements; the first that is refused ends it.
    pub fn query(&mut self, sql: &str) -> Result<Rows, ServerError> {
        let mut answer = self.conn.query_iter(sql).map_err(server_error)?;
        let mut rows = Rows::default();
        while let Some(set) = answer.iter() {
            let columns = set.columns();
            rows.columns = columns.as_ref().iter().map(|it| it.name_str().into_owned()).collect();
            rows.rows.clear();
            for row in set {
                rows.rows.push(row.map_err(server_error)?.unwrap().into_iter().map(text).collect());
            }
        }
        Ok(rows)
    }

    /// Every row of one SELECT as it comes, its values as the server sent them; the first error of
    /// `take` ends it, and the session with it.
    pub fn scan(
        &mut self,
        sql: &str,
        mut take: impl FnMut(Vec<Value>) -> Result<(), String>,
    ) -> Result<(), String> {
        let fd = self.conn.as_raw_fd();
        let answer = self.conn.query_iter(sql).map_err(|error| server_error(error).to_string())?;
        for row in answer {
            let taken = match row {
                Ok(row) => take(row.unwrap()),
                Err(error) => Err(server_error(error).to_string()),
            };
            if let Err(why) = taken {
                // Else the driver reads what is left before it lets go.
                let _gone_already = shutdown(fd, Shutdown::Both);
                return Err(why);
            }
        }
        Ok(())
    }

    /// A statement with parameters. Yields how many warnings there were.
    pub fn execute(&mut self, sql: &str, values: Vec<Value>) -> Result<u16, ServerError> {
        self.conn.exec_drop(sql, Params::Positional(values)).map_err(server_error)?;
        Ok(self.conn.warnings())
    }

    /// The events of a binlog and of those after it, to the end of the last.
    pub fn events(
        mut self,
        binlog: &str,
    ) -> Result<impl Iterator<Item = Result<Event, ServerError>>, ServerError> {
        // MariaDB hides its own kinds of events from who does not know them; others do not care.
        self.conn.query_drop("SET @mariadb_slave_capability=4").map_err(server_error)?;
        let request = BinlogRequest::new(DUMP_SERVER_ID)
            .with_filename(binlog.as_bytes())
            .with_pos(BINLOG_START)
            .with_flags(BinlogDumpFlags::BINLOG_DUMP_NON_BLOCK);
        let stream = self.conn.get_binlog_stream(request).map_err(server_error)?;
        Ok(stream.map(|event| event.map_err(server_error)))
    }
}

/// No replica of a pair has this number, and a server ends the older one of two that share one.
const DUMP_SERVER_ID: u32 = u32::MAX - 1;
/// Behind the four bytes that every binlog begins with.
const BINLOG_START: u64 = 4;

/// The side of a query that waits. When it goes before the answer came, by its limit or because
/// its future was dropped, it takes the connection down.
struct Asker {
    job: Arc<Job>,
    shared: Arc<Shared>,
    is_served: bool,
}

/// The side of a query that works.
#[derive(Default)]
struct Job {
    state: Mutex<JobState>,
}

#[derive(Default)]
struct JobState {
    /// The socket, while the worker keeps it open.
    fd: Option<RawFd>,
    /// Set when the asker has gone; the worker takes itself off that count.
    counted_in: Option<Arc<Shared>>,
}

impl Drop for Asker {
    fn drop(&mut self) {
        if self.is_served {
            return;
        }
        let mut state = lock(&self.job.state);
        if let Some(fd) = state.fd {
            // The worker closes the socket only after it has taken the number out of `state`.
            let _gone_already = shutdown(fd, Shutdown::Both);
        }
        // Taken off again when the worker lets go of the job, which may be at once.
        self.shared.abandoned.fetch_add(1, Ordering::Relaxed);
        state.counted_in = Some(self.shared.clone());
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = state.counted_in.take() {
            shared.abandoned.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Runs on a thread of the blocking pool. The connection comes back when it can be used again.
fn serve(
    job: &Job,
    opts: &Opts,
    idle: Option<Conn>,
    sql: &str,
) -> (Option<Conn>, Result<Rows, ServerError>) {
    let was_idle = idle.is_some();
    let (conn, result) = connect_and_ask(job, opts, idle, sql);
    // A server that was restarted, or ended an idle connection, is not down for that; and asking
    // what changes nothing a second time is safe.
    let is_stale = was_idle && matches!(result, Err(ServerError::Unreachable(_)));
    if is_stale && (sql.starts_with("SELECT ") || sql.starts_with("SHOW ")) {
        return connect_and_ask(job, opts, None, sql);
    }
    (conn, result)
}

fn connect_and_ask(
    job: &Job,
    opts: &Opts,
    idle: Option<Conn>,
    sql: &str,
) -> (Option<Conn>, Result<Rows, ServerError>) {
    let mut conn = match idle.map_or_else(|| Conn::new(opts.clone()), Ok) {
        Ok(conn) => conn,
        Err(error) => return (None, Err(server_error(error))),
    };
    {
        let mut state = lock(&job.state);
        if state.counted_in.is_some() {
            return (None, Err(ServerError::TimedOut));
        }
        state.fd = Some(conn.as_raw_fd());
    }
    let result = ask(&mut conn, sql);
    lock(&job.state).fd = None;
    match &result {
        Ok(_) | Err(ServerError::Refused { .. }) => (Some(conn), result),
        Err(ServerError::Unreachable(_) | ServerError::TimedOut) => (None, result),
    }
}

fn ask(conn: &mut Conn, sql: &str) -> Result<Rows, ServerError> {
    let mut answer = conn.query_iter(sql).map_err(server_error)?;
    let columns = answer.columns();
    let mut rows = Rows {
        columns: columns.as_ref().iter().map(|column| column.name_str().into_owned()).collect(),
        rows: Vec::new(),
    };
    for row in answer.by_ref() {
        let row = row.map_err(server_error)?;
        if rows.rows.len() < limits::ROWS_MAX {
            rows.rows.push(row.unwrap().into_iter().map(text).collect());
        }
    }
    Ok(rows)
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        // The text protocol has only the two above.
        other @ (Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::Double(_)
        | Value::Date(..)
        | Value::Time(..)) => Some(other.as_sql(true)),
    }
}

fn server_error(error: mysql::Error) -> ServerError {
    use std::io::ErrorKind;
    if let mysql::Error::MySqlError(error) = error {
        return ServerError::Refused { code: error.code, message: error.message };
    }
    let kind = if let mysql::Error::IoError(error) = &error { Some(error.kind()) } else { None };
    if matches!(kind, Some(ErrorKind::TimedOut | ErrorKind::WouldBlock)) {
        return ServerError::TimedOut;
    }
    ServerError::Unreachable(error.to_string())
}

/// A thread that died while holding the lock has left nothing half done in it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Backslashes quote (`repl::quote`), and nothing is left uncommitted.
const SESSION: &str = "SET SESSION sql_mode='', autocommit=1";

/// The largest answer that the driver takes, in bytes; a longer one breaks the connection.
const PACKET_BYTES_MAX: usize = 16 * 1024 * 1024;
