//! The commit probe: whether commits still end. A server whose disk is full answers every question
//! and keeps every write waiting, so looking at it is not enough.
//!
//! In: looks, answers. Out: a tiny commit, then the state of the binlog; a verdict. Must not: give
//! the server a transaction that its replica has not got, or hold up a job.
//! Read first: facts/repl.md 3.1 "Disk full", 2.2 (what takes a lock, and may).
//!
//! The commit is not logged: on a host that is cut off, a logged one would be the errant
//! transaction that keeps it from coming back. What it cannot see, the binlog, is asked for
//! separately: that statement waits behind a binlog that cannot be written.
//!
//! ```text
//!  open source, nothing to do -> commit -> binlog -> pause
//!                                   \ not answered for COMMIT_PATIENCE: whom does it wait for?
//!                                      |-- a lock: somebody's backup, which is not trouble
//!                                      |-- the replica, as all commits do: it is away
//!                                      '-- anything else: commits hang
//! ```

use super::dialect::Dialect;
use super::rows::{Rows, ServerError};
use crate::limits;
use crate::time::Instant;

/// What the probe came to last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Commits {
    /// They end, as far as is known: a closed server is not asked.
    #[default]
    End,
    /// The server refuses a write, and says why.
    Refused(String),
    /// They hang; says where.
    Hang(String),
}

/// The probe of one server. One statement is under way at most.
#[derive(Debug, Default)]
pub(super) struct CommitProbe {
    due_at: Instant,
    underway: Option<Underway>,
    /// One was given up on, and none ended since.
    was_given_up: bool,
}

#[derive(Debug)]
struct Underway {
    id: u64,
    step: Step,
    started_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Committing,
    ReadingLog,
}

impl CommitProbe {
    /// The next statement of a probe, on an open source; `id` is its number.
    pub(super) fn begin(&mut self, now: Instant, id: u64) -> Option<&'static str> {
        if self.underway.is_some() || now < self.due_at {
            return None;
        }
        self.underway = Some(Underway { id, step: Step::Committing, started_at: now });
        Some(COMMIT)
    }

    pub(super) fn is_asked(&self, id: u64) -> bool {
        self.underway.as_ref().is_some_and(|underway| underway.id == id)
    }

    /// Takes an answer; yields the verdict, if it is one, or the next statement.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        dialect: Dialect,
        next_id: u64,
        result: Result<Rows, ServerError>,
    ) -> Answered {
        let Some(underway) = self.underway.take() else { return Answered::Nothing };
        self.due_at = now + limits::COMMIT_PROBE_INTERVAL;
        match (underway.step, result) {
            // The table is made when a server is opened; without it the binlog alone is asked for.
            (
                Step::Committing,
                Ok(_) | Err(ServerError::Refused { code: NO_SUCH_TABLE | NO_SUCH_DATABASE, .. }),
            ) => {
                let (step, started_at) = (Step::ReadingLog, underway.started_at);
                self.underway = Some(Underway { id: next_id, step, started_at });
                Answered::Ask(dialect.statements().log_position)
            }
            (Step::ReadingLog, Ok(_)) => self.ended(Commits::End),
            // It was closed meanwhile, or ended by whoever closes it.
            (_, Err(ServerError::Refused { code: READ_ONLY | INTERRUPTED, .. })) => {
                self.ended(Commits::End)
            }
            (_, Err(ServerError::Refused { code, message })) => {
                self.ended(Commits::Refused(format!("error {code}: {message}")))
            }
            // A look says more about that.
            (_, Err(ServerError::Unreachable(_))) => {
                self.was_given_up = false;
                Answered::Nothing
            }
            (_, Err(ServerError::TimedOut)) => {
                self.was_given_up = true;
                Answered::Nothing
            }
        }
    }

    fn ended(&mut self, commits: Commits) -> Answered {
        self.was_given_up = false;
        Answered::Verdict(commits)
    }

    /// The server is gone, and whatever it was asked with it.
    pub(super) fn forget(&mut self) {
        self.underway = None;
        self.was_given_up = false;
    }

    /// Whether it has not been answered for so long that it must be asked what it waits for.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.was_given_up
            || self
                .underway
                .as_ref()
                .is_some_and(|underway| now.since(underway.started_at) >= limits::COMMIT_PATIENCE)
    }

    /// The verdict on an overdue probe by the process list.
    pub(super) fn judge(&self, process_list: &Rows, log_position: &str) -> Commits {
        let text = |row: usize, name: &str| process_list.value(row, &[name]).unwrap_or_default();
        // Commits that wait for the replica hold the binlog, and whoever asks where it ends.
        if (0..process_list.rows.len()).any(|row| text(row, "State").contains(REPLICA_WAIT)) {
            return Commits::End;
        }
        let own = (0..process_list.rows.len()).find(|&row| {
            is_commit(process_list, row) || text(row, "Info").eq_ignore_ascii_case(log_position)
        });
        match own.map(|row| text(row, "State")) {
            // It was answered meanwhile.
            None => Commits::End,
            Some(state) if state.to_ascii_lowercase().contains("lock") => Commits::End,
            Some(state) => Commits::Hang(format!(
                "a commit has not ended for {} s ({state}): is its disk full?",
                limits::COMMIT_PATIENCE.as_secs()
            )),
        }
    }
}

/// What to do after an answer.
#[derive(Debug)]
pub(super) enum Answered {
    Ask(&'static str),
    Verdict(Commits),
    Nothing,
}

/// Whether this line of a process list is a commit of the probe: it hangs like everybody's, and
/// must go like everybody's before the server can be closed.
pub(super) fn is_commit(process_list: &Rows, row: usize) -> bool {
    process_list.value(row, &["Info"]).is_some_and(|info| info.starts_with(COMMIT_VERB))
}

const COMMIT: &str = "REPLACE INTO tandem.commit_probe VALUES (1, UNIX_TIMESTAMP())";
/// Part of the state of a commit that waits for the replica; "from slave" or "replica" follows.
const REPLICA_WAIT: &str = "semi-sync ACK";
const COMMIT_VERB: &str = "REPLACE INTO tandem.commit_probe";

/// Whether the table of the probe is there: one row, a count.
pub(super) const COUNT_TABLES: &str = "SELECT COUNT(*) AS count FROM information_schema.TABLES \
    WHERE TABLE_SCHEMA='tandem' AND TABLE_NAME='commit_probe'";

/// Makes it, logged, so that both hosts have it; last statement first.
pub(super) const MAKE_TABLE: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS tandem.commit_probe \
     (id TINYINT NOT NULL PRIMARY KEY, at BIGINT NOT NULL) ENGINE=InnoDB",
    "CREATE DATABASE IF NOT EXISTS tandem",
];

/// ER_BAD_DB_ERROR, ER_NO_SUCH_TABLE, ER_OPTION_PREVENTS_STATEMENT, ER_QUERY_INTERRUPTED.
const NO_SUCH_DATABASE: u16 = 1049;
const NO_SUCH_TABLE: u16 = 1146;
const READ_ONLY: u16 = 1290;
const INTERRUPTED: u16 = 1317;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LOG: &str = "SHOW MASTER STATUS";

    fn list(lines: &[(&str, &str)]) -> Rows {
        let row = |cells: &(&str, &str)| vec![Some(cells.0.to_owned()), Some(cells.1.to_owned())];
        Rows {
            columns: vec!["State".to_owned(), "Info".to_owned()],
            rows: lines.iter().map(row).collect(),
        }
    }

    #[test]
    fn a_probe_is_a_commit_and_a_look_at_the_binlog() {
        let (mut probe, mut now) = (CommitProbe::default(), Instant::from_nanos(1));
        assert_eq!(probe.begin(now, 7), Some(COMMIT));
        assert_eq!(probe.begin(now, 8), None, "one at a time");
        assert!(probe.is_asked(7) && !probe.is_asked(8));
        let step = probe.answered(now, Dialect::Mariadb, 8, Ok(Rows::default()));
        assert!(matches!(step, Answered::Ask(LOG)) && probe.is_asked(8));
        let over = probe.answered(now, Dialect::Mariadb, 9, Ok(Rows::default()));
        assert!(matches!(over, Answered::Verdict(Commits::End)));
        assert_eq!(probe.begin(now, 9), None, "there is a pause");
        now = now + limits::COMMIT_PROBE_INTERVAL;
        assert_eq!(probe.begin(now, 9), Some(COMMIT));
    }

    #[test]
    fn what_hangs_is_told_from_what_waits_for_a_lock() {
        let (mut probe, now) = (CommitProbe::default(), Instant::from_nanos(1));
        probe.begin(now, 1);
        assert!(!probe.is_overdue(now + limits::COMMIT_PATIENCE - Duration::from_nanos(1)));
        assert!(probe.is_overdue(now + limits::COMMIT_PATIENCE));
        let judge = |state| probe.judge(&list(&[("", "SELECT 1"), (state, COMMIT)]), LOG);
        for state in ["Commit", "query end", "waiting for handler commit", ""] {
            assert!(matches!(judge(state), Commits::Hang(_)), "{state}");
        }
        for state in ["Waiting for global read lock", "Waiting for backup lock"] {
            assert_eq!(judge(state), Commits::End);
        }
        assert_eq!(probe.judge(&list(&[("updating", "UPDATE t SET a=1")]), LOG), Commits::End);
        assert!(matches!(probe.judge(&list(&[("init", LOG)]), LOG), Commits::Hang(_)));
        let waits = ("Waiting for semi-sync ACK from slave", "INSERT INTO t VALUES (1)");
        assert_eq!(probe.judge(&list(&[waits, ("starting", LOG)]), LOG), Commits::End);
    }

    #[test]
    fn a_probe_given_up_on_is_overdue_until_one_ends() {
        let (mut probe, now) = (CommitProbe::default(), Instant::from_nanos(1));
        probe.begin(now, 1);
        probe.answered(now, Dialect::Mysql56, 2, Err(ServerError::TimedOut));
        assert!(probe.is_overdue(now));
        let later = now + limits::COMMIT_PROBE_INTERVAL;
        probe.begin(later, 2);
        assert!(probe.is_overdue(later));
        probe.answered(later, Dialect::Mysql56, 3, Ok(Rows::default()));
        probe.answered(later, Dialect::Mysql56, 4, Ok(Rows::default()));
        assert!(!probe.is_overdue(later));
    }

    #[test]
    fn a_refused_commit_is_told_and_a_missing_table_is_not() {
        let ask = |code| {
            let (mut probe, now) = (CommitProbe::default(), Instant::from_nanos(1));
            probe.begin(now, 1);
            let message = "why".to_owned();
            probe.answered(now, Dialect::Mysql84, 2, Err(ServerError::Refused { code, message }))
        };
        assert!(
            matches!(ask(1114), Answered::Verdict(Commits::Refused(why)) if why.contains("why"))
        );
        assert!(matches!(ask(1146), Answered::Ask("SHOW BINARY LOG STATUS")));
        assert!(matches!(ask(1290), Answered::Verdict(Commits::End)));
    }
}
