//! Serve web: the hands of the web front, which give its machines sockets, files and time.
//!
//! In: ready descriptors, deadlines, `Routes`. Out: HTTP answers, `web::Status`.
//! Must not: decide what a request means (that is `web`). Read first: `web::session`; `plane`.
//!
//! One slot of the slab is one client's connection with its upstream socket and its files. Events
//! only set flags; `pump` then does what the flags and the session allow, within a budget.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::net::Shutdown;

use crate::console::note::Note;
use crate::limits;
use crate::os::notes;
use crate::routes::{Routes, WebIntake};
use crate::time::{Instant, earliest};
use crate::web::limit::{Connections, Requests};
use crate::web::log::Entry;
use crate::web::lookup::Found;
use crate::web::place::Place;
use crate::web::reply::Stamp;
use crate::web::session::{Context, Input, Output};
use crate::web::upstream::{Hosts, Ticket, Upstream};
use crate::web::{self, Config};
use crate::wire::HostId;

use super::plane::{Key, Plane, Ready, Service, Turn};

mod cache;
mod connection;
mod intake;
mod journal;
mod legs;
mod listen;
mod peers;
mod ping;
mod records;
mod root;
mod secure;
mod settings;
mod unread;

use connection::{Connection, Moved};
use journal::Journal;
use legs::Legs;
use listen::{Listener, Speech};
use ping::Ping;
use root::Source;
use secure::Security;
use settings::Settings;

pub use settings::check_files;

/// Where the front listens and where PHP is.
#[derive(Debug, Clone)]
pub struct Site {
    pub me: HostId,
    /// Each address, and whether it is a virtual one, which may move to the other host.
    pub listen: Vec<(SocketAddr, bool)>,
    /// The same for clients in TLS; of no effect without a certificate.
    pub listen_ssl: Vec<(SocketAddr, bool)>,
    /// The FastCGI port, and the pair's addresses on the inside link, which may use it.
    pub fastcgi: Vec<Place>,
    pub inside: [IpAddr; 2],
    pub php: [SocketAddr; 2],
    /// php-fpm's pm.status_listen, where it is configured.
    pub php_status: [Option<SocketAddr>; 2],
    /// Host names, for the log and the status.
    pub server_names: [String; 2],
}

/// The web front of this host.
#[derive(Debug)]
pub struct ServeWeb {
    settings: Rc<Settings>,
    site: Site,
    listeners: Vec<Listener>,
    security: Option<Security>,
    /// Handshakes that this turn has room for.
    handshakes_left: usize,
    /// Room for records, empty between connections.
    sealed: Vec<u8>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
    upstream: Upstream,
    legs: Legs,
    clients: Connections,
    rates: Requests,
    probes: [Option<Ping>; 2],
    pools: [Option<Ping>; 2],
    probe_generation: u16,
    timers: BTreeSet<(Instant, u32)>,
    runnable: VecDeque<u32>,
    journal: Journal,
    stamp: Stamp,
    stamp_at: Instant,
    is_draining: bool,
    accept_paused_until: Option<Instant>,
    requests: u64,
    by_class: [u64; 5],
}

#[derive(Debug, Default)]
struct Slot {
    generation: u16,
    connection: Option<Box<Connection>>,
    armed: Option<Instant>,
}

const SIDE_CLIENT: u8 = 0;
const SIDE_LISTENER: u8 = 1;
const SIDE_PROBE: u8 = 2;
const SIDE_POOL: u8 = 3;
/// Its slot is a leg's number, not a connection's.
const SIDE_UPSTREAM: u8 = 4;

/// What a request costs of the budget of a turn, beside its bytes.
const REQUEST_COST_BYTES: usize = 8 * 1024;

impl ServeWeb {
    pub fn new(config: &Config, site: Site, plane: &Plane) -> io::Result<Self> {
        let security = Security::load(config).map_err(io::Error::other)?;
        let mut listeners = Vec::with_capacity(site.listen.len() * 2 + site.fastcgi.len());
        let plain = site.listen.iter().map(|it| (it, Speech::Http));
        let ssl = site.listen_ssl.iter().filter(|_| security.is_some());
        let ssl = ssl.map(|it| (it, Speech::Https));
        let front = plain
            .chain(ssl)
            .map(|(&(address, is_virtual), speech)| Listener::new(address, is_virtual, speech));
        let port = site.fastcgi.iter().map(|place| Listener::of_port(place, &config.fastcgi_group));
        for listener in front.chain(port) {
            let listener = listener?;
            let slot = u32::try_from(listeners.len()).map_err(io::Error::other)?;
            plane.register(listener.socket(), key(SIDE_LISTENER, slot, 0))?;
            listeners.push(listener);
        }
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        let unix_seconds = unix_seconds();
        let seed = unix_seconds ^ (u64::from(std::process::id()) << 32);
        let hosts = Hosts { me: site.me, names: &site.server_names };
        let upstream = Upstream::new(config, &hosts, Instant::ZERO, seed);
        Ok(Self {
            settings: Settings::new(config).map_err(invalid)?,
            journal: Journal::new(config.access_log.clone()),
            site,
            listeners,
            security,
            handshakes_left: limits::WEB_HANDSHAKES_PER_TURN,
            sealed: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            upstream,
            clients: Connections::new(config.connections_max_per_client),
            rates: Requests::new(config.limit_req, config.limit_req_burst),
            legs: Legs::default(),
            probes: [None, None],
            pools: [None, None],
            probe_generation: 0,
            timers: BTreeSet::new(),
            runnable: VecDeque::new(),
            stamp: Stamp::new(unix_seconds),
            stamp_at: Instant::ZERO,
            is_draining: false,
            accept_paused_until: None,
            requests: 0,
            by_class: [0; 5],
        })
    }

    /// The addresses that are listened on, with the ports that the kernel chose: those of HTTP, of
    /// HTTPS, of FastCGI.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    pub fn set_routes(&mut self, turn: &mut Turn<'_>, routes: &Routes) {
        self.stamp(turn.now);
        self.upstream.set_alive(turn.now, routes.is_host_alive);
        self.upstream.set_draining(routes.is_php_draining);
        let is_draining = routes.web == WebIntake::Draining;
        if is_draining != self.is_draining {
            self.is_draining = is_draining;
            for listener in self.listeners.iter().filter(|listener| listener.is_virtual) {
                let done = if is_draining { listener.drop_new() } else { listener.take_new() };
                if let Err(error) = done {
                    let what = format!("listener {}: filter: {error}", listener.address);
                    notes::tell(&Note::Front { what });
                }
            }
            if is_draining {
                self.drain(turn);
            }
        }
        self.settle(turn);
    }

    pub fn ready(&mut self, turn: &mut Turn<'_>, ready: Ready) {
        self.stamp(turn.now);
        let Key { side, slot, generation, .. } = ready.key;
        match side {
            SIDE_LISTENER => {
                if let Some(listener) = self.listener_mut(slot) {
                    listener.is_readable = true;
                }
                self.accept(turn, slot);
            }
            SIDE_PROBE => self.probe_ready(turn, slot, generation, ready),
            SIDE_POOL => self.pool_ready(turn, slot, generation, ready),
            SIDE_UPSTREAM => self.leg_ready(turn, slot, ready),
            _ => {
                let Some(slot_entry) = self.slot_mut(slot) else { return };
                if slot_entry.generation != generation {
                    return;
                }
                let Some(connection) = &mut slot_entry.connection else { return };
                connection.client.note(ready);
                self.pump(turn, slot);
            }
        }
        self.settle(turn);
    }

    /// Acts on every deadline up to `turn.now`.
    pub fn expire(&mut self, turn: &mut Turn<'_>) {
        self.stamp(turn.now);
        while let Some(&(at, slot)) = self.timers.first() {
            if at > turn.now {
                break;
            }
            self.timers.pop_first();
            let Some(entry) = self.slot_mut(slot) else { continue };
            entry.armed = None;
            self.feed(turn.now, slot, Input::Expired);
            self.pump(turn, slot);
        }
        self.upstream.expire(turn.now);
        self.journal.expire(turn.now);
        if let Some(security) = &mut self.security {
            security.expire(turn.now);
        }
        if self.accept_paused_until.is_some_and(|until| until <= turn.now) {
            self.accept_paused_until = None;
            self.accept_all(turn);
        }
        self.settle(turn);
    }

    /// Continues sessions that stopped for their budget. True: more remain.
    pub fn resume(&mut self, turn: &mut Turn<'_>) -> bool {
        self.stamp(turn.now);
        self.handshakes_left = limits::WEB_HANDSHAKES_PER_TURN;
        self.accept_all(turn);
        for _ in 0..self.runnable.len() {
            let Some(slot) = self.runnable.pop_front() else { break };
            if let Some(Slot { connection: Some(connection), .. }) = self.slot_mut(slot) {
                connection.is_runnable = false;
                self.pump(turn, slot);
            }
        }
        self.settle(turn);
        let is_accepting = self.accept_paused_until.is_none()
            && self.listeners.iter().any(|listener| listener.is_readable);
        !self.runnable.is_empty() || is_accepting
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let sessions = self.timers.first().map(|&(at, _)| at);
        let rest = earliest(self.upstream.deadline(), self.journal.deadline());
        let certificates = self.security.as_ref().map(Security::deadline);
        earliest(earliest(sessions, rest), earliest(certificates, self.accept_paused_until))
    }

    /// This host's php-fpm does not answer pings.
    #[must_use]
    pub const fn is_php_down(&self) -> bool {
        self.upstream.is_down(self.site.me)
    }

    #[must_use]
    pub fn status(&self) -> web::Status {
        let peers = HostId::ALL.map(|host| web::PeerStatus {
            name: self.site.server_names[host.index()].clone(),
            ..self.upstream.peer_status(host)
        });
        web::Status {
            requests: self.requests,
            by_class: self.by_class,
            in_flight: peers.iter().map(|peer| peer.in_flight).sum(),
            queued: self.upstream.queued(),
            connections: self.open,
            peers,
        }
    }

    /// Requests since the start.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Does what can be done for one connection within its budget.
    fn pump(&mut self, turn: &mut Turn<'_>, slot: u32) {
        let Some(mut connection) = self.slot_mut(slot).and_then(|entry| entry.connection.take())
        else {
            return;
        };
        let mut budget = limits::WEB_SESSION_BYTES_PER_TURN;
        let mut sealed = std::mem::take(&mut self.sealed);
        let is_open = loop {
            if !self.perform(turn, slot, &mut connection, &mut budget) {
                break false;
            }
            if connection.is_shaking_hands() {
                match self.handshakes_left.checked_sub(1) {
                    Some(left) => self.handshakes_left = left,
                    None => budget = 0,
                }
            }
            if budget == 0 {
                if !connection.is_runnable {
                    connection.is_runnable = true;
                    self.runnable.push_back(slot);
                }
                break true;
            }
            let settings = Rc::clone(&connection.settings);
            let cx = self.context(&settings, turn.now, connection.is_virtual);
            let host = connection.leg.as_ref().map(|leg| leg.host);
            match connection.advance(cx, turn.buffer, &mut sealed) {
                Moved::Nothing => {
                    if !self.perform(turn, slot, &mut connection, &mut budget) {
                        break false;
                    }
                    break true;
                }
                Moved::Bytes(count) => budget = budget.saturating_sub(count),
            }
            if let (true, Some(host)) = (std::mem::take(&mut connection.is_host_heard), host) {
                let ticket = self.ticket(slot);
                self.upstream.heard(turn.now, host, ticket);
            }
            if let (Some(request), Some(host)) = (connection.reset.take(), host) {
                self.upstream.reset(turn.now, host, request);
            }
        };
        self.sealed = sealed;
        if !is_open {
            self.disconnect(&mut connection);
            if let Some(client) = connection.counted {
                self.clients.leave(client);
            }
        }
        let Some(entry) = self.slot_mut(slot) else { return };
        if is_open {
            entry.connection = Some(connection);
            self.arm(slot);
        } else {
            entry.generation = entry.generation.wrapping_add(1);
            if let Some(at) = entry.armed.take() {
                self.timers.remove(&(at, slot));
            }
            self.open -= 1;
            self.free.push(slot);
        }
    }

    /// Carries out what the session ordered. False: the connection is closed.
    fn perform(
        &mut self,
        turn: &mut Turn<'_>,
        slot: u32,
        connection: &mut Connection,
        budget: &mut usize,
    ) -> bool {
        let ticket = self.ticket(slot);
        while let Some(output) = connection.session.poll_output() {
            let answer = match output {
                Output::Look => {
                    let candidate = connection.session.candidate(&connection.settings.rules.sites);
                    let (site, path) = candidate.unwrap_or_default();
                    let (found, file) = connection
                        .settings
                        .roots
                        .borrow_mut()
                        .get_mut(site)
                        .map_or((Found::Missing, Source::Nowhere), |root| {
                            root.look(turn.now, self.stamp.unix_seconds, &path)
                        });
                    connection.file = file;
                    Some(Input::Looked(found))
                }
                Output::Spool => connection.spool().err().map(|_| Input::SpoolFailed),
                Output::Acquire { tried, is_charged } => {
                    self.acquire(turn.now, ticket, &connection.session, tried, is_charged)
                }
                Output::Count => match self.count(connection) {
                    Some(counted) => Some(counted),
                    None if self.clients.is_on() => return false,
                    // A reload took the limit away.
                    None => Some(Input::Counted { is_one_too_many: false }),
                },
                Output::LeaveQueue => {
                    self.upstream.leave(ticket);
                    None
                }
                Output::Connect(host) => self.connect(turn, ticket, connection, host),
                Output::Keep(_) => {
                    self.keep(turn.now, ticket, connection);
                    None
                }
                Output::AskRead => {
                    let is_left = !Self::is_read(connection) && self.upstream.charge();
                    Some(Input::FoundRead(!is_left))
                }
                Output::Release(host, evidence) => {
                    self.disconnect(connection);
                    self.upstream.release(host, ticket);
                    if let Some(evidence) = evidence {
                        self.upstream.connect_failed(host, evidence);
                    }
                    None
                }
                Output::Finished => {
                    *budget = budget.saturating_sub(REQUEST_COST_BYTES);
                    connection.forget_request();
                    connection.settings = Rc::clone(&self.settings);
                    if let Some(entry) = connection.session.take_finished() {
                        self.finished(turn.now, &entry);
                    }
                    None
                }
                Output::Shutdown => {
                    connection.say_goodbye();
                    // It fails only where the client is gone, which its own event tells.
                    let _gone =
                        rustix::net::shutdown(&connection.client.descriptor, Shutdown::Write);
                    None
                }
                Output::Close => {
                    connection.say_goodbye();
                    return false;
                }
            };
            if let Some(input) = answer {
                let settings = Rc::clone(&connection.settings);
                let cx = self.context(&settings, turn.now, connection.is_virtual);
                connection.session.handle(cx, input);
            }
        }
        true
    }

    fn finished(&mut self, now: Instant, entry: &Entry) {
        self.requests += 1;
        let class = usize::from(entry.status / 100).saturating_sub(1).min(4);
        self.by_class[class] += 1;
        if self.journal.is_wanted() {
            let names = &self.site.server_names;
            entry.emit(self.journal.lines(), &self.stamp.log_date, names);
            self.journal.added(now);
        }
    }

    fn feed(&mut self, now: Instant, slot: u32, input: Input<'_>) {
        let Some(mut connection) = self.slot_mut(slot).and_then(|entry| entry.connection.take())
        else {
            return;
        };
        let settings = Rc::clone(&connection.settings);
        let cx = self.context(&settings, now, connection.is_virtual);
        connection.session.handle(cx, input);
        if let Some(entry) = self.slot_mut(slot) {
            entry.connection = Some(connection);
        }
    }

    /// A timer that fires too early is armed again, so that a deadline that moves on, as it does
    /// with every read, costs nothing.
    fn arm(&mut self, slot: u32) {
        let Some(entry) = self.slot_mut(slot) else { return };
        let wanted = entry.connection.as_ref().and_then(|connection| connection.session.deadline());
        let Some(wanted) = wanted else { return };
        if entry.armed.is_some_and(|armed| armed <= wanted) {
            return;
        }
        let before = entry.armed.replace(wanted);
        if let Some(before) = before {
            self.timers.remove(&(before, slot));
        }
        self.timers.insert((wanted, slot));
    }

    fn context<'a>(
        &'a self,
        settings: &'a Settings,
        now: Instant,
        is_virtual: bool,
    ) -> Context<'a> {
        Context {
            now,
            rules: &settings.rules,
            stamp: &self.stamp,
            is_draining: self.is_draining && is_virtual,
        }
    }

    /// Renews the wall clock's text when a quarter of a second went by.
    fn stamp(&mut self, now: Instant) {
        if now.since(self.stamp_at) < std::time::Duration::from_millis(250) {
            return;
        }
        self.stamp_at = now;
        let unix_seconds = unix_seconds();
        if unix_seconds != self.stamp.unix_seconds {
            self.stamp = Stamp::new(unix_seconds);
        }
    }

    fn ticket(&mut self, slot: u32) -> Ticket {
        Ticket { slot, generation: self.slot_mut(slot).map_or(0, |entry| entry.generation) }
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(slot).ok()?)
    }

    fn connection(&self, slot: u32) -> Option<&Connection> {
        self.slots.get(usize::try_from(slot).ok()?)?.connection.as_deref()
    }

    fn listener_mut(&mut self, slot: u32) -> Option<&mut Listener> {
        self.listeners.get_mut(usize::try_from(slot).ok()?)
    }
}

const fn key(side: u8, slot: u32, generation: u16) -> Key {
    Key { service: Service::Web, side, generation, slot }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
