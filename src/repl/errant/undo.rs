//! Undo: the event that takes another one back, as `mariadb-binlog --flashback` makes it.
//!
//! In: row events with their table maps. Out: the bytes of the reversed ones. Must not: give back
//! an event that it could not read to its end.
//! Read first: the MySQL source code documentation, "Rows_log_event" (post-header, bitmaps,
//! images).

use std::io;
use std::rc::Rc;

use mysql_common::binlog::consts::EventType;
use mysql_common::binlog::events::{Event, EventData, RowsEventData, TableMapEvent};
use mysql_common::binlog::row::BinlogRow;
use mysql_common::io::ParseBuf;

use super::bytes;

/// What to apply: a table map and the reversed rows of that table.
#[derive(Debug, Clone)]
pub struct Reversal {
    pub table_map: Rc<Vec<u8>>,
    pub rows: Vec<u8>,
}

/// The reversals of these events, in the order in which they are to be applied.
pub fn reversals(
    events: impl Iterator<Item = io::Result<Event>>,
    bytes_max: usize,
) -> Result<Vec<Reversal>, String> {
    let mut found = Vec::new();
    let mut tables: std::collections::BTreeMap<u64, (TableMapEvent<'static>, Rc<Vec<u8>>)> =
        std::collections::BTreeMap::new();
    let mut size = 0;
    for event in events {
        let event = event.map_err(|error| error.to_string())?;
        match event.read_data().map_err(|error| error.to_string())? {
            Some(EventData::TableMapEvent(table)) => {
                let map = Rc::new(bytes(&event));
                tables.insert(table.table_id(), (table.into_owned(), map));
            }
            Some(EventData::RowsEvent(rows)) => {
                let (table, map) = tables
                    .get(&rows.table_id())
                    .ok_or_else(|| format!("table {} is not named", rows.table_id()))?;
                let rows = reverse(&event, &rows, table)?;
                size += rows.len();
                if size > bytes_max {
                    return Err(format!("they are more than {} MiB", bytes_max >> 20));
                }
                found.push(Reversal { table_map: map.clone(), rows });
            }
            _ => {}
        }
    }
    found.reverse();
    Ok(found)
}

/// Why such an event cannot be taken back.
pub(super) fn check(kind: u8, rows: &RowsEventData<'_>) -> Result<(), &'static str> {
    if opposite(kind).is_none() {
        return Err("a partial update");
    }
    let images = [rows.columns_before_image(), rows.columns_after_image()];
    if images.into_iter().flatten().any(|columns| columns.not_all()) {
        return Err("its row images are not full (binlog_row_image)");
    }
    Ok(())
}

fn reverse(
    event: &Event,
    rows: &RowsEventData<'_>,
    table: &TableMapEvent<'_>,
) -> Result<Vec<u8>, String> {
    let kind = event.header().event_type_raw();
    check(kind, rows)?;
    let opposite = opposite(kind).ok_or("a partial update")?;
    let mut reversed = bytes(event);
    reversed[KIND_AT] = opposite;
    let low_flags = reversed.get_mut(FLAGS_AT).ok_or("it is cut off")?;
    // It stands alone, and its order against foreign keys is the reverse of the right one.
    *low_flags |= STATEMENT_END | NO_FOREIGN_KEY_CHECKS;
    let images = rows.rows_data();
    let start = HEADER_BYTES + event.data().len() - images.len();
    let swapped = order_rows(rows, table).map_err(|error| error.to_string())?;
    let place = reversed.get_mut(start..start + images.len()).ok_or("it is cut off")?;
    if swapped.len() != place.len() {
        return Err("its rows do not add up".to_owned());
    }
    place.copy_from_slice(&swapped);
    Ok(reversed)
}

/// The rows from the last to the first; of an update, what was after before what was before.
fn order_rows(rows: &RowsEventData<'_>, table: &TableMapEvent<'_>) -> io::Result<Vec<u8>> {
    let images = rows.rows_data();
    let mut rest = ParseBuf(images);
    let mut pieces: Vec<(&[u8], &[u8])> = Vec::new();
    while !rest.is_empty() {
        let mut ends = [images.len() - rest.len(); 3];
        let columns = [rows.columns_before_image(), rows.columns_after_image()];
        for (index, columns) in columns.into_iter().enumerate() {
            if let Some(columns) = columns {
                let _parsed: BinlogRow = rest.parse((rows.num_columns(), columns, false, table))?;
            }
            ends[index + 1] = images.len() - rest.len();
        }
        if ends[2] == ends[0] {
            return Err(io::Error::other("a row of no length"));
        }
        pieces.push((&images[ends[0]..ends[1]], &images[ends[1]..ends[2]]));
    }
    let mut swapped = Vec::with_capacity(images.len());
    for (before, after) in pieces.into_iter().rev() {
        swapped.extend_from_slice(after);
        swapped.extend_from_slice(before);
    }
    Ok(swapped)
}

const fn opposite(kind: u8) -> Option<u8> {
    const PAIRS: [(EventType, EventType); 6] = [
        (EventType::WRITE_ROWS_EVENT, EventType::DELETE_ROWS_EVENT),
        (EventType::DELETE_ROWS_EVENT, EventType::WRITE_ROWS_EVENT),
        (EventType::UPDATE_ROWS_EVENT, EventType::UPDATE_ROWS_EVENT),
        (EventType::WRITE_ROWS_EVENT_V1, EventType::DELETE_ROWS_EVENT_V1),
        (EventType::DELETE_ROWS_EVENT_V1, EventType::WRITE_ROWS_EVENT_V1),
        (EventType::UPDATE_ROWS_EVENT_V1, EventType::UPDATE_ROWS_EVENT_V1),
    ];
    let mut index = 0;
    while index < PAIRS.len() {
        if PAIRS[index].0 as u8 == kind {
            return Some(PAIRS[index].1 as u8);
        }
        index += 1;
    }
    None
}

/// The common header: timestamp, type, server, size, end, flags.
const HEADER_BYTES: usize = 19;
const KIND_AT: usize = 4;
/// After the six bytes of the table's number.
const FLAGS_AT: usize = HEADER_BYTES + 6;
/// STMT_END_F, NO_FOREIGN_KEY_CHECKS_F.
const STATEMENT_END: u8 = 1;
const NO_FOREIGN_KEY_CHECKS: u8 = 2;
