//! A copy of another server's data by way of SQL: what is copied, and in which words.
//!
//! In: rows of information_schema. Out: tables with their SELECT and INSERT, or why a copy would
//! not be exact. Must not: talk to a server (`os::copy` does).
//! Read first: the MySQL manual, "mysqldump", whose `--single-transaction` this is; `reseed` for
//! servers that copy each other by themselves.
//! Differs: nothing passes through text. A row's values go as the bytes that the column holds, so
//! that no character set is converted, and a FLOAT as the DOUBLE that it is (a dump rounds it to
//! six digits, and a replica then does not find the row).

use std::fmt::Write as _;

use super::dialect::{quote_name, release};
use super::gtid::{BinlogState, Malformed};
use super::rows::Rows;

/// Databases of the server's own, and ours, as a list for IN.
pub const OWN_SCHEMAS: &str =
    "'mysql', 'information_schema', 'performance_schema', 'sys', 'tandem'";

/// Stands while a copy is not whole: a server with it is neither attached nor promoted.
pub const MARKER: &str = "tandem.unfinished_copy";

/// What of the server's own is copied: accounts and what they may do, routines, time zones. The
/// rest belongs to the host (plugins, logs, positions) or is counted anew (statistics). Events are
/// created, since the server reads their table at its start alone.
pub const SYSTEM_TABLES: [&str; 16] = [
    "user",
    "global_priv",
    "db",
    "host",
    "tables_priv",
    "columns_priv",
    "procs_priv",
    "proxies_priv",
    "roles_mapping",
    "proc",
    "servers",
    "time_zone",
    "time_zone_leap_second",
    "time_zone_name",
    "time_zone_transition",
    "time_zone_transition_type",
];

/// Databases to copy, one name a row.
#[must_use]
pub fn schemas() -> String {
    format!(
        "SELECT SCHEMA_NAME AS name FROM information_schema.SCHEMATA \
         WHERE SCHEMA_NAME NOT IN ({OWN_SCHEMAS}) ORDER BY SCHEMA_NAME"
    )
}

/// Tables, views and sequences in them, for `Inventory::parse`; of `mysql` the `SYSTEM_TABLES`.
#[must_use]
pub fn tables() -> String {
    let system = SYSTEM_TABLES.map(|name| format!("'{name}'")).join(", ");
    format!(
        "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS name, TABLE_TYPE AS type, ENGINE AS engine, \
         COALESCE(DATA_LENGTH, 0) AS bytes FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA NOT IN ({OWN_SCHEMAS}) \
         OR (TABLE_SCHEMA='mysql' AND TABLE_TYPE='BASE TABLE' AND TABLE_NAME IN ({system})) \
         ORDER BY TABLE_SCHEMA, TABLE_NAME"
    )
}

/// The columns of those.
#[must_use]
pub fn columns() -> String {
    format!(
        "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS name, COLUMN_NAME AS c, DATA_TYPE AS type, \
         EXTRA AS extra FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA='mysql' OR TABLE_SCHEMA NOT IN ({OWN_SCHEMAS}) \
         ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
    )
}

/// Triggers, those of one event in the order in which they fire.
#[must_use]
pub fn triggers() -> String {
    format!(
        "SELECT TRIGGER_SCHEMA AS s, TRIGGER_NAME AS name FROM information_schema.TRIGGERS \
         WHERE TRIGGER_SCHEMA NOT IN ({OWN_SCHEMAS}) ORDER BY TRIGGER_SCHEMA, \
         EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER, CREATED, TRIGGER_NAME"
    )
}

/// Events of the scheduler.
#[must_use]
pub fn events() -> String {
    format!(
        "SELECT EVENT_SCHEMA AS s, EVENT_NAME AS name FROM information_schema.EVENTS \
         WHERE EVENT_SCHEMA NOT IN ({OWN_SCHEMAS}) ORDER BY EVENT_SCHEMA, EVENT_NAME"
    )
}

/// A name of an object within its database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub schema: String,
    pub name: String,
}

impl Name {
    #[must_use]
    pub fn new(schema: &str, name: &str) -> Self {
        Self { schema: schema.to_owned(), name: name.to_owned() }
    }

    /// As SQL has it.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote_name(&self.schema), quote_name(&self.name))
    }
}

/// A table with rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: Name,
    columns: Vec<Column>,
    /// As far as the server knows.
    pub bytes: u64,
    /// A snapshot holds what it has: InnoDB.
    pub is_transactional: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    kind: Kind,
}

/// How a column's value is asked for and given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// As its bytes.
    Plain,
    /// As a double, which has all its digits.
    Float,
    /// As text: bytes of no character set would be refused, or taken for the value's own form.
    Text,
    /// As its bytes; the server warns where it holds a value that is none of its own.
    Choice,
}

impl Table {
    /// All rows; values in the order of `insert`.
    #[must_use]
    pub fn select(&self) -> String {
        let mut sql = "SELECT ".to_owned();
        for (index, column) in self.columns.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let more = if column.kind == Kind::Float { "+0e0" } else { "" };
            let _infallible = write!(sql, "{comma}{}{more}", quote_name(&column.name));
        }
        let _infallible = write!(sql, " FROM {}", self.name.quoted());
        sql
    }

    /// So many rows, as parameters of a statement, into `place`.
    #[must_use]
    pub fn insert(&self, place: &Name, rows: usize) -> String {
        let names: Vec<String> = self.columns.iter().map(|it| quote_name(&it.name)).collect();
        let places = self.columns.iter().map(|column| match column.kind {
            Kind::Text => "CONVERT(? USING utf8mb4)",
            Kind::Plain | Kind::Float | Kind::Choice => "?",
        });
        let row = format!("({})", places.collect::<Vec<_>>().join(","));
        let rows = vec![row; rows].join(",");
        format!("INSERT INTO {} ({}) VALUES {rows}", place.quoted(), names.join(","))
    }

    #[must_use]
    pub const fn width(&self) -> usize {
        self.columns.len()
    }

    /// Whether a warning that data was truncated may be about an empty ENUM, which is no loss.
    #[must_use]
    pub fn has_choices(&self) -> bool {
        self.columns.iter().any(|column| column.kind == Kind::Choice)
    }

    /// Whether the other's has the same columns.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.columns == other.columns
    }
}

/// All there is to copy.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Those that no snapshot holds come first.
    pub tables: Vec<Table>,
    /// Of the server's own.
    pub system: Vec<Table>,
    pub views: Vec<Name>,
    pub sequences: Vec<Name>,
}

impl Inventory {
    /// # Errors
    ///
    /// What cannot be copied as it is, by name.
    pub fn parse(tables: &Rows, columns: &Rows) -> Result<Self, String> {
        let mut found = Self::default();
        for row in 0..tables.rows.len() {
            let text = |name| tables.value(row, &[name]).unwrap_or_default();
            let name = Name::new(text("s"), text("name"));
            match text("type") {
                "BASE TABLE" if name.schema == "mysql" => {
                    found.system.push(Table::new(name, text("bytes"), text("engine")))
                }
                "BASE TABLE" => found.tables.push(Table::new(name, text("bytes"), text("engine"))),
                "VIEW" => found.views.push(name),
                "SEQUENCE" => found.sequences.push(name),
                other => {
                    let what = name.quoted();
                    return Err(format!("{what} is a {other}, which is not copied exactly here"));
                }
            }
        }
        found.take_columns(columns)?;
        found.tables.sort_by_key(|table| table.is_transactional);
        Ok(found)
    }

    fn take_columns(&mut self, columns: &Rows) -> Result<(), String> {
        let mut all: Vec<&mut Table> = self.tables.iter_mut().chain(&mut self.system).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        for row in 0..columns.rows.len() {
            let text = |name| columns.value(row, &[name]).unwrap_or_default();
            let name = Name::new(text("s"), text("name"));
            let Ok(index) = all.binary_search_by(|table| table.name.cmp(&name)) else { continue };
            let extra = text("extra").to_ascii_uppercase();
            if ["GENERATED", "VIRTUAL", "PERSISTENT"].iter().any(|word| extra.contains(word)) {
                continue;
            }
            let kind = Kind::of(text("type"));
            all[index].columns.push(Column { name: text("c").to_owned(), kind });
        }
        match all.into_iter().find(|table| table.columns.is_empty()) {
            Some(table) => Err(format!("{} has no columns to copy", table.name.quoted())),
            None => Ok(()),
        }
    }

    /// Bytes of all tables, as far as the server knows.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).sum()
    }

    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.tables.iter().all(|table| table.is_transactional)
    }
}

impl Table {
    fn new(name: Name, bytes: &str, engine: &str) -> Self {
        let is_transactional = engine.eq_ignore_ascii_case("InnoDB");
        Self { name, columns: Vec::new(), bytes: bytes.parse().unwrap_or(0), is_transactional }
    }
}

impl Kind {
    fn of(data_type: &str) -> Self {
        match data_type.to_ascii_lowercase().as_str() {
            "float" => Self::Float,
            "json" | "uuid" | "inet4" | "inet6" => Self::Text,
            "enum" | "set" => Self::Choice,
            _ => Self::Plain,
        }
    }
}

/// What a MariaDB had executed when a snapshot began: `at` is the newest of each domain then, which
/// comes last in its domain; `before`, the state of its binlog and its position as a replica a
/// moment earlier, has what others wrote than its only writer since.
///
/// # Errors
///
/// Text that is no position.
pub fn state_at(before: &[&str], at: &str) -> Result<String, Malformed> {
    let mut state = BinlogState::default();
    for text in before {
        state = state.union(&BinlogState::parse(text)?);
    }
    let writer = |entry: &str| entry.rsplit_once('-').map(|(writer, _)| writer.to_owned());
    let newest: Vec<&str> = at.split(',').filter(|entry| !entry.is_empty()).collect();
    let state = state.to_string();
    let older = state
        .split(',')
        .filter(|entry| !entry.is_empty() && !newest.iter().any(|it| writer(it) == writer(entry)));
    Ok(older.chain(newest.iter().copied()).collect::<Vec<_>>().join(","))
}

/// Whether rows of one's system tables are right in the other's: the first two numbers agree.
///
/// # Errors
///
/// Both versions in a sentence.
pub fn are_alike(there: &str, here: &str) -> Result<(), String> {
    let is_mariadb = |version: &str| version.contains("MariaDB");
    if release(there) == release(here) && is_mariadb(there) == is_mariadb(here) {
        return Ok(());
    }
    Err(format!(
        "the database to copy is {there} and this one {here}: a copy needs the same release, whose \
         first two numbers agree"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(columns: &[&str], rows: &[&[&str]]) -> Rows {
        Rows {
            columns: columns.iter().map(|it| (*it).to_owned()).collect(),
            rows: rows
                .iter()
                .map(|row| row.iter().map(|it| Some((*it).to_owned())).collect())
                .collect(),
        }
    }

    fn inventory(kind: &str) -> Result<Inventory, String> {
        let tables = rows(
            &["s", "name", "type", "engine", "bytes"],
            &[
                &["a", "t`", "BASE TABLE", "InnoDB", "7"],
                &["a", "old", "BASE TABLE", "MyISAM", "5"],
                &["a", "v", kind, "", "0"],
                &["mysql", "db", "BASE TABLE", "Aria", "1"],
            ],
        );
        let columns = rows(
            &["s", "name", "c", "type", "extra"],
            &[
                &["a", "old", "id", "int", ""],
                &["a", "t`", "f", "float", ""],
                &["a", "t`", "g", "int", "STORED GENERATED"],
                &["a", "t`", "u", "uuid", "INVISIBLE"],
                &["a", "v", "f", "float", ""],
                &["mysql", "db", "Host", "char", ""],
                &["mysql", "event", "db", "char", ""],
            ],
        );
        Inventory::parse(&tables, &columns)
    }

    #[test]
    fn rows_are_asked_for_and_given_column_by_column() {
        let found = inventory("VIEW").expect("copied");
        let names: Vec<&str> = found.tables.iter().map(|table| &*table.name.name).collect();
        assert_eq!(names, ["old", "t`"], "what no snapshot holds is first");
        let table = &found.tables[1];
        assert_eq!(table.select(), "SELECT `f`+0e0, `u` FROM `a`.`t```");
        assert_eq!(
            table.insert(&Name::new("b", "t"), 2),
            "INSERT INTO `b`.`t` (`f`,`u`) VALUES (?,CONVERT(? USING utf8mb4)),\
             (?,CONVERT(? USING utf8mb4))"
        );
        assert_eq!(found.system[0].select(), "SELECT `Host` FROM `mysql`.`db`");
        assert_eq!((found.views.len(), found.bytes(), found.is_transactional()), (1, 12, false));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let why = inventory("SYSTEM VERSIONED").expect_err("no history");
        assert_eq!(why, "`a`.`v` is a SYSTEM VERSIONED, which is not copied exactly here");
    }

    #[test]
    fn the_state_of_a_snapshot_has_all_writers_and_ends_with_the_newest() {
        let state = |before: &[&str], at| state_at(before, at).expect("positions");
        assert_eq!(state(&["0-1-15,0-2-17", "0-1-9,3-1-4"], "0-2-18"), "0-1-15,3-1-4,0-2-18");
        assert_eq!(state(&["0-1-15,0-2-12", ""], "0-1-15"), "0-2-12,0-1-15");
        assert!(state_at(&["x"], "").is_err());
    }

    #[test]
    fn a_copy_is_made_between_servers_of_one_release() {
        assert_eq!(are_alike("10.11.14-MariaDB-log", "5.5.5-10.11.3-MariaDB"), Ok(()));
        assert!(are_alike("10.11.14-MariaDB", "10.6.3-MariaDB").is_err());
        assert!(are_alike("5.6.24-log", "5.7.1").is_err());
    }
}
