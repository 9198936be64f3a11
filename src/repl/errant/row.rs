//! Row images: the cells of each, and where it ends.
//!
//! In: row events with their table maps. Out: cells in the table's order, a byte range an image.
//! Must not: panic on any bytes.
//! Read first: the MySQL source code documentation, "Rows_log_event" (bitmaps, images).
//! Differs: `BinlogRow` of `mysql_common` does the same for whole rows. It does not say which
//! columns an image that is not full has, and reads TIME(1) and TIME(2) wrong below zero; so it is
//! only asked for cells here.

use std::io;
use std::ops::Range;

use mysql_common::binlog::decimal::decimal_bin_size;
use mysql_common::binlog::events::{OptionalMetaExtractor, RowsEventData, TableMapEvent};
use mysql_common::binlog::misc::time_from_packed;
use mysql_common::binlog::row::BinlogRow;
use mysql_common::binlog::value::BinlogValue;
use mysql_common::constants::ColumnType;
use mysql_common::io::ParseBuf;

/// One value.
#[derive(Debug)]
pub(super) struct Cell {
    /// Of its column in the table, from 0.
    pub(super) index: usize,
    pub(super) kind: ColumnType,
    pub(super) value: BinlogValue<'static>,
}

/// What stands before a change, or after it.
#[derive(Debug, Default)]
pub(super) struct Image {
    /// Where its bytes are in the event's rows; empty where the event has no such image.
    pub(super) bytes: Range<usize>,
    pub(super) cells: Vec<Cell>,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) before: Option<Image>,
    pub(super) after: Option<Image>,
}

/// How the values of a column are written.
struct Shape<'a> {
    kind: ColumnType,
    meta: &'a [u8],
    is_unsigned: bool,
}

/// The rows of an event, to its last byte.
pub(super) fn rows(event: &RowsEventData<'_>, table: &TableMapEvent<'_>) -> io::Result<Vec<Row>> {
    let is_partial = matches!(event, RowsEventData::PartialUpdateRowsEvent(_));
    let shapes = shapes(table)?;
    if event.num_columns() != table.columns_count() {
        return Err(malformed("another number of columns than its table has"));
    }
    let present = |columns: Option<Vec<usize>>| {
        columns.map(|it| it.into_iter().filter(|&index| index < shapes.len()).collect::<Vec<_>>())
    };
    let before_columns = present(event.columns_before_image().map(|it| it.iter_ones().collect()));
    let after_columns = present(event.columns_after_image().map(|it| it.iter_ones().collect()));
    let whole = event.rows_data();
    let mut rest = ParseBuf(whole);
    let mut found = Vec::new();
    while !rest.is_empty() {
        let start = whole.len() - rest.len();
        let before = match &before_columns {
            Some(columns) => Some(image(whole, &mut rest, columns, &shapes)?),
            None => None,
        };
        let after = match (&after_columns, event.columns_after_image()) {
            (Some(columns), Some(bits)) if is_partial => {
                let from = whole.len() - rest.len();
                let row = rest.parse::<BinlogRow>((event.num_columns(), bits, true, table))?;
                Some(partial_image(from..whole.len() - rest.len(), row, columns, &shapes))
            }
            (Some(columns), _) => Some(image(whole, &mut rest, columns, &shapes)?),
            (None, _) => None,
        };
        if whole.len() - rest.len() == start {
            return Err(malformed("a row of no length"));
        }
        found.push(Row { before, after });
    }
    Ok(found)
}

fn image<'a>(
    whole: &[u8],
    rest: &mut ParseBuf<'a>,
    columns: &[usize],
    shapes: &[Shape<'a>],
) -> io::Result<Image> {
    let start = whole.len() - rest.len();
    let nulls = take(rest, columns.len().div_ceil(8))?;
    let mut cells = Vec::with_capacity(columns.len());
    for (place, &index) in columns.iter().enumerate() {
        let shape = shapes.get(index).ok_or_else(|| malformed("a column too many"))?;
        let is_null = nulls.get(place / 8).is_some_and(|byte| byte >> (place % 8) & 1 == 1);
        let value = if is_null {
            BinlogValue::Value(mysql_common::value::Value::NULL)
        } else {
            value(rest, shape)?
        };
        cells.push(Cell { index, kind: shape.kind, value });
    }
    Ok(Image { bytes: start..whole.len() - rest.len(), cells })
}

/// Only to be shown: a partial update is not taken back.
fn partial_image(
    bytes: Range<usize>,
    mut row: BinlogRow,
    columns: &[usize],
    shapes: &[Shape<'_>],
) -> Image {
    let cell = |(place, &index): (usize, &usize)| {
        let value = row.take(place)?.into_owned();
        Some(Cell { index, kind: shapes.get(index)?.kind, value })
    };
    let cells = columns.iter().enumerate().filter_map(cell).collect();
    Image { bytes, cells }
}

fn value<'a>(rest: &mut ParseBuf<'a>, shape: &Shape<'a>) -> io::Result<BinlogValue<'static>> {
    let &Shape { kind, meta, is_unsigned } = shape;
    if let (ColumnType::MYSQL_TYPE_TIME2, &[1 | 2]) = (kind, meta) {
        let bytes = take(rest, 4)?;
        let number = bytes.iter().fold(0i64, |number, byte| number << 8 | i64::from(*byte));
        // Hours, minutes and seconds, then hundredths; half of the range is below zero.
        let number = number - (1 << 31);
        let (whole, hundredths) = (number.abs() >> 8, number.abs() & 0xff);
        let packed = (whole << 24) + hundredths * 10_000;
        return Ok(BinlogValue::Value(time_from_packed(packed * number.signum())));
    }
    if let (ColumnType::MYSQL_TYPE_NEWDECIMAL, &[precision, scale]) = (kind, meta) {
        check_decimal(rest.0, precision.into(), scale.into())?;
    }
    if matches!(kind, ColumnType::MYSQL_TYPE_DATETIME2)
        && rest.0.first().is_some_and(|byte| byte & 0x80 == 0)
    {
        return Err(malformed("a moment before the first"));
    }
    let parsed: BinlogValue<'a> = rest.parse((kind, meta, is_unsigned, false))?;
    Ok(parsed.into_owned())
}

/// What `mysql_common` takes on trust: that the parts of a DECIMAL are parts of one, and that the
/// last digits behind the point, in a group of their own, are no more than these.
pub(super) fn check_decimal(bytes: &[u8], precision: usize, scale: usize) -> io::Result<()> {
    if scale > precision || precision > DECIMAL_DIGITS_MAX {
        return Err(malformed("no decimal number"));
    }
    const BYTES_OF_DIGITS: [usize; 9] = [0, 1, 1, 2, 2, 3, 3, 4, 4];
    let size = decimal_bin_size(precision, scale);
    let (digits, cut_off) = (scale % 9, || malformed("a row is cut off"));
    let length = BYTES_OF_DIGITS.get(digits).copied().unwrap_or(0);
    let group = bytes.get(size.saturating_sub(length)..size).ok_or_else(cut_off)?;
    // Of a number below zero every bit is turned over; the first of all is, of the others.
    let is_negative = bytes.first().is_some_and(|byte| byte & 0x80 == 0);
    let is_first = size == length;
    let mut number = 0u32;
    for (index, byte) in group.iter().enumerate() {
        let byte = if is_first && index == 0 { byte ^ 0x80 } else { *byte };
        number = number << 8 | u32::from(if is_negative { !byte } else { byte });
    }
    let is_possible = u32::try_from(digits).is_ok_and(|digits| number < 10u32.pow(digits));
    if is_possible || length == 0 { Ok(()) } else { Err(malformed("no decimal number")) }
}

fn take<'a>(rest: &mut ParseBuf<'a>, count: usize) -> io::Result<&'a [u8]> {
    rest.checked_eat(count).ok_or_else(|| malformed("a row is cut off"))
}

fn shapes<'a>(table: &'a TableMapEvent<'_>) -> io::Result<Vec<Shape<'a>>> {
    let count = usize::try_from(table.columns_count()).unwrap_or(usize::MAX);
    let optional = OptionalMetaExtractor::new(table.iter_optional_meta())?;
    let mut signs = optional.iter_signedness();
    let mut shapes = Vec::new();
    for index in 0..count {
        let kind = table.get_column_type(index);
        let kind = kind.map_err(io::Error::other)?.ok_or_else(|| malformed("too few columns"))?;
        let meta = table.get_column_metadata(index).unwrap_or_default();
        if !is_described(kind, meta) {
            return Err(malformed("a column is not described"));
        }
        let is_unsigned = kind.is_numeric_type() && signs.next().unwrap_or_default();
        shapes.push(Shape { kind, meta, is_unsigned });
    }
    Ok(shapes)
}

/// Whether `BinlogValue` finds what it takes for granted.
fn is_described(kind: ColumnType, meta: &[u8]) -> bool {
    use ColumnType as Kind;
    let needed = if matches!(
        kind,
        Kind::MYSQL_TYPE_STRING
            | Kind::MYSQL_TYPE_BIT
            | Kind::MYSQL_TYPE_NEWDECIMAL
            | Kind::MYSQL_TYPE_ENUM
            | Kind::MYSQL_TYPE_SET
            | Kind::MYSQL_TYPE_VARCHAR
            | Kind::MYSQL_TYPE_VAR_STRING
    ) {
        2
    } else if matches!(
        kind,
        Kind::MYSQL_TYPE_TINY_BLOB
            | Kind::MYSQL_TYPE_BLOB
            | Kind::MYSQL_TYPE_MEDIUM_BLOB
            | Kind::MYSQL_TYPE_LONG_BLOB
            | Kind::MYSQL_TYPE_GEOMETRY
            | Kind::MYSQL_TYPE_VECTOR
            | Kind::MYSQL_TYPE_TIME2
            | Kind::MYSQL_TYPE_DATETIME2
            | Kind::MYSQL_TYPE_TIMESTAMP2
            | Kind::MYSQL_TYPE_JSON
    ) {
        1
    } else {
        0
    };
    // An array is a type of indexes, and in no row.
    meta.len() >= needed && !matches!(kind, Kind::MYSQL_TYPE_TYPED_ARRAY)
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

const DECIMAL_DIGITS_MAX: usize = 65;
