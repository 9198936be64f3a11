//! The sessions of a database server: its process list, their end, and the commit probe among them.
//!
//! In: SQL text. Out: rows, errors, "not yet". Must not: replicate (`mysqld`).
//! Read first: src/repl/evict.rs, src/repl/probe.rs.

use tandem::repl::{Dialect, Rows, ServerError};
use tandem::time::Instant;

use super::mysqld::{Answer, Mysqld, Payload, done, refused, rows};

impl Mysqld {
    pub(super) fn end_session(&mut self, id: &str) -> Answer {
        if self.writer.is_some_and(|writer| writer.to_string() == id) {
            self.writer = self.writer.filter(|_| self.is_full && self.is_stubborn);
            return done();
        }
        if self.has_hanging_probe && id == "7" {
            return done();
        }
        refused(1094, "Unknown thread id")
    }

    /// The table of the commit probe, and the probe, which is not logged.
    pub(super) fn execute_probe(
        &mut self,
        now: Instant,
        sql: &str,
        waited: bool,
    ) -> Option<Answer> {
        if sql.contains("TABLE_TYPE='BASE TABLE'") {
            return Some(rows(&[("count", "0".to_owned())]));
        }
        if sql.contains("TABLE_NAME='commit_probe'") {
            return Some(rows(&[("count", u8::from(self.has_probe_table).to_string())]));
        }
        if sql == "CREATE DATABASE IF NOT EXISTS tandem" {
            self.commit(now, Payload::ProbeSchema);
            return Some(done());
        }
        if sql.starts_with("CREATE TABLE IF NOT EXISTS tandem.commit_probe ") {
            self.commit(now, Payload::ProbeTable);
            return Some(done());
        }
        if sql == Dialect::Mariadb.statements().log_position {
            self.has_hanging_probe = self.is_full && !self.read_only && !waited;
            let late = if waited { Answer::Now(Err(ServerError::TimedOut)) } else { done() };
            return Some(if self.has_hanging_probe { Answer::Waits { seconds: 60 } } else { late });
        }
        sql.starts_with("REPLACE INTO tandem.commit_probe ").then(done)
    }

    /// The writer, where it is alive; and threads that must be left alone.
    pub(super) fn process_list(&self) -> Answer {
        let columns = ["Id", "User", "Command", "State", "Info"].map(str::to_owned).to_vec();
        let line = |cells: [&str; 5]| cells.map(|cell| Some(cell.to_owned())).to_vec();
        let mut rows = vec![
            line(["5", "system user", "Slave_IO", "Waiting for master to send event", ""]),
            line(["6", "rpl", "Binlog Dump", "Master has sent all binlog to slave", ""]),
        ];
        if let Some(writer) = self.writer {
            rows.push(line([&writer.to_string(), "app", "Query", "updating", ""]));
        }
        if self.has_hanging_probe {
            let info = Dialect::Mariadb.statements().log_position;
            rows.push(line(["7", "tandem", "Query", "starting", info]));
        }
        Answer::Now(Ok(Rows { columns, rows }))
    }
}
