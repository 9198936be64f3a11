//! Open loop of facts/web.md 6: a hundred requests a second, three GETs to two POSTs.
//!
//! In: the client's network, the address of the front. Out: a shot for every request. Each has a
//! connection and a thread of its own, and starts when its time has come. Must not: retry.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::host::{Host, enter};
use crate::load::ask;
use crate::world::Outcome;

const PERIOD: Duration = Duration::from_millis(10);

/// One request and what came of it.
#[derive(Debug, Clone)]
pub struct Shot {
    pub id: u64,
    pub is_post: bool,
    pub start: Instant,
    pub end: Instant,
    /// What a stall of the machine took of its time.
    pub stalled: Duration,
    pub result: Result<String, String>,
}

impl Shot {
    pub fn took(&self) -> Duration {
        self.end.duration_since(self.start).saturating_sub(self.stalled)
    }

    /// What a visitor would call it: "status 502", "closed after 0 bytes".
    pub fn complaint(&self) -> Option<&str> {
        let why = self.result.as_ref().err()?;
        Some(why.split_once(": ").map_or(why.as_str(), |(first, _)| first))
    }
}

#[derive(Debug)]
pub struct OpenLoop {
    stop: Arc<AtomicBool>,
    pacer: JoinHandle<Vec<Shot>>,
}

impl OpenLoop {
    /// Starts; the requests have the numbers from `first_id` on, each is given `limit` in all.
    pub fn start(
        client: &Host,
        target: SocketAddr,
        first_id: u64,
        limit: Duration,
    ) -> Outcome<Self> {
        let network = client.network()?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let pacer = std::thread::spawn(move || {
            enter(&network).expect("the client's namespace can be entered");
            pace(target, first_id, limit, &until)
        });
        Ok(Self { stop, pacer })
    }

    /// Stops, waits for what is under way, and returns every request in order of its start.
    pub fn finish(self) -> Outcome<Vec<Shot>> {
        self.stop.store(true, Ordering::Relaxed);
        self.pacer.join().map_err(|_| "the load's thread panicked".to_owned())
    }
}

/// A thread that sleeps between its requests sees for how long the machine let nobody run.
fn pace(target: SocketAddr, first_id: u64, limit: Duration, stop: &AtomicBool) -> Vec<Shot> {
    let shots = Arc::new(Mutex::new(Vec::new()));
    let mut stalls: Vec<(Instant, Duration)> = Vec::new();
    let mut threads = Vec::new();
    let mut due = Instant::now();
    for id in first_id.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let shots = Arc::clone(&shots);
        // A new thread is in its creator's network namespace.
        let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            let shot = fire(target, id, limit);
            shots.lock().unwrap_or_else(PoisonError::into_inner).push(shot);
        });
        threads.push(thread.expect("a thread"));
        due += PERIOD;
        let wake_at = due.max(Instant::now());
        std::thread::sleep(wake_at.saturating_duration_since(Instant::now()));
        let late = wake_at.elapsed();
        if late > PERIOD {
            stalls.push((wake_at, late));
        }
    }
    for thread in threads {
        thread.join().expect("a request's thread");
    }
    let mut shots = std::mem::take(&mut *shots.lock().unwrap_or_else(PoisonError::into_inner));
    shots.sort_by_key(|shot: &Shot| shot.start);
    for shot in &mut shots {
        let during = |(at, _): &&(Instant, Duration)| (shot.start..=shot.end).contains(at);
        shot.stalled = stalls.iter().filter(during).map(|(_, late)| *late).sum();
    }
    shots
}

fn fire(target: SocketAddr, id: u64, limit: Duration) -> Shot {
    let is_post = matches!(id % 5, 1 | 3);
    let request = if is_post {
        let body = format!("id={id}");
        format!(
            "POST /slow.php HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    } else {
        format!("GET /slow.php?id={id} HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n")
    };
    let start = Instant::now();
    let result = ask(target, &request, start + limit).and_then(|body| {
        let is_good = body.starts_with(&format!("done {id} "));
        if is_good { Ok(body) } else { Err(format!("unexpected body: {body:?}")) }
    });
    Shot { id, is_post, start, end: Instant::now(), stalled: Duration::ZERO, result }
}
