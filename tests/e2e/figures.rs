//! Figures of one event, from the records of the load and the spans of the samplers.
//!
//! In: records, the event's moments. Out: numbers, as a table row and as JSON.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::load::{Kind, Record};

/// An event under load: when it began, when its window ends, when the addresses had moved.
#[derive(Debug, Clone)]
pub struct Event {
    pub name: &'static str,
    pub at: Instant,
    pub until: Instant,
    /// When the last virtual address was on its new host; the event's own moment if none moved.
    pub moved: Instant,
    /// The server whose first write ends the wait (as the page prints it).
    pub writer: &'static str,
}

/// What an event cost the visitors.
#[derive(Debug, Clone)]
pub struct Figures {
    pub name: &'static str,
    pub vip: Duration,
    /// From the event to the first write acknowledged by its writer; none if there was none.
    pub first_write: Option<Duration>,
    pub gap: [Duration; 3],
    pub failed: [usize; 3],
    /// Of the failed ones, those that began after the addresses had moved.
    pub failed_after: [usize; 3],
    pub requests: [usize; 3],
    pub lost: usize,
    /// Distinct reasons of failures, a few.
    pub reasons: Vec<String>,
}

const REASONS_MAX: usize = 6;
/// Announcements need a moment to reach the client's neighbour table.
const ANNOUNCE: Duration = Duration::from_millis(100);

impl Figures {
    pub fn of(event: &Event, records: &[Record], lost: usize) -> Self {
        let within = |kind: Kind| {
            records
                .iter()
                .filter(move |it| it.kind == kind && it.end >= event.at && it.start <= event.until)
        };
        let failed = |kind: Kind| within(kind).filter(|it| !it.is_good());
        let mut reasons = BTreeSet::new();
        for (kind, record) in Kind::ALL.into_iter().flat_map(|k| failed(k).map(move |r| (k, r))) {
            if let Err(why) = &record.result {
                let after = record.start > event.moved + ANNOUNCE;
                let when = if after { " (after the addresses moved)" } else { "" };
                reasons.insert(format!("{}: {why}{when}", kind.name()));
            }
        }
        let first = records.iter().filter(|it| it.kind == Kind::Write && it.end > event.at);
        let first = first.filter(|it| it.server() == Some(event.writer)).map(|it| it.end).min();
        Self {
            name: event.name,
            vip: event.moved - event.at,
            first_write: first.map(|end| end - event.at),
            gap: Kind::ALL.map(|kind| gap(event, records, kind)),
            failed: Kind::ALL.map(|kind| failed(kind).count()),
            failed_after: Kind::ALL
                .map(|kind| failed(kind).filter(|it| it.start > event.moved + ANNOUNCE).count()),
            requests: Kind::ALL.map(|kind| within(kind).count()),
            lost,
            reasons: reasons.into_iter().take(REASONS_MAX).collect(),
        }
    }

    pub fn failed_total(&self) -> usize {
        self.failed.iter().sum()
    }

    pub fn json(&self) -> Value {
        let by_kind = |value: &dyn Fn(usize) -> Value| {
            let all = Kind::ALL.iter().enumerate();
            Value::Object(all.map(|(at, kind)| (kind.name().to_owned(), value(at))).collect())
        };
        json!({
            "vip_s": seconds(self.vip),
            "first_write_s": self.first_write.map(seconds),
            "gap_s": by_kind(&|at| json!(seconds(self.gap[at]))),
            "failed": by_kind(&|at| json!(self.failed[at])),
            "failed_after_move": by_kind(&|at| json!(self.failed_after[at])),
            "requests": by_kind(&|at| json!(self.requests[at])),
            "lost": self.lost,
        })
    }

    /// One row of the table under `HEADING`.
    pub fn row(&self) -> String {
        let first = self
            .first_write
            .map_or_else(|| "never".into(), |it| format!("{:.2}", it.as_secs_f64()));
        let gap = self.gap.map(|it| format!("{:.2}", it.as_secs_f64()));
        let failed: Vec<String> =
            (0..3).map(|at| format!("{}/{}", self.failed[at], self.requests[at])).collect();
        format!(
            "{:<10} {:>6.2} {:>7}   {:>6} {:>6} {:>6}   {:>8} {:>7} {:>7}  {:>4}",
            self.name,
            self.vip.as_secs_f64(),
            first,
            gap[0],
            gap[1],
            gap[2],
            failed[0],
            failed[1],
            failed[2],
            self.lost
        )
    }
}

pub const HEADING: &str = concat!(
    "                 VIP   first   longest gap, seconds   failed/requests           lost\n",
    "event       moved s write s   static   read  write     static    read   write  writes",
);

/// The longest time in the window without a good answer of that kind. The answer before the event
/// opens the first one, the end of the window closes the last one.
fn gap(event: &Event, records: &[Record], kind: Kind) -> Duration {
    let mut ends: Vec<Instant> =
        records.iter().filter(|it| it.kind == kind && it.is_good()).map(|it| it.end).collect();
    ends.sort();
    let before = ends.iter().rev().find(|&&end| end <= event.at).copied();
    let mut last = before.unwrap_or(event.at);
    let mut longest = Duration::ZERO;
    let inside = ends.into_iter().filter(|&end| end > event.at && end <= event.until);
    for end in inside.chain([event.until]) {
        longest = longest.max(end - last);
        last = end;
    }
    longest
}

/// Acknowledged ids, in the window of acknowledgements, that are not among `rows`.
pub fn lost(records: &[Record], from: Instant, to: Instant, rows: &BTreeSet<u64>) -> Vec<u64> {
    records
        .iter()
        .filter(|it| it.is_good() && it.end >= from && it.end < to)
        .filter_map(|it| it.id)
        .filter(|id| !rows.contains(id))
        .collect()
}

/// Milliseconds are what these figures are good for.
pub fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
