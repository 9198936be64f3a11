//! The hands of the SQL splitter: its listeners, its clients' sockets, and what sessions ask for.
//!
//! In: readiness, routes, time. Out: bytes moved between clients and servers. Must not: decide
//! where a statement goes (that is `sql::session`).
//! Read first: `plane` for the edge-triggered rule; `sql::session` for the life of a session.

/// The world as a session is told of it. A macro, so that only the fields it names are borrowed.
macro_rules! context {
    ($self:ident, $now:ident, $salt:ident) => {
        crate::sql::session::Context {
            now: $now,
            config: &$self.config,
            users: &$self.users,
            routes: &$self.routes,
            held_since: $self.held_since,
            avoid_until: $self.avoid_until,
            reached: $self.own_writes.reached(),
            salt: $salt,
        }
    };
}

mod clients;
mod desks;
mod dial;
mod journal;
mod kills;
mod listen;
mod own_writes;
mod save;
mod secure;
mod servers;
mod slab;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::Socket;

use crate::limits;
use crate::os::plane::{Key, Plane, Ready, Service, Turn};
use crate::routes::{Flow, Routes};
use crate::sql;
use crate::sql::admin::Standing;
use crate::sql::digest::Digests;
use crate::sql::gate;
use crate::sql::handshake::{self, Facts, SALT_BYTES, Salt};
use crate::sql::login;
use crate::sql::own_writes::OwnWrites;
use crate::sql::packet::ServerError;
use crate::sql::pool::Pool;
use crate::sql::session::{Outbox, Session};
use crate::sql::show::Connections;
use crate::sql::users::{UserId, Users};
use crate::time::Instant;
use crate::wire::HostId;

pub use save::Source;

use clients::Client;
use desks::Visitor;
use listen::Port;
use save::Saving;
use secure::Security;
use servers::Server;
use slab::{Place, Slab, Timers};

pub use secure::check_files;

/// Where the splitter stands in the pair.
#[derive(Debug, Clone)]
pub struct Site {
    pub me: HostId,
    /// The database of each host.
    pub servers: [SocketAddr; 2],
    /// Where SAVE CONFIG writes.
    pub source: Option<Source>,
}

pub struct ServeSql {
    config: sql::Config,
    /// Those of the configuration, and what the admin port made of them.
    users: Users,
    site: Site,
    /// The control plane's word, and what is left of it under the operator's mask.
    given: Routes,
    routes: Routes,
    standing: [Standing; 2],
    held_since: Option<Instant>,
    listeners: Vec<(Socket, Port)>,
    clients: Slab<Client>,
    desks: Slab<Visitor>,
    servers: Slab<Server>,
    pool: Pool,
    /// What each server said of itself when it was last logged in to.
    facts: [Option<Facts>; 2],
    probe_at: [Instant; 2],
    avoid_until: [Instant; 2],
    own_writes: OwnWrites,
    /// By host: the connection by which `own_writes` asks.
    askers: [Option<u32>; 2],
    timers: Timers,
    /// Sockets that were left before EAGAIN.
    postponed: VecDeque<Place>,
    accept_at: Option<Instant>,
    threads: u32,
    random: Vec<u8>,
    security: Security,
    /// Records on their way to a socket; between two calls their bytes mean nothing.
    sealed: Vec<u8>,
    out: Outbox,
    status: sql::Status,
    digests: Option<Digests>,
    /// Connections opened and reused, by host and user.
    uses: BTreeMap<(HostId, UserId), Connections>,
    saving: Option<Saving>,
    saved_digest: Option<[u8; 8]>,
    started_at: Option<Instant>,
}

impl fmt::Debug for ServeSql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServeSql({:?})", self.status())
    }
}

impl ServeSql {
    /// Reads the certificates and binds the listeners.
    pub fn new(config: &sql::Config, site: Site, plane: &Plane) -> io::Result<Self> {
        let security = Security::load(config)?;
        let listeners = listen::bind(config)?;
        for (slot, (listener, _)) in (0u32..).zip(&listeners) {
            let key = Key { service: Service::Sql, side: SIDE_LISTENER, generation: 0, slot };
            plane.register(listener, key)?;
        }
        Ok(Self {
            config: config.clone(),
            users: Users::new(&config.users),
            site,
            given: Routes::unknown(),
            routes: Routes::unknown(),
            standing: [Standing::Online; 2],
            held_since: None,
            listeners,
            clients: Slab::new(),
            desks: Slab::new(),
            servers: Slab::new(),
            pool: Pool::default(),
            facts: [None, None],
            probe_at: [Instant::ZERO; 2],
            avoid_until: [Instant::ZERO; 2],
            own_writes: OwnWrites::default(),
            askers: [None; 2],
            timers: Timers::default(),
            postponed: VecDeque::new(),
            accept_at: None,
            threads: 0,
            random: Vec::new(),
            security,
            sealed: Vec::new(),
            out: Outbox::default(),
            status: sql::Status::default(),
            digests: config.digests.then(Digests::default),
            uses: BTreeMap::new(),
            saving: None,
            saved_digest: None,
            started_at: None,
        })
    }

    /// The addresses that clients connect to; the admin port's after them.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let mut addresses = Vec::new();
        for (listener, _) in &self.listeners {
            addresses.extend(listener.local_addr()?.as_socket());
        }
        Ok(addresses)
    }

    /// The control plane's word on who is what.
    pub fn set_routes(&mut self, turn: &mut Turn<'_>, routes: &Routes) {
        self.started_at.get_or_insert(turn.now);
        self.given = routes.clone();
        let masked = self.masked(routes);
        let old = std::mem::replace(&mut self.routes, masked);
        let routes = self.routes.clone();
        self.held_since = match routes.writes {
            Flow::Flowing => None,
            Flow::Held { .. } => self.held_since.or(Some(turn.now)),
        };
        for slot in self.servers.slots() {
            let Some(server) = self.servers.get(slot) else { continue };
            let host = server.host;
            let has_new_role = routes.source.is_some()
                && (old.source == Some(host)) != (routes.source == Some(host));
            let is_gone = !routes.is_host_alive[host.index()];
            let is_out = self.standing[host.index()] != Standing::Online;
            if server.is_spare() && (has_new_role || is_gone || is_out) {
                self.close_server(slot);
            }
        }
        if self.own_writes.set_roles(routes.source, routes.read_target()) {
            self.dismiss_askers();
        }
        for slot in self.clients.slots() {
            self.with_session(turn, slot, Session::rerouted);
            for host in HostId::ALL {
                if self.standing[host.index()] != Standing::Online {
                    self.with_session(turn, slot, |session, _, out| session.retire(host, out));
                }
            }
        }
        self.probe(turn);
    }

    /// One of the service's sockets has an event.
    pub fn ready(&mut self, turn: &mut Turn<'_>, ready: Ready) {
        let Key { side, slot, generation, .. } = ready.key;
        match side {
            SIDE_LISTENER => self.accept(turn, slot),
            SIDE_CLIENT if self.clients.is_current(slot, generation) => {
                self.client_ready(turn, slot, ready);
            }
            SIDE_DESK if self.desks.is_current(slot, generation) => {
                self.desk_ready(turn, slot, ready);
            }
            SIDE_SERVER if self.servers.is_current(slot, generation) => {
                self.server_ready(turn, slot, ready);
            }
            SIDE_SAVE => self.saved(turn),
            _ => {}
        }
    }

    /// Deadlines have passed.
    pub fn expire(&mut self, turn: &mut Turn<'_>) {
        if self.accept_at.is_some_and(|at| turn.now >= at) {
            self.accept_at = None;
            for slot in (0u32..).take(self.listeners.len()) {
                self.accept(turn, slot);
            }
        }
        self.security.expire(turn.now, &self.config);
        self.probe(turn);
        self.follow_writes(turn);
        while let Some(place) = self.timers.pop(turn.now) {
            match place {
                Place::Client(slot) => self.expire_client(turn, slot),
                Place::Server(slot) => self.expire_server(turn, slot),
                Place::Desk(slot) => self.expire_desk(turn, slot),
                Place::Listener(_) => {}
            }
        }
    }

    /// Goes on with sockets that were left before EAGAIN. Returns whether there are more.
    pub fn resume(&mut self, turn: &mut Turn<'_>) -> bool {
        for _ in 0..self.postponed.len() {
            match self.postponed.pop_front() {
                Some(Place::Client(slot)) => {
                    if let Some(client) = self.clients.get_mut(slot) {
                        client.is_postponed = false;
                        self.read_client(turn, slot);
                    }
                }
                Some(Place::Server(slot)) => {
                    if let Some(server) = self.servers.get_mut(slot) {
                        server.is_postponed = false;
                        self.read_server(turn, slot);
                    }
                }
                Some(Place::Listener(slot)) => self.accept(turn, slot),
                Some(Place::Desk(slot)) => self.read_desk(turn, slot),
                None => break,
            }
        }
        self.follow_writes(turn);
        !self.postponed.is_empty()
    }

    /// When `expire` or `resume` has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if !self.postponed.is_empty() {
            return Some(Instant::ZERO);
        }
        let probe = HostId::ALL
            .into_iter()
            .filter(|&host| self.needs_probe(host))
            .map(|host| self.probe_at[host.index()])
            .min();
        let (own_writes, certificate) = (self.own_writes.deadline(), self.security.deadline());
        let timers = [self.timers.first(), self.accept_at, probe, own_writes, certificate];
        timers.into_iter().flatten().min()
    }

    /// No open transaction and no statement in flight on a source, on any session.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self.clients.iter().any(|client| client.session.is_busy_on_source())
    }

    #[must_use]
    pub fn status(&self) -> sql::Status {
        sql::Status {
            sessions: self.clients.iter().filter(|it| !it.session.is_closed()).count(),
            held: self.clients.iter().filter(|it| it.session.is_held()).count(),
            pooled: self.pool.len(),
            ..self.status
        }
    }

    /// Statements since the start.
    #[must_use]
    pub const fn statements(&self) -> u64 {
        self.status.queries_to_source + self.status.queries_to_replica
    }

    fn accept(&mut self, turn: &mut Turn<'_>, slot: u32) {
        for _ in 0..ACCEPTS_PER_TURN {
            let at = usize::try_from(slot).unwrap_or(usize::MAX);
            let Some((listener, port)) = self.listeners.get(at) else { return };
            match acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((socket, peer)) => {
                    let (socket, port) = (Socket::from(socket), *port);
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    let peer = peer.map(|peer| peer.ip());
                    match port {
                        Port::Client => self.admit(turn, socket, peer),
                        Port::Admin => self.admit_desk(turn, socket, peer),
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    // Out of descriptors or memory: later, not at once.
                    log::debug!("accept: {error}");
                    self.accept_at = Some(turn.now + limits::SQL_RECONNECT);
                    return;
                }
            }
        }
        self.postponed.push_back(Place::Listener(slot));
    }

    fn admit(&mut self, turn: &mut Turn<'_>, mut socket: Socket, peer: Option<IpAddr>) {
        let name = peer.map_or_else(|| "localhost".to_owned(), |peer| peer.to_string());
        let is_allowed = peer.is_none_or(|peer| gate::is_allowed(&self.config.clients, peer));
        let refusal = if !is_allowed {
            let text = format!("Host '{name}' is not allowed to connect to this server");
            Some(ServerError::new(1130, b"HY000", text))
        } else if self.clients.len() >= self.config.sessions_max {
            Some(ServerError::new(1040, b"08004", "Too many connections"))
        } else {
            None
        };
        if let Some(error) = refusal {
            let mut bytes = Vec::new();
            error.emit(&mut bytes, 0);
            let _ = socket.write(&bytes);
            self.status.refused += 1;
            return;
        }
        let (slot, generation) = self.clients.next();
        let key = Key { service: Service::Sql, side: SIDE_CLIENT, generation, slot };
        if turn.plane.register(&socket, key).is_err() {
            return;
        }
        self.threads = self.threads.wrapping_add(1);
        let mut session = Session::new(turn.now, name);
        session.tls = match peer {
            Some(_) => self.security.offer(&self.config),
            // Nobody can listen.
            None => login::Tls::Off,
        };
        self.clients.insert(Client {
            socket,
            tls: None,
            session,
            legs: [None, None],
            outbound: Vec::new(),
            is_unread: false,
            is_postponed: false,
            is_read_closed: false,
            close_by: None,
            armed: None,
            thread: self.threads,
        });
        if self.facts.iter().any(Option::is_some) {
            self.greet(turn, slot);
        } else {
            self.settle(turn, slot);
        }
    }

    /// What clients are told of the servers: the source's word, no more than both can do.
    fn greet(&mut self, turn: &mut Turn<'_>, slot: u32) {
        let source = self.routes.source.and_then(|host| self.facts[host.index()].as_ref());
        let mut facts = source
            .or_else(|| self.facts.iter().flatten().next())
            .cloned()
            .unwrap_or_else(Facts::unknown);
        for other in self.facts.iter().flatten() {
            facts.capabilities &= other.capabilities;
        }
        if !self.config.local_infile {
            facts.capabilities &= !handshake::capability::LOCAL_FILES;
        }
        let thread = self.clients.get(slot).map_or(0, |client| client.thread);
        self.with_session(turn, slot, |session, context, out| {
            session.greet(context, &facts, thread, out);
        });
        self.consume_salt();
    }

    fn greet_all(&mut self, turn: &mut Turn<'_>) {
        for slot in self.clients.slots() {
            if self.clients.get(slot).is_some_and(|client| client.session.is_arrived()) {
                self.greet(turn, slot);
            }
        }
    }

    /// Random bytes for whoever needs some next; `consume_salt` makes them used.
    fn salt(&mut self) -> Salt {
        if self.random.len() < SALT_BYTES {
            self.random.resize(SALT_BYTES * SALTS_DRAWN, 0);
            if let Err(error) = getrandom::fill(&mut self.random) {
                panic!("the kernel has no random bytes, so nobody can be authenticated: {error}");
            }
        }
        let mut salt = [0; SALT_BYTES];
        for (place, byte) in salt.iter_mut().zip(&self.random) {
            *place = *byte;
        }
        handshake::salt(salt)
    }

    fn consume_salt(&mut self) {
        self.random.drain(..SALT_BYTES.min(self.random.len()));
    }
}

const SIDE_LISTENER: u8 = 0;
const SIDE_CLIENT: u8 = 1;
const SIDE_SERVER: u8 = 2;
const SIDE_DESK: u8 = 3;
const SIDE_SAVE: u8 = 4;

/// Reads from one socket before the others get their turn.
const READS_PER_TURN: usize = 16;
const ACCEPTS_PER_TURN: usize = 64;

/// Salts drawn from the kernel with one call.
const SALTS_DRAWN: usize = 64;
