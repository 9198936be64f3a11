//! Row events in words: SQL that an operator can read, and run again where it is wanted.
//!
//! In: row events, table maps, what the server says about columns. Out: statements.
//! Must not: lose a byte of a value (what is no plain text is written in hexadecimal), or write one
//! that would mean something else.
//!
//! A row without a key is looked for byte by byte: `=` of a collation would find another one.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use mysql_common::binlog::events::{RowsEventData, TableMapEvent};
use mysql_common::binlog::jsondiff::{JsonDiff, JsonDiffOperation};
use mysql_common::binlog::value::BinlogValue;
use mysql_common::constants::ColumnType;
use mysql_common::value::Value;

use super::super::{quote, quote_name};
use super::json;
use super::row::{Cell, Image, rows};

/// Says to a session how the statements are meant.
pub const PREAMBLE: &str = "SET NAMES utf8mb4;\n\
    SET SESSION time_zone='+00:00', sql_mode='NO_AUTO_VALUE_ON_ZERO';\n";

/// A column as information_schema knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Empty where the values are bytes.
    pub charset: String,
    /// As `SHOW COLUMNS` has it.
    pub kind: String,
    pub is_key: bool,
    /// The server computes it, and takes no value for it.
    pub is_generated: bool,
}

/// The columns of a table in order; none where the table is gone.
pub type Columns = Vec<Column>;

/// One statement a row, and how many these are.
pub(super) fn statements(
    event: &RowsEventData<'_>,
    table: &TableMapEvent<'_>,
    columns: &Columns,
) -> io::Result<(String, u64)> {
    let name =
        format!("{}.{}", quote_name(&table.database_name()), quote_name(&table.table_name()));
    // Another number of columns: the table was altered since.
    let is_known = u64::try_from(columns.len()) == Ok(event.num_columns());
    let words = Words { columns: if is_known { columns } else { &[] } };
    let (mut text, mut count) = (String::new(), 0);
    for row in rows(event, table)? {
        count += 1;
        text += &match (&row.before, &row.after) {
            (None, Some(after)) => {
                let (names, values): (Vec<_>, Vec<_>) = words.values(after)?.into_iter().unzip();
                let (names, values) = (names.join(", "), values.join(", "));
                format!("INSERT INTO {name} ({names}) VALUES ({values});\n")
            }
            (Some(before), None) => {
                format!("DELETE FROM {name} WHERE {} LIMIT 1;\n", words.place(before)?)
            }
            (Some(before), Some(after)) => {
                let values = words.values(after)?.into_iter();
                let set: Vec<String> = values.map(|(name, to)| format!("{name}={to}")).collect();
                let place = words.place(before)?;
                format!("UPDATE {name} SET {} WHERE {place} LIMIT 1;\n", set.join(", "))
            }
            (None, None) => String::new(),
        };
    }
    Ok((text, count))
}

/// What the columns of a table are called; empty where that is not known.
struct Words<'a> {
    columns: &'a [Column],
}

impl Words<'_> {
    fn column(&self, cell: &Cell) -> Option<&Column> {
        self.columns.get(cell.index)
    }

    fn name(&self, cell: &Cell) -> String {
        self.column(cell)
            .map_or_else(|| format!("@{}", cell.index + 1), |column| quote_name(&column.name))
    }

    /// Names and values, without what the server computes.
    fn values(&self, image: &Image) -> io::Result<Vec<(String, String)>> {
        let mut values = Vec::new();
        for cell in &image.cells {
            let column = self.column(cell);
            if column.is_some_and(|column| column.is_generated) {
                continue;
            }
            let name = self.name(cell);
            let value = match &cell.value {
                BinlogValue::JsonDiff(diffs) => difference(&name, diffs)?,
                BinlogValue::Value(_) | BinlogValue::Jsonb(_) => literal(cell, column)?,
            };
            values.push((name, value));
        }
        Ok(values)
    }

    /// Where the row is: by its key, or by everything.
    fn place(&self, image: &Image) -> io::Result<String> {
        let is_key = |cell: &&Cell| self.column(cell).is_some_and(|column| column.is_key);
        let has_key = image.cells.iter().any(|cell| is_key(&cell));
        let mut terms = Vec::new();
        for cell in image.cells.iter().filter(|cell| is_key(cell) || !has_key) {
            let column = self.column(cell);
            if !column.is_some_and(|column| column.is_generated && !column.is_key) {
                terms.push(term(self.name(cell), cell, column, has_key)?);
            }
        }
        Ok(terms.join(" AND "))
    }
}

fn term(name: String, cell: &Cell, column: Option<&Column>, is_key: bool) -> io::Result<String> {
    let has_charset = column.is_some_and(|column| !column.charset.is_empty());
    Ok(match &cell.value {
        BinlogValue::Jsonb(json) => format!("{name}<=>{}", json::comparable(json)?),
        // A column of four bytes is compared as one of eight.
        BinlogValue::Value(Value::Float(number)) => {
            format!("{name}<=>{:e}", f64::from(*number))
        }
        BinlogValue::Value(Value::Bytes(bytes))
            if is_string(cell.kind) && !is_key && has_charset =>
        {
            let charset = column.map_or("", |column| &column.charset);
            let value = plain_text(bytes, charset).unwrap_or_else(|| hexadecimal(bytes));
            format!("CAST({name} AS BINARY)<=>{value}")
        }
        // The binlog leaves the zero bytes out that fill a BINARY up.
        BinlogValue::Value(Value::Bytes(bytes)) if is_string(cell.kind) => {
            let kind = column.map_or("", |column| &column.kind);
            let length = kind.strip_prefix("binary(").and_then(|rest| rest.strip_suffix(')'));
            let mut bytes = bytes.clone();
            bytes.resize(bytes.len().max(length.and_then(|it| it.parse().ok()).unwrap_or(0)), 0);
            format!("{name}<=>{}", string(&bytes, column))
        }
        BinlogValue::Value(_) | BinlogValue::JsonDiff(_) => {
            format!("{name}<=>{}", literal(cell, column)?)
        }
    })
}

fn literal(cell: &Cell, column: Option<&Column>) -> io::Result<String> {
    let kind = cell.kind;
    let value = match &cell.value {
        BinlogValue::Value(value) => value,
        BinlogValue::Jsonb(json) => return json::literal(json),
        BinlogValue::JsonDiff(_) => return Err(io::Error::other("a part of a JSON value")),
    };
    let is_of = |kinds: &[&str]| column.is_some_and(|column| kinds.contains(&&*column.kind));
    if is_of(&OPAQUE) && *value != Value::NULL {
        return Err(io::Error::other("a type that has bytes of its own"));
    }
    let is_unsigned = column.is_some_and(|column| column.kind.contains("unsigned"));
    Ok(match (value, kind) {
        (Value::Int(number), _) if is_time(kind) => moment(&number.to_string()),
        (Value::Bytes(text), _) if is_time(kind) => moment(&String::from_utf8_lossy(text)),
        (Value::Int(number), _) if is_unsigned => unsigned(*number, kind).to_string(),
        // The sign of three bytes, which mysql_common leaves where it is.
        (Value::Int(number), ColumnType::MYSQL_TYPE_INT24) => (number << 40 >> 40).to_string(),
        (Value::Bytes(mask), ColumnType::MYSQL_TYPE_SET) => bits(mask.iter().rev()),
        (Value::Bytes(mask), ColumnType::MYSQL_TYPE_BIT) => bits(mask.iter()),
        // Its zero is not the year in which the others begin.
        (Value::Bytes(text), ColumnType::MYSQL_TYPE_YEAR) if text == b"1900" => "0".to_owned(),
        (Value::Bytes(text), ColumnType::MYSQL_TYPE_NEWDECIMAL | ColumnType::MYSQL_TYPE_YEAR) => {
            String::from_utf8_lossy(text).into_owned()
        }
        (Value::Bytes(bytes), _) => string(bytes, column),
        // Without an exponent it would be a DECIMAL, whose digits may not do.
        (Value::Float(number), _) => format!("{number:e}"),
        (Value::Double(number), _) => format!("{number:e}"),
        (Value::NULL | Value::Int(_) | Value::UInt(_) | Value::Date(..) | Value::Time(..), _) => {
            value.as_sql(false)
        }
    })
}

/// A partial update of a JSON column, as MySQL's own functions make it.
fn difference(name: &str, diffs: &[JsonDiff<'_>]) -> io::Result<String> {
    let mut made = name.to_owned();
    for diff in diffs {
        let path = quote(&diff.path_str());
        let operation = match diff.operation() {
            JsonDiffOperation::REMOVE => "REMOVE",
            JsonDiffOperation::REPLACE => "REPLACE",
            JsonDiffOperation::INSERT if path.ends_with("]'") => "ARRAY_INSERT",
            JsonDiffOperation::INSERT => "INSERT",
        };
        made = match diff.value() {
            Some(value) => {
                format!("JSON_{operation}({made}, {path}, {})", json::comparable(value)?)
            }
            None => format!("JSON_{operation}({made}, {path})"),
        };
    }
    Ok(made)
}

const fn is_time(kind: ColumnType) -> bool {
    matches!(kind, ColumnType::MYSQL_TYPE_TIMESTAMP | ColumnType::MYSQL_TYPE_TIMESTAMP2)
}

const fn is_string(kind: ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::MYSQL_TYPE_STRING
            | ColumnType::MYSQL_TYPE_VARCHAR
            | ColumnType::MYSQL_TYPE_VAR_STRING
            | ColumnType::MYSQL_TYPE_BLOB
    )
}

/// Seconds of a TIMESTAMP, which knows a zero that is no time.
fn moment(seconds: &str) -> String {
    if seconds == "0" { "0".to_owned() } else { format!("FROM_UNIXTIME({seconds})") }
}

fn bits<'a>(bytes: impl Iterator<Item = &'a u8>) -> String {
    bytes.fold(0u64, |bits, byte| bits << 8 | u64::from(*byte)).to_string()
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

fn string(bytes: &[u8], column: Option<&Column>) -> String {
    let charset = column.map_or("", |column| &column.charset);
    let introducer = if charset.is_empty() { String::new() } else { format!("_{charset} ") };
    plain_text(bytes, charset).unwrap_or_else(|| format!("{introducer}{}", hexadecimal(bytes)))
}

/// Where the bytes are the same in a session of utf8mb4, and can be read.
fn plain_text(bytes: &[u8], charset: &str) -> Option<String> {
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t' | '\r');
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.chars().all(is_plain))?;
    let is_like_ascii = text.is_ascii() && LIKE_ASCII.iter().any(|it| charset.starts_with(it));
    (charset.starts_with("utf8") || is_like_ascii).then(|| quote(text))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{digits}'")
}

pub(super) fn time(seconds: u32) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.into()))
}

/// The statement that the client sent.
pub(super) fn comment(text: &str) -> String {
    text.lines().map(|line| format!("-- {line}\n")).collect()
}

/// Character sets that hold ASCII's characters in ASCII's bytes.
const LIKE_ASCII: [&str; 4] = ["latin", "ascii", "cp1", "koi8"];
/// MariaDB's types whose bytes in a row are not those that it takes.
const OPAQUE: [&str; 3] = ["uuid", "inet4", "inet6"];
