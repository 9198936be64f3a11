//! Whether a source and its replica fit each other: mysqlrplcheck's tests, and what they lack.
//!
//! In: what both servers say. Out: a verdict a test, with its reason. Must not: ask or change.
//! Read first: facts/repl.md 1.3 (the tests, in order), 3.7 (settings), section 0 item 7.
//! Differs: "behind" is counted in transactions executed, not in bytes received; different
//! lower_case_table_names fail with both values; passwords are not shown.

use std::cmp::Ordering;

use super::dialect::{Dialect, quote};
use super::gtid::Beyond;
use super::look::ThreadState;
use super::rows::Rows;
use super::topology::{Member, errant, may_replicate};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Warn,
    Fail,
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    /// Why it is not passed.
    pub details: Vec<String>,
    /// What is shown when everything is asked for.
    pub verbose: Vec<String>,
}

/// What the servers said. The replica was read before the source: see `errant`.
#[derive(Debug)]
pub struct Findings<'a> {
    pub source: &'a Member,
    pub replica: &'a Member,
    pub is_of_source: bool,
    /// What the source had and the replica did not reach within a moment.
    pub behind: Beyond,
    /// The replication user's accounts on either server.
    pub accounts: [&'a Rows; 2],
    /// By which source and replica log in, both by name and by address.
    pub hosts: [[&'a str; 2]; 2],
    /// mysql.slave_master_info, where the server has such a table.
    pub master_info: &'a Rows,
    pub innodb: [&'a Rows; 2],
    pub engines: [&'a [String]; 2],
    /// Tables of the source that a crash may damage, with their engines.
    pub fragile_tables: &'a [String],
    /// Accounts of the replica that read_only does not stop.
    pub unstopped: &'a [String],
}

impl Check {
    fn new(name: &'static str, verdict: Verdict, details: Vec<String>) -> Self {
        Self { name, verdict, details, verbose: Vec::new() }
    }

    /// Passed without details.
    fn of(name: &'static str, otherwise: Verdict, details: Vec<String>) -> Self {
        let verdict = if details.is_empty() { Verdict::Pass } else { otherwise };
        Self::new(name, verdict, details)
    }

    fn showing(self, verbose: Vec<String>) -> Self {
        Self { verbose, ..self }
    }
}

/// Asks the source for tables that a crash may damage.
pub const FRAGILE_TABLES: &str = "SELECT CONCAT(TABLE_SCHEMA,'.',TABLE_NAME,' is ',ENGINE,'.') \
    AS fragile FROM information_schema.TABLES WHERE TABLE_TYPE='BASE TABLE' AND ENGINE NOT IN \
    (SELECT ENGINE FROM information_schema.ENGINES WHERE TRANSACTIONS='YES') AND TABLE_SCHEMA \
    NOT IN ('mysql','information_schema','performance_schema','sys') ORDER BY fragile";

/// Asks the replica for accounts that read_only does not stop, beside `user` and root; `None`
/// where nobody is.
#[must_use]
pub fn unstopped_accounts(dialect: Dialect, user: &str) -> Option<String> {
    let privilege = match dialect {
        Dialect::Mysql56 => "SUPER",
        Dialect::Mariadb => "READ_ONLY ADMIN",
        Dialect::Mysql57 | Dialect::Mysql80 | Dialect::Mysql84 => return None,
    };
    let names = [user, "root"].map(|name| quote(&format!("'{name}'@")));
    Some(format!(
        "SELECT GRANTEE AS account FROM information_schema.USER_PRIVILEGES \
         WHERE PRIVILEGE_TYPE='{privilege}' AND LOCATE({}, GRANTEE)<>1 AND \
         LOCATE({}, GRANTEE)<>1 ORDER BY account",
        names[0], names[1]
    ))
}

/// The tests of mysqlrplcheck, in its order and words.
#[must_use]
pub fn original(findings: &Findings<'_>) -> Vec<Check> {
    let Findings { source, replica, .. } = findings;
    let both = |name: &str| [source.variable(name).to_owned(), replica.variable(name).to_owned()];
    let ids = both("server_id");
    let uuids = both("server_uuid");
    let cases = both("lower_case_table_names");
    let equal = |values: &[String; 2], what: &str| {
        let is_equal = values[0] == values[1] && !values[0].is_empty();
        Vec::from_iter(is_equal.then(|| format!("Both servers have the {what} {}.", values[0])))
    };
    let mut different_case = Vec::new();
    if cases[0] != cases[1] {
        let [ours, theirs] = &cases;
        different_case.push(format!("It is {ours} on the master and {theirs} on the slave."));
    }
    vec![
        Check::of("Checking for binary logging on master", Verdict::Fail, {
            let complaint = || "Master must have binary logging turned on.".to_owned();
            Vec::from_iter((!source.is_on("log_bin")).then(complaint))
        }),
        Check::of("Are there binlog exceptions?", Verdict::Warn, exceptions(findings, "_DB")),
        Check::of("Replication user exists?", Verdict::Fail, missing_user(findings)),
        Check::of("Checking server_id values", Verdict::Fail, equal(&ids, "server_id"))
            .showing(vec![format!(" master id = {}", ids[0]), format!("  slave id = {}", ids[1])]),
        Check::of("Checking server_uuid values", Verdict::Fail, equal(&uuids, "server_uuid"))
            .showing(vec![
                format!(" master uuid = {}", uuids[0]),
                format!("  slave uuid = {}", uuids[1]),
            ]),
        connection(findings),
        master_information(findings),
        Check::of("Checking InnoDB compatibility", Verdict::Warn, innodb(findings)),
        Check::of("Checking storage engines compatibility", Verdict::Warn, engines(findings)),
        Check::of("Checking lower_case_table_names settings", Verdict::Fail, different_case)
            .showing(vec![
                format!("  Master lower_case_table_names: {}", cases[0]),
                format!("   Slave lower_case_table_names: {}", cases[1]),
            ]),
        Check::of("Checking slave delay (seconds behind master)", Verdict::Fail, delay(findings)),
    ]
}

/// What a failover stumbles over, and mysqlrplcheck does not look at.
#[must_use]
pub fn further(findings: &Findings<'_>) -> Vec<Check> {
    let Findings { source, replica, .. } = findings;
    vec![
        Check::of("Is the slave's SQL thread running?", Verdict::Fail, applier(replica)),
        Check::of("Has the slave only what the master has?", Verdict::Fail, {
            let Beyond { text, transactions } = errant(replica, source);
            let clause = || format!("{transactions} transactions are on the slave only: {text}");
            Vec::from_iter((transactions > 0).then(clause))
        }),
        Check::of("Has the master all that the slave needs?", Verdict::Fail, purged(findings)),
        Check::of("Are GTIDs and all logs on, on both servers?", Verdict::Fail, settings(findings)),
        Check::of("May each server replicate from the other?", Verdict::Fail, accounts(findings)),
        Check::of("Is the slave, and only the slave, read-only?", Verdict::Warn, {
            let mut wrong = Vec::new();
            if source.is_on("read_only") {
                wrong.push("The master is read-only.".to_owned());
            }
            if !replica.is_on("read_only") {
                wrong.push("The slave is open for writes.".to_owned());
            }
            wrong
        }),
        Check::of("Does the slave stay out of the master's tasks?", Verdict::Fail, tasks(replica)),
        Check::of("Are all tables replicated?", Verdict::Warn, {
            let mut found = exceptions(findings, "_Table");
            found.extend(exceptions(findings, "_Ids"));
            found
        }),
        Check::of("Do the settings survive a crash?", Verdict::Warn, durability(findings)),
        versions(findings),
        Check::of("Does every table survive a crash?", Verdict::Warn, fragile(findings)),
        Check::of("Is the slave shut for every application?", Verdict::Warn, unstopped(findings)),
    ]
}

fn versions(findings: &Findings<'_>) -> Check {
    const NAME: &str = "Do the versions let each replicate from the other?";
    let Findings { source, replica, .. } = findings;
    let (ours, theirs) = (&source.version, &replica.version);
    match replica.compare_version(source) {
        Ordering::Equal => Check::new(NAME, Verdict::Pass, Vec::new()),
        Ordering::Less => {
            let why = format!("The slave ({theirs}) is older than the master ({ours}).");
            Check::new(NAME, Verdict::Fail, vec![why])
        }
        Ordering::Greater => {
            let why = format!(
                "The slave ({theirs}) is newer than the master ({ours}), which could not follow \
                 it after a switchover."
            );
            Check::new(NAME, Verdict::Warn, vec![why])
        }
    }
}

fn fragile(findings: &Findings<'_>) -> Vec<String> {
    let tables = findings.fragile_tables;
    let mut lines: Vec<String> = tables.iter().take(SHOWN).cloned().collect();
    if tables.len() > SHOWN {
        lines.push(format!("and {} more", tables.len() - SHOWN));
    }
    if !lines.is_empty() {
        let why = "A crash loses rows of them, on one server and not on the other: ENGINE=InnoDB.";
        lines.push(why.to_owned());
    }
    lines
}

/// Closing ends their connections where it must, and they may come back.
fn unstopped(findings: &Findings<'_>) -> Vec<String> {
    let clause = |account: &String| format!("slave: {account} writes in spite of read_only.");
    findings.unstopped.iter().take(SHOWN).map(clause).collect()
}

/// Filters whose name ends so, wherever they are.
fn exceptions(findings: &Findings<'_>, kind: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (member, role) in [(findings.source, "master"), (findings.replica, "slave")] {
        let filters = member.filters().into_iter();
        let of_kind =
            filters.filter(|filter| filter.split('=').next().unwrap_or("").ends_with(kind));
        found.extend(of_kind.map(|filter| format!("{role}: {filter}")));
    }
    found
}

fn missing_user(findings: &Findings<'_>) -> Vec<String> {
    let Some(status) = &findings.replica.replica else {
        return vec!["Slave is not connected to a master.".to_owned()];
    };
    let [_, replica_hosts] = findings.hosts;
    if may_replicate(findings.accounts[0], &replica_hosts) {
        return Vec::new();
    }
    let (user, host) = (&status.source_user, replica_hosts[0]);
    let source = findings.source.name();
    vec![format!("The replication user {user}@{host} was not found on {source}.")]
}

fn connection(findings: &Findings<'_>) -> Check {
    const NAME: &str = "Is slave connected to master?";
    let Some(status) = &findings.replica.replica else {
        return Check::new(NAME, Verdict::Fail, vec!["Slave is stopped.".to_owned()]);
    };
    if status.io == ThreadState::Running && findings.is_of_source {
        return Check::new(NAME, Verdict::Pass, Vec::new());
    }
    let details = if findings.is_of_source {
        vec![format!("The IO thread does not run. {}", status.io_error)]
    } else {
        vec![format!("It replicates from {}:{}.", status.source_host, status.source_port)]
    };
    Check::new(NAME, Verdict::Warn, details)
}

fn master_information(findings: &Findings<'_>) -> Check {
    const NAME: &str = "Check master information file";
    let info = findings.master_info;
    let value = |name: &str| info.value(0, &[name]).unwrap_or_default();
    let Some(status) = findings.replica.replica.as_ref().filter(|_| !info.rows.is_empty()) else {
        // The running server's own status is all there is to know.
        return Check::new(NAME, Verdict::Pass, Vec::new());
    };
    let port = status.source_port.to_string();
    let wanted =
        [("Host", &status.source_host), ("User_name", &status.source_user), ("Port", &port)];
    let differing = wanted.iter().filter(|(name, wanted)| value(name) != *wanted);
    let details: Vec<String> = differing
        .map(|(name, wanted)| format!("{name} is {} there, and {wanted} in use.", value(name)))
        .collect();
    let mut lines = vec!["#".to_owned(), "# Master information file: ".to_owned(), "#".to_owned()];
    lines.extend(MASTER_INFO.iter().filter(|(name, _)| info.value(0, &[name]).is_some()).map(
        |(name, shown)| {
            let value = if *name == "User_password" { "***" } else { value(name) };
            format!("{shown:>30} : {value}")
        },
    ));
    Check::of(NAME, Verdict::Fail, details).showing(lines)
}

fn innodb(findings: &Findings<'_>) -> Vec<String> {
    let [ours, theirs] = findings.innodb;
    let is_equal = ours.rows == theirs.rows;
    Vec::from_iter((!is_equal).then(|| "The versions of InnoDB differ.".to_owned()))
}

fn engines(findings: &Findings<'_>) -> Vec<String> {
    let [ours, theirs] = findings.engines;
    let lacking = |here: &[String], there: &[String], where_: &str| {
        let missing: Vec<&str> =
            here.iter().filter(|engine| !there.contains(engine)).map(String::as_str).collect();
        (!missing.is_empty()).then(|| format!("Only on the {where_}: {}.", missing.join(", ")))
    };
    lacking(ours, theirs, "master").into_iter().chain(lacking(theirs, ours, "slave")).collect()
}

fn delay(findings: &Findings<'_>) -> Vec<String> {
    if !findings.source.is_on("log_bin") {
        return vec!["Cannot read master status.".to_owned()];
    }
    if findings.behind.transactions == 0 {
        return Vec::new();
    }
    let Beyond { text, transactions } = &findings.behind;
    let lag = findings.replica.replica.as_ref().and_then(|status| status.lag_seconds);
    let lag = lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string());
    vec![
        "Slave is behind master.".to_owned(),
        format!("Seconds behind master = {lag}"),
        format!("Transactions not executed by the slave = {transactions}: {text}"),
    ]
}

fn applier(replica: &Member) -> Vec<String> {
    let Some(status) = &replica.replica else { return vec!["It is no slave.".to_owned()] };
    if status.sql == ThreadState::Running {
        return Vec::new();
    }
    let mut details = vec!["The SQL thread does not run: nothing is applied.".to_owned()];
    if status.sql_errno != 0 {
        details.push(format!("Error {}: {}", status.sql_errno, status.sql_error));
    }
    let unapplied = replica.unapplied();
    if unapplied > 0 {
        details.push(format!("{unapplied} received transactions wait to be applied."));
    }
    details
}

/// A replica that needs what the source has purged can never catch up (error 1236).
fn purged(findings: &Findings<'_>) -> Vec<String> {
    let gone = findings.source.purged_beyond(findings.replica);
    let clause = || format!("Purged from the master's binary logs: {}", gone.text);
    Vec::from_iter((gone.transactions > 0).then(clause))
}

fn settings(findings: &Findings<'_>) -> Vec<String> {
    let both = findings.source.needed().into_iter().zip(findings.replica.needed());
    let wrong = both.filter(|((_, ours), (_, theirs))| [ours, theirs] != [&"ON"; 2]);
    let clause = |((name, ours), (_, theirs))| {
        format!("{name} is {ours} on the master and {theirs} on the slave.")
    };
    wrong.map(clause).collect()
}

/// Both hosts on both servers: after a switchover each is the other's source.
fn accounts(findings: &Findings<'_>) -> Vec<String> {
    let user = findings.replica.replica.as_ref().map_or("", |status| &status.source_user);
    let mut missing = Vec::new();
    for (accounts, on) in findings.accounts.iter().zip([findings.source, findings.replica]) {
        for hosts in findings.hosts {
            if !may_replicate(accounts, &hosts) {
                missing.push(format!("{user}@{} is missing on {}.", hosts[1], on.name()));
            }
        }
    }
    missing
}

fn tasks(replica: &Member) -> Vec<String> {
    let mut wrong = Vec::new();
    if replica.is_on("rpl_semi_sync_master_enabled")
        || replica.is_on("rpl_semi_sync_source_enabled")
    {
        wrong
            .push("The semi-synchronous source is on: the SQL thread waits for nobody.".to_owned());
    }
    if replica.is_on("event_scheduler") {
        wrong.push("The event scheduler is on: events of its own would be errant.".to_owned());
    }
    wrong
}

fn durability(findings: &Findings<'_>) -> Vec<String> {
    let mut weak = Vec::new();
    for (member, role) in [(findings.source, "master"), (findings.replica, "slave")] {
        for name in ["sync_binlog", "innodb_flush_log_at_trx_commit"] {
            let value = member.variable(name);
            if value != "1" {
                weak.push(format!("{role}: {name}={value}; a power cut loses transactions."));
            }
        }
        let repository = member.variable("master_info_repository");
        if repository == "TABLE" && member.variable("sync_master_info") == "1" {
            weak.push(format!("{role}: sync_master_info=1; it falls behind under load. 10000."));
        }
        if member.variable("binlog_format") != "ROW" {
            let format = member.variable("binlog_format");
            let why = "what a statement finds on the slave may differ. ROW.";
            weak.push(format!("{role}: binlog_format={format}; {why}"));
        }
    }
    weak
}

/// Lines about tables or accounts.
const SHOWN: usize = 8;

/// Columns of mysql.slave_master_info, and what the original calls them.
const MASTER_INFO: [(&str, &str); 22] = [
    ("Master_log_name", "Master_Log_File"),
    ("Master_log_pos", "Read_Master_Log_Pos"),
    ("Host", "Master_Host"),
    ("User_name", "Master_User"),
    ("User_password", "Master_Password"),
    ("Port", "Master_Port"),
    ("Connect_retry", "Connect_Retry"),
    ("Enabled_ssl", "Master_SSL_Allowed"),
    ("Ssl_ca", "Master_SSL_CA_File"),
    ("Ssl_capath", "Master_SSL_CA_Path"),
    ("Ssl_cert", "Master_SSL_Cert"),
    ("Ssl_cipher", "Master_SSL_Cipher"),
    ("Ssl_key", "Master_SSL_Key"),
    ("Ssl_verify_server_cert", "Master_SSL_Verify_Server_Cert"),
    ("Heartbeat", "Heartbeat"),
    ("Bind", "Bind"),
    ("Ignored_server_ids", "Ignored_server_ids"),
    ("Uuid", "Uuid"),
    ("Retry_count", "Retry_count"),
    ("Ssl_crl", "SSL_CRL"),
    ("Ssl_crlpath", "SSL_CRL_Path"),
    ("Enabled_auto_position", "Enabled_auto_position"),
];

#[cfg(test)]
mod tests {
    use super::super::topology::tests::{RUNNING, U, member, rows};
    use super::*;

    const SAFE: [(&str, &str); 6] = [
        ("log_slave_updates", "ON"),
        ("lower_case_table_names", "0"),
        ("sync_binlog", "1"),
        ("innodb_flush_log_at_trx_commit", "1"),
        ("binlog_format", "ROW"),
        ("server_uuid", ""),
    ];

    /// The tests that a pair does not pass; `change` makes it sick.
    fn failed(
        replica_variables: &[(&str, &str)],
        status: &[(&'static str, &'static str)],
        executed: &str,
    ) -> Vec<(&'static str, Verdict, String)> {
        let with = |own: &[(&'static str, &'static str)]| [&SAFE, own].concat();
        let open = with(&[("read_only", "OFF"), ("server_id", "1")]);
        let source = member("server1", &format!("{U}:1-7"), &open, &[]);
        let mut shut: Vec<(&str, &str)> = with(&[("server_id", "2")]);
        shut.extend(replica_variables);
        let mut running = RUNNING.to_vec();
        for (name, value) in status {
            running.retain(|(known, _)| known != name);
            running.push((name, value));
        }
        let replica = member("server2", executed, &shut, &running);
        let accounts = rows(&[("host", "10.0.0.%"), ("can_replicate", "Y")]);
        let behind = source.executed.beyond(&replica.executed);
        let findings = Findings {
            source: &source,
            replica: &replica,
            is_of_source: true,
            behind,
            accounts: [&accounts, &accounts],
            hosts: [["server1", "10.0.0.1"], ["server2", "10.0.0.2"]],
            master_info: &Rows::default(),
            innodb: [&Rows::default(), &Rows::default()],
            engines: [&[], &[]],
            fragile_tables: &[],
            unstopped: &[],
        };
        let mut checks = original(&findings);
        assert_eq!(checks.len(), 11);
        checks.extend(further(&findings));
        checks
            .into_iter()
            .filter(|check| check.verdict != Verdict::Pass)
            .map(|check| (check.name, check.verdict, check.details.join(" ")))
            .collect()
    }

    #[test]
    fn a_sound_pair_passes_every_test() {
        assert_eq!(failed(&[], &[], &format!("{U}:1-7")), []);
    }

    #[test]
    fn a_dead_applier_fails_with_its_error() {
        let dead = [
            ("Slave_SQL_Running", "No"),
            ("Last_SQL_Errno", "1062"),
            ("Last_SQL_Error", "Duplicate entry"),
        ];
        let found = failed(&[], &dead, &format!("{U}:1-7"));
        let [(name, Verdict::Fail, details)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(*name, "Is the slave's SQL thread running?");
        assert!(details.contains("Error 1062: Duplicate entry"), "{details}");
    }

    #[test]
    fn errant_and_missing_transactions_fail() {
        let found = failed(&[], &[], &format!("{U}:1-5:9"));
        let names: Vec<_> = found.iter().map(|(name, verdict, _)| (*name, *verdict)).collect();
        assert_eq!(
            names,
            [
                ("Checking slave delay (seconds behind master)", Verdict::Fail),
                ("Has the slave only what the master has?", Verdict::Fail)
            ]
        );
        assert!(found[1].2.contains(&format!("{U}:9")));
    }

    #[test]
    fn settings_that_break_a_failover_are_named() {
        let wrong = [
            ("server_id", "1"),
            ("lower_case_table_names", "1"),
            ("log_slave_updates", "OFF"),
            ("read_only", "OFF"),
            ("event_scheduler", "ON"),
            ("rpl_semi_sync_master_enabled", "ON"),
            ("sync_binlog", "0"),
        ];
        let found = failed(&wrong, &[], &format!("{U}:1-7"));
        let verdicts: Vec<_> = found.iter().map(|(_, verdict, _)| *verdict).collect();
        use Verdict::{Fail, Warn};
        assert_eq!(verdicts, [Fail, Fail, Fail, Warn, Fail, Warn], "{found:#?}");
        assert_eq!(found[0].2, "Both servers have the server_id 1.");
        assert_eq!(found[1].2, "It is 0 on the master and 1 on the slave.");
    }

    #[test]
    fn filters_are_exceptions() {
        let filters = [("Replicate_Ignore_DB", "logs"), ("Replicate_Wild_Do_Table", "a.%")];
        let found = failed(&[], &filters, &format!("{U}:1-7"));
        let details: Vec<_> = found.iter().map(|(_, _, details)| details.as_str()).collect();
        assert_eq!(
            details,
            ["slave: Replicate_Ignore_DB=logs", "slave: Replicate_Wild_Do_Table=a.%"]
        );
    }
}
