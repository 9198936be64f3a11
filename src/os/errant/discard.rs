//! Taking back what was saved: the rows first, then the names.
//!
//! In: a save. Out: a server without its transactions, in the position it had before them. Must
//! not: take anything back that was not saved whole, or twice; leave a server more open than it
//! was, or one that a second run could not finish.
//! Read first: `repl::errant::reversals`; facts/repl.md 3.4 c).
//!
//! ```text
//!  one transaction, not logged: reversed events, last first, and the marker -> intent -> COMMIT
//!  -> forget the binlogs, set the position -> `discarded` -> the marker goes
//! ```
//! What a second run finds, and does:
//!
//! | marker | the transactions' names | it was cut off | and goes on with |
//! |---|---|---|---|
//! | no  | here | before COMMIT: nothing has happened | everything |
//! | yes | here | after COMMIT | forgetting them |
//! | yes | gone | while forgetting them, or after it | the position of the intent |
//! | no  | gone | never: this is another database | nothing: it is refused |
//!
//! The marker is a row, since nothing else is committed with the rows or not at all: of a table
//! without a key a row that was removed may be there once more, and can be removed once more.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mysql_common::binlog::BinlogFile;
use mysql_common::binlog::consts::BinlogVersion;

use super::{EVENTS, Login, beyond, digest, find, is_over, sync, write_file};
use crate::limits;
use crate::os::mysql::LocalServer;
use crate::repl::errant::{Reversal, Saved, Undo, position_without, reversals};
use crate::repl::{Flavour, Position, ServerError, quote};

/// Where a discard was cut off, for a test; it is never anything but the last step elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Undone,
    Intended,
    Committed,
    /// The first half of what makes the server forget them.
    Forgotten,
    Over,
}

struct Discard<'a> {
    local: Login<'a>,
    saved: &'a Saved,
    directory: &'a Path,
    last: Step,
}

/// Takes back what was saved, and makes the server forget it.
pub fn discard(server: &LocalServer, saved: &Saved, last: Step) -> Result<(), String> {
    let mut work =
        Discard { local: Login::at(server)?, saved, directory: Path::new(&saved.directory), last };
    if is_over(saved) {
        return work.remove_marker();
    }
    if let Some(obstacle) = &saved.obstacle {
        return Err(format!("{}: this cannot be taken back: {obstacle}", saved.extra));
    }
    work.run()
}

/// A discard that was begun and not finished.
#[must_use]
pub fn unfinished(directory: &Path) -> Option<Saved> {
    find(directory, |saved| Path::new(&saved.directory).join(INTENT).exists() && !is_over(saved))
}

impl Discard<'_> {
    fn run(mut self) -> Result<(), String> {
        if !self.local.is_read_only()? {
            return Err("this database takes writes: it must be closed first".to_owned());
        }
        let extra = self.parse(&self.saved.extra)?;
        let is_undone = self.is_marked()?;
        if !self.local.executed()?.contains(&extra) {
            let intended = fs::read_to_string(self.directory.join(INTENT)).ok();
            let (Some(target), true) = (intended, is_undone) else {
                let gtids = &self.saved.extra;
                return Err(format!("{gtids} are not here any more, and were not taken back"));
            };
            return self.go_on_forgetting(&target);
        }
        self.local.leave_source()?;
        let known = self.parse(&self.saved.known)?;
        let executed = self.local.executed()?;
        if beyond(&executed, &known) != self.saved.extra {
            return Err(self.refuse_more(is_undone, &executed));
        }
        let target = position_without(&executed, &extra, &known)?;
        if !is_undone {
            let undo = self.read()?;
            self.check_settings(&undo)?;
            let is_committed = self.open(|work| work.undo(&undo, &target))?;
            if !is_committed {
                return Ok(());
            }
        }
        if self.last == Step::Committed {
            return Ok(());
        }
        // Who is no application may write at any time, and forgetting that would lose it.
        let executed_before = executed;
        let executed = self.local.executed()?;
        if executed != executed_before {
            return Err(self.refuse_more(true, &executed));
        }
        self.forget(&target)?;
        if self.last == Step::Forgotten { Ok(()) } else { self.finish() }
    }

    /// The rows are taken back and the transactions forgotten: is its position what it should be?
    fn go_on_forgetting(mut self, target: &str) -> Result<(), String> {
        let executed = self.local.executed()?;
        if !self.is_reached(target, &executed)? {
            if !executed.is_empty() {
                return Err(format!("its position is {executed}, and should be {target}"));
            }
            self.forget(target)?;
            if self.last == Step::Forgotten {
                return Ok(());
            }
        }
        self.finish()
    }

    /// The daemon follows the source as soon as nothing is errant, and more may have come from it.
    fn is_reached(&self, target: &str, executed: &Position) -> Result<bool, String> {
        let extra = self.parse(&self.saved.extra)?;
        Ok(executed.contains(&self.parse(target)?) && !executed.contains(&extra))
    }

    fn refuse_more(&self, is_undone: bool, executed: &Position) -> String {
        if !is_undone {
            // The next run saves everything, and begins anew.
            let _stays_refused = fs::remove_file(self.directory.join(INTENT));
        }
        let gtids = &self.saved.extra;
        format!("more than {gtids} was executed here since they were saved, it is {executed} now")
    }

    fn parse(&self, text: &str) -> Result<Position, String> {
        Position::parse(self.local.dialect.flavour(), text).map_err(|wrong| wrong.to_string())
    }

    /// Whether the rows are taken back already.
    fn is_marked(&mut self) -> Result<bool, String> {
        let digest = quote(&self.saved.digest);
        let sql = format!("SELECT COUNT(*) AS count FROM {MARKER} WHERE digest={digest}");
        match self.local.session.query(&sql) {
            Ok(rows) => Ok(rows.value(0, &["count"]) == Some("1")),
            Err(ServerError::Refused { code: NO_SUCH_TABLE | NO_SUCH_DATABASE, .. }) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    /// `act` with the server open to administrators, where it shuts them out; shut again whatever
    /// came of it.
    fn open<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        let dialect = self.local.dialect;
        if let Some(sql) = dialect.shut_out_administrators(false) {
            self.local.ask(&sql)?;
        }
        let acted = act(self);
        if let Some(sql) = dialect.shut_out_administrators(true) {
            // What it had open, or whose answer is not known, goes with the connection.
            self.local = Login::at(self.local.server)?;
            self.local.ask(&sql)?;
        }
        acted
    }

    fn in_file(&self, error: &dyn Display) -> String {
        format!("{}: {error}", self.directory.join(EVENTS).display())
    }

    /// What takes the saved events back.
    fn read(&self) -> Result<Undo, String> {
        let open = || File::open(self.directory.join(EVENTS)).map(BufReader::new);
        let found = open().and_then(digest).map_err(|error| self.in_file(&error))?;
        if found != self.saved.digest {
            return Err(self.in_file(&"this is not what was saved: nothing was changed"));
        }
        let file = open().map_err(|error| self.in_file(&error))?;
        let events = BinlogFile::new(BinlogVersion::Version4, file);
        let events = events.map_err(|error| self.in_file(&error))?;
        let undo = reversals(events, limits::ERRANT_BYTES_MAX);
        undo.map_err(|why| self.in_file(&why))
    }

    /// Whether this server applies what it is told, all of it, and nothing else.
    fn check_settings(&mut self, undo: &Undo) -> Result<(), String> {
        let rows = self.local.ask(LENIENCE)?;
        for row in 0..rows.rows.len() {
            let name = rows.value(row, &["Variable_name"]).unwrap_or_default();
            let value = rows.value(row, &["Value"]).unwrap_or_default();
            if !["STRICT", "NO", "OFF", ""].contains(&value) {
                return Err(format!("{name} is {value}: set it to what it is by default first"));
            }
        }
        let rows = self.local.ask("SELECT @@max_allowed_packet AS bytes")?;
        let limit = rows.value(0, &["bytes"]).and_then(|bytes| bytes.parse().ok());
        let size = |it: &Reversal| binlog_statement_bytes(&[&it.table_map, &it.rows]);
        let largest = undo.reversals.iter().map(size).max().unwrap_or(0);
        match limit {
            Some(limit) if largest < limit => Ok(()),
            Some(limit) => Err(format!(
                "one of the events needs {largest} bytes of max_allowed_packet, which is {limit}: \
                 raise it first"
            )),
            None => Err("max_allowed_packet is not known".to_owned()),
        }
    }

    /// False when it was cut off before its end.
    fn undo(&mut self, undo: &Undo, target: &str) -> Result<bool, String> {
        self.local.ask("SET SESSION sql_log_bin=0")?;
        for sql in MAKE_MARKER {
            self.local.ask(sql)?;
        }
        self.local.ask(&binlog_statement(&[&undo.format]))?;
        if self.local.dialect.flavour() == Flavour::Mysql {
            // A format leaves it open whose the next transaction is.
            self.local.ask("SET SESSION gtid_next='AUTOMATIC'")?;
        }
        self.local.ask("BEGIN")?;
        if let Err(why) = self.apply(&undo.reversals) {
            // Where it cannot be said any more, the connection's end says it.
            let _gone = self.local.ask("ROLLBACK");
            return Err(why);
        }
        self.local.ask(&format!("INSERT INTO {MARKER} VALUES ({})", quote(&self.saved.digest)))?;
        if self.last == Step::Undone {
            return Ok(false);
        }
        let intent = self.directory.join(INTENT);
        write_file(&intent, target.as_bytes())
            .map_err(|error| format!("{}: {error}", intent.display()))?;
        if self.last == Step::Intended {
            return Ok(false);
        }
        self.local.ask("COMMIT")?;
        Ok(true)
    }

    fn apply(&mut self, reversals: &[Reversal]) -> Result<(), String> {
        for (index, Reversal { table_map, rows }) in reversals.iter().enumerate() {
            let Err(error) = self.local.session.query(&binlog_statement(&[table_map, rows])) else {
                continue;
            };
            let why = match &error {
                ServerError::Refused { code: KEY_NOT_FOUND | DUPLICATE_KEY, .. } => {
                    "the rows are not as they were left"
                }
                ServerError::Refused { .. }
                | ServerError::Unreachable(_)
                | ServerError::TimedOut => "an event was not taken back",
            };
            let done = format!("{index} of {} events", reversals.len());
            return Err(format!("{why}, nothing was changed ({done}): {error}"));
        }
        Ok(())
    }

    fn forget(&mut self, target: &str) -> Result<(), String> {
        if !self.local.is_read_only()? {
            return Err("this database takes writes by now: it must be closed first".to_owned());
        }
        self.local.set_position(target, self.last != Step::Forgotten)?;
        if self.last == Step::Forgotten {
            return Ok(());
        }
        let executed = self.local.executed()?;
        if self.is_reached(target, &executed)? {
            return Ok(());
        }
        Err(format!("its position is {executed} and should be {target}: run this again"))
    }

    fn finish(&mut self) -> Result<(), String> {
        let done = self.directory.join(super::DISCARDED);
        write_file(&done, b"taken back\n")
            .and_then(|()| sync(self.directory))
            .map_err(|error| format!("{}: {error}", done.display()))?;
        self.remove_marker()
    }

    fn remove_marker(&mut self) -> Result<(), String> {
        if !self.is_marked()? {
            return Ok(());
        }
        self.open(|work| {
            work.local.ask("SET SESSION sql_log_bin=0")?;
            work.local.ask(&format!("DROP TABLE IF EXISTS {MARKER}")).map(drop)
        })
    }
}

/// BINLOG takes the events of one statement, each in base64 on a line of its own.
fn binlog_statement(events: &[&[u8]]) -> String {
    let lines: Vec<String> = events.iter().map(|event| STANDARD.encode(event)).collect();
    format!("BINLOG '\n{}\n'", lines.join("\n"))
}

fn binlog_statement_bytes(events: &[&[u8]]) -> usize {
    let lines: usize = events.iter().map(|event| event.len().div_ceil(3) * 4 + 1).sum();
    lines + BINLOG_WORDS_BYTES
}

/// More than the words around the events and the header of a packet.
const BINLOG_WORDS_BYTES: usize = 32;

/// What may pass over events that do not apply, or run triggers for those that do.
const LENIENCE: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('slave_exec_mode', \
    'replica_exec_mode', 'slave_skip_errors', 'replica_skip_errors', \
    'slave_run_triggers_for_rbr')";

/// In the schema of the commit probe. It is never logged: the peer has no such table.
const MARKER: &str = "tandem.taken_back";
const MAKE_MARKER: [&str; 2] = [
    "CREATE DATABASE IF NOT EXISTS tandem",
    "CREATE TABLE IF NOT EXISTS tandem.taken_back (digest CHAR(64) NOT NULL PRIMARY KEY) \
     ENGINE=InnoDB",
];
const INTENT: &str = "intent";

/// ER_KEY_NOT_FOUND, ER_DUP_ENTRY, ER_BAD_DB_ERROR, ER_NO_SUCH_TABLE.
const KEY_NOT_FOUND: u16 = 1032;
const DUPLICATE_KEY: u16 = 1062;
const NO_SUCH_DATABASE: u16 = 1049;
const NO_SUCH_TABLE: u16 = 1146;
