//! Session: one client's connection, request after request in order.
//!
//! In: the client's bytes, what the hands found or did, time. Out: bytes to write (`pending`), and
//! `Output` orders. Must not: open, read or write anything; start a request before the one before
//! it is answered. Read first: `exchange` (a PHP request's life); RFC 9112 section 9; `serve`.
//!
//! ```text
//!         +------------------------- keep-alive -------------------------+
//!         v                                                              |
//!       Head --> Looking --> File ---------------------------------> finished
//!                   |  \---> (page, redirect, 304) ----------------------^ |
//!                   +------> Php (collect, queue, connect, talk) --------^ | close
//!                                                                          v
//!                            Discarding (an unwanted body) <---------- Closing -> Lingering
//! ```

use crate::limits;
use crate::time::{Instant, earliest};
use crate::wire::HostId;

use super::answer::Ending;
use super::body;
use super::exchange::{Exchange, Phase, Step};
use super::files::Span;
use super::log::{Entry, Words};
use super::lookup::{Found, Lookup};
use super::params::Ends;
use super::reply::{self, Stamp, Terms};
use super::upstream::Evidence;
use super::{Config, request};

/// One client's connection.
#[derive(Debug)]
pub struct Session {
    pub(super) ends: Ends,
    /// Bytes of the client that are not used up: a head in the making, or pipelined requests.
    pub(super) inbound: Vec<u8>,
    scanned: usize,
    pub(super) outbound: Vec<u8>,
    written: usize,
    pub(super) state: State,
    pub(super) running: Option<Box<Running>>,
    pub(super) outputs: heapless::Deque<Output, 8>,
    finished: Option<Box<Entry>>,
    pub(super) deadline: Option<Instant>,
    /// While bytes wait for the client: until when some of them must have gone.
    write_deadline: Option<Instant>,
    has_served: bool,
    is_read_closed: bool,
    is_head_due: bool,
}

#[derive(Debug)]
pub(super) enum State {
    Head,
    Looking {
        lookup: Lookup,
        head_bytes: usize,
    },
    Php(Box<Exchange>),
    File(Span),
    Discarding(body::Decoder),
    /// What is pending goes out, then the connection is closed, at once or after lingering.
    Closing {
        is_lingering: bool,
    },
    Lingering,
    Closed,
}

/// The request that is being answered.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) terms: Terms,
    pub(super) words: Words,
    pub(super) started_at: Instant,
    pub(super) status: u16,
    pub(super) body_bytes: u64,
    pub(super) upstream: Option<HostId>,
    pub(super) tries: u8,
    /// The body that was not read.
    pub(super) rest: body::Decoder,
    pub(super) is_continue_due: bool,
    pub(super) has_length: bool,
    /// The client may still be sending something that nobody will read.
    pub(super) is_lingering: bool,
}

/// What every call is given.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub now: Instant,
    pub config: &'a Config,
    pub stamp: &'a Stamp,
    /// The session's listener is draining: no keep-alive.
    pub is_draining: bool,
}

#[derive(Debug)]
pub enum Input<'a> {
    Received(&'a [u8]),
    /// The client sends no more.
    ReadClosed,
    /// The client's connection broke.
    Gone,
    /// So many of the pending bytes were written.
    Wrote(usize),
    /// The next pipelined request may begin (`is_head_due`).
    Proceed,
    /// What is at the lookup's candidate.
    Looked(Found),
    /// The whole span of a small file.
    FileBytes(&'a [u8]),
    /// So many bytes of the file went out by sendfile.
    FileSent(u64),
    /// The file ended early or could not be read: the promised length cannot be kept.
    FileCut,
    SpoolFailed,
    Assigned(HostId),
    /// No peer, and no place in the queue.
    Unassigned,
    Connected,
    ConnectFailed(Evidence),
    /// Bytes of php-fpm; whether it is known to have closed its end behind them.
    Answered {
        bytes: &'a [u8],
        is_closing: bool,
    },
    AnswerEnded,
    AnswerReset,
    UpstreamWriteFailed,
    UpstreamWrote(usize),
    StdinBytes(&'a [u8]),
    HostLost(HostId),
    /// The listener began to drain.
    Drain,
    Expired,
}

/// What the hands do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Look at `candidate`, keep the file open if it is one, answer with `Looked`.
    Look,
    /// Move `take_stored` to the body's file.
    Spool,
    /// Ask the upstream for a peer that is not in `tried`.
    Acquire {
        tried: [bool; 2],
    },
    LeaveQueue,
    Connect(HostId),
    /// Close the connection to this peer; the evidence against it, if there is any.
    Release(HostId, Option<Evidence>),
    /// A request is answered: `take_finished`.
    Finished,
    /// Close the sending side.
    Shutdown,
    Close,
}

/// Bytes pending above which the next pipelined request waits.
const PIPELINE_BYTES_MAX: usize = 64 * 1024;

impl Session {
    #[must_use]
    pub fn new(now: Instant, config: &Config, ends: Ends) -> Self {
        Self {
            ends,
            inbound: Vec::new(),
            scanned: 0,
            outbound: Vec::new(),
            written: 0,
            state: State::Head,
            running: None,
            outputs: heapless::Deque::new(),
            finished: None,
            deadline: Some(now + config.request_limit),
            write_deadline: None,
            has_served: false,
            is_read_closed: false,
            is_head_due: false,
        }
    }

    pub fn handle(&mut self, cx: Context<'_>, input: Input<'_>) {
        match input {
            Input::Received(bytes) => self.receive(cx, bytes),
            Input::ReadClosed => self.read_closed(),
            Input::Gone => self.abandon(),
            Input::Wrote(count) => self.wrote(cx, count),
            Input::Proceed => {
                self.is_head_due = false;
                self.try_head(cx);
            }
            Input::Looked(found) => self.looked(cx, found),
            Input::FileBytes(bytes) => {
                self.outbound.extend_from_slice(bytes);
                self.finish(cx);
            }
            Input::FileSent(count) => self.file_sent(cx, count),
            Input::FileCut => self.abandon(),
            Input::SpoolFailed => {
                // An `Acquire` that was ordered with the spooling must not be carried out.
                self.outputs.clear();
                self.refuse(cx, 507);
            }
            Input::Assigned(host) => self.assigned(cx, host),
            Input::Unassigned => self.step(cx, Step::Fail(503), None),
            Input::Connected => {
                if let State::Php(exchange) = &mut self.state {
                    exchange.connected();
                    self.deadline = Some(cx.now + cx.config.answer_limit);
                }
            }
            Input::ConnectFailed(evidence) => {
                if let State::Php(exchange) = &self.state {
                    let step = exchange.connect_failed();
                    self.step(cx, step, Some(evidence));
                }
            }
            Input::Answered { bytes, is_closing } => self.answered(cx, Some((bytes, is_closing))),
            Input::AnswerEnded => self.answered(cx, None),
            Input::AnswerReset => {
                if let State::Php(exchange) = &self.state {
                    let step = exchange.broken(502);
                    self.step(cx, step, None);
                }
            }
            Input::UpstreamWriteFailed => {
                if let State::Php(exchange) = &mut self.state {
                    exchange.write_failed();
                }
            }
            Input::UpstreamWrote(count) => {
                if let State::Php(exchange) = &mut self.state {
                    exchange.wrote(count);
                    self.deadline = Some(cx.now + cx.config.answer_limit);
                }
            }
            Input::StdinBytes(bytes) => {
                if let State::Php(exchange) = &mut self.state {
                    exchange.push_stdin(bytes);
                }
            }
            Input::HostLost(host) => {
                if let State::Php(exchange) = &self.state {
                    let step = exchange.host_lost(host);
                    self.step(cx, step, None);
                }
            }
            Input::Drain => self.drain(cx),
            Input::Expired => self.expired(cx),
        }
    }

    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        earliest(self.deadline, self.write_deadline)
    }

    /// Bytes to write to the client.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.outbound.get(self.written..).unwrap_or_default()
    }

    /// Whether bytes of the client are of use now; else they stay in the kernel.
    #[must_use]
    pub fn wants_client(&self) -> bool {
        match &self.state {
            State::Head => self.pending().len() < PIPELINE_BYTES_MAX && !self.is_head_due,
            State::Php(exchange) => exchange.phase() == Phase::Collecting,
            State::Discarding(_) | State::Lingering => true,
            State::Looking { .. } | State::File(_) | State::Closing { .. } | State::Closed => false,
        }
    }

    /// Whether bytes of php-fpm are of use now (back-pressure).
    #[must_use]
    pub fn wants_upstream(&self) -> bool {
        self.pending().len() < limits::OUTBOUND_BYTES_MAX
    }

    /// Whether a pipelined request waits for `Proceed`.
    #[must_use]
    pub fn is_head_due(&self) -> bool {
        self.is_head_due && self.pending().len() < PIPELINE_BYTES_MAX
    }

    /// A request waits for PHP or gets its answer, so that a client that leaves should free a
    /// worker at once.
    #[must_use]
    pub fn is_waiting_for_php(&self) -> bool {
        self.exchange().is_some_and(|exchange| exchange.phase() != Phase::Collecting)
    }

    /// The part of the file that is still to be sent.
    #[must_use]
    pub const fn file(&self) -> Option<Span> {
        if let State::File(span) = &self.state { Some(*span) } else { None }
    }

    /// The path that `Output::Look` is about.
    #[must_use]
    pub fn candidate(&self, config: &Config) -> Option<Vec<u8>> {
        let State::Looking { lookup, .. } = &self.state else { return None };
        Some(lookup.candidate(config))
    }

    #[must_use]
    pub fn exchange(&self) -> Option<&Exchange> {
        if let State::Php(exchange) = &self.state { Some(exchange) } else { None }
    }

    /// The bytes that `Output::Spool` is about.
    pub fn take_stored(&mut self) -> Vec<u8> {
        let State::Php(exchange) = &mut self.state else { return Vec::new() };
        exchange.take_stored()
    }

    /// The answered request that `Output::Finished` is about.
    pub fn take_finished(&mut self) -> Option<Box<Entry>> {
        self.finished.take()
    }

    /// Whether a request is being read or answered; a fresh connection counts, since its first
    /// request may be under way.
    #[must_use]
    pub const fn is_in_flight(&self) -> bool {
        match &self.state {
            State::Head => !self.has_served || !self.inbound.is_empty(),
            State::Looking { .. } | State::Php(_) | State::File(_) | State::Discarding(_) => true,
            State::Closing { .. } => self.written < self.outbound.len(),
            State::Lingering | State::Closed => false,
        }
    }

    #[must_use]
    pub const fn client(&self) -> std::net::SocketAddr {
        self.ends.client
    }

    fn is_idle(&self) -> bool {
        matches!(self.state, State::Head) && self.inbound.is_empty() && self.pending().is_empty()
    }

    fn receive(&mut self, cx: Context<'_>, bytes: &[u8]) {
        match self.state {
            State::Head => {
                let was_empty = self.inbound.is_empty();
                self.inbound.extend_from_slice(bytes);
                if was_empty && self.has_served {
                    self.deadline = Some(cx.now + cx.config.request_limit);
                }
                self.try_head(cx);
            }
            State::Php(_) | State::Discarding(_) => self.receive_body(cx, bytes),
            State::Looking { .. } | State::File(_) => self.inbound.extend_from_slice(bytes),
            State::Closing { .. } | State::Lingering | State::Closed => {}
        }
    }

    /// Looks for a whole head in what is here.
    fn try_head(&mut self, cx: Context<'_>) {
        let Some(head_bytes) = request::find_end(&self.inbound, self.scanned) else {
            self.scanned = self.inbound.len();
            if self.inbound.len() > limits::WEB_HEAD_BYTES_MAX {
                let has_line = self.inbound.contains(&b'\n');
                self.refuse(cx, if has_line { 431 } else { 414 });
            } else if !request::may_become_head(&self.inbound) {
                self.refuse(cx, 400);
            }
            return;
        };
        self.scanned = 0;
        self.begin(cx, head_bytes);
    }

    pub(super) fn read_closed(&mut self) {
        self.is_read_closed = true;
        match &self.state {
            State::Head if self.pending().is_empty() => self.close(),
            State::Head => self.state = State::Closing { is_lingering: false },
            State::Php(_) | State::Discarding(_) => self.abandon(),
            State::Lingering => self.close(),
            State::Looking { .. } | State::File(_) | State::Closing { .. } | State::Closed => {}
        }
    }

    fn wrote(&mut self, cx: Context<'_>, count: usize) {
        self.written += count;
        if self.written < self.outbound.len() {
            if count > 0 || self.write_deadline.is_none() {
                self.write_deadline = Some(cx.now + cx.config.request_limit);
            }
            return;
        }
        self.written = 0;
        self.write_deadline = None;
        // An idle connection owns no buffer.
        if matches!(self.state, State::Head) && self.inbound.is_empty() {
            self.outbound = Vec::new();
            self.inbound = Vec::new();
        } else {
            self.outbound.clear();
        }
        if let State::Closing { is_lingering } = self.state {
            if is_lingering && !self.is_read_closed {
                self.state = State::Lingering;
                self.deadline = Some(cx.now + limits::WEB_LINGER_LIMIT);
                self.order(Output::Shutdown);
            } else {
                self.close();
            }
        }
    }

    fn file_sent(&mut self, cx: Context<'_>, count: u64) {
        let State::File(span) = &mut self.state else { return };
        span.offset += count;
        span.length = span.length.saturating_sub(count);
        let is_done = span.length == 0;
        self.deadline = Some(cx.now + cx.config.request_limit);
        if is_done {
            self.finish(cx);
        }
    }

    fn assigned(&mut self, cx: Context<'_>, host: HostId) {
        if let State::Php(exchange) = &mut self.state {
            exchange.assigned(host);
            self.deadline = Some(cx.now + cx.config.connect_limit);
            self.order(Output::Connect(host));
        }
    }

    fn answered(&mut self, cx: Context<'_>, bytes: Option<(&[u8], bool)>) {
        let (State::Php(exchange), Some(running)) = (&mut self.state, &mut self.running) else {
            return;
        };
        if cx.is_draining && !exchange.answer().is_sent() {
            running.terms.is_keep_alive = false;
        }
        self.deadline = Some(cx.now + cx.config.answer_limit);
        let (terms, out) = (&mut running.terms, &mut self.outbound);
        let step = match bytes {
            Some((bytes, is_closing)) => exchange.answered(bytes, is_closing, terms, cx.stamp, out),
            None => exchange.ended(terms, cx.stamp, out),
        };
        self.step(cx, step, None);
    }

    /// Does what a PHP exchange came to.
    fn step(&mut self, cx: Context<'_>, step: Step, evidence: Option<Evidence>) {
        let State::Php(exchange) = &mut self.state else { return };
        if step == Step::Continue {
            return;
        }
        let host = exchange.host();
        if let Some(running) = &mut self.running {
            running.upstream = host.or(running.upstream);
            running.tries = exchange.tries();
            running.status = exchange.answer().status().unwrap_or(running.status);
            running.body_bytes = exchange.answer().body_bytes();
        }
        if step == Step::Retry {
            exchange.queue(false);
            let tried = exchange.tried();
            self.deadline = Some(cx.now + cx.config.queue_limit);
            self.release(host, evidence);
            self.order(Output::Acquire { tried });
            return;
        }
        self.release(host, evidence);
        match step {
            Step::Fail(status) => {
                let extra = if status == 503 { "Retry-After: 1\r\n" } else { "" };
                self.page(cx, status, extra);
            }
            Step::Done(ending) => {
                if let (Ending::Close, Some(running)) = (ending, &mut self.running) {
                    running.terms.is_keep_alive = false;
                }
                self.finish(cx);
            }
            Step::Abort | Step::Continue | Step::Retry => {
                if let Some(running) = &mut self.running {
                    running.terms.is_keep_alive = false;
                }
                self.finish(cx);
            }
        }
    }

    fn release(&mut self, host: Option<HostId>, evidence: Option<Evidence>) {
        if let Some(host) = host {
            self.order(Output::Release(host, evidence));
        }
    }

    fn drain(&mut self, cx: Context<'_>) {
        if !self.is_idle() {
            return;
        }
        if self.has_served {
            self.close();
        } else {
            self.deadline = earliest(self.deadline, Some(cx.now + limits::WEB_DRAIN_GRACE));
        }
    }

    fn expired(&mut self, cx: Context<'_>) {
        if self.write_deadline.is_some_and(|deadline| deadline <= cx.now) {
            self.abandon();
            return;
        }
        if self.deadline.is_none_or(|deadline| deadline > cx.now) {
            return;
        }
        let is_blocked = !self.wants_upstream();
        match &self.state {
            State::Head if self.inbound.is_empty() => self.close(),
            State::Head => self.refuse(cx, 408),
            State::Php(exchange) => match exchange.phase() {
                Phase::Collecting => self.refuse(cx, 408),
                Phase::Queued => {
                    self.order(Output::LeaveQueue);
                    self.step(cx, Step::Fail(503), None);
                }
                Phase::Connecting(_) => {
                    let step = exchange.connect_failed();
                    self.step(cx, step, Some(Evidence::ConnectLate));
                }
                // It is the client who is slow; `write_deadline` watches it.
                Phase::Talking(_) if is_blocked => {
                    self.deadline = Some(cx.now + cx.config.answer_limit);
                }
                Phase::Talking(_) => {
                    let step = exchange.broken(504);
                    self.step(cx, step, None);
                }
            },
            State::File(_) | State::Looking { .. } => self.abandon(),
            State::Discarding(_) | State::Closing { .. } | State::Lingering => self.close(),
            State::Closed => self.deadline = None,
        }
    }

    /// An answer of our own to a request that cannot be read to its end: the connection is over.
    pub(super) fn refuse(&mut self, cx: Context<'_>, status: u16) {
        let line_end = self.inbound.iter().position(|&byte| byte == b'\r' || byte == b'\n');
        let mut line = self.inbound.get(..line_end.unwrap_or(0)).unwrap_or_default().to_vec();
        line.truncate(256);
        self.inbound = Vec::new();
        let running = self.running.get_or_insert_with(|| {
            let terms = Terms { is_head: false, is_http_10: false, is_keep_alive: false };
            Box::new(Running::new(cx.now, terms, Words { line, ..Words::default() }))
        });
        running.terms.is_keep_alive = false;
        running.is_lingering = true;
        self.page(cx, status, "");
    }

    /// An answer of our own.
    pub(super) fn page(&mut self, cx: Context<'_>, status: u16, extra: &str) {
        let Some(running) = &mut self.running else { return };
        running.terms.is_keep_alive &= !cx.is_draining && !running.is_continue_due;
        running.status = status;
        running.body_bytes =
            reply::page(&mut self.outbound, status, cx.stamp, running.terms, extra);
        self.finish(cx);
    }

    /// The request is answered as far as it will be.
    pub(super) fn finish(&mut self, cx: Context<'_>) {
        let Some(running) = self.running.take() else { return };
        self.has_served = true;
        self.record(cx.now, &running);
        let is_body_left = !running.rest.is_ended();
        let may_go_on = running.terms.is_keep_alive && !cx.is_draining && !self.is_read_closed;
        self.state = if !may_go_on || (is_body_left && running.is_continue_due) {
            let is_lingering = running.is_lingering || is_body_left || !self.inbound.is_empty();
            self.inbound = Vec::new();
            State::Closing { is_lingering }
        } else if is_body_left {
            State::Discarding(running.rest)
        } else {
            State::Head
        };
        self.deadline = Some(cx.now + cx.config.request_limit);
        if matches!(self.state, State::Head) {
            self.mark_head_due(cx);
        }
        if matches!(self.state, State::Discarding(_)) {
            let bytes = std::mem::take(&mut self.inbound);
            self.receive_body(cx, &bytes);
        }
        if self.pending().is_empty() {
            self.wrote(cx, 0);
        }
    }

    fn record(&mut self, now: Instant, running: &Running) {
        self.finished = Some(Box::new(Entry {
            request: running.words.clone(),
            status: running.status,
            body_bytes: running.body_bytes,
            elapsed: now.since(running.started_at),
            upstream: running.upstream,
            tries: running.tries,
        }));
        self.order(Output::Finished);
    }

    /// The client is gone, or cannot be answered properly: everything is let go.
    fn abandon(&mut self) {
        if let State::Php(exchange) = &self.state {
            let (phase, host, tries) = (exchange.phase(), exchange.host(), exchange.tries());
            if phase == Phase::Queued {
                self.order(Output::LeaveQueue);
            }
            self.release(host, None);
            if let Some(running) = &mut self.running {
                (running.upstream, running.tries) = (host, tries);
            }
        }
        if let Some(mut running) = self.running.take() {
            // nginx: NGX_HTTP_CLIENT_CLOSED_REQUEST.
            running.status = 499;
            let started_at = running.started_at;
            self.record(started_at, &running);
        }
        self.close();
    }

    pub(super) fn close(&mut self) {
        if !matches!(self.state, State::Closed) {
            self.state = State::Closed;
            self.deadline = None;
            self.write_deadline = None;
            self.order(Output::Close);
        }
    }

    /// The answer is out or on its way; what the client still sends is thrown away for a while.
    pub(super) fn linger(&mut self) {
        if !matches!(self.state, State::Lingering | State::Closed) {
            self.state = State::Closing { is_lingering: true };
        }
    }

    /// Bytes of a next request are here already, or the connection is idle.
    pub(super) fn mark_head_due(&mut self, cx: Context<'_>) {
        self.is_head_due = !self.inbound.is_empty();
        let limit = if self.is_head_due { cx.config.request_limit } else { cx.config.idle_limit };
        self.deadline = Some(cx.now + limit);
    }

    pub(super) fn order(&mut self, output: Output) {
        let is_lost = self.outputs.push_back(output).is_err();
        assert!(!is_lost, "the hands drain the outputs after every input");
    }

    pub(super) fn acquire(&mut self, cx: Context<'_>) {
        let (State::Php(exchange), Some(running)) = (&mut self.state, &self.running) else {
            return;
        };
        exchange.queue(running.has_length);
        self.deadline = Some(cx.now + cx.config.queue_limit);
        self.order(Output::Acquire { tried: [false; 2] });
    }
}

impl Running {
    pub(super) const fn new(now: Instant, terms: Terms, words: Words) -> Self {
        Self {
            terms,
            words,
            started_at: now,
            status: 0,
            body_bytes: 0,
            upstream: None,
            tries: 0,
            rest: body::Decoder::new(request::Framing::Empty),
            is_continue_due: false,
            has_length: false,
            is_lingering: false,
        }
    }
}
