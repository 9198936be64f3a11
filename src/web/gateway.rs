//! Gateway: the part of a session whose client is a web server in front that speaks FastCGI.
//!
//! In: demands of its `Port`. Out: the state of a PHP request, orders, records. Must not: choose a
//! peer or judge a failure (the same `exchange`, `upstream` and `relay` as for HTTP do), pass on
//! what changes PHP's settings unless that is configured. Read first: `port`; facts/web.md 1.2
//! (what php-fpm does with a wrong CONTENT_LENGTH) and 7, "Relay detail".

use std::net::{IpAddr, SocketAddr};

use crate::limits;
use crate::time::Instant;
use crate::wire::{HostId, Reader};

use super::exchange::Exchange;
use super::fastcgi::{self, Kind, Params, ProtocolStatus};
use super::forward::Forward;
use super::log::Words;
use super::params::Ends;
use super::port::{Demand, Port};
use super::reply::{self, Terms};
use super::request::{Method, Refusal, parse_decimal};
use super::response::Response;
use super::running::Running;
use super::session::{Context, Output, PIPELINE_BYTES_MAX, Session, State};
use super::{Config, sticky};

/// The parameters of a request, as they go to php-fpm, and what we need to know of them.
#[derive(Debug)]
struct Asked {
    params: Params,
    method: Method,
    /// CONTENT_LENGTH, which `params` is without.
    length: Option<u64>,
    /// REMOTE_ADDR and REMOTE_PORT.
    client: Option<SocketAddr>,
    is_https: bool,
    /// HTTP_COOKIE: the client's Cookie lines.
    cookie: Vec<u8>,
    /// Of REQUEST_URI.
    fingerprint: u64,
    words: Words,
}

impl Session {
    /// A session of the FastCGI port.
    #[must_use]
    pub fn of_port(now: Instant, config: &Config, ends: Ends) -> Self {
        let mut session = Self::new(now, config, ends);
        session.is_proxy_due = false;
        session.port = Some(Box::default());
        session
    }

    /// Whether bytes of the web server in front are of use now. While a request runs they may be
    /// its ABORT_REQUEST, or a second request, which is told that it cannot be had.
    pub(super) fn wants_records(&self, port: &Port) -> bool {
        let is_free = match &self.state {
            State::Head => self.inbound.is_empty(),
            State::Php(_) => self.inbound.is_empty() && !port.is_ahead(),
            State::Discarding(_) | State::Lingering => return true,
            State::Looking { .. } | State::File(_) | State::Closing { .. } | State::Closed => false,
        };
        is_free && self.pending().len() < PIPELINE_BYTES_MAX
    }

    /// Whether bytes that are here already can be looked at.
    pub(super) fn has_records(&self, port: &Port) -> bool {
        let is_free = match &self.state {
            State::Head => true,
            State::Php(_) => !port.is_ahead(),
            State::Looking { .. }
            | State::File(_)
            | State::Discarding(_)
            | State::Closing { .. }
            | State::Lingering
            | State::Closed => false,
        };
        is_free && !self.inbound.is_empty() && self.pending().len() < PIPELINE_BYTES_MAX
    }

    /// Does what the records say, up to the first order: the hands carry it out before the next
    /// record is looked at, or a request could be taken back before it has its place.
    pub(super) fn receive_records(&mut self, cx: Context<'_>, bytes: &[u8]) {
        let mut rest = bytes;
        let requests_max = cx.rules.config.php_requests_max * HostId::ALL.len();
        while self.outputs.is_empty() {
            let Some(port) = &mut self.port else { return };
            match port.next(&mut rest, requests_max, &mut self.outbound) {
                Ok(Demand::More) => break,
                Ok(Demand::Began { is_kept }) => self.begin_records(cx, is_kept),
                Ok(Demand::Params) => self.open_request(cx),
                Ok(Demand::ParamsTooLarge) => self.refuse(cx, 431),
                Ok(Demand::Stdin(piece)) => self.collect(cx, piece),
                Ok(Demand::Whole) => self.request_whole(cx),
                Ok(Demand::Aborted) => self.aborted(cx),
                Ok(Demand::Over) => {
                    self.linger();
                    return;
                }
                Err(error) => {
                    log::debug!("FastCGI port: {error}");
                    self.out_of_step(cx);
                    return;
                }
            }
        }
        if matches!(self.state, State::Head | State::Php(_)) {
            self.inbound = rest.to_vec();
        }
    }

    fn begin_records(&mut self, cx: Context<'_>, is_kept: bool) {
        let terms = Terms {
            is_head: false,
            is_http_10: false,
            is_keep_alive: is_kept,
            gzip_min: None,
            varies: false,
            hsts: None,
        };
        self.running = Some(Box::new(Running::new(cx.now, self.ends, terms, Words::default())));
        self.deadline = Some(cx.now + cx.rules.config.request_limit);
    }

    /// The parameters are whole.
    fn open_request(&mut self, cx: Context<'_>) {
        let (Some(port), Some(running)) = (&mut self.port, &mut self.running) else { return };
        let request_id = port.request_id().unwrap_or_default();
        let asked = match Asked::parse(&port.take_params(), &cx.rules.config) {
            Ok(asked) => asked,
            Err(Refusal(status)) => {
                self.refuse(cx, status);
                return;
            }
        };
        running.words = asked.words;
        running.ends.client = asked.client.unwrap_or(running.ends.client);
        running.ends.is_https = asked.is_https;
        let client = running.ends.client.ip();
        let cookies = std::iter::once(asked.cookie.as_slice());
        running.affinity = sticky::affinity(&cx.rules.config, cookies, client);
        running.promised_bytes = asked.length;
        running.has_length = asked.length.is_some();
        if asked.length.is_some_and(|length| length > cx.rules.config.body_max.0) {
            self.refuse(cx, 413);
            return;
        }
        let response = Response::Records(Forward::new(request_id, Vec::new()));
        let is_idempotent = asked.method.is_idempotent();
        let exchange = Exchange::new(asked.params, is_idempotent, asked.fingerprint, response);
        self.state = State::Php(Box::new(exchange));
        self.deadline = Some(cx.now + cx.rules.config.request_limit);
    }

    fn collect(&mut self, cx: Context<'_>, piece: &[u8]) {
        let State::Php(exchange) = &mut self.state else { return };
        exchange.collect(piece);
        if exchange.collected_bytes() > cx.rules.config.body_max.0 {
            self.refuse(cx, 413);
            return;
        }
        let is_due = exchange.is_spool_due(false, limits::WEB_BODY_MEMORY_BYTES);
        self.deadline = Some(cx.now + cx.rules.config.request_limit);
        if is_due {
            self.order(Output::Spool);
        }
    }

    /// The request is whole. A body of another length than was said would hang a worker, or end in
    /// a reset (facts/web.md, fact 6). It is answered with 400 and the connection closed: a front
    /// that counts wrong may be out of step. A length that was not said is known by now.
    fn request_whole(&mut self, cx: Context<'_>) {
        let (State::Php(exchange), Some(running)) = (&self.state, &mut self.running) else {
            return;
        };
        let body_bytes = exchange.collected_bytes();
        if running.promised_bytes.is_some_and(|promised| promised != body_bytes) {
            self.refuse(cx, 400);
            return;
        }
        running.has_length |= body_bytes > 0;
        if exchange.is_spool_due(true, limits::WEB_BODY_MEMORY_BYTES) {
            self.order(Output::Spool);
        }
        self.acquire(cx);
    }

    /// The front's records make no sense: what was answered goes out, and the connection is over.
    fn out_of_step(&mut self, cx: Context<'_>) {
        self.let_go();
        if let Some(running) = &mut self.running {
            running.status = 400;
            running.terms.is_keep_alive = false;
            running.is_lingering = true;
            self.finish(cx);
        } else if self.pending().is_empty() {
            self.close();
        } else {
            self.linger();
        }
    }

    /// ABORT_REQUEST: the peer is let go, and the front has its END_REQUEST.
    fn aborted(&mut self, cx: Context<'_>) {
        let Some(request_id) = self.port.as_ref().and_then(|port| port.request_id()) else {
            return;
        };
        self.let_go();
        if let Some(running) = &mut self.running {
            // nginx: NGX_HTTP_CLIENT_CLOSED_REQUEST.
            running.status = 499;
        }
        let complete = ProtocolStatus::RequestComplete;
        fastcgi::emit_end_request(&mut self.outbound, request_id, 0, complete);
        self.finish(cx);
    }

    /// An answer of our own, as a script would give it.
    pub(super) fn page_records(&mut self, cx: Context<'_>, status: u16, extra: &str) {
        let request_id = self.port.as_ref().and_then(|port| port.request_id()).unwrap_or_default();
        let Some(running) = &mut self.running else { return };
        let mut text = Vec::new();
        running.status = status;
        running.body_bytes = reply::script_page(&mut text, status, extra, &cx.rules.pages);
        fastcgi::emit_stream_of(&mut self.outbound, request_id, Kind::Stdout, &text);
        // nginx ignores every other protocol status (facts/web.md 7).
        let complete = ProtocolStatus::RequestComplete;
        fastcgi::emit_end_request(&mut self.outbound, request_id, 0, complete);
        self.finish(cx);
    }
}

impl Asked {
    /// Takes a PARAMS stream apart; refused with 400 when it is none, 431 when a pair of it fits no
    /// record. Of a name that stands there twice the last value counts, as in php-fpm.
    fn parse(stream: &[u8], config: &Config) -> Result<Self, Refusal> {
        let is_logged = !config.access_log.is_empty();
        let mut params = Params::new();
        let (mut method, mut uri, mut protocol) = (&b""[..], &b""[..], &b""[..]);
        let (mut address, mut port, mut https, mut cookie) =
            (&b""[..], &b""[..], &b""[..], &b""[..]);
        let (mut length, mut words) = (None, Words::default());
        let mut reader = Reader::new(stream);
        while !reader.is_empty() {
            let (name, value) =
                fastcgi::parse_pair(&mut reader).map_err(|_| Refusal::BAD_REQUEST)?;
            match name {
                b"CONTENT_LENGTH" => {
                    length = match value {
                        b"" => None,
                        digits => Some(parse_decimal(digits).ok_or(Refusal::BAD_REQUEST)?),
                    };
                    continue;
                }
                b"PHP_VALUE" | b"PHP_ADMIN_VALUE" if !config.fastcgi_php_value => continue,
                b"REQUEST_METHOD" => method = value,
                b"REQUEST_URI" => uri = value,
                b"SERVER_PROTOCOL" => protocol = value,
                b"REMOTE_ADDR" => address = value,
                b"REMOTE_PORT" => port = value,
                b"HTTPS" => https = value,
                b"HTTP_COOKIE" => cookie = value,
                b"HTTP_REFERER" if is_logged => words.referer = value.to_vec(),
                b"HTTP_USER_AGENT" if is_logged => words.agent = value.to_vec(),
                _ => {}
            }
            if !params.add(name, value) {
                return Err(Refusal(431));
            }
        }
        if is_logged {
            words.line = [method, uri, protocol].join(&b' ');
        }
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let client = text(address).and_then(|address| address.parse::<IpAddr>().ok());
        let port = text(port).and_then(|port| port.parse().ok()).unwrap_or(0);
        Ok(Self {
            params,
            method: text(method).map_or(Method::Other, Method::parse),
            length,
            client: client.map(|address| (address, port).into()),
            is_https: !https.is_empty() && !https.eq_ignore_ascii_case(b"off"),
            cookie: cookie.to_vec(),
            fingerprint: sticky::fingerprint(uri),
            words,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::web::reply::Stamp;
    use crate::web::rules::Rules;
    use crate::web::session::Input;
    use HostId::{First, Second};

    /// A session at the port, with the hands played by the test.
    struct Desk {
        rules: Rules,
        stamp: Stamp,
        now: Instant,
        session: Session,
        statuses: Vec<u16>,
    }

    impl Desk {
        fn new() -> Self {
            let config = Config::default();
            let client = "127.0.0.1:1".parse().expect("an address");
            let ends = Ends { client, local: client, is_https: false };
            Self {
                session: Session::of_port(Instant::ZERO, &config, ends),
                rules: Rules::new(config),
                stamp: Stamp::new(0),
                now: Instant::ZERO,
                statuses: Vec::new(),
            }
        }

        /// What the session orders upon this, but for `Finished`.
        fn feed(&mut self, input: Input<'_>) -> Vec<Output> {
            let cx = Context {
                now: self.now,
                rules: &self.rules,
                stamp: &self.stamp,
                is_draining: false,
            };
            self.session.handle(cx, input);
            let orders: Vec<Output> = std::iter::from_fn(|| self.session.poll_output()).collect();
            if orders.contains(&Output::Finished) {
                self.statuses.push(self.session.take_finished().expect("an entry").status);
            }
            orders.into_iter().filter(|&order| order != Output::Finished).collect()
        }

        fn receive(&mut self, bytes: &[u8]) -> Vec<Output> {
            self.feed(Input::Received(bytes))
        }

        fn talk(&mut self, host: HostId) {
            assert_eq!(self.feed(Input::Assigned(host)), [Output::Connect(host)]);
            self.feed(Input::Connected);
            let count = self.session.exchange().map_or(0, |exchange| exchange.pending().len());
            self.feed(Input::UpstreamWrote(count));
        }

        fn pass(&mut self, span: Duration) -> Vec<Output> {
            self.now = self.now + span;
            let is_due = self.session.deadline().is_some_and(|deadline| deadline <= self.now);
            if is_due { self.feed(Input::Expired) } else { Vec::new() }
        }

        /// Everything pending goes out.
        fn write(&mut self) -> (Vec<u8>, Vec<Output>) {
            let bytes = self.session.pending().to_vec();
            let orders = self.feed(Input::Wrote(bytes.len()));
            (bytes, orders)
        }
    }

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).expect("one record").to_be_bytes();
        [&[1, kind, 0, 1, high, low, 0, 0], content].concat()
    }

    fn begin() -> Vec<u8> {
        [record(1, &[0, 1, 1, 0, 0, 0, 0, 0]), record(4, b"\x0e\x03REQUEST_METHODGET")].concat()
    }

    fn get() -> Vec<u8> {
        [begin(), record(4, b""), record(5, b"")].concat()
    }

    const ACQUIRE: Output = Output::Acquire { tried: [false; 2], is_charged: false };
    const END: &[u8] = &[1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn an_answer_is_read_no_faster_than_it_is_taken() {
        let mut desk = Desk::new();
        assert_eq!(desk.receive(&get()), [ACQUIRE]);
        desk.talk(First);
        let piece = [record(6, b"A: b\r\n\r\n"), record(6, &[b'x'; 64 * 1024 - 100])].concat();
        let mut answered = 0;
        while desk.session.wants_upstream() {
            desk.feed(Input::Answered { bytes: &piece, is_closing: false });
            answered += 1;
            assert!(answered < 10, "it would read for ever");
        }
        assert!(desk.session.pending().len() < limits::OUTBOUND_BYTES_MAX + piece.len() + 64);
        // It is the front who is slow, for which the peer is not to blame; then its time is over.
        assert_eq!(desk.feed(Input::Wrote(1)), []);
        let orders = desk.pass(desk.rules.config.request_limit);
        assert_eq!(orders, [Output::Release(First, None), Output::Close]);
    }

    #[test]
    fn the_end_frees_the_peer_before_the_front_has_taken_it() {
        let mut desk = Desk::new();
        desk.receive(&get());
        desk.talk(Second);
        let answer = [record(6, b"A: b\r\n\r\nhi"), record(3, &[0; 8])].concat();
        let orders = desk.feed(Input::Answered { bytes: &answer, is_closing: false });
        assert_eq!(orders, [Output::Keep(Second)]);
        let (bytes, orders) = desk.write();
        assert!(bytes.ends_with(END) && orders.is_empty());
        assert!(desk.session.wants_client() && !desk.session.is_in_flight());
        assert_eq!(desk.pass(desk.rules.config.idle_limit), [Output::Close]);
    }

    #[test]
    fn what_is_behind_a_request_waits_until_its_order_is_carried_out() {
        let mut desk = Desk::new();
        let orders = desk.receive(&[get(), record(2, b"")].concat());
        assert_eq!(orders, [ACQUIRE], "no place is left before it is taken");
        assert!(desk.session.is_head_due() && !desk.session.wants_client());
        assert_eq!(desk.feed(Input::Proceed), [Output::LeaveQueue]);
        assert_eq!(desk.write().0, END);
        assert_eq!(desk.statuses, [499]);
        assert!(desk.session.wants_client());
    }

    #[test]
    fn an_abort_gives_back_the_peer_at_once() {
        let mut desk = Desk::new();
        desk.receive(&get());
        desk.talk(First);
        desk.feed(Input::Answered { bytes: &record(6, b"A: b\r\n\r\nhi"), is_closing: false });
        assert_eq!(desk.receive(&record(2, b"")), [Output::Release(First, None)]);
        assert!(desk.write().0.ends_with(END));
        assert_eq!(desk.receive(&get()), [ACQUIRE], "the next one may come");
    }

    #[test]
    fn a_large_body_goes_to_the_file_piece_by_piece() {
        let mut desk = Desk::new();
        desk.receive(&[begin(), record(4, b"")].concat());
        let piece = record(5, &[b'x'; 60_000]);
        let mut spooled = 0;
        for _ in 0..9 {
            for order in desk.receive(&piece) {
                assert_eq!(order, Output::Spool);
                spooled += desk.session.take_stored().len();
            }
            while desk.session.is_head_due() {
                desk.feed(Input::Proceed);
            }
        }
        assert!(spooled >= limits::WEB_BODY_MEMORY_BYTES);
        assert_eq!(desk.receive(&record(5, b"")), [Output::Spool, ACQUIRE]);
        assert_eq!(spooled + desk.session.take_stored().len(), 540_000);
    }

    #[test]
    fn a_full_disk_is_507() {
        let mut desk = Desk::new();
        desk.receive(&[begin(), record(4, b"")].concat());
        desk.receive(&record(5, b"x"));
        desk.feed(Input::SpoolFailed);
        let (bytes, orders) = desk.write();
        assert!(String::from_utf8_lossy(&bytes).contains("Status: 507 "));
        assert_eq!(orders, [Output::Shutdown]);
    }

    #[test]
    fn half_a_request_ends_in_time() {
        let mut desk = Desk::new();
        desk.receive(&begin());
        assert_eq!(desk.pass(desk.rules.config.request_limit), [Output::Close]);
        let mut desk = Desk::new();
        desk.receive(&[begin(), record(4, b""), record(5, b"x")].concat());
        desk.pass(desk.rules.config.request_limit);
        assert!(String::from_utf8_lossy(&desk.write().0).contains("Status: 408 "));
    }

    #[test]
    fn records_without_sense_close_after_what_was_answered() {
        let mut desk = Desk::new();
        let answer = [record(6, b"A: b\r\n\r\nhi"), record(3, &[0; 8])].concat();
        desk.receive(&get());
        desk.talk(First);
        desk.feed(Input::Answered { bytes: &answer, is_closing: false });
        assert_eq!(desk.receive(b"GET / HTTP/1.1\r\n"), []);
        let (bytes, orders) = desk.write();
        assert!(bytes.ends_with(END));
        assert_eq!(orders, [Output::Shutdown]);
        assert_eq!(Desk::new().receive(b"GET / HTTP/1.1\r\n"), [Output::Close]);
    }

    #[test]
    fn a_lost_host_gives_back_its_gets_at_once() {
        let mut desk = Desk::new();
        desk.receive(&get());
        desk.talk(First);
        // What it logged is no answer yet.
        desk.feed(Input::Answered { bytes: &record(7, b"log"), is_closing: false });
        let acquire = Output::Acquire { tried: [true, false], is_charged: false };
        assert_eq!(desk.feed(Input::HostLost(First)), [Output::Release(First, None), acquire]);
    }
}
