//! Which servers replicate from a source, asked of the source itself.
//!
//! In: a source. Out: where its replicas are.
//! Read first: facts/repl.md 1.2.  Differs: a replica that reports no host (report_host unset) is
//! looked for where its connection comes from, and does not end the list.

use super::servers::Server;
use crate::repl::Rows;

/// Replicas as the source knows them.
pub(super) fn reported(source: &Server) -> Result<Vec<(String, u16)>, String> {
    let hosts = source.must(source.dialect.statements().replicas)?;
    let nameless = |row: usize| hosts.value(row, &["Host"]).unwrap_or_default().is_empty();
    let connections = if (0..hosts.rows.len()).any(nameless) {
        dump_connections(&source.must("SHOW PROCESSLIST")?)
    } else {
        Vec::new()
    };
    let mut unnamed = connections.into_iter();
    let mut found = Vec::new();
    for row in 0..hosts.rows.len() {
        let port = hosts.value(row, &["Port"]).and_then(|port| port.parse().ok()).unwrap_or(3306);
        let host = if nameless(row) {
            unnamed.next()
        } else {
            hosts.value(row, &["Host"]).map(str::to_owned)
        };
        found.extend(host.map(|host| (host, port)));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Why nothing is found.
pub(super) const NOBODY: &str = "no slave has logged in to this master: each is listed once its IO \
    thread runs; those that are known can be named with --slaves";

/// Why what is found is left out.
pub(super) fn stranger(name: &str) -> String {
    format!(
        "{name} does not replicate from here, and is left out: a slave is looked for where it says \
         that it is (report_host, report_port), or else where it connects from; name it with \
         --slaves"
    )
}

/// Where connections that fetch the binlog come from.
fn dump_connections(processes: &Rows) -> Vec<String> {
    (0..processes.rows.len())
        .filter(|row| {
            let command = processes.value(*row, &["Command"]).unwrap_or_default();
            command.starts_with("Binlog Dump")
        })
        .filter_map(|row| processes.value(row, &["Host"]))
        .map(|host| host.rsplit_once(':').map_or(host, |(host, _)| host).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dump_connections_tell_where_replicas_are() {
        let row = |cells: [&str; 3]| cells.map(|cell| Some(cell.to_owned())).to_vec();
        let processes = Rows {
            columns: ["User", "Host", "Command"].map(str::to_owned).to_vec(),
            rows: vec![
                row(["rpl", "10.0.0.2:41234", "Binlog Dump GTID"]),
                row(["root", "10.0.0.9:41235", "Query"]),
                row(["rpl", "server3", "Binlog Dump"]),
            ],
        };
        assert_eq!(dump_connections(&processes), ["10.0.0.2", "server3"]);
    }
}
