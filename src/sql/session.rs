//! One client of the splitter, from its greeting to its end.
//!
//! In: bytes of the client and of its servers, connections opened, lost or refused, changes of
//! `Routes`, the passing of time. Out: bytes and acts in an `Outbox`. Must not: touch a socket;
//! send a write to a host that `Routes` does not name as source; send a write twice.
//! Read first: facts/sql.md 5.7 and traps 24 to 68; `intake` for commands, `relay` for replies.
//!
//! ```text
//!            greeting                 proof fits
//! Arrived ------------> Door ------------------------> Idle <---------------- reply ends --+
//!                                                       | command                          |
//!                       +---- Routes name a host ----   v   ---- connection there ----+    |
//!                       v                             (where?)                        v    |
//!                     Opening --opened--> Replaying --database, settings agree--> Running
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
use super::digest::Finished;
use super::handshake::{Facts, Salt, capability};
use super::kill::Kill;
use super::login::{Door, Guest, Tls};
use super::packet::{self, HEADER_BYTES, ServerError, Walker, status};
use super::result::{Kind, Reply};
use super::route::{Class, Effect, Reading, Verdict};
use super::setting::History;
use super::statement::{Handle, Statement};
use super::status::Tally;
use super::users::Users;

/// What every verb is told about the world.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub now: Instant,
    pub config: &'a Config,
    pub users: &'a Users,
    pub routes: &'a Routes,
    /// Since when `routes.writes` is held.
    pub held_since: Option<Instant>,
    /// By host: reads go elsewhere until then, because it could not be connected to.
    pub avoid_until: [Instant; 2],
    /// Every write that was acknowledged before this moment is on the replica.
    pub reached: Instant,
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
    /// End another session or its statement, and answer with `kill_answered`.
    Kill(Kill),
    /// Go on with the client in TLS, of which it has sent these bytes already.
    Secure(Vec<u8>),
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
    /// A write was answered.
    pub has_written: bool,
    /// Statements that were answered to their end.
    pub finished: Vec<Finished>,
}

#[derive(Debug)]
pub struct Session {
    pub(super) phase: Phase,
    pub(super) guest: Guest,
    pub(super) database: Option<Vec<u8>>,
    /// SETs that every connection of the session has to be told.
    pub(super) settings: History,
    /// How statements are to be read.
    pub(super) reading: Reading,
    pub(super) legs: [Option<Leg>; 2],
    pub(super) job: Option<Job>,
    /// Client bytes that were read and not yet understood.
    pub(super) inbox: Vec<u8>,
    /// Everything goes to the source until the session ends.
    pub(super) is_pinned: bool,
    /// The start of the command's packets that did it.
    pub(super) pinned_by: Option<Box<[u8]>>,
    pub(super) statements: Vec<Statement>,
    /// The number that the last one got.
    pub(super) last_statement: u32,
    /// When the session's last write was answered: reads go to the source until it is known to be
    /// on the replica.
    pub(super) wrote_at: Option<Instant>,
    pub(super) last_host: Option<HostId>,
    /// State was lost with a connection: the next command gets this error, then the end.
    pub(super) doom: Option<ServerError>,
    pub(super) peer: String,
    /// What the greeting says of TLS.
    pub tls: Tls,
    /// The number in its greeting.
    pub(super) number: u32,
    pub(super) idle_since: Instant,
}

#[derive(Debug)]
pub(super) enum Phase {
    Arrived,
    Door(Door),
    Idle,
    Held {
        retry_at: Option<Instant>,
    },
    Opening(HostId),
    Replaying {
        host: HostId,
        reply: Reply,
        step: Step,
        answer: Vec<u8>,
    },
    Running {
        host: HostId,
        reply: Reply,
        held_back: Vec<u8>,
        is_delivered: bool,
    },
    /// A server is asked to end another session.
    Killing,
    Closed,
}

impl Phase {
    /// The server that was sent something and owes an answer.
    pub(super) const fn asked(&self) -> Option<HostId> {
        match self {
            Self::Replaying { host, .. } | Self::Running { host, .. } => Some(*host),
            Self::Arrived
            | Self::Door(_)
            | Self::Idle
            | Self::Held { .. }
            | Self::Opening(_)
            | Self::Killing
            | Self::Closed => None,
        }
    }

    /// The same, or the server that a connection is being opened to.
    pub(super) const fn awaited(&self) -> Option<HostId> {
        match self {
            Self::Opening(host) => Some(*host),
            Self::Arrived
            | Self::Door(_)
            | Self::Idle
            | Self::Held { .. }
            | Self::Replaying { .. }
            | Self::Running { .. }
            | Self::Killing
            | Self::Closed => self.asked(),
        }
    }
}

/// What a connection is told before the statement so that it agrees with the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Database,
    /// The connection then has the settings up to this version.
    Settings(u32),
    /// The connection then has the statement of this number.
    Prepared(u32),
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
    pub settings: u32,
    pub status: u16,
    pub prepared: Vec<Handle>,
}

impl Leg {
    pub(super) const fn has_transaction(&self) -> bool {
        self.status & status::IN_TRANS != 0
    }

    pub(super) const fn has_autocommit(&self) -> bool {
        self.status & status::AUTOCOMMIT != 0
    }
}

/// The command that the session is busy with.
#[derive(Debug)]
pub(super) struct Job {
    /// Its packets, or the start of them while `upload` goes on.
    pub bytes: Vec<u8>,
    pub kind: Kind,
    /// The statement that it names.
    pub statement: Option<u32>,
    pub verdict: Verdict,
    pub since: Instant,
    pub is_retried: bool,
    /// The replica refused or lost it.
    pub needs_source: bool,
    /// What is uploaded is not the command but the file that it names.
    pub is_file: bool,
    /// Follows the rest of a command that is too long to keep, or a file.
    pub upload: Option<Walker>,
    /// Not a command: the client is logged in as soon as its database was found, by a packet with
    /// this sequence number.
    pub admission: Option<u8>,
}

impl Session {
    /// A client that was accepted and has been told nothing.
    #[must_use]
    pub fn new(now: Instant, peer: String) -> Self {
        let guest = Guest { user: None, capabilities: 0, collation: 0, database: None };
        Self {
            phase: Phase::Arrived,
            guest,
            database: None,
            settings: History::default(),
            reading: Reading::default(),
            legs: [None, None],
            job: None,
            inbox: Vec::new(),
            is_pinned: false,
            pinned_by: None,
            statements: Vec::new(),
            last_statement: 0,
            wrote_at: None,
            last_host: None,
            doom: None,
            peer,
            tls: Tls::Off,
            number: 0,
            idle_since: now,
        }
    }

    /// Sends the greeting, if it was not sent.
    pub fn greet(&mut self, context: &Context<'_>, facts: &Facts, thread: u32, out: &mut Outbox) {
        if matches!(self.phase, Phase::Arrived) {
            let door = Door::new(context.salt, facts.plugin, self.tls);
            door.greet(facts, thread, &mut out.client);
            self.phase = Phase::Door(door);
            self.number = thread;
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

    /// The client's address.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// One word on what it does, for people.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match &self.phase {
            Phase::Arrived | Phase::Door(_) => "logging in",
            Phase::Idle => "idle",
            Phase::Held { .. } => "held",
            Phase::Opening(_) => "connecting",
            Phase::Replaying { .. } | Phase::Running { .. } => "running",
            Phase::Killing => "killing",
            Phase::Closed => "closed",
        }
    }

    /// Whose connections this session leases: the user, capabilities, collation.
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
            | Phase::Killing
            | Phase::Closed => false,
        }
    }

    /// Whether a transaction is open or a statement is in flight on a source's connection.
    #[must_use]
    pub fn is_busy_on_source(&self) -> bool {
        let busy = self.phase.asked();
        HostId::ALL.into_iter().zip(&self.legs).any(|(host, leg)| {
            leg.as_ref()
                .is_some_and(|leg| leg.is_source && (leg.has_transaction() || busy == Some(host)))
        })
    }

    /// The client closed its connection, or is held and closed its half of it.
    pub fn client_left(&mut self, out: &mut Outbox) {
        if let Some(host) = self.phase.awaited() {
            self.drop_leg(host, out);
        }
        self.close(out);
    }

    /// Decides where the job goes and takes the next step towards it.
    pub(super) fn dispatch(&mut self, context: &Context<'_>, out: &mut Outbox) {
        if self.job.is_none() {
            self.phase = Phase::Idle;
            return;
        }
        let Some(host) = self.target(context) else {
            self.hold(None, out);
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
                settings: 0,
                status: status::AUTOCOMMIT,
                prepared: Vec::new(),
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

    /// Lets the job wait. A log-in does not wait for a source: it is admitted, and whether its
    /// database exists is told with its first statement.
    pub(super) fn hold(&mut self, retry_at: Option<Instant>, out: &mut Outbox) {
        if self.admitted(out) {
            return;
        }
        if !self.is_held() {
            out.tally.held += 1;
        }
        self.phase = Phase::Held { retry_at };
    }

    /// Says OK to a client that logs in, if that is what the job is.
    fn admitted(&mut self, out: &mut Outbox) -> bool {
        let Some(sequence) = self.job.as_ref().and_then(|job| job.admission) else { return false };
        packet::ok(&mut out.client, sequence, status::AUTOCOMMIT);
        self.job = None;
        self.phase = Phase::Idle;
        true
    }

    /// Writes the statement; from here on it may have been executed.
    fn send(&mut self, context: &Context<'_>, host: HostId, out: &mut Outbox) {
        if self.admitted(out) {
            return;
        }
        let has_files = self.guest.capabilities & capability::LOCAL_FILES != 0;
        let is_eof_deprecated = self.is_eof_deprecated();
        let Some(job) = &mut self.job else { return };
        let outbound = &mut out.servers[host.index()];
        if let Some(id) = job.statement {
            let leg = self.legs[host.index()].as_mut();
            let handle = leg.and_then(|leg| leg.prepared.iter_mut().find(|it| it.id == id));
            let statement = self.statements.iter_mut().find(|it| it.id == id);
            let is_sent = handle.zip(statement).and_then(|(handle, statement)| {
                statement.emit(&job.bytes, job.upload.is_none(), handle, outbound)
            });
            if is_sent.is_none() {
                self.refuse_statement(context, out);
                return;
            }
        } else {
            outbound.extend_from_slice(&job.bytes);
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
        let mut reply = Reply::new(job.kind, is_eof_deprecated);
        reply.may_ask_for_file = has_files && job.verdict.class != Class::Replica;
        let is_delivered = false;
        self.phase = Phase::Running { host, reply, held_back: Vec::new(), is_delivered };
    }

    /// Applies what a statement that the server accepted left behind.
    pub(super) fn apply(&mut self, effect: Effect, host: HostId, statement: &[u8]) {
        match effect {
            Effect::None | Effect::Kill | Effect::Close => {}
            Effect::Use(name) => {
                if self.database.as_ref() != Some(&name) {
                    self.statements.iter_mut().for_each(Statement::freeze);
                }
                // The other connection cannot be given what SET CHARACTER SET took from the
                // database that was the default then.
                self.is_pinned |= self.settings.follows_database();
                self.database = Some(name);
                if let Some(leg) = &mut self.legs[host.index()] {
                    leg.database.clone_from(&self.database);
                }
            }
            Effect::Set(setting) => {
                self.statements.iter_mut().for_each(Statement::freeze);
                if let Some(charset) = setting.charset {
                    self.reading.charset = charset;
                }
                if self.is_pinned {
                    // The source has it and nobody else will be asked.
                    return;
                }
                let payload = statement.get(HEADER_BYTES..).unwrap_or(&[]);
                let version = self.settings.note(payload, setting);
                self.is_pinned = self.settings.is_full();
                if let Some(leg) = &mut self.legs[host.index()] {
                    leg.settings = version;
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
        if let Some(host) = self.phase.awaited() {
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

    pub(super) fn release_leg(&mut self, host: HostId, out: &mut Outbox) {
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
    pub(super) fn status(&self) -> u16 {
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
            Phase::Opening(_)
            | Phase::Replaying { .. }
            | Phase::Running { .. }
            | Phase::Killing
            | Phase::Closed => None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::WebIntake;
    use crate::sql::User;
    use crate::sql::command::code;
    use crate::time::Rng;
    use crate::units::Secret;

    const OK: &[u8] = b"\x07\0\0\x01\0\0\0\x02\0\0\0";
    const OK_IN_TRANSACTION: &[u8] = b"\x07\0\0\x01\0\0\0\x03\0\0\0";
    const READ_ONLY: &[u8] = b"\x03\0\0\x01\xff\x0a\x05";

    #[test]
    fn a_read_opens_the_replica_and_a_write_the_source() {
        let mut world = World::new();
        world.query("SELECT 1");
        assert_eq!(world.acts(), [Act::Open(HostId::Second)]);
        world.opened(HostId::Second);
        assert!(world.sent(HostId::Second).ends_with(b"SELECT 1"));
        world.reply(HostId::Second, OK);
        assert_eq!(world.told(), OK);
        world.query("DELETE FROM t");
        assert_eq!(world.acts(), [Act::Open(HostId::First)]);
        world.opened(HostId::First);
        assert!(world.sent(HostId::First).ends_with(b"DELETE FROM t"));
        world.reply(HostId::First, OK);
        world.query("SELECT 2");
        assert!(world.sent(HostId::First).ends_with(b"SELECT 2"), "its own writes");
        world.reply(HostId::First, OK);
        world.reached = world.now;
        world.query("SELECT 3");
        assert!(world.sent(HostId::First).ends_with(b"SELECT 3"), "of the same moment");
        world.reply(HostId::First, OK);
        world.reached = world.now + Duration::from_nanos(1);
        world.query("SELECT 4");
        assert!(world.sent(HostId::Second).ends_with(b"SELECT 4"));
    }

    #[test]
    fn a_read_that_a_replica_loses_or_refuses_is_asked_once_more() {
        for is_lost in [true, false] {
            let mut world = World::new();
            world.query("SELECT 1");
            world.opened(HostId::Second);
            world.sent(HostId::Second);
            if is_lost {
                world.lost(HostId::Second);
            } else {
                world.reply(HostId::Second, READ_ONLY);
            }
            assert_eq!(world.told(), b"", "the client sees nothing");
            world.opened(HostId::First);
            assert!(world.sent(HostId::First).ends_with(b"SELECT 1"));
            world.lost(HostId::First);
            assert!(world.told().windows(3).any(|it| it == b"\xff\x1d\x04"), "1053");
            assert!(world.session.is_closed());
        }
    }

    #[test]
    fn a_read_that_was_answered_in_part_ends_the_session() {
        let mut world = World::new();
        world.query("SELECT 1");
        world.opened(HostId::Second);
        world.reply(HostId::Second, b"\x01\0\0\x01\x01");
        assert_eq!(world.told(), b"\x01\0\0\x01\x01");
        world.lost(HostId::Second);
        assert_eq!(world.told(), b"", "nothing that could be taken for a row");
        assert!(world.session.is_closed());
    }

    #[test]
    fn a_write_that_was_sent_is_never_sent_again() {
        let mut world = World::new();
        world.query("DELETE FROM t");
        world.opened(HostId::First);
        world.sent(HostId::First);
        world.route(Some(HostId::Second), Flow::Flowing);
        assert!(world.told().windows(3).any(|it| it == b"\xff\x1d\x04"), "1053");
        assert!(world.session.is_closed());
        assert_eq!(world.sent(HostId::Second), b"");
    }

    #[test]
    fn a_request_for_a_file_that_nobody_offered_never_reaches_the_client() {
        let theft = b"\x0c\0\0\x01\xfb/etc/passwd";
        let is_whole = |told: &[u8]| told.windows(theft.len()).any(|it| it == theft);
        let mut world = World::new();
        world.query("DELETE FROM t");
        world.opened(HostId::First);
        world.reply(HostId::First, theft);
        let told = world.told();
        assert!(!is_whole(&told) && told.windows(3).any(|it| it == b"\xff\x1d\x04"), "1053");
        let mut world = World::new();
        world.query("DELETE FROM t");
        world.opened(HostId::First);
        world.reply(HostId::First, b"\x07\0\0\x01\0\0\0\x0a\0\0\0");
        world.reply(HostId::First, &[b"\x0c\0\0\x02", &theft[4..]].concat());
        assert!(!world.told().windows(7).any(|it| it == b"/passwd"), "nor as a second result");
        assert!(world.session.is_closed());
        let mut world = World::new();
        world.query("USE a");
        world.opened(HostId::Second);
        world.reply(HostId::Second, OK);
        world.told();
        world.query("DELETE FROM t");
        world.verb(|session, context, out| session.opened(context, HostId::First, None, out));
        world.reply(HostId::First, theft);
        assert_eq!(world.told(), b"", "nor while the connection is told its database");
    }

    #[test]
    fn what_waits_goes_to_the_source_that_is_named_next() {
        let mut world = World::new();
        world.route(None, Flow::Flowing);
        world.query("DELETE FROM t");
        assert!(world.session.is_held() && world.acts().is_empty());
        assert!(!world.session.wants_client(), "what is sent ahead stays in the socket");
        world.route(Some(HostId::Second), Flow::Held { open_limit: Duration::ZERO });
        assert!(world.session.is_held());
        world.route(Some(HostId::Second), Flow::Flowing);
        assert_eq!(world.acts(), [Act::Open(HostId::Second)]);
        world.opened(HostId::Second);
        assert!(world.sent(HostId::Second).ends_with(b"DELETE FROM t"));
    }

    #[test]
    fn a_source_that_cannot_be_connected_to_is_tried_until_the_hold_limit() {
        let mut world = World::new();
        world.query("DELETE FROM t");
        let since = world.now;
        for _ in 0..1000 {
            if world.acts().contains(&Act::Open(HostId::First)) {
                world.verb(|session, context, out| {
                    session.refused(context, HostId::First, None, out)
                });
            }
            let Some(at) = world.deadline() else { break };
            world.now = at;
            world.verb(Session::expire);
            if !world.session.is_held() && world.session.job.is_none() {
                break;
            }
        }
        assert_eq!(world.now.since(since), world.config.hold_limit);
        assert!(world.told().windows(3).any(|it| it == b"\xff\xb5\x04"), "1205");
        assert!(!world.session.is_closed());
    }

    #[test]
    fn both_connections_are_told_the_database_and_the_character_set() {
        let mut world = World::new();
        world.query("USE a");
        world.opened(HostId::Second);
        world.sent(HostId::Second);
        world.reply(HostId::Second, OK);
        world.query("SET NAMES latin1");
        world.reply(HostId::Second, OK);
        world.sent(HostId::Second);
        world.query("DELETE FROM t");
        let database = world.session.database().cloned();
        assert_eq!(database.as_deref(), Some(&b"a"[..]));
        world.verb(|session, context, out| {
            session.opened(context, HostId::First, Some(b"b".to_vec()), out);
        });
        assert_eq!(world.sent(HostId::First), b"\x02\0\0\0\x02a");
        world.reply(HostId::First, OK);
        assert!(world.sent(HostId::First).ends_with(b"SET NAMES latin1"));
        world.reply(HostId::First, OK);
        assert!(world.sent(HostId::First).ends_with(b"DELETE FROM t"));
    }

    #[test]
    fn an_open_transaction_outlives_the_hold_but_not_its_limit() {
        let mut world = World::new();
        world.query("BEGIN");
        world.opened(HostId::First);
        world.reply(HostId::First, OK_IN_TRANSACTION);
        assert!(world.session.is_busy_on_source());
        let open_limit = Duration::from_secs(1);
        world.route(Some(HostId::First), Flow::Held { open_limit });
        world.sent(HostId::First);
        world.query("DELETE FROM t");
        assert!(world.sent(HostId::First).ends_with(b"DELETE FROM t"));
        world.reply(HostId::First, OK_IN_TRANSACTION);
        assert_eq!(world.deadline(), Some(world.now + open_limit));
        world.now = world.now + open_limit;
        world.verb(Session::expire);
        assert_eq!(world.acts().last(), Some(&Act::Drop(HostId::First)));
        assert!(!world.session.is_busy_on_source());
        world.told();
        world.query("COMMIT");
        assert!(world.told().windows(3).any(|it| it == b"\xff\x1d\x04"), "1053");
        assert!(world.session.is_closed());
    }

    #[test]
    fn a_client_out_of_step_gets_1156() {
        let mut world = World::new();
        world.client(b"\x09\0\0\x05\x03SELECT 1");
        assert!(world.told().windows(3).any(|it| it == b"\xff\x84\x04"));
        assert!(world.session.is_closed());
    }

    #[test]
    fn a_closing_statement_never_waits_and_never_answers() {
        let mut world = World::new();
        world.client(b"\x0a\0\0\0\x16SELECT ?1");
        world.opened(HostId::Second);
        world.reply(HostId::Second, b"\x0c\0\0\x01\0\x07\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(world.told()[5..9], [1, 0, 0, 0], "the session's own number");
        world.sent(HostId::Second);
        world.route(None, Flow::Flowing);
        world.client(b"\x05\0\0\0\x19\x01\0\0\0");
        assert!(!world.session.is_held());
        assert_eq!(world.sent(HostId::Second), b"\x05\0\0\0\x19\x07\0\0\0");
        assert_eq!(world.told(), b"");
        assert!(world.session.statements.is_empty());
    }

    #[test]
    fn a_prepared_read_is_prepared_again_where_it_has_to_run() {
        let mut world = World::new();
        let prepared = |server: u8| [b"\x0c\0\0\x01\0", &[server, 0, 0, 0][..], &[0; 7]].concat();
        let execute = b"\x0a\0\0\0\x17\x01\0\0\0\0\x01\0\0\0";
        world.client(b"\x0a\0\0\0\x16SELECT 11");
        world.opened(HostId::Second);
        world.sent(HostId::Second);
        world.reply(HostId::Second, &prepared(7));
        world.client(execute);
        assert_eq!(world.sent(HostId::Second)[5..9], [7, 0, 0, 0]);
        world.reply(HostId::Second, OK);
        world.query("BEGIN");
        world.opened(HostId::First);
        world.sent(HostId::First);
        world.reply(HostId::First, OK_IN_TRANSACTION);
        world.client(execute);
        assert!(world.sent(HostId::First).ends_with(b"\x16SELECT 11"));
        world.told();
        world.reply(HostId::First, &prepared(9));
        assert_eq!(world.told(), b"", "the client knows nothing of it");
        assert_eq!(world.sent(HostId::First)[5..9], [9, 0, 0, 0]);
        world.reply(HostId::First, OK);
        assert_eq!(world.told(), OK);
        world.client(b"\x05\0\0\0\x1a\x02\0\0\0");
        assert!(world.told().windows(3).any(|it| it == b"\xff\xdb\x04"), "1243");
    }

    /// Random commands, replies, losses, routes and times: whatever happens, a write is sent at
    /// most once, and only to the host that is the source at that moment.
    #[test]
    fn a_write_is_sent_once_and_only_to_the_source() {
        let mut total = 0;
        for seed in 1..3000 {
            let mut rng = Rng::new(seed);
            let mut world = World::new();
            let mut written = Vec::new();
            for step in 0..60 {
                world.step(&mut rng, step);
                for host in HostId::ALL {
                    let sent = world.sent(host);
                    for at in 0..sent.len().saturating_sub(10) {
                        if sent[at..].starts_with(b"DELETE ") {
                            let number = sent[at + 7..at + 10].to_vec();
                            assert_eq!(world.routes.source, Some(host), "seed {seed}");
                            assert!(!written.contains(&number), "seed {seed}: sent twice");
                            written.push(number);
                        }
                    }
                }
                if world.session.is_closed() {
                    break;
                }
            }
            total += written.len();
        }
        assert!(total > 2000, "only {total} writes were tried");
    }

    #[test]
    fn an_idle_session_is_small() {
        let size = size_of::<Session>();
        assert!(size <= 1024, "{size} bytes; facts/sql.md 4 allows 2 kB for everything");
        let mut world = World::new();
        world.query("SELECT 1");
        world.opened(HostId::Second);
        world.reply(HostId::Second, OK);
        assert!(world.session.job.is_none());
        assert_eq!(world.session.inbox.capacity(), 0, "an idle session keeps no buffer");
    }

    #[test]
    fn any_bytes_from_either_side_are_survived() {
        for seed in 1..2000 {
            let mut rng = Rng::new(seed);
            let mut world = World::new();
            if rng.below(4) == 0 {
                world.session.phase = Phase::Arrived;
                world.verb(|session, context, out| {
                    session.greet(context, &Facts::unknown(), 1, out)
                });
            }
            for step in 0..30 {
                world.step(&mut rng, step);
                let length = rng.below(20);
                let mut bytes: Vec<u8> =
                    (0..length).map(|_| u8::try_from(rng.below(256)).unwrap()).collect();
                if rng.below(2) == 0 && bytes.len() > 4 {
                    let length = u8::try_from(bytes.len() - 4).unwrap();
                    bytes[..4].copy_from_slice(&[length, 0, 0, 0]);
                    bytes[4] %= 0x20;
                }
                match rng.below(3) {
                    0 if world.session.wants_client() => world.client(&bytes),
                    1 => world.reply(HostId::First, &bytes),
                    _ => world.reply(HostId::Second, &bytes),
                }
            }
        }
    }

    /// A session that is logged in, and what surrounds it.
    struct World {
        session: Session,
        now: Instant,
        config: Config,
        users: Users,
        routes: Routes,
        held_since: Option<Instant>,
        reached: Instant,
        out: Outbox,
    }

    impl World {
        fn new() -> Self {
            let now = Instant::ZERO + Duration::from_secs(100);
            let user = User { name: "app".into(), password: Secret::Text(String::new()) };
            let mut session = Session::new(now, "peer".into());
            session.phase = Phase::Idle;
            let users = Users::new(&[user]);
            session.guest.user = users.first();
            Self {
                session,
                now,
                config: Config::default(),
                users,
                routes: Routes {
                    version: 1,
                    source: Some(HostId::First),
                    is_replica_fit: [true; 2],
                    writes: Flow::Flowing,
                    is_host_alive: [true; 2],
                    is_php_draining: [false; 2],
                    web: WebIntake::Serving,
                },
                held_since: None,
                reached: Instant::ZERO,
                out: Outbox::default(),
            }
        }

        fn verb(&mut self, verb: impl FnOnce(&mut Session, &Context<'_>, &mut Outbox)) {
            let context = Context {
                now: self.now,
                config: &self.config,
                users: &self.users,
                routes: &self.routes,
                held_since: self.held_since,
                avoid_until: [Instant::ZERO; 2],
                reached: self.reached,
                salt: [1; 20],
            };
            verb(&mut self.session, &context, &mut self.out);
        }

        fn client(&mut self, bytes: &[u8]) {
            self.verb(|session, context, out| session.client_sent(context, bytes, out));
        }

        fn query(&mut self, text: &str) {
            let mut bytes = Vec::new();
            packet::command(&mut bytes, code::QUERY, text.as_bytes());
            self.client(&bytes);
        }

        fn opened(&mut self, host: HostId) {
            let database = self.session.database().cloned();
            self.verb(|session, context, out| session.opened(context, host, database, out));
        }

        fn reply(&mut self, host: HostId, bytes: &[u8]) {
            self.verb(|session, context, out| session.server_sent(context, host, bytes, out));
        }

        fn lost(&mut self, host: HostId) {
            self.verb(|session, context, out| session.lost(context, host, out));
        }

        fn route(&mut self, source: Option<HostId>, writes: Flow) {
            self.routes.source = source;
            self.routes.writes = writes;
            self.held_since = match writes {
                Flow::Flowing => None,
                Flow::Held { .. } => self.held_since.or(Some(self.now)),
            };
            self.verb(Session::rerouted);
        }

        fn deadline(&mut self) -> Option<Instant> {
            let mut found = None;
            self.verb(|session, context, _| found = session.deadline(context));
            found
        }

        fn acts(&mut self) -> Vec<Act> {
            std::mem::take(&mut self.out.acts)
        }

        fn sent(&mut self, host: HostId) -> Vec<u8> {
            std::mem::take(&mut self.out.servers[host.index()])
        }

        fn told(&mut self) -> Vec<u8> {
            std::mem::take(&mut self.out.client)
        }

        fn step(&mut self, rng: &mut Rng, step: u32) {
            let host = HostId::ALL[usize::from(rng.below(2) == 0)];
            match rng.below(12) {
                0 | 1 => self.query(&format!("DELETE {step:03} FROM t")),
                2 => self.query("SELECT 1"),
                3 => self.query(
                    ["BEGIN", "COMMIT", "SET @a = 1", "USE b"][usize::try_from(step % 4).unwrap()],
                ),
                4..=6 => {
                    for act in self.acts() {
                        match act {
                            Act::Open(host) if rng.below(4) > 0 => self.opened(host),
                            Act::Open(host) => self.verb(|session, context, out| {
                                session.refused(context, host, None, out);
                            }),
                            Act::Drop(_)
                            | Act::Release(..)
                            | Act::Kill(_)
                            | Act::Secure(_)
                            | Act::CloseClient => {}
                        }
                    }
                }
                7 | 8 => {
                    let replies: [&[u8]; 4] =
                        [OK, OK_IN_TRANSACTION, READ_ONLY, b"\x01\0\0\x01\x01"];
                    if self.session.is_open(host) {
                        self.reply(host, replies[usize::try_from(rng.below(4)).unwrap()]);
                    }
                }
                9 if self.session.is_open(host) && rng.below(3) == 0 => self.lost(host),
                10 if rng.below(3) == 0 => {
                    let source = [None, Some(HostId::First), Some(HostId::Second)];
                    let source = source[usize::try_from(rng.below(3)).unwrap()];
                    let open_limit = Duration::from_secs(rng.below(2));
                    let is_held = rng.below(3) == 0;
                    let writes = if is_held { Flow::Held { open_limit } } else { Flow::Flowing };
                    self.route(source, writes);
                }
                _ => {
                    self.now = self.now + Duration::from_millis(rng.below(4000));
                    self.verb(Session::expire);
                }
            }
        }
    }
}
