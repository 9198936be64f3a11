//! Exchange: the life of one PHP request, from its parameters to the last byte of the answer.
//!
//! In: the request's body, a peer, what its connection gave. Out: bytes for php-fpm, bytes for the
//! client, and a `Step` that says what the session must do. Must not: choose a peer, send a request
//! again that may have been executed. Read first: facts/web.md 2.2 and 6 (retry rules); `session`.
//!
//! ```text
//!   Collecting --body whole--> Queued --peer--> Connecting --connected--> Talking --END--> done
//!                                ^                  |                        |
//!                                |  failed or late: |  reset, late, lost and |
//!                                +-- always --------+- idempotent, nothing --+
//!                                                      sent to the client
//! ```
//! A request that harms nobody by being repeated, and has no body, may begin in Talking on a kept
//! connection. If php-fpm had closed that, or does not read from it, the request goes back to
//! Connecting, to the same peer: that is nobody's fault and costs it no try.

use crate::wire::HostId;

use super::answer::Ending;
use super::fastcgi::{self, Event, Kind, Params};
use super::reply::{Stamp, Terms};
use super::response::Response;

/// One request to PHP.
#[derive(Debug)]
pub struct Exchange {
    params: Option<Params>,
    /// BEGIN_REQUEST and PARAMS, and STDIN where the body is in memory; kept for a second try.
    request: Vec<u8>,
    request_written: usize,
    body: Body,
    is_idempotent: bool,
    /// Tells it from requests for something else.
    fingerprint: u64,
    tried: [bool; 2],
    tries: u8,
    /// A kept connection failed this request: it gets no other.
    is_stale: bool,
    line: Vec<u8>,
    /// The answer where no peer can be had: 503, or what became of the first try.
    refusal: u16,
    phase: Phase,
    /// Bytes for php-fpm behind the request, and how many of them were written.
    pending: Vec<u8>,
    pending_written: usize,
    is_request_sent: bool,
    stdin_sent: u64,
    connection: Connection,
    /// Bytes came back on this connection.
    is_heard: bool,
    /// END_REQUEST was the last of them, and nothing is left to be sent.
    is_clean: bool,
    decoder: fastcgi::Decoder,
    response: Response,
}

/// The request's body: in memory, or all of it in the hands' file once it grew too large.
#[derive(Debug, Default)]
struct Body {
    stored: Vec<u8>,
    /// Bytes that were in memory, and are part of the request.
    joined_bytes: Option<u64>,
    spooled_bytes: u64,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Collecting,
    Queued,
    Connecting(HostId),
    Talking(HostId),
}

/// Where the connection of a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    Fresh,
    /// Kept from another request; its worker was asked to read this one.
    Kept,
    /// Kept, and its worker has read the request.
    KeptRead,
}

/// What the session must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Continue,
    /// Leave this peer, where the request may have been executed, and ask for the other one; this
    /// is the status where the retry budget is used up.
    Retry(u16),
    /// Leave this peer and ask for the other one: nothing was executed, or the host is lost.
    Move,
    /// The kept connection was of no use: take a fresh one to the same peer.
    Again,
    /// Leave this peer and answer with this status.
    Fail(u16),
    /// Leave this peer and send the file that the answer names.
    Inside,
    /// The answer is whole.
    Done(Ending),
    /// The answer broke off after its beginning had been sent: close the client.
    Abort,
}

/// Content of one STDIN record from the hands' file.
pub const STDIN_BYTES_MAX: usize = 32 * 1024;

impl Exchange {
    #[must_use]
    pub fn new(params: Params, is_idempotent: bool, fingerprint: u64, response: Response) -> Self {
        Self {
            params: Some(params),
            request: Vec::new(),
            request_written: 0,
            body: Body::default(),
            is_idempotent,
            fingerprint,
            tried: [false; 2],
            tries: 0,
            is_stale: false,
            line: Vec::new(),
            refusal: 503,
            phase: Phase::Collecting,
            pending: Vec::new(),
            pending_written: 0,
            is_request_sent: false,
            stdin_sent: 0,
            connection: Connection::Fresh,
            is_heard: false,
            is_clean: false,
            decoder: fastcgi::Decoder::default(),
            response,
        }
    }

    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    #[must_use]
    pub const fn tried(&self) -> [bool; 2] {
        self.tried
    }

    #[must_use]
    pub const fn tries(&self) -> u8 {
        self.tries
    }

    #[must_use]
    pub const fn response(&self) -> &Response {
        &self.response
    }

    /// Bytes of the request's body so far.
    #[must_use]
    pub fn collected_bytes(&self) -> u64 {
        self.body.length()
    }

    /// The peer that this request occupies.
    #[must_use]
    pub const fn host(&self) -> Option<HostId> {
        match self.phase {
            Phase::Collecting | Phase::Queued => None,
            Phase::Connecting(host) | Phase::Talking(host) => Some(host),
        }
    }

    /// Adds a piece of the body.
    pub fn collect(&mut self, piece: &[u8]) {
        self.body.stored.extend_from_slice(piece);
    }

    /// Whether the hands should move the stored bytes to their file.
    #[must_use]
    pub const fn is_spool_due(&self, is_whole: bool, memory_bytes: usize) -> bool {
        let stored_bytes = self.body.stored.len();
        stored_bytes >= memory_bytes
            || (is_whole && stored_bytes > 0 && self.body.spooled_bytes > 0)
    }

    /// The stored bytes, which from here on are the hands' to keep.
    pub fn take_stored(&mut self) -> Vec<u8> {
        self.body.spooled_bytes = self.body.length();
        std::mem::take(&mut self.body.stored)
    }

    /// The body is whole: CONTENT_LENGTH is known and exact, and a peer is wanted. `has_length`:
    /// the request had a body, or said that it had none.
    pub fn queue(&mut self, has_length: bool) {
        if let Some(mut params) = self.params.take() {
            let length = has_length.then(|| self.body.length().to_string());
            let is_added = params.add(b"CONTENT_LENGTH", length.unwrap_or_default().as_bytes());
            debug_assert!(is_added, "a number fits a record");
            self.request = params.finish();
        }
        self.request_written = self.request.len();
        self.phase = Phase::Queued;
    }

    /// A peer is wanted once more; the status if there is none for it.
    pub fn requeue(&mut self, refusal: u16) {
        self.refusal = refusal;
        self.queue(false);
    }

    /// No peer can be had.
    #[must_use]
    pub const fn unassigned(&self) -> Step {
        Step::Fail(self.refusal)
    }

    /// A peer is found; a header line of ours that its answer gets (nginx: add_header), or none.
    pub fn assigned(&mut self, host: HostId, line: Vec<u8>) {
        self.line = line;
        self.tried[host.index()] = true;
        self.tries += 1;
        self.begin(host);
    }

    /// The kept connection was of no use: the same peer again.
    pub fn again(&mut self) {
        if let Some(host) = self.host() {
            self.is_stale = true;
            self.begin(host);
        }
    }

    /// The request is ready to be written, with the body where it is in memory.
    fn begin(&mut self, host: HostId) {
        self.phase = Phase::Connecting(host);
        self.is_request_sent = false;
        self.stdin_sent = 0;
        self.connection = Connection::Fresh;
        self.is_heard = false;
        self.is_clean = false;
        self.decoder = fastcgi::Decoder::default();
        self.response = self.response.again(self.line.clone());
        self.pending.clear();
        self.pending_written = 0;
        self.request_written = 0;
        fastcgi::set_keep(&mut self.request, false);
        if self.body.spooled_bytes == 0 && self.body.joined_bytes.is_none() {
            let stored = std::mem::take(&mut self.body.stored);
            self.body.joined_bytes = Some(bytes(&stored));
            fastcgi::emit_stream(&mut self.request, Kind::Stdin, &stored);
            fastcgi::emit_end(&mut self.request, Kind::Stdin);
        }
    }

    /// Whether a kept connection will do. A stale one must never leave it open whether a request
    /// was executed that may not be repeated; and a body that waits in the kernel says nothing of
    /// whether its request was read.
    #[must_use]
    pub fn may_reuse(&self) -> bool {
        self.is_idempotent && !self.is_stale && self.body.length() == 0
    }

    /// A fresh connection begins, and php-fpm is asked to keep it after the answer, or not.
    pub fn begun(&mut self, keeps: bool) {
        fastcgi::set_keep(&mut self.request, keeps);
    }

    /// A kept connection carries the request.
    pub fn reused(&mut self) {
        self.begun(true);
        self.connected();
        self.connection = Connection::Kept;
    }

    /// The connection stands: the request goes out.
    pub const fn connected(&mut self) {
        if let Phase::Connecting(host) = self.phase {
            self.phase = Phase::Talking(host);
        }
    }

    /// Nothing came back on a kept connection, and it is not known that its worker has read the
    /// request: it may still be in the request before, which ended early for its client (PHP:
    /// fastcgi_finish_request).
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.connection == Connection::Kept && !self.is_heard
    }

    /// Whether the request was read from the kept connection, as the kernel says.
    pub fn found_read(&mut self, is_read: bool) -> Step {
        match self.connection {
            Connection::Kept if is_read => self.connection = Connection::KeptRead,
            Connection::Kept if !self.is_heard => return Step::Again,
            Connection::Fresh | Connection::Kept | Connection::KeptRead => {}
        }
        Step::Continue
    }

    /// The connection can carry another request: the answer ended properly and nothing of this
    /// request is left.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.is_clean
    }

    /// Bytes to write to php-fpm.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        match self.request.get(self.request_written..) {
            Some(rest) if !rest.is_empty() => rest,
            Some(_) | None => self.pending.get(self.pending_written..).unwrap_or_default(),
        }
    }

    pub fn wrote(&mut self, count: usize) {
        self.is_request_sent |= count > 0;
        if self.request_written < self.request.len() {
            self.request_written += count;
            return;
        }
        self.pending_written += count;
        if self.pending_written >= self.pending.len() {
            self.pending.clear();
            self.pending_written = 0;
        }
    }

    /// Where in the hands' file the next STDIN bytes are, and how many.
    #[must_use]
    pub fn stdin_due(&self) -> Option<(u64, usize)> {
        let left = self.body.spooled_bytes.saturating_sub(self.stdin_sent);
        let is_due = matches!(self.phase, Phase::Talking(_)) && self.pending().is_empty();
        if !is_due || left == 0 {
            return None;
        }
        let count = usize::try_from(left).unwrap_or(STDIN_BYTES_MAX).min(STDIN_BYTES_MAX);
        Some((self.stdin_sent, count))
    }

    /// The bytes that `stdin_due` asked for; none if the file failed.
    pub fn push_stdin(&mut self, bytes: &[u8]) {
        fastcgi::emit_stream(&mut self.pending, Kind::Stdin, bytes);
        self.stdin_sent += self::bytes(bytes);
        if self.stdin_sent >= self.body.spooled_bytes {
            fastcgi::emit_end(&mut self.pending, Kind::Stdin);
        }
    }

    /// php-fpm takes no more of the request. Its answer may be here all the same (a 413 without
    /// reading the body), so the connection is read to its end.
    pub fn write_failed(&mut self) {
        self.request_written = self.request.len();
        self.pending.clear();
        self.pending_written = 0;
        self.stdin_sent = self.body.spooled_bytes;
    }

    /// No connection: nothing was executed, so the other peer is always tried, for POST too.
    #[must_use]
    pub fn connect_failed(&self) -> Step {
        match &self.response {
            _ if self.tried != [true, true] => Step::Move,
            Response::Http(_) => Step::Fail(502),
            // The web server in front has its own 502: for us. This one says what is the matter.
            Response::Records(_) => Step::Fail(self.refusal),
        }
    }

    /// Bytes from php-fpm. `is_closing`: its end of the connection is known to follow, so that the
    /// header waits a moment more for END_REQUEST: with it the answer has a length, and without it
    /// another peer can still be asked.
    pub fn answered(
        &mut self,
        mut bytes: &[u8],
        is_closing: bool,
        terms: &mut Terms,
        stamp: &Stamp,
        out: &mut Vec<u8>,
    ) -> Step {
        self.is_heard |= !bytes.is_empty();
        loop {
            match self.decoder.next(&mut bytes) {
                Ok(Event::Stdout(piece)) => {
                    if let Err(error) = self.response.stdout(piece, out) {
                        log::debug!("script: {error}");
                        return Step::Fail(502);
                    }
                    if self.response.is_inside() {
                        return Step::Inside;
                    }
                }
                Ok(Event::Stderr(text)) => self.response.stderr(text, out),
                Ok(Event::End { app_status, is_complete }) => {
                    let is_sent = self.pending().is_empty() && self.stdin_due().is_none();
                    self.is_clean = is_sent && self.decoder.is_over(bytes);
                    return self.script_ended(app_status, is_complete, terms, stamp, out);
                }
                Ok(Event::More) => {
                    if !is_closing || self.response.is_holding_much() {
                        self.response.start(false, terms, stamp, out);
                    }
                    return Step::Continue;
                }
                Err(error) => {
                    log::debug!("php-fpm: {error}");
                    return self.broken(502);
                }
            }
        }
    }

    fn script_ended(
        &mut self,
        app_status: u32,
        is_complete: bool,
        terms: &mut Terms,
        stamp: &Stamp,
        out: &mut Vec<u8>,
    ) -> Step {
        self.response.start(true, terms, stamp, out);
        if self.response.is_sent() {
            return Step::Done(self.response.finish(app_status, out));
        }
        // FastCGI 1.0, 5.5: OVERLOADED and the like say that the request was not executed.
        if !is_complete && self.tried != [true, true] {
            return Step::Move;
        }
        self.broken(502)
    }

    /// php-fpm closed the connection without END_REQUEST.
    pub fn ended(&mut self, terms: &mut Terms, stamp: &Stamp, out: &mut Vec<u8>) -> Step {
        if self.is_left_unheard() {
            return Step::Again;
        }
        if self.response.is_sent() {
            return if self.response.is_length_reached() {
                Step::Done(Ending::Whole)
            } else {
                Step::Abort
            };
        }
        let is_presentable = self.response.is_ready() && self.decoder.is_between_records();
        if is_presentable && !self.may_retry() {
            return Step::Done(self.response.finish_unended(terms, stamp, out));
        }
        self.broken(502)
    }

    /// The connection broke.
    #[must_use]
    pub fn reset(&self) -> Step {
        if self.is_left_unheard() { Step::Again } else { self.broken(502) }
    }

    /// Where a connection that broke is evidence: which request had it, and got no byte.
    #[must_use]
    pub fn unheard(&self) -> Option<u64> {
        let is_evidence = self.connection == Connection::Fresh && !self.is_heard;
        is_evidence.then_some(self.fingerprint)
    }

    /// A kept connection ended without a byte: php-fpm had closed it before (pm.max_requests, a
    /// reload).
    fn is_left_unheard(&self) -> bool {
        self.connection != Connection::Fresh && !self.is_heard
    }

    /// The connection gave what is no FastCGI, or nothing in time.
    #[must_use]
    pub fn broken(&self, status: u16) -> Step {
        if self.response.is_sent() {
            Step::Abort
        } else if self.may_retry() {
            Step::Retry(status)
        } else {
            Step::Fail(status)
        }
    }

    /// The peer went out: whether this request leaves it at once instead of waiting for its timer.
    #[must_use]
    pub fn host_lost(&self, host: HostId) -> Step {
        if self.host() == Some(host) && !self.response.is_sent() && self.may_retry() {
            Step::Move
        } else {
            Step::Continue
        }
    }

    /// Facts/web.md 2.2: once, on the other peer, if it cannot be executed twice with harm.
    fn may_retry(&self) -> bool {
        self.tried != [true, true] && (self.is_idempotent || !self.is_request_sent)
    }
}

impl Body {
    fn length(&self) -> u64 {
        self.spooled_bytes + self.joined_bytes.unwrap_or(0) + bytes(&self.stored)
    }
}

fn bytes(of: &[u8]) -> u64 {
    u64::try_from(of.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use HostId::{First, Second};

    const TERMS: Terms = Terms {
        is_head: false,
        is_http_10: false,
        is_keep_alive: true,
        gzip_min: None,
        varies: false,
        hsts: None,
    };

    fn talking(is_idempotent: bool) -> Exchange {
        let mut exchange = Exchange::new(Params::new(), is_idempotent, 0, Response::http());
        exchange.queue(false);
        exchange.assigned(First, Vec::new());
        exchange.connected();
        let count = exchange.pending().len();
        exchange.wrote(count);
        exchange
    }

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).expect("short");
        [&[1, kind, 0, 1, 0, length, 0, 0], content].concat()
    }

    fn answered(exchange: &mut Exchange, bytes: &[u8]) -> (Step, String) {
        let mut out = Vec::new();
        let step = exchange.answered(bytes, false, &mut TERMS.clone(), &Stamp::new(0), &mut out);
        (step, String::from_utf8_lossy(&out).into_owned())
    }

    fn ended(exchange: &mut Exchange) -> (Step, String) {
        let mut out = Vec::new();
        let step = exchange.ended(&mut TERMS.clone(), &Stamp::new(0), &mut out);
        (step, String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn a_get_is_retried_once_and_a_post_never_when_it_was_sent() {
        let mut get = talking(true);
        assert_eq!(ended(&mut get).0, Step::Retry(502));
        get.requeue(502);
        assert_eq!(get.unassigned(), Step::Fail(502));
        get.assigned(Second, Vec::new());
        get.connected();
        assert_eq!(get.broken(502), Step::Fail(502));
        assert_eq!(ended(&mut talking(false)).0, Step::Fail(502));
    }

    #[test]
    fn a_post_goes_to_the_other_peer_when_it_cannot_connect() {
        let mut post = Exchange::new(Params::new(), false, 0, Response::http());
        post.queue(true);
        post.assigned(First, Vec::new());
        assert_eq!(post.connect_failed(), Step::Move);
        post.assigned(Second, Vec::new());
        assert_eq!(post.connect_failed(), Step::Fail(502));
    }

    #[test]
    fn nothing_is_retried_after_the_first_byte_to_the_client() {
        let mut get = talking(true);
        let (step, text) = answered(&mut get, &record(6, b"A: b\r\n\r\nhello"));
        assert!(step == Step::Continue && text.contains("chunked"), "{text}");
        assert_eq!(get.host_lost(First), Step::Continue);
        assert_eq!(ended(&mut get).0, Step::Abort);
    }

    #[test]
    fn half_a_header_is_nothing_sent() {
        let mut get = talking(true);
        assert_eq!(answered(&mut get, &record(6, b"A: b\r\n")), (Step::Continue, String::new()));
        assert_eq!(get.host_lost(First), Step::Move);
        assert_eq!(get.host_lost(Second), Step::Continue);
    }

    #[test]
    fn an_end_without_output_and_overload_are_retried() {
        let end = record(3, &[0; 8]);
        assert_eq!(answered(&mut talking(true), &end).0, Step::Retry(502));
        assert_eq!(answered(&mut talking(false), &end).0, Step::Fail(502));
        let overloaded = record(3, &[0, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(answered(&mut talking(false), &overloaded).0, Step::Move);
    }

    #[test]
    fn a_closed_connection_without_end_is_an_answer_when_it_cannot_be_retried() {
        let mut post = talking(false);
        let mut out = Vec::new();
        let stdout = record(6, b"A: b\r\n\r\nhello");
        let step = post.answered(&stdout, true, &mut TERMS.clone(), &Stamp::new(0), &mut out);
        assert!(step == Step::Continue && out.is_empty());
        let (step, text) = ended(&mut post);
        assert_eq!(step, Step::Done(Ending::Close));
        assert!(text.ends_with("\r\n\r\nhello") && !text.contains("chunked"), "{text}");
    }

    #[test]
    fn a_body_is_sent_whole_from_memory_or_in_pieces_from_a_file() {
        let mut small = Exchange::new(Params::new(), false, 0, Response::http());
        small.collect(b"hello");
        assert!(!small.is_spool_due(true, 10));
        small.queue(true);
        small.assigned(First, Vec::new());
        small.connected();
        assert!(small.pending().windows(5).any(|window| window == b"hello"));
        assert_eq!(small.stdin_due(), None);
        let mut large = Exchange::new(Params::new(), false, 0, Response::http());
        large.collect(&[b'x'; 40_000]);
        assert!(large.is_spool_due(false, 10));
        assert_eq!(large.take_stored().len(), 40_000);
        large.queue(true);
        large.assigned(First, Vec::new());
        large.connected();
        large.wrote(large.pending().len());
        assert_eq!(large.stdin_due(), Some((0, STDIN_BYTES_MAX)));
        large.push_stdin(&[b'x'; STDIN_BYTES_MAX]);
        assert_eq!(large.stdin_due(), None);
        large.wrote(large.pending().len());
        assert_eq!(large.stdin_due(), Some((32_768, 7232)));
        large.push_stdin(&[b'x'; 7232]);
        assert!(large.pending().ends_with(&[1, 5, 0, 1, 0, 0, 0, 0]));
    }
}
