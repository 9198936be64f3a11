//! One client of the splitter, from its greeting to its end.
//!
//! In: bytes of the client and of its servers, connections opened, lost or refused, changes of
//! `Routes`, the passing of time. Out: bytes and acts in an `Outbox`. Must not: touch a socket;
//! send a write to a host that `Routes` does not name as source; send a write twice.
//! Read first: facts/sql.md 5.7 and traps 24 to 68; `relay` for what happens to replies.
//!
//! ```text
//!            greeting                 proof fits
//! Arrived ------------> Door ------------------------> Idle <---------------- reply ends --+
//!                                                       | command                          |
//!                       +---- Routes name a host ----   v   ---- connection there ----+    |
//!                       v                             (where?)                        v    |
//!                     Opening --opened--> Replaying --database and charset agree--> Running
//!                       |                    ^                                        |
//!                       +--cannot connect--> Held (bounded by hold_limit) <---lost, if a read
//! ```
//! A statement waits in `Job` until the first byte of it is written to a server; from then on a
//! lost server ends the session, unless the statement is a proved read of which the client has
//! seen nothing.

use std::time::Duration;

use crate::limits;
use crate::routes::{Flow, Routes};
use crate::time::{self, Instant};
use crate::wire::HostId;

use super::Config;
use super::command::{self, Plan, code};
use super::handshake::{Facts, Salt, capability};
use super::login::{self, Door, Entry, Guest};
use super::packet::{self, HEADER_BYTES, Header, PAYLOAD_MAX, ServerError, Walker, status};
use super::result::{Kind, Reply};
use super::route::{self, Class, Effect, Reading, Verdict};
use super::status::Tally;

/// What every verb is told about the world.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub now: Instant,
    pub config: &'a Config,
    pub routes: &'a Routes,
    /// Since when `routes.writes` is held.
    pub held_since: Option<Instant>,
    /// By host: reads go elsewhere until then, because it could not be connected to.
    pub avoid_until: [Instant; 2],
    /// Fresh random bytes.
    pub salt: Salt,
}

/// What the hands have to do with a session's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Lease a connection to the host and answer with `opened` or `refused`.
    Open(HostId),
    Drop(HostId),
    /// Clean the connection and keep it for others; it is in this database.
    Release(HostId, Option<Vec<u8>>),
    /// Close the client once everything written for it is sent.
    CloseClient,
}

/// Everything that a verb produced; the hands empty it.
#[derive(Debug, Default)]
pub struct Outbox {
    pub client: Vec<u8>,
    pub servers: [Vec<u8>; 2],
    pub acts: Vec<Act>,
    pub tally: Tally,
}

#[derive(Debug)]
pub struct Session {
    pub(super) phase: Phase,
    pub(super) guest: Guest,
    pub(super) database: Option<Vec<u8>>,
    /// The last SET NAMES, as the payload of a COM_QUERY, and how many there were.
    pub(super) names: Option<Vec<u8>>,
    pub(super) names_version: u32,
    names_follow_database: bool,
    /// How statements are to be read.
    pub(super) reading: Reading,
    pub(super) legs: [Option<Leg>; 2],
    pub(super) job: Option<Job>,
    /// Client bytes that were read and not yet understood.
    inbox: Vec<u8>,
    /// Everything goes to the source until the session ends.
    pub(super) is_pinned: bool,
    /// Prepared statements, and whether each may write.
    pub(super) statements: Vec<(u32, bool)>,
    /// Reads go to the source until then, so that they see the session's own writes.
    pub(super) own_writes_until: Instant,
    pub(super) last_host: Option<HostId>,
    /// State was lost with a connection: the next command gets this error, then the end.
    pub(super) doom: Option<ServerError>,
    peer: String,
    idle_since: Instant,
}

#[derive(Debug)]
pub(super) enum Phase {
    Arrived,
    Door(Door),
    Idle,
    Held { retry_at: Option<Instant> },
    Opening(HostId),
    Replaying { host: HostId, reply: Reply, step: Step, answer: Vec<u8> },
    Running { host: HostId, reply: Reply, held_back: Vec<u8>, is_delivered: bool },
    Closed,
}

/// What a connection is told before the statement so that it agrees with the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Database,
    Names,
}

/// A leased connection to one host.
#[derive(Debug)]
pub(super) struct Leg {
    pub is_open: bool,
    /// The host was the source when this was opened.
    pub is_source: bool,
    /// To be dropped as soon as it is idle.
    pub is_stale: bool,
    pub is_dirty: bool,
    pub database: Option<Vec<u8>>,
    pub names_version: u32,
    pub status: u16,
}

impl Leg {
    pub(super) const fn has_transaction(&self) -> bool {
        self.status & status::IN_TRANS != 0
    }

    const fn has_autocommit(&self) -> bool {
        self.status & status::AUTOCOMMIT != 0
    }
}

/// The command that the session is busy with.
#[derive(Debug)]
pub(super) struct Job {
    /// Its packets, or the start of them while `upload` goes on.
    pub bytes: Vec<u8>,
    pub kind: Kind,
    pub verdict: Verdict,
    pub since: Instant,
    pub is_retried: bool,
    /// The replica refused or lost it.
    pub needs_source: bool,
    /// Follows the rest of a command that is too long to keep.
    pub upload: Option<Walker>,
}

impl Session {
    /// A client that was accepted and has been told nothing.
    #[must_use]
    pub fn new(now: Instant, peer: String) -> Self {
        let guest = Guest { user: usize::MAX, capabilities: 0, collation: 0, database: None };
        Self {
            phase: Phase::Arrived,
            guest,
            database: None,
            names: None,
            names_version: 0,
            names_follow_database: false,
            reading: Reading::default(),
            legs: [None, None],
            job: None,
            inbox: Vec::new(),
            is_pinned: false,
            statements: Vec::new(),
            own_writes_until: Instant::ZERO,
            last_host: None,
            doom: None,
            peer,
            idle_since: now,
        }
    }

    /// Sends the greeting, if it was not sent.
    pub fn greet(&mut self, context: &Context<'_>, facts: &Facts, thread: u32, out: &mut Outbox) {
        if matches!(self.phase, Phase::Arrived) {
            let door = Door::new(context.salt, facts.plugin);
            door.greet(facts, thread, &mut out.client);
            self.phase = Phase::Door(door);
            self.idle_since = context.now;
        }
    }

    #[must_use]
    pub const fn is_arrived(&self) -> bool {
        matches!(self.phase, Phase::Arrived)
    }

    /// Whether the client is logging in.
    #[must_use]
    pub const fn is_at_door(&self) -> bool {
        matches!(self.phase, Phase::Door(_))
    }

    #[must_use]
    pub const fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Held { .. })
    }

    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whose connections this session leases: the user's place, capabilities, collation.
    #[must_use]
    pub const fn guest(&self) -> &Guest {
        &self.guest
    }

    #[must_use]
    pub const fn database(&self) -> Option<&Vec<u8>> {
        self.database.as_ref()
    }

    /// Whether client bytes are of use: not while a statement waits or is answered, so that a
    /// client that sends ahead is held by its own socket.
    #[must_use]
    pub fn wants_client(&self) -> bool {
        match &self.phase {
            Phase::Door(_) | Phase::Idle => true,
            Phase::Running { .. } => self.job.as_ref().is_some_and(|job| job.upload.is_some()),
            Phase::Arrived
            | Phase::Held { .. }
            | Phase::Opening(_)
            | Phase::Replaying { .. }
            | Phase::Closed => false,
        }
    }

    /// Whether a transaction is open or a statement is in flight on a source's connection.
    #[must_use]
    pub fn is_busy_on_source(&self) -> bool {
        let busy = match &self.phase {
            Phase::Replaying { host, .. } | Phase::Running { host, .. } => Some(*host),
            Phase::Arrived
            | Phase::Door(_)
            | Phase::Idle
            | Phase::Held { .. }
            | Phase::Opening(_)
            | Phase::Closed => None,
        };
        HostId::ALL.into_iter().zip(&self.legs).any(|(host, leg)| {
            leg.as_ref()
                .is_some_and(|leg| leg.is_source && (leg.has_transaction() || busy == Some(host)))
        })
    }

    /// Bytes from the client.
    pub fn client_sent(&mut self, context: &Context<'_>, bytes: &[u8], out: &mut Outbox) {
        self.idle_since = context.now;
        if self.inbox.is_empty() {
            let used = self.process(context, bytes, out);
            self.inbox.extend_from_slice(bytes.get(used..).unwrap_or(&[]));
        } else {
            self.inbox.extend_from_slice(bytes);
            self.process_inbox(context, out);
        }
    }

    /// Goes on with what the client sent ahead.
    pub(super) fn process_inbox(&mut self, context: &Context<'_>, out: &mut Outbox) {
        let mut inbox = std::mem::take(&mut self.inbox);
        let used = self.process(context, &inbox, out);
        if used == inbox.len() {
            // An idle session keeps no buffer.
            return;
        }
        inbox.drain(..used);
        self.inbox = inbox;
    }

    /// The client closed its connection, or is held and closed its half of it.
    pub fn client_left(&mut self, out: &mut Outbox) {
        let busy = match &self.phase {
            Phase::Opening(host) | Phase::Replaying { host, .. } | Phase::Running { host, .. } => {
                Some(*host)
            }
            Phase::Arrived | Phase::Door(_) | Phase::Idle | Phase::Held { .. } | Phase::Closed => {
                None
            }
        };
        if let Some(host) = busy {
            self.drop_leg(host, out);
        }
        self.close(out);
    }

    fn process(&mut self, context: &Context<'_>, bytes: &[u8], out: &mut Outbox) -> usize {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or(&[]);
            if rest.is_empty() {
                return used;
            }
            let step = match &self.phase {
                Phase::Door(_) => self.knock(context, rest, out),
                Phase::Idle => self.take_command(context, rest, out),
                Phase::Running { host, .. } => {
                    let host = *host;
                    self.upload(host, rest, out)
                }
                Phase::Closed => return bytes.len(),
                Phase::Arrived
                | Phase::Held { .. }
                | Phase::Opening(_)
                | Phase::Replaying { .. } => 0,
            };
            if step == 0 {
                return used;
            }
            used += step;
        }
    }

    /// A packet of the log-in.
    fn knock(&mut self, context: &Context<'_>, bytes: &[u8], out: &mut Outbox) -> usize {
        let Some((header, payload, _)) = packet::split(bytes) else {
            if bytes.len() > limits::SQL_LOGIN_BYTES_MAX {
                self.close(out);
            }
            return 0;
        };
        let Phase::Door(door) = &mut self.phase else { return 0 };
        match door.packet(header, payload, &context.config.users, &self.peer, &mut out.client) {
            Entry::Waiting => {}
            Entry::Admitted(guest) => {
                self.reading.is_charset_safe = is_collation_safe(guest.collation);
                self.database.clone_from(&guest.database);
                self.guest = guest;
                self.phase = Phase::Idle;
            }
            Entry::Refused => {
                out.tally.refused += 1;
                self.close(out);
            }
        }
        HEADER_BYTES + header.length
    }

    /// The next command, as soon as there is enough of it to decide.
    fn take_command(&mut self, context: &Context<'_>, bytes: &[u8], out: &mut Outbox) -> usize {
        let mut reader = crate::wire::Reader::new(bytes);
        let Ok(header) = Header::parse(&mut reader) else { return 0 };
        let whole = HEADER_BYTES + header.length;
        let (length, is_whole) = if bytes.len() >= whole && header.length < PAYLOAD_MAX {
            (whole, true)
        } else if bytes.len() >= limits::SQL_STATEMENT_BYTES_MAX {
            (bytes.len(), false)
        } else {
            return 0;
        };
        let packets = bytes.get(..length).unwrap_or(bytes);
        if header.sequence != 0 {
            let text = "Got packets out of order";
            self.fail(ServerError::new(1156, b"08S01", text), header.sequence, out);
            return length;
        }
        let payload = packets.get(HEADER_BYTES..).unwrap_or(&[]);
        match command::plan(payload, is_whole, self.reading) {
            Plan::Quit => self.close(out),
            _ if self.doom.is_some() => {
                if let Some(error) = self.doom.take() {
                    self.fail(error, 0, out);
                }
            }
            Plan::Pong => packet::ok(&mut out.client, 1, self.status()),
            Plan::Refuse(error) if is_whole => error.emit(&mut out.client, 1),
            Plan::Reset => {
                self.start_over(out);
                packet::ok(&mut out.client, 1, status::AUTOCOMMIT);
            }
            Plan::ChangeUser => self.change_user(context, payload, out),
            Plan::Refuse(error) => self.fail(error, 0, out),
            Plan::Forward(kind, verdict) => {
                let upload = (!is_whole).then(Walker::default);
                let command = payload.first().copied().unwrap_or(0);
                self.begin(context, packets, command, kind, verdict, upload, out);
            }
        }
        length
    }

    fn begin(
        &mut self,
        context: &Context<'_>,
        packets: &[u8],
        command: u8,
        kind: Kind,
        mut verdict: Verdict,
        mut upload: Option<Walker>,
        out: &mut Outbox,
    ) {
        let statement = packets
            .get(HEADER_BYTES + 1..HEADER_BYTES + 5)
            .and_then(|id| id.try_into().ok())
            .map(u32::from_le_bytes);
        if command == code::STMT_CLOSE {
            self.statements.retain(|(id, _)| Some(*id) != statement);
        }
        let source = context.routes.source;
        let has_source = source.is_some_and(|host| self.is_open(host));
        if kind == Kind::Silent && upload.is_none() && !has_source {
            return; // The statement went with its connection.
        }
        if command == code::STMT_EXECUTE
            && self.statements.iter().any(|(id, is_write)| Some(*id) == statement && !is_write)
        {
            verdict.is_write = false;
        }
        if let Some(walker) = &mut upload {
            let (mut used, mut is_whole) = (0, false);
            while used < packets.len() {
                let (step, packet) = walker.walk(packets.get(used..).unwrap_or(&[]));
                used += step;
                is_whole = packet.is_some_and(|packet| packet.length < PAYLOAD_MAX);
            }
            if is_whole {
                upload = None;
            }
        }
        self.job = Some(Job {
            bytes: packets.to_vec(),
            kind,
            verdict,
            since: context.now,
            is_retried: false,
            needs_source: false,
            upload,
        });
        self.dispatch(context, out);
    }

    /// The rest of a long command, on its way to the server.
    fn upload(&mut self, host: HostId, bytes: &[u8], out: &mut Outbox) -> usize {
        let Some(job) = &mut self.job else { return 0 };
        let Some(walker) = &mut job.upload else { return 0 };
        let (used, packet) = walker.walk(bytes);
        if packet.is_some_and(|packet| packet.length < PAYLOAD_MAX) {
            job.upload = None;
        }
        if let (Some(outbound), Some(part)) = (out.servers.get_mut(host.index()), bytes.get(..used))
        {
            outbound.extend_from_slice(part);
        }
        if self.job.as_ref().is_some_and(|job| job.upload.is_none() && job.kind == Kind::Silent) {
            self.job = None;
            self.phase = Phase::Idle;
        }
        used
    }

    /// Decides where the job goes and takes the next step towards it.
    pub(super) fn dispatch(&mut self, context: &Context<'_>, out: &mut Outbox) {
        if self.job.is_none() {
            self.phase = Phase::Idle;
            return;
        }
        let Some(host) = self.target(context) else {
            if !self.is_held() {
                out.tally.held += 1;
            }
            self.phase = Phase::Held { retry_at: None };
            return;
        };
        let Some(leg) = self.leg(host) else {
            let is_source = context.routes.source == Some(host);
            self.legs[host.index()] = Some(Leg {
                is_open: false,
                is_source,
                is_stale: false,
                is_dirty: false,
                database: None,
                names_version: 0,
                status: status::AUTOCOMMIT,
            });
            out.acts.push(Act::Open(host));
            self.phase = Phase::Opening(host);
            return;
        };
        if !leg.is_open {
            self.phase = Phase::Opening(host);
        } else if !self.replay(host, out) {
            self.send(context, host, out);
        }
    }

    /// The host that the job may go to at this moment; `None` when it has to wait.
    fn target(&self, context: &Context<'_>) -> Option<HostId> {
        let job = self.job.as_ref()?;
        let source = context.routes.source;
        let host = match job.verdict.class {
            Class::Replica if !job.needs_source && self.is_free(context) => {
                let read = context.routes.read_target();
                let is_avoided = read.is_some_and(|host| {
                    context.avoid_until[host.index()] > context.now && !self.is_open(host)
                });
                if is_avoided { source } else { read }
            }
            Class::Last => self.last_host.filter(|&host| self.is_open(host)).or(source),
            Class::Replica | Class::Source | Class::SourcePin => source,
        }?;
        let flows = source != Some(host)
            || match context.routes.writes {
                Flow::Flowing => true,
                Flow::Held { open_limit } => {
                    self.leg(host).is_some_and(Leg::has_transaction)
                        && context.held_since.is_none_or(|since| context.now < since + open_limit)
                }
            };
        flows.then_some(host)
    }

    /// Whether reads may go to the replica at all.
    fn is_free(&self, context: &Context<'_>) -> bool {
        !self.is_pinned
            && self.statements.is_empty()
            && context.now >= self.own_writes_until
            && self.legs.iter().flatten().all(|leg| !leg.has_transaction() && leg.has_autocommit())
    }

    /// Whether something that cannot be repeated elsewhere lives on this connection.
    pub(super) fn has_state_on(&self, host: HostId) -> bool {
        self.leg(host).is_some_and(|leg| {
            leg.is_source
                && (self.is_pinned
                    || !self.statements.is_empty()
                    || leg.has_transaction()
                    || !leg.has_autocommit())
        })
    }

    /// Writes the statement; from here on it may have been executed.
    fn send(&mut self, context: &Context<'_>, host: HostId, out: &mut Outbox) {
        let Some(job) = &mut self.job else { return };
        out.servers[host.index()].extend_from_slice(&job.bytes);
        if job.verdict.is_write {
            self.own_writes_until = context.now + context.config.lag_limit;
        }
        if context.routes.source == Some(host) {
            out.tally.to_source += 1;
        } else {
            out.tally.to_replica += 1;
        }
        if job.upload.is_some() {
            job.bytes = Vec::new();
        } else if job.kind == Kind::Silent {
            self.job = None;
            self.phase = Phase::Idle;
            return;
        }
        let reply = Reply::new(job.kind, self.is_eof_deprecated());
        let is_delivered = false;
        self.phase = Phase::Running { host, reply, held_back: Vec::new(), is_delivered };
    }

    /// Gives both connections back and forgets everything but who the client is.
    fn start_over(&mut self, out: &mut Outbox) {
        for host in HostId::ALL {
            self.release_leg(host, out);
        }
        self.names = None;
        self.names_version = 0;
        self.reading.is_charset_safe = is_collation_safe(self.guest.collation);
        self.is_pinned = false;
        self.statements = Vec::new();
        self.last_host = None;
    }

    fn change_user(&mut self, context: &Context<'_>, payload: &[u8], out: &mut Outbox) {
        let argument = payload.get(1..).unwrap_or(&[]);
        let capabilities = self.guest.capabilities;
        let parsed = login::parse_change_user(argument, capabilities, &context.config.users);
        let Some((name, guest)) = parsed else {
            self.fail(ServerError::new(1047, b"08S01", "Unknown command"), 0, out);
            return;
        };
        self.start_over(out);
        let named = guest.capabilities & capability::PLUGIN_AUTH != 0;
        let plugin = if named && argument.windows(12).any(|it| it == b"caching_sha2") {
            super::handshake::Plugin::CachingSha2
        } else {
            super::handshake::Plugin::Native
        };
        let door = Door::change(context.salt, plugin, &name, guest, 1, &mut out.client);
        self.phase = Phase::Door(door);
    }

    /// Applies what a statement that the server accepted left behind.
    pub(super) fn apply(&mut self, effect: Effect, host: HostId, statement: &[u8]) {
        match effect {
            Effect::None | Effect::Kill => {}
            Effect::Use(name) => {
                // The other connection cannot be given what SET CHARACTER SET took from the
                // database that was the default then.
                self.is_pinned |= self.names_follow_database && self.names.is_some();
                self.database = Some(name);
                if let Some(leg) = &mut self.legs[host.index()] {
                    leg.database.clone_from(&self.database);
                }
            }
            Effect::Names { follows_database, is_charset_safe } => {
                self.names = Some(statement.get(HEADER_BYTES..).unwrap_or(&[]).to_vec());
                self.names_version += 1;
                self.names_follow_database = follows_database;
                self.reading.is_charset_safe = is_charset_safe;
                if let Some(leg) = &mut self.legs[host.index()] {
                    leg.names_version = self.names_version;
                }
            }
        }
    }

    /// Tells the client what went wrong, and ends the session.
    pub(super) fn fail(&mut self, error: ServerError, sequence: u8, out: &mut Outbox) {
        out.tally.errors += 1;
        error.emit(&mut out.client, sequence.wrapping_add(1));
        self.close(out);
    }

    /// Ends the session: clean connections go back to the pool, the client is closed.
    pub(super) fn close(&mut self, out: &mut Outbox) {
        if self.is_closed() {
            return;
        }
        if let Phase::Opening(host) | Phase::Replaying { host, .. } | Phase::Running { host, .. } =
            self.phase
        {
            self.drop_leg(host, out);
        }
        for host in HostId::ALL {
            self.release_leg(host, out);
        }
        self.job = None;
        self.inbox = Vec::new();
        self.phase = Phase::Closed;
        out.acts.push(Act::CloseClient);
    }

    fn release_leg(&mut self, host: HostId, out: &mut Outbox) {
        if let Some(leg) = self.legs[host.index()].take() {
            out.acts.push(if leg.is_open && !leg.is_dirty && !leg.is_stale {
                Act::Release(host, leg.database)
            } else {
                Act::Drop(host)
            });
        }
    }

    pub(super) fn drop_leg(&mut self, host: HostId, out: &mut Outbox) {
        if self.legs[host.index()].take().is_some() {
            out.acts.push(Act::Drop(host));
        }
    }

    pub(super) fn leg(&self, host: HostId) -> Option<&Leg> {
        self.legs[host.index()].as_ref()
    }

    pub(super) fn is_open(&self, host: HostId) -> bool {
        self.leg(host).is_some_and(|leg| leg.is_open)
    }

    pub(super) const fn is_eof_deprecated(&self) -> bool {
        self.guest.capabilities & capability::DEPRECATE_EOF != 0
    }

    /// Status flags for replies that no server made.
    fn status(&self) -> u16 {
        let source = self.legs.iter().flatten().find(|leg| leg.is_source);
        source
            .map_or(status::AUTOCOMMIT, |leg| leg.status & (status::AUTOCOMMIT | status::IN_TRANS))
    }

    /// When `expire` has something to do.
    #[must_use]
    pub fn deadline(&self, context: &Context<'_>) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Arrived => Some(self.idle_since + limits::SQL_GREETING),
            Phase::Door(_) => Some(self.idle_since + limits::SQL_LOGIN),
            Phase::Idle => Some(self.idle_since + context.config.idle_limit),
            Phase::Held { retry_at } => {
                let since = self.job.as_ref().map(|job| job.since);
                time::earliest(*retry_at, since.map(|since| since + context.config.hold_limit))
            }
            Phase::Opening(_) | Phase::Replaying { .. } | Phase::Running { .. } | Phase::Closed => {
                None
            }
        };
        time::earliest(own, self.open_transaction_end(context))
    }

    /// When an open transaction has to be over, while writes are held.
    pub(super) fn open_transaction_end(&self, context: &Context<'_>) -> Option<Instant> {
        let Flow::Held { open_limit } = context.routes.writes else { return None };
        let is_open = self.legs.iter().flatten().any(|leg| leg.is_source && leg.has_transaction());
        context.held_since.filter(|_| is_open).map(|since| since + open_limit)
    }

    /// How long the client has to wait before it is told that it was idle for too long.
    #[must_use]
    pub fn is_idle_for(&self, now: Instant, limit: Duration) -> bool {
        now.since(self.idle_since) >= limit
    }
}

fn is_collation_safe(id: u8) -> bool {
    use mysql_common::collations::{Collation, CollationId};
    route::is_charset_safe(Collation::resolve(CollationId::from(u16::from(id))).charset())
}
