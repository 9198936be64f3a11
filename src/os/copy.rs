//! Replaces everything in this host's database by a copy of the other host's, which serves on.
//!
//! In: two logins. Out: rows, progress. Must not: let a copy that was cut off pass for a whole one,
//! keep the source's writes waiting for longer than it says, change anything before it is known
//! that the copy can be had.
//! Read first: `repl::copy`; facts/repl.md 3.4 e).
//!
//! ```text
//!  source: look -> [lock] -> snapshot and its position -> [unlock] -> rows, table by table
//!  target: marker -> forget source, binlogs, position -> drop everything -> sequences, tables,
//!          rows, routines, accounts -> views, triggers, events -> position -> the marker goes
//! ```
//! The lock is a MySQL's alone, for the moment in which the snapshot begins: nothing there tells
//! which transactions a snapshot holds. Where a table is not of InnoDB it is held until those are
//! copied, and no write is done meanwhile.
//!
//! This runs in a process of its own (`tandem reseed`), which ends with the daemon: a host whose
//! copy was cut off has the marker, and is neither attached nor promoted.

use std::time::{Duration, Instant};

use mysql::Value;

use super::errant::{Login, ask};
use super::mysql::{LocalServer, Session};
use crate::limits;
use crate::repl::copy::{self, Inventory, MARKER, Name, Table};
use crate::repl::{Flavour, Rows, ServerError, quote, quote_name};

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
    let inventory = inventory(&mut source.words)?;
    target.check(&inventory)?;
    source.begin(inventory.is_transactional(), say)?;
    say(format!("copying {} MiB in {} tables", inventory.bytes() >> 20, inventory.tables.len()));
    let copied = target.empty().and_then(|()| {
        let progress = Progress { total: inventory.bytes(), done: 0, said: Instant::now() };
        Copy { source: &mut source, target: &mut target, progress, say }.run(&inventory)
    });
    let closed = target.close();
    copied.and(closed)
}

fn version(login: &mut Login<'_>) -> Result<String, String> {
    let rows = login.ask("SELECT VERSION() AS version")?;
    Ok(rows.value(0, &["version"]).unwrap_or_default().to_owned())
}

fn inventory(login: &mut Login<'_>) -> Result<Inventory, String> {
    let tables = login.ask(&copy::tables())?;
    Inventory::parse(&tables, &login.ask(&copy::columns())?)
}

fn texts<'a>(rows: &'a Rows, name: &'a str) -> impl Iterator<Item = &'a str> {
    (0..rows.rows.len()).map(move |row| rows.value(row, &[name]).unwrap_or_default())
}

/// The server that serves: one session for words, one that holds the snapshot.
struct Source<'a> {
    words: Login<'a>,
    rows: Login<'a>,
    lock: Option<Login<'a>>,
    /// What the snapshot holds.
    position: String,
}

impl<'a> Source<'a> {
    fn log_in(server: &'a LocalServer) -> Result<Self, String> {
        let failed = |why: String| format!("the database to copy: {why}");
        let bulk = || {
            let session = server.bulk_session(Some(limits::COPY_SILENCE_MAX));
            session.map_err(|error| failed(error.to_string()))
        };
        let mut words = Login::at(server).map_err(failed)?;
        words.session = bulk()?;
        words.ask("SET SESSION sql_quote_show_create=1")?;
        let mut rows = Login { server, session: bulk()?, dialect: words.dialect };
        rows.ask("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")?;
        rows.ask(
            "SET SESSION time_zone='+00:00', net_write_timeout=3600, character_set_results=NULL",
        )?;
        Ok(Self { words, rows, lock: None, position: String::new() })
    }

    fn begin(&mut self, is_transactional: bool, say: &mut dyn FnMut(String)) -> Result<(), String> {
        let flavour = self.words.dialect.flavour();
        if !is_transactional || flavour == Flavour::Mysql {
            self.lock = Some(lock(self.words.server, say)?);
        }
        let before = self.words.ask(self.words.dialect.statements().variables)?;
        self.rows.ask("START TRANSACTION WITH CONSISTENT SNAPSHOT")?;
        self.position = match flavour {
            Flavour::Mysql => {
                let rows = self.rows.ask("SELECT @@GLOBAL.gtid_executed AS position")?;
                rows.value(0, &["position"]).unwrap_or_default().replace(['\n', '\r'], "")
            }
            Flavour::Mariadb => {
                let before = ["position", "replica_position"]
                    .map(|name| before.value(0, &[name]).unwrap_or_default());
                let at = self.position_of_snapshot()?;
                copy::state_at(&before, &at).map_err(|wrong| wrong.to_string())?
            }
        };
        if is_transactional {
            self.lock = None;
        }
        if self.position.is_empty() {
            return Err("the database to copy has no position: its binlog is empty".to_owned());
        }
        Ok(())
    }

    /// MariaDB keeps where in the binlog a session's snapshot is.
    fn position_of_snapshot(&mut self) -> Result<String, String> {
        let rows = self.rows.ask("SHOW STATUS LIKE 'binlog\\_snapshot\\_%'")?;
        let find = |name: &str| {
            let row = (0..rows.rows.len()).find(|&row| {
                rows.value(row, &["Variable_name"]).is_some_and(|it| it.eq_ignore_ascii_case(name))
            })?;
            rows.value(row, &["Value"]).filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let (Some(file), Some(offset)) =
            (find("Binlog_snapshot_file"), find("Binlog_snapshot_position"))
        else {
            return Err("the database to copy does not tell where its snapshot is".to_owned());
        };
        let sql = format!("SELECT BINLOG_GTID_POS({}, {}) AS position", quote(&file), offset);
        let rows = self.words.ask(&sql)?;
        Ok(rows.value(0, &["position"]).unwrap_or_default().to_owned())
    }
}

/// Nothing is written until this goes. It is not waited for long: while it is wanted, writes wait
/// behind whatever keeps it.
fn lock<'a>(server: &'a LocalServer, say: &mut dyn FnMut(String)) -> Result<Login<'a>, String> {
    let mut login = Login::at(server)?;
    login.ask(&format!("SET SESSION lock_wait_timeout={}", limits::COPY_LOCK_SECONDS))?;
    for _ in 0..limits::COPY_LOCK_TRIES {
        match login.session.query("FLUSH TABLES WITH READ LOCK") {
            Ok(_) => return Ok(login),
            Err(ServerError::Refused { code: LOCK_WAIT_TIMEOUT, .. }) => {
                say("a statement that runs long on the other host keeps the copy waiting".into());
                std::thread::sleep(Duration::from_secs(limits::COPY_LOCK_SECONDS * 5));
            }
            Err(error) => return Err(format!("locking the tables for a moment: {error}")),
        }
    }
    Err("the tables could not be locked for a moment: a statement runs too long there".to_owned())
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
    fn run(mut self, inventory: &Inventory) -> Result<(), String> {
        self.make_schemas()?;
        for sequence in &inventory.sequences {
            self.make_sequence(sequence)?;
        }
        for table in &inventory.tables {
            if table.is_transactional {
                self.source.lock = None;
            }
            self.make("TABLE", &table.name, &["Create Table"])?;
            self.copy_rows(table, &table.name)?;
        }
        self.source.lock = None;
        for table in &inventory.system {
            self.replace_system_table(table)?;
        }
        self.put("FLUSH PRIVILEGES")?;
        self.make_views(&inventory.views)?;
        self.make_triggers()?;
        self.make_events()?;
        let position = self.source.position.clone();
        self.target.login.set_position(&position, true)?;
        self.put(&format!("DROP TABLE {MARKER}"))
    }

    fn put(&mut self, sql: &str) -> Result<(), String> {
        self.target.login.ask(sql).map(drop)
    }

    fn make_schemas(&mut self) -> Result<(), String> {
        let schemas = self.source.words.ask(&copy::schemas())?;
        for schema in texts(&schemas, "name") {
            let sql = format!("SHOW CREATE DATABASE {}", quote_name(schema));
            let rows = self.source.words.ask(&sql)?;
            self.put(rows.value(0, &["Create Database"]).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Names within its own database are said without it, on both sides.
    fn enter(&mut self, schema: &str) -> Result<(), String> {
        let sql = format!("USE {}", quote_name(schema));
        self.source.words.ask(&sql)?;
        self.put(&sql)
    }

    /// What SHOW CREATE says of it there, done here. `columns`: where the answer has it.
    fn make(&mut self, kind: &str, name: &Name, columns: &[&str]) -> Result<(), String> {
        self.enter(&name.schema)?;
        let sql = format!("SHOW CREATE {kind} {}", quote_name(&name.name));
        let rows = self.source.words.ask(&sql)?;
        let Some(sql) = rows.value(0, columns) else {
            return Err(format!("{kind} {}: its definition is not shown", name.quoted()));
        };
        // Which of our settings it was made with is part of it.
        let setting = |column: &str, variable: &str| {
            let value = rows.value(0, &[column])?;
            Some(format!("{variable}={}", quote(value)))
        };
        let settings: Vec<String> = [
            setting("sql_mode", "sql_mode"),
            setting("time_zone", "time_zone"),
            setting("collation_connection", "collation_connection"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let sql = sql.to_owned();
        if settings.is_empty() {
            return self.put(&sql);
        }
        self.put(&format!("SET SESSION {}", settings.join(", ")))?;
        let made = self.put(&sql);
        self.put(TARGET_SESSION)?;
        made
    }

    fn make_sequence(&mut self, name: &Name) -> Result<(), String> {
        self.make("SEQUENCE", name, &["Create Table", "Create Sequence"])?;
        let quoted = name.quoted();
        let sql = format!("SELECT next_not_cached_value AS next FROM {quoted}");
        let rows = self.source.words.ask(&sql)?;
        let next = rows.value(0, &["next"]).unwrap_or_default();
        self.put(&format!("SELECT SETVAL({quoted}, {next}, 0)"))
    }

    /// A view may need another one. One that needs what is gone cannot be made here either, and
    /// answers nothing there.
    fn make_views(&mut self, views: &[Name]) -> Result<(), String> {
        let mut left: Vec<&Name> = views.iter().collect();
        while !left.is_empty() {
            let mut failed = Vec::new();
            let before = left.len();
            for name in left {
                if let Err(why) = self.make("VIEW", name, &["Create View"]) {
                    failed.push((name, why));
                }
            }
            if failed.len() == before {
                for (name, why) in failed {
                    (self.say)(format!("view {} is left out: {why}", name.quoted()));
                }
                return Ok(());
            }
            left = failed.into_iter().map(|(name, _)| name).collect();
        }
        Ok(())
    }

    fn make_triggers(&mut self) -> Result<(), String> {
        let own = copy::OWN_SCHEMAS;
        let rows = self.source.words.ask(&format!(
            "SELECT TRIGGER_SCHEMA AS s, TRIGGER_NAME AS name FROM information_schema.TRIGGERS \
             WHERE TRIGGER_SCHEMA NOT IN ({own}) ORDER BY TRIGGER_SCHEMA, EVENT_OBJECT_TABLE, \
             ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER, CREATED, TRIGGER_NAME"
        ))?;
        self.make_all("TRIGGER", &rows, &["SQL Original Statement"])
    }

    fn make_events(&mut self) -> Result<(), String> {
        let own = copy::OWN_SCHEMAS;
        let rows = self.source.words.ask(&format!(
            "SELECT EVENT_SCHEMA AS s, EVENT_NAME AS name FROM information_schema.EVENTS \
             WHERE EVENT_SCHEMA NOT IN ({own}) ORDER BY EVENT_SCHEMA, EVENT_NAME"
        ))?;
        self.make_all("EVENT", &rows, &["Create Event"])
    }

    fn make_all(&mut self, kind: &str, rows: &Rows, columns: &[&str]) -> Result<(), String> {
        for (schema, name) in texts(rows, "s").zip(texts(rows, "name")) {
            self.make(kind, &Name::new(schema, name), columns)?;
        }
        Ok(())
    }

    /// Filled beside the one that is there, and put in its place: a server that ends in between has
    /// its accounts.
    fn replace_system_table(&mut self, table: &Table) -> Result<(), String> {
        let name = &table.name.name;
        let (there, new, old) = (
            table.name.quoted(),
            Name::new("tandem", name),
            Name::new("tandem", &format!("{name}_old")),
        );
        let (new_name, old_name) = (new.quoted(), old.quoted());
        self.put(&format!("DROP TABLE IF EXISTS {new_name}, {old_name}"))?;
        self.put(&format!("CREATE TABLE {new_name} LIKE {there}"))?;
        self.copy_rows(table, &new)?;
        self.put(&format!("RENAME TABLE {there} TO {old_name}, {new_name} TO {there}"))?;
        self.put(&format!("DROP TABLE {old_name}"))
    }

    fn copy_rows(&mut self, table: &Table, place: &Name) -> Result<(), String> {
        let Self { source, target, progress, say } = self;
        let rows_max = (limits::COPY_VALUES_MAX / table.width()).clamp(1, limits::COPY_ROWS_MAX);
        let mut batch = Batch { values: Vec::new(), rows: 0, bytes: 0 };
        let named = |why: String| format!("{}: {why}", table.name.quoted());
        let scanned = source.rows.session.scan(&table.select(), |row| {
            let bytes: usize = row.iter().map(size).sum();
            progress.done += bytes as u64;
            batch.bytes += bytes;
            batch.rows += 1;
            batch.values.extend(row);
            if batch.rows < rows_max && batch.bytes < limits::COPY_BYTES_MAX {
                return Ok(());
            }
            if progress.said.elapsed() >= limits::COPY_PROGRESS_INTERVAL {
                progress.said = Instant::now();
                let share = (progress.done * 100 / progress.total.max(1)).min(99);
                say(format!("about {share} % copied, in {}", table.name.quoted()));
            }
            batch.write(&mut target.rows, table, place)
        });
        scanned.map_err(named)?;
        batch.write(&mut target.rows, table, place).map_err(named)
    }
}

/// Rows on their way.
struct Batch {
    values: Vec<Value>,
    rows: usize,
    bytes: usize,
}

impl Batch {
    fn write(&mut self, session: &mut Session, table: &Table, place: &Name) -> Result<(), String> {
        let (values, rows) = (std::mem::take(&mut self.values), self.rows);
        (self.rows, self.bytes) = (0, 0);
        if rows == 0 {
            return Ok(());
        }
        let sql = table.insert(place, rows);
        let warnings = session.execute(&sql, values).map_err(|error| error.to_string())?;
        if warnings == 0 {
            return Ok(());
        }
        let shown = ask(session, "SHOW WARNINGS")?;
        for row in 0..shown.rows.len() {
            let text = |name| shown.value(row, &[name]).unwrap_or_default();
            let is_empty_choice = text("Code") == DATA_TRUNCATED && table.has_choices();
            if text("Level") != "Note" && !is_empty_choice {
                return Err(format!("a row is not the same here: {}", text("Message")));
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

/// ER_LOCK_WAIT_TIMEOUT.
const LOCK_WAIT_TIMEOUT: u16 = 1205;
/// WARN_DATA_TRUNCATED.
const DATA_TRUNCATED: &str = "1265";
