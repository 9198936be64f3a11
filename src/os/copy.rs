//! Replaces everything in this host's database by a copy of the other host's, which serves on.
//!
//! In: two logins. Out: rows, progress. Must not: let a copy that was cut off pass for a whole one,
//! keep the source's writes waiting for longer than it says, change anything before it is known
//! that the copy can be had.
//! Read first: `repl::copy`; facts/repl.md 3.4 e).
//!
//! ```text
//!  source: lock -> snapshot, its position, all definitions -> unlock -> rows, table by table
//!  target: marker -> forget source, binlogs, position -> drop everything -> sequences, tables,
//!          rows, routines, accounts -> views, triggers, events -> position -> the marker goes
//! ```
//! Without the lock a table, an account or a view that is made meanwhile would be copied, and made
//! once more by replication. Where a table is not of InnoDB it is held until those are copied.
//!
//! This runs in a process of its own (`tandem reseed`), which ends with the daemon: a host whose
//! copy was cut off has the marker, and is neither attached nor promoted.

mod source;

use std::time::Instant;

use mysql::Value;

use self::source::{Definition, Source, Taken, inventory};
use super::errant::{Login, ask};
use super::mysql::{LocalServer, Session};
use crate::limits;
use crate::repl::copy::{self, Inventory, MARKER, Name, Table};
use crate::repl::{Flavour, Rows, quote_name};

/// Copies the database of `source` into that of `target`, which must be closed. `say` hears how far
/// it is, a sentence at a time.
///
/// # Errors
///
/// Why it could not be begun, or what cut it off, in a sentence.
pub fn copy(
    source: &LocalServer,
    target: &LocalServer,
    say: &mut dyn FnMut(String),
) -> Result<(), String> {
    let unlogged = target.unlogged();
    let mut target = Target::log_in(&unlogged)?;
    let mut source = Source::log_in(source)?;
    copy::are_alike(&version(&mut source.words)?, &version(&mut target.login)?)?;
    let taken = source.take(say)?;
    target.check(&taken.inventory)?;
    let total = taken.inventory.bytes();
    say(format!("copying {} MiB in {} tables", total >> 20, taken.tables.len()));
    let copied = target.empty().and_then(|()| {
        let progress = Progress { total, done: 0, said: Instant::now() };
        Copy { source: &mut source, target: &mut target, progress, say }.run(taken)
    });
    let closed = target.close();
    copied.and(closed)
}

fn version(login: &mut Login<'_>) -> Result<String, String> {
    let rows = login.ask("SELECT VERSION() AS version")?;
    Ok(rows.value(0, &["version"]).unwrap_or_default().to_owned())
}

fn texts<'a>(rows: &'a Rows, name: &'a str) -> impl Iterator<Item = &'a str> {
    (0..rows.rows.len()).map(move |row| rows.value(row, &[name]).unwrap_or_default())
}

/// The server that becomes a copy: one session for words, one for rows.
struct Target<'a> {
    login: Login<'a>,
    rows: Session,
}

impl<'a> Target<'a> {
    fn log_in(server: &'a LocalServer) -> Result<Self, String> {
        let mut login = Login::at(server)?;
        if !login.is_read_only()? {
            return Err("this database takes writes: it must be closed first".to_owned());
        }
        let rows = login.ask("SELECT GET_LOCK('tandem.copy', 0) AS is_mine")?;
        if rows.value(0, &["is_mine"]) != Some("1") {
            return Err("another copy is under way here".to_owned());
        }
        let rows = server.bulk_session(None).map_err(|error| error.to_string())?;
        Ok(Self { login, rows })
    }

    /// Whether rows of the source's system tables have their places here.
    fn check(&mut self, theirs: &Inventory) -> Result<(), String> {
        let mine = inventory(&mut self.login)?.system;
        for table in &theirs.system {
            if !mine.iter().any(|it| it.name == table.name && it.is_like(table)) {
                let name = &table.name.name;
                return Err(format!(
                    "mysql.{name} has other columns there than here: run mysql_upgrade on both"
                ));
            }
        }
        Ok(())
    }

    /// From here on nothing that was here comes back.
    fn empty(&mut self) -> Result<(), String> {
        let login = &mut self.login;
        if let Some(sql) = login.dialect.shut_out_administrators(false) {
            login.ask(&sql)?;
        }
        login.ask(TARGET_SESSION)?;
        for sql in [TARGET_SESSION, "SET NAMES binary"] {
            ask(&mut self.rows, sql)?;
        }
        if login.dialect.flavour() == Flavour::Mariadb {
            ask(&mut self.rows, "SET SESSION check_constraint_checks=0")?;
        }
        login.ask("CREATE DATABASE IF NOT EXISTS tandem")?;
        login.ask(&format!("CREATE TABLE IF NOT EXISTS {MARKER} (id INT) ENGINE=InnoDB"))?;
        login.leave_source()?;
        login.set_position("", true)?;
        let schemas = login.ask(&copy::schemas())?;
        for schema in texts(&schemas, "name") {
            login.ask(&format!("DROP DATABASE {}", quote_name(schema)))?;
        }
        Ok(())
    }

    /// Shut to administrators too, whatever came of the copy.
    fn close(&mut self) -> Result<(), String> {
        let Some(sql) = self.login.dialect.shut_out_administrators(true) else { return Ok(()) };
        Login::at(self.login.server)?.ask(&sql).map(drop)
    }
}

struct Progress {
    total: u64,
    done: u64,
    said: Instant,
}

struct Copy<'a, 'b> {
    source: &'a mut Source<'b>,
    target: &'a mut Target<'b>,
    progress: Progress,
    say: &'a mut dyn FnMut(String),
}

impl Copy<'_, '_> {
    fn run(mut self, taken: Taken) -> Result<(), String> {
        for sql in taken.schemas.values() {
            self.put(sql)?;
        }
        self.make_all(&taken.sequences)?;
        for (table, definition) in taken.inventory.tables.iter().zip(&taken.tables) {
            if table.is_transactional {
                self.source.unlock();
            }
            self.make(definition)?;
            self.copy_rows(table)?;
        }
        self.source.unlock();
        for (table, rows) in taken.inventory.system.iter().zip(taken.system) {
            self.replace_system_table(table, rows)?;
        }
        self.put("FLUSH PRIVILEGES")?;
        self.make_views(&taken.views)?;
        self.make_all(&taken.triggers)?;
        self.make_all(&taken.events)?;
        self.target.login.set_position(&taken.position, true)?;
        self.put(&format!("DROP TABLE {MARKER}"))
    }

    fn put(&mut self, sql: &str) -> Result<(), String> {
        self.target.login.ask(sql).map(drop)
    }

    fn make_all(&mut self, definitions: &[Definition]) -> Result<(), String> {
        definitions.iter().try_for_each(|definition| self.make(definition))
    }

    fn make(&mut self, definition: &Definition) -> Result<(), String> {
        let Definition { name, settings, sql } = definition;
        self.put(&format!("USE {}", quote_name(&name.schema)))?;
        if settings.is_empty() {
            return self.put(sql);
        }
        self.put(&format!("SET SESSION {settings}"))?;
        let made = self.put(sql);
        self.put(TARGET_SESSION)?;
        made
    }

    /// A view may need another one. One that needs what is gone cannot be made here either, and
    /// answers nothing there.
    fn make_views(&mut self, views: &[Definition]) -> Result<(), String> {
        let mut left: Vec<&Definition> = views.iter().collect();
        while !left.is_empty() {
            let mut failed = Vec::new();
            let before = left.len();
            for view in left {
                if let Err(why) = self.make(view) {
                    failed.push((view, why));
                }
            }
            if failed.len() == before {
                for (view, why) in failed {
                    (self.say)(format!("view {} is left out: {why}", view.name.quoted()));
                }
                return Ok(());
            }
            left = failed.into_iter().map(|(view, _)| view).collect();
        }
        Ok(())
    }

    /// Filled beside the one that is there, and put in its place: a server that ends in between has
    /// its accounts.
    fn replace_system_table(&mut self, table: &Table, rows: Vec<Vec<Value>>) -> Result<(), String> {
        let there = table.name.quoted();
        let [new, old] = ["", "_old"].map(|end| {
            let name = format!("{}{end}", table.name.name);
            Name::new("tandem", &name)
        });
        let old = old.quoted();
        self.put(&format!("DROP TABLE IF EXISTS {}, {old}", new.quoted()))?;
        self.put(&format!("CREATE TABLE {} LIKE {there}", new.quoted()))?;
        let mut batch = Batch::new(table, new.clone());
        for row in rows {
            batch.put(&mut self.target.rows, row)?;
        }
        batch.write(&mut self.target.rows)?;
        self.put(&format!("RENAME TABLE {there} TO {old}, {} TO {there}", new.quoted()))?;
        self.put(&format!("DROP TABLE {old}"))
    }

    fn copy_rows(&mut self, table: &Table) -> Result<(), String> {
        let Self { source, target, progress, say } = self;
        let mut batch = Batch::new(table, table.name.clone());
        source
            .scan(table, |row| {
                progress.done += row.iter().map(size).sum::<usize>() as u64;
                if progress.said.elapsed() >= limits::COPY_PROGRESS_INTERVAL {
                    progress.said = Instant::now();
                    let share = (progress.done * 100 / progress.total.max(1)).min(99);
                    say(format!("about {share} % copied, in {}", table.name.quoted()));
                }
                batch.put(&mut target.rows, row)
            })
            .map_err(|why| format!("{}: {why}", table.name.quoted()))?;
        batch.write(&mut target.rows)
    }
}

/// Rows on their way to one table.
struct Batch<'a> {
    table: &'a Table,
    place: Name,
    rows_max: usize,
    values: Vec<Value>,
    rows: usize,
    bytes: usize,
}

impl<'a> Batch<'a> {
    fn new(table: &'a Table, place: Name) -> Self {
        let rows_max = (limits::COPY_VALUES_MAX / table.width()).clamp(1, limits::COPY_ROWS_MAX);
        Self { table, place, rows_max, values: Vec::new(), rows: 0, bytes: 0 }
    }

    fn put(&mut self, session: &mut Session, row: Vec<Value>) -> Result<(), String> {
        self.bytes += row.iter().map(size).sum::<usize>();
        self.rows += 1;
        self.values.extend(row);
        if self.rows < self.rows_max && self.bytes < limits::COPY_BYTES_MAX {
            return Ok(());
        }
        self.write(session)
    }

    fn write(&mut self, session: &mut Session) -> Result<(), String> {
        let (values, rows) = (std::mem::take(&mut self.values), self.rows);
        (self.rows, self.bytes) = (0, 0);
        if rows == 0 {
            return Ok(());
        }
        let failed = |why: String| format!("{}: {why}", self.place.quoted());
        let sql = self.table.insert(&self.place, rows);
        let warnings = session.execute(&sql, values).map_err(|error| failed(error.to_string()))?;
        if warnings == 0 {
            return Ok(());
        }
        let shown = ask(session, "SHOW WARNINGS")?;
        for row in 0..shown.rows.len() {
            let text = |name| shown.value(row, &[name]).unwrap_or_default();
            let is_empty_choice = text("Code") == DATA_TRUNCATED && self.table.has_choices();
            if text("Level") != "Note" && !is_empty_choice {
                return Err(failed(format!("a row is not the same here: {}", text("Message"))));
            }
        }
        Ok(())
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Bytes(bytes) => bytes.len(),
        Value::NULL
        | Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::Double(_)
        | Value::Date(..)
        | Value::Time(..) => 1,
    }
}

/// For words; rows go as bytes of no character set.
const TARGET_SESSION: &str = "SET SESSION sql_mode='NO_AUTO_VALUE_ON_ZERO', time_zone='+00:00', \
    foreign_key_checks=0, unique_checks=0, character_set_client=utf8mb4, \
    collation_connection=utf8mb4_general_ci";

/// WARN_DATA_TRUNCATED.
const DATA_TRUNCATED: &str = "1265";
