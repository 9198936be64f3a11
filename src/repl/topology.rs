//! A source and its replicas as an operator's tool sees them from outside: health, election, GTIDs.
//!
//! In: rows that several servers gave. Out: cells of tables, verdicts as text. Must not: change
//! anything, or trust one server about another.
//! Read first: facts/repl.md 1.4 (health, elect, gtid of mysqlrpladmin).
//! Differs: errant transactions are looked for between a replica and its source (the original
//! compared replicas with each other, so never on a pair); a writable replica is said to be one.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::dialect::{Dialect, release};
use super::gtid::{Beyond, BinlogState, Flavour, GtidSet, Position, Writer};
use super::look::{ReplicaStatus, ThreadState, replica_status};
use super::open::{missing_accounts, read_accounts};
use super::rows::Rows;
use super::{Config, Site};

/// One server of a topology.
#[derive(Debug, Clone)]
pub struct Member {
    pub host: String,
    pub port: u16,
    pub dialect: Dialect,
    pub version: String,
    variables: BTreeMap<String, String>,
    pub executed: Position,
    pub purged: String,
    pub owned: String,
    pub replica: Option<ReplicaStatus>,
    /// As the server gave it.
    pub status: Rows,
    log: Rows,
}

/// The rows that a `Member` is read from.
#[derive(Debug)]
pub struct Readings<'a> {
    pub variables: &'a Rows,
    pub gtid_sets: &'a Rows,
    pub status: Rows,
    pub log: Rows,
}

impl Member {
    /// Asks for the variables that a member is judged by. No GTID set among them, since SHOW cuts
    /// values at 1024 characters.
    pub const VARIABLES: &'static str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('gtid_mode',\
        'server_uuid','server_id','read_only','super_read_only','log_bin','log_slave_updates',\
        'log_replica_updates','lower_case_table_names','sync_binlog','sync_master_info',\
        'innodb_flush_log_at_trx_commit','binlog_format','event_scheduler','skip_name_resolve',\
        'master_info_repository','rpl_semi_sync_master_enabled','rpl_semi_sync_source_enabled')";

    pub fn read(
        host: &str,
        port: u16,
        dialect: Dialect,
        version: &str,
        readings: Readings<'_>,
    ) -> Result<Self, String> {
        let Readings { variables, gtid_sets, status, log } = readings;
        let set = |name: &str| gtid_sets.value(0, &[name]).unwrap_or_default();
        let parse = |text: &str| Position::parse(dialect.flavour(), text);
        let executed = parse(set("executed"))
            .and_then(|executed| Ok(executed.union(&parse(set("replica_position"))?)))
            .map_err(|wrong| format!("cannot read what {host}:{port} has executed: {wrong}"))?;
        let pair = |row: &Vec<Option<String>>| {
            let text = |index: usize| row.get(index).cloned().flatten().unwrap_or_default();
            (text(0).to_ascii_lowercase(), text(1))
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            dialect,
            version: version.to_owned(),
            variables: variables.rows.iter().map(pair).collect(),
            executed,
            purged: set("purged").to_owned(),
            owned: set("owned").to_owned(),
            replica: replica_status(&status),
            status,
            log,
        })
    }

    #[must_use]
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Empty where the server does not know the variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        matches!(self.variable(name), "ON" | "1")
    }

    /// MariaDB has GTIDs always, and no variable for it.
    #[must_use]
    pub fn gtid_mode(&self) -> &str {
        if self.dialect == Dialect::Mariadb { "ON" } else { self.variable("gtid_mode") }
    }

    /// A column of SHOW REPLICA STATUS by its new and its old name.
    #[must_use]
    pub fn of_status(&self, names: &[&str]) -> &str {
        self.status.value(0, names).unwrap_or_default()
    }

    /// A column of SHOW MASTER STATUS.
    #[must_use]
    pub fn of_log(&self, name: &str) -> &str {
        self.log.value(0, &[name]).unwrap_or_default()
    }

    /// What keeps transactions from being replicated, each as "Name=value".
    #[must_use]
    pub fn filters(&self) -> Vec<String> {
        let value = |name: &&str| match self.of_status(&[name]) {
            "" => self.of_log(name),
            value => value,
        };
        FILTERS
            .iter()
            .filter(|name| !value(name).is_empty())
            .map(|name| format!("{name}={}", value(name)))
            .collect()
    }

    /// Those of a replica: equal ones on both servers still keep transactions from either.
    #[must_use]
    pub fn replica_filters(&self) -> Vec<String> {
        let of_replica = |filter: &String| filter.starts_with("Replicate_");
        self.filters().into_iter().filter(of_replica).collect()
    }

    /// The variables that a member of a pair needs on, each with its value.
    #[must_use]
    pub fn needed(&self) -> [(&'static str, &str); 3] {
        let updates = match self.variable("log_slave_updates") {
            "" => self.variable("log_replica_updates"),
            value => value,
        };
        [
            ("gtid_mode", self.gtid_mode()),
            ("log_bin", self.variable("log_bin")),
            ("log_slave_updates", updates),
        ]
    }

    /// Those of them that are not on, as one clause.
    #[must_use]
    pub fn lacking(&self) -> Option<String> {
        let off = self.needed().into_iter().filter(|(_, value)| *value != "ON");
        let clauses: Vec<String> = off.map(|(name, value)| format!("{name} is {value}")).collect();
        (!clauses.is_empty()).then(|| clauses.join(", "))
    }

    /// How this server's version compares with another's, by its first two numbers.
    #[must_use]
    pub fn compare_version(&self, other: &Self) -> Ordering {
        release(&self.version).cmp(&release(&other.version))
    }

    /// What this server itself wrote.
    #[must_use]
    pub fn written(&self) -> Beyond {
        let (uuid, id) = (self.variable("server_uuid"), self.variable("server_id").parse());
        let nothing = match self.dialect.flavour() {
            Flavour::Mysql => Position::Mysql(GtidSet::default()),
            Flavour::Mariadb => Position::Mariadb(BinlogState::default()),
        };
        self.executed.lost_of(&Writer { uuid, id: id.unwrap_or(0) }, &nothing)
    }

    /// What a replica needs and this server's binlogs have no more: it can never catch up (1236).
    #[must_use]
    pub fn purged_beyond(&self, replica: &Self) -> Beyond {
        match Position::parse(self.dialect.flavour(), &self.purged) {
            Ok(purged) => purged.beyond(&replica.executed),
            Err(_) => Beyond { text: String::new(), transactions: 0 },
        }
    }

    /// Received and not yet executed.
    #[must_use]
    pub fn unapplied(&self) -> u64 {
        self.lost_by_reset().transactions
    }

    /// What dropping the relay log would throw away.
    #[must_use]
    pub fn lost_by_reset(&self) -> Beyond {
        let retrieved = self.replica.as_ref().map_or("", |replica| &replica.retrieved);
        match Position::parse(self.dialect.flavour(), retrieved) {
            Ok(retrieved) => retrieved.beyond(&self.executed),
            Err(_) => Beyond { text: String::new(), transactions: 0 },
        }
    }
}

/// The rows of the health table, and what makes them up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tolerance {
    pub seconds_behind: u64,
}

/// What the health table says about a source.
#[must_use]
pub fn source_health(source: &Member, has_replication_users: bool) -> String {
    if !source.is_on("log_bin") {
        "No binlog on master.".to_owned()
    } else if !has_replication_users {
        "There are no users with replication privileges.".to_owned()
    } else {
        "OK".to_owned()
    }
}

/// What the health table says about a replica; `is_of_source`: it replicates from this source.
#[must_use]
pub fn replica_health(
    replica: &Member,
    source: &Member,
    is_of_source: bool,
    tolerance: Tolerance,
) -> String {
    let Some(status) = &replica.replica else {
        return "Slave is not connected to master.".to_owned();
    };
    if !is_of_source {
        return "Not connected to correct master.".to_owned();
    }
    let mut clauses = Vec::new();
    if status.io != ThreadState::Running {
        clauses.push("IO thread is not running.".to_owned());
    }
    if status.sql != ThreadState::Running {
        clauses.push("SQL thread is not running.".to_owned());
    }
    let errors = [&status.io_error, &status.sql_error];
    clauses.extend(errors.into_iter().filter(|error| !error.is_empty()).cloned());
    let missing = source.executed.beyond(&replica.executed).transactions;
    // The seconds are of the last transaction, and stand for a moment after it was executed.
    let is_late = |lag: &u64| *lag > tolerance.seconds_behind && missing > 0;
    if let Some(lag) = status.lag_seconds.filter(is_late) {
        clauses.push(format!("Slave delay is {lag} seconds behind master."));
    }
    if missing > 0 {
        clauses.push(format!("Slave has {missing} transactions behind master."));
    }
    let errant = errant(replica, source);
    if errant.transactions > 0 {
        let Beyond { text, transactions } = errant;
        clauses.push(format!("Slave has {transactions} transactions that master has not: {text}."));
    }
    if !replica.is_on("read_only") {
        clauses.push("Slave is open for writes.".to_owned());
    }
    if !replica.filters().is_empty() {
        clauses.push("Binary log and Relay log filters differ.".to_owned());
    }
    if clauses.is_empty() { "OK".to_owned() } else { clauses.join(", ") }
}

/// Executed by the replica, and unknown to its source. The replica must have been read first:
/// the other way round, what was replicated meanwhile would look errant.
#[must_use]
pub fn errant(replica: &Member, source: &Member) -> Beyond {
    replica.executed.beyond(&source.executed)
}

/// The further cells of `health -v`, as `VERBOSE_COLUMNS` names them.
#[must_use]
pub fn verbose_cells(member: &Member, source: Option<&Member>) -> Vec<String> {
    let Some(status) = member.replica.as_ref().filter(|_| source.is_some()) else {
        let mut cells = vec![member.version.clone()];
        cells.extend([member.of_log("File").to_owned(), member.of_log("Position").to_owned()]);
        cells.resize(VERBOSE_COLUMNS.len(), String::new());
        return cells;
    };
    let behind = source.map_or(0, |s| s.executed.beyond(&member.executed).transactions);
    let delay = match member.of_status(&["SQL_Remaining_Delay"]) {
        "" => "No",
        seconds => seconds,
    };
    [
        member.version.as_str(),
        member.of_status(&["Source_Log_File", "Master_Log_File"]),
        member.of_status(&["Read_Source_Log_Pos", "Read_Master_Log_Pos"]),
        member.of_status(&["Replica_IO_Running", "Slave_IO_Running"]),
        member.of_status(&["Replica_SQL_Running", "Slave_SQL_Running"]),
        &status.lag_seconds.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string()),
        delay,
        &status.io_errno.to_string(),
        &status.io_error,
        &status.sql_errno.to_string(),
        &status.sql_error,
        &behind.to_string(),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Why a replica can, or cannot, become the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eligibility {
    pub is_connected: bool,
    pub has_gtids: bool,
    pub agrees_on_filters: bool,
    pub has_account: bool,
}

impl Eligibility {
    #[must_use]
    pub const fn is_eligible(self) -> bool {
        self.is_connected && self.has_gtids && self.agrees_on_filters && self.has_account
    }

    /// One line a test, in mysqlrpladmin's words.
    #[must_use]
    pub fn lines(self) -> [String; 4] {
        [
            ("Slave connected to master", self.is_connected),
            ("GTID_MODE=ON", self.has_gtids),
            ("Logging filters agree", self.agrees_on_filters),
            ("Replication user exists", self.has_account),
        ]
        .map(|(test, is_passed)| format!("{test} ... {}", if is_passed { "Ok" } else { "FAIL" }))
    }
}

/// Which of the eligible replicas has the most: the first one that contains all the others, its
/// received transactions counted in. `None` when no one does.
#[must_use]
pub fn fullest(replicas: &[&Member]) -> Option<usize> {
    let reach = |member: &Member| {
        let retrieved = member.replica.as_ref().map_or("", |replica| &replica.retrieved);
        let retrieved = Position::parse(member.dialect.flavour(), retrieved).ok();
        retrieved.map_or_else(|| member.executed.clone(), |r| r.union(&member.executed))
    };
    let reaches: Vec<Position> = replicas.iter().map(|member| reach(member)).collect();
    reaches.iter().position(|own| reaches.iter().all(|other| own.contains(other)))
}

/// Reads the hosts that the replication user may log in from.
#[must_use]
pub fn accounts_query(user: &str) -> String {
    read_accounts(user)
}

/// Statements that complete the replication user for both hosts, in order.
#[must_use]
pub fn account_statements(config: &Config, site: &Site, accounts: &Rows) -> Vec<String> {
    let missing = missing_accounts(config, site, accounts);
    missing.into_iter().rev().map(|(_, sql)| sql).collect()
}

/// Whether one of the accounts (patterns of LIKE) lets `host` replicate.
#[must_use]
pub fn may_replicate(accounts: &Rows, hosts: &[&str]) -> bool {
    (0..accounts.rows.len()).any(|row| {
        let pattern = accounts.value(row, &["host"]).unwrap_or_default();
        accounts.value(row, &["can_replicate"]) == Some("Y")
            && hosts.iter().any(|host| is_like(host.as_bytes(), pattern.as_bytes()))
    })
}

/// SQL's LIKE, without regard to case.
fn is_like(text: &[u8], pattern: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'%', rest)) => (0..=text.len()).any(|skipped| is_like(&text[skipped..], rest)),
        Some((wanted, rest)) => text.split_first().is_some_and(|(first, text)| {
            (*wanted == b'_' || wanted.eq_ignore_ascii_case(first)) && is_like(text, rest)
        }),
    }
}

pub const COLUMNS: [&str; 6] = ["host", "port", "role", "state", "gtid_mode", "health"];

pub const VERBOSE_COLUMNS: [&str; 12] = [
    "version",
    "master_log_file",
    "master_log_pos",
    "IO_Thread",
    "SQL_Thread",
    "Secs_Behind",
    "Remaining_Delay",
    "IO_Error_Num",
    "IO_Error",
    "SQL_Error_Num",
    "SQL_Error",
    "Trans_Behind",
];

const FILTERS: [&str; 12] = [
    "Binlog_Do_DB",
    "Binlog_Ignore_DB",
    "Replicate_Do_DB",
    "Replicate_Ignore_DB",
    "Replicate_Do_Table",
    "Replicate_Ignore_Table",
    "Replicate_Wild_Do_Table",
    "Replicate_Wild_Ignore_Table",
    "Replicate_Rewrite_DB",
    "Replicate_Do_Domain_Ids",
    "Replicate_Ignore_Domain_Ids",
    "Replicate_Ignore_Server_Ids",
];

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn rows(columns: &[(&str, &str)]) -> Rows {
        Rows {
            columns: columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
            rows: vec![columns.iter().map(|(_, value)| Some((*value).to_owned())).collect()],
        }
    }

    /// A healthy 5.6 server; `status` is of SHOW SLAVE STATUS.
    pub(in super::super) fn member(
        host: &str,
        executed: &str,
        variables: &[(&str, &str)],
        status: &[(&str, &str)],
    ) -> Member {
        let all = [("log_bin", "ON"), ("gtid_mode", "ON"), ("read_only", "ON")];
        let table = Rows {
            columns: vec!["Variable_name".to_owned(), "Value".to_owned()],
            rows: all
                .iter()
                .chain(variables)
                .map(|&(name, value)| vec![Some(name.to_owned()), Some(value.to_owned())])
                .collect(),
        };
        let status = if status.is_empty() { Rows::default() } else { rows(status) };
        let readings = Readings {
            variables: &table,
            gtid_sets: &rows(&[("executed", executed)]),
            status,
            log: rows(&[("File", "mysql-bin.000001"), ("Position", "1481")]),
        };
        Member::read(host, 3306, Dialect::Mysql56, "5.6.24-log", readings).expect("it parses")
    }

    pub(in super::super) const U: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    pub(in super::super) const RUNNING: [(&str, &str); 9] = [
        ("Master_Host", "server1"),
        ("Master_Port", "3306"),
        ("Master_User", "rpl"),
        ("Slave_IO_Running", "Yes"),
        ("Slave_SQL_Running", "Yes"),
        ("Seconds_Behind_Master", "0"),
        ("Master_Log_File", "mysql-bin.000001"),
        ("Read_Master_Log_Pos", "1481"),
        ("Auto_Position", "1"),
    ];

    fn changed(change: &[(&str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        let mut status = RUNNING.to_vec();
        for (name, value) in change {
            status.iter_mut().find(|(n, _)| n == name).expect("a column").1 = value;
        }
        status
    }

    #[test]
    fn a_healthy_replica_is_ok_and_a_sick_one_says_why() {
        let source = member("server1", &format!("{U}:1-7"), &[], &[]);
        let health = |executed: &str, variables: &[(&str, &str)], status: &[(&str, &str)]| {
            let replica = member("server2", executed, variables, status);
            replica_health(&replica, &source, true, Tolerance::default())
        };
        let all = format!("{U}:1-7");
        assert_eq!(health(&all, &[], &RUNNING), "OK");
        let stopped = changed(&[("Slave_IO_Running", "No"), ("Slave_SQL_Running", "No")]);
        assert_eq!(
            health(&all, &[], &stopped),
            "IO thread is not running., SQL thread is not running."
        );
        let slow = changed(&[("Seconds_Behind_Master", "9")]);
        assert_eq!(
            health(&format!("{U}:1-5"), &[], &slow),
            "Slave delay is 9 seconds behind master., Slave has 2 transactions behind master."
        );
        assert_eq!(
            health(&format!("{U}:1-8"), &[("read_only", "OFF")], &RUNNING),
            format!(
                "Slave has 1 transactions that master has not: {U}:8., \
                     Slave is open for writes."
            )
        );
        assert_eq!(health(&all, &[], &[]), "Slave is not connected to master.");
        let replica = member("server2", &all, &[], &RUNNING);
        let strange = replica_health(&replica, &source, false, Tolerance::default());
        assert_eq!(strange, "Not connected to correct master.");
        assert_eq!(source_health(&source, true), "OK");
    }

    #[test]
    fn the_verbose_cells_are_those_of_the_original() {
        let source = member("server1", &format!("{U}:1-7"), &[], &[]);
        let replica = member("server2", &format!("{U}:1-7"), &[], &RUNNING);
        let cells = verbose_cells(&replica, Some(&source)).join("|");
        assert_eq!(cells, "5.6.24-log|mysql-bin.000001|1481|Yes|Yes|0|No|0||0||0");
        let cells = verbose_cells(&source, None).join("|");
        assert_eq!(cells, "5.6.24-log|mysql-bin.000001|1481|||||||||");
    }

    #[test]
    fn the_fullest_replica_is_elected_and_none_where_they_diverge() {
        let a = member("a", &format!("{U}:1-5"), &[], &[]);
        let mut received = RUNNING.to_vec();
        let retrieved = format!("{U}:6-9");
        received.push(("Retrieved_Gtid_Set", &retrieved));
        let b = member("b", &format!("{U}:1-5"), &[], &received);
        let c = member("c", "aaaaaaaa-71ca-11e1-9e33-c80aa9429562:1", &[], &[]);
        assert_eq!(fullest(&[&a, &b]), Some(1));
        assert_eq!(fullest(&[&a, &a]), Some(0));
        assert_eq!(fullest(&[&a, &c]), None);
        assert_eq!(fullest(&[]), None);
        assert_eq!((b.unapplied(), b.lost_by_reset().text), (4, retrieved.clone()));
    }

    #[test]
    fn accounts_are_patterns() {
        let accounts = rows(&[("host", "10.0.0.%"), ("can_replicate", "Y")]);
        assert!(may_replicate(&accounts, &["server2", "10.0.0.2"]));
        assert!(!may_replicate(&accounts, &["server2", "10.0.1.2"]));
        assert!(is_like(b"Server2", b"server_") && is_like(b"x", b"%") && !is_like(b"x", b""));
    }
}
