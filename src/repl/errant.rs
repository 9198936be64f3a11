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

mod json;
mod row;
mod text;
mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use mysql_common::binlog::consts::{BinlogVersion, EventType};
use mysql_common::binlog::events::{
    Event, EventData, QueryEvent, RowsEventData, TableMapEvent, TransactionPayloadEvent,
};
use serde::{Deserialize, Serialize};

pub use text::{Column, Columns, PREAMBLE};
pub use undo::{Reversal, Undo, reversals};

use super::gtid::{Flavour, Malformed, Position, write_uuid};
use crate::limits;

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
    /// All of them were written by one run of the server, which was not the last.
    #[serde(default)]
    pub is_of_one_crash: bool,
    /// What the peer had then.
    pub known: String,
    /// SHA-256 of the saved binlog.
    pub digest: String,
}

/// A walk along the binlogs of one server.
#[derive(Debug, Clone)]
pub struct Walk {
    flavour: Flavour,
    /// What the peer has.
    known: Position,
    /// What the peer has, and the errant ones that were seen.
    seen: Position,
    /// The errant transaction that the events belong to.
    inside: Option<String>,
    tables: BTreeMap<u64, TableMapEvent<'static>>,
    /// Starts of the server that the binlogs tell of, and how many there were at the first and at
    /// the last errant transaction.
    starts: u32,
    errant_starts: Option<(u32, u32)>,
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
    pub changed: BTreeSet<(String, String)>,
    /// Tables that they put rows in.
    pub filled: BTreeSet<(String, String)>,
}

impl Walk {
    #[must_use]
    pub fn new(flavour: Flavour, known: Position) -> Self {
        let seen = known.clone();
        let (tables, found) = (BTreeMap::new(), Found::default());
        let (starts, errant_starts) = (0, None);
        Self { flavour, known, seen, inside: None, tables, starts, errant_starts, found }
    }

    /// What before this binlog is errant, by the text that SHOW BINLOG EVENTS has for the set that
    /// stands at its beginning. The walk starts at the newest one with nothing before it.
    pub fn errant_before(&self, beginning: &str) -> Result<String, Malformed> {
        let before = Position::parse(self.flavour, beginning.trim_matches(['[', ']']))?;
        Ok(before.beyond(&self.known).text)
    }

    /// What of `executed` is errant and was not seen. MariaDB's sequences may have gaps, so there
    /// it is only looked for the last one of each.
    #[must_use]
    pub fn missing(&self, executed: &Position) -> String {
        executed.beyond(&self.seen).text
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
            self.starts += u32::from(is_start(event));
            return Ok(None);
        }
        let Some(transaction) = self.inside.clone() else { return Ok(None) };
        let text = match event.read_data() {
            Ok(Some(EventData::TableMapEvent(table))) => {
                self.tables.insert(table.table_id(), table.into_owned());
                String::new()
            }
            Ok(Some(EventData::RowsEvent(rows))) => self.rows(&transaction, event, &rows, columns),
            Ok(Some(EventData::XidEvent(_))) => "COMMIT;\n".to_owned(),
            Ok(Some(EventData::QueryEvent(query))) => self.statement(&transaction, &query),
            Ok(Some(EventData::RowsQueryEvent(query))) => text::comment(&query.query()),
            _ if kind == MARIADB_ANNOTATE_ROWS => {
                text::comment(&String::from_utf8_lossy(event.data()))
            }
            Ok(Some(EventData::TransactionPayloadEvent(payload))) => {
                self.object(format!("{transaction} is compressed"));
                self.packed(event, &payload, columns)
                    .unwrap_or_else(|error| self.not_in_words(&transaction, event, &error))
            }
            Ok(_) => {
                let is_packed =
                    (MARIADB_COMPRESSED_FIRST..=MARIADB_COMPRESSED_LAST).contains(&kind);
                let what = if is_packed { "a compressed event" } else { "an event" };
                self.object(format!("{transaction} has {what} of type {kind}"));
                format!("-- {what} of type {kind}, which only events.binlog has\n")
            }
            Err(error) => self.not_in_words(&transaction, event, &error),
        };
        Ok(Some(text))
    }

    /// The events of a transaction that was written as one.
    fn packed(
        &mut self,
        event: &Event,
        payload: &TransactionPayloadEvent<'_>,
        columns: &mut dyn FnMut(&str, &str) -> Columns,
    ) -> io::Result<String> {
        // MySQL WL#3549: what is inside has no checksums.
        let mut footer = event.fde().footer();
        footer.set_checksum_enabled(false);
        let format = event.fde().clone().with_footer(footer);
        let mut reader = payload.decompressed()?;
        let mut text = String::new();
        while reader.has_data_left()? {
            if text.len() > limits::ERRANT_PACKED_TEXT_BYTES_MAX {
                text += "-- and more, which only events.binlog has\n";
                break;
            }
            let inner = Event::read(&format, &mut reader)?;
            if inner.header().event_type_raw() == event.header().event_type_raw() {
                return Err(io::Error::other("it is compressed twice"));
            }
            text += &self.take(&inner, columns).map_err(io::Error::other)?.unwrap_or_default();
        }
        Ok(text)
    }

    fn statement(&mut self, transaction: &str, query: &QueryEvent<'_>) -> String {
        let statement = query.query();
        // Rows that were rolled back to it are not in the binlog.
        if *statement == *"BEGIN" || statement.starts_with("SAVEPOINT ") {
            return String::new();
        }
        if *statement == *"COMMIT" {
            return "COMMIT;\n".to_owned();
        }
        let shown: String = statement.chars().take(60).collect();
        self.object(format!("{transaction} is a statement ({shown})"));
        let schema = super::quote_name(&query.schema());
        let change =
            if query.schema().is_empty() { String::new() } else { format!("USE {schema};\n") };
        format!("{change}{statement};\n")
    }

    /// What cannot be said is saved all the same.
    fn not_in_words(&mut self, transaction: &str, event: &Event, error: &io::Error) -> String {
        let why = wrong(event, error);
        self.object(format!("{transaction} has {why}"));
        format!("-- {why}: only events.binlog has it\n")
    }

    fn begin(&mut self, event: &Event, gtid: String) -> Result<Option<String>, String> {
        self.inside = None;
        let own = Position::parse(self.flavour, &gtid).map_err(|wrong| wrong.to_string())?;
        if self.known.contains(&own) {
            return Ok(None);
        }
        self.seen = self.seen.union(&own);
        // Their numbers are good for one transaction.
        self.tables.clear();
        self.found.transactions += 1;
        let first = self.errant_starts.map_or(self.starts, |(first, _)| first);
        self.errant_starts = Some((first, self.starts));
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
    ) -> String {
        let Some(table) = self.tables.get(&rows.table_id()).cloned() else {
            let error = io::Error::other("its table is not named");
            return self.not_in_words(transaction, event, &error);
        };
        let names = (table.database_name().into_owned(), table.table_name().into_owned());
        let kind = event.header().event_type_raw();
        if let Err(why) = undo::check(kind, rows) {
            self.object(format!("{transaction} changes {}.{}: {why}", names.0, names.1));
        }
        let tables =
            if undo::is_insertion(kind) { &mut self.found.filled } else { &mut self.found.changed };
        tables.insert(names.clone());
        match text::statements(rows, &table, &columns(&names.0, &names.1)) {
            Ok((text, count)) => {
                self.found.rows += count;
                text
            }
            // What cannot be put in words can be taken back, where its bytes are understood.
            Err(error) => match undo::count(rows, &table) {
                Ok(count) => {
                    self.found.rows += count;
                    let name = format!("{}.{}", names.0, names.1);
                    let why = wrong(event, &error);
                    format!("-- {count} rows of {name}, {why}: only events.binlog has them\n")
                }
                Err(error) => self.not_in_words(transaction, event, &error),
            },
        }
    }

    fn object(&mut self, why: String) {
        self.found.obstacle.get_or_insert(why);
    }

    /// All that is errant was written by one run of the server, which was not the last.
    #[must_use]
    pub fn is_of_one_crash(&self) -> bool {
        self.errant_starts.is_some_and(|(first, last)| first == last && last < self.starts)
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

/// Of an event that says how those behind it are written: what it says, the kind of checksums
/// last. When the binlog was begun is left out.
#[must_use]
pub fn format(event: &Event) -> Option<Vec<u8>> {
    if event.header().event_type_raw() != EventType::FORMAT_DESCRIPTION_EVENT as u8 {
        return None;
    }
    let mut format = event.data().to_vec();
    if let Some(begun) = format.get_mut(FORMAT_TIME_AT..FORMAT_TIME_AT + 4) {
        begun.fill(0);
    }
    let checksums = event.footer().get_checksum_alg().ok().flatten();
    format.push(checksums.map_or(u8::MAX, |kind| kind as u8));
    Some(format)
}

/// Of the first binlog of a run of the server; those that it goes on to tell no time.
fn is_start(event: &Event) -> bool {
    let begun = event.data().get(FORMAT_TIME_AT..FORMAT_TIME_AT + 4);
    event.header().event_type_raw() == EventType::FORMAT_DESCRIPTION_EVENT as u8
        && begun.is_some_and(|time| time != [0; 4])
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
            write_uuid(&mut text, &gtid.sid()).expect("a string takes everything");
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

/// After the version of the binlog and the server's name.
const FORMAT_TIME_AT: usize = 2 + 50;

/// MariaDB's own event types (sql/log_event.h).
const MARIADB_ANNOTATE_ROWS: u8 = 160;
const MARIADB_BINLOG_CHECKPOINT: u8 = 161;
const MARIADB_GTID: u8 = 162;
const MARIADB_GTID_LIST: u8 = 163;
const MARIADB_START_ENCRYPTION: u8 = 164;
const MARIADB_COMPRESSED_FIRST: u8 = 165;
const MARIADB_COMPRESSED_LAST: u8 = 171;

#[cfg(test)]
mod tests {
    use super::*;
    use mysql_common::binlog::BinlogFile;
    use mysql_common::binlog::events::FormatDescriptionEvent;

    /// What `save` wrote in a run of tests/repl/words: every kind of column.
    pub(super) const SAVED: [(Flavour, &[u8]); 3] = [
        (Flavour::Mariadb, include_bytes!("../../tests/vectors/errant/mariadb.binlog")),
        (Flavour::Mysql, include_bytes!("../../tests/vectors/errant/mysql56.binlog")),
        (Flavour::Mysql, include_bytes!("../../tests/vectors/errant/mysql97.binlog")),
    ];

    pub(super) fn events(saved: &[u8]) -> Vec<Event> {
        let file = BinlogFile::new(BinlogVersion::Version4, saved).expect("a binlog");
        file.collect::<io::Result<_>>().expect("events")
    }

    fn walk(flavour: Flavour, known: &str) -> Walk {
        Walk::new(flavour, Position::parse(flavour, known).expect("a position"))
    }

    fn no_columns(_schema: &str, _table: &str) -> Columns {
        Columns::new()
    }

    fn words(walk: &mut Walk, saved: &[u8]) -> String {
        let take = |event: &Event| walk.take(event, &mut no_columns).expect("words");
        events(saved).iter().filter_map(take).collect()
    }

    #[test]
    fn takes_every_event_of_what_the_peer_has_not() {
        for (flavour, saved) in SAVED {
            let mut walk = walk(flavour, "");
            let text = words(&mut walk, saved);
            assert!(text.contains("INSERT INTO `app`.`loose` (@1, @2"), "{text}");
            assert_eq!(text.matches("BEGIN;").count(), text.matches("COMMIT;").count());
            let found = walk.found();
            assert_eq!((found.obstacle.as_deref(), found.transactions > 4), (None, true));
            let filled: Vec<&str> = found.filled.iter().map(|it| it.1.as_str()).collect();
            assert!(filled.contains(&"loose") && filled.contains(&"t"), "{filled:?}");
        }
    }

    #[test]
    fn takes_nothing_of_what_the_peer_has() {
        for (flavour, saved) in SAVED {
            let mut all = walk(flavour, "");
            words(&mut all, saved);
            let mut none = walk(flavour, &all.seen.to_string());
            assert_eq!(words(&mut none, saved), "");
            assert_eq!(none.found(), &Found::default());
            assert_eq!(none.missing(&all.seen), "");
        }
    }

    /// The format of a binlog that the server began when it started, or while it ran.
    fn format_of(saved: &[u8], is_start: bool) -> Event {
        let whole = events(saved).swap_remove(0);
        let mut data = whole.data().to_vec();
        data[FORMAT_TIME_AT..FORMAT_TIME_AT + 4].copy_from_slice(&[u8::from(is_start); 4]);
        event(&whole, &data).expect("an event")
    }

    #[test]
    fn what_a_crash_left_is_of_one_run_of_the_server_and_not_of_the_last() {
        for (flavour, saved) in SAVED {
            let (start, next) = (format_of(saved, true), format_of(saved, false));
            let all = events(saved);
            let is_of_one_crash = |parts: &[&[Event]]| {
                let mut walk = walk(flavour, "");
                for event in parts.iter().copied().flatten() {
                    walk.take(event, &mut no_columns).expect("words");
                }
                walk.is_of_one_crash()
            };
            let (errant, starts, goes_on) = (&all[1..], [start], [next]);
            assert!(is_of_one_crash(&[errant, &starts]), "it crashed, and started");
            assert!(is_of_one_crash(&[&starts, errant, &goes_on, &starts, &goes_on]));
            assert!(!is_of_one_crash(&[&starts, errant, &goes_on]), "it runs");
            assert!(!is_of_one_crash(&[errant, &starts, errant, &starts]), "of two runs");
            assert!(!is_of_one_crash(&[&starts]), "nothing is errant");
        }
    }

    #[test]
    fn says_what_is_gone_with_the_binlogs() {
        let mysql = walk(Flavour::Mysql, &format!("{U}:1-5"));
        assert_eq!(mysql.errant_before(&format!("{U}:1-4")), Ok(String::new()));
        assert_eq!(mysql.errant_before(&format!("{U}:1-7")), Ok(format!("{U}:6-7")));
        assert_eq!(mysql.missing(&Position::parse(Flavour::Mysql, "").expect("empty")), "");
        let mariadb = walk(Flavour::Mariadb, "0-1-5");
        assert_eq!(mariadb.errant_before("[0-1-5]"), Ok(String::new()));
        assert_eq!(mariadb.errant_before("[]"), Ok(String::new()));
        assert_eq!(mariadb.errant_before("[0-1-5,0-2-7]"), Ok("0-2-7".to_owned()));
        assert!(mariadb.errant_before("junk").is_err());
    }

    /// An event as it would come from a server that wrote these bytes.
    fn event(header: &Event, data: &[u8]) -> Option<Event> {
        let mut footer = header.fde().footer();
        footer.set_checksum_enabled(false);
        let format: FormatDescriptionEvent<'_> = header.fde().clone().with_footer(footer);
        let mut bytes = bytes(header);
        bytes.truncate(19);
        let size = u32::try_from(19 + data.len()).expect("small");
        bytes[9..13].copy_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(data);
        Event::read(&format, &bytes[..]).ok()
    }

    /// Every bit of every event flipped, and every event cut off everywhere.
    #[test]
    fn malformed_events_are_survived() {
        for (flavour, saved) in SAVED {
            let mut walk = walk(flavour, "");
            let mut before = Vec::new();
            for whole in events(saved) {
                if format(&whole).is_some() {
                    before.push(whole);
                    continue;
                }
                let data = whole.data();
                let flipped = (0..data.len() * 8).map(|bit| {
                    let mut data = data.to_vec();
                    data[bit / 8] ^= 1 << (bit % 8);
                    data
                });
                let cut = (0..data.len()).map(|length| data[..length].to_vec());
                for data in flipped.chain(cut) {
                    let Some(event) = event(&whole, &data) else { continue };
                    let _words_or_why = walk.clone().take(&event, &mut no_columns);
                    let all = before.iter().cloned().chain([event]);
                    let _events_or_why = reversals(all.map(Ok), usize::MAX);
                }
                if whole.header().event_type_raw() == EventType::TABLE_MAP_EVENT as u8 {
                    before.truncate(1);
                    before.push(whole.clone());
                }
                let _words = walk.take(&whole, &mut no_columns);
            }
        }
    }

    const U: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
}
