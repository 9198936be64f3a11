//! Ends connections: applications that hold the server open, or an applier that will not stop.
//!
//! In: the process list. Out: KILL statements. Must not: touch replication's or tandem's own
//! connections, but for a commit probe that hangs.
//! Read first: facts/repl.md 2.2 (what closing waits for), section 0 item 8 (a blocking applier).

use super::job::Ask;
use super::probe;
use super::rows::{Rows, ServerError};
use crate::limits;

/// Whose connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// Every application.
    Applications,
    /// Applications whose open transaction has locks: they would stop the applier later. One that
    /// only reads holds nobody up.
    Transactions,
    /// The replica's applier threads: one with half a transaction waits a minute for the rest.
    Appliers,
}

/// One round of listing and killing.
#[derive(Debug)]
pub(super) struct Evict {
    whom: Whom,
    /// Of tandem itself.
    own_user: String,
    /// Of the peer, which is no application either while it has not yet asked for the binlog.
    replication_user: String,
    stage: Stage,
    /// Connections whose transaction has locks.
    in_transaction: Vec<u64>,
    /// Listed and still to be ended; the last is next.
    victims: Vec<u64>,
    ended: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    ListingTransactions,
    Listing,
    Ending,
}

/// What to do after an answer.
#[derive(Debug)]
pub(super) enum Round {
    Ask(Ask),
    Over { ended: usize },
    Failed(ServerError),
}

impl Evict {
    pub(super) fn start(whom: Whom, own_user: &str, replication_user: &str) -> (Self, Ask) {
        let (stage, sql) = match whom {
            Whom::Applications | Whom::Appliers => (Stage::Listing, PROCESS_LIST),
            Whom::Transactions => (Stage::ListingTransactions, TRANSACTION_LIST),
        };
        let round = Self {
            whom,
            own_user: own_user.to_owned(),
            replication_user: replication_user.to_owned(),
            stage,
            in_transaction: Vec::new(),
            victims: Vec::new(),
            ended: 0,
        };
        (round, ask(sql))
    }

    pub(super) fn answered(&mut self, result: Result<Rows, ServerError>) -> Round {
        match (self.stage, result) {
            (Stage::ListingTransactions, Ok(rows)) => {
                let ids = (0..rows.rows.len()).filter_map(|row| rows.value(row, &["id"]));
                self.in_transaction = ids.filter_map(|id| id.parse().ok()).collect();
                self.stage = Stage::Listing;
                return Round::Ask(ask(PROCESS_LIST));
            }
            (Stage::Listing, Ok(rows)) => {
                self.victims = self.choose(&rows);
                self.stage = Stage::Ending;
            }
            (Stage::Ending, Ok(_)) => self.ended += 1,
            // It went by itself.
            (Stage::Ending, Err(ServerError::Refused { code: NO_SUCH_THREAD, .. })) => {}
            (_, Err(error)) => return Round::Failed(error),
        }
        match self.victims.pop() {
            Some(id) => Round::Ask(ask(&format!("KILL {id}"))),
            None => Round::Over { ended: self.ended },
        }
    }

    fn choose(&self, rows: &Rows) -> Vec<u64> {
        let chosen = (0..rows.rows.len()).filter_map(|row| {
            let text = |name: &str| rows.value(row, &[name]).unwrap_or_default();
            let id = text("Id").parse().ok()?;
            let is_application = !NOT_APPLICATIONS.contains(&text("User"))
                && !text("Command").starts_with("Binlog Dump")
                && text("Command") != "Daemon"
                && text("User") != self.replication_user
                && (text("User") != self.own_user || probe::is_commit(rows, row));
            let is_chosen = match self.whom {
                Whom::Applications => is_application,
                Whom::Transactions => is_application && self.in_transaction.contains(&id),
                Whom::Appliers => {
                    text("User") == "system user"
                        && APPLIER_STATES.iter().any(|state| text("State").contains(state))
                }
            };
            is_chosen.then_some(id)
        });
        chosen.collect()
    }
}

fn ask(sql: &str) -> Ask {
    Ask::new("ending connections", sql, limits::STATEMENT_LIMIT)
}

/// Not information_schema.PROCESSLIST, which needs a temporary table on a disk that may be full.
const PROCESS_LIST: &str = "SHOW PROCESSLIST";
const TRANSACTION_LIST: &str = "SELECT trx_mysql_thread_id AS id \
    FROM information_schema.INNODB_TRX WHERE trx_lock_structs > 0 OR trx_rows_modified > 0";

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
            ("4", "old_rpl", "Binlog Dump GTID", "Source has sent all binlog to replica"),
            ("5", "shop", "Sleep", ""),
            ("6", "tandem", "Sleep", ""),
            ("7", "event_scheduler", "Daemon", "Waiting on empty queue"),
            ("8", "root", "Query", "updating"),
            ("9", "unauthenticated user", "Connect", "login"),
            ("10", "tandem", "Query", "Commit"),
            ("11", "rpl", "Sleep", ""),
        ];
        let info = |state| if state == "Commit" { "REPLACE INTO tandem.commit_probe" } else { "" };
        let rows = Rows {
            columns: ["Id", "User", "Command", "State", "Info"].map(str::to_owned).to_vec(),
            rows: lines
                .iter()
                .map(|&(a, b, c, d)| [a, b, c, d, info(d)].map(|s| Some(s.to_owned())).to_vec())
                .collect(),
        };
        let mut round = Evict::start(whom, "tandem", "rpl").0;
        round.in_transaction = vec![4, 6, 8];
        round.choose(&rows)
    }

    #[test]
    fn only_applications_are_ended() {
        assert_eq!(list(Whom::Applications), [5, 8, 10]);
        assert_eq!(list(Whom::Transactions), [8]);
    }

    #[test]
    fn only_waiting_appliers_are_ended() {
        assert_eq!(list(Whom::Appliers), [2, 3]);
    }
}
