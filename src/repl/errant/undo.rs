//! Undo: the event that takes another one back, as `mariadb-binlog --flashback` makes it.
//!
//! In: row events with their table maps. Out: the bytes of the reversed ones. Must not: give back
//! an event that it could not read to its end.
//! Read first: the MySQL source code documentation, "Rows_log_event" (post-header, bitmaps,
//! images).

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use mysql_common::binlog::consts::EventType;
use mysql_common::binlog::events::{Event, EventData, RowsEventData, TableMapEvent};

use super::row::{Image, rows};
use super::{bytes, format};

/// What takes saved events back.
#[derive(Debug, Clone)]
pub struct Undo {
    /// How the server is to read the rest.
    pub format: Vec<u8>,
    /// In the order in which they are to be applied.
    pub reversals: Vec<Reversal>,
}

/// What to apply: a table map and the reversed rows of that table.
#[derive(Debug, Clone)]
pub struct Reversal {
    pub table_map: Rc<Vec<u8>>,
    pub rows: Vec<u8>,
}

/// What takes these events back. All of it is without checksums: the binlogs that they are from may
/// differ in that, and a server may verify what it is told (master_verify_checksum).
pub fn reversals(
    events: impl Iterator<Item = io::Result<Event>>,
    bytes_max: usize,
) -> Result<Undo, String> {
    let mut undo: Option<Undo> = None;
    let mut kind = Vec::new();
    let mut tables: BTreeMap<u64, (TableMapEvent<'static>, Rc<Vec<u8>>)> = BTreeMap::new();
    let mut size = 0;
    for event in events {
        let event = event.map_err(|error| error.to_string())?;
        if let Some(mut found) = format(&event) {
            found.pop();
            match &undo {
                None => {
                    let format = without_checksums(&event)?;
                    undo = Some(Undo { format, reversals: Vec::new() });
                    kind = found;
                }
                Some(_) if found == kind => {}
                Some(_) => return Err("they were written by two versions of the server".into()),
            }
        }
        let undo = undo.as_mut().ok_or("they have no format")?;
        match event.read_data().map_err(|error| error.to_string())? {
            Some(EventData::TableMapEvent(table)) => {
                let map = Rc::new(plain(&event));
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
                undo.reversals.push(Reversal { table_map: map.clone(), rows });
            }
            _ => {}
        }
    }
    let mut undo = undo.ok_or("they are empty")?;
    undo.reversals.reverse();
    Ok(undo)
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

/// How many rows it has, where they can be told from each other.
pub(super) fn count(event: &RowsEventData<'_>, table: &TableMapEvent<'_>) -> io::Result<u64> {
    Ok(rows(event, table)?.len().try_into().unwrap_or(u64::MAX))
}

pub(super) const fn is_insertion(kind: u8) -> bool {
    kind == EventType::WRITE_ROWS_EVENT as u8 || kind == EventType::WRITE_ROWS_EVENT_V1 as u8
}

fn reverse(
    event: &Event,
    event_rows: &RowsEventData<'_>,
    table: &TableMapEvent<'_>,
) -> Result<Vec<u8>, String> {
    let kind = event.header().event_type_raw();
    check(kind, event_rows)?;
    let images = event_rows.rows_data();
    let rows = rows(event_rows, table).map_err(|error| error.to_string())?;
    // From the last to the first; of an update, what was after before what was before.
    let mut swapped = Vec::with_capacity(images.len());
    for row in rows.iter().rev() {
        for Image { bytes, .. } in [&row.after, &row.before].into_iter().flatten() {
            swapped.extend_from_slice(images.get(bytes.clone()).unwrap_or_default());
        }
    }
    let mut reversed = plain(event);
    let start = reversed.len().checked_sub(images.len()).ok_or("it is cut off")?;
    let place = reversed.get_mut(start..).ok_or("it is cut off")?;
    if swapped.len() != place.len() {
        return Err("its rows do not add up".to_owned());
    }
    place.copy_from_slice(&swapped);
    *reversed.get_mut(KIND_AT).ok_or("it is cut off")? = opposite(kind).ok_or("it has none")?;
    let low_flags = reversed.get_mut(FLAGS_AT).ok_or("it is cut off")?;
    // It stands alone, and its order against foreign keys is the reverse of the right one.
    *low_flags |= STATEMENT_END | NO_FOREIGN_KEY_CHECKS;
    // Where the client did without, this does not.
    *low_flags &= !RELAXED_UNIQUE_CHECKS;
    Ok(reversed)
}

/// The event as it stands in a binlog of no checksums.
fn plain(event: &Event) -> Vec<u8> {
    let mut plain = bytes(event);
    plain.truncate(HEADER_BYTES + event.data().len());
    let size = u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes();
    if let Some(place) = plain.get_mut(SIZE_AT..SIZE_AT + size.len()) {
        place.copy_from_slice(&size);
    }
    plain
}

/// A format that says so. Its own checksum stays, unread, as servers write it.
fn without_checksums(event: &Event) -> Result<Vec<u8>, String> {
    let mut format = bytes(event);
    let algorithm = HEADER_BYTES + event.data().len();
    *format.get_mut(algorithm).ok_or("its format knows no checksums")? = 0;
    Ok(format)
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
const SIZE_AT: usize = 9;
/// After the six bytes of the table's number.
const FLAGS_AT: usize = HEADER_BYTES + 6;
/// STMT_END_F, NO_FOREIGN_KEY_CHECKS_F, RELAXED_UNIQUE_CHECKS_F.
const STATEMENT_END: u8 = 1;
const NO_FOREIGN_KEY_CHECKS: u8 = 2;
const RELAXED_UNIQUE_CHECKS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::super::tests::{SAVED, events};
    use super::*;

    fn all(saved: &[u8]) -> Undo {
        reversals(events(saved).into_iter().map(Ok), usize::MAX).expect("they are reversed")
    }

    /// A binlog of these events, in this order.
    fn binlog(undo: &Undo) -> Vec<u8> {
        let mut binlog = b"\xfebin".to_vec();
        binlog.extend_from_slice(&undo.format);
        for Reversal { table_map, rows } in &undo.reversals {
            binlog.extend_from_slice(table_map);
            binlog.extend_from_slice(rows);
        }
        binlog
    }

    #[test]
    fn a_reversal_reversed_is_the_event() {
        for (_, saved) in SAVED {
            let there = all(saved);
            let back = all(&binlog(&there));
            let rows = |event: &Event| match event.read_data().expect("it is parsed") {
                Some(EventData::RowsEvent(rows)) => {
                    Some((event.header().event_type_raw(), rows.rows_data().to_vec()))
                }
                _ => None,
            };
            let wanted: Vec<_> = events(saved).iter().filter_map(rows).collect();
            let found: Vec<_> = events(&binlog(&back)).iter().filter_map(rows).collect();
            assert_eq!(found, wanted);
            assert!(wanted.len() > 4);
        }
    }

    #[test]
    fn what_comes_last_is_taken_back_first() {
        for (_, saved) in SAVED {
            let kinds = |events: Vec<Event>| -> Vec<u8> {
                let kind = |event: &Event| event.header().event_type_raw();
                events.iter().map(kind).filter_map(opposite).collect()
            };
            let mut wanted: Vec<u8> = kinds(events(saved));
            wanted.reverse();
            let found: Vec<u8> =
                all(saved).reversals.iter().filter_map(|it| opposite(it.rows[KIND_AT])).collect();
            let found: Vec<u8> = found.into_iter().filter_map(opposite).collect();
            assert_eq!(found, wanted);
        }
    }

    #[test]
    fn a_reversal_says_its_own_length_and_has_no_checksum() {
        for (_, saved) in SAVED {
            let undo = all(saved);
            for event in undo.reversals.iter().flat_map(|it| [&*it.table_map, &it.rows]) {
                let size = u32::from_le_bytes(event[9..13].try_into().expect("four bytes"));
                assert_eq!(usize::try_from(size), Ok(event.len()));
            }
            assert_eq!(undo.format[undo.format.len() - 5], 0, "no checksums");
        }
    }

    #[test]
    fn refuses_events_of_two_formats() {
        let mut two = events(SAVED[1].1);
        two.extend(events(SAVED[2].1));
        let refused = reversals(two.into_iter().map(Ok), usize::MAX);
        assert!(refused.is_err_and(|why| why.contains("two versions")));
    }

    #[test]
    fn refuses_one_byte_above_the_bound() {
        let size: usize = all(SAVED[0].1).reversals.iter().map(|it| it.rows.len()).sum();
        let with = |bound| reversals(events(SAVED[0].1).into_iter().map(Ok), bound).is_ok();
        assert!(with(size) && !with(size - 1));
    }
}
