//! JSON values of row events in words.
//!
//! In: MySQL's binary JSON. Out: an expression that makes the same value. Must not: follow values
//! deeper into each other than a server lets them be.
//! Read first: the MySQL source code documentation, "json_binary.h".

use std::io;

use mysql_common::binlog::decimal::Decimal;
use mysql_common::binlog::jsonb::{JsonbToJsonError, ObjectKey, OpaqueValue, Value};
use mysql_common::binlog::time::MysqlTime;
use mysql_common::constants::ColumnType;

use super::super::quote;
use super::row::check_decimal;

/// What a JSON column takes.
pub(super) fn literal(value: &Value<'_>) -> io::Result<String> {
    expression(value, quote)
}

/// What compares with a JSON value, or stands in one: text would be a string.
pub(super) fn comparable(value: &Value<'_>) -> io::Result<String> {
    expression(value, |text| format!("CAST({} AS JSON)", quote(text)))
}

fn expression(value: &Value<'_>, of_text: impl Fn(&str) -> String) -> io::Result<String> {
    let made = made(value, 0)?;
    Ok(match text(value)? {
        Some(text) => of_text(&text),
        // A scalar alone is not JSON yet.
        None if matches!(value, Value::Opaque(_)) => format!("CAST({made} AS JSON)"),
        None => made,
    })
}

/// JSON text, unless a value in it has a type that JSON has not, a DECIMAL or a DATE, and would
/// lose it. Depth is judged by `made`, which is asked first.
fn text(value: &Value<'_>) -> io::Result<Option<String>> {
    match serde_json::Value::try_from(value.clone()) {
        Ok(json) => Ok(Some(json.to_string())),
        Err(JsonbToJsonError::Opaque) => Ok(None),
        Err(error @ (JsonbToJsonError::InvalidJsonb(_) | JsonbToJsonError::InvalidUtf8(_))) => {
            Err(io::Error::other(error))
        }
    }
}

/// An expression of MySQL's functions.
fn made(value: &Value<'_>, depth: usize) -> io::Result<String> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other("JSON that is too deep"));
    }
    let array = |items: &mut dyn Iterator<Item = io::Result<Value<'_>>>| {
        let made: io::Result<Vec<String>> = items.map(|item| made(&item?, depth + 1)).collect();
        Ok(format!("JSON_ARRAY({})", made?.join(", ")))
    };
    let object = |items: &mut dyn Iterator<Item = io::Result<(ObjectKey<'_>, Value<'_>)>>| {
        let pair = |item: io::Result<(ObjectKey<'_>, Value<'_>)>| {
            let (key, value) = item?;
            let key = quote(&String::from_utf8_lossy(key.value_raw()));
            Ok(format!("{key}, {}", made(&value, depth + 1)?))
        };
        let made: io::Result<Vec<String>> = items.map(pair).collect();
        Ok(format!("JSON_OBJECT({})", made?.join(", ")))
    };
    Ok(match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(is_true) => is_true.to_string(),
        Value::I16(number) => number.to_string(),
        Value::U16(number) => number.to_string(),
        Value::I32(number) => number.to_string(),
        Value::U32(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
        Value::U64(number) => number.to_string(),
        Value::F64(number) => format!("{number:e}"),
        Value::String(text) => quote(&text.str()),
        Value::SmallArray(items) => return array(&mut items.iter()),
        Value::LargeArray(items) => return array(&mut items.iter()),
        Value::SmallObject(items) => return object(&mut items.iter()),
        Value::LargeObject(items) => return object(&mut items.iter()),
        Value::Opaque(value) => opaque(value)?,
    })
}

fn opaque(value: &OpaqueValue<'_>) -> io::Result<String> {
    let data = value.data_raw();
    let packed = || {
        let bytes = data.get(..8).and_then(|bytes| bytes.try_into().ok());
        let packed = bytes.map(i64::from_le_bytes).filter(|it| it.checked_abs().is_some());
        packed.ok_or_else(|| io::Error::other("no time"))
    };
    let kind = value.value_type();
    Ok(if matches!(kind, ColumnType::MYSQL_TYPE_NEWDECIMAL) {
        if let &[precision, scale, ref digits @ ..] = data {
            check_decimal(digits, precision.into(), scale.into())?;
        }
        Decimal::read_packed(data, false)?.to_string()
    } else if matches!(kind, ColumnType::MYSQL_TYPE_DATE) {
        format!("CAST('{}' AS DATE)", MysqlTime::from_int64_date_packed(packed()?))
    } else if matches!(kind, ColumnType::MYSQL_TYPE_TIME) {
        format!("CAST('{:.6}' AS TIME(6))", MysqlTime::from_int64_time_packed(packed()?))
    } else if matches!(kind, ColumnType::MYSQL_TYPE_DATETIME | ColumnType::MYSQL_TYPE_TIMESTAMP) {
        format!("CAST('{:.6}' AS DATETIME(6))", MysqlTime::from_int64_datetime_packed(packed()?))
    } else {
        let digits: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("x'{digits}'")
    })
}

/// MySQL's own bound.
const DEPTH_MAX: usize = 100;
