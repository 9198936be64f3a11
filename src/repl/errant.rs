//! Errant transactions: which events of a binlog are theirs, what they did in words, and whether it
//! can be undone.
//!
//! In: the events of a server's binlogs, in order, and what its peer has. Out: text, verdicts.
//! Must not: read or write anything (`os::errant` does).
//! Read first: facts/repl.md 3.4; the MySQL source code documentation, "Binlog events".
//!
//! ```text
//!  event -> [of a transaction that the peer has not?] -> text (`errant::text`)
//!                                    \-> obstacle: what keeps it from being undone
//!  later, last event first -> `errant::undo` -> the event that takes it back
//! ```

mod text;
mod undo;

use std::collections::BTreeMap;

use mysql_common::binlog::consts::{BinlogVersion, EventType};
use mysql_common::binlog::events::{Event, EventData, RowsEventData, TableMapEvent};
use serde::{Deserialize, Serialize};

pub use text::{Column, Columns};
pub use undo::{Reversal, reversals};

use super::gtid::{Flavour, Malformed, Position};

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    pub directory: String,
    /// The transactions, as the server names them.
    pub extra: String,
    pub transactions: u64,
    pub rows: u64,
    /// Why they cannot be taken back.
    pub obstacle: Option<String>,
    /// What the peer had then.
    pub known: String,
}

/// A walk along the binlogs of one server.
#[derive(Debug)]
pub struct Walk {
    flavour: Flavour,
    /// What the peer has.
    known: Position,
    /// The errant transaction that the events belong to.
    inside: Option<String>,
    tables: BTreeMap<u64, TableMapEvent<'static>>,
    found: Found,
}

/// What the walk came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub transactions: u64,
    pub rows: u64,
    /// Why they cannot be undone: the first reason.
    pub obstacle: Option<String>,
    /// Tables whose rows they changed or removed, as (schema, name).
    pub tables: Vec<(String, String)>,
}

impl Walk {
    #[must_use]
    pub fn new(flavour: Flavour, known: Position) -> Self {
        Self { flavour, known, inside: None, tables: BTreeMap::new(), found: Found::default() }
    }

    /// Whether nothing before this binlog is errant, by the text that SHOW BINLOG EVENTS has for
    /// the set that stands at its beginning. The walk starts at the newest one of these.
    pub fn begins_clean(&self, beginning: &str) -> Result<bool, Malformed> {
        let before = Position::parse(self.flavour, beginning.trim_matches(['[', ']']))?;
        Ok(self.known.contains(&before))
    }

    /// Text of the event where it belongs to an errant transaction, and is to be kept.
    pub fn take(
        &mut self,
        event: &Event,
        columns: &mut dyn FnMut(&str, &str) -> Columns,
    ) -> Result<Option<String>, String> {
        let kind = event.header().event_type_raw();
        if let Some(gtid) = gtid(event)? {
            return self.begin(event, gtid);
        }
        if is_of_the_log(kind) {
            return Ok(None);
        }
        let Some(transaction) = self.inside.clone() else { return Ok(None) };
        let text = match event.read_data().map_err(|error| wrong(event, &error))? {
            Some(EventData::TableMapEvent(table)) => {
                self.tables.insert(table.table_id(), table.into_owned());
                String::new()
            }
            Some(EventData::RowsEvent(rows)) => self.rows(&transaction, event, &rows, columns)?,
            Some(EventData::XidEvent(_)) => "COMMIT;\n".to_owned(),
            Some(EventData::QueryEvent(query)) => match &*query.query() {
                "BEGIN" => String::new(),
                "COMMIT" => "COMMIT;\n".to_owned(),
                statement => {
                    let shown: String = statement.chars().take(60).collect();
                    self.object(format!("{transaction} is a statement ({shown})"));
                    let schema = super::quote_name(&query.schema());
                    let change = if query.schema().is_empty() {
                        String::new()
                    } else {
                        format!("USE {schema};\n")
                    };
                    format!("{change}{statement};\n")
                }
            },
            Some(EventData::RowsQueryEvent(query)) => text::comment(&query.query()),
            _ if kind == MARIADB_ANNOTATE_ROWS => {
                text::comment(&String::from_utf8_lossy(event.data()))
            }
            _ => {
                self.object(format!("{transaction} has an event of type {kind}"));
                format!("-- an event of type {kind}, which only events.binlog has\n")
            }
        };
        Ok(Some(text))
    }

    fn begin(&mut self, event: &Event, gtid: String) -> Result<Option<String>, String> {
        self.inside = None;
        let own = Position::parse(self.flavour, &gtid).map_err(|wrong| wrong.to_string())?;
        if self.known.contains(&own) {
            return Ok(None);
        }
        self.found.transactions += 1;
        let at = text::time(event.header().timestamp());
        let text = format!("\n-- {gtid}, {at}\nBEGIN;\n");
        self.inside = Some(gtid);
        Ok(Some(text))
    }

    fn rows(
        &mut self,
        transaction: &str,
        event: &Event,
        rows: &RowsEventData<'_>,
        columns: &mut dyn FnMut(&str, &str) -> Columns,
    ) -> Result<String, String> {
        let Some(table) = self.tables.get(&rows.table_id()) else {
            return Err(format!("{transaction} changes a table that it does not name"));
        };
        let names = (table.database_name().into_owned(), table.table_name().into_owned());
        let columns = columns(&names.0, &names.1);
        let (text, count) = text::statements(rows, table, &columns)
            .map_err(|error| format!("{}.{}: {}", names.0, names.1, wrong(event, &error)))?;
        self.found.rows += count;
        if let Err(why) = undo::check(event.header().event_type_raw(), rows) {
            self.object(format!("{transaction} changes {}.{}: {why}", names.0, names.1));
        }
        if !self.found.tables.contains(&names) {
            self.found.tables.push(names);
        }
        Ok(text)
    }

    fn object(&mut self, why: String) {
        self.found.obstacle.get_or_insert(why);
    }

    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }
}

/// The position of a server that has executed `executed` and forgets `extra`, where its peer has
/// `known`. MariaDB's is one for gtid_binlog_state, in which the newest transaction of a domain,
/// the one with the highest number, stands last.
pub fn position_without(
    executed: &Position,
    extra: &Position,
    known: &Position,
) -> Result<String, String> {
    match (executed, extra, known) {
        (Position::Mysql(executed), Position::Mysql(extra), Position::Mysql(_)) => {
            Ok(executed.subtract(extra).to_string())
        }
        (Position::Mariadb(executed), Position::Mariadb(extra), Position::Mariadb(known)) => {
            let kept = executed.without(extra, known).to_string();
            let mut entries: Vec<&str> = kept.split(',').filter(|it| !it.is_empty()).collect();
            let number = |entry: &&str| -> u64 {
                entry.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
            };
            entries.sort_by_key(number);
            Ok(entries.join(","))
        }
        _ => Err("the peer is a server of another family".to_owned()),
    }
}

/// Of a MariaDB's state, the newest transaction of each domain, for gtid_slave_pos.
#[must_use]
pub fn newest_of_domains(state: &str) -> String {
    let mut newest: Vec<&str> = Vec::new();
    for entry in state.split(',') {
        newest.retain(|it| it.split('-').next() != entry.split('-').next());
        newest.push(entry);
    }
    newest.join(",")
}

/// The bytes of an event as they stand in a binlog.
#[must_use]
pub fn bytes(event: &Event) -> Vec<u8> {
    let mut bytes = Vec::new();
    event.write(BinlogVersion::Version4, &mut bytes).expect("a vector takes everything");
    bytes
}

/// An event that says what follows, and belongs to no transaction.
#[must_use]
pub fn is_format(event: &Event) -> bool {
    event.header().event_type_raw() == EventType::FORMAT_DESCRIPTION_EVENT as u8
}

fn is_of_the_log(kind: u8) -> bool {
    const OF_THE_LOG: [u8; 5] = [
        EventType::FORMAT_DESCRIPTION_EVENT as u8,
        EventType::ROTATE_EVENT as u8,
        EventType::STOP_EVENT as u8,
        EventType::HEARTBEAT_EVENT as u8,
        EventType::PREVIOUS_GTIDS_EVENT as u8,
    ];
    const OF_MARIADBS_LOG: [u8; 3] =
        [MARIADB_BINLOG_CHECKPOINT, MARIADB_GTID_LIST, MARIADB_START_ENCRYPTION];
    OF_THE_LOG.contains(&kind) || OF_MARIADBS_LOG.contains(&kind)
}

/// The transaction that this event begins.
fn gtid(event: &Event) -> Result<Option<String>, String> {
    if event.header().event_type_raw() == MARIADB_GTID {
        let field = |from: usize, to: usize| event.data().get(from..to);
        let sequence = field(0, 8).and_then(|it| it.try_into().ok()).map(u64::from_le_bytes);
        let domain = field(8, 12).and_then(|it| it.try_into().ok()).map(u32::from_le_bytes);
        let (Some(sequence), Some(domain)) = (sequence, domain) else {
            return Err("a GTID event is cut off".to_owned());
        };
        return Ok(Some(format!("{domain}-{}-{sequence}", event.header().server_id())));
    }
    let kind = event.header().event_type_raw();
    if kind != EventType::GTID_EVENT as u8 && kind != EventType::GTID_TAGGED_LOG_EVENT as u8 {
        return Ok(None);
    }
    match event.read_data().map_err(|error| wrong(event, &error))? {
        Some(EventData::GtidEvent(gtid)) => {
            let mut text = String::new();
            for (index, byte) in gtid.sid().iter().enumerate() {
                let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
                text += &format!("{dash}{byte:02x}");
            }
            if let Some(tag) = gtid.tag() {
                text += &format!(":{tag}");
            }
            Ok(Some(format!("{text}:{}", gtid.gno())))
        }
        _ => Ok(None),
    }
}

fn wrong(event: &Event, error: &dyn std::fmt::Display) -> String {
    let header = event.header();
    format!("an event of type {} at {}: {error}", header.event_type_raw(), header.log_pos())
}

/// MariaDB's own event types (sql/log_event.h).
const MARIADB_ANNOTATE_ROWS: u8 = 160;
const MARIADB_BINLOG_CHECKPOINT: u8 = 161;
const MARIADB_GTID: u8 = 162;
const MARIADB_GTID_LIST: u8 = 163;
const MARIADB_START_ENCRYPTION: u8 = 164;
