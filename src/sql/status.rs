//! What the splitter counts, for `tandem status`.
//!
//! In: tallies of the sessions. Out: `Status`. Must not: hold names, addresses or texts.

use serde::{Deserialize, Serialize};

/// The splitter at one moment, and its counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Clients connected, and of them those whose statement waits.
    pub sessions: usize,
    pub held: usize,
    /// Idle connections to servers, ready for the next session.
    pub pooled: usize,
    /// Connections to servers that were opened with a log-in.
    pub logins: u64,
    /// Sessions that were given an idle connection.
    pub reused: u64,
    pub queries_to_source: u64,
    pub queries_to_replica: u64,
    /// Statements that ever waited.
    pub held_total: u64,
    /// Reads that a replica did not answer and the source did.
    pub retried: u64,
    /// Statements that the blocklist refused.
    pub blocked: u64,
    /// Statements that took `slow_limit` or longer.
    pub slow: u64,
    pub errors: u64,
    /// Clients that were refused: wrong password, too many.
    pub refused: u64,
}

/// What one verb of a session added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub to_source: u32,
    pub to_replica: u32,
    pub held: u32,
    pub retried: u32,
    pub blocked: u32,
    pub errors: u32,
    pub refused: u32,
}

impl Status {
    pub fn add(&mut self, tally: Tally) {
        self.queries_to_source += u64::from(tally.to_source);
        self.queries_to_replica += u64::from(tally.to_replica);
        self.held_total += u64::from(tally.held);
        self.retried += u64::from(tally.retried);
        self.blocked += u64::from(tally.blocked);
        self.errors += u64::from(tally.errors);
        self.refused += u64::from(tally.refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let mut status = Status::default();
        status.add(Tally { to_source: 1, errors: 2, ..Tally::default() });
        status.add(Tally { to_source: 1, to_replica: 3, ..Tally::default() });
        assert_eq!((status.queries_to_source, status.queries_to_replica, status.errors), (2, 3, 2));
    }
}
