//! The server that is copied: everything that is defined there, and a snapshot of its rows.
//!
//! In: a login. Out: `Taken`, of one moment; rows, for as long as the snapshot is wanted.
//! Must not: keep writes waiting for longer than that moment, or tables from being changed after
//! they were copied.

use std::collections::BTreeMap;
use std::time::Duration;

use mysql::Value;

use super::texts;
use crate::limits;
use crate::os::errant::Login;
use crate::os::mysql::LocalServer;
use crate::repl::copy::{self, Inventory, Name, Table};
use crate::repl::{Flavour, Rows, ServerError, quote, quote_name};

/// One session for words, one that holds the snapshot.
pub(super) struct Source<'a> {
    pub(super) words: Login<'a>,
    rows: Login<'a>,
    /// Held while tables are copied that no snapshot holds.
    lock: Option<Login<'a>>,
}

/// What there was at the moment of the snapshot.
pub(super) struct Taken {
    pub(super) position: String,
    pub(super) inventory: Inventory,
    /// By names of databases: what makes them.
    pub(super) schemas: BTreeMap<String, String>,
    pub(super) sequences: Vec<Definition>,
    /// In the order of the inventory.
    pub(super) tables: Vec<Definition>,
    pub(super) views: Vec<Definition>,
    /// In the order in which they fire.
    pub(super) triggers: Vec<Definition>,
    pub(super) events: Vec<Definition>,
    /// Rows of the inventory's system tables, in its order.
    pub(super) system: Vec<Vec<Vec<Value>>>,
}

/// An object, and what makes it.
pub(super) struct Definition {
    pub(super) name: Name,
    /// With which settings of a session, as SET has them; none: it does not matter.
    pub(super) settings: String,
    pub(super) sql: String,
}

impl<'a> Source<'a> {
    pub(super) fn log_in(server: &'a LocalServer) -> Result<Self, String> {
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
        Ok(Self { words, rows, lock: None })
    }

    /// While it looks nothing is written or defined there.
    pub(super) fn take(&mut self, say: &mut dyn FnMut(String)) -> Result<Taken, String> {
        self.lock = Some(lock(self.words.server, say)?);
        let before = self.words.ask(self.words.dialect.statements().variables)?;
        self.rows.ask("START TRANSACTION WITH CONSISTENT SNAPSHOT")?;
        self.rows.ask("SAVEPOINT began")?;
        let position = match self.words.dialect.flavour() {
            Flavour::Mysql => {
                let position = before.value(0, &["position"]).unwrap_or_default();
                position.replace(['\n', '\r'], "")
            }
            Flavour::Mariadb => {
                let before = ["position", "replica_position"]
                    .map(|name| before.value(0, &[name]).unwrap_or_default());
                let at = self.position_of_snapshot()?;
                copy::state_at(&before, &at).map_err(|wrong| wrong.to_string())?
            }
        };
        if position.is_empty() {
            return Err("the database to copy has no position: its binlog is empty".to_owned());
        }
        let taken = self.define(position)?;
        if taken.inventory.is_transactional() {
            self.unlock();
        }
        Ok(taken)
    }

    pub(super) fn unlock(&mut self) {
        self.lock = None;
    }

    /// Every row, as the snapshot has it; afterwards the table may be changed again.
    pub(super) fn scan(
        &mut self,
        table: &Table,
        take: impl FnMut(Vec<Value>) -> Result<(), String>,
    ) -> Result<(), String> {
        self.rows.session.scan(&table.select(), take)?;
        self.rows.ask("ROLLBACK TO SAVEPOINT began").map(drop)
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

    fn define(&mut self, position: String) -> Result<Taken, String> {
        let inventory = inventory(&mut self.words)?;
        let names = |tables: &[Table]| -> Vec<Name> {
            tables.iter().map(|table| table.name.clone()).collect()
        };
        let mut sequences =
            self.definitions("SEQUENCE", &inventory.sequences, &["Create Table"])?;
        for sequence in &mut sequences {
            let name = sequence.name.quoted();
            let sql = format!("SELECT next_not_cached_value AS next FROM {name}");
            let rows = self.words.ask(&sql)?;
            let next = rows.value(0, &["next"]).unwrap_or_default();
            sequence.sql += &format!("; SELECT SETVAL({name}, {next}, 0)");
        }
        let triggers = self.names(&copy::triggers())?;
        let events = self.names(&copy::events())?;
        let mut system = Vec::new();
        for table in &inventory.system {
            let mut rows = Vec::new();
            self.scan(table, |row| {
                rows.push(row);
                Ok(())
            })?;
            system.push(rows);
        }
        Ok(Taken {
            position,
            schemas: self.schemas()?,
            sequences,
            tables: self.definitions("TABLE", &names(&inventory.tables), &["Create Table"])?,
            views: self.definitions("VIEW", &inventory.views, &["Create View"])?,
            triggers: self.definitions("TRIGGER", &triggers, &["SQL Original Statement"])?,
            events: self.definitions("EVENT", &events, &["Create Event"])?,
            system,
            inventory,
        })
    }

    fn schemas(&mut self) -> Result<BTreeMap<String, String>, String> {
        let schemas = self.words.ask(&copy::schemas())?;
        let mut found = BTreeMap::new();
        for schema in texts(&schemas, "name") {
            let sql = format!("SHOW CREATE DATABASE {}", quote_name(schema));
            let rows = self.words.ask(&sql)?;
            let sql = rows.value(0, &["Create Database"]).unwrap_or_default();
            found.insert(schema.to_owned(), sql.to_owned());
        }
        Ok(found)
    }

    fn names(&mut self, sql: &str) -> Result<Vec<Name>, String> {
        let rows = self.words.ask(sql)?;
        let names = texts(&rows, "s").zip(texts(&rows, "name"));
        Ok(names.map(|(schema, name)| Name::new(schema, name)).collect())
    }

    /// What SHOW CREATE says of each. `columns`: where the answer has it.
    fn definitions(
        &mut self,
        kind: &str,
        names: &[Name],
        columns: &[&str],
    ) -> Result<Vec<Definition>, String> {
        let mut found = Vec::new();
        for name in names {
            // What is of its own database is told without its name.
            self.words.ask(&format!("USE {}", quote_name(&name.schema)))?;
            let sql = format!("SHOW CREATE {kind} {}", quote_name(&name.name));
            let rows = self.words.ask(&sql)?;
            let Some(sql) = rows.value(0, columns) else {
                return Err(format!("{kind} {}: its definition is not shown", name.quoted()));
            };
            let (settings, sql) = (settings(&rows), sql.to_owned());
            found.push(Definition { name: name.clone(), settings, sql });
        }
        Ok(found)
    }
}

/// Those of its session that are part of an object.
fn settings(rows: &Rows) -> String {
    let names = ["sql_mode", "time_zone", "collation_connection"];
    let setting = |name: &str| Some(format!("{name}={}", quote(rows.value(0, &[name])?)));
    names.into_iter().filter_map(setting).collect::<Vec<_>>().join(", ")
}

pub(super) fn inventory(login: &mut Login<'_>) -> Result<Inventory, String> {
    let tables = login.ask(&copy::tables())?;
    Inventory::parse(&tables, &login.ask(&copy::columns())?)
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

/// ER_LOCK_WAIT_TIMEOUT.
const LOCK_WAIT_TIMEOUT: u16 = 1205;
