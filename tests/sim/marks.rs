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

/// Cells that no run reaches, and why.
const EXPLAINED: &[(&str, &str)] = &[
    ("joining ForeignServes", "no keepalived here: both hosts run tandem"),
    ("standby Preempted", "the same"),
    ("standby Diverged", "needs an administrator's write on the replica, which nobody makes here"),
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

/// Runs of this many seeds reach every other cell; the fixed sweep misses those below, which take
/// two faults within one handover, or a rare order of three.
const LONG_RUN: usize = 2000;
const RARE: &[&str] = &[
    "standby FailoverForced",
    "promoting Outranked",
    "promoting EpochOvertaken",
    "promoting PeerServesWrongly",
    "promoting PeerReleased",
    "promoting PeerGone",
    "active Outranked",
    "active EpochOvertaken",
    "demoting CloseFailed",
    "refused ElectionWon",
    "refused FailoverForced",
];

pub fn check(seeds: usize) {
    let explained = EXPLAINED.iter().map(|(cell, _)| *cell);
    let rare = RARE.iter().filter(|_| seeds < LONG_RUN).copied();
    let expected: BTreeSet<&str> = explained.clone().chain(rare).collect();
    let found = unreached();
    let wrong: Vec<_> = found.iter().filter(|cell| !expected.contains(cell.as_str())).collect();
    assert!(wrong.is_empty(), "not reached, and not explained: {wrong:?}");
    let reached: Vec<_> = explained.filter(|cell| !found.iter().any(|f| f == cell)).collect();
    assert!(reached.is_empty(), "explained as out of reach, and reached: {reached:?}");
}
