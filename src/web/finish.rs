//! Finish: the part of a session that ends a request, and the connection where it has to end.
//!
//! In: a request that is answered as far as it will be. Out: the log's entry, the next state.
//! Must not: begin the next request (that is `session`, on `Proceed`).
//! Read first: `session`; RFC 9112 section 9.6 (why a connection lingers).

use crate::time::Instant;

use super::log::Entry;
use super::running::Running;
use super::session::{Context, Output, Session, State};

impl Session {
    /// The request is answered as far as it will be.
    pub(super) fn finish(&mut self, cx: Context<'_>) {
        let Some(mut running) = self.running.take() else { return };
        self.has_served = true;
        if let Some(port) = &mut self.port {
            port.end();
        }
        self.record(cx.now, &mut running);
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
        self.deadline = Some(cx.now + cx.rules.config.request_limit);
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

    pub(super) fn record(&mut self, now: Instant, running: &mut Running) {
        self.finished = Some(Box::new(Entry {
            client: running.ends.client,
            request: std::mem::take(&mut running.words),
            status: running.status,
            body_bytes: running.body_bytes,
            elapsed: now.since(running.started_at),
            upstream: running.upstream,
            tries: running.tries,
        }));
        self.order(Output::Finished);
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
        let limit = if self.is_head_due {
            cx.rules.config.request_limit
        } else {
            cx.rules.config.idle_limit
        };
        self.deadline = Some(cx.now + limit);
    }
}
