//! Coverage marks: which cells of the pair's table were reached, seen in the node's debug log.
//!
//! In: log records of the target "pair" (`node::apply` writes one for every event it applies).
//! Out: the cells that do something and were never reached. Must not: keep anything else.
//! Read first: pair.rs; TigerBeetle's testing/marks.zig, where the idea is from.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tandem::pair::{Event, ROLES, next};

/// Cells, each with the lowest seed that reached it.
static SEEN: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// What this thread runs from here on.
pub fn begin(seed: u64) {
    SEED.set(seed);
}

struct Sink;

impl log::Log for Sink {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "pair"
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let cell = record.args().to_string();
            let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
            let lowest = seen.entry(cell).or_insert(u64::MAX);
            *lowest = SEED.get().min(*lowest);
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
            if (to != role || !acts.is_empty()) && !seen.contains_key(&cell) {
                cells.push(cell);
            }
        }
    }
    cells
}

/// Which cells are missing, and which took a seed beyond `sweep`.
pub fn report(sweep: u64) -> String {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let late: Vec<_> = seen.iter().filter(|(_, seed)| **seed > sweep).collect();
    let late = format!("cells reached late: {late:?}");
    drop(seen);
    format!("cells not reached: {:?}\n{late}", unreached())
}

/// Cells that the sweep does not reach, and why.
const EXPLAINED: &[(&str, &str)] = &[
    ("standby Diverged", "needs an administrator's write on the replica, which nobody makes here"),
    ("promoting Outranked", "a takeover raises its epoch above every one it heard"),
    ("promoting EpochOvertaken", "the same"),
    ("promoting PeerResigned", "judge_serving sees it as PeerReleased or PeerGone"),
    ("active PeerResigned", "the same"),
    ("promoting PromotionFailed", "judge::retry_promotion orders it again without the table"),
    ("demoting DatabaseLost", "no guard finds it: closing fails by its own time limit"),
    (
        "demoting HandoverOverdue",
        "a standby that hears the offer begins at once, and one that does \
      not hear it takes over on its own first",
    ),
];

pub fn check() {
    let expected: BTreeSet<String> = EXPLAINED.iter().map(|(cell, _)| (*cell).to_owned()).collect();
    let found: BTreeSet<String> = unreached().into_iter().collect();
    assert_eq!(found, expected, "cells that the sweep does not reach (left) and their list");
}
