//! Serve web: the hands of the web front, which give its machines sockets, files and time.
//!
//! In: ready descriptors, deadlines, `Routes`. Out: HTTP answers, `web::Status`.
//! Must not: decide what a request means (that is `web`). Read first: `web::session`; `plane`.
//!
//! One slot of the slab is one client's connection with its upstream socket and its files. Events
//! only set flags; `pump` then does what the flags and the session allow, within a budget.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::net::Shutdown;

use crate::limits;
use crate::routes::{Routes, WebIntake};
use crate::time::{Instant, earliest};
use crate::web::balance::Want;
use crate::web::limit::{Connections, Requests};
use crate::web::log::Entry;
use crate::web::lookup::Found;
use crate::web::reply::Stamp;
use crate::web::session::{Context, Input, Output, Session};
use crate::web::upstream::{Hosts, Order, Pick, Ticket, Upstream};
use crate::web::{self, Config};
use crate::wire::HostId;

use super::plane::{Key, Plane, Ready, Service, Turn};

mod cache;
mod connection;
mod intake;
mod journal;
mod legs;
mod listen;
mod ping;
mod root;
mod settings;
mod unread;

use connection::{Connection, Moved};
use journal::Journal;
use legs::Legs;
use listen::Listener;
use ping::Ping;
use root::Source;
use settings::Settings;

/// Where the front listens and where PHP is.
#[derive(Debug, Clone)]
pub struct Site {
    pub me: HostId,
    /// Each address, and whether it is a virtual one, which may move to the other host.
    pub listen: Vec<(SocketAddr, bool)>,
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
        let mut listeners = Vec::with_capacity(site.listen.len());
        for &(address, is_virtual) in &site.listen {
            let listener = Listener::new(address, is_virtual)?;
            let slot = u32::try_from(listeners.len()).map_err(io::Error::other)?;
            plane.register(listener.socket(), key(SIDE_LISTENER, slot, 0))?;
            listeners.push(listener);
        }
        let unix_seconds = unix_seconds();
        let hosts = Hosts { me: site.me, names: &site.server_names.clone() };
        let seed = unix_seconds ^ (u64::from(std::process::id()) << 32);
        Ok(Self {
            settings: Settings::new(config),
            journal: Journal::new(config.access_log.clone()),
            site,
            listeners,
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            upstream: Upstream::new(config, &hosts, Instant::ZERO, seed),
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

    /// The addresses that are listened on, with the ports that the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    /// Takes another configuration for requests from now on. Refused, and nothing taken, where it
    /// has other ports.
    pub fn reload(&mut self, turn: &mut Turn<'_>, config: &Config) -> Result<(), String> {
        let old = &self.settings.config;
        for (key, is_changed) in [
            ("port", old.port != config.port),
            ("php_port", old.php_port != config.php_port),
            ("php_status_port", old.php_status_port != config.php_status_port),
        ] {
            if is_changed {
                return Err(format!(
                    "web.{key} changed, which takes a restart of the daemon; nothing was taken"
                ));
            }
        }
        let hosts = Hosts { me: self.site.me, names: &self.site.server_names };
        self.upstream.configure(config, &hosts);
        self.clients.configure(config.connections_max_per_client);
        self.rates.configure(config.limit_req, config.limit_req_burst);
        if old.access_log != config.access_log {
            self.journal = Journal::new(config.access_log.clone());
        }
        self.settings = Settings::new(config);
        for slot in &mut self.slots {
            if let Some(connection) = &mut slot.connection
                && !connection.session.is_in_flight()
            {
                connection.settings = Rc::clone(&self.settings);
            }
        }
        self.settle(turn);
        Ok(())
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
                    log::warn!("listener {}: filter: {error}", listener.address);
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
        if self.accept_paused_until.is_some_and(|until| until <= turn.now) {
            self.accept_paused_until = None;
            self.accept_all(turn);
        }
        self.settle(turn);
    }

    /// Continues sessions that stopped for their budget. True: more remain.
    pub fn resume(&mut self, turn: &mut Turn<'_>) -> bool {
        self.stamp(turn.now);
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
        earliest(earliest(sessions, rest), self.accept_paused_until)
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

    /// Does what can be done for one connection within its budget.
    fn pump(&mut self, turn: &mut Turn<'_>, slot: u32) {
        let Some(mut connection) = self.slot_mut(slot).and_then(|entry| entry.connection.take())
        else {
            return;
        };
        let mut budget = limits::WEB_SESSION_BYTES_PER_TURN;
        let is_open = loop {
            if !self.perform(turn, slot, &mut connection, &mut budget) {
                break false;
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
            match connection.advance(cx, turn.buffer) {
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
                    let candidate = connection.session.candidate(&connection.settings.sites);
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
                    None => return false,
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
                    // It fails only where the client is gone, which its own event tells.
                    let _gone =
                        rustix::net::shutdown(&connection.client.descriptor, Shutdown::Write);
                    None
                }
                Output::Close => return false,
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

    fn acquire(
        &mut self,
        now: Instant,
        ticket: Ticket,
        session: &Session,
        tried: [bool; 2],
        is_charged: bool,
    ) -> Option<Input<'static>> {
        let (client, affinity) = session.client();
        if tried == [false; 2] && !self.rates.admit(now, client) {
            return Some(Input::Unassigned);
        }
        match self.upstream.acquire(now, ticket, Want { tried, affinity }, is_charged) {
            Pick::Peer(host) => Some(Input::Assigned(host)),
            Pick::Queued => None,
            Pick::Nothing => Some(Input::Unassigned),
        }
    }

    /// Gives free peers to those who wait, and carries out what the upstream ordered.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        loop {
            if let Some((ticket, host)) = self.upstream.next_assigned(turn.now) {
                let is_there = self
                    .slot_mut(ticket.slot)
                    .is_some_and(|entry| entry.generation == ticket.generation);
                if is_there {
                    self.feed(turn.now, ticket.slot, Input::Assigned(host));
                    self.pump(turn, ticket.slot);
                } else {
                    self.upstream.release(host, ticket);
                }
                continue;
            }
            match self.upstream.poll_output() {
                None => return,
                Some(Order::Probe(host)) => self.probe(turn, host),
                Some(Order::EndProbe(host)) => {
                    self.probes[host.index()] = None;
                    self.pools[host.index()] = None;
                }
                Some(Order::Lost(host)) => self.lost(turn, host),
                Some(Order::CloseIdle(leg)) => self.close_idle(leg),
            }
        }
    }

    fn lost(&mut self, turn: &mut Turn<'_>, host: HostId) {
        log::info!("php-fpm of {} is out", self.site.server_names[host.index()]);
        for index in 0..self.slots.len() {
            let Ok(slot) = u32::try_from(index) else { return };
            let is_there = self.slot_mut(slot).is_some_and(|entry| {
                entry.connection.as_ref().is_some_and(|connection| {
                    connection.leg.as_ref().is_some_and(|leg| leg.host == host)
                })
            });
            if is_there {
                self.feed(turn.now, slot, Input::HostLost(host));
                self.pump(turn, slot);
            }
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
            config: &settings.config,
            sites: &settings.sites,
            pages: &settings.pages,
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
