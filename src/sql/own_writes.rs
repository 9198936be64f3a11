//! Read-your-writes: until when the reads of a session that wrote stay on the source.
//!
//! In: that sessions wrote, who is source and who replica, what the two servers answered.
//! Out: what to ask them; the moment before which whatever was acknowledged is on the replica.
//! Must not: take a write for arrived on the strength of a clock or of a lag.
//! Read first: facts/sql.md 5.6 and trap 59.
//!
//! It is not each session's transactions that are followed but the source's position, for all of
//! them at once: it is asked for at some moment, the replica is told to wait until it has it, and
//! then every write that was acknowledged before that moment is there, whoever wrote it. So
//! nothing has to be read from the clients' replies, and servers that report no GTIDs to clients
//! (MySQL 5.6) are served alike. A server without GTIDs answers nothing, and the reads of sessions
//! that wrote stay on the source.
//!
//! ```text
//! Resting --somebody wrote--> Locating --position--> Located --asked--> Arriving --there--+
//!    ^                            ^ `--------failed: rest--------+         | not yet      |
//!    `----------------------------+------------------------------+<--------+--------------+
//! ```

use crate::limits;
use crate::time::Instant;
use crate::wire::HostId;

/// Follows the source's position to the replica, one round at a time.
#[derive(Debug, Default)]
pub struct OwnWrites {
    /// Source and replica; none while reads go to the source anyway.
    roles: Option<(HostId, HostId)>,
    /// The last write of any session.
    written_at: Option<Instant>,
    reached: Instant,
    step: Step,
    rest_until: Instant,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Resting,
    /// The source was asked, at this moment, how far it is.
    Locating(Instant),
    /// The replica is to be asked for what the source had then.
    Located(Instant, String),
    /// The replica was asked.
    Arriving(Instant, String),
}

/// How a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    MariaDb,
    /// Before WAIT_FOR_EXECUTED_GTID_SET.
    Mysql56,
    Mysql,
}

impl Dialect {
    fn of(version: &str) -> Self {
        if version.contains("MariaDB") {
            Self::MariaDb
        } else if version.starts_with("5.6.") {
            Self::Mysql56
        } else {
            Self::Mysql
        }
    }
}

impl OwnWrites {
    /// Every write that was acknowledged before this moment is on the replica.
    #[must_use]
    pub const fn reached(&self) -> Instant {
        self.reached
    }

    /// A session's write was answered.
    pub const fn wrote(&mut self, now: Instant) {
        self.written_at = Some(now);
    }

    /// Who has which role. Returns whether that is news: what was asked before is void then.
    pub fn set_roles(&mut self, source: Option<HostId>, replica: Option<HostId>) -> bool {
        let roles = source.zip(replica).filter(|(source, replica)| source != replica);
        let is_news = self.roles != roles;
        if is_news {
            let written_at = self.written_at;
            *self = Self { roles, written_at, ..Self::default() };
        }
        is_news
    }

    /// The server that has to be asked something by now.
    #[must_use]
    pub fn host(&self, now: Instant) -> Option<HostId> {
        let (source, replica) = self.roles?;
        match &self.step {
            Step::Resting => (self.is_behind() && now >= self.rest_until).then_some(source),
            Step::Located(..) => Some(replica),
            Step::Locating(_) | Step::Arriving(..) => None,
        }
    }

    /// When `host` names one, if it does not yet.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.step {
            Step::Resting => (self.roles.is_some() && self.is_behind()).then_some(self.rest_until),
            Step::Locating(_) | Step::Located(..) | Step::Arriving(..) => None,
        }
    }

    fn is_behind(&self) -> bool {
        self.written_at.is_some_and(|at| at >= self.reached)
    }

    /// The question for the host that `host` named, which is of this version. It counts as asked.
    pub fn ask(&mut self, now: Instant, version: &str) -> String {
        let dialect = Dialect::of(version);
        if let Step::Located(since, position) = std::mem::take(&mut self.step) {
            let question = dialect.wait_for(&position);
            self.step = Step::Arriving(since, position);
            question
        } else {
            self.step = Step::Locating(now);
            self.rest_until = now + limits::SQL_OWN_WRITES_ROUND;
            dialect.position().to_owned()
        }
    }

    /// What the server that was asked said: the value, or none for NULL or an error.
    pub fn answered(&mut self, now: Instant, value: Option<&str>) {
        self.step = match (std::mem::take(&mut self.step), value) {
            (Step::Locating(since), Some(position)) if is_position(position) => {
                Step::Located(since, position.to_owned())
            }
            (Step::Arriving(since, position), Some(value)) => match value.parse::<i64>() {
                // MariaDB and MySQL 5.6 say -1 for "not in this time", later ones 1; 5.6 says how
                // many transactions it had to wait for, 0 in the others means all are there.
                Ok(0) => {
                    self.reached = since;
                    Step::Resting
                }
                Ok(_) => Step::Located(since, position),
                Err(_) => return self.failed(now),
            },
            (Step::Resting | Step::Located(..) | Step::Locating(_) | Step::Arriving(..), _) => {
                return self.failed(now);
            }
        };
    }

    /// The server that was to be asked cannot be.
    pub fn failed(&mut self, now: Instant) {
        self.step = Step::Resting;
        self.rest_until = now + limits::SQL_AVOID;
    }
}

impl Dialect {
    const fn position(self) -> &'static str {
        match self {
            Self::MariaDb => "SELECT @@GLOBAL.gtid_binlog_pos",
            Self::Mysql56 | Self::Mysql => "SELECT @@GLOBAL.gtid_executed",
        }
    }

    fn wait_for(self, position: &str) -> String {
        match self {
            Self::MariaDb => format!("SELECT MASTER_GTID_WAIT('{position}', {WAIT})"),
            Self::Mysql => format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', {WAIT})"),
            // It answers how many transactions it waited for, NULL when the applier stands.
            Self::Mysql56 => {
                format!("SELECT LEAST(0, WAIT_UNTIL_SQL_THREAD_AFTER_GTIDS('{position}', {WAIT}))")
            }
        }
    }
}

/// Seconds that the replica waits before it says that it has not got there.
const WAIT: u32 = 1;

/// GTIDs of either kind, and nothing that could end a quoted text.
fn is_position(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b":-,_\n ".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SOURCE: HostId = HostId::First;
    const REPLICA: HostId = HostId::Second;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(100) + Duration::from_millis(millis)
    }

    fn started() -> OwnWrites {
        let mut it = OwnWrites::default();
        assert!(it.set_roles(Some(SOURCE), Some(REPLICA)));
        it
    }

    /// A round that begins at `now` and finds everything there.
    fn round(it: &mut OwnWrites, now: Instant) {
        assert_eq!(it.host(now), Some(SOURCE));
        assert_eq!(it.ask(now, "5.5.5-10.11.14-MariaDB"), "SELECT @@GLOBAL.gtid_binlog_pos");
        assert_eq!(it.host(now), None, "one question at a time");
        it.answered(now, Some("0-1-7"));
        assert_eq!(it.host(now), Some(REPLICA));
        let question = it.ask(now, "5.5.5-10.11.14-MariaDB");
        assert_eq!(question, "SELECT MASTER_GTID_WAIT('0-1-7', 1)");
        it.answered(now, Some("0"));
    }

    #[test]
    fn nobody_is_asked_while_nobody_writes() {
        let mut it = started();
        assert_eq!((it.host(at(0)), it.deadline()), (None, None));
        it.wrote(at(0));
        round(&mut it, at(1));
        assert_eq!(it.reached(), at(1));
        assert_eq!((it.host(at(900)), it.deadline()), (None, None));
    }

    #[test]
    fn a_write_of_the_same_moment_counts_as_later() {
        let mut it = started();
        it.wrote(at(1));
        round(&mut it, at(1));
        assert!(it.deadline().is_some_and(|next| next > at(1)), "another round, not at once");
    }

    #[test]
    fn what_has_not_arrived_is_waited_for_and_what_cannot_is_left() {
        let mut it = started();
        it.wrote(at(0));
        it.ask(at(0), "9.7.4");
        it.answered(at(1), Some("8a94f357-aab4-11df-86ab-c80aa9429562:1-5,\n9b:tag:1"));
        let question = it.ask(at(1), "9.7.4");
        assert!(question.starts_with("SELECT WAIT_FOR_EXECUTED_GTID_SET('8a94"), "{question}");
        it.answered(at(1001), Some("1"));
        assert_eq!(it.host(at(1001)), Some(REPLICA), "once more");
        assert!(it.ask(at(1001), "5.6.24").contains("LEAST(0, WAIT_UNTIL_SQL"));
        it.answered(at(1002), None);
        assert_eq!((it.host(at(1003)), it.reached()), (None, Instant::ZERO));
        assert!(it.deadline().is_some_and(|next| next >= at(2002)));
        for wrong in ["", "x'); DROP TABLE t; --"] {
            it.ask(at(5000), "9.7.4");
            it.answered(at(5000), Some(wrong));
            assert_eq!(it.host(at(5001)), None, "{wrong:?}");
        }
    }

    #[test]
    fn other_roles_void_what_was_known() {
        let mut it = started();
        it.wrote(at(0));
        round(&mut it, at(1));
        assert!(!it.set_roles(Some(SOURCE), Some(REPLICA)));
        assert!(it.set_roles(Some(REPLICA), Some(REPLICA)), "the source alone");
        assert_eq!((it.host(at(2)), it.deadline()), (None, None));
        assert!(it.set_roles(Some(REPLICA), Some(SOURCE)));
        assert_eq!(it.reached(), Instant::ZERO);
        assert_eq!(it.host(at(3)), Some(REPLICA), "the old write is to be found again");
    }
}
