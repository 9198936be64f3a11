//! Serve: the part of a session that turns one head into a file, a page or a PHP request.
//!
//! In: a whole head, what the hands found, the body. Out: the next state.
//! Must not: touch the connection's end (that is `session`). Read first: `session`, `lookup`.

use std::mem;

use crate::limits;

use super::access::{Leave, Location};
use super::body;
use super::coding::{Accepted, Coding};
use super::exchange::Exchange;
use super::files;
use super::log::Words;
use super::lookup::{Found, Lookup, Meta, Script, Verdict};
use super::params::Ends;
use super::proxy::Parsed;
use super::reply::{self, Terms};
use super::request::{self, Framing, Head, Method, Refusal};
use super::response::Response;
use super::running::Running;
use super::session::{Context, Output, Session, State};
use super::site::Gate;
use super::{https, origin, params, path, proxy, sticky};

impl Session {
    /// A whole head is here, in the first `head_bytes` of `inbound`, where it stays until the
    /// lookup is done: its headers are wanted again then.
    pub(super) fn begin(&mut self, cx: Context<'_>, head_bytes: usize) {
        let inbound = mem::take(&mut self.inbound);
        // The usual head of an answer, in one allocation.
        self.outbound.reserve(512);
        let mut begun = begin(cx, self.ends, inbound.get(..head_bytes).unwrap_or_default());
        self.inbound = inbound;
        if self.is_misdirected {
            begun = begun.and_then(|(running, _, _)| {
                Err((Some(Box::new(running)), Refusal(reply::TO_HTTPS)))
            });
        }
        match begun {
            Ok((running, lookup, Gate::Open)) => {
                self.running = Some(Box::new(running));
                self.state = State::Looking { lookup, head_bytes };
                self.order(Output::Look);
            }
            Ok((running, _, gate)) => {
                self.running = Some(Box::new(running));
                self.turn_away(cx, head_bytes, &gate);
            }
            Err((running, Refusal(status))) => {
                self.running = running;
                self.refuse(cx, status);
            }
        }
    }

    /// Takes the PROXY protocol's header off the front. False: there is nothing behind it yet, or
    /// its client is to be counted first.
    pub(super) fn take_proxy(&mut self, cx: Context<'_>) -> bool {
        match proxy::parse(&self.inbound) {
            Parsed::More => false,
            Parsed::Wrong => {
                self.close();
                false
            }
            Parsed::Header(length, ends) => {
                self.is_proxy_due = false;
                self.inbound.drain(..length.min(self.inbound.len()));
                if let Some((client, local)) = ends {
                    self.ends = Ends { client, local, is_https: self.ends.is_https };
                    if cx.rules.config.connections_max_per_client > 0 {
                        self.order(Output::Count);
                        return false;
                    }
                }
                !self.inbound.is_empty()
            }
        }
    }

    /// A path that its site closes: answered without a look at any file.
    fn turn_away(&mut self, cx: Context<'_>, head_bytes: usize, gate: &Gate) {
        let mut inbound = mem::take(&mut self.inbound);
        match gate {
            Gate::Open | Gate::Denied => self.page(cx, 403, ""),
            // RFC 9110, 11.6.1; RFC 7617, 2.1.
            Gate::LogIn(realm) => self.page(
                cx,
                401,
                &format!("WWW-Authenticate: Basic realm=\"{realm}\", charset=\"UTF-8\"\r\n"),
            ),
            Gate::Busy => self.page(cx, 503, "Retry-After: 1\r\n"),
            Gate::Server => self.tell_options(cx),
            Gate::Redirect(status, location) => {
                let location = String::from_utf8_lossy(location);
                self.page(cx, *status, &format!("Location: {location}\r\n"));
            }
        }
        inbound.drain(..head_bytes.min(inbound.len()));
        self.resume_inbound(cx, inbound);
    }

    fn tell_options(&mut self, cx: Context<'_>) {
        let Some(running) = &mut self.running else { return };
        running.terms.is_keep_alive &= !cx.is_draining && !running.is_continue_due;
        running.status = 200;
        reply::begin(&mut self.outbound, 200, cx.stamp);
        let lines = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\nContent-Length: 0\r\n";
        self.outbound.extend_from_slice(lines);
        reply::end(&mut self.outbound, running.terms);
        self.finish(cx);
    }

    /// The hands looked at a candidate.
    pub(super) fn looked(&mut self, cx: Context<'_>, found: Found) {
        let State::Looking { lookup, head_bytes } = &mut self.state else { return };
        let head_bytes = *head_bytes;
        let verdict = lookup.handle(&cx.rules.sites, found);
        if verdict == Verdict::Again {
            self.order(Output::Look);
            return;
        }
        let site = lookup.site();
        let is_file = matches!(verdict, Verdict::Send(_));
        let file = if is_file { lookup.plain(&cx.rules.sites) } else { Vec::new() };
        let file = (file, lookup.coding());
        let is_script = matches!(verdict, Verdict::Run(_));
        let document_path = if is_script { lookup.path().to_vec() } else { Vec::new() };
        let mut inbound = mem::take(&mut self.inbound);
        {
            let mut room = request::header_room();
            let bytes = inbound.get(..head_bytes).unwrap_or_default();
            match request::parse(bytes, &mut room) {
                Ok(head) => self.obey(cx, &head, site, verdict, &file, &document_path),
                Err(Refusal(status)) => self.refuse(cx, status),
            }
        }
        if let (State::Php(_), Some(running)) = (&self.state, &mut self.running) {
            running.site = site;
            running.head = inbound.get(..head_bytes).unwrap_or_default().to_vec();
        }
        // What `obey` left may already need the bytes that follow the head.
        inbound.drain(..head_bytes.min(inbound.len()));
        self.resume_inbound(cx, inbound);
    }

    fn obey(
        &mut self,
        cx: Context<'_>,
        head: &Head<'_>,
        site: usize,
        verdict: Verdict,
        file: &(Vec<u8>, Option<Coding>),
        document_path: &[u8],
    ) {
        // A script may name a file; it may not name a script, or a folder.
        let is_inside = self.running.as_ref().is_some_and(|running| running.inside.is_some());
        if is_inside && matches!(verdict, Verdict::Run(_) | Verdict::Redirect(_)) {
            self.page(cx, 404, "");
            return;
        }
        match verdict {
            Verdict::Send(meta) => self.send(cx, head, meta, file),
            Verdict::Run(script) => self.run(cx, head, site, &script, document_path),
            Verdict::Redirect(path) => {
                let mut location = path::escape(&path);
                if !head.query.is_empty() {
                    location.push(b'?');
                    location.extend_from_slice(head.query);
                }
                let location = String::from_utf8_lossy(&location);
                self.page(cx, 301, &format!("Location: {location}\r\n"));
            }
            Verdict::Refuse(status) => self.page(cx, status, ""),
            Verdict::Again => {}
        }
    }

    fn send(
        &mut self,
        cx: Context<'_>,
        head: &Head<'_>,
        meta: Meta,
        (path, coding): &(Vec<u8>, Option<Coding>),
    ) {
        let is_inside = self.running.as_ref().is_some_and(|running| running.inside.is_some());
        if !matches!(head.method, Method::Get | Method::Head) && !is_inside {
            self.page(cx, 405, "Allow: GET, HEAD\r\n");
            return;
        }
        let Some(running) = &mut self.running else { return };
        let lines = running.inside.take().unwrap_or_default();
        running.terms.is_keep_alive &= !cx.is_draining && !running.is_continue_due;
        let plan = files::plan(head, meta);
        let kind = files::Kind {
            media_type: files::media_type(path),
            coding: *coding,
            has_variants: cx.rules.config.gzip_static,
            lines: &lines,
        };
        let (status, span) =
            files::answer(&mut self.outbound, plan, kind, meta, cx.stamp, running.terms);
        running.status = status;
        running.body_bytes = span.length;
        if span.length == 0 {
            self.finish(cx);
        } else {
            self.state = State::File(span);
            self.deadline = Some(cx.now + cx.rules.config.request_limit);
        }
    }

    fn run(
        &mut self,
        cx: Context<'_>,
        head: &Head<'_>,
        site: usize,
        script: &Script,
        document_path: &[u8],
    ) {
        let root = &cx.rules.sites.site(site).root;
        let ends = self.running.as_ref().map_or(self.ends, |running| running.ends);
        let user = self.running.as_ref().map_or(&[][..], |running| &running.user);
        let built = params::build(head, ends, user, root, script, document_path);
        let params = match built {
            Ok(params) => params,
            Err(Refusal(status)) => {
                self.refuse(cx, status);
                return;
            }
        };
        if let Some(running) = &mut self.running {
            let cookies = request::values(head.headers, "cookie");
            running.affinity = sticky::affinity(&cx.rules.config, cookies, ends.client.ip());
        }
        let fingerprint = sticky::fingerprint(head.target.as_bytes());
        let is_idempotent = head.method.is_idempotent();
        let exchange = Exchange::new(params, is_idempotent, fingerprint, Response::http());
        self.state = State::Php(Box::new(exchange));
        self.deadline = Some(cx.now + cx.rules.config.request_limit);
    }

    /// Puts back the bytes that followed a head, and lets the state that was reached use them.
    fn resume_inbound(&mut self, cx: Context<'_>, rest: Vec<u8>) {
        match &self.state {
            State::Php(_) => {
                if let Some(running) = &mut self.running {
                    // RFC 9110, 10.1.1: not when the body is already coming.
                    if mem::take(&mut running.is_continue_due) && rest.is_empty() {
                        self.outbound.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                }
                self.receive_body(cx, &rest);
            }
            State::Discarding(_) => self.receive_body(cx, &rest),
            State::Closing { .. } | State::Lingering => {
                if !rest.is_empty() {
                    self.linger();
                }
            }
            State::Head => {
                self.inbound = rest;
                self.mark_head_due(cx);
            }
            State::File(_) | State::Looking { .. } => self.inbound = rest,
            State::Closed => {}
        }
    }

    /// Bytes of a body, and perhaps of the request behind it.
    pub(super) fn receive_body(&mut self, cx: Context<'_>, bytes: &[u8]) {
        let mut rest = bytes;
        let mut spool_due = false;
        let mut decoder = match &self.state {
            State::Discarding(decoder) => *decoder,
            State::Php(_)
            | State::Head
            | State::Looking { .. }
            | State::File(_)
            | State::Closing { .. }
            | State::Lingering
            | State::Closed => match &self.running {
                Some(running) => running.rest,
                None => return,
            },
        };
        let running = self.running.as_ref();
        let body_max = running.map_or(cx.rules.config.body_max.0, |running| running.body_max);
        let is_whole = loop {
            match decoder.next(&mut rest) {
                Ok(body::Step::Piece(piece)) => {
                    if let State::Php(exchange) = &mut self.state {
                        exchange.collect(piece);
                    }
                    if decoder.body_bytes() > body_max {
                        self.body_refused(cx, 413);
                        return;
                    }
                }
                Ok(body::Step::More) => break false,
                Ok(body::Step::Ended) => break true,
                Err(Refusal(status)) => {
                    self.body_refused(cx, status);
                    return;
                }
            }
        };
        self.deadline = Some(cx.now + cx.rules.config.request_limit);
        if let State::Php(exchange) = &self.state {
            spool_due = exchange.is_spool_due(is_whole, limits::WEB_BODY_MEMORY_BYTES);
        }
        if spool_due {
            self.order(Output::Spool);
        }
        self.inbound = rest.to_vec();
        if let State::Discarding(kept) = &mut self.state {
            *kept = decoder;
            if is_whole {
                self.state = State::Head;
                self.mark_head_due(cx);
            }
            return;
        }
        if let Some(running) = &mut self.running {
            running.rest = decoder;
        }
        if is_whole {
            self.acquire(cx);
        }
    }

    /// A body that is too large or malformed: the page if none was sent, and the end.
    fn body_refused(&mut self, cx: Context<'_>, status: u16) {
        if self.running.is_some() {
            self.refuse(cx, status);
        } else {
            self.linger();
            // Its page may be out already: then no write will come that goes on from here.
            if self.pending().is_empty() {
                self.wrote(cx, 0);
            }
        }
    }

    /// An answer of our own to a request that cannot be read to its end: the connection is over.
    pub(super) fn refuse(&mut self, cx: Context<'_>, status: u16) {
        let line_end = self.inbound.iter().position(|&byte| byte == b'\r' || byte == b'\n');
        let mut line = self.inbound.get(..line_end.unwrap_or(0)).unwrap_or_default().to_vec();
        line.truncate(256);
        self.inbound = Vec::new();
        let ends = self.ends;
        let running = self.running.get_or_insert_with(|| {
            let terms = Terms {
                is_head: false,
                is_http_10: false,
                is_keep_alive: false,
                gzip_min: None,
                varies: false,
                hsts: https::hsts(&cx.rules.config, ends.is_https),
            };
            Box::new(Running::new(cx.now, ends, terms, Words { line, ..Words::default() }))
        });
        running.terms.is_keep_alive = false;
        running.is_lingering = true;
        // RFC 9110, 15.5.6.
        let extra = if status == 405 { "Allow: GET, HEAD, POST\r\n" } else { "" };
        self.page(cx, status, extra);
    }

    /// An answer of our own.
    pub(super) fn page(&mut self, cx: Context<'_>, status: u16, extra: &str) {
        if self.port.is_some() {
            self.page_records(cx, status, extra);
            return;
        }
        let Some(running) = &mut self.running else { return };
        running.terms.is_keep_alive &= !cx.is_draining && !running.is_continue_due;
        running.status = reply::told(status);
        running.body_bytes = reply::page(
            &mut self.outbound,
            status,
            cx.stamp,
            running.terms,
            extra,
            &cx.rules.pages,
        );
        self.finish(cx);
    }
}

type Begun = Result<(Running, Lookup, Gate), (Option<Box<Running>>, Refusal)>;

/// Everything that can be said of a request before any file is looked at.
fn begin(cx: Context<'_>, ends: Ends, bytes: &[u8]) -> Begun {
    let mut room = request::header_room();
    let head = request::parse(bytes, &mut room).map_err(|refusal| (None, refusal))?;
    let accepted = Accepted::of(&head);
    let ends = origin::origin(&head, ends, &cx.rules.config.set_real_ip_from);
    let terms = Terms {
        is_head: head.method == Method::Head,
        is_http_10: head.is_http_10,
        is_keep_alive: head.is_keep_alive && !cx.is_draining,
        varies: cx.rules.config.gzip,
        gzip_min: Some(cx.rules.config.gzip_min_length.0)
            .filter(|_| cx.rules.config.gzip && !head.is_http_10 && accepted.takes(Coding::Gzip)),
        hsts: https::hsts(&cx.rules.config, ends.is_https),
    };
    let words = if cx.rules.config.access_log.is_empty() { Words::default() } else { words(&head) };
    let mut running = Running::new(cx.now, ends, terms, words);
    running.rest = body::Decoder::new(head.framing);
    running.is_continue_due = head.expects_continue;
    running.has_length = head.framing != Framing::Empty || head.header("content-length").is_some();
    if head.method == Method::Forbidden {
        return Err((Some(Box::new(running)), Refusal(405)));
    }
    let site = cx.rules.sites.find(head.host);
    let path = path::normalise(head.path);
    let location = path.as_ref().and_then(|path| cx.rules.sites.site(site).location(path));
    let own_max = location.and_then(|location| location.client_max_body_size);
    running.body_max = own_max.unwrap_or(cx.rules.config.body_max).0;
    if matches!(head.framing, Framing::Length(length) if length > running.body_max) {
        return Err((Some(Box::new(running)), Refusal(413)));
    }
    let Some(path) = path else {
        return Err((Some(Box::new(running)), Refusal::BAD_REQUEST));
    };
    match gate(cx, &head, ends, site, &path) {
        Ok(gate) => {
            let gate = match location.filter(|_| gate == Gate::Open) {
                Some(location) => let_in(cx, &head, location, &mut running),
                None => gate,
            };
            Ok((running, Lookup::new(site, path).accepting(accepted), gate))
        }
        Err(refusal) => Err((Some(Box::new(running)), refusal)),
    }
}

/// What the location of an open path says of the client.
fn let_in(cx: Context<'_>, head: &Head<'_>, location: &Location, running: &mut Running) -> Gate {
    let client = running.ends.client.ip();
    match location.judge(cx.now, client, head.header("authorization"), &cx.rules.users) {
        Leave::Granted(user) => {
            running.words.user.clone_from(&user);
            running.user = user;
            Gate::Open
        }
        Leave::Forbidden => Gate::Denied,
        Leave::Unauthorized(realm) => Gate::LogIn(realm),
        Leave::Busy => Gate::Busy,
    }
}

/// What the site says of the path; to a client without TLS first of all where to come with it.
fn gate(
    cx: Context<'_>,
    head: &Head<'_>,
    ends: Ends,
    site: usize,
    path: &[u8],
) -> Result<Gate, Refusal> {
    let site = cx.rules.sites.site(site);
    if head.target == "*" {
        return Ok(Gate::Server);
    }
    if site.ssl_redirect && !ends.is_https {
        let location = https::location(head, ends.local.ip(), cx.rules.config.ssl_port)?;
        return Ok(Gate::Redirect(301, location));
    }
    let mut gate = site.gate(path);
    if let (Gate::Redirect(_, location), false) = (&mut gate, head.query.is_empty()) {
        location.push(b'?');
        location.extend_from_slice(head.query);
    }
    Ok(gate)
}

fn words(head: &Head<'_>) -> Words {
    let version = if head.is_http_10 { "1.0" } else { "1.1" };
    Words {
        line: format!("{} {} HTTP/{version}", head.method_word, head.target).into_bytes(),
        referer: head.header("referer").unwrap_or_default().to_vec(),
        agent: head.header("user-agent").unwrap_or_default().to_vec(),
        user: Vec::new(),
    }
}
