//! Steady requests from the client: open loop, every request on a connection of its own.
//!
//! In: rates by kind. Out: a record of every request: when it began and ended, what came of it. A
//! request starts when its time has come, whether or not earlier ones have ended, as visitors do;
//! so an outage is seen by as many requests as it would hit. Must not: retry, reuse connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::host::{Host, enter};
use crate::world::{Outcome, wait_until};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Static,
    Read,
    Write,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Static, Self::Read, Self::Write];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Requests a second.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub reads: u32,
    pub writes: u32,
    pub statics: u32,
}

impl Rates {
    pub const STEADY: Self = Self { statics: 50, reads: 20, writes: 20 };

    const fn of(self, kind: Kind) -> u32 {
        match kind {
            Kind::Static => self.statics,
            Kind::Read => self.reads,
            Kind::Write => self.writes,
        }
    }
}

/// One request and what came of it: the body of a good answer, or why it counts as failed.
#[derive(Debug, Clone)]
pub struct Record {
    pub kind: Kind,
    /// The row that a write asked for.
    pub id: Option<u64>,
    pub start: Instant,
    pub end: Instant,
    pub result: Result<String, String>,
}

impl Record {
    pub const fn is_good(&self) -> bool {
        self.result.is_ok()
    }

    /// The database server that took the write, as the page says.
    pub fn server(&self) -> Option<&str> {
        self.result.as_ref().ok()?.split_whitespace().find_map(|word| word.strip_prefix("db="))
    }

    /// The host whose php-fpm answered.
    pub fn php(&self) -> Option<&str> {
        self.result.as_ref().ok()?.split_whitespace().find_map(|word| word.strip_prefix("php="))
    }
}

/// Each request may take this long in all.
pub const TIME_LIMIT: Duration = Duration::from_secs(5);
/// More than every rate for `TIME_LIMIT`; a request above it is recorded as failed.
const OUTSTANDING_MAX: u32 = 1000;

#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    stop: AtomicBool,
    outstanding: AtomicU32,
    next_id: AtomicU64,
    records: Mutex<Vec<Record>>,
    expected_static: String,
}

impl Load {
    /// Starts the three kinds of requests from `client` to `target`, port 80. The rows that are
    /// written have the numbers from `first_id` on.
    pub fn start(
        client: &Host,
        target: Ipv4Addr,
        rates: Rates,
        static_text: &str,
        first_id: u64,
    ) -> Outcome<Self> {
        let shared = Arc::new(Shared {
            target: SocketAddr::from((target, 80)),
            stop: AtomicBool::new(false),
            outstanding: AtomicU32::new(0),
            next_id: AtomicU64::new(first_id),
            records: Mutex::new(Vec::new()),
            expected_static: static_text.to_owned(),
        });
        let mut threads = Vec::new();
        for kind in Kind::ALL {
            if rates.of(kind) > 0 {
                let network = client.network()?;
                let shared = Arc::clone(&shared);
                let period = Duration::from_secs(1) / rates.of(kind);
                threads.push(std::thread::spawn(move || {
                    let ran = enter(&network).map(|()| shared.pace(kind, period));
                    ran.expect("the client's namespace can be entered");
                }));
            }
        }
        Ok(Self { shared, threads })
    }

    /// What has ended so far.
    pub fn records(&self) -> Vec<Record> {
        self.shared.lock().clone()
    }

    /// Whether a request that began after `since` has succeeded.
    pub fn has_good(&self, kind: Kind, since: Instant) -> bool {
        let records = self.shared.lock();
        records.iter().rev().any(|it| it.kind == kind && it.start > since && it.is_good())
    }

    /// Stops, waits for what is under way, and returns every request in order of its start.
    pub fn finish(mut self) -> Outcome<Vec<Record>> {
        self.end()?;
        let mut records = std::mem::take(&mut *self.shared.lock());
        records.sort_by_key(|record| record.start);
        Ok(records)
    }

    fn end(&mut self) -> Outcome<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| "a load thread panicked".to_owned())?;
        }
        wait_until("the last requests end", TIME_LIMIT + Duration::from_secs(5), || {
            self.shared.outstanding.load(Ordering::Acquire) == 0
        })
        .map(drop)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts one request each period. A late wake-up starts the missed ones at once.
    fn pace(self: &Arc<Self>, kind: Kind, period: Duration) {
        let mut due = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now < due {
                std::thread::sleep((due - now).min(Duration::from_millis(50)));
                continue;
            }
            due += period;
            self.launch(kind);
        }
    }

    fn launch(self: &Arc<Self>, kind: Kind) {
        let id = (kind == Kind::Write).then(|| self.next_id.fetch_add(1, Ordering::Relaxed));
        let start = Instant::now();
        let refuse =
            |why: String| Record { kind, id, start, end: Instant::now(), result: Err(why) };
        if self.outstanding.fetch_add(1, Ordering::AcqRel) >= OUTSTANDING_MAX {
            self.note(refuse("too many requests under way".into()));
            return;
        }
        let shared = Arc::clone(self);
        // A new thread is in its creator's network namespace.
        let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            let result = shared.request(kind, id, start + TIME_LIMIT);
            shared.note(Record { kind, id, start, end: Instant::now(), result });
        });
        if let Err(error) = thread {
            self.note(refuse(format!("no thread: {error}")));
        }
    }

    fn note(&self, record: Record) {
        self.lock().push(record);
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
    }

    fn request(&self, kind: Kind, id: Option<u64>, limit: Instant) -> Result<String, String> {
        let path = match kind {
            Kind::Static => "/static.txt".to_owned(),
            Kind::Read => "/read.php".to_owned(),
            Kind::Write => format!("/write.php?id={}", id.unwrap_or_default()),
        };
        // A write is no GET: that one is sent to the other host when its own falls silent, executed
        // or not, as every page that changes something has to expect of it (RFC 9110, 9.2.2).
        let body = match kind {
            Kind::Static | Kind::Read => get(self.target, &path, limit),
            Kind::Write => post(self.target, &path, limit),
        }?;
        let good = match kind {
            Kind::Static => body == self.expected_static,
            Kind::Read => body.starts_with("rows "),
            Kind::Write => body.starts_with(&format!("ok {} ", id.unwrap_or_default())),
        };
        if good { Ok(body) } else { Err(format!("unexpected body: {}", cut(&body))) }
    }
}

/// One GET on a connection of its own; the body of a complete answer with status 200.
pub fn get(target: SocketAddr, path: &str, limit: Instant) -> Result<String, String> {
    let text = format!("GET {path} HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n");
    ask(target, &text, limit)
}

/// The same by POST, with nothing in its body.
fn post(target: SocketAddr, path: &str, limit: Instant) -> Result<String, String> {
    let fields = "Host: www.example\r\nContent-Length: 0\r\nConnection: close\r\n";
    ask(target, &format!("POST {path} HTTP/1.1\r\n{fields}\r\n"), limit)
}

/// Any request on a connection of its own; the body of a complete answer with status 200.
pub fn ask(target: SocketAddr, request: &str, limit: Instant) -> Result<String, String> {
    let Answer { status, body, .. } = exchange(target, request, limit)?;
    if status == 200 { Ok(body) } else { Err(format!("status {status}: {}", cut(&body))) }
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The values of a header field, in order.
    pub fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        fields(&self.head, name)
    }
}

/// One request, which asks for the connection to be closed, and its answer, whatever its status.
pub fn exchange(target: SocketAddr, request: &str, limit: Instant) -> Result<Answer, String> {
    let left = || {
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() { Err("time-out".to_owned()) } else { Ok(left) }
    };
    let mut stream = TcpStream::connect_timeout(&target, left()?)
        .map_err(|error| format!("connect: {}", words(&error)))?;
    stream.set_write_timeout(Some(left()?)).map_err(|error| words(&error))?;
    stream.write_all(request.as_bytes()).map_err(|error| format!("send: {}", words(&error)))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        stream.set_read_timeout(Some(left()?)).map_err(|error| words(&error))?;
        let count =
            stream.read(&mut buffer).map_err(|error| format!("receive: {}", words(&error)))?;
        answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if let Some(result) = complete(&answer, count == 0) {
            return result;
        }
    }
}

/// The answer once it is whole (or has ended too early).
fn complete(answer: &[u8], at_end: bool) -> Option<Result<Answer, String>> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return at_end.then(|| Err(format!("closed after {} bytes", answer.len())));
    };
    let header = |name| fields(head, name).next();
    let length: Option<usize> = header("content-length").and_then(|value| value.parse().ok());
    let chunked = header("transfer-encoding").is_some_and(|it| it.eq_ignore_ascii_case("chunked"));
    let (is_whole, body) = match (length, chunked) {
        (_, true) => (body.ends_with("0\r\n\r\n"), unchunk(body)),
        (Some(length), false) => (body.len() >= length, body.to_owned()),
        (None, false) => (at_end, body.to_owned()),
    };
    if !is_whole {
        return at_end.then(|| Err(format!("cut off after {} bytes", answer.len())));
    }
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Some(Ok(Answer { status: status.unwrap_or_default(), head: head.to_owned(), body }))
}

fn fields<'a>(head: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
    head.lines().skip(1).filter_map(move |line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.split(';').next().unwrap_or(size), 16).unwrap_or(0);
        let (Some(chunk), true) = (rest.get(..size), size > 0) else { break };
        whole += chunk;
        body = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}

fn words(error: &std::io::Error) -> String {
    if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) {
        return "time-out".into();
    }
    error.to_string()
}

fn cut(body: &str) -> String {
    body.lines().next().unwrap_or_default().chars().take(120).collect()
}
