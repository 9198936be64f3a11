//! A scripted FastCGI responder in threads: says what it got, or what the test tells it to say.
//! What is no FastCGI, or has another length than was told, fails the test that holds the backend.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::records;

/// What the backend does with a client's request. Pings are answered by all but `Hang`.
#[derive(Debug, Clone)]
pub(crate) enum Mode {
    /// Prints the parameters and the length and sum of stdin.
    Echo,
    /// These pieces, each in a write of its own, then the connection's end.
    Raw(Vec<Vec<u8>>),
    CloseUnread,
    CloseAfterRead,
    ResetAfterRead,
    /// Reads no byte of the request's body, answers, closes.
    AnswerUnread(Vec<u8>),
    /// Answers after this long.
    Slow(Duration),
    /// Accepts and says nothing, to pings either.
    Hang,
    /// Closes a kept connection without a byte when its second request is there.
    Stale,
    /// Says more than was asked for behind END_REQUEST, and keeps the connection.
    Junk,
    /// Answers, and does not read the next request of the connection for this long.
    FinishEarly(Duration),
}

#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) stdin: Vec<u8>,
}

#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    mode: Mode,
    seen: Vec<Seen>,
    /// Connections of requests that the front closed before they were answered.
    abandoned: usize,
    /// Connections that brought a request, and how many of them are open.
    connections: usize,
    open: usize,
    /// Connections on which an assertion of a thread here failed.
    faults: usize,
}

pub(crate) fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    padded(kind, content, 0)
}

pub(crate) fn padded(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
    records::padded(kind, 1, content, padding)
}

pub(crate) fn stdout(text: &str) -> Vec<u8> {
    record(6, text.as_bytes())
}

pub(crate) fn end() -> Vec<u8> {
    record(3, &[0; 8])
}

impl Backend {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let state = State {
            mode: Mode::Echo,
            seen: Vec::new(),
            abandoned: 0,
            connections: 0,
            open: 0,
            faults: 0,
        };
        let backend =
            Self { address: listener.local_addr().unwrap(), state: Arc::new(Mutex::new(state)) };
        let shared = backend.clone();
        // Ends with the process: accept has nobody to tell it.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let shared = shared.clone();
                std::thread::spawn(move || {
                    if catch_unwind(AssertUnwindSafe(|| shared.serve(stream))).is_err() {
                        shared.state.lock().unwrap().faults += 1;
                    }
                });
            }
        });
        backend
    }

    pub(crate) fn pair() -> [Self; 2] {
        [Self::start(), Self::start()]
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    /// STDOUT with this text, then END_REQUEST.
    pub(crate) fn say(&self, text: &str) {
        self.set(Mode::Raw(vec![[stdout(text), end()].concat()]));
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    pub(crate) fn abandoned(&self) -> usize {
        self.state.lock().unwrap().abandoned
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    pub(crate) fn open(&self) -> usize {
        self.state.lock().unwrap().open
    }

    fn serve(&self, mut stream: TcpStream) {
        let mode = self.state.lock().unwrap().mode.clone();
        if matches!(mode, Mode::Hang) {
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
            return;
        }
        let Some((params, keeps)) = read_params(&mut stream) else { return };
        let is_ping = params.get("SCRIPT_NAME").map(String::as_str) == Some("/ping");
        if is_ping {
            assert!(!keeps, "a ping pins no worker");
            let _ = read_stream(&mut stream, 5);
            let _ = stream.write_all(&[stdout("\r\npong"), end()].concat());
            return;
        }
        self.state.lock().unwrap().connections += 1;
        self.state.lock().unwrap().open += 1;
        self.serve_kept(stream, mode, params, keeps);
        self.state.lock().unwrap().open -= 1;
    }

    /// Request after request, while the front asks for the connection to be kept.
    fn serve_kept(
        &self,
        mut stream: TcpStream,
        mut mode: Mode,
        mut params: BTreeMap<String, String>,
        mut keeps: bool,
    ) {
        let mut is_first = true;
        loop {
            let may_go_on = matches!(
                mode,
                Mode::Echo | Mode::Slow(_) | Mode::Stale | Mode::Junk | Mode::FinishEarly(_)
            );
            let Ok(next) = stream.try_clone() else { return };
            if matches!(mode, Mode::Stale) && !is_first {
                let _ = read_stream(&mut stream, 5);
                return;
            }
            if matches!(mode, Mode::Hang) {
                while read_record(&mut stream).is_some() {}
                return;
            }
            self.serve_one(stream, &mode, &params);
            if !(keeps && may_go_on) {
                return;
            }
            stream = next;
            let Some(next) = read_params(&mut stream) else { return };
            (params, keeps) = next;
            mode = self.state.lock().unwrap().mode.clone();
            is_first = false;
        }
    }

    fn serve_one(&self, mut stream: TcpStream, mode: &Mode, params: &BTreeMap<String, String>) {
        match mode {
            // A reset, since bytes are unread.
            Mode::CloseUnread => return,
            Mode::AnswerUnread(bytes) => {
                self.state.lock().unwrap().seen.push(Seen { stdin: Vec::new() });
                let _ = stream.write_all(bytes);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                std::thread::sleep(Duration::from_millis(200));
                return;
            }
            Mode::Echo
            | Mode::Raw(_)
            | Mode::CloseAfterRead
            | Mode::ResetAfterRead
            | Mode::Slow(_)
            | Mode::Stale
            | Mode::Junk
            | Mode::FinishEarly(_)
            | Mode::Hang => {}
        }
        let Some(stdin) = read_stream(&mut stream, 5) else { return };
        let length = stdin.len();
        let sum: u64 = stdin.iter().map(|&byte| u64::from(byte)).sum();
        self.note(params, stdin);
        match mode {
            Mode::CloseAfterRead => {}
            Mode::ResetAfterRead => {
                let socket = socket2::Socket::from(stream);
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
            Mode::Raw(pieces) => {
                stream.set_nodelay(true).unwrap();
                let is_slow = pieces.len() > 1;
                for piece in pieces {
                    if stream.write_all(piece).is_err() {
                        self.state.lock().unwrap().abandoned += 1;
                        return;
                    }
                    if is_slow {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            }
            Mode::Slow(time) => self.answer_after(stream, *time),
            Mode::Junk => {
                let _ = stream.write_all(&[stdout("\r\njunk"), end(), stdout("more")].concat());
            }
            Mode::FinishEarly(time) => {
                let _ = stream.write_all(&[stdout("\r\nearly"), end()].concat());
                std::thread::sleep(*time);
            }
            Mode::Echo | Mode::Stale | Mode::CloseUnread | Mode::AnswerUnread(_) | Mode::Hang => {
                let mut text =
                    format!("Content-Type: text/plain\r\n\r\nstdin={length} sum={sum}\n");
                for (name, value) in params {
                    text.push_str(&format!("{name}={value}\n"));
                }
                let _ = stream.write_all(&[stdout(&text), end()].concat());
            }
        }
    }

    fn answer_after(&self, mut stream: TcpStream, time: Duration) {
        stream.set_read_timeout(Some(time)).unwrap();
        // The front closes its end when nobody wants the answer any more.
        if matches!(stream.read(&mut [0]), Ok(0)) {
            self.state.lock().unwrap().abandoned += 1;
            return;
        }
        stream.set_read_timeout(None).unwrap();
        let _ = stream.write_all(&[stdout("\r\nslow"), end()].concat());
    }

    fn note(&self, params: &BTreeMap<String, String>, stdin: Vec<u8>) {
        // facts/web.md, fact 6: the length is exact, and empty where there is no body.
        let length = params.get("CONTENT_LENGTH").expect("it is always told");
        assert_eq!(length.parse().unwrap_or(0), stdin.len(), "CONTENT_LENGTH {length:?}");
        self.state.lock().unwrap().seen.push(Seen { stdin });
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let faults = self.state.lock().map_or(0, |state| state.faults);
        assert!(faults == 0 || std::thread::panicking(), "{faults} connections were not in order");
    }
}

fn read_record(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).ok()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    assert!(length + usize::from(header[6]) <= 65_535, "php-fpm would reset here");
    let mut content = vec![0; length + usize::from(header[6])];
    stream.read_exact(&mut content).ok()?;
    content.truncate(length);
    Some((header[1], content))
}

fn read_stream(stream: &mut TcpStream, wanted: u8) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let (kind, content) = read_record(stream)?;
        assert_eq!(kind, wanted);
        if content.is_empty() {
            return Some(bytes);
        }
        bytes.extend_from_slice(&content);
    }
}

/// A request's parameters, and whether its connection is to be kept.
fn read_params(stream: &mut TcpStream) -> Option<(BTreeMap<String, String>, bool)> {
    let (kind, content) = read_record(stream)?;
    let keeps = content[2] == 1;
    let begin = [0, 1, u8::from(keeps), 0, 0, 0, 0, 0];
    assert_eq!((kind, content.as_slice()), (1, &begin[..]), "a responder is asked for");
    let bytes = read_stream(stream, 4)?;
    let mut rest = bytes.as_slice();
    let mut params = BTreeMap::new();
    let length = |rest: &mut &[u8]| {
        let long = rest[0] >= 128;
        let (head, tail) = rest.split_at(if long { 4 } else { 1 });
        *rest = tail;
        head.iter().fold(0usize, |sum, &byte| sum << 8 | usize::from(byte)) & 0x7fff_ffff
    };
    while !rest.is_empty() {
        let (name, value) = (length(&mut rest), length(&mut rest));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (pair, tail) = rest.split_at(name + value);
        rest = tail;
        params.insert(text(&pair[..name]), text(&pair[name..]));
    }
    Some((params, keeps))
}
