//! Ends connections: applications that hold the server open, or an applier that will not stop.
//!
//! In: the process list. Out: KILL statements. Must not: touch replication's or tandem's own
//! connections.
//! Read first: facts/repl.md 2.2 (what closing waits for), section 0 item 8 (an applier that blocks).

use super::job::Ask;
use super::rows::{Rows, ServerError};
use crate::limits;

/// Whose connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// Every application.
    Applications,
    /// Applications with a transaction open: its row locks would stop the applier later.
    Transactions,
    /// The replica's applier threads: one with half a transaction waits a minute for the rest.
    Appliers,
}

/// One round of listing and killing.
#[derive(Debug)]
pub(super) struct Evict {
    whom: Whom,
    own_user: String,
    /// Listed and still to be ended; the last is next.
    victims: Vec<u64>,
    is_listed: bool,
    ended: usize,
}

/// What to do after an answer.
#[derive(Debug)]
pub(super) enum Round {
    Ask(Ask),
    Over { ended: usize },
    Failed(ServerError),
}

impl Evict {
    pub(super) fn start(whom: Whom, own_user: &str) -> (Self, Ask) {
        let sql = match whom {
            Whom::Applications | Whom::Appliers => {
                "SELECT ID, USER, COMMAND, STATE FROM information_schema.PROCESSLIST \
                 WHERE ID <> CONNECTION_ID()"
            }
            Whom::Transactions => {
                "SELECT p.ID, p.USER, p.COMMAND, p.STATE FROM information_schema.PROCESSLIST p \
                 JOIN information_schema.INNODB_TRX t ON t.trx_mysql_thread_id = p.ID \
                 WHERE p.ID <> CONNECTION_ID()"
            }
        };
        let own_user = own_user.to_owned();
        let round = Self { whom, own_user, victims: Vec::new(), is_listed: false, ended: 0 };
        (round, Ask::new(STEP, sql, limits::STATEMENT_LIMIT))
    }

    pub(super) fn answered(&mut self, result: Result<Rows, ServerError>) -> Round {
        match result {
            Ok(rows) if !self.is_listed => {
                self.is_listed = true;
                self.victims = self.choose(&rows);
            }
            Ok(_) => self.ended += 1,
            // It went by itself.
            Err(ServerError::Refused { code: NO_SUCH_THREAD, .. }) => {}
            Err(error) => return Round::Failed(error),
        }
        match self.victims.pop() {
            Some(id) => Round::Ask(Ask::new(STEP, format!("KILL {id}"), limits::STATEMENT_LIMIT)),
            None => Round::Over { ended: self.ended },
        }
    }

    fn choose(&self, rows: &Rows) -> Vec<u64> {
        let chosen = (0..rows.rows.len()).filter_map(|row| {
            let text = |name: &str| rows.value(row, &[name]).unwrap_or_default();
            let id = text("ID").parse().ok()?;
            let is_chosen = match self.whom {
                Whom::Applications | Whom::Transactions => {
                    !NOT_APPLICATIONS.contains(&text("USER"))
                        && !text("COMMAND").starts_with("Binlog Dump")
                        && text("COMMAND") != "Daemon"
                        && text("USER") != self.own_user
                }
                Whom::Appliers => {
                    text("USER") == "system user"
                        && APPLIER_STATES.iter().any(|state| text("STATE").contains(state))
                }
            };
            is_chosen.then_some(id)
        });
        chosen.collect()
    }
}

const STEP: &str = "ending connections";

/// ER_NO_SUCH_THREAD.
const NO_SUCH_THREAD: u16 = 1094;

/// Threads of the server itself, and sessions that are nobody's yet.
const NOT_APPLICATIONS: [&str; 3] = ["system user", "event_scheduler", "unauthenticated user"];

/// An applier that waits inside or between transactions; never one at work.
const APPLIER_STATES: [&str; 2] =
    ["has read all relay log", "aiting for an event from Coordinator"];

#[cfg(test)]
mod tests {
    use super::*;

    fn list(whom: Whom) -> Vec<u64> {
        let lines = [
            ("1", "system user", "Connect", "Waiting for source to send event"),
            (
                "2",
                "system user",
                "Query",
                "Replica has read all relay log; waiting for more updates",
            ),
            ("3", "system user", "Query", "Waiting for an event from Coordinator"),
            ("4", "rpl", "Binlog Dump GTID", "Source has sent all binlog to replica"),
            ("5", "shop", "Sleep", ""),
            ("6", "tandem", "Sleep", ""),
            ("7", "event_scheduler", "Daemon", "Waiting on empty queue"),
            ("8", "root", "Query", "updating"),
            ("9", "unauthenticated user", "Connect", "login"),
        ];
        let rows = Rows {
            columns: ["ID", "USER", "COMMAND", "STATE"].map(str::to_owned).to_vec(),
            rows: lines
                .iter()
                .map(|&(a, b, c, d)| [a, b, c, d].map(|text| Some(text.to_owned())).to_vec())
                .collect(),
        };
        Evict::start(whom, "tandem").0.choose(&rows)
    }

    #[test]
    fn only_applications_are_ended() {
        assert_eq!(list(Whom::Applications), [5, 8]);
        assert_eq!(list(Whom::Transactions), [5, 8]);
    }

    #[test]
    fn only_waiting_appliers_are_ended() {
        assert_eq!(list(Whom::Appliers), [2, 3]);
    }
}
