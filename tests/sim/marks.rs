//! Coverage marks: which cells of the pair's table were reached, seen in the node's debug log.
//!
//! In: log records of the target "pair" (`node::apply` writes one for every event it applies).
//! Out: the cells that do something and were never reached. Must not: keep anything else.
//! Read first: pair.rs; TigerBeetle's testing/marks.zig, where the idea is from.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tandem::pair::{Event, ROLES, next};

static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

struct Sink;

impl log::Log for Sink {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "pair"
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let cell = record.args().to_string();
            SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(cell);
        }
    }

    fn flush(&self) {}
}

pub fn install() {
    if log::set_logger(&Sink).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}

fn unreached() -> Vec<String> {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut cells = Vec::new();
    for role in ROLES {
        for event in Event::ALL {
            let (to, acts) = next(role, event);
            let cell = format!("{role} {event:?}");
            if (to != role || !acts.is_empty()) && !seen.contains(&cell) {
                cells.push(cell);
            }
        }
    }
    cells
}

pub fn report() -> String {
    format!("cells not reached: {:?}", unreached())
}

/// Cells that the sweep does not reach, and why.
const EXPLAINED: &[(&str, &str)] = &[];

pub fn check() {
    let expected: BTreeSet<String> = EXPLAINED.iter().map(|(cell, _)| (*cell).to_owned()).collect();
    let found: BTreeSet<String> = unreached().into_iter().collect();
    assert_eq!(found, expected, "cells that the sweep does not reach (left) and their list");
}
