//! `health` and `gtid`: tables about every server.
//!
//! In: servers. Out: tables. Must not: change anything.
//! Read first: repl/topology.rs (the verdicts).

use std::process::ExitCode;

use super::super::applet::{Call, Stop};
use super::super::servers::Server;
use super::{Topology, format};
use crate::console::table::render;
use crate::repl::topology::{
    COLUMNS, Member, Tolerance, VERBOSE_COLUMNS, replica_health, source_health, verbose_cells,
};

pub(super) fn health(call: &Call, topology: &Topology) -> Result<ExitCode, Stop> {
    if call.say.verbosity > 0 {
        for server in topology.source.iter().chain(&topology.replicas) {
            let host = &server.login.host;
            call.say.line(&format!("# Attempting to contact {host} ... Success"));
        }
    }
    if let Some(source) = &topology.source {
        let replicas: Vec<&Server> = topology.replicas.iter().collect();
        table(call, source, &replicas, topology)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The health table; `source` need not be the one that the command began with.
pub(super) fn table(
    call: &Call,
    source: &Server,
    replicas: &[&Server],
    topology: &Topology,
) -> Result<(), Stop> {
    // Replicas first: see `errant`.
    let members = replicas.iter().map(|server| server.member()).collect::<Result<Vec<_>, _>>()?;
    let of_source = source.member()?;
    let is_verbose = call.say.verbosity > 0;
    let tolerance = Tolerance { seconds_behind: call.number("seconds-behind", 0)? };

    let verdict = source_health(&of_source, has_replication_users(source));
    let mut rows = vec![row(&of_source, "MASTER", verdict)];
    if is_verbose {
        rows[0].extend(verbose_cells(&of_source, None));
    }
    for member in &members {
        let is_of_source = member
            .replica
            .as_ref()
            .is_some_and(|status| source.is_called(&status.source_host, status.source_port));
        let verdict = replica_health(member, &of_source, is_of_source, tolerance);
        let mut cells = row(member, "SLAVE", verdict);
        if is_verbose {
            cells.extend(verbose_cells(member, Some(&of_source)));
        }
        rows.push(cells);
    }
    for login in &topology.absent {
        let port = login.port.to_string();
        let cells = [&login.host, &port, "SLAVE", "DOWN", "", "Cannot connect to slave."];
        let mut cells = cells.map(str::to_owned).to_vec();
        cells.resize(
            COLUMNS.len() + if is_verbose { VERBOSE_COLUMNS.len() } else { 0 },
            String::new(),
        );
        rows.push(cells);
    }
    let mut columns = COLUMNS.to_vec();
    columns.extend(VERBOSE_COLUMNS.iter().filter(|_| is_verbose));
    call.say.line("#");
    call.say.line("# Replication Topology Health:");
    call.say.result(&render(format(call), &columns, &rows));
    Ok(())
}

fn row(member: &Member, role: &str, verdict: String) -> Vec<String> {
    let (host, port) = (member.host.clone(), member.port.to_string());
    let mode = member.gtid_mode().to_owned();
    vec![host, port, role.to_owned(), "UP".to_owned(), mode, verdict]
}

/// Where it cannot be told, nothing is complained about.
fn has_replication_users(source: &Server) -> bool {
    let sql = "SELECT COUNT(*) AS users FROM mysql.user WHERE Repl_slave_priv='Y'";
    source.query(sql).map_or(true, |rows| rows.value(0, &["users"]) != Some("0"))
}

pub(super) fn gtid(call: &Call, topology: &Topology) -> Result<ExitCode, Stop> {
    let mut members = Vec::new();
    for server in &topology.replicas {
        members.push((server.member()?, "SLAVE"));
    }
    if let Some(source) = &topology.source {
        members.insert(0, (source.member()?, "MASTER"));
    }
    let uuid = |member: &Member| member.variable("server_uuid").to_owned();
    print(call, "UUIDS for all servers:", "uuid", &members, uuid);
    let executed = |member: &Member| member.executed.to_string();
    print(call, "Transactions executed on the server:", "gtid", &members, executed);
    let purged = |member: &Member| member.purged.replace('\n', "");
    print(call, "Transactions purged from the server:", "gtid", &members, purged);
    let owned = |member: &Member| member.owned.replace('\n', "");
    print(call, "Transactions owned by another server:", "gtid", &members, owned);
    Ok(ExitCode::SUCCESS)
}

/// One grid of servers that have the value; none where nobody has it.
fn print(
    call: &Call,
    title: &str,
    column: &str,
    members: &[(Member, &str)],
    value: impl Fn(&Member) -> String,
) {
    let rows: Vec<Vec<String>> = members
        .iter()
        .map(|(member, role)| (member, role, value(member)))
        .filter(|(_, _, value)| !value.is_empty())
        .map(|(member, role, value)| {
            vec![member.host.clone(), member.port.to_string(), (*role).to_owned(), value]
        })
        .collect();
    if !rows.is_empty() {
        call.say.line("#");
        call.say.line(&format!("# {title}"));
        let columns = ["host", "port", "role", column];
        call.say.result(&render(format(call), &columns, &rows));
    }
}
