//! Relay: the part of a session that carries out what its PHP exchange comes to.
//!
//! In: a peer or none, php-fpm's answer, steps. Out: orders, the next state. Must not: judge a
//! failure (that is `exchange`), choose a peer (that is `upstream`). Read first: `exchange`.

use std::mem;

use crate::limits;
use crate::wire::HostId;

use super::answer::Ending;
use super::exchange::{Exchange, Phase, Step};
use super::lookup::Lookup;
use super::path;
use super::session::{Context, Output, Session, State};
use super::sticky;
use super::upstream::Evidence;

impl Session {
    /// Something happened that the exchange has a step for.
    pub(super) fn consider(
        &mut self,
        cx: Context<'_>,
        evidence: Option<Evidence>,
        judge: impl Fn(&Exchange) -> Step,
    ) {
        if let State::Php(exchange) = &self.state {
            let step = judge(exchange);
            self.step(cx, step, evidence);
        }
    }

    pub(super) fn assigned(&mut self, cx: Context<'_>, host: HostId) {
        if let State::Php(exchange) = &mut self.state {
            let running = self.running.as_ref();
            let line = running.map_or_else(Vec::new, |running| {
                sticky::line(&cx.rules.config, running.affinity, host, running.ends.is_https)
            });
            exchange.assigned(host, line);
            self.deadline = Some(cx.now + cx.rules.config.connect_limit);
            self.order(Output::Connect(host));
        }
    }

    /// A PHP request came further.
    pub(super) fn progress(&mut self, cx: Context<'_>, change: impl FnOnce(&mut Exchange)) {
        if let State::Php(exchange) = &mut self.state {
            change(exchange);
            let limit = if exchange.is_unread() {
                cx.rules.config.answer_limit.min(limits::WEB_UNREAD_LIMIT)
            } else {
                cx.rules.config.answer_limit
            };
            self.deadline = Some(cx.now + limit);
        }
    }

    pub(super) fn found_read(&mut self, cx: Context<'_>, is_read: bool) {
        if let State::Php(exchange) = &mut self.state {
            let step = exchange.found_read(is_read);
            self.deadline = Some(cx.now + cx.rules.config.answer_limit);
            self.step(cx, step, None);
        }
    }

    pub(super) fn answered(&mut self, cx: Context<'_>, bytes: Option<(&[u8], bool)>) {
        let (State::Php(exchange), Some(running)) = (&mut self.state, &mut self.running) else {
            return;
        };
        if cx.is_draining && !exchange.response().is_sent() {
            running.terms.is_keep_alive = false;
        }
        self.deadline = Some(cx.now + cx.rules.config.answer_limit);
        let (terms, out) = (&mut running.terms, &mut self.outbound);
        let step = match bytes {
            Some((bytes, is_closing)) => exchange.answered(bytes, is_closing, terms, cx.stamp, out),
            None => exchange.ended(terms, cx.stamp, out),
        };
        self.step(cx, step, None);
    }

    /// Does what a PHP exchange came to.
    pub(super) fn step(&mut self, cx: Context<'_>, step: Step, evidence: Option<Evidence>) {
        let State::Php(exchange) = &mut self.state else { return };
        if step == Step::Continue {
            return;
        }
        let host = exchange.host();
        if let Some(running) = &mut self.running {
            running.upstream = host.or(running.upstream);
            running.tries = exchange.tries();
            running.status = exchange.response().status().unwrap_or(running.status);
            running.body_bytes = exchange.response().body_bytes();
        }
        if step == Step::Again {
            exchange.again();
            self.deadline = Some(cx.now + cx.rules.config.connect_limit);
            if let Some(host) = host {
                self.order(Output::Connect(host));
            }
            return;
        }
        if let Step::Retry(_) | Step::Move = step {
            exchange.requeue(if let Step::Retry(status) = step { status } else { 503 });
            let tried = exchange.tried();
            self.deadline = Some(cx.now + cx.rules.config.queue_limit);
            self.release(host, evidence);
            self.order(Output::Acquire { tried, is_charged: step != Step::Move });
            return;
        }
        if step == Step::Inside {
            let inside = exchange.response().inside().map(|(path, lines)| (path.to_vec(), lines));
            self.release(host, evidence);
            let (target, lines) = inside.unwrap_or_default();
            self.look_inside(cx, &target, lines);
            return;
        }
        let is_clean = exchange.is_clean() && matches!(step, Step::Done(_));
        match host {
            Some(host) if is_clean => self.order(Output::Keep(host)),
            Some(_) | None => self.release(host, evidence),
        }
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
            Step::Abort
            | Step::Continue
            | Step::Retry(_)
            | Step::Move
            | Step::Again
            | Step::Inside => {
                self.is_cut = true;
                if let Some(running) = &mut self.running {
                    running.terms.is_keep_alive = false;
                }
                self.finish(cx);
            }
        }
    }

    /// nginx: X-Accel-Redirect. The site's `deny` does not hold here: it is what keeps such files
    /// from everybody else. The request's head is put back, for its conditions and its range.
    fn look_inside(&mut self, cx: Context<'_>, target: &[u8], lines: Vec<u8>) {
        let Some(running) = &mut self.running else { return };
        let raw = target.split(|&byte| byte == b'?').next().unwrap_or_default();
        let Some(path) = path::normalise(raw) else {
            self.page(cx, 500, "");
            return;
        };
        let head_bytes = running.head.len();
        let mut inbound = mem::take(&mut running.head);
        inbound.append(&mut self.inbound);
        running.inside = Some(lines);
        let lookup = Lookup::new(running.site, path);
        self.inbound = inbound;
        self.state = State::Looking { lookup, head_bytes };
        self.deadline = Some(cx.now + cx.rules.config.request_limit);
        self.order(Output::Look);
    }

    /// Gives back the peer that the request has, or its place in the queue.
    pub(super) fn let_go(&mut self) {
        let State::Php(exchange) = &self.state else { return };
        let (phase, host, tries) = (exchange.phase(), exchange.host(), exchange.tries());
        if phase == Phase::Queued {
            self.order(Output::LeaveQueue);
        }
        self.release(host, None);
        if let Some(running) = &mut self.running {
            (running.upstream, running.tries) = (host, tries);
        }
    }

    /// The client is gone, or cannot be answered properly: everything is let go.
    pub(super) fn abandon(&mut self, cx: Context<'_>) {
        self.let_go();
        if let Some(mut running) = self.running.take() {
            // nginx: NGX_HTTP_CLIENT_CLOSED_REQUEST.
            running.status = 499;
            self.record(cx.now, &mut running);
        }
        self.is_cut = true;
        self.close();
    }

    pub(super) fn release(&mut self, host: Option<HostId>, evidence: Option<Evidence>) {
        if let Some(host) = host {
            self.order(Output::Release(host, evidence));
        }
    }

    pub(super) fn acquire(&mut self, cx: Context<'_>) {
        let (State::Php(exchange), Some(running)) = (&mut self.state, &self.running) else {
            return;
        };
        exchange.queue(running.has_length);
        self.deadline = Some(cx.now + cx.rules.config.queue_limit);
        self.order(Output::Acquire { tried: [false; 2], is_charged: false });
    }
}
