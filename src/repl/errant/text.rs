//! Row events in words: SQL that an operator can read, and run again where it is wanted.
//!
//! In: row events, table maps, what the server says about columns. Out: statements.
//! Must not: lose a byte of a value: what is no plain text is written in hexadecimal.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use mysql_common::binlog::events::{RowsEventData, TableMapEvent};
use mysql_common::binlog::row::BinlogRow;
use mysql_common::binlog::value::BinlogValue;
use mysql_common::constants::ColumnType;
use mysql_common::value::Value;

use super::super::{quote, quote_name};

/// A column as information_schema knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Empty where the values are bytes.
    pub charset: String,
    pub is_unsigned: bool,
    pub is_key: bool,
}

/// The columns of a table in order; none where the table is gone.
pub type Columns = Vec<Column>;

/// One statement a row, and how many these are.
pub(super) fn statements(
    rows: &RowsEventData<'_>,
    table: &TableMapEvent<'_>,
    columns: &Columns,
) -> io::Result<(String, u64)> {
    let name =
        format!("{}.{}", quote_name(&table.database_name()), quote_name(&table.table_name()));
    let count = usize::try_from(rows.num_columns()).unwrap_or(0);
    let unknown = |index| Column {
        name: format!("@{}", index + 1),
        charset: String::new(),
        is_unsigned: false,
        is_key: false,
    };
    // Another number of columns: the table was altered since.
    let columns: Columns =
        if columns.len() == count { columns.clone() } else { (0..count).map(unknown).collect() };
    let (mut text, mut rows_seen) = (String::new(), 0);
    for row in rows.rows(table) {
        rows_seen += 1;
        text += &match row? {
            (None, Some(after)) => {
                let cells = cells(&after, &columns);
                let names: Vec<&str> = cells.iter().map(|cell| cell.name.as_str()).collect();
                let values: Vec<&str> = cells.iter().map(|cell| cell.value.as_str()).collect();
                let (names, values) = (names.join(", "), values.join(", "));
                format!("INSERT INTO {name} ({names}) VALUES ({values});\n")
            }
            (Some(before), None) => {
                format!("DELETE FROM {name} WHERE {} LIMIT 1;\n", place(&before, &columns))
            }
            (Some(before), Some(after)) => {
                let set: Vec<String> = cells(&after, &columns)
                    .into_iter()
                    .map(|cell| format!("{}={}", cell.name, cell.value))
                    .collect();
                let place = place(&before, &columns);
                format!("UPDATE {name} SET {} WHERE {place} LIMIT 1;\n", set.join(", "))
            }
            (None, None) => String::new(),
        };
    }
    Ok((text, rows_seen))
}

struct Cell {
    name: String,
    value: String,
    is_key: bool,
}

fn cells(row: &BinlogRow, columns: &Columns) -> Vec<Cell> {
    // An image that is not full leaves columns out, and says which by their names alone.
    let is_full = row.len() == columns.len();
    let cell = |index: usize| {
        let value = row.as_ref(index)?;
        let kind = row.columns_ref().get(index)?.column_type();
        let (name, column) = match columns.get(index).filter(|_| is_full) {
            Some(column) if column.name.starts_with('@') => (column.name.clone(), Some(column)),
            Some(column) => (quote_name(&column.name), Some(column)),
            None => (row.columns_ref().get(index)?.name_str().into_owned(), None),
        };
        let value = literal(value, kind, column);
        Some(Cell { name, value, is_key: column.is_some_and(|column| column.is_key) })
    };
    (0..row.len()).filter_map(cell).collect()
}

/// Where the row is: by its key, or by everything.
fn place(row: &BinlogRow, columns: &Columns) -> String {
    let cells = cells(row, columns);
    let has_key = cells.iter().any(|cell| cell.is_key);
    let wanted = cells.iter().filter(|cell| cell.is_key || !has_key);
    wanted.map(|cell| format!("{}<=>{}", cell.name, cell.value)).collect::<Vec<_>>().join(" AND ")
}

fn literal(value: &BinlogValue<'_>, kind: ColumnType, column: Option<&Column>) -> String {
    let value = match value {
        BinlogValue::Value(value) => value,
        BinlogValue::Jsonb(json) => {
            return match serde_json::Value::try_from(json.clone()) {
                Ok(json) => quote(&json.to_string()),
                Err(_) => "NULL /* JSON that only events.binlog has */".to_owned(),
            };
        }
        BinlogValue::JsonDiff(_) => return "NULL /* part of a JSON value */".to_owned(),
    };
    match (value, kind) {
        (Value::Int(number), _) if is_time(kind) => moment(&number.to_string()),
        (Value::Bytes(text), _) if is_time(kind) => moment(&String::from_utf8_lossy(text)),
        (Value::Int(number), _) if column.is_some_and(|column| column.is_unsigned) => {
            unsigned(*number, kind).to_string()
        }
        // The sign of three bytes, which mysql_common leaves where it is.
        (Value::Int(number), ColumnType::MYSQL_TYPE_INT24) => (number << 40 >> 40).to_string(),
        (Value::Bytes(mask), ColumnType::MYSQL_TYPE_SET) => {
            let bits = mask.iter().rev().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            bits.to_string()
        }
        (Value::Bytes(text), ColumnType::MYSQL_TYPE_NEWDECIMAL | ColumnType::MYSQL_TYPE_YEAR) => {
            String::from_utf8_lossy(text).into_owned()
        }
        (Value::Bytes(bytes), _) => string(bytes, column.map_or("", |column| &column.charset)),
        (
            Value::NULL
            | Value::Int(_)
            | Value::UInt(_)
            | Value::Float(_)
            | Value::Double(_)
            | Value::Date(..)
            | Value::Time(..),
            _,
        ) => value.as_sql(false),
    }
}

const fn is_time(kind: ColumnType) -> bool {
    matches!(kind, ColumnType::MYSQL_TYPE_TIMESTAMP | ColumnType::MYSQL_TYPE_TIMESTAMP2)
}

/// Seconds of a TIMESTAMP, which knows a zero that is no time.
fn moment(seconds: &str) -> String {
    if seconds == "0" { "0".to_owned() } else { format!("FROM_UNIXTIME({seconds})") }
}

/// The event says only the bits.
const fn unsigned(number: i64, kind: ColumnType) -> u64 {
    let bits = if matches!(kind, ColumnType::MYSQL_TYPE_TINY) {
        8
    } else if matches!(kind, ColumnType::MYSQL_TYPE_SHORT) {
        16
    } else if matches!(kind, ColumnType::MYSQL_TYPE_INT24) {
        24
    } else if matches!(kind, ColumnType::MYSQL_TYPE_LONG) {
        32
    } else {
        64
    };
    number.cast_unsigned() & (u64::MAX >> (64 - bits))
}

fn string(bytes: &[u8], charset: &str) -> String {
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t' | '\r');
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.chars().all(is_plain));
    match text {
        Some(text) if charset.starts_with("utf8") || text.is_ascii() && !charset.is_empty() => {
            quote(text)
        }
        Some(_) | None => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let introducer =
                if charset.is_empty() { String::new() } else { format!("_{charset} ") };
            format!("{introducer}x'{hex}'")
        }
    }
}

pub(super) fn time(seconds: u32) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.into()))
}

/// The statement that the client sent.
pub(super) fn comment(text: &str) -> String {
    text.lines().map(|line| format!("-- {line}\n")).collect()
}
