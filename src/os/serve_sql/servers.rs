//! The splitter's connections to the databases: opened, logged in, leased, cleaned, pooled.
//!
//! In: readiness, requests of sessions. Out: bytes for sessions, connections for the pool.
//! Must not: keep a connection whose state is unknown. Read first: `sql::login`, `sql::pool`.

use std::io;

use socket2::{Domain, SockAddr, Socket};

use crate::limits;
use crate::os::plane::{Key, Ready, Service, Turn};
use crate::os::tls::Tls;
use crate::sql::ServerTls;
use crate::sql::admin::Standing;
use crate::sql::handshake::SALT_BYTES;
use crate::sql::login::{Login, Progress};
use crate::sql::packet::{self, ServerError};
use crate::sql::pool::{self, CLEAN_REPLIES};
use crate::sql::result::{Kind, Reply};
use crate::sql::session::{Context, Session};
use crate::sql::show::Connections;
use crate::time::Instant;
use crate::wire::HostId;

use super::clients::write;
use super::dial::dial;
use super::kills::{self, Errand};
use super::secure::{self, NO_TLS};
use super::slab::Place;
use super::{READS_PER_TURN, SIDE_SERVER, ServeSql};

/// A connection to a database.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) socket: Socket,
    pub(super) tls: Option<Box<Tls>>,
    pub(super) host: HostId,
    pub(super) key: pool::Key,
    pub(super) stage: Stage,
    /// The number that the server gave to this connection.
    pub(super) thread: u32,
    has_reset: bool,
    pub(super) outbound: Vec<u8>,
    is_unread: bool,
    /// The server will send no more than what is already there.
    is_read_closed: bool,
    pub(super) is_postponed: bool,
    pub(super) deadline: Option<Instant>,
    armed: Option<Instant>,
}

/// What a connection is opened for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// The session of a client.
    Lease(u32),
    /// To learn what the server is.
    Probe,
    /// To follow the source's position.
    Ask,
    Kill(Errand),
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Connecting and logging in.
    Opening {
        login: Box<Login>,
        purpose: Box<Purpose>,
    },
    Leased {
        client: u32,
    },
    Cleaning {
        reply: Box<Reply>,
        left: u8,
        database: Option<Vec<u8>>,
    },
    Killing {
        errand: Box<Errand>,
        reply: Box<Reply>,
        answer: Vec<u8>,
    },
    /// Asked for a position, or ready to be.
    Asking {
        reply: Option<Box<Reply>>,
        answer: Vec<u8>,
    },
    Idle,
}

impl Server {
    /// The client whose session uses this connection or waits for it.
    pub(super) const fn lessee(&self) -> Option<u32> {
        match &self.stage {
            Stage::Opening { purpose, .. } => match **purpose {
                Purpose::Lease(client) => Some(client),
                Purpose::Probe | Purpose::Ask | Purpose::Kill(_) => None,
            },
            Stage::Leased { client } => Some(*client),
            Stage::Cleaning { .. } | Stage::Killing { .. } | Stage::Asking { .. } | Stage::Idle => {
                None
            }
        }
    }

    fn errand(&self) -> Option<&Errand> {
        match &self.stage {
            Stage::Opening { purpose, .. } => match &**purpose {
                Purpose::Kill(errand) => Some(errand),
                Purpose::Lease(_) | Purpose::Probe | Purpose::Ask => None,
            },
            Stage::Killing { errand, .. } => Some(errand),
            Stage::Leased { .. } | Stage::Cleaning { .. } | Stage::Asking { .. } | Stage::Idle => {
                None
            }
        }
    }

    /// Whether an answer is owed by it, or it is not there yet.
    const fn is_busy(&self) -> bool {
        !matches!(self.stage, Stage::Asking { reply: None, .. } | Stage::Idle)
    }

    /// In the pool, or on its way there.
    pub(super) const fn is_spare(&self) -> bool {
        match &self.stage {
            Stage::Cleaning { .. } | Stage::Idle => true,
            Stage::Opening { .. }
            | Stage::Leased { .. }
            | Stage::Killing { .. }
            | Stage::Asking { .. } => false,
        }
    }

    /// Counts it by what it is doing.
    pub(super) const fn count(&self, sum: &mut Connections) {
        match &self.stage {
            Stage::Opening { .. } => sum.opening += 1,
            Stage::Leased { .. } | Stage::Killing { .. } | Stage::Asking { .. } => sum.in_use += 1,
            Stage::Cleaning { .. } => sum.cleaning += 1,
            Stage::Idle => sum.idle += 1,
        }
    }

    /// Writes; a broken connection is noticed by the read that follows.
    pub(super) fn write(&mut self, sealed: &mut Vec<u8>, bytes: &[u8]) {
        if self.send(sealed, bytes).is_err() {
            self.outbound = Vec::new();
            self.is_unread = true;
        }
    }

    pub(super) fn send(&mut self, sealed: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
        secure::send(&mut self.socket, &mut self.tls, &mut self.outbound, sealed, bytes)
    }
}

impl ServeSql {
    /// A session asks for a connection: one from the pool, or a fresh one.
    pub(super) fn lease(&mut self, turn: &mut Turn<'_>, client: u32, host: HostId) {
        let Some(lessee) = self.clients.get_mut(client) else { return };
        let guest = lessee.session.guest();
        // Who is served has proved to be somebody.
        let Some(user) = guest.user else { return };
        let key = pool::Key::new(host, user, guest.capabilities, guest.collation);
        let database = lessee.session.database().cloned();
        if let Some((slot, at)) = self.pool.take(key, database.as_deref())
            && let Some(server) = self.servers.get_mut(slot)
        {
            server.stage = Stage::Leased { client };
            server.deadline = None;
            self.status.reused += 1;
            self.uses.entry((host, user)).or_default().reused += 1;
            lessee.legs[host.index()] = Some(slot);
            let (now, salt) = (turn.now, [0; SALT_BYTES]);
            let context = context!(self, now, salt);
            if let Some(lessee) = self.clients.get_mut(client) {
                lessee.session.opened(&context, host, at, &mut self.out);
            }
            return;
        }
        match self.connect(turn, key, database, Purpose::Lease(client)) {
            Ok(slot) => {
                if let Some(lessee) = self.clients.get_mut(client) {
                    lessee.legs[host.index()] = Some(slot);
                }
            }
            Err(error) => {
                log::debug!("{}: {error}", self.site.servers[host.index()]);
                self.refuse(turn, client, host, None);
            }
        }
    }

    fn refuse(&mut self, turn: &Turn<'_>, client: u32, host: HostId, error: Option<ServerError>) {
        // A wrong database or user is this session's own trouble.
        if error.as_ref().is_none_or(|error| OF_ALL.contains(&error.code)) {
            self.avoid_until[host.index()] = turn.now + limits::SQL_AVOID;
        }
        let (now, salt) = (turn.now, [0; SALT_BYTES]);
        let context = context!(self, now, salt);
        if let Some(lessee) = self.clients.get_mut(client) {
            lessee.legs[host.index()] = None;
            lessee.session.refused(&context, host, error, &mut self.out);
        }
    }

    pub(super) fn connect(
        &mut self,
        turn: &Turn<'_>,
        key: pool::Key,
        database: Option<Vec<u8>>,
        purpose: Purpose,
    ) -> io::Result<u32> {
        let Some(user) = self.users.get(key.user) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        let mut login = Login::new(user, key.capabilities(), key.collation, database);
        let path = self.config.server_socket.as_ref().filter(|_| key.host == self.site.me);
        login.is_private = path.is_some();
        // Nobody can listen on a path.
        login.tls = if path.is_some() { ServerTls::Off } else { self.config.server_tls };
        let socket = match path {
            Some(path) => dial(Domain::UNIX, &SockAddr::unix(path)?)?,
            None => {
                let address = self.site.servers[key.host.index()];
                dial(Domain::for_address(address), &address.into())?
            }
        };
        let (slot, generation) = self.servers.next();
        let epoll = Key { service: Service::Sql, side: SIDE_SERVER, generation, slot };
        turn.plane.register(&socket, epoll)?;
        let deadline = Some(turn.now + self.config.connect_limit);
        self.servers.insert(Server {
            socket,
            tls: None,
            host: key.host,
            key,
            stage: Stage::Opening { login: Box::new(login), purpose: Box::new(purpose) },
            thread: 0,
            has_reset: false,
            outbound: Vec::new(),
            is_unread: false,
            is_read_closed: false,
            is_postponed: false,
            deadline,
            armed: None,
        });
        self.watch_server(slot);
        Ok(slot)
    }

    /// A session is done with a connection: it is reset for the next one, or closed.
    pub(super) fn clean(&mut self, turn: &mut Turn<'_>, slot: u32, database: Option<Vec<u8>>) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let mut bytes = Vec::new();
        let host = server.host;
        let is_wanted = self.routes.is_host_alive[host.index()]
            && self.standing[host.index()] == Standing::Online
            && self.users.is_present(server.key.user)
            && server.has_reset
            && server.outbound.is_empty();
        if !is_wanted
            || !server.key.clean(&mut bytes)
            || server.send(&mut self.sealed, &bytes).is_err()
        {
            self.close_server(slot);
            return;
        }
        let is_eof_deprecated = false; // Neither reply has an EOF.
        server.stage = Stage::Cleaning {
            reply: Box::new(Reply::new(Kind::Results, is_eof_deprecated)),
            left: CLEAN_REPLIES,
            database,
        };
        server.deadline = Some(turn.now + self.config.connect_limit);
        self.watch_server(slot);
    }

    pub(super) fn close_server(&mut self, slot: u32) {
        let Some(mut server) = self.servers.remove(slot) else { return };
        self.timers.disarm(Place::Server(slot), server.armed);
        match server.stage {
            Stage::Idle => self.pool.forget(server.key, slot),
            Stage::Opening { .. }
            | Stage::Leased { .. }
            | Stage::Cleaning { .. }
            | Stage::Killing { .. }
            | Stage::Asking { .. } => {}
        }
        if server.outbound.is_empty() {
            let mut quit = Vec::new();
            packet::command(&mut quit, COM_QUIT, b"");
            // Best effort, so that the server does not count an aborted client.
            let _ = server.send(&mut self.sealed, &quit);
        }
    }

    pub(super) fn server_ready(&mut self, turn: &mut Turn<'_>, slot: u32, ready: Ready) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        server.is_read_closed |= ready.is_read_closed || ready.is_hung_up;
        server.is_unread |= ready.is_readable || server.is_read_closed;
        if ready.is_writable && !server.outbound.is_empty() {
            if write(&mut server.socket, &mut server.outbound, &[]).is_err() {
                self.server_lost(turn, slot);
                return;
            }
            if server.outbound.len() <= limits::OUTBOUND_BYTES_MAX
                && let Some(client) = server.lessee()
            {
                self.postpone_client(client);
            }
        }
        self.read_server(turn, slot);
    }

    pub(super) fn postpone_server(&mut self, slot: u32) {
        if let Some(server) = self.servers.get_mut(slot)
            && server.is_unread
            && !server.is_postponed
        {
            server.is_postponed = true;
            self.postponed.push_back(Place::Server(slot));
        }
    }

    pub(super) fn read_server(&mut self, turn: &mut Turn<'_>, slot: u32) {
        for _ in 0..READS_PER_TURN {
            let Some(server) = self.servers.get_mut(slot) else { return };
            if !server.is_unread {
                return;
            }
            let is_client_full = server
                .lessee()
                .and_then(|client| self.clients.get(client))
                .is_some_and(|client| client.outbound.len() > limits::OUTBOUND_BYTES_MAX);
            if is_client_full {
                return;
            }
            let (socket, tls) = (&mut server.socket, &mut server.tls);
            let outbound = &mut server.outbound;
            let read = secure::receive(socket, tls, outbound, &mut self.sealed, turn.buffer);
            let count = match read {
                Ok(read) if read.is_end => {
                    self.server_lost(turn, slot);
                    return;
                }
                Ok(read) => {
                    if read.is_drained && !server.is_read_closed {
                        server.is_unread = false;
                    }
                    read.count
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    server.is_unread = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.server_broken(turn, slot, &error);
                    return;
                }
            };
            if count > 0 {
                self.server_sent(turn, slot, count);
            }
        }
        self.postpone_server(slot);
    }

    fn server_sent(&mut self, turn: &mut Turn<'_>, slot: u32, count: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let host = server.host;
        let bytes = turn.buffer.get(..count).unwrap_or(&[]);
        match &mut server.stage {
            Stage::Leased { client } => {
                let client = *client;
                let (now, salt) = (turn.now, [0; SALT_BYTES]);
                let context = context!(self, now, salt);
                if let Some(lessee) = self.clients.get_mut(client) {
                    lessee.session.server_sent(&context, host, bytes, &mut self.out);
                }
                self.settle(turn, client);
            }
            Stage::Opening { .. } => self.log_in(turn, slot, count),
            Stage::Cleaning { reply, left, .. } => {
                let mut used = 0;
                while used < count && *left > 0 {
                    used += reply.feed(bytes.get(used..).unwrap_or(&[]));
                    if !reply.is_done() {
                        break;
                    }
                    if reply.error.is_some() || reply.is_broken {
                        self.close_server(slot);
                        return;
                    }
                    *left -= 1;
                    **reply = Reply::new(Kind::Results, false);
                }
                if used < count {
                    self.close_server(slot);
                } else if *left == 0 {
                    self.keep(turn.now, slot);
                }
            }
            Stage::Killing { errand, reply, answer } => {
                reply.feed(bytes);
                answer.extend_from_slice(bytes);
                if reply.is_done() {
                    let errand = errand.clone();
                    let error = packet::split(answer)
                        .and_then(|(_, payload, _)| ServerError::parse(payload).ok());
                    self.close_server(slot);
                    self.finish_errand(turn, &errand, error.map_or(Ok(()), Err));
                }
            }
            Stage::Asking { .. } => self.asker_heard(turn, slot, count),
            // An idle connection has nothing to say but goodbye.
            Stage::Idle => self.close_server(slot),
        }
    }

    /// A clean connection goes into the pool.
    fn keep(&mut self, now: Instant, slot: u32) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let Stage::Cleaning { database, .. } = &mut server.stage else { return };
        let database = database.take();
        server.stage = Stage::Idle;
        server.deadline = Some(now + limits::SQL_POOL_IDLE);
        let oldest = self.pool.put(server.key, slot, database);
        self.watch_server(slot);
        if let Some(oldest) = oldest {
            self.close_server(oldest);
        }
    }

    fn log_in(&mut self, turn: &mut Turn<'_>, slot: u32, count: usize) {
        let seed = self.salt();
        self.consume_salt();
        let Some(server) = self.servers.get_mut(slot) else { return };
        let host = server.host;
        let Stage::Opening { login, purpose } = &mut server.stage else { return };
        let purpose = Purpose::clone(purpose);
        let mut bytes = Vec::new();
        let progress = login.feed(turn.buffer.get(..count).unwrap_or(&[]), seed, &mut bytes);
        let (database, facts) = (login.database.clone(), login.facts.clone());
        let thread = login.thread;
        let is_written = server.send(&mut self.sealed, &bytes).is_ok();
        let is_news = facts.is_some() && self.facts.iter().all(Option::is_none);
        if let Some(facts) = facts {
            server.has_reset = facts.has_reset();
            server.thread = thread;
            self.facts[host.index()] = Some(facts);
        }
        match progress {
            Progress::Waiting if is_written => {}
            Progress::Waiting => self.server_lost(turn, slot),
            Progress::Secured => self.secure_server(turn, slot),
            Progress::Done => {
                self.status.logins += 1;
                self.uses.entry((host, server.key.user)).or_default().opened += 1;
                self.avoid_until[host.index()] = Instant::ZERO;
                self.security.is_told[host.index()] = false;
                match purpose {
                    Purpose::Lease(client) => {
                        server.stage = Stage::Leased { client };
                        server.deadline = None;
                        self.with_session(turn, client, |session, context, out| {
                            session.opened(context, host, database, out);
                        });
                    }
                    Purpose::Probe => self.close_server(slot),
                    Purpose::Ask => {
                        server.stage = Stage::Asking { reply: None, answer: Vec::new() };
                        self.follow_writes(turn);
                    }
                    Purpose::Kill(errand) => self.send_errand(turn, slot, errand),
                }
            }
            Progress::Failed(error) => self.log_in_failed(turn, slot, error),
        }
        if is_news {
            self.greet_all(turn);
        }
    }

    /// The server does not let the splitter in, or is not to be logged in to.
    pub(super) fn log_in_failed(&mut self, turn: &mut Turn<'_>, slot: u32, error: ServerError) {
        let Some(server) = self.servers.get(slot) else { return };
        let host = server.host;
        let Stage::Opening { purpose, .. } = &server.stage else { return };
        let purpose = Purpose::clone(purpose);
        log::debug!("{}: {error}", self.site.servers[host.index()]);
        self.close_server(slot);
        self.asker_lost(turn, slot, true);
        match purpose {
            Purpose::Lease(client) => {
                self.refuse(turn, client, host, Some(error));
                self.settle(turn, client);
            }
            Purpose::Probe | Purpose::Ask => {}
            Purpose::Kill(errand) => self.finish_errand(turn, &errand, Err(error)),
        }
    }

    /// The server closed the connection, or the network did.
    pub(super) fn server_lost(&mut self, turn: &mut Turn<'_>, slot: u32) {
        let Some(server) = self.servers.get(slot) else { return };
        let host = server.host;
        let lessee = server.lessee();
        let is_opening = matches!(server.stage, Stage::Opening { .. });
        let errand = server.errand().cloned();
        let is_busy = server.is_busy();
        self.close_server(slot);
        self.asker_lost(turn, slot, is_busy);
        if let Some(errand) = errand {
            self.finish_errand(turn, &errand, Err(kills::lost()));
            return;
        }
        let Some(client) = lessee else { return };
        if is_opening {
            self.refuse(turn, client, host, None);
            self.settle(turn, client);
            return;
        }
        self.take_leg(client, host);
        self.with_session(turn, client, |session: &mut Session, context: &Context<'_>, out| {
            session.lost(context, host, out);
        });
    }

    pub(super) fn expire_server(&mut self, turn: &mut Turn<'_>, slot: u32) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        server.armed = None;
        if server.deadline.is_some_and(|at| turn.now >= at) {
            self.server_lost(turn, slot);
        } else {
            self.watch_server(slot);
        }
    }

    pub(super) fn watch_server(&mut self, slot: u32) {
        if let Some(server) = self.servers.get_mut(slot) {
            self.timers.arm(Place::Server(slot), &mut server.armed, server.deadline);
        }
    }

    /// Whether it is unknown what this server is.
    pub(super) fn needs_probe(&self, host: HostId) -> bool {
        self.facts[host.index()].is_none()
            && self.routes.is_host_alive[host.index()]
            && self.users.first().is_some()
    }

    /// Logs in to servers that were never seen, to learn what they are.
    pub(super) fn probe(&mut self, turn: &mut Turn<'_>) {
        let Some(user) = self.users.first() else { return };
        for host in HostId::ALL {
            if self.needs_probe(host) && turn.now >= self.probe_at[host.index()] {
                self.probe_at[host.index()] =
                    turn.now + limits::SQL_AVOID.max(self.config.connect_limit);
                let key = pool::Key::new(host, user, 0, PROBE_COLLATION);
                if let Err(error) = self.connect(turn, key, None, Purpose::Probe) {
                    log::debug!("{}: {error}", self.site.servers[host.index()]);
                }
            }
        }
    }
}

const COM_QUIT: u8 = 1;

/// What the next session would be told too: too many connections; server shutdown in progress; too
/// many of this user's connections; no TLS with it.
const OF_ALL: [u16; 4] = [1040, 1053, 1203, NO_TLS];

/// utf8mb4_general_ci, which every server since 5.5.3 has.
pub(super) const PROBE_COLLATION: u8 = 45;
