//! The same operation in each server's words: MySQL 5.6 to 9.x and MariaDB.
//!
//! In: VERSION(), names and passwords. Out: SQL text. Must not: guess a dialect from an error.
//! Read first: facts/repl.md sections 2 and 2.1.  Differs: MySQL 8.0 is spoken to in the old words,
//! which it understands in every minor version; the wait functions are not used at all (follow.rs
//! says why).

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::gtid::Flavour;
use crate::limits;

/// A family of servers that takes the same statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Mysql56,
    Mysql57,
    /// 8.0 to 8.3.
    Mysql80,
    /// 8.4 and later: only the words "replica" and "source".
    Mysql84,
    Mariadb,
}

impl Dialect {
    /// `None` for a server without GTIDs (before MySQL 5.6 or MariaDB 10), or no version at all.
    #[must_use]
    pub fn from_version(version: &str) -> Option<Self> {
        let release = release(version)?;
        if version.contains("MariaDB") {
            return (release >= (10, 0)).then_some(Self::Mariadb);
        }
        match release {
            (0..=4, _) | (5, 0..=5) => None,
            (5, 6) => Some(Self::Mysql56),
            (5..=7, _) => Some(Self::Mysql57),
            (8, 0..=3) => Some(Self::Mysql80),
            (8.., _) => Some(Self::Mysql84),
        }
    }

    #[must_use]
    pub const fn flavour(self) -> Flavour {
        match self {
            Self::Mysql56 | Self::Mysql57 | Self::Mysql80 | Self::Mysql84 => Flavour::Mysql,
            Self::Mariadb => Flavour::Mariadb,
        }
    }

    #[must_use]
    pub const fn statements(self) -> &'static Statements {
        match self {
            Self::Mysql56 => &MYSQL_56,
            Self::Mysql57 | Self::Mysql80 => &MYSQL_57,
            Self::Mysql84 => &MYSQL_84,
            Self::Mariadb => &MARIADB,
        }
    }

    /// Makes the server a replica of `source`, from the position that it has executed.
    #[must_use]
    pub(super) fn change_source(self, source: &Source<'_>) -> String {
        let word = match self {
            Self::Mysql56 | Self::Mysql57 | Self::Mysql80 | Self::Mariadb => "MASTER",
            Self::Mysql84 => "SOURCE",
        };
        let mut sql = match self {
            Self::Mysql56 | Self::Mysql57 | Self::Mysql80 | Self::Mariadb => {
                "CHANGE MASTER TO".to_owned()
            }
            Self::Mysql84 => "CHANGE REPLICATION SOURCE TO".to_owned(),
        };
        let retry = limits::SOURCE_CONNECT_RETRY_SECONDS;
        let heartbeat = limits::SOURCE_HEARTBEAT_SECONDS;
        let _infallible = write!(
            sql,
            " {word}_HOST={}, {word}_PORT={}, {word}_USER={}, {word}_PASSWORD={}, \
             {word}_CONNECT_RETRY={retry}, {word}_HEARTBEAT_PERIOD={heartbeat}, ",
            quote(&source.host.to_string()),
            source.port,
            quote(source.user),
            quote(source.password),
        );
        let count = limits::SOURCE_RETRY_COUNT;
        let _infallible = match self {
            Self::Mysql56 | Self::Mysql57 => {
                write!(sql, "MASTER_RETRY_COUNT={count}, MASTER_AUTO_POSITION=1")
            }
            Self::Mysql80 => write!(
                sql,
                "MASTER_RETRY_COUNT={count}, MASTER_AUTO_POSITION=1, GET_MASTER_PUBLIC_KEY=1"
            ),
            Self::Mysql84 => write!(
                sql,
                "SOURCE_RETRY_COUNT={count}, SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1"
            ),
            // It retries 100,000 times by itself, and has no word for it.
            Self::Mariadb => write!(sql, "MASTER_USE_GTID=slave_pos"),
        };
        sql
    }

    /// Before a change of source: tells the server to start from `position`, where it does not know
    /// by itself what it has executed.
    #[must_use]
    pub(super) fn adopt_position(self, position: &str) -> Option<String> {
        match self {
            Self::Mysql56 | Self::Mysql57 | Self::Mysql80 | Self::Mysql84 => None,
            Self::Mariadb => Some(format!("SET GLOBAL gtid_slave_pos={}", quote(position))),
        }
    }

    /// The two halves of semi-synchronous replication as variables name them, source first.
    const fn semi_sync_halves(self) -> [&'static str; 2] {
        match self {
            Self::Mysql56 | Self::Mysql57 | Self::Mysql80 | Self::Mariadb => ["master", "slave"],
            Self::Mysql84 => ["source", "replica"],
        }
    }

    /// Loads both halves of semi-synchronous replication where they are plugins. Nothing of it
    /// reaches the binlog.
    #[must_use]
    pub(super) fn load_semi_sync(self) -> Vec<String> {
        match self {
            Self::Mariadb => Vec::new(),
            Self::Mysql56 | Self::Mysql57 | Self::Mysql80 | Self::Mysql84 => self
                .semi_sync_halves()
                .map(|half| {
                    format!("INSTALL PLUGIN rpl_semi_sync_{half} SONAME 'semisync_{half}.so'")
                })
                .to_vec(),
        }
    }

    /// Administrators alone may write, or nobody: the latter also refuses to load plugins.
    #[must_use]
    pub fn shut_out_administrators(self, is_shut: bool) -> Option<String> {
        let state = if is_shut { "ON" } else { "OFF" };
        let variable = self.statements().close_variable;
        (variable == "super_read_only").then(|| format!("SET GLOBAL {variable}={state}"))
    }

    /// Turns the halves on or off. The source's half waits for the replica without a limit of its
    /// own: whether to go on alone is decided by the node, not by a timer.
    #[must_use]
    pub(super) fn set_semi_sync(self, is_source: bool, is_replica: bool) -> String {
        let [source, replica] = self.semi_sync_halves();
        let state = |is_on: bool| if is_on { "ON" } else { "OFF" };
        // Seconds that a receiver may spend on connecting to a source that it leaves.
        let goodbye = match self {
            Self::Mariadb => "GLOBAL rpl_semi_sync_slave_kill_conn_timeout=1, ",
            Self::Mysql56 | Self::Mysql57 | Self::Mysql80 | Self::Mysql84 => "",
        };
        let wait_point = match self {
            // 5.6 knows only the later point.
            Self::Mysql56 => String::new(),
            Self::Mysql57 | Self::Mysql80 | Self::Mysql84 | Self::Mariadb => {
                format!(", GLOBAL rpl_semi_sync_{source}_wait_point=AFTER_SYNC")
            }
        };
        format!(
            "SET {goodbye}GLOBAL rpl_semi_sync_{source}_timeout={SEMI_SYNC_TIMEOUT}, \
             GLOBAL rpl_semi_sync_{source}_wait_no_{replica}=ON{wait_point}, \
             GLOBAL rpl_semi_sync_{source}_enabled={}, GLOBAL rpl_semi_sync_{replica}_enabled={}",
            state(is_source),
            state(is_replica),
        )
    }

    /// Closes the server to writes. The lock wait is part of the same statement, so that it holds
    /// even when the connection was opened anew just now.
    #[must_use]
    pub(super) fn close(self, lock_wait_seconds: u64) -> String {
        let variable = self.statements().close_variable;
        format!("SET SESSION lock_wait_timeout={lock_wait_seconds}, GLOBAL {variable}=ON")
    }
}

/// The first two numbers of a version.
pub(super) fn release(version: &str) -> Option<(u32, u32)> {
    // Old servers put this in front of the real version for old replicas.
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|digits| digits.parse::<u32>().ok());
    Some((number()?, number()?))
}

/// Where a replica gets its transactions.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) host: Ipv4Addr,
    pub(super) port: u16,
    pub(super) user: &'a str,
    pub(super) password: &'a str,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({}:{} as {})", self.host, self.port, self.user)
    }
}

/// The statements that carry no values.
#[derive(Debug)]
pub struct Statements {
    /// One row; columns named as `look` reads them. Never FROM a table: MariaDB answers 0 then.
    pub variables: &'static str,
    pub replica_status: &'static str,
    pub start: &'static str,
    pub start_applier: &'static str,
    pub stop: &'static str,
    pub stop_receiver: &'static str,
    pub forget_source: &'static str,
    /// Drops the relay log and keeps the source.
    pub reset: &'static str,
    /// Binlog file and offset; hangs on a full disk, so no probe.
    pub log_position: &'static str,
    /// Replicas that have logged in, as they report themselves.
    pub replicas: &'static str,
    /// One row: what was executed, purged from the binlogs, is owned by a session.
    pub gtid_sets: &'static str,
    /// Forgets every binlog and what was executed.
    pub forget_binlogs: &'static str,
    /// The variable that shuts out everybody it can: turning it on turns read_only on.
    pub close_variable: &'static str,
    pub open: &'static str,
    /// Which halves of semi-synchronous replication there are, and which are on; no row: none.
    pub semi_sync_variables: &'static str,
    /// What the source's half is doing.
    pub semi_sync_status: &'static str,
}

/// Whether a copy was cut off here (`copy::MARKER`), for `Statements::variables`.
macro_rules! unfinished_copies {
    () => {
        "(SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA='tandem' \
         AND TABLE_NAME='unfinished_copy') AS unfinished_copies"
    };
}

const MYSQL_56: Statements = Statements {
    variables: concat!(
        "SELECT @@GLOBAL.read_only AS read_only, @@GLOBAL.read_only AS is_closed, \
        @@GLOBAL.gtid_executed AS position, '' AS replica_position, \
        @@GLOBAL.server_id AS server_id, @@GLOBAL.server_uuid AS server_uuid, \
        @@GLOBAL.event_scheduler AS event_scheduler, @@GLOBAL.log_bin AS log_bin, \
        @@GLOBAL.log_slave_updates AS log_slave_updates, @@GLOBAL.gtid_mode AS gtid_mode, ",
        unfinished_copies!()
    ),
    replica_status: "SHOW SLAVE STATUS",
    start: "START SLAVE",
    start_applier: "START SLAVE SQL_THREAD",
    stop: "STOP SLAVE",
    stop_receiver: "STOP SLAVE IO_THREAD",
    forget_source: "RESET SLAVE ALL",
    reset: "RESET SLAVE",
    log_position: "SHOW MASTER STATUS",
    replicas: "SHOW SLAVE HOSTS",
    gtid_sets: "SELECT @@GLOBAL.gtid_executed AS executed, @@GLOBAL.gtid_purged AS purged, \
        @@GLOBAL.gtid_owned AS owned, '' AS replica_position",
    forget_binlogs: "RESET MASTER",
    close_variable: "read_only",
    open: "SET GLOBAL read_only=OFF",
    semi_sync_variables: "SHOW GLOBAL VARIABLES LIKE 'rpl\\_semi\\_sync\\_%enabled'",
    semi_sync_status: "SHOW GLOBAL STATUS LIKE 'Rpl\\_semi\\_sync\\_%'",
};

const MYSQL_57: Statements = Statements {
    variables: concat!(
        "SELECT @@GLOBAL.read_only AS read_only, @@GLOBAL.super_read_only AS is_closed, \
        @@GLOBAL.gtid_executed AS position, '' AS replica_position, \
        @@GLOBAL.server_id AS server_id, @@GLOBAL.server_uuid AS server_uuid, \
        @@GLOBAL.event_scheduler AS event_scheduler, @@GLOBAL.log_bin AS log_bin, \
        @@GLOBAL.log_slave_updates AS log_slave_updates, @@GLOBAL.gtid_mode AS gtid_mode, ",
        unfinished_copies!()
    ),
    close_variable: "super_read_only",
    // super_read_only off alone leaves read_only on.
    open: "SET GLOBAL super_read_only=OFF, GLOBAL read_only=OFF",
    ..MYSQL_56
};

const MYSQL_84: Statements = Statements {
    replica_status: "SHOW REPLICA STATUS",
    start: "START REPLICA",
    start_applier: "START REPLICA SQL_THREAD",
    stop: "STOP REPLICA",
    stop_receiver: "STOP REPLICA IO_THREAD",
    forget_source: "RESET REPLICA ALL",
    reset: "RESET REPLICA",
    log_position: "SHOW BINARY LOG STATUS",
    replicas: "SHOW REPLICAS",
    forget_binlogs: "RESET BINARY LOGS AND GTIDS",
    ..MYSQL_57
};

const MARIADB: Statements = Statements {
    // gtid_current_pos leaves out transactions of other servers; the binlog's state does not.
    variables: concat!(
        "SELECT @@GLOBAL.read_only AS read_only, @@GLOBAL.read_only AS is_closed, \
        @@GLOBAL.gtid_binlog_state AS position, @@GLOBAL.gtid_slave_pos AS replica_position, \
        @@GLOBAL.gtid_binlog_pos AS binlog_position, \
        @@GLOBAL.server_id AS server_id, '' AS server_uuid, \
        @@GLOBAL.gtid_strict_mode AS is_strict, \
        @@GLOBAL.event_scheduler AS event_scheduler, @@GLOBAL.log_bin AS log_bin, \
        @@GLOBAL.log_slave_updates AS log_slave_updates, 'ON' AS gtid_mode, ",
        unfinished_copies!()
    ),
    gtid_sets: "SELECT @@GLOBAL.gtid_binlog_state AS executed, '' AS purged, '' AS owned, \
        @@GLOBAL.gtid_slave_pos AS replica_position",
    ..MYSQL_56
};

/// Milliseconds: the most that every server takes, 49 days.
const SEMI_SYNC_TIMEOUT: u32 = u32::MAX;

/// A string literal. The hands keep NO_BACKSLASH_ESCAPES off in every session they open.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        match c {
            '\'' => quoted.push_str("\\'"),
            '\\' => quoted.push_str("\\\\"),
            '\0' => quoted.push_str("\\0"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

/// An identifier.
#[must_use]
pub fn quote_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_decides_the_dialect() {
        for (version, expected) in [
            ("5.5.62-log", None),
            ("5.6.24-log", Some(Dialect::Mysql56)),
            ("5.7.44", Some(Dialect::Mysql57)),
            ("8.0.36-0ubuntu0.22.04.1", Some(Dialect::Mysql80)),
            ("8.3.0", Some(Dialect::Mysql80)),
            ("8.4.0", Some(Dialect::Mysql84)),
            ("9.7.4-2", Some(Dialect::Mysql84)),
            ("10.11.19-MariaDB-0+deb12u1-log", Some(Dialect::Mariadb)),
            ("5.5.5-10.3.1-MariaDB", Some(Dialect::Mariadb)),
            ("5.5.68-MariaDB", None),
            ("", None),
            ("junk", None),
        ] {
            assert_eq!(Dialect::from_version(version), expected, "{version:?}");
        }
    }

    #[test]
    fn every_server_is_asked_for_the_marker_of_a_copy() {
        let (schema, table) = crate::repl::copy::MARKER.split_once('.').expect("both");
        let wanted = format!("TABLE_SCHEMA='{schema}' AND TABLE_NAME='{table}'");
        for words in [MYSQL_56, MYSQL_57, MYSQL_84, MARIADB] {
            assert!(words.variables.contains(&wanted), "{}", words.variables);
        }
    }

    #[test]
    fn semi_sync_has_two_generations_of_names() {
        assert_eq!(
            Dialect::Mysql84.set_semi_sync(true, false),
            "SET GLOBAL rpl_semi_sync_source_timeout=4294967295, \
             GLOBAL rpl_semi_sync_source_wait_no_replica=ON, \
             GLOBAL rpl_semi_sync_source_wait_point=AFTER_SYNC, \
             GLOBAL rpl_semi_sync_source_enabled=ON, GLOBAL rpl_semi_sync_replica_enabled=OFF"
        );
        assert!(Dialect::Mariadb.set_semi_sync(false, true).ends_with("_slave_enabled=ON"));
        assert!(Dialect::Mysql57.set_semi_sync(true, true).contains("_wait_no_slave=ON"));
        assert!(!Dialect::Mysql56.set_semi_sync(true, true).contains("wait_point"));
        assert_eq!(Dialect::Mariadb.load_semi_sync(), [""; 0]);
        assert_eq!(
            Dialect::Mysql57.load_semi_sync(),
            [
                "INSTALL PLUGIN rpl_semi_sync_master SONAME 'semisync_master.so'",
                "INSTALL PLUGIN rpl_semi_sync_slave SONAME 'semisync_slave.so'"
            ]
        );
    }

    #[test]
    fn strings_are_quoted_for_any_password() {
        assert_eq!(quote(r"it's \ @%:"), r"'it\'s \\ @%:'");
        assert_eq!(quote("a\0b"), "'a\\0b'");
        assert_eq!(quote_name("a`b"), "`a``b`");
    }

    #[test]
    fn change_source_speaks_each_dialect() {
        let host = Ipv4Addr::new(10, 0, 0, 2);
        let source = Source { host, port: 3306, user: "rpl", password: "p'w" };
        assert_eq!(
            Dialect::Mysql84.change_source(&source),
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='10.0.0.2', SOURCE_PORT=3306, \
             SOURCE_USER='rpl', SOURCE_PASSWORD='p\\'w', SOURCE_CONNECT_RETRY=1, \
             SOURCE_HEARTBEAT_PERIOD=1, SOURCE_RETRY_COUNT=86400000, SOURCE_AUTO_POSITION=1, \
             GET_SOURCE_PUBLIC_KEY=1"
        );
        assert!(Dialect::Mariadb.change_source(&source).ends_with(" MASTER_USE_GTID=slave_pos"));
        assert!(Dialect::Mysql56.change_source(&source).ends_with(" MASTER_AUTO_POSITION=1"));
        assert!(!format!("{source:?}").contains("p'w"), "a password is never shown");
    }
}
