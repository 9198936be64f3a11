//! A database server as `repl` sees it: MariaDB's binlog, its two replica threads, its locks.
//!
//! In: SQL text, ticks, the other server. Out: rows, errors, "not yet". Must not: answer a text
//! that `repl` does not emit (that fails the run).
//! Read first: facts/repl.md 2, 2.2, 3.1; `tandem::repl::Dialect`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

use tandem::config::Config;
use tandem::repl::{Dialect, Rows, ServerError};
use tandem::time::Instant;
use tandem::wire::HostId;

use super::plants::Plant;
use super::semi_sync::SemiSync;

/// Server and sequence number of a transaction, in domain 0.
pub type Gtid = (u32, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// A client's numbered row.
    Row(u64),
    /// The replication account of that address.
    Account(Ipv4Addr),
    Grant,
    ProbeSchema,
    ProbeTable,
}

#[derive(Debug, Clone, Copy)]
pub struct Tx {
    pub gtid: Gtid,
    pub payload: Payload,
    pub at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Down,
    Up,
    /// SIGSTOP, or a storage that does not answer: connections are accepted, nothing is said.
    Hung,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    Stopped,
    Connecting {
        retry_at: Instant,
    },
    /// A connection to that run of the source; the next entry of its binlog.
    Running {
        source_run: u64,
        next: usize,
        /// What it was at first; whether it told the source that it acknowledges.
        first: usize,
        acknowledges: bool,
        silent_since: Option<Instant>,
    },
}

#[derive(Debug)]
pub struct Replica {
    pub host: Ipv4Addr,
    pub io: Io,
    pub io_error: (u32, &'static str),
    pub sql: bool,
    pub sql_error: (u32, &'static str),
    pub relay: VecDeque<Tx>,
    /// How far the receiver came, as Gtid_IO_Pos shows it.
    pub io_position: Option<Gtid>,
    apply_debt: u64,
}

/// What a statement comes to.
#[derive(Debug)]
pub enum Answer {
    Now(Result<Rows, ServerError>),
    /// It waits for a lock: ask again.
    Waits {
        seconds: u64,
    },
    /// No text that is known here.
    Unknown,
}

#[derive(Debug)]
pub struct Mysqld {
    pub id: u32,
    pub life: Life,
    /// Differs for every start of the server.
    pub run: u64,
    pub read_only: bool,
    events: bool,
    pub binlog: Vec<Tx>,
    pub has: BTreeSet<Gtid>,
    last: BTreeMap<u32, u64>,
    pub accounts: BTreeSet<Ipv4Addr>,
    pub(super) has_probe_table: bool,
    slave_position: Option<Gtid>,
    pub replica: Option<Replica>,
    /// The applier works on a long transaction until then.
    pub busy_until: Instant,
    /// Transactions applied in a tick, in thousandths.
    pub apply_rate: u64,
    /// Transactions sent in a tick.
    pub ship_rate: usize,
    /// The session whose write runs (STUCK: waits for room on the disk) and holds the server open.
    pub writer: Option<u64>,
    /// The server waits for that writer, and lets no write begin.
    pub is_closing: bool,
    /// The disk is full: writes wait, and hold the server open.
    pub is_full: bool,
    /// Such a write cannot even be ended, as on MySQL 5.6.
    pub is_stubborn: bool,
    pub(super) has_hanging_probe: bool,
    /// What a hung server was sent and will execute when it goes on.
    pub late: Option<String>,
    pub unhung_at: Instant,
    /// Received transactions that RESET SLAVE ALL threw away, with what was open at that time.
    pub dropped: Vec<Gtid>,
    /// Received transactions that went with the relay log when the server went down.
    pub forgotten: BTreeSet<Gtid>,
    pub semi_sync: SemiSync,
    /// Statements that only seem to work, for `plants`.
    pub plant: Plant,
    seems_closed: bool,
    change_source: String,
    own_port: u16,
}

pub const STUCK: u64 = 99;
pub const APPLY_RATE: u64 = 500_000;
pub const SHIP_RATE: usize = 1000;

impl Mysqld {
    /// Executed here, or waiting in the relay log to be.
    pub fn has_or_received(&self, gtid: Gtid) -> bool {
        let relay = self.replica.iter().flat_map(|replica| &replica.relay);
        self.has.contains(&gtid) || relay.into_iter().any(|tx| tx.gtid == gtid)
    }

    pub fn new(config: &Config, me: HostId) -> Self {
        let repl = &config.repl;
        let change_source = format!(
            "CHANGE MASTER TO MASTER_HOST='{}', MASTER_PORT={}, MASTER_USER='{}', \
             MASTER_PASSWORD='{}', MASTER_CONNECT_RETRY=1, MASTER_HEARTBEAT_PERIOD=1, \
             MASTER_USE_GTID=slave_pos",
            config.host(me.other()).inside_address(),
            repl.port,
            repl.replication_user,
            repl.replication_password.reveal(),
        );
        Self {
            id: u32::try_from(me.index()).unwrap() + 1,
            life: Life::Down,
            run: 0,
            read_only: true,
            events: false,
            binlog: Vec::new(),
            has: BTreeSet::new(),
            last: BTreeMap::new(),
            accounts: BTreeSet::new(),
            has_probe_table: false,
            slave_position: None,
            replica: None,
            busy_until: Instant::ZERO,
            apply_rate: APPLY_RATE,
            ship_rate: SHIP_RATE,
            writer: None,
            is_closing: false,
            is_full: false,
            is_stubborn: false,
            has_hanging_probe: false,
            late: None,
            unhung_at: Instant::ZERO,
            dropped: Vec::new(),
            forgotten: BTreeSet::new(),
            semi_sync: SemiSync::default(),
            plant: Plant::None,
            seems_closed: false,
            change_source,
            own_port: repl.port,
        }
    }

    /// Starts harmless: read-only, replication stopped; MariaDB drops what was received.
    pub fn start(&mut self) {
        self.life = Life::Up;
        self.run += 1;
        self.read_only = true;
        self.events = false;
        if let Some(replica) = &mut self.replica {
            replica.relay.clear();
            replica.io_position = None;
            replica.io_error = (0, "");
            replica.sql_error = (0, "");
        }
    }

    /// Dies: what is committed stays.
    pub fn stop(&mut self) {
        self.life = Life::Down;
        self.writer = None;
        self.is_closing = false;
        self.has_hanging_probe = false;
        self.late = None;
        self.semi_sync.restart();
        if let Some(replica) = &mut self.replica {
            self.forgotten.extend(replica.relay.iter().map(|tx| tx.gtid));
            replica.io = Io::Stopped;
            replica.sql = false;
            replica.relay.clear();
        }
    }

    /// Becomes a copy of the other server, as a restored backup of it.
    pub fn copy(&mut self, other: &Self) {
        self.binlog.clone_from(&other.binlog);
        self.has.clone_from(&other.has);
        self.last.clone_from(&other.last);
        self.accounts.clone_from(&other.accounts);
        self.has_probe_table = other.has_probe_table;
        self.slave_position = self.binlog.last().map(|tx| tx.gtid);
        self.replica = None;
        self.semi_sync.restart();
        self.run += 1;
    }

    /// Is as if it had never executed these.
    pub(super) fn forget(&mut self, gone: &[Tx]) {
        self.has.clear();
        self.last.clear();
        for tx in std::mem::take(&mut self.binlog) {
            if gone.iter().all(|it| it.gtid != tx.gtid) {
                self.log(tx);
            }
        }
        self.slave_position = self.binlog.last().map(|tx| tx.gtid);
        self.replica = None;
    }

    pub fn is_writable(&self) -> bool {
        self.life == Life::Up && !self.read_only
    }

    /// Commits a transaction of a session of this server.
    pub fn commit(&mut self, now: Instant, payload: Payload) -> Gtid {
        let next = self.last.values().max().copied().unwrap_or(0) + 1;
        let gtid = (self.id, next);
        self.log(Tx { gtid, payload, at: now });
        gtid
    }

    fn log(&mut self, tx: Tx) {
        let (server, sequence) = tx.gtid;
        self.has.insert(tx.gtid);
        let last = self.last.entry(server).or_default();
        *last = sequence.max(*last);
        if let Payload::Account(address) = tx.payload {
            self.accounts.insert(address);
        }
        self.has_probe_table |= tx.payload == Payload::ProbeTable;
        self.binlog.push(tx);
    }

    // ---- statements ------------------------------------------------------------------------

    /// `waited` is true when the statement has waited for its lock as long as it may.
    pub fn execute(&mut self, now: Instant, sql: &str, waited: bool) -> Answer {
        let words = Dialect::Mariadb.statements();
        if sql == "SELECT VERSION() AS version" {
            return rows(&[("version", "10.11.19-MariaDB-sim".to_owned())]);
        }
        if sql == words.variables {
            return rows(&self.variables());
        }
        if sql == words.replica_status {
            return self.status(now);
        }
        if let Some(seconds) = sql
            .strip_prefix("SET SESSION lock_wait_timeout=")
            .and_then(|rest| rest.strip_suffix(", GLOBAL read_only=ON"))
        {
            return self.close(seconds.parse().unwrap_or(1), waited);
        }
        if sql == words.open {
            self.read_only = false;
            self.seems_closed = false;
            return done();
        }
        if let Some(state) = sql.strip_prefix("SET GLOBAL event_scheduler=") {
            self.events = state == "ON";
            return done();
        }
        self.execute_replication(now, sql)
            .or_else(|| self.execute_semi_sync(now, sql))
            .or_else(|| self.execute_probe(now, sql, waited))
            .unwrap_or_else(|| self.execute_rest(now, sql))
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let hides = self.plant == Plant::HidesErrant && self.read_only;
        let shown = self.last.iter().filter(|(server, _)| !(hides && **server == self.id));
        let state: Vec<_> = shown.map(|(server, last)| format!("0-{server}-{last}")).collect();
        let on = |is_on: bool| if is_on { "1" } else { "0" }.to_owned();
        vec![
            ("read_only", on(self.read_only || self.seems_closed)),
            ("is_closed", on(self.read_only || self.seems_closed)),
            ("position", state.join(",")),
            ("replica_position", self.slave_position.map_or_else(String::new, text)),
            ("binlog_position", self.binlog.last().map_or_else(String::new, |tx| text(tx.gtid))),
            ("server_id", self.id.to_string()),
            ("server_uuid", String::new()),
            ("event_scheduler", if self.events { "ON" } else { "OFF" }.to_owned()),
            ("log_bin", on(true)),
            ("log_slave_updates", on(true)),
            ("gtid_mode", "ON".to_owned()),
        ]
    }

    fn status(&self, now: Instant) -> Answer {
        let Some(replica) = &self.replica else { return done() };
        let io = match replica.io {
            Io::Stopped => "No",
            Io::Connecting { .. } => "Connecting",
            Io::Running { .. } => "Yes",
        };
        let is_running = matches!(replica.io, Io::Running { .. }) && replica.sql;
        let lag = replica.relay.front().map_or(0, |tx| now.since(tx.at).as_secs());
        let state = match (replica.sql, replica.relay.is_empty()) {
            (false, _) => "",
            (true, true) => "Slave has read all relay log; waiting for more updates",
            (true, false) => "Reading event from the relay log",
        };
        let shown = replica.io_position.filter(|_| self.plant != Plant::OpensUndrained);
        let number = |(code, _): (u32, &str)| code.to_string();
        let mut line = vec![
            ("Master_Host", Some(replica.host.to_string())),
            ("Master_Port", Some(self.own_port.to_string())),
            ("Master_User", Some("rpl".to_owned())),
            ("Slave_IO_Running", Some(io.to_owned())),
            ("Slave_SQL_Running", Some(if replica.sql { "Yes" } else { "No" }.to_owned())),
            ("Seconds_Behind_Master", is_running.then(|| lag.to_string())),
            ("Last_IO_Errno", Some(number(replica.io_error))),
            ("Last_IO_Error", Some(replica.io_error.1.to_owned())),
            ("Last_SQL_Errno", Some(number(replica.sql_error))),
            ("Last_SQL_Error", Some(replica.sql_error.1.to_owned())),
            ("Gtid_IO_Pos", Some(shown.map_or_else(String::new, text))),
            ("Slave_SQL_Running_State", Some(state.to_owned())),
            ("Using_Gtid", Some("Slave_Pos".to_owned())),
        ];
        let columns = line.iter().map(|(name, _)| (*name).to_owned()).collect();
        let row = line.iter_mut().map(|(_, value)| value.take()).collect();
        Answer::Now(Ok(Rows { columns, rows: vec![row] }))
    }

    /// A running write, or one that waits for the replica, holds the server open; new ones queue
    /// behind the wish to close it.
    fn close(&mut self, seconds: u64, waited: bool) -> Answer {
        if self.plant.closes_in_words(seconds) {
            self.seems_closed = true;
            return done();
        }
        if self.writer.is_none() && !self.semi_sync.has_waiting() {
            self.is_closing = false;
            self.read_only = true;
            return done();
        }
        self.is_closing = !waited;
        if waited {
            return refused(1205, "Lock wait timeout exceeded");
        }
        Answer::Waits { seconds }
    }

    fn execute_replication(&mut self, now: Instant, sql: &str) -> Option<Answer> {
        let words = Dialect::Mariadb.statements();
        if sql == self.change_source {
            let host = sql.split('\'').nth(1)?.parse().ok()?;
            let is_stopped = |replica: &Replica| replica.io == Io::Stopped && !replica.sql;
            if !self.replica.as_ref().is_none_or(is_stopped) {
                return Some(running());
            }
            self.replica = Some(Replica {
                host,
                io: Io::Stopped,
                io_error: (0, ""),
                sql: false,
                sql_error: (0, ""),
                relay: VecDeque::new(),
                io_position: None,
                apply_debt: 0,
            });
            return Some(done());
        }
        if let Some(position) = sql.strip_prefix("SET GLOBAL gtid_slave_pos=") {
            if self.replica.as_ref().is_some_and(|r| r.io != Io::Stopped || r.sql) {
                return Some(running());
            }
            let position = position.trim_matches('\'');
            self.slave_position =
                self.binlog.iter().map(|tx| tx.gtid).find(|gtid| text(*gtid) == position);
            return Some(done());
        }
        if sql == words.forget_source {
            if let Some(replica) = self.replica.take_if(|r| r.io == Io::Stopped && !r.sql) {
                self.dropped.extend(replica.relay.iter().map(|tx| tx.gtid));
            } else if self.replica.is_some() {
                return Some(running());
            }
            return Some(done());
        }
        self.start_or_stop(now, sql)
    }

    fn start_or_stop(&mut self, now: Instant, sql: &str) -> Option<Answer> {
        let words = Dialect::Mariadb.statements();
        let is_start = sql == words.start || sql == words.start_applier;
        let is_stop = sql == words.stop || sql == words.stop_receiver;
        if !is_start && !is_stop {
            return None;
        }
        let position = self.slave_position;
        let Some(replica) = &mut self.replica else {
            return Some(if is_stop { done() } else { refused(1200, "not configured as slave") });
        };
        if is_start && replica.io == Io::Stopped && !replica.sql {
            // MariaDB: both threads were stopped, so the relay log is fetched again.
            replica.relay.clear();
            replica.io_position = position;
        }
        if is_start {
            replica.sql_error = (0, "");
            replica.sql = true;
        }
        if sql == words.start && replica.io == Io::Stopped {
            replica.io_error = (0, "");
            replica.io = Io::Connecting { retry_at: now };
        }
        if is_stop {
            replica.io = Io::Stopped;
            replica.sql &= sql != words.stop;
        }
        Some(done())
    }

    fn execute_rest(&mut self, now: Instant, sql: &str) -> Answer {
        if sql.starts_with("SELECT Host AS host, Repl_slave_priv AS can_replicate FROM mysql.user")
        {
            let line = |address: &Ipv4Addr| vec![Some(address.to_string()), Some("Y".to_owned())];
            let columns = vec!["host".to_owned(), "can_replicate".to_owned()];
            let rows = self.accounts.iter().map(line).collect();
            return Answer::Now(Ok(Rows { columns, rows }));
        }
        if let Some(rest) = sql.strip_prefix("CREATE USER 'rpl'@'") {
            let Some(address) = rest.split('\'').next().and_then(|a| a.parse().ok()) else {
                return Answer::Unknown;
            };
            return self.commit_own(now, sql, Payload::Account(address));
        }
        if sql.starts_with("GRANT REPLICATION SLAVE ON *.* TO 'rpl'@'") {
            return self.commit_own(now, sql, Payload::Grant);
        }
        if sql.starts_with("SELECT EVENT_SCHEMA AS db, EVENT_NAME AS name") {
            return done();
        }
        if sql == "SHOW PROCESSLIST" {
            return self.process_list();
        }
        if sql.contains("INNODB_TRX") {
            let waiting = self.semi_sync.processes().into_iter().map(|(id, _)| id);
            let ids = self.writer.into_iter().chain(waiting);
            let rows = ids.map(|id| vec![Some(id.to_string())]).collect();
            return Answer::Now(Ok(Rows { columns: vec!["id".to_owned()], rows }));
        }
        sql.strip_prefix("KILL ").map_or(Answer::Unknown, |id| self.end_session(now, id))
    }

    // ---- replica threads -------------------------------------------------------------------

    /// The receiver: `path` tells whether both directions pass, `source` is the other server.
    pub fn receive(&mut self, now: Instant, source: &Self, own: Ipv4Addr, path: bool) {
        let acknowledges = self.acknowledges();
        let Some(replica) = &mut self.replica else { return };
        let retry_at = now + std::time::Duration::from_secs(1);
        match &mut replica.io {
            Io::Stopped => {}
            Io::Connecting { retry_at: at } if now < *at || !path => {}
            Io::Connecting { .. } => {
                let wanted = replica.io_position;
                let found = wanted.map_or(Some(0), |gtid| {
                    source.binlog.iter().rposition(|tx| tx.gtid == gtid).map(|index| index + 1)
                });
                (replica.io, replica.io_error) = match (source.life, found) {
                    (Life::Down, _) => {
                        (Io::Connecting { retry_at }, (2003, "can't connect to master"))
                    }
                    (Life::Hung, _) => (Io::Connecting { retry_at }, (0, "")),
                    (Life::Up, _) if !source.accounts.contains(&own) => {
                        (Io::Connecting { retry_at }, (1045, "access denied for user 'rpl'"))
                    }
                    (Life::Up, None) => {
                        (Io::Stopped, (1236, "the requested GTID is not in the master's binlog"))
                    }
                    (Life::Up, Some(next)) => {
                        let source_run = source.run;
                        let silent_since = None;
                        let first = next;
                        let io =
                            Io::Running { source_run, next, first, acknowledges, silent_since };
                        (io, (0, ""))
                    }
                };
            }
            Io::Running { source_run, next, silent_since, .. } => {
                let is_alive = source.life != Life::Down && source.run == *source_run;
                if path && !is_alive {
                    replica.io = Io::Connecting { retry_at };
                    replica.io_error = (2003, "lost connection to master");
                    return;
                }
                if !path || source.life == Life::Hung {
                    let since = *silent_since.get_or_insert(now);
                    // slave_net_timeout.
                    if now.since(since).as_secs() >= 60 {
                        replica.io = Io::Connecting { retry_at };
                    }
                    return;
                }
                *silent_since = None;
                let end = (*next + self.ship_rate).min(source.binlog.len());
                for tx in &source.binlog[*next..end] {
                    self.forgotten.remove(&tx.gtid);
                    replica.relay.push_back(*tx);
                }
                *next = end;
                replica.io_position =
                    replica.relay.back().map_or(replica.io_position, |tx| Some(tx.gtid));
            }
        }
    }

    /// The applier, for one tick.
    pub fn apply(&mut self, now: Instant) {
        if now < self.busy_until || self.semi_sync.does_applier_wait() {
            return;
        }
        let Some(replica) = self.replica.as_mut().filter(|replica| replica.sql) else { return };
        replica.apply_debt = (replica.apply_debt + self.apply_rate).min(APPLY_RATE);
        while let Some(replica) = &mut self.replica {
            if replica.apply_debt < 1000 {
                return;
            }
            let Some(tx) = replica.relay.front().copied() else { return };
            if self.has.contains(&tx.gtid) {
                replica.sql = false;
                replica.sql_error = (1062, "Duplicate entry for key 'PRIMARY'");
                return;
            }
            replica.apply_debt -= 1000;
            replica.relay.pop_front();
            self.slave_position = Some(tx.gtid);
            self.log(tx);
            self.applied();
            if self.semi_sync.does_applier_wait() {
                return;
            }
        }
    }
}

fn running() -> Answer {
    refused(1198, "This operation cannot be performed as you have a running slave")
}

pub fn text((server, sequence): Gtid) -> String {
    format!("0-{server}-{sequence}")
}

pub(super) fn done() -> Answer {
    Answer::Now(Ok(Rows::default()))
}

pub(super) fn refused(code: u16, message: &str) -> Answer {
    Answer::Now(Err(ServerError::Refused { code, message: message.to_owned() }))
}

pub(super) fn rows(line: &[(&str, String)]) -> Answer {
    let columns = line.iter().map(|(name, _)| (*name).to_owned()).collect();
    let row = line.iter().map(|(_, value)| Some(value.clone())).collect();
    Answer::Now(Ok(Rows { columns, rows: vec![row] }))
}
