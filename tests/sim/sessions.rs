//! The sessions of a database server: its process list, their end, and the commit probe among them.
//!
//! In: SQL text. Out: rows, errors, "not yet". Must not: replicate (`mysqld`).
//! Read first: src/repl/evict.rs, src/repl/probe.rs.

use tandem::repl::{Dialect, Rows, ServerError};
use tandem::time::Instant;

use super::mysqld::{Answer, Mysqld, Payload, done, refused, rows};

impl Mysqld {
    pub(super) fn end_session(&mut self, now: Instant, id: &str) -> Answer {
        if id.parse().is_ok_and(|session| self.end_commit(now, session)) {
            return done();
        }
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
            return Some(self.commit_own(now, sql, Payload::ProbeSchema));
        }
        if sql.starts_with("CREATE TABLE IF NOT EXISTS tandem.commit_probe ") {
            return Some(self.commit_own(now, sql, Payload::ProbeTable));
        }
        if sql == Dialect::Mariadb.statements().log_position {
            let is_held = self.is_full && !self.read_only || self.semi_sync.is_log_held();
            self.has_hanging_probe = is_held && !waited;
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
        for (id, state) in self.semi_sync.processes() {
            rows.push(line([&id.to_string(), "app", "Query", state, ""]));
        }
        if self.has_hanging_probe {
            let info = Dialect::Mariadb.statements().log_position;
            rows.push(line(["7", "tandem", "Query", "starting", info]));
        }
        Answer::Now(Ok(Rows { columns, rows }))
    }
}
