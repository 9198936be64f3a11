//! Notes: everything that the daemon says above debug, one variant each.
//!
//! In: facts of node and hands. Out: one clause a person reads, and its level.
//! Must not: carry passwords, query text or user data.
//! `error`: an operator must act; `warn`: degraded; `info`: a role, address or child changed.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::message::Level;
use crate::limits;
use crate::time::Civil;
use crate::wire::{LinkId, Role};

/// `name` is the stable id; the place in the list is nothing's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    Started {
        host: String,
        epoch: u64,
    },
    RoleChanged {
        from: Role,
        to: Role,
        why: String,
    },
    VipsTaken,
    VipsDropped,
    CarrierLost {
        link: LinkId,
    },
    CarrierFound {
        link: LinkId,
    },
    PeerHeard {
        link: LinkId,
    },
    PeerLost {
        link: LinkId,
    },
    TakeoverHeld {
        why: String,
    },
    Stalled {
        milliseconds: u64,
    },
    Database {
        what: String,
    },
    DatabaseTrouble {
        what: String,
    },
    ReplicationSteps {
        what: String,
    },
    Diverged {
        extra: String,
    },
    Waiting {
        why: String,
    },
    /// The other host's operator asked for it, and this host does not begin.
    HandoverFailed {
        why: String,
    },
    NodeDied {
        status: String,
    },
    Leaving,
    SocketTrouble {
        what: String,
    },
    Network {
        what: String,
    },
    /// An acknowledged write is on one host alone, or writes wait.
    Durability {
        what: String,
    },
    /// It could not be closed, and must not write.
    DatabaseEnded,
    DatabaseProcessEnded {
        what: String,
    },
    /// What the node gave up of root.
    Confined {
        what: String,
    },
    Reloaded {
        what: String,
    },
    ReloadRefused {
        why: String,
    },
    StateUnwritable {
        why: String,
    },
    PhpOut {
        host: String,
    },
    Front {
        what: String,
    },
    Certificate {
        what: String,
    },
    CertificateTrouble {
        what: String,
    },
    SplitterOrder {
        what: String,
    },
    SplitterTrouble {
        what: String,
    },
    /// Not kept: a hundred of them would push out what happened.
    SlowStatement {
        what: String,
    },
    Guard {
        what: String,
    },
    /// It ends by its own decision: it cannot serve like this.
    Failed {
        why: String,
    },
    ConsoleLogin {
        what: String,
    },
    ConsoleRefused {
        what: String,
    },
    /// A service of the appliance: what it prints.
    ServiceSays {
        name: String,
        text: String,
    },
    ServiceEnded {
        name: String,
        status: String,
    },
    /// The appliance: steps of its boot and of its end.
    Boot {
        what: String,
    },
    BootTrouble {
        what: String,
    },
    /// Of both hosts, at the word of one.
    Update {
        what: String,
    },
    UpdateTrouble {
        what: String,
    },
    /// Of the appliance's data partition.
    StorageScarce {
        what: String,
    },
}

/// The name of what services print.
pub const SERVICE_SAYS: &str = "service-says";

impl Note {
    #[must_use]
    pub const fn level(&self) -> Level {
        match self {
            Self::Started { .. }
            | Self::RoleChanged { .. }
            | Self::VipsTaken
            | Self::VipsDropped
            | Self::CarrierFound { .. }
            | Self::PeerHeard { .. }
            | Self::Database { .. }
            | Self::ReplicationSteps { .. }
            | Self::Reloaded { .. }
            | Self::Confined { .. }
            | Self::PhpOut { .. }
            | Self::Certificate { .. }
            | Self::SplitterOrder { .. }
            | Self::ConsoleLogin { .. }
            | Self::ServiceSays { .. }
            | Self::Update { .. }
            | Self::Boot { .. }
            | Self::Leaving => Level::Info,
            Self::CarrierLost { .. }
            | Self::PeerLost { .. }
            | Self::TakeoverHeld { .. }
            | Self::Stalled { .. }
            | Self::Waiting { .. }
            | Self::HandoverFailed { .. }
            | Self::SocketTrouble { .. }
            | Self::Network { .. }
            | Self::DatabaseProcessEnded { .. }
            | Self::Front { .. }
            | Self::CertificateTrouble { .. }
            | Self::SplitterTrouble { .. }
            | Self::SlowStatement { .. }
            | Self::ConsoleRefused { .. }
            | Self::ServiceEnded { .. }
            | Self::StorageScarce { .. }
            | Self::UpdateTrouble { .. }
            | Self::Durability { .. } => Level::Warn,
            Self::DatabaseTrouble { .. }
            | Self::Diverged { .. }
            | Self::NodeDied { .. }
            | Self::ReloadRefused { .. }
            | Self::StateUnwritable { .. }
            | Self::Guard { .. }
            | Self::BootTrouble { .. }
            | Self::Failed { .. }
            | Self::DatabaseEnded => Level::Error,
        }
    }

    /// For programs and for people who search: it stays when the sentence changes.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::RoleChanged { .. } => "role-changed",
            Self::VipsTaken => "vips-taken",
            Self::VipsDropped => "vips-dropped",
            Self::CarrierLost { .. } => "carrier-lost",
            Self::CarrierFound { .. } => "carrier-found",
            Self::PeerHeard { .. } => "peer-heard",
            Self::PeerLost { .. } => "peer-lost",
            Self::TakeoverHeld { .. } => "takeover-held",
            Self::Stalled { .. } => "stalled",
            Self::Database { .. } => "database",
            Self::DatabaseTrouble { .. } => "database-trouble",
            Self::ReplicationSteps { .. } => "replication",
            Self::Diverged { .. } => "diverged",
            Self::Waiting { .. } => "waiting",
            Self::HandoverFailed { .. } => "handover-failed",
            Self::NodeDied { .. } => "node-died",
            Self::Leaving => "leaving",
            Self::SocketTrouble { .. } => "socket-trouble",
            Self::Network { .. } => "network",
            Self::Durability { .. } => "durability",
            Self::DatabaseEnded => "database-ended",
            Self::DatabaseProcessEnded { .. } => "database-process-ended",
            Self::Reloaded { .. } => "reloaded",
            Self::Confined { .. } => "confined",
            Self::ReloadRefused { .. } => "reload-refused",
            Self::StateUnwritable { .. } => "state-unwritable",
            Self::PhpOut { .. } => "php-out",
            Self::Front { .. } => "front-trouble",
            Self::Certificate { .. } => "certificate",
            Self::CertificateTrouble { .. } => "certificate-trouble",
            Self::SplitterOrder { .. } => "splitter-order",
            Self::SplitterTrouble { .. } => "splitter-trouble",
            Self::SlowStatement { .. } => "slow-statement",
            Self::Guard { .. } => "guard-trouble",
            Self::Failed { .. } => "failed",
            Self::ConsoleLogin { .. } => "console-login",
            Self::ConsoleRefused { .. } => "console-refused",
            Self::ServiceSays { .. } => SERVICE_SAYS,
            Self::ServiceEnded { .. } => "service-ended",
            Self::Boot { .. } => "boot",
            Self::BootTrouble { .. } => "boot-trouble",
            Self::StorageScarce { .. } => "storage-scarce",
            Self::Update { .. } => "update",
            Self::UpdateTrouble { .. } => "update-trouble",
        }
    }

    /// Whether the ring has it. A statement is told to the log alone: whoever may look at a status
    /// need not be one who may read statements.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        !matches!(self, Self::SlowStatement { .. })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { host, epoch } => write!(f, "started as {host}, epoch {epoch}"),
            Self::RoleChanged { from, to, why } => write!(f, "{from} -> {to}: {why}"),
            Self::VipsTaken => f.write_str("virtual addresses bound and announced"),
            Self::VipsDropped => f.write_str("virtual addresses removed"),
            Self::CarrierLost { link } => write!(f, "{link}: no carrier"),
            Self::CarrierFound { link } => write!(f, "{link}: carrier"),
            Self::PeerHeard { link } => write!(f, "{link}: the peer is heard"),
            Self::PeerLost { link } => write!(f, "{link}: the peer is silent"),
            Self::TakeoverHeld { why } => write!(f, "takeover held: {why}"),
            Self::Stalled { milliseconds } => {
                write!(f, "this daemon did not run for {milliseconds} ms")
            }
            Self::Database { what } => write!(f, "database: {what}"),
            Self::DatabaseTrouble { what } => write!(f, "database: {what}"),
            Self::ReplicationSteps { what } => write!(f, "replication: {what}"),
            Self::Diverged { extra } => write!(
                f,
                "this database has transactions that the peer's lacks ({extra}): it stays fenced"
            ),
            Self::Waiting { why } => write!(f, "waiting: {why}"),
            Self::HandoverFailed { why } => write!(f, "handover declined: {why}"),
            Self::NodeDied { status } => {
                write!(f, "the node daemon died ({status}); its addresses were taken off")
            }
            Self::Leaving => f.write_str("leaving"),
            Self::SocketTrouble { what } => write!(f, "socket: {what}"),
            Self::Network { what } => f.write_str(what),
            Self::Durability { what } => write!(f, "database: {what}"),
            Self::DatabaseEnded => f.write_str(
                "database: it cannot be closed, and the peer may serve: ending what is left of it",
            ),
            Self::DatabaseProcessEnded { what } => f.write_str(what),
            Self::Reloaded { what } => write!(f, "reload: {what}"),
            Self::Confined { what } => write!(f, "confined: {what}"),
            Self::ReloadRefused { why } => write!(f, "reload: {why}"),
            Self::StateUnwritable { why } => write!(f, "cannot write the state: {why}"),
            Self::PhpOut { host } => write!(f, "php-fpm of {host} is out"),
            Self::Front { what } => f.write_str(what),
            Self::Certificate { what } | Self::CertificateTrouble { what } => f.write_str(what),
            Self::SplitterOrder { what }
            | Self::SplitterTrouble { what }
            | Self::SlowStatement { what } => write!(f, "sql: {what}"),
            Self::Guard { what } => write!(f, "guard: {what}"),
            Self::Failed { why } => f.write_str(why),
            Self::ConsoleLogin { what } | Self::ConsoleRefused { what } => {
                write!(f, "console: {what}")
            }
            Self::ServiceSays { name, text } => write!(f, "{name} says: {text}"),
            Self::ServiceEnded { name, status } => write!(f, "{name} ended: {status}"),
            Self::Boot { what } | Self::BootTrouble { what } => write!(f, "boot: {what}"),
            Self::StorageScarce { what } => f.write_str(what),
            Self::Update { what } | Self::UpdateTrouble { what } => write!(f, "update: {what}"),
        }
    }
}

/// A note as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Rises by one with every note; goes on over a crash of the daemon.
    pub number: u64,
    /// Milliseconds since 1970, by the wall clock.
    pub at_ms: u64,
    pub level: Level,
    pub name: String,
    pub text: String,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_ms, level, name, text, .. } = self;
        write!(f, "{} {:<5} {text} [{name}]", timestamp(*at_ms), level.word())
    }
}

/// The last notes, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    records: VecDeque<Record>,
    last: u64,
}

impl Ring {
    /// What an earlier run left; of too many the last ones.
    #[must_use]
    pub fn of(records: Vec<Record>) -> Self {
        let mut ring = Self::default();
        records.into_iter().for_each(|record| ring.keep(record));
        ring
    }

    /// Numbers a note and keeps it.
    pub fn push(&mut self, at_ms: u64, note: &Note) -> Record {
        let text = one_line(&note.to_string());
        let name = note.name().to_owned();
        let record = Record { number: self.last + 1, at_ms, level: note.level(), name, text };
        if note.is_kept() {
            self.keep(record.clone());
        }
        record
    }

    /// Keeps one of another ring under a number of this one.
    pub fn adopt(&mut self, mut record: Record) -> Record {
        record.number = self.last + 1;
        self.keep(record.clone());
        record
    }

    /// Keeps one that was numbered elsewhere.
    pub fn keep(&mut self, record: Record) {
        if self.records.len() == limits::NOTES_KEPT {
            self.records.pop_front();
        }
        self.last = self.last.max(record.number);
        self.records.push_back(record);
    }

    /// Of the last note.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.last
    }

    /// The last `count` that are at least so bad, oldest first.
    #[must_use]
    pub fn last(&self, count: usize, level: Level) -> Vec<Record> {
        let bad = self.records.iter().filter(|record| record.level <= level);
        let skipped = bad.clone().count().saturating_sub(count);
        bad.skip(skipped).cloned().collect()
    }
}

/// On one line and bounded, whatever a server or a file name had in it.
fn one_line(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(limits::NOTE_CHARS_MAX).collect()
}

/// RFC 3339 in UTC, to the millisecond: "2026-11-27T20:43:35.120Z".
#[must_use]
pub fn timestamp(at_ms: u64) -> String {
    let (seconds, ms) = (at_ms / 1000, at_ms % 1000);
    let Civil { year, month, day, hour, minute, second } = Civil::of(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_those_of_date() {
        // date -u -d @N +%FT%TZ
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_764_275_015, "2025-11-27T20:23:35.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(seconds * 1000), text);
        }
    }

    #[test]
    fn a_record_ends_with_the_name_that_can_be_explained() {
        let record = Ring::default().push(0, &Note::PeerLost { link: LinkId::Inside });
        let line = "1970-01-01T00:00:00.000Z warn  inside: the peer is silent [peer-lost]";
        assert_eq!(record.to_string(), line);
    }

    #[test]
    fn the_ring_keeps_the_last_ones_and_numbers_go_on() {
        let mut ring = Ring::default();
        for count in 0..limits::NOTES_KEPT + 7 {
            ring.push(0, &Note::Network { what: format!("{count}\n\x1b[2J") });
        }
        let kept = ring.last(usize::MAX, Level::Info);
        assert_eq!(kept.len(), limits::NOTES_KEPT);
        assert_eq!((kept[0].number, kept[0].text.as_str()), (8, "7  [2J"));
        let mut next = Ring::of(kept);
        assert_eq!(next.push(0, &Note::Leaving).number, limits::NOTES_KEPT as u64 + 8);
        assert_eq!(next.last(1, Level::Info)[0].name, "leaving");
        assert_eq!(next.last(1, Level::Warn)[0].name, "network");
        let slow = Note::SlowStatement { what: "SELECT 1".into() };
        next.push(0, &slow);
        assert_eq!(next.last(1, Level::Info)[0].name, "leaving");
        let foreign = Ring::default().push(0, &Note::VipsTaken);
        assert_eq!(next.adopt(foreign).number, limits::NOTES_KEPT as u64 + 9);
    }
}
