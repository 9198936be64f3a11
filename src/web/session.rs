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

use std::net::IpAddr;
use std::time::Duration;

use crate::limits;
use crate::time::{Instant, earliest};
use crate::wire::HostId;

use super::balance::Want;
use super::body;
use super::exchange::{Exchange, Phase, Step};
use super::files::Span;
use super::log::Entry;
use super::lookup::{Found, Lookup};
use super::params::Ends;
use super::port::Port;
use super::reply::Stamp;
use super::rules::Rules;
use super::running::Running;
use super::site::Sites;
use super::upstream::Evidence;
use super::{Config, origin, request};

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
    pub(super) finished: Option<Box<Entry>>,
    pub(super) deadline: Option<Instant>,
    /// While bytes wait for the client: until when some of them must have gone.
    pub(super) write_deadline: Option<Instant>,
    pub(super) has_served: bool,
    pub(super) is_read_closed: bool,
    pub(super) is_head_due: bool,
    /// The PROXY protocol's header comes first.
    pub(super) is_proxy_due: bool,
    /// Its client has too many connections: the first request is refused.
    is_one_too_many: bool,
    /// The client is a web server that speaks FastCGI (see `gateway`).
    pub(super) port: Option<Box<Port>>,
    /// It came without TLS to the port of HTTPS.
    pub(super) is_misdirected: bool,
    pub(super) is_cut: bool,
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

/// What every call is given.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub now: Instant,
    pub rules: &'a Rules,
    pub stamp: &'a Stamp,
    /// The session's listener is draining: no keep-alive.
    pub is_draining: bool,
}

#[derive(Debug)]
pub enum Input<'a> {
    Received(&'a [u8]),
    /// The client's connections were counted: whether this is one too many.
    Counted {
        is_one_too_many: bool,
    },
    /// The handshake of TLS is over: the first request has all its time.
    Secured,
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
    /// A connection to the peer begins; whether php-fpm is asked to keep it.
    Connecting {
        keeps: bool,
    },
    /// A kept connection is there already.
    Reused,
    Connected,
    /// As `AskRead` wanted to know: php-fpm has read the request, or it has to be waited for.
    FoundRead(bool),
    /// No connection; the evidence against the peer, unless the fault is ours.
    ConnectFailed(Option<Evidence>),
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
    /// The PROXY protocol named the client of the connection: count it, answer with `Counted`.
    Count,
    /// Look at `candidate`, keep the file open if it is one, answer with `Looked`.
    Look,
    /// Move `take_stored` to the body's file.
    Spool,
    /// Ask the upstream for a peer that is not in `tried`, on its retry budget or not.
    Acquire {
        tried: [bool; 2],
        is_charged: bool,
    },
    LeaveQueue,
    /// Connect to this peer, or take a kept connection if the exchange `may_reuse`. Answered with
    /// `Connecting`, `Reused` or `ConnectFailed`.
    Connect(HostId),
    /// Close the connection to this peer; the evidence against it, if there is any.
    Release(HostId, Option<Evidence>),
    /// Leave the connection to this peer for another request, or close it.
    Keep(HostId),
    /// Find out whether the request was read from its kept connection.
    AskRead,
    /// A request is answered: `take_finished`.
    Finished,
    /// Close the sending side.
    Shutdown,
    Close,
}

/// Bytes pending above which the next pipelined request waits.
pub(super) const PIPELINE_BYTES_MAX: usize = 64 * 1024;

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
            is_one_too_many: false,
            is_read_closed: false,
            is_head_due: false,
            is_proxy_due: config.proxy_protocol
                && origin::is_trusted(ends.client.ip(), &config.set_real_ip_from),
            port: None,
            is_misdirected: false,
            is_cut: false,
        }
    }

    pub fn handle(&mut self, cx: Context<'_>, input: Input<'_>) {
        match input {
            Input::Received(bytes) => self.receive(cx, bytes),
            Input::Counted { is_one_too_many } => self.counted(cx, is_one_too_many),
            Input::Secured => self.deadline = Some(cx.now + self.first_limit(cx)),
            Input::ReadClosed => self.read_closed(cx),
            Input::Gone => self.abandon(cx),
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
            Input::FileCut => self.abandon(cx),
            Input::SpoolFailed => {
                // An `Acquire` that was ordered with the spooling must not be carried out.
                self.outputs.clear();
                self.refuse(cx, 507);
            }
            Input::Assigned(host) => self.assigned(cx, host),
            Input::Unassigned => self.consider(cx, None, Exchange::unassigned),
            Input::Connecting { keeps } => {
                if let State::Php(exchange) = &mut self.state {
                    exchange.begun(keeps);
                }
            }
            Input::Reused => self.progress(cx, Exchange::reused),
            Input::Connected => self.progress(cx, Exchange::connected),
            Input::FoundRead(is_read) => self.found_read(cx, is_read),
            Input::ConnectFailed(evidence) => {
                self.consider(cx, evidence, Exchange::connect_failed);
            }
            Input::Answered { bytes, is_closing } => self.answered(cx, Some((bytes, is_closing))),
            Input::AnswerEnded => self.answered(cx, None),
            Input::AnswerReset => self.consider(cx, None, Exchange::reset),
            Input::UpstreamWriteFailed => {
                if let State::Php(exchange) = &mut self.state {
                    exchange.write_failed();
                }
            }
            Input::UpstreamWrote(count) => self.progress(cx, |exchange| exchange.wrote(count)),
            Input::StdinBytes(bytes) => {
                if let State::Php(exchange) = &mut self.state {
                    exchange.push_stdin(bytes);
                }
            }
            Input::HostLost(host) => self.consider(cx, None, |exchange| exchange.host_lost(host)),
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
        if let Some(port) = &self.port {
            return self.wants_records(port);
        }
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
        if let Some(port) = &self.port {
            return self.has_records(port);
        }
        self.is_head_due && self.pending().len() < PIPELINE_BYTES_MAX
    }

    /// A request waits for PHP or gets its answer, so that a client that leaves should free a
    /// worker at once.
    #[must_use]
    pub fn is_waiting_for_php(&self) -> bool {
        self.exchange().is_some_and(|exchange| exchange.phase() != Phase::Collecting)
    }

    /// Whether `Connect` may be answered with a kept connection.
    #[must_use]
    pub fn may_reuse(&self) -> bool {
        self.exchange().is_some_and(Exchange::may_reuse)
    }

    /// The part of the file that is still to be sent.
    #[must_use]
    pub const fn file(&self) -> Option<Span> {
        if let State::File(span) = &self.state { Some(*span) } else { None }
    }

    /// The number of the site and the path that `Output::Look` is about.
    #[must_use]
    pub fn candidate(&self, sites: &Sites) -> Option<(usize, Vec<u8>)> {
        let State::Looking { lookup, .. } = &self.state else { return None };
        Some((lookup.site(), lookup.candidate(sites)))
    }

    #[must_use]
    pub fn exchange(&self) -> Option<&Exchange> {
        if let State::Php(exchange) = &self.state { Some(exchange) } else { None }
    }

    /// Whom the request that is being answered comes from.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        self.running.as_ref().map_or(self.ends, |running| running.ends).client.ip()
    }

    /// What the request that is being answered wants of the peers.
    #[must_use]
    pub fn want(&self, tried: [bool; 2]) -> Want {
        match &self.running {
            Some(running) => Want { tried, affinity: running.affinity, since: running.started_at },
            None => Want { tried, ..Want::default() },
        }
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
            State::Head => !self.has_served || !self.inbound.is_empty() || self.running.is_some(),
            State::Looking { .. } | State::Php(_) | State::File(_) | State::Discarding(_) => true,
            State::Closing { .. } => self.written < self.outbound.len(),
            State::Lingering | State::Closed => false,
        }
    }

    /// Whether what the client has is no whole answer, so that the end must not look like one.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    fn is_idle(&self) -> bool {
        matches!(self.state, State::Head) && self.inbound.is_empty() && self.pending().is_empty()
    }

    fn receive(&mut self, cx: Context<'_>, bytes: &[u8]) {
        match self.state {
            State::Head | State::Php(_) if self.port.is_some() => self.receive_records(cx, bytes),
            State::Head => {
                let was_empty = self.inbound.is_empty();
                self.inbound.extend_from_slice(bytes);
                if was_empty && self.has_served {
                    self.deadline = Some(cx.now + cx.rules.config.request_limit);
                }
                self.try_head(cx);
            }
            State::Php(_) | State::Discarding(_) => self.receive_body(cx, bytes),
            State::Looking { .. } | State::File(_) => self.inbound.extend_from_slice(bytes),
            State::Closing { .. } | State::Lingering | State::Closed => {}
        }
    }

    /// Looks for a whole head in what is here.
    pub(super) fn try_head(&mut self, cx: Context<'_>) {
        if self.port.is_some() {
            let bytes = std::mem::take(&mut self.inbound);
            self.receive_records(cx, &bytes);
            return;
        }
        if self.is_proxy_due && !self.take_proxy(cx) {
            return;
        }
        // One that came in a single read is measured as one that came in many.
        let end = request::find_end(&self.inbound, self.scanned);
        let Some(head_bytes) = end.filter(|&end| end <= limits::WEB_HEAD_BYTES_MAX) else {
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
        if self.is_one_too_many {
            self.refuse(cx, 503);
        } else {
            self.begin(cx, head_bytes);
        }
    }

    /// It is told once its request is here: an answer that nobody asked for yet is taken for none.
    fn counted(&mut self, cx: Context<'_>, is_one_too_many: bool) {
        self.is_one_too_many = is_one_too_many;
        if is_one_too_many {
            self.deadline = Some(cx.now + self.first_limit(cx));
        }
        if matches!(self.state, State::Head) && !self.inbound.is_empty() {
            self.try_head(cx);
        }
    }

    /// How long the first request may take to come.
    const fn first_limit(&self, cx: Context<'_>) -> Duration {
        if self.is_one_too_many { limits::WEB_LINGER_LIMIT } else { cx.rules.config.request_limit }
    }

    fn read_closed(&mut self, cx: Context<'_>) {
        self.is_read_closed = true;
        match &self.state {
            State::Head if self.pending().is_empty() => self.close(),
            State::Head => self.state = State::Closing { is_lingering: false },
            State::Php(_) | State::Discarding(_) => self.abandon(cx),
            State::Lingering => self.close(),
            State::Looking { .. } | State::File(_) | State::Closing { .. } | State::Closed => {}
        }
    }

    pub(super) fn wrote(&mut self, cx: Context<'_>, count: usize) {
        self.written += count;
        if self.written < self.outbound.len() {
            if count > 0 || self.write_deadline.is_none() {
                self.write_deadline = Some(cx.now + cx.rules.config.request_limit);
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
        self.deadline = Some(cx.now + cx.rules.config.request_limit);
        if is_done {
            self.finish(cx);
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
            self.abandon(cx);
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
                    self.consider(cx, Some(Evidence::ConnectLate), Exchange::connect_failed);
                }
                // It is the client who is slow; `write_deadline` watches it.
                Phase::Talking(_) if is_blocked => {
                    self.deadline = Some(cx.now + cx.rules.config.answer_limit);
                }
                Phase::Talking(_) if exchange.is_unread() => self.order(Output::AskRead),
                Phase::Talking(_) => self.consider(cx, None, |exchange| exchange.broken(504)),
            },
            State::File(_) | State::Looking { .. } => self.abandon(cx),
            State::Discarding(_) | State::Closing { .. } | State::Lingering => self.close(),
            State::Closed => self.deadline = None,
        }
    }

    pub(super) fn order(&mut self, output: Output) {
        let is_lost = self.outputs.push_back(output).is_err();
        assert!(!is_lost, "the hands drain the outputs after every input");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::web::lookup::Meta;
    use HostId::{First, Second};

    const META: Meta = Meta { size_bytes: 3, modified_unix_seconds: 1_700_000_000 };
    const GET_PHP: &str = "GET /t.php HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST_PHP: &str = "POST /t.php HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

    /// A session with the hands played by the test: files `/a.txt` and `/t.php` exist.
    struct Desk {
        rules: Rules,
        stamp: Stamp,
        now: Instant,
        is_draining: bool,
        session: Session,
        orders: Vec<Output>,
        entries: Vec<Entry>,
        sent: Vec<u8>,
    }

    impl Desk {
        fn new() -> Self {
            let config = Config::default();
            let address = "127.0.0.1:1".parse().expect("an address");
            let ends = Ends { client: address, local: address, is_https: false };
            Self {
                session: Session::new(Instant::ZERO, &config, ends),
                rules: Rules::new(config),
                stamp: Stamp::new(0),
                now: Instant::ZERO,
                is_draining: false,
                orders: Vec::new(),
                entries: Vec::new(),
                sent: Vec::new(),
            }
        }

        fn feed(&mut self, input: Input<'_>) {
            let cx = Context {
                now: self.now,
                rules: &self.rules,
                stamp: &self.stamp,
                is_draining: self.is_draining,
            };
            self.session.handle(cx, input);
            while let Some(output) = self.session.poll_output() {
                match output {
                    Output::Look => {
                        let candidate = self.session.candidate(&self.rules.sites);
                        let (_, path) = candidate.expect("is looking");
                        let is_file = path == b"/a.txt" || path == b"/t.php";
                        let found = if is_file { Found::File(META) } else { Found::Missing };
                        self.session.handle(cx, Input::Looked(found));
                    }
                    Output::Finished => {
                        self.entries.push(*self.session.take_finished().expect("is finished"));
                    }
                    Output::Spool
                    | Output::Acquire { .. }
                    | Output::LeaveQueue
                    | Output::Connect(_)
                    | Output::Release(..)
                    | Output::Keep(_)
                    | Output::AskRead
                    | Output::Count
                    | Output::Shutdown
                    | Output::Close => self.orders.push(output),
                }
            }
        }

        fn receive(&mut self, text: &str) {
            self.feed(Input::Received(text.as_bytes()));
        }

        /// Everything pending goes out; returns what went out since the last call.
        fn write(&mut self) -> String {
            let count = self.session.pending().len();
            self.sent.extend_from_slice(self.session.pending());
            self.feed(Input::Wrote(count));
            String::from_utf8(std::mem::take(&mut self.sent)).expect("text")
        }

        fn orders(&mut self) -> Vec<Output> {
            std::mem::take(&mut self.orders)
        }

        fn pass(&mut self, span: Duration) {
            self.now = self.now + span;
            if self.session.deadline().is_some_and(|deadline| deadline <= self.now) {
                self.feed(Input::Expired);
            }
        }

        /// To the point where the request is at a peer.
        fn talk(&mut self, host: HostId) {
            self.feed(Input::Assigned(host));
            self.feed(Input::Connected);
            let count = self.session.exchange().map_or(0, |exchange| exchange.pending().len());
            assert!(count > 0);
            self.feed(Input::UpstreamWrote(count));
        }

        fn answer(&mut self, bytes: &[u8]) {
            self.feed(Input::Answered { bytes, is_closing: false });
        }
    }

    const HELLO: &[u8] = &[
        1, 6, 0, 1, 0, 7, 0, 0, b'\r', b'\n', b'h', b'e', b'l', b'l', b'o', 1, 3, 0, 1, 0, 8, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn a_file_is_answered_and_the_connection_goes_on() {
        let mut desk = Desk::new();
        desk.receive("GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(desk.session.file(), Some(Span { offset: 0, length: 3 }));
        desk.feed(Input::FileBytes(b"abc"));
        assert!(desk.write().ends_with("\r\n\r\nabc"));
        assert_eq!(desk.entries[0].status, 200);
        assert!(desk.session.wants_client() && !desk.session.is_in_flight());
        assert_eq!(desk.session.inbound.capacity() + desk.session.outbound.capacity(), 0);
        assert_eq!(desk.orders(), []);
    }

    #[test]
    fn a_pipelined_request_waits_for_proceed() {
        let mut desk = Desk::new();
        desk.receive(&[GET_PHP, GET_PHP].concat());
        assert_eq!(desk.orders(), [Output::Acquire { tried: [false; 2], is_charged: false }]);
        desk.talk(First);
        desk.answer(HELLO);
        assert_eq!(desk.orders(), [Output::Connect(First), Output::Keep(First)]);
        assert!(desk.session.is_head_due() && !desk.session.wants_client());
        desk.feed(Input::Proceed);
        assert_eq!(desk.orders(), [Output::Acquire { tried: [false; 2], is_charged: false }]);
    }

    #[test]
    fn a_late_connection_goes_to_the_other_peer_even_for_post() {
        let mut desk = Desk::new();
        desk.receive(POST_PHP);
        desk.feed(Input::Assigned(First));
        desk.orders();
        desk.pass(desk.rules.config.connect_limit);
        let late = Some(Evidence::ConnectLate);
        let acquire = Output::Acquire { tried: [true, false], is_charged: false };
        assert_eq!(desk.orders(), [Output::Release(First, late), acquire]);
        desk.talk(Second);
        desk.answer(HELLO);
        assert!(desk.write().ends_with("hello"));
        assert_eq!((desk.entries[0].tries, desk.entries[0].upstream), (2, Some(Second)));
    }

    #[test]
    fn a_silent_peer_costs_a_get_one_retry_and_a_post_504() {
        let mut desk = Desk::new();
        desk.receive(GET_PHP);
        desk.talk(First);
        desk.orders();
        desk.pass(desk.rules.config.answer_limit);
        let acquire = Output::Acquire { tried: [true, false], is_charged: true };
        assert_eq!(desk.orders(), [Output::Release(First, None), acquire]);
        desk.talk(Second);
        desk.pass(desk.rules.config.answer_limit);
        assert_eq!(desk.entries[0].status, 504);
        let mut desk = Desk::new();
        desk.receive(POST_PHP);
        desk.talk(First);
        desk.pass(desk.rules.config.answer_limit);
        assert_eq!(desk.entries[0].status, 504);
        assert!(desk.write().starts_with("HTTP/1.1 504 "));
    }

    /// On a kept connection, to the point where the request is written.
    fn reuse(desk: &mut Desk) {
        desk.feed(Input::Assigned(First));
        assert!(desk.session.may_reuse());
        desk.feed(Input::Reused);
        let count = desk.session.exchange().map_or(0, |exchange| exchange.pending().len());
        desk.feed(Input::UpstreamWrote(count));
        desk.orders();
    }

    #[test]
    fn a_stale_connection_costs_a_fresh_one_to_the_same_peer_and_no_try() {
        for end in [Input::AnswerEnded, Input::AnswerReset] {
            let mut desk = Desk::new();
            desk.receive(GET_PHP);
            reuse(&mut desk);
            desk.feed(end);
            assert_eq!(desk.orders(), [Output::Connect(First)]);
            assert!(!desk.session.may_reuse(), "once");
            desk.feed(Input::Connected);
            let count = desk.session.exchange().map_or(0, |exchange| exchange.pending().len());
            desk.feed(Input::UpstreamWrote(count));
            desk.answer(HELLO);
            assert_eq!(desk.orders(), [Output::Keep(First)]);
            assert!(desk.write().ends_with("hello"));
            assert_eq!((desk.entries[0].tries, desk.entries[0].upstream), (1, Some(First)));
        }
        let mut desk = Desk::new();
        desk.receive(POST_PHP);
        desk.feed(Input::Assigned(First));
        assert!(!desk.session.may_reuse(), "it could have been executed");
    }

    #[test]
    fn a_request_that_nobody_reads_leaves_its_kept_connection_and_one_that_is_read_stays() {
        for is_read in [false, true] {
            let mut desk = Desk::new();
            desk.receive(GET_PHP);
            reuse(&mut desk);
            desk.pass(limits::WEB_UNREAD_LIMIT);
            assert_eq!(desk.orders(), [Output::AskRead]);
            desk.feed(Input::FoundRead(is_read));
            if is_read {
                assert_eq!(desk.orders(), []);
                desk.pass(desk.rules.config.answer_limit);
                let acquire = Output::Acquire { tried: [true, false], is_charged: true };
                assert_eq!(desk.orders(), [Output::Release(First, None), acquire]);
            } else {
                assert_eq!(desk.orders(), [Output::Connect(First)]);
            }
        }
    }

    #[test]
    fn one_connection_too_many_is_told_with_its_first_answer() {
        let mut desk = Desk::new();
        desk.feed(Input::Counted { is_one_too_many: true });
        assert!(desk.session.pending().is_empty(), "nobody asked yet");
        desk.receive("GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(desk.write().starts_with("HTTP/1.1 503 "));
        assert_eq!(desk.orders(), [Output::Shutdown]);
        let mut desk = Desk::new();
        desk.feed(Input::Counted { is_one_too_many: true });
        desk.pass(limits::WEB_LINGER_LIMIT);
        assert_eq!(desk.orders(), [Output::Close], "it has less time than others");
    }

    #[test]
    fn waiting_too_long_for_a_peer_is_503() {
        let mut desk = Desk::new();
        desk.receive(GET_PHP);
        desk.orders();
        desk.pass(desk.rules.config.queue_limit);
        assert_eq!(desk.orders(), [Output::LeaveQueue]);
        assert!(desk.write().contains("Retry-After: 1\r\n"));
        assert_eq!(desk.entries[0].status, 503);
    }

    #[test]
    fn a_lost_host_gives_back_its_gets_at_once() {
        let mut desk = Desk::new();
        desk.receive(GET_PHP);
        desk.talk(First);
        desk.orders();
        desk.feed(Input::HostLost(Second));
        assert_eq!(desk.orders(), []);
        desk.feed(Input::HostLost(First));
        let acquire = Output::Acquire { tried: [true, false], is_charged: false };
        assert_eq!(desk.orders(), [Output::Release(First, None), acquire]);
        let mut desk = Desk::new();
        desk.receive(POST_PHP);
        desk.talk(First);
        desk.orders();
        desk.feed(Input::HostLost(First));
        assert_eq!(desk.orders(), [], "a POST that may be running is waited for");
    }

    #[test]
    fn a_client_that_leaves_gives_back_its_peer_or_its_place() {
        let mut desk = Desk::new();
        desk.receive(GET_PHP);
        desk.orders();
        desk.feed(Input::Gone);
        assert_eq!(desk.orders(), [Output::LeaveQueue, Output::Close]);
        let mut desk = Desk::new();
        desk.receive(GET_PHP);
        desk.talk(First);
        desk.orders();
        desk.feed(Input::Gone);
        assert_eq!(desk.orders(), [Output::Release(First, None), Output::Close]);
        assert_eq!(desk.entries[0].status, 499);
    }

    #[test]
    fn idle_and_half_sent_connections_end_in_time() {
        let mut desk = Desk::new();
        desk.pass(desk.rules.config.request_limit);
        assert_eq!(desk.orders(), [Output::Close]);
        let mut desk = Desk::new();
        desk.receive("GET / HT");
        desk.pass(desk.rules.config.request_limit);
        assert!(desk.write().starts_with("HTTP/1.1 408 "));
        assert_eq!(desk.orders(), [Output::Shutdown]);
        desk.pass(limits::WEB_LINGER_LIMIT);
        assert_eq!(desk.orders(), [Output::Close]);
    }

    #[test]
    fn a_client_that_does_not_read_is_cut() {
        let mut desk = Desk::new();
        desk.receive(GET_PHP);
        desk.talk(First);
        desk.orders();
        desk.answer(&HELLO[..15]);
        desk.feed(Input::Wrote(1));
        desk.pass(desk.rules.config.request_limit);
        assert_eq!(desk.orders(), [Output::Release(First, None), Output::Close]);
    }

    #[test]
    fn draining_ends_keep_alive() {
        let mut desk = Desk::new();
        desk.receive(GET_PHP);
        desk.talk(First);
        desk.is_draining = true;
        desk.feed(Input::Drain);
        desk.answer(HELLO);
        desk.orders();
        assert!(desk.write().contains("Connection: close\r\n"));
        assert_eq!(desk.orders(), [Output::Close]);
    }

    #[test]
    fn a_head_is_too_large_in_one_read_too() {
        let lines = "X: yyyyyyyyyyyyy\r\n".repeat(limits::WEB_HEAD_BYTES_MAX / 17);
        let text = format!("GET /a.txt HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        for size in [usize::MAX, 1000] {
            let mut desk = Desk::new();
            text.as_bytes().chunks(size).for_each(|piece| desk.feed(Input::Received(piece)));
            assert!(desk.write().starts_with("HTTP/1.1 431 "));
        }
    }

    #[test]
    fn an_unwanted_body_is_measured_as_a_whole_and_ends_its_connection_at_once() {
        let head = "POST /a.txt HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in ["5\r\n01234\r\n6\r\n567890\r\n", "x"] {
            let mut desk = Desk::new();
            desk.rules.config.body_max = crate::units::ByteCount(10);
            desk.receive(head);
            assert!(desk.write().starts_with("HTTP/1.1 405 "));
            body.as_bytes().iter().for_each(|&byte| desk.feed(Input::Received(&[byte])));
            assert_eq!(desk.orders(), [Output::Shutdown]);
            desk.receive(GET_PHP);
            assert_eq!(desk.orders(), []);
            desk.pass(limits::WEB_LINGER_LIMIT);
            assert_eq!(desk.orders(), [Output::Close]);
        }
    }

    #[test]
    fn any_bytes_at_any_cut_never_panic() {
        let text =
            [GET_PHP, POST_PHP, "GET /a.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-0\r\n\r\n"]
                .concat();
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut desk = Desk::new();
            for piece in bytes.chunks(1 + bit % 13) {
                if desk.session.wants_client() {
                    desk.feed(Input::Received(piece));
                }
                if desk.session.file().is_some() {
                    desk.feed(Input::FileBytes(b"x"));
                }
                if desk.orders().iter().any(|order| matches!(order, Output::Acquire { .. })) {
                    desk.talk(First);
                    desk.answer(HELLO);
                }
                desk.write();
                if desk.session.is_head_due() {
                    desk.feed(Input::Proceed);
                }
            }
        }
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Session>() <= 512, "{} bytes", size_of::<Session>());
    }
}
