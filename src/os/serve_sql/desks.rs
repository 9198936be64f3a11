//! The sockets of the admin port.
//!
//! In: readiness. Out: bytes for desks and of desks, orders carried out. Must not: decide what an
//! answer says (that is `sql::admin`). A desk's client is a person or a script: few, and slow.
//! Read first: `sql::admin`; `plane` for the edge-triggered rule.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::time::Duration;

use socket2::Socket;

use crate::console::note::Note;
use crate::limits;
use crate::os::notes;
use crate::os::plane::{Key, Ready, Service, Turn};
use crate::routes::{Flow, Routes};
use crate::sql::admin::{Desk, HERE_ONLY, Order, Outcome, Standing, View};
use crate::sql::show::{self, Connections, Row};
use crate::sql::users::UserId;
use crate::time::Instant;
use crate::wire::HostId;

use super::clients::write;
use super::save;
use super::servers::Server;
use super::slab::Place;
use super::{READS_PER_TURN, SIDE_DESK, ServeSql};

/// The splitter as a desk is told of it. A macro, so that only the fields it names are borrowed.
macro_rules! view {
    ($self:ident) => {
        View {
            config: &$self.config,
            users: &$self.users,
            routes: &$self.given,
            standing: $self.standing,
            servers: $self.site.servers,
        }
    };
}

/// A client of the admin port.
#[derive(Debug)]
pub(super) struct Visitor {
    socket: Socket,
    desk: Desk,
    outbound: Vec<u8>,
    heard_at: Instant,
    armed: Option<Instant>,
}

impl ServeSql {
    pub(super) fn admit_desk(&mut self, turn: &mut Turn<'_>, socket: Socket, peer: Option<IpAddr>) {
        if self.desks.len() >= limits::SQL_DESKS_MAX {
            return;
        }
        let (slot, generation) = self.desks.next();
        let key = Key { service: Service::Sql, side: SIDE_DESK, generation, slot };
        if turn.plane.register(&socket, key).is_err() {
            return;
        }
        let salt = self.salt();
        self.consume_salt();
        let mut outbound = Vec::new();
        let desk = Desk::new(
            salt,
            slot,
            peer.map_or_else(String::new, |peer| peer.to_string()),
            &mut outbound,
        );
        self.desks.insert(Visitor { socket, desk, outbound, heard_at: turn.now, armed: None });
        self.flush_desk(slot);
        self.watch_desk(slot);
    }

    pub(super) fn desk_ready(&mut self, turn: &mut Turn<'_>, slot: u32, ready: Ready) {
        if ready.is_writable {
            self.flush_desk(slot);
        }
        self.read_desk(turn, slot);
    }

    pub(super) fn read_desk(&mut self, turn: &mut Turn<'_>, slot: u32) {
        for _ in 0..READS_PER_TURN {
            let Some(visitor) = self.desks.get_mut(slot) else { return };
            match visitor.socket.read(turn.buffer) {
                Ok(0) => self.close_desk(slot),
                Ok(count) => self.desk_sent(turn, slot, count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.close_desk(slot),
            }
        }
        self.postponed.push_back(Place::Desk(slot));
    }

    fn desk_sent(&mut self, turn: &mut Turn<'_>, slot: u32, count: usize) {
        let view = view!(self);
        let Some(visitor) = self.desks.get_mut(slot) else { return };
        visitor.heard_at = turn.now;
        let bytes = turn.buffer.get(..count).unwrap_or(&[]);
        let order = visitor.desk.client_sent(bytes, view, &mut visitor.outbound);
        self.obey_all(turn, slot, order);
    }

    /// An order was carried out later.
    pub(super) fn tell_desk(&mut self, turn: &mut Turn<'_>, slot: u32, outcome: Outcome) {
        let view = view!(self);
        let Some(visitor) = self.desks.get_mut(slot) else { return };
        let order = visitor.desk.done(outcome, view, &mut visitor.outbound);
        self.obey_all(turn, slot, order);
    }

    /// One order after the other, each answered under what the one before it made true.
    fn obey_all(&mut self, turn: &mut Turn<'_>, slot: u32, mut order: Option<Order>) {
        while let Some(next) = order.take() {
            let Some(outcome) = self.obey(turn, slot, next) else { break };
            let view = view!(self);
            let Some(visitor) = self.desks.get_mut(slot) else { return };
            order = visitor.desk.done(outcome, view, &mut visitor.outbound);
        }
        self.flush_desk(slot);
        let Some(visitor) = self.desks.get(slot) else { return };
        if visitor.desk.is_closed() || visitor.outbound.len() > limits::OUTBOUND_BYTES_MAX {
            self.close_desk(slot);
        } else {
            self.watch_desk(slot);
        }
    }

    /// `None`: the outcome comes later.
    fn obey(&mut self, turn: &mut Turn<'_>, slot: u32, order: Order) -> Option<Outcome> {
        let is_change = !matches!(
            order,
            Order::ShowSessions | Order::ShowPool | Order::ShowStats | Order::ShowDigests
        );
        if is_change {
            notes::tell(&Note::SplitterOrder { what: format!("{order:?} by the admin port") });
        }
        Some(match order {
            Order::Set(host, standing) => {
                self.stand(turn, host, standing);
                Outcome::Backend(host)
            }
            Order::Stand(host, standing) => {
                self.stand(turn, host, standing);
                Outcome::Done(format!("{HERE_ONLY}; a restart lists both hosts again"))
            }
            Order::AddClient(client) => {
                let was_open = self.config.clients.is_empty();
                self.config.clients.push(client);
                let warning = "the list was empty, which let everybody in; ";
                Outcome::Done(format!("{}{}", if was_open { warning } else { "" }, save::unsaved()))
            }
            Order::RemoveClient(client) => {
                self.config.clients.retain(|it| *it != client);
                let is_open = self.config.clients.is_empty();
                let warning = "the list is empty, which lets everybody in; ";
                Outcome::Done(format!("{}{}", if is_open { warning } else { "" }, save::unsaved()))
            }
            Order::AddUser(user) => {
                self.sweep_users();
                self.users.add(user);
                self.probe(turn);
                Outcome::Done(save::unsaved())
            }
            Order::RemoveUser(name) => {
                self.remove_user(turn.now, &name);
                Outcome::Done(save::unsaved())
            }
            Order::Save => {
                let generation = self.desks.generation(slot)?;
                return self.save(turn, (slot, generation));
            }
            Order::ShowSessions => Outcome::Shown(show::sessions(&self.rows(turn.now))),
            Order::ShowPool => Outcome::Shown(show::pool(&self.connections())),
            Order::ShowStats => {
                let up = self.started_at.map_or(Duration::ZERO, |at| turn.now.since(at));
                Outcome::Shown(show::stats(self.status(), up))
            }
            Order::ShowDigests => match &self.digests {
                Some(digests) => Outcome::Shown(show::digests(digests)),
                None => Outcome::Refused(
                    "digests are off: write digests = true below [sql] in tandem.toml".to_owned(),
                ),
            },
        })
    }

    fn stand(&mut self, turn: &mut Turn<'_>, host: HostId, standing: Standing) {
        self.standing[host.index()] = standing;
        self.replace_askers(turn.now);
        let given = self.given.clone();
        self.set_routes(turn, &given);
    }

    /// The user's sessions go on, as in Atlas; its idle connections are closed.
    fn remove_user(&mut self, now: Instant, name: &str) {
        let Some(user) = self.users.remove(name) else { return };
        for slot in self.servers.slots() {
            let is_idle = |server: &Server| server.key.user == user && server.is_spare();
            if self.servers.get(slot).is_some_and(is_idle) {
                self.close_server(slot);
            }
        }
        self.replace_askers(now);
        self.sweep_users();
    }

    /// Forgets the removed users of whom nothing is left.
    fn sweep_users(&mut self) {
        let (clients, servers) = (&self.clients, &self.servers);
        self.users.sweep(|user| {
            clients.iter().any(|client| client.session.guest().user == Some(user))
                || servers.iter().any(|server| server.key.user == user)
        });
        let users = &self.users;
        self.uses.retain(|(_, user), _| users.get(*user).is_some());
    }

    pub(super) fn name_of(&self, user: Option<UserId>) -> &str {
        user.and_then(|user| self.users.get(user)).map_or("", |user| &user.name)
    }

    fn rows(&self, now: Instant) -> Vec<Row> {
        let row = |client: &super::clients::Client| {
            let session = &client.session;
            session.row(now, client.thread, self.name_of(session.guest().user))
        };
        self.clients.iter().filter(|client| !client.session.is_closed()).map(row).collect()
    }

    fn connections(&self) -> BTreeMap<(HostId, String), Connections> {
        let mut all: BTreeMap<(HostId, String), Connections> = BTreeMap::new();
        for (&(host, user), uses) in &self.uses {
            let sum = all.entry((host, self.name_of(Some(user)).to_owned())).or_default();
            sum.opened += uses.opened;
            sum.reused += uses.reused;
        }
        for server in self.servers.iter() {
            let name = self.name_of(Some(server.key.user)).to_owned();
            server.count(all.entry((server.host, name)).or_default());
        }
        all
    }

    /// The control plane's routes under the operator's mask: a source that is offline holds its
    /// statements and lets open transactions end, a replica that is offline gets no reads.
    pub(super) fn masked(&self, given: &Routes) -> Routes {
        let mut routes = given.clone();
        for host in
            HostId::ALL.into_iter().filter(|host| self.standing[host.index()] != Standing::Online)
        {
            routes.is_replica_fit[host.index()] = false;
            if routes.source == Some(host) && routes.writes == Flow::Flowing {
                routes.writes = Flow::Held { open_limit: self.config.hold_limit };
            }
        }
        routes
    }

    fn flush_desk(&mut self, slot: u32) {
        let Some(visitor) = self.desks.get_mut(slot) else { return };
        let waiting = std::mem::take(&mut visitor.outbound);
        if write(&mut visitor.socket, &mut visitor.outbound, &waiting).is_err() {
            self.close_desk(slot);
        }
    }

    fn close_desk(&mut self, slot: u32) {
        if let Some(visitor) = self.desks.remove(slot) {
            self.timers.disarm(Place::Desk(slot), visitor.armed);
        }
    }

    pub(super) fn expire_desk(&mut self, turn: &Turn<'_>, slot: u32) {
        let Some(visitor) = self.desks.get_mut(slot) else { return };
        visitor.armed = None;
        let limit =
            if visitor.desk.is_at_door() { limits::SQL_LOGIN } else { self.config.idle_limit };
        if turn.now.since(visitor.heard_at) >= limit {
            self.close_desk(slot);
        } else {
            self.watch_desk(slot);
        }
    }

    fn watch_desk(&mut self, slot: u32) {
        let Some(visitor) = self.desks.get_mut(slot) else { return };
        let limit =
            if visitor.desk.is_at_door() { limits::SQL_LOGIN } else { self.config.idle_limit };
        let deadline = visitor.heard_at + limit;
        self.timers.arm(Place::Desk(slot), &mut visitor.armed, Some(deadline));
    }
}
