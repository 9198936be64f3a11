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

use super::Config;
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

/// The parameters of a request, as they go to php-fpm, and what we need to know of them.
#[derive(Debug)]
struct Asked {
    params: Params,
    method: Method,
    /// CONTENT_LENGTH, which `params` is without.
    length: Option<u64>,
    /// REMOTE_ADDR and REMOTE_PORT.
    client: Option<SocketAddr>,
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
        let requests_max = cx.config.php_requests_max * HostId::ALL.len();
        while self.outputs.is_empty() {
            let Some(port) = &mut self.port else { return };
            match port.next(&mut rest, requests_max, &mut self.outbound) {
                Ok(Demand::More) => break,
                Ok(Demand::Began { is_kept }) => self.begin_records(cx, is_kept),
                Ok(Demand::Params) => self.open(cx),
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
                    self.abandon(cx);
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
        };
        self.running = Some(Box::new(Running::new(cx.now, self.ends, terms, Words::default())));
        self.deadline = Some(cx.now + cx.config.request_limit);
    }

    /// The parameters are whole.
    fn open(&mut self, cx: Context<'_>) {
        let (Some(port), Some(running)) = (&mut self.port, &mut self.running) else { return };
        let request_id = port.request_id().unwrap_or_default();
        let asked = match Asked::parse(&port.take_params(), cx.config) {
            Ok(asked) => asked,
            Err(Refusal(status)) => {
                self.refuse(cx, status);
                return;
            }
        };
        running.words = asked.words;
        running.ends.client = asked.client.unwrap_or(running.ends.client);
        running.promised_bytes = asked.length;
        running.has_length = asked.length.is_some();
        if asked.length.is_some_and(|length| length > cx.config.body_max.0) {
            self.refuse(cx, 413);
            return;
        }
        let response = Response::Records(Forward::new(request_id));
        let exchange = Exchange::new(asked.params, asked.method.is_idempotent(), response);
        self.state = State::Php(Box::new(exchange));
        self.deadline = Some(cx.now + cx.config.request_limit);
    }

    fn collect(&mut self, cx: Context<'_>, piece: &[u8]) {
        let State::Php(exchange) = &mut self.state else { return };
        if exchange.collect(piece) > cx.config.body_max.0 {
            self.refuse(cx, 413);
            return;
        }
        let is_due = exchange.is_spool_due(false, limits::WEB_BODY_MEMORY_BYTES);
        self.deadline = Some(cx.now + cx.config.request_limit);
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
        running.body_bytes = reply::script_page(&mut text, status, extra, cx.pages);
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
        let (mut address, mut port) = (&b""[..], &b""[..]);
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
            words,
        })
    }
}
