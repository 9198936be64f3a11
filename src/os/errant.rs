//! Errant transactions of the local server: saved to files, taken back.
//!
//! In: a login, what the peer has. Out: files, a server without them. Must not: take anything back
//! that was not saved whole, or leave a server that a second run could not finish.
//! Read first: `repl::errant`; facts/repl.md 3.4 c) (flashback, on every server here).
//!
//! ```text
//!  save     read the binlogs -> NAME.new/{events.binlog, events.sql, report} -> sync -> NAME
//!  discard  one transaction, not logged: reversed events, last first
//!           -> intent -> COMMIT -> forget the binlogs, set the position -> done
//! ```
//! Cut off before COMMIT nothing has happened. Cut off after it the first reversed event does not
//! apply, and the intent says why; cut off after the binlogs were forgotten, it says what to set.
//! This runs in a process of its own (`tandem rejoin`): a binlog that cannot be read ends that one.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mysql_common::binlog::BinlogFile;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::Event;

use super::mysql::{LocalServer, Session};
use crate::limits;
use crate::repl::errant::{
    Column, Columns, Reversal, Saved, Walk, bytes, is_format, newest_of_domains, position_without,
    reversals,
};
use crate::repl::{Dialect, Flavour, Position, Rows, ServerError, quote};

/// Where they are saved: a directory each, mode 0700.
pub const DIRECTORY: &str = "/var/lib/tandem/errant";

/// The local server and what is known of it.
struct Local<'a> {
    server: &'a LocalServer,
    session: Session,
    dialect: Dialect,
}

impl<'a> Local<'a> {
    fn log_in(server: &'a LocalServer) -> Result<Self, String> {
        let mut session = server.session().map_err(|error| error.to_string())?;
        let rows = ask(&mut session, "SELECT VERSION() AS version")?;
        let version = rows.value(0, &["version"]).unwrap_or_default();
        let dialect = Dialect::from_version(version)
            .ok_or_else(|| format!("version {version:?} has no GTIDs"))?;
        Ok(Self { server, session, dialect })
    }

    fn ask(&mut self, sql: &str) -> Result<Rows, String> {
        ask(&mut self.session, sql)
    }

    fn executed(&mut self) -> Result<Position, String> {
        let sql = self.dialect.statements().variables;
        let rows = self.ask(sql)?;
        let text = |name| rows.value(0, &[name]).unwrap_or_default();
        let flavour = self.dialect.flavour();
        let parse = |text| Position::parse(flavour, text).map_err(|wrong| wrong.to_string());
        Ok(parse(text("position"))?.union(&parse(text("replica_position"))?))
    }
}

/// Saves what the local server has and its peer, which has `known`, has not; into a directory of
/// its own under `directory`. What was saved before is found again.
pub fn save(server: &LocalServer, known: &str, directory: &Path) -> Result<Saved, String> {
    let mut local = Local::log_in(server)?;
    let flavour = local.dialect.flavour();
    let peer = Position::parse(flavour, known).map_err(|wrong| wrong.to_string())?;
    let executed = local.executed()?;
    let extra = executed.beyond(&peer);
    if extra.transactions == 0 {
        return Err("this database has nothing that the peer's has not".to_owned());
    }
    // A name that was taken back may come again, for another transaction.
    if let Some(saved) = find(directory, |it| it.extra == extra.text && !is_over(it)) {
        return Ok(saved);
    }
    let (place, beside) = new_directory(directory)?;
    let mut walk = Walk::new(flavour, peer);
    let first = first_binlog(&mut local, &walk)?;
    let in_files = |error: io::Error| format!("{}: {error}", beside.display());
    let mut events = create(&beside.join("events.binlog")).map_err(in_files)?;
    let mut text = create(&beside.join("events.sql")).map_err(in_files)?;
    copy(&mut local, &first, &mut walk, &mut events, &mut text)?;
    let found = walk.found().clone();
    if found.transactions < extra.transactions && flavour == Flavour::Mysql {
        return Err(format!(
            "only {} of {} transactions are in the binlogs",
            found.transactions, extra.transactions
        ));
    }
    let obstacle = match found.obstacle {
        Some(obstacle) => Some(obstacle),
        None => obstacle_of_tables(&mut local, &found.tables)?,
    };
    let saved = Saved {
        directory: place.display().to_string(),
        extra: extra.text,
        transactions: found.transactions,
        rows: found.rows,
        obstacle,
        known: known.to_owned(),
    };
    let mut report = create(&beside.join(REPORT)).map_err(in_files)?;
    let json = serde_json::to_vec_pretty(&saved).expect("text and numbers");
    report.write_all(&json).map_err(in_files)?;
    for mut file in [events, text, report] {
        file.flush().and_then(|()| file.get_ref().sync_all()).map_err(in_files)?;
    }
    sync(&beside).and_then(|()| fs::rename(&beside, &place)).map_err(in_files)?;
    sync(directory).map_err(in_files)?;
    Ok(saved)
}

/// The newest binlog before which nothing is errant.
fn first_binlog(local: &mut Local<'_>, walk: &Walk) -> Result<String, String> {
    let logs = local.ask("SHOW BINARY LOGS")?;
    let mut beginning = String::new();
    for row in (0..logs.rows.len()).rev() {
        let name = logs.value(row, &["Log_name"]).unwrap_or_default().to_owned();
        let events = local.ask(&format!("SHOW BINLOG EVENTS IN {} LIMIT 4", quote(&name)))?;
        let kinds = ["Previous_gtids", "Gtid_list"];
        let at = (0..events.rows.len()).find(|&row| {
            events.value(row, &["Event_type"]).is_some_and(|kind| kinds.contains(&kind))
        });
        let Some(at) = at else { continue };
        beginning = events.value(at, &["Info"]).unwrap_or_default().to_owned();
        if walk.begins_clean(&beginning).map_err(|wrong| wrong.to_string())? {
            return Ok(name);
        }
    }
    Err(format!(
        "the binlogs that are left begin behind some of them, at {beginning}: what they did is not \
         known any more"
    ))
}

fn copy(
    local: &mut Local<'_>,
    first: &str,
    walk: &mut Walk,
    events: &mut BufWriter<File>,
    text: &mut BufWriter<File>,
) -> Result<(), String> {
    let session = local.server.session().map_err(|error| error.to_string())?;
    let stream = session.events(first).map_err(|error| error.to_string())?;
    let mut has_format = false;
    let mut tables: BTreeMap<(String, String), Columns> = BTreeMap::new();
    let mut columns = |schema: &str, table: &str| {
        let key = (schema.to_owned(), table.to_owned());
        tables.entry(key).or_insert_with(|| read_columns(local, schema, table)).clone()
    };
    for event in stream {
        let event = event.map_err(|error| error.to_string())?;
        if is_format(&event) && !has_format {
            has_format = true;
            let written = events.write_all(MAGIC).and_then(|()| events.write_all(&bytes(&event)));
            written.map_err(|error| error.to_string())?;
        }
        if let Some(words) = walk.take(&event, &mut columns)? {
            let written = events.write_all(&bytes(&event));
            written.and_then(|()| text.write_all(words.as_bytes())).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// None where the server does not tell: the values are written without names then.
fn read_columns(local: &mut Local<'_>, schema: &str, table: &str) -> Columns {
    let sql = format!(
        "SELECT COLUMN_NAME AS name, COALESCE(CHARACTER_SET_NAME, '') AS charset, \
         COLUMN_TYPE AS type, COLUMN_KEY AS k FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA={} AND TABLE_NAME={} ORDER BY ORDINAL_POSITION",
        quote(schema),
        quote(table)
    );
    let Ok(rows) = local.ask(&sql) else { return Columns::new() };
    let column = |row| {
        let text = |name| rows.value(row, &[name]).unwrap_or_default();
        Column {
            name: text("name").to_owned(),
            charset: text("charset").to_owned(),
            is_unsigned: text("type").contains("unsigned"),
            is_key: text("k") == "PRI",
        }
    };
    (0..rows.rows.len()).map(column).collect()
}

/// What a table may hide: rows that changed without an event, or that no rollback brings back.
fn obstacle_of_tables(
    local: &mut Local<'_>,
    tables: &[(String, String)],
) -> Result<Option<String>, String> {
    for (schema, table) in tables {
        let (schema_text, table_text) = (quote(schema), quote(table));
        let engine = local.ask(&format!(
            "SELECT ENGINE AS engine FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA={schema_text} AND TABLE_NAME={table_text}"
        ))?;
        match engine.value(0, &["engine"]) {
            Some("InnoDB") => {}
            Some(engine) => {
                return Ok(Some(format!("{schema}.{table} is of engine {engine}, not InnoDB")));
            }
            None => return Ok(Some(format!("{schema}.{table} is not there any more"))),
        }
        let children = local.ask(&format!(
            "SELECT TABLE_NAME AS child FROM information_schema.REFERENTIAL_CONSTRAINTS \
             WHERE UNIQUE_CONSTRAINT_SCHEMA={schema_text} AND REFERENCED_TABLE_NAME={table_text} \
             AND (DELETE_RULE IN ('CASCADE', 'SET NULL') OR UPDATE_RULE IN ('CASCADE', 'SET NULL'))"
        ))?;
        if let Some(child) = children.value(0, &["child"]) {
            return Ok(Some(format!(
                "changes of {schema}.{table} change {child} by a foreign key, of which the binlog \
                 says nothing"
            )));
        }
    }
    Ok(None)
}

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

/// Takes back what was saved, and makes the server forget it.
pub fn discard(server: &LocalServer, saved: &Saved, last: Step) -> Result<(), String> {
    let directory = Path::new(&saved.directory);
    if let Some(obstacle) = &saved.obstacle {
        return Err(format!("{}: this cannot be taken back: {obstacle}", saved.extra));
    }
    let mut local = Local::log_in(server)?;
    let flavour = local.dialect.flavour();
    let parse = |text: &str| Position::parse(flavour, text).map_err(|wrong| wrong.to_string());
    let extra = parse(&saved.extra)?;
    let intended = fs::read_to_string(directory.join(INTENT)).ok();
    let executed = local.executed()?;
    let target = match &intended {
        Some(target) if !executed.contains(&extra) => {
            if executed.contains(&parse(target)?) {
                return finish(directory);
            }
            // Forgotten, and not told its position any more.
            if !executed.is_empty() {
                return Err(format!("its position is {executed}, and should be {target}"));
            }
            target.clone()
        }
        Some(_) | None => {
            if !executed.contains(&extra) {
                return Err(format!("{} are not here any more", saved.extra));
            }
            leave_source(&mut local)?;
            let executed = local.executed()?;
            let target = position_without(&executed, &extra, &parse(&saved.known)?)?;
            if !open_and_undo(&mut local, directory, &target, intended.is_some(), last)? {
                return Ok(());
            }
            target
        }
    };
    if last == Step::Committed {
        return Ok(());
    }
    forget(&mut local, &target, last)?;
    if last == Step::Forgotten {
        return Ok(());
    }
    if let Some(sql) = local.dialect.shut_out_administrators(true) {
        local.ask(&sql)?;
    }
    finish(directory)
}

/// What it received and has not applied comes again.
fn leave_source(local: &mut Local<'_>) -> Result<(), String> {
    let words = local.dialect.statements();
    if local.ask(words.replica_status)?.rows.is_empty() {
        return Ok(());
    }
    local.ask(words.stop)?;
    local.ask(words.forget_source).map(drop)
}

/// `undo`, with the server open to administrators where it must be; closed again when that fails.
fn open_and_undo(
    local: &mut Local<'_>,
    directory: &Path,
    target: &str,
    was_cut_off: bool,
    last: Step,
) -> Result<bool, String> {
    if let Some(sql) = local.dialect.shut_out_administrators(false) {
        local.ask(&sql)?;
    }
    let undone = undo(local, directory, target, was_cut_off, last);
    if let (Some(sql), true) = (local.dialect.shut_out_administrators(true), undone.is_err()) {
        // The connection, and what it had open, is gone with the error.
        Local::log_in(local.server)?.ask(&sql)?;
    }
    undone
}

/// False when it was cut off before its end.
fn undo(
    local: &mut Local<'_>,
    directory: &Path,
    target: &str,
    was_cut_off: bool,
    last: Step,
) -> Result<bool, String> {
    let path = directory.join("events.binlog");
    let in_file = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = || File::open(&path).map(BufReader::new).map_err(|error| in_file(&error));
    let mut events = read(file()?).map_err(|error| in_file(&error))?;
    let format = events.next().ok_or_else(|| in_file(&"empty"))?.map_err(|e| in_file(&e))?;
    let reversals = reversals(events, limits::ERRANT_BYTES_MAX).map_err(|why| in_file(&why))?;
    local.ask("SET SESSION sql_log_bin=0")?;
    local.ask(&binlog_statement(&[&bytes(&format)]))?;
    if local.dialect.flavour() == Flavour::Mysql {
        // A format leaves it open whose the next transaction is.
        local.ask("SET SESSION gtid_next='AUTOMATIC'")?;
    }
    local.ask("BEGIN")?;
    for (index, Reversal { table_map, rows }) in reversals.iter().enumerate() {
        match local.session.query(&binlog_statement(&[table_map, rows])) {
            Ok(_) => {}
            // The rows are as they were: it was committed, and cut off before the rest.
            Err(ServerError::Refused { code: KEY_NOT_FOUND | DUPLICATE_KEY, .. })
                if index == 0 && was_cut_off =>
            {
                local.ask("ROLLBACK")?;
                return Ok(true);
            }
            Err(error) => {
                let done = format!("{index} of {} events", reversals.len());
                let why = "the rows are not as they were left";
                return Err(format!("{why}, nothing was changed ({done}): {error}"));
            }
        }
    }
    if last == Step::Undone {
        return Ok(false);
    }
    write_file(&directory.join(INTENT), target.as_bytes()).map_err(|error| in_file(&error))?;
    if last == Step::Intended {
        return Ok(false);
    }
    local.ask("COMMIT")?;
    Ok(true)
}

/// In one packet, so that only the server's own end can come in between. A MySQL that ended there
/// has no position, which Follow refuses of a server that has rows; a MariaDB still has them.
fn forget(local: &mut Local<'_>, target: &str, last: Step) -> Result<(), String> {
    let forget = local.dialect.statements().forget_binlogs;
    let quoted = quote(target);
    let (first, second) = match local.dialect.flavour() {
        Flavour::Mysql => (forget.to_owned(), format!("SET GLOBAL gtid_purged={quoted}")),
        // A strict server takes no position that its binlog contradicts, which goes next.
        Flavour::Mariadb => (
            format!(
                "SET @strict=@@GLOBAL.gtid_strict_mode, GLOBAL gtid_strict_mode=OFF; \
                 SET GLOBAL gtid_slave_pos={}",
                quote(&newest_of_domains(target))
            ),
            format!(
                "{forget}; SET GLOBAL gtid_binlog_state={quoted}; \
                 SET GLOBAL gtid_strict_mode=@strict"
            ),
        ),
    };
    if last == Step::Forgotten {
        return local.ask(&first).map(drop);
    }
    local.ask(&format!("{first}; {second}"))?;
    let executed = local.executed()?;
    if Ok(&executed) == Position::parse(local.dialect.flavour(), target).as_ref() {
        return Ok(());
    }
    Err(format!("its position is {executed} and should be {target}: run this again"))
}

fn finish(directory: &Path) -> Result<(), String> {
    let done = directory.join(DISCARDED);
    write_file(&done, b"taken back\n").map_err(|error| format!("{}: {error}", done.display()))
}

/// A discard that was begun and not finished.
#[must_use]
pub fn unfinished(directory: &Path) -> Option<Saved> {
    find(directory, |saved| {
        let place = Path::new(&saved.directory);
        place.join(INTENT).exists() && !is_over(saved)
    })
}

fn is_over(saved: &Saved) -> bool {
    Path::new(&saved.directory).join(DISCARDED).exists()
}

fn find(directory: &Path, is_it: impl Fn(&Saved) -> bool) -> Option<Saved> {
    let entries = fs::read_dir(directory).ok()?;
    let read = |entry: fs::DirEntry| {
        let saved: Saved =
            serde_json::from_slice(&fs::read(entry.path().join(REPORT)).ok()?).ok()?;
        Some(saved).filter(|saved| Path::new(&saved.directory) == entry.path() && is_it(saved))
    };
    entries.flatten().find_map(read)
}

fn read(file: BufReader<File>) -> io::Result<impl Iterator<Item = io::Result<Event>>> {
    BinlogFile::new(BinlogVersion::Version4, file)
}

/// BINLOG takes the events of one statement, each in base64 on a line of its own.
fn binlog_statement(events: &[&Vec<u8>]) -> String {
    let lines: Vec<String> = events.iter().map(|event| STANDARD.encode(event)).collect();
    format!("BINLOG '\n{}\n'", lines.join("\n"))
}

fn ask(session: &mut Session, sql: &str) -> Result<Rows, String> {
    session.query(sql).map_err(|error| {
        let shown: String = sql.chars().take(60).collect();
        format!("{}: {error}", shown.trim_end())
    })
}

/// The name that a save will have, and the directory that is filled first.
fn new_directory(directory: &Path) -> Result<(PathBuf, PathBuf), String> {
    let in_it = |error: io::Error| format!("{}: {error}", directory.display());
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(in_it)?;
    for number in 1.. {
        let place = directory.join(number.to_string());
        let beside = directory.join(format!("{number}.new"));
        if !place.exists() {
            // What a save that was cut off left behind.
            let _none_left = fs::remove_dir_all(&beside);
            DirBuilder::new().mode(0o700).create(&beside).map_err(in_it)?;
            return Ok((place, beside));
        }
    }
    Err(format!("{} is full", directory.display()))
}

fn create(path: &Path) -> io::Result<BufWriter<File>> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path).map(BufWriter::new)
}

/// On disk when it returns.
fn write_file(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()?;
    path.parent().map_or(Ok(()), sync)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

const REPORT: &str = "report.json";
const INTENT: &str = "intent";
const DISCARDED: &str = "discarded";
/// Every binlog begins with it.
const MAGIC: &[u8] = b"\xfebin";

/// ER_KEY_NOT_FOUND, ER_DUP_ENTRY.
const KEY_NOT_FOUND: u16 = 1032;
const DUPLICATE_KEY: u16 = 1062;
