//! What SHOW says at the admin port: sessions, pool, counters, digests, as tables.
//!
//! In: the state of the splitter, counted by the hands. Out: tables, whose columns stay as they
//! are. Must not: show a literal of a statement or a password.
//! Read first: `admin`; README, "The splitter's admin port".

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Instant;
use crate::wire::HostId;

use super::command::code;
use super::digest::{Digests, normalised};
use super::packet::HEADER_BYTES;
use super::session::{Leg, Phase, Session};
use super::status::Status;
use super::table::{Table, Type};

/// A session, for SHOW SESSIONS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub thread: u32,
    pub user: String,
    pub peer: String,
    pub database: String,
    pub state: &'static str,
    pub seconds: u64,
    /// The backends that it has a connection to.
    pub connections: String,
    pub is_in_transaction: bool,
    /// What keeps all its statements on the source.
    pub pinned: String,
    pub statement: String,
}

impl Session {
    /// What is known of it without asking anybody; who and where from is the caller's to say.
    #[must_use]
    pub fn row(&self, now: Instant, thread: u32, user: &str) -> Row {
        let since = match (&self.phase, &self.job) {
            (Phase::Arrived | Phase::Door(_) | Phase::Idle | Phase::Closed, _) | (_, None) => {
                self.idle_since
            }
            (_, Some(job)) => job.since,
        };
        let open = HostId::ALL.into_iter().filter(|&host| self.leg(host).is_some());
        let numbers: Vec<String> = open.map(|host| (host.index() + 1).to_string()).collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Row {
            thread,
            user: user.to_owned(),
            peer: self.peer().to_owned(),
            database: self.database.as_deref().map(text).unwrap_or_default(),
            state: self.state(),
            seconds: now.since(since).as_secs(),
            connections: numbers.join(","),
            is_in_transaction: self.legs.iter().flatten().any(Leg::has_transaction),
            pinned: match &self.pinned_by {
                Some(packet) => self.describe(packet, None),
                None => String::new(),
            },
            statement: match &self.job {
                Some(job) => self.describe(&job.bytes, job.statement),
                None => String::new(),
            },
        }
    }

    /// The statement of a command's packets without its literals, or the command's name.
    #[must_use]
    pub fn describe(&self, packets: &[u8], statement: Option<u32>) -> String {
        match self.text_of(packets, statement) {
            Some(text) => normalised(text),
            None => match packets.get(HEADER_BYTES).copied() {
                Some(code::INIT_DB) => "COM_INIT_DB".to_owned(),
                Some(code::STMT_EXECUTE) => "COM_STMT_EXECUTE".to_owned(),
                Some(code::STMT_FETCH) => "COM_STMT_FETCH".to_owned(),
                Some(code) => format!("command {code:#04x}"),
                None => "a statement longer than is kept".to_owned(),
            },
        }
    }

    /// The text that a command runs, where it is known.
    #[must_use]
    pub fn text_of<'a>(&'a self, packets: &'a [u8], statement: Option<u32>) -> Option<&'a [u8]> {
        match *packets.get(HEADER_BYTES)? {
            code::QUERY | code::STMT_PREPARE => packets.get(HEADER_BYTES + 1..),
            code::STMT_EXECUTE => {
                let known = self.statements.iter().find(|it| Some(it.id) == statement)?;
                known.text.as_ref()?.get(1..)
            }
            _ => None,
        }
    }
}

#[must_use]
pub fn sessions(rows: &[Row]) -> Table {
    let table = Table::new(&[
        ("id", Type::Long),
        ("user", Type::Text),
        ("host", Type::Text),
        ("database", Type::Text),
        ("state", Type::Text),
        ("seconds", Type::Long),
        ("backends", Type::Text),
        ("transaction", Type::Text),
        ("pinned_by", Type::Text),
        ("statement", Type::Text),
    ]);
    rows.iter().cloned().fold(table, |table, row| {
        table.row([
            row.thread.to_string(),
            row.user,
            row.peer,
            row.database,
            row.state.to_owned(),
            row.seconds.to_string(),
            row.connections,
            if row.is_in_transaction { "yes" } else { "no" }.to_owned(),
            row.pinned,
            row.statement,
        ])
    })
}

/// Connections to one backend as one user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    pub idle: u64,
    pub in_use: u64,
    pub opening: u64,
    /// Reset and on the way back to the idle ones.
    pub cleaning: u64,
    /// Since the start: opened with a log-in, and taken from the idle ones.
    pub opened: u64,
    pub reused: u64,
}

#[must_use]
pub fn pool(connections: &BTreeMap<(HostId, String), Connections>) -> Table {
    let table = Table::new(&[
        ("backend_ndx", Type::Long),
        ("user", Type::Text),
        ("idle", Type::Long),
        ("in_use", Type::Long),
        ("opening", Type::Long),
        ("cleaning", Type::Long),
        ("opened", Type::Wide),
        ("reused", Type::Wide),
    ]);
    connections.iter().fold(table, |table, ((host, user), it)| {
        table.row([
            (host.index() + 1).to_string(),
            user.clone(),
            it.idle.to_string(),
            it.in_use.to_string(),
            it.opening.to_string(),
            it.cleaning.to_string(),
            it.opened.to_string(),
            it.reused.to_string(),
        ])
    })
}

#[must_use]
pub fn digests(digests: &Digests) -> Table {
    let table = Table::new(&[
        ("digest", Type::Text),
        ("count", Type::Wide),
        ("errors", Type::Wide),
        ("total_ms", Type::Wide),
        ("average_us", Type::Wide),
        ("max_us", Type::Wide),
        ("count_1", Type::Wide),
        ("count_2", Type::Wide),
        ("statement", Type::Text),
    ]);
    digests.top().into_iter().fold(table, |table, (digest, sum)| {
        let [first, second] = sum.counts;
        let count = first + second;
        let average = sum.total.as_micros() / u128::from(count.max(1));
        table.row([
            format!("{digest:016x}"),
            count.to_string(),
            sum.errors.to_string(),
            sum.total.as_millis().to_string(),
            average.to_string(),
            sum.longest.as_micros().to_string(),
            first.to_string(),
            second.to_string(),
            sum.text.clone(),
        ])
    })
}

/// Every counter with what it counts.
#[must_use]
pub fn stats(status: Status, up: Duration) -> Table {
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let Status {
        sessions,
        held,
        pooled,
        logins,
        reused,
        queries_to_source,
        queries_to_replica,
        held_total,
        retried,
        blocked,
        slow,
        errors,
        refused,
    } = status;
    [
        ("uptime", up.as_secs(), "seconds since the splitter started"),
        ("sessions", wide(sessions), "clients that are connected"),
        ("held", wide(held), "of them those whose statement waits for the source"),
        ("pooled", wide(pooled), "idle connections to the databases"),
        ("logins", logins, "connections to the databases that were opened"),
        ("reused", reused, "sessions that were given an idle connection"),
        ("queries_to_source", queries_to_source, "statements sent to the source"),
        ("queries_to_replica", queries_to_replica, "statements sent to the replica"),
        ("held_total", held_total, "statements that ever waited for the source"),
        ("retried", retried, "reads that the replica did not answer, given to the source"),
        ("blocked", blocked, "statements refused by the blocklist"),
        ("slow", slow, "statements that took slow_limit or longer"),
        ("errors", errors, "statements that ended with an error"),
        ("refused", refused, "clients refused: wrong password, address, too many"),
    ]
    .into_iter()
    .fold(
        Table::new(&[("name", Type::Text), ("value", Type::Text), ("meaning", Type::Text)]),
        |table, (name, value, meaning)| {
            table.row([name.to_owned(), value.to_string(), meaning.to_owned()])
        },
    )
}
