//! Whether a host's database takes writes, asked by its socket every few milliseconds.
//!
//! In: a running host. Out: the intervals in which it was open for certain: from the end of the
//! first look that found it open to the beginning of the last one. What cannot be asked is not
//! counted. Must not: write.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};

use crate::database::SOCKET;
use crate::host::Host;
use crate::world::Outcome;

pub type Interval = (Instant, Instant);

/// Looks from one boot of the host to its end.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    stop: AtomicBool,
    /// The last one grows for as long as `is_open`.
    seen: Mutex<(Vec<Interval>, bool)>,
}

const PERIOD: Duration = Duration::from_millis(10);
/// A server that hangs is asked anew after this.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

impl Watch {
    pub fn start(host: &Host) -> Outcome<Self> {
        let shared = Arc::new(Shared {
            socket: host.live_path(SOCKET)?,
            stop: AtomicBool::new(false),
            seen: Mutex::new((Vec::new(), false)),
        });
        let watcher = Arc::clone(&shared);
        let thread = std::thread::spawn(move || watcher.watch());
        Ok(Self { shared, thread: Some(thread) })
    }

    pub fn intervals(&self) -> Vec<Interval> {
        self.shared.lock().0.clone()
    }

    /// Stops. What was seen after `moment` is not counted.
    pub fn stop(mut self, moment: Instant) -> Vec<Interval> {
        self.end();
        let seen = self.shared.lock();
        let before = seen.0.iter().filter(|(from, _)| *from < moment);
        before.map(|&(from, to)| (from, to.min(moment))).collect()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, (Vec<Interval>, bool)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut connection = None;
        while !self.stop.load(Ordering::Relaxed) {
            let before = Instant::now();
            let is_open = self.look(&mut connection);
            self.note(is_open, before, Instant::now());
            std::thread::sleep(PERIOD.saturating_sub(before.elapsed()));
        }
    }

    fn look(&self, connection: &mut Option<Conn>) -> bool {
        let mut asked = connection.take().or_else(|| self.connect());
        let answer: Option<u8> = asked
            .as_mut()
            .and_then(|it| it.query_first("SELECT @@GLOBAL.read_only").ok().flatten());
        if answer.is_some() {
            *connection = asked;
        }
        answer == Some(0)
    }

    fn connect(&self) -> Option<Conn> {
        let options = OptsBuilder::new()
            .socket(self.socket.to_str())
            .user(Some("root"))
            .read_timeout(Some(ANSWER_LIMIT));
        Conn::new(options).ok()
    }

    fn note(&self, is_open: bool, before: Instant, after: Instant) {
        let mut seen = self.lock();
        let (intervals, was_open) = &mut *seen;
        match (std::mem::replace(was_open, is_open), is_open) {
            (true, true) => {
                if let Some((from, to)) = intervals.last_mut() {
                    *to = before.max(*from);
                }
            }
            (false, true) => intervals.push((after, after)),
            (true | false, false) => {}
        }
    }
}

/// The same times, each counted once, in order.
pub fn united(mut all: Vec<Interval>) -> Vec<Interval> {
    all.sort();
    let mut one: Vec<Interval> = Vec::new();
    for (from, to) in all {
        match one.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            Some(_) | None => one.push((from, to)),
        }
    }
    one
}

/// What two lists have in common.
pub fn common(one: &[Interval], other: &[Interval]) -> Vec<Interval> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
    united(pairs.filter(|(from, to)| from < to).collect())
}
