//! What drivers and command line clients say before they let anybody speak, at the admin port.
//!
//! In: the words of a statement. Out: a plausible answer, or nothing. Must not: change anything.
//! Read first: facts/sql.md 1.2: Atlas refuses these, so that many drivers cannot even log in.

use super::table::{Table, Type};

/// One word of a statement: as it is compared, and as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub upper: String,
    pub written: String,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    pub version: &'a str,
    pub user: &'a str,
    pub thread: u32,
}

/// `SHOW VARIABLES LIKE ...` and its like: there are none, under the names that a server gives.
#[must_use]
pub fn show(what: &str) -> Option<Table> {
    let names: &[&str] = match what {
        "VARIABLES" | "STATUS" => &["Variable_name", "Value"],
        "COLLATION" => &["Collation", "Charset", "Id", "Default", "Compiled", "Sortlen"],
        "CHARACTER" | "CHARSET" => &["Charset", "Description", "Default collation", "Maxlen"],
        "ENGINES" => &["Engine", "Support", "Comment"],
        "PLUGINS" => &["Name", "Status", "Type", "Library", "License"],
        "DATABASES" | "SCHEMAS" => &["Database"],
        "TABLES" => &["Tables"],
        _ => return None,
    };
    Some(Table::new(&names.iter().map(|name| (*name, Type::Text)).collect::<Vec<_>>()))
}

/// `SELECT @@a, @@session.b AS c LIMIT 1` and the functions that clients ask for at connect, the
/// word SELECT taken off.
#[must_use]
pub fn select(words: &[Word], asker: Asker<'_>) -> Option<Table> {
    let words = match words {
        [front @ .., limit, _] if limit.upper == "LIMIT" => front,
        all => all,
    };
    let mut table = Table::default();
    let mut values = Vec::new();
    for item in words.split(|word| word.upper == ",") {
        let (expression, alias) = match item {
            [expression @ .., word, alias] if word.upper == "AS" => (expression, Some(alias)),
            all => (all, None),
        };
        let uppers: Vec<&str> = expression.iter().map(|word| word.upper.as_str()).collect();
        let value = match uppers.as_slice() {
            [variable] if variable.starts_with("@@") => Some(variable_value(variable, asker)),
            ["DATABASE" | "SCHEMA", "(", ")"] => None,
            ["VERSION", "(", ")"] => Some(asker.version.to_owned()),
            ["USER" | "CURRENT_USER" | "SESSION_USER", "(", ")"] | ["CURRENT_USER"] => {
                Some(asker.user.to_owned())
            }
            ["CONNECTION_ID", "(", ")"] => Some(asker.thread.to_string()),
            [number] if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some((*number).to_owned())
            }
            _ => return None,
        };
        let name = alias.map_or_else(
            || expression.iter().map(|word| word.written.as_str()).collect(),
            |alias| alias.written.trim_matches(['`', '\'', '"']).to_owned(),
        );
        table.columns.push((name, Type::Text));
        values.push(value);
    }
    table.rows.push(values);
    Some(table)
}

fn variable_value(variable: &str, asker: Asker<'_>) -> String {
    let name = variable.trim_start_matches('@').rsplit('.').next().unwrap_or_default();
    let value = match name {
        "VERSION_COMMENT" => "tandem",
        "VERSION" => asker.version,
        "SQL_MODE" | "INIT_CONNECT" => "",
        "LICENSE" => "MIT OR Apache-2.0",
        "MAX_ALLOWED_PACKET" => "1048576",
        "WAIT_TIMEOUT" | "INTERACTIVE_TIMEOUT" => "28800",
        "NET_WRITE_TIMEOUT" => "60",
        "NET_BUFFER_LENGTH" => "16384",
        "TIME_ZONE" | "SYSTEM_TIME_ZONE" => "SYSTEM",
        "TX_ISOLATION" | "TRANSACTION_ISOLATION" => "REPEATABLE-READ",
        "AUTOCOMMIT" | "AUTO_INCREMENT_INCREMENT" => "1",
        "QUERY_CACHE_TYPE" => "OFF",
        name if name.starts_with("CHARACTER_SET") => "utf8",
        name if name.starts_with("COLLATION") => "utf8_general_ci",
        _ => "0",
    };
    value.to_owned()
}
