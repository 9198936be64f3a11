//! Errant transactions of the local server: saved to files, taken back (`discard`).
//!
//! In: a login, what the peer has. Out: files: `events.binlog`, a binlog of exactly these
//! transactions, and `events.sql`, what they did in words. Must not: let a save that was cut off
//! pass for a whole one.
//! Read first: `repl::errant`; facts/repl.md 3.4 c) (flashback, on every server here).
//!
//! ```text
//!  save     read the binlogs -> NAME.new/{events.binlog, events.sql, report} -> sync -> NAME
//! ```
//! This runs in a process of its own (`tandem rejoin`): a binlog that cannot be read ends that one.

mod discard;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

pub use discard::{Step, discard, unfinished};

use super::mysql::{LocalServer, Session};
use crate::limits;
use crate::repl::errant::{
    Column, Columns, Found, PREAMBLE, Saved, Walk, bytes, format, newest_of_domains,
};
use crate::repl::{Dialect, Flavour, Position, Rows, quote};

/// Where they are saved: a directory each, mode 0700.
pub const DIRECTORY: &str = "/var/lib/tandem/errant";

/// A server, a session there, and what words it knows.
pub(super) struct Login<'a> {
    pub(super) server: &'a LocalServer,
    pub(super) session: Session,
    pub(super) dialect: Dialect,
}

impl<'a> Login<'a> {
    pub(super) fn at(server: &'a LocalServer) -> Result<Self, String> {
        let mut session = server.session().map_err(|error| error.to_string())?;
        let rows = ask(&mut session, "SELECT VERSION() AS version")?;
        let version = rows.value(0, &["version"]).unwrap_or_default();
        let dialect = Dialect::from_version(version)
            .ok_or_else(|| format!("version {version:?} has no GTIDs"))?;
        Ok(Self { server, session, dialect })
    }

    pub(super) fn ask(&mut self, sql: &str) -> Result<Rows, String> {
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

    pub(super) fn is_read_only(&mut self) -> Result<bool, String> {
        let rows = self.ask("SELECT @@GLOBAL.read_only AS read_only")?;
        Ok(rows.value(0, &["read_only"]) == Some("1"))
    }

    /// What it received and has not applied comes again.
    pub(super) fn leave_source(&mut self) -> Result<(), String> {
        let words = self.dialect.statements();
        if self.ask(words.replica_status)?.rows.is_empty() {
            return Ok(());
        }
        self.ask(words.stop)?;
        self.ask(words.forget_source).map(drop)
    }

    /// Makes it forget its binlogs, and believe that it has executed `position`. In one packet, so
    /// that only the server's own end can come in between: without `is_whole` that is where it
    /// stops, for a test. A MySQL that ended there has no position, which Follow refuses of a
    /// server that has rows; a MariaDB still has the transactions' names.
    pub(super) fn set_position(&mut self, position: &str, is_whole: bool) -> Result<(), String> {
        let forget = self.dialect.statements().forget_binlogs;
        match self.dialect.flavour() {
            Flavour::Mysql => {
                let mut sql = forget.to_owned();
                if is_whole {
                    sql += &format!("; SET GLOBAL gtid_purged={}", quote(position));
                }
                self.ask(&sql).map(drop)
            }
            Flavour::Mariadb => {
                let rows = self.ask("SELECT @@GLOBAL.gtid_strict_mode AS strict")?;
                let strict = rows.value(0, &["strict"]).unwrap_or("1").to_owned();
                let newest = quote(&newest_of_domains(position));
                // A strict server takes no position that its binlog contradicts, which goes next.
                let relax = "SET GLOBAL gtid_strict_mode=OFF";
                let restore = format!("SET GLOBAL gtid_strict_mode={strict}");
                let mut sql = format!("{relax}; SET GLOBAL gtid_slave_pos={newest}; {restore}");
                if is_whole {
                    let state = quote(position);
                    sql += &format!("; {forget}; SET GLOBAL gtid_binlog_state={state}");
                }
                let forgotten = self.ask(&sql);
                if forgotten.is_err() {
                    Login::at(self.server)?.ask(&restore)?;
                }
                forgotten.map(drop)
            }
        }
    }
}

/// Saves what the local server has and its peer, which has `known`, has not; into a directory of
/// its own under `directory`. What was saved before is found again.
pub fn save(server: &LocalServer, known: &str, directory: &Path) -> Result<Saved, String> {
    let mut local = Login::at(server)?;
    let flavour = local.dialect.flavour();
    let peer = Position::parse(flavour, known).map_err(|wrong| wrong.to_string())?;
    let executed = local.executed()?;
    let extra = beyond(&executed, &peer);
    if extra.is_empty() {
        return Err("this database has nothing that the peer's has not".to_owned());
    }
    // A name that was taken back may come again, for another transaction.
    let is_of_now = |saved: &Saved| {
        let known = Position::parse(flavour, &saved.known);
        saved.extra == extra && known.is_ok_and(|known| beyond(&executed, &known) == extra)
    };
    let found = find(directory, |saved| is_of_now(saved) && !is_over(saved) && is_whole(saved));
    if let Some(saved) = found {
        return Ok(saved);
    }
    let mut walk = Walk::new(flavour, peer);
    let first = first_binlog(&mut local, &walk)?;
    let (place, beside) = new_directory(directory)?;
    let in_files = |error: io::Error| format!("{}: {error}", beside.display());
    let events = create(&beside.join(EVENTS)).map_err(in_files)?;
    let mut events = Digested { file: events, digest: Sha256::new(), bytes: 0 };
    let mut text = create(&beside.join("events.sql")).map_err(in_files)?;
    copy(&mut local, &first, &mut walk, &mut events, &mut text)?;
    if local.executed()? != executed {
        return Err("this database was written to while it was saved: save it again".to_owned());
    }
    let missing = walk.missing(&executed);
    if !missing.is_empty() {
        return Err(format!("{missing} are not in the binlogs: what they did is not known"));
    }
    let found = walk.found().clone();
    let mut obstacle = found.obstacle.clone();
    if obstacle.is_none() {
        obstacle = obstacle_of_tables(&mut local, &found)?;
    }
    if obstacle.is_none() && events.bytes > limits::ERRANT_BYTES_MAX {
        obstacle = Some(format!("they are more than {} MiB", limits::ERRANT_BYTES_MAX >> 20));
    }
    let saved = Saved {
        directory: place.display().to_string(),
        extra,
        transactions: found.transactions,
        rows: found.rows,
        obstacle,
        is_of_one_crash: walk.is_of_one_crash(),
        known: known.to_owned(),
        digest: hexadecimal(events.digest),
    };
    let mut report = create(&beside.join(REPORT)).map_err(in_files)?;
    let json = serde_json::to_vec_pretty(&saved).expect("text and numbers");
    report.write_all(&json).map_err(in_files)?;
    for mut file in [events.file, text, report] {
        file.flush().and_then(|()| file.get_ref().sync_all()).map_err(in_files)?;
    }
    sync(&beside).and_then(|()| fs::rename(&beside, &place)).map_err(in_files)?;
    sync(directory).map_err(in_files)?;
    Ok(saved)
}

/// A file, and what it holds in short: a discard takes nothing back by another one.
struct Digested {
    file: BufWriter<File>,
    digest: Sha256,
    bytes: usize,
}

impl Write for Digested {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.digest.update(&bytes[..count]);
        self.bytes += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn digest(mut file: impl io::Read) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hexadecimal(digest)),
            count => digest.update(&piece[..count]),
        }
    }
}

fn hexadecimal(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_whole(saved: &Saved) -> bool {
    let file = File::open(Path::new(&saved.directory).join(EVENTS));
    file.and_then(digest).is_ok_and(|found| found == saved.digest)
}

fn beyond(executed: &Position, known: &Position) -> String {
    executed.beyond(known).text
}

/// The newest binlog before which nothing is errant.
fn first_binlog(local: &mut Login<'_>, walk: &Walk) -> Result<String, String> {
    let logs = local.ask("SHOW BINARY LOGS")?;
    let mut gone = String::new();
    for row in (0..logs.rows.len()).rev() {
        let name = logs.value(row, &["Log_name"]).unwrap_or_default().to_owned();
        let events = local.ask(&format!("SHOW BINLOG EVENTS IN {} LIMIT 4", quote(&name)))?;
        let kinds = ["Previous_gtids", "Gtid_list"];
        let at = (0..events.rows.len()).find(|&row| {
            events.value(row, &["Event_type"]).is_some_and(|kind| kinds.contains(&kind))
        });
        let Some(at) = at else { continue };
        let beginning = events.value(at, &["Info"]).unwrap_or_default();
        gone = walk.errant_before(beginning).map_err(|wrong| wrong.to_string())?;
        if gone.is_empty() {
            return Ok(name);
        }
    }
    Err(format!(
        "{gone} are not in the binlogs any more, which begin after them: what they did is not known"
    ))
}

fn copy(
    local: &mut Login<'_>,
    first: &str,
    walk: &mut Walk,
    events: &mut Digested,
    text: &mut BufWriter<File>,
) -> Result<(), String> {
    let session = local.server.session().map_err(|error| error.to_string())?;
    let stream = session.events(first).map_err(|error| error.to_string())?;
    let mut last_format = None;
    text.write_all(PREAMBLE.as_bytes()).map_err(|error| error.to_string())?;
    let mut tables: BTreeMap<(String, String), Columns> = BTreeMap::new();
    let mut columns = |schema: &str, table: &str| {
        let key = (schema.to_owned(), table.to_owned());
        tables.entry(key).or_insert_with(|| read_columns(local, schema, table)).clone()
    };
    for event in stream {
        let event = event.map_err(|error| error.to_string())?;
        let format = format(&event);
        if format.is_some() && format != last_format {
            let magic = if last_format.is_none() { MAGIC } else { &[] };
            let written = events.write_all(magic).and_then(|()| events.write_all(&bytes(&event)));
            written.map_err(|error| error.to_string())?;
            last_format = format;
        }
        if let Some(words) = walk.take(&event, &mut columns)? {
            let written = events.write_all(&bytes(&event));
            written.and_then(|()| text.write_all(words.as_bytes())).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// None where the server does not tell: the values are written without names then.
fn read_columns(local: &mut Login<'_>, schema: &str, table: &str) -> Columns {
    let sql = format!(
        "SELECT COLUMN_NAME AS name, COALESCE(CHARACTER_SET_NAME, '') AS charset, \
         COLUMN_TYPE AS type, COLUMN_KEY AS k, EXTRA AS extra FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA={} AND TABLE_NAME={} ORDER BY ORDINAL_POSITION",
        quote(schema),
        quote(table)
    );
    let Ok(rows) = local.ask(&sql) else { return Columns::new() };
    let column = |row| {
        let text = |name| rows.value(row, &[name]).unwrap_or_default();
        let extra = text("extra").to_ascii_uppercase();
        Column {
            name: text("name").to_owned(),
            charset: text("charset").to_owned(),
            kind: text("type").to_ascii_lowercase(),
            is_key: text("k") == "PRI",
            is_generated: ["VIRTUAL ", "STORED ", "PERSISTENT"].iter().any(|it| extra.contains(it)),
        }
    };
    (0..rows.rows.len()).map(column).collect()
}

/// What a table may hide: rows that changed without an event, or that no rollback brings back.
fn obstacle_of_tables(local: &mut Login<'_>, found: &Found) -> Result<Option<String>, String> {
    for (schema, table) in found.changed.union(&found.filled) {
        let (schema_text, table_text) = (quote(schema), quote(table));
        let engine = local.ask(&format!(
            "SELECT ENGINE AS engine, TABLE_TYPE AS type FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA={schema_text} AND TABLE_NAME={table_text}"
        ))?;
        match engine.value(0, &["engine"]) {
            Some("InnoDB") => {}
            Some(engine) => {
                return Ok(Some(format!("{schema}.{table} is of engine {engine}, not InnoDB")));
            }
            None => return Ok(Some(format!("{schema}.{table} is not there any more"))),
        }
        // MariaDB keeps what its rows were, and would keep this too.
        if engine.value(0, &["type"]) != Some("BASE TABLE") {
            return Ok(Some(format!("{schema}.{table} is system-versioned")));
        }
    }
    for (schema, table) in &found.changed {
        let (schema_text, table_text) = (quote(schema), quote(table));
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

/// What was saved in that directory, whole.
pub fn saved_in(directory: &Path) -> Result<Saved, String> {
    let parent = directory.parent().unwrap_or(directory);
    find(parent, |saved| Path::new(&saved.directory) == directory && is_whole(saved))
        .ok_or_else(|| format!("{}: nothing whole is saved here", directory.display()))
}

/// One at a time takes back: waits for its turn, which ends with the file.
pub fn take_turn(directory: &Path) -> Result<File, String> {
    let path = directory.join("lock");
    let open = || {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        io::Result::Ok(file)
    };
    open().map_err(|error| format!("{}: {error}", path.display()))
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

pub(super) fn ask(session: &mut Session, sql: &str) -> Result<Rows, String> {
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

const EVENTS: &str = "events.binlog";
const REPORT: &str = "report.json";
const DISCARDED: &str = "discarded";
/// Every binlog begins with it.
const MAGIC: &[u8] = b"\xfebin";
