//! The server half of a session: replies, connections that open, break or lose their role, time.
//!
//! In: bytes of the servers, connections opened or lost, changes of `Routes`, deadlines. Out: as
//! `session`. Must not: deliver a row twice, repeat a write.
//! Read first: `session` for the picture; facts/sql.md traps 18, 28, 29, 34, 59 to 66.

use crate::limits;
use crate::wire::HostId;

use super::command::code;
use super::digest::Finished;
use super::kill;
use super::packet::{self, HEADER_BYTES, ServerError, Walker, status};
use super::result::{Kind, Reply};
use super::route::{Class, Effect};
use super::session::{Act, Context, Job, Outbox, Phase, Session, Step};
use super::statement::{Handle, Statement};

impl Session {
    /// Before its statement, the connection is told the database and the settings that the session
    /// has meanwhile. Returns whether there was something to tell.
    pub(super) fn replay(&mut self, host: HostId, out: &mut Outbox) -> bool {
        let Some(leg) = self.leg(host) else { return false };
        let outbound = &mut out.servers[host.index()];
        let step = if let Some(database) = &self.database
            && leg.database.as_ref() != Some(database)
        {
            packet::command(outbound, code::INIT_DB, database);
            Step::Database
        } else if let Some((payload, version)) = self.settings.after(leg.settings) {
            packet::frame(outbound, 0, |out| out.extend_from_slice(payload));
            Step::Settings(version)
        } else if let Some(id) = self.job.as_ref().and_then(|job| job.statement)
            && leg.prepared.iter().all(|handle| handle.id != id)
            && let Some(text) =
                self.statements.iter().find(|it| it.id == id).and_then(|it| it.text.as_ref())
        {
            packet::frame(outbound, 0, |out| out.extend_from_slice(text));
            Step::Prepared(id)
        } else {
            return false;
        };
        let kind = match step {
            Step::Prepared(_) => Kind::Prepared,
            Step::Database | Step::Settings(_) => Kind::Results,
        };
        let reply = Reply::new(kind, self.is_eof_deprecated());
        self.phase = Phase::Replaying { host, reply, step, answer: Vec::new() };
        true
    }

    /// The connection that was asked for is there, in this database.
    pub fn opened(
        &mut self,
        context: &Context<'_>,
        host: HostId,
        database: Option<Vec<u8>>,
        out: &mut Outbox,
    ) {
        let Some(leg) = &mut self.legs[host.index()] else {
            out.acts.push(Act::Drop(host));
            return;
        };
        leg.is_open = true;
        leg.database = database;
        if matches!(self.phase, Phase::Opening(asked) if asked == host) {
            self.dispatch(context, out);
        }
    }

    /// The connection that was asked for cannot be had. `error` is what the server said, if it
    /// said anything.
    pub fn refused(
        &mut self,
        context: &Context<'_>,
        host: HostId,
        error: Option<ServerError>,
        out: &mut Outbox,
    ) {
        self.legs[host.index()] = None;
        if !matches!(self.phase, Phase::Opening(asked) if asked == host) {
            return;
        }
        let is_source = context.routes.source == Some(host);
        match (error, &mut self.job) {
            (_, Some(job)) if !is_source => {
                job.needs_source = true;
                out.tally.retried += 1;
                self.dispatch(context, out);
            }
            (Some(error), Some(Job { admission: Some(sequence), .. })) => {
                let before = sequence.wrapping_sub(1);
                self.fail(error, before, out);
            }
            (Some(error), _) => {
                // The source is there and does not want this user or this database.
                self.refuse_job(context, &error, out);
            }
            (None, _) => {
                self.hold(Some(context.now + limits::SQL_RECONNECT), out);
            }
        }
    }

    /// Bytes from a server.
    pub fn server_sent(
        &mut self,
        context: &Context<'_>,
        host: HostId,
        bytes: &[u8],
        out: &mut Outbox,
    ) {
        let can_retry = self.can_retry(host);
        let is_prepare = self.job.as_ref().is_some_and(|job| job.kind == Kind::Prepared);
        let used = match &mut self.phase {
            Phase::Running { host: at, reply, held_back, is_delivered } if *at == host => {
                let used = reply.feed(bytes);
                // Of what breaks the protocol (a request for a local file, unasked) nothing is
                // handed on that would complete it.
                let part = bytes.get(..used).filter(|_| !reply.is_broken).unwrap_or(&[]);
                // Only what starts with a refusal can still be asked elsewhere.
                let is_refusal = reply.error.is_some_and(|code| REFUSALS.contains(&code))
                    && context.routes.source != Some(host);
                if *is_delivered {
                    out.client.extend_from_slice(part);
                } else {
                    held_back.extend_from_slice(part);
                    if let Some(place) =
                        held_back.get_mut(5..9).filter(|_| reply.statement.is_some())
                    {
                        // The client knows it by the session's own number.
                        place.copy_from_slice(&(self.last_statement + 1).to_le_bytes());
                    }
                    let is_numbered = is_prepare && !reply.is_begun;
                    let is_ready = (!can_retry && !is_numbered) || (reply.is_begun && !is_refusal);
                    if is_ready && !reply.is_broken {
                        self.deliver(out);
                    }
                }
                self.progress(context, out);
                used
            }
            Phase::Replaying { host: at, reply, answer, .. } if *at == host => {
                let used = reply.feed(bytes);
                answer.extend_from_slice(bytes.get(..used).unwrap_or(&[]));
                if reply.is_broken {
                    out.acts.push(Act::Drop(host));
                    self.lost(context, host, out);
                } else if reply.is_done() {
                    self.replayed(context, out);
                }
                used
            }
            Phase::Arrived
            | Phase::Door(_)
            | Phase::Idle
            | Phase::Held { .. }
            | Phase::Opening(_)
            | Phase::Replaying { .. }
            | Phase::Running { .. }
            | Phase::Killing
            | Phase::Closed => 0,
        };
        if used < bytes.len() && self.leg(host).is_some() {
            // Nobody asked: the server says goodbye (1053, 4031) or is out of step.
            out.acts.push(Act::Drop(host));
            self.lost(context, host, out);
        }
    }

    /// Hands the start of a reply to the client: from here on it cannot be asked elsewhere.
    fn deliver(&mut self, out: &mut Outbox) {
        if let Phase::Running { held_back, is_delivered, .. } = &mut self.phase {
            out.client.extend_from_slice(held_back);
            *held_back = Vec::new();
            *is_delivered = true;
        }
    }

    /// Whether the statement may be given to another server: a proved read, outside of everything,
    /// of which the client saw nothing.
    fn can_retry(&self, host: HostId) -> bool {
        !self.has_state_on(host)
            && self.job.as_ref().is_some_and(|job| {
                job.verdict.class == Class::Replica && job.upload.is_none() && !job.is_retried
            })
    }

    /// Looks at a reply after it grew.
    fn progress(&mut self, context: &Context<'_>, out: &mut Outbox) {
        let Phase::Running { host, reply, is_delivered, .. } = &mut self.phase else { return };
        let host = *host;
        if reply.is_broken {
            out.acts.push(Act::Drop(host));
            self.lost(context, host, out);
            return;
        }
        if std::mem::take(&mut reply.is_file_wanted) && *is_delivered {
            if let Some(job) = &mut self.job {
                job.is_file = true;
                job.upload = Some(Walker::default());
            }
            self.process_inbox(context, out);
            return;
        }
        if !reply.is_done() {
            return;
        }
        if !*is_delivered {
            self.retry(context, host, out);
            return;
        }
        let (status, error, statement) = (reply.status, reply.error, reply.statement);
        let (parameters, rows, bytes) = (reply.parameters, reply.rows, reply.bytes);
        let Some(job) = self.job.take() else { return };
        if let Some(status) = status {
            self.reading.has_escapes = status & status::NO_BACKSLASH_ESCAPES == 0;
        }
        if let Some(leg) = &mut self.legs[host.index()] {
            leg.status = status.unwrap_or(leg.status);
            leg.is_dirty |= job.verdict.is_dirty;
        }
        self.last_host = Some(host);
        if error.is_some() {
            out.tally.errors += 1;
        }
        // An unknown word was not executed, unless other statements came before it.
        let is_nothing_done = error == Some(PARSE_ERROR) && !job.verdict.is_multiple;
        self.is_pinned |= job.verdict.class == Class::SourcePin && !is_nothing_done;
        if job.verdict.is_write && context.config.read_own_writes {
            self.wrote_at = Some(context.now);
            out.has_written = true;
        }
        if let (None, Some(id)) = (error, statement) {
            self.prepared(&job, host, id, parameters);
        }
        if error.is_none() && job.verdict.effect != Effect::None {
            self.apply(job.verdict.effect.clone(), host, &job.bytes);
        }
        let is_closing = error.is_none() && job.verdict.effect == Effect::Close;
        if self.is_pinned && self.pinned_by.is_none() {
            let start = job.bytes.get(..limits::SQL_DIGEST_BYTES_MAX).unwrap_or(&job.bytes);
            self.pinned_by = Some(start.into());
        }
        let is_upload = job.upload.is_some();
        let Job { bytes: packets, statement: run, since, .. } = job;
        out.finished.push(Finished { packets, statement: run, host, since, error, rows, bytes });
        if is_closing {
            self.close(out);
            return;
        }
        if is_upload {
            // The server answered before it had the whole command: it is about to hang up.
            self.close(out);
            return;
        }
        self.finish(context, out);
    }

    /// A server has prepared a statement.
    fn prepared(&mut self, job: &Job, host: HostId, server: u32, parameters: u16) {
        self.last_statement += 1;
        let id = self.last_statement;
        let text = job.bytes.get(HEADER_BYTES..).unwrap_or(&[]);
        let kept: usize =
            self.statements.iter().filter_map(|it| it.text.as_ref()).map(|it| it.len()).sum();
        let is_kept = job.verdict.class < Class::SourcePin
            && !text.is_empty()
            && kept + text.len() <= limits::SQL_PREPARED_BYTES_MAX;
        self.statements.push(Statement {
            id,
            text: is_kept.then(|| text.into()),
            class: job.verdict.class,
            is_write: job.verdict.is_write,
            parameters,
            types: Box::default(),
            is_bound: false,
        });
        if let Some(leg) = &mut self.legs[host.index()] {
            leg.prepared.push(Handle { id, server, has_types: false });
        }
    }

    /// The statement cannot be run on the connection that it would have to run on.
    pub(super) fn refuse_statement(&mut self, context: &Context<'_>, out: &mut Outbox) {
        let text = "Prepared statement needs to be re-prepared";
        self.refuse_job(context, &ServerError::new(1615, b"HY000", text), out);
    }

    /// The job is over: the next command, if the client sent it ahead.
    fn finish(&mut self, context: &Context<'_>, out: &mut Outbox) {
        self.job = None;
        self.phase = Phase::Idle;
        for host in HostId::ALL {
            if self.leg(host).is_some_and(|leg| leg.is_stale) && !self.has_state_on(host) {
                self.drop_leg(host, out);
            }
        }
        self.settle_roles(context, out);
        self.process_inbox(context, out);
    }

    fn retry(&mut self, context: &Context<'_>, lost: HostId, out: &mut Outbox) {
        let is_source = context.routes.source == Some(lost);
        if let Some(job) = &mut self.job {
            job.is_retried = true;
            job.needs_source = !is_source;
            out.tally.retried += 1;
        }
        self.phase = Phase::Idle;
        self.dispatch(context, out);
    }

    fn replayed(&mut self, context: &Context<'_>, out: &mut Outbox) {
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        let Phase::Replaying { host, reply, step, mut answer } = phase else { return };
        let is_source = context.routes.source == Some(host);
        if reply.error.is_none() {
            if let Some(leg) = &mut self.legs[host.index()] {
                leg.status = reply.status.unwrap_or(leg.status);
                match step {
                    Step::Database => leg.database.clone_from(&self.database),
                    Step::Settings(version) => leg.settings = version,
                    Step::Prepared(id) => {
                        let server = reply.statement.unwrap_or(0);
                        leg.prepared.push(Handle { id, server, has_types: false });
                    }
                }
            }
            self.dispatch(context, out);
        } else if is_source {
            out.tally.errors += 1;
            let admission = self.job.as_ref().and_then(|job| job.admission);
            if let (Some(sequence), Some(place)) = (admission, answer.get_mut(3)) {
                *place = sequence;
            }
            out.client.extend_from_slice(&answer);
            if admission.is_some() {
                self.close(out);
            } else {
                self.finish(context, out);
            }
        } else {
            // A replica that has not got the database yet.
            self.drop_leg(host, out);
            self.retry(context, host, out);
        }
    }

    /// The connection is gone; the hands have closed it or are about to.
    pub fn lost(&mut self, context: &Context<'_>, host: HostId, out: &mut Outbox) {
        let had_state = self.has_state_on(host);
        let can_retry = self.can_retry(host);
        let is_source = self.leg(host).is_some_and(|leg| leg.is_source);
        let was_there = self.legs[host.index()].take().is_some();
        if !was_there {
            return;
        }
        let is_here = match &self.phase {
            Phase::Replaying { host: at, .. } | Phase::Running { host: at, .. } => *at == host,
            Phase::Opening(at) => *at == host,
            Phase::Arrived
            | Phase::Door(_)
            | Phase::Idle
            | Phase::Held { .. }
            | Phase::Killing
            | Phase::Closed => false,
        };
        if !is_here {
            self.doom(had_state, out);
            return;
        }
        if let Phase::Running { is_delivered, .. } = self.phase {
            if can_retry && !is_delivered {
                self.retry(context, host, out);
            } else if is_delivered {
                out.tally.errors += 1;
                self.close(out);
            } else {
                self.fail(lost_in_flight(is_source), 0, out);
            }
        } else if had_state {
            self.fail(lost_state(), 0, out);
        } else if is_source {
            self.hold(Some(context.now + limits::SQL_RECONNECT), out);
        } else {
            self.retry(context, host, out);
        }
    }

    /// A connection with state is gone while the session was not using it.
    fn doom(&mut self, had_state: bool, out: &mut Outbox) {
        if !had_state {
            return;
        }
        self.statements = Vec::new();
        if self.is_held() {
            self.fail(lost_state(), 0, out);
        } else {
            self.doom = Some(lost_state());
        }
    }

    /// `Routes` changed: connections to hosts that are gone or changed their role are dropped,
    /// and what waits may go on.
    pub fn rerouted(&mut self, context: &Context<'_>, out: &mut Outbox) {
        for host in HostId::ALL {
            if !context.routes.is_host_alive[host.index()] && self.leg(host).is_some() {
                out.acts.push(Act::Drop(host));
                self.lost(context, host, out);
            }
        }
        self.settle_roles(context, out);
        if self.is_held() {
            self.dispatch(context, out);
        }
    }

    fn settle_roles(&mut self, context: &Context<'_>, out: &mut Outbox) {
        let Some(source) = context.routes.source else { return };
        for host in HostId::ALL {
            let Some(leg) = self.leg(host) else { continue };
            if leg.is_source == (host == source) {
                continue;
            }
            let had_state = self.has_state_on(host);
            let (is_running, is_read) = match &self.phase {
                Phase::Running { host: at, .. } => (
                    *at == host,
                    self.job.as_ref().is_some_and(|job| job.verdict.class == Class::Replica),
                ),
                Phase::Replaying { host: at, .. } => (*at == host, true),
                Phase::Opening(at) if *at == host => {
                    self.drop_leg(host, out);
                    self.dispatch(context, out);
                    continue;
                }
                Phase::Arrived
                | Phase::Door(_)
                | Phase::Idle
                | Phase::Held { .. }
                | Phase::Opening(_)
                | Phase::Killing
                | Phase::Closed => (false, false),
            };
            if is_running && is_read && !had_state {
                if let Some(leg) = &mut self.legs[host.index()] {
                    leg.is_stale = true;
                }
                self.restart_replay(context, host, out);
            } else {
                out.acts.push(Act::Drop(host));
                self.lost(context, host, out);
            }
        }
    }

    /// A read in flight may end where it runs; a statement of which nothing was sent may not
    /// start there.
    fn restart_replay(&mut self, context: &Context<'_>, host: HostId, out: &mut Outbox) {
        if matches!(self.phase, Phase::Replaying { .. }) {
            self.drop_leg(host, out);
            self.phase = Phase::Idle;
            self.dispatch(context, out);
        }
    }

    /// The connection that somebody who wants this session's end has to end: the one that runs its
    /// statement; for the end of the session itself, any.
    #[must_use]
    pub fn place_to_kill(&self, is_query: bool) -> Option<HostId> {
        let any = || HostId::ALL.into_iter().find(|&at| !is_query && self.is_open(at));
        self.phase.asked().or_else(any)
    }

    /// Somebody ended the statement. If a server runs it, the server says so.
    pub fn interrupted(&mut self, context: &Context<'_>, out: &mut Outbox) {
        if self.is_held() {
            self.refuse_job(context, &kill::interrupted(), out);
        }
    }

    /// Somebody ended the session.
    pub fn killed(&mut self, out: &mut Outbox) {
        let is_answered = matches!(self.phase, Phase::Running { is_delivered: true, .. });
        if self.job.is_some() && !is_answered {
            self.fail(kill::interrupted(), 0, out);
        } else {
            self.close(out);
        }
    }

    /// What came of this session's KILL.
    pub fn kill_answered(
        &mut self,
        context: &Context<'_>,
        answer: Result<(), ServerError>,
        out: &mut Outbox,
    ) {
        if !matches!(self.phase, Phase::Killing) {
            return;
        }
        match answer {
            Ok(()) => packet::ok(&mut out.client, 1, self.status()),
            Err(error) => error.emit(&mut out.client, 1),
        }
        self.finish(context, out);
    }

    /// A statement that was not sent gets an error instead; the session goes on if it can.
    fn refuse_job(&mut self, context: &Context<'_>, error: &ServerError, out: &mut Outbox) {
        out.tally.errors += 1;
        error.emit(&mut out.client, 1);
        if self.job.as_ref().is_some_and(|job| job.upload.is_some() || job.kind == Kind::Silent) {
            // The rest of the statement is still to come and has nowhere to go, or no answer was
            // expected.
            self.close(out);
        } else {
            self.finish(context, out);
        }
    }

    /// A deadline has passed.
    pub fn expire(&mut self, context: &Context<'_>, out: &mut Outbox) {
        let now = context.now;
        if self.open_transaction_end(context).is_some_and(|end| now >= end) {
            for host in HostId::ALL {
                if self.leg(host).is_some_and(|leg| leg.is_source && leg.has_transaction()) {
                    out.acts.push(Act::Drop(host));
                    self.lost(context, host, out);
                }
            }
        }
        match &self.phase {
            Phase::Door(_) if self.is_idle_for(now, limits::SQL_LOGIN) => self.close(out),
            Phase::Idle if self.is_idle_for(now, context.config.idle_limit) => self.close(out),
            Phase::Held { retry_at } => {
                let is_due = retry_at.is_some_and(|at| now >= at);
                let since = self.job.as_ref().map_or(now, |job| job.since);
                if now.since(since) >= context.config.hold_limit {
                    self.refuse_job(context, &held_too_long(context), out);
                } else if is_due {
                    self.dispatch(context, out);
                }
            }
            Phase::Arrived
            | Phase::Door(_)
            | Phase::Idle
            | Phase::Opening(_)
            | Phase::Replaying { .. }
            | Phase::Running { .. }
            | Phase::Killing
            | Phase::Closed => {}
        }
    }
}

/// The statement was not executed, and the session stays usable: 1205 is the error that
/// applications already answer by trying again.
fn held_too_long(context: &Context<'_>) -> ServerError {
    let limit = context.config.hold_limit;
    let why = match context.routes.source {
        None => "no host is the source",
        Some(_) if context.held_since.is_some() => "statements for the source are held",
        Some(_) => "the source cannot be connected to",
    };
    let text = format!("tandem: {why}; this statement waited {limit:?} and was not executed");
    ServerError::new(1205, b"HY000", text)
}

fn lost_in_flight(is_source: bool) -> ServerError {
    let text = if is_source {
        "tandem: lost connection to the source during the statement; it may or may not have been \
         executed"
    } else {
        "tandem: lost connection to the replica during the statement"
    };
    ServerError::new(1053, b"08S01", text)
}

fn lost_state() -> ServerError {
    let text = "tandem: the source changed or closed this session's connection; its transaction \
                was rolled back and its session state is gone";
    ServerError::new(1053, b"08S01", text)
}

/// What a replica answers to a statement that writes after all: --read-only, read-only
/// transaction, --read-only by another option (ER_READ_ONLY_MODE).
const REFUSALS: [u16; 3] = [1290, 1792, 1836];

/// ER_PARSE_ERROR.
const PARSE_ERROR: u16 = 1064;
