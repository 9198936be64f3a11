//! The settings of both databases: what a failover stumbles over later.
//!
//! In: a configuration and what each server said. Out: findings. Must not: ask; judge replication
//! that is not set up yet (`mysqlrplcheck` judges a running one). The plugins of semi-synchronous
//! replication are loaded by tandem itself.
//! Read first: facts/repl.md 3.7; MySQL manual, "Replication and Binary Logging Options".

use std::collections::BTreeMap;

use super::{Finding, Id};
use crate::config::Config;
use crate::wire::HostId;

/// What a server said of itself.
#[derive(Debug, Clone, Default)]
pub struct Server {
    /// As in "5.6.24-log", "10.11.6-MariaDB".
    pub version: String,
    /// SHOW GLOBAL VARIABLES, names in lower case.
    pub variables: BTreeMap<String, String>,
    /// UNIX_TIMESTAMP() less this host's own clock, in seconds.
    pub clock_offset: i64,
}

/// The variables that are looked at.
pub const VARIABLES: &[&str] = &[
    "binlog_format",
    "character_set_server",
    "collation_server",
    "enforce_gtid_consistency",
    "event_scheduler",
    "gtid_mode",
    "gtid_strict_mode",
    "innodb_flush_log_at_trx_commit",
    "log_bin",
    "log_replica_updates",
    "log_slave_updates",
    "lower_case_table_names",
    "max_connections",
    "report_host",
    "server_id",
    "skip_replica_start",
    "skip_slave_start",
    "sql_mode",
    "sync_binlog",
    "system_time_zone",
    "time_zone",
];

/// Farther apart, rows get times that lead nowhere.
const CLOCK_SECONDS_MAX: u64 = 2;

impl Server {
    fn is_mariadb(&self) -> bool {
        self.version.contains("MariaDB")
    }

    /// The variable's value under its first name that this server knows.
    fn value(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.variables.get(*name)).map(String::as_str)
    }

    fn is_on(&self, names: &[&str]) -> Option<bool> {
        self.value(names).map(|value| matches!(value, "ON" | "1" | "YES"))
    }
}

/// `servers`: of each host what it said, or why it said nothing.
#[must_use]
pub fn findings(config: &Config, servers: &[Result<Server, String>; 2]) -> Vec<Finding> {
    let mut found = Vec::new();
    for id in HostId::ALL {
        let name = &config.host(id).name;
        match &servers[id.index()] {
            Ok(server) => settings(name, server, &mut found),
            Err(why) => found.push(
                Finding::error(
                    Id::DatabaseUnreachable,
                    format!("the database of {name} is silent"),
                )
                .seen(why.clone())
                .fix(format!(
                    "is it up, does it listen on {}:{}, and may {} log in from both inside \
                         addresses?",
                    config.host(id).inside.address,
                    config.repl.port,
                    config.repl.user
                )),
            ),
        }
    }
    if let [Ok(one), Ok(other)] = servers {
        let names = HostId::ALL.map(|id| config.host(id).name.as_str());
        compare(names, one, other, &mut found);
    }
    found
}

fn settings(name: &str, server: &Server, found: &mut Vec<Finding>) {
    logs(name, server, found);
    safety(name, server, found);
    if server.value(&["report_host"]).is_none_or(str::is_empty) {
        let what = format!("{name}: report_host is not set: SHOW REPLICAS does not name it");
        let fix = format!("report_host={name} in my.cnf");
        found.push(Finding::note(Id::NoReportHost, what).fix(fix));
    }
    if server.is_on(&["event_scheduler"]) == Some(true) {
        let what = format!("{name}: the event scheduler runs, on the replica too");
        let fix = "event_scheduler=OFF in my.cnf of both hosts, unless events are for each host";
        found.push(Finding::note(Id::EventScheduler, what).fix(fix));
    }
    if server.is_mariadb() && server.is_on(&["gtid_strict_mode"]) == Some(false) {
        let what =
            format!("{name}: a replica takes transactions out of order, and none of its own back");
        let fix = "gtid-strict-mode=1 in my.cnf of both hosts";
        found.push(Finding::note(Id::GtidsNotStrict, what).fix(fix));
    }
}

/// What replication by GTID in both directions needs.
fn logs(name: &str, server: &Server, found: &mut Vec<Finding>) {
    let mut must = |names: &[&str], id: Id, setting: &str| {
        if server.is_on(names) == Some(false) || server.value(names).is_none() {
            let seen = server.value(names).map_or_else(
                || format!("{} is unknown there", names.join(", ")),
                |value| format!("{} = {value}", names.join(", ")),
            );
            found.push(
                Finding::error(id, format!("{name}: {setting} is not set"))
                    .seen(seen)
                    .fix(format!("{setting} below [mysqld] in my.cnf, and a restart")),
            );
        }
    };
    must(&["log_bin"], Id::NoBinaryLog, "log-bin");
    must(&["log_replica_updates", "log_slave_updates"], Id::NoLogUpdates, "log-slave-updates");
    if !server.is_mariadb() {
        must(&["gtid_mode"], Id::NoGtids, "gtid-mode=ON");
        must(&["enforce_gtid_consistency"], Id::GtidsMayBreak, "enforce-gtid-consistency=ON");
    }
    if server.value(&["server_id"]).is_none_or(|id| id == "0") {
        let what = format!("{name}: server-id is not set");
        let fix = "server-id=1 on one host and 2 on the other, in my.cnf";
        found.push(Finding::error(Id::NoServerId, what).fix(fix));
    }
    if let Some(format) = server.value(&["binlog_format"]).filter(|it| *it != "ROW") {
        found.push(
            Finding::warning(Id::BinlogFormat, format!("{name}: statements may replicate wrongly"))
                .seen(format!("binlog_format = {format}"))
                .fix("binlog-format=ROW in my.cnf"),
        );
    }
}

/// What a crash or a power cut costs, and what a host does that comes back.
fn safety(name: &str, server: &Server, found: &mut Vec<Finding>) {
    for (variable, wanted) in [("sync_binlog", "1"), ("innodb_flush_log_at_trx_commit", "1")] {
        if let Some(value) = server.value(&[variable]).filter(|value| *value != wanted) {
            let what = format!("{name}: a power cut loses what was acknowledged");
            found.push(
                Finding::warning(Id::NotDurable, what)
                    .seen(format!("{variable} = {value}"))
                    .fix(format!("{variable}={wanted} in my.cnf of both hosts")),
            );
        }
    }
    let skip = &["skip_replica_start", "skip_slave_start"];
    if server.is_on(skip) == Some(false) {
        let what = format!("{name}: it replicates as it starts, before anybody has looked at it");
        let fix = "skip-slave-start (skip-replica-start since 8.0.26) in my.cnf";
        found.push(Finding::warning(Id::ReplicatesAtStart, what).fix(fix));
    }
}

fn compare(names: [&str; 2], one: &Server, other: &Server, found: &mut Vec<Finding>) {
    if one.value(&["server_id"]) == other.value(&["server_id"]) {
        let id = one.value(&["server_id"]).unwrap_or("none");
        found.push(
            Finding::error(Id::SameServerId, "both databases have one server-id")
                .seen(format!("server_id = {id} on {} and on {}", names[0], names[1]))
                .fix("server-id=1 on one host and 2 on the other, in my.cnf"),
        );
    }
    for (variable, why) in [
        ("lower_case_table_names", "a table of one host may have another name on the other"),
        ("character_set_server", "tables made later differ"),
        ("collation_server", "tables made later compare differently"),
        ("time_zone", "times are stored and shown differently after a failover"),
        ("system_time_zone", "times are shown differently after a failover"),
        ("sql_mode", "what one host takes the other one may refuse"),
        ("max_connections", "the other host may not take the load alone"),
    ] {
        let values = [one, other].map(|server| server.value(&[variable]).unwrap_or("unknown"));
        if values[0] != values[1] {
            found.push(
                Finding::warning(Id::SettingsDiffer, format!("{variable} differs: {why}"))
                    .seen(format!("{} has {}, {} has {}", names[0], values[0], names[1], values[1]))
                    .fix("the same line in my.cnf of both hosts"),
            );
        }
    }
    if one.version != other.version {
        let what = "the versions differ: the older one cannot follow the newer one for sure";
        found.push(
            Finding::warning(Id::VersionsDiffer, what)
                .seen(format!("{} {}, {} {}", names[0], one.version, names[1], other.version))
                .fix("update the replica first, then `tandem switchover`, then the other host"),
        );
    }
    let apart = one.clock_offset.abs_diff(other.clock_offset);
    if apart > CLOCK_SECONDS_MAX {
        found.push(
            Finding::warning(Id::ClocksDiffer, format!("the clocks are {apart} s apart"))
                .seen("SELECT UNIX_TIMESTAMP() on both")
                .fix("run chrony or ntpd on both hosts"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EXAMPLE;

    fn config() -> Config {
        Config::parse(EXAMPLE).expect("the example is valid")
    }

    fn server(id: &str) -> Server {
        let variables = [
            ("server_id", id),
            ("log_bin", "ON"),
            ("log_slave_updates", "ON"),
            ("gtid_mode", "ON"),
            ("enforce_gtid_consistency", "ON"),
            ("binlog_format", "ROW"),
            ("sync_binlog", "1"),
            ("innodb_flush_log_at_trx_commit", "1"),
            ("report_host", "server"),
            ("time_zone", "SYSTEM"),
        ];
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let version = "5.6.24-log".to_owned();
        Server { version, variables: variables.collect(), clock_offset: 0 }
    }

    fn ids(one: Server, other: Server) -> Vec<&'static str> {
        findings(&config(), &[Ok(one), Ok(other)]).iter().map(|it| it.id.name()).collect()
    }

    #[test]
    fn nothing_is_found_on_sound_servers() {
        assert_eq!(ids(server("1"), server("2")), [""; 0]);
    }

    #[test]
    fn each_fault_is_found_by_its_name() {
        for (variable, value, id) in [
            ("server_id", "0", "no-server-id"),
            ("log_bin", "OFF", "no-binary-log"),
            ("log_slave_updates", "OFF", "no-log-updates"),
            ("gtid_mode", "OFF", "no-gtids"),
            ("enforce_gtid_consistency", "OFF", "gtids-may-break"),
            ("binlog_format", "STATEMENT", "binlog-format"),
            ("sync_binlog", "0", "not-durable"),
            ("innodb_flush_log_at_trx_commit", "2", "not-durable"),
            ("skip_slave_start", "OFF", "replicates-at-start"),
            ("report_host", "", "no-report-host"),
            ("event_scheduler", "ON", "event-scheduler"),
            ("server_id", "2", "same-server-id"),
            ("time_zone", "+00:00", "settings-differ"),
        ] {
            let mut faulty = server("1");
            faulty.variables.insert(variable.into(), value.into());
            assert_eq!(ids(faulty, server("2")), [id], "{variable} = {value}");
        }
        let late = Server { clock_offset: -9, ..server("1") };
        assert_eq!(ids(late, server("2")), ["clocks-differ"]);
        let newer = Server { version: "5.7.44".into(), ..server("1") };
        assert_eq!(ids(newer, server("2")), ["versions-differ"]);
        let silent = findings(&config(), &[Err("refused".into()), Ok(server("2"))]);
        assert_eq!(
            silent.iter().map(|it| it.id.name()).collect::<Vec<_>>(),
            ["database-unreachable"]
        );
    }
}
