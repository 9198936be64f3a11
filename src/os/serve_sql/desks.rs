//! The sockets of the admin port.
//!
//! In: readiness. Out: bytes for desks and of desks, orders carried out. Must not: decide what an
//! answer says (that is `sql::admin`). A desk's client is a person or a script: few, and slow.
//! Read first: `sql::admin`; `plane` for the edge-triggered rule.

use std::io::{self, Read as _};
use std::net::IpAddr;

use socket2::Socket;

use crate::limits;
use crate::os::plane::{Key, Ready, Service, Turn};
use crate::routes::{Flow, Routes};
use crate::sql::admin::{Desk, Order, Row, View};
use crate::time::Instant;
use crate::wire::HostId;

use super::clients::write;
use super::slab::Place;
use super::{READS_PER_TURN, SIDE_DESK, ServeSql};

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
        if self.desks.len() >= limits::SQL_DESKS_MAX || socket.set_nonblocking(true).is_err() {
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
        let sessions = self.rows();
        let view = View {
            config: &self.config,
            routes: &self.given,
            is_offline: self.is_offline,
            servers: self.site.servers,
            status: self.status(),
            sessions,
        };
        let Some(visitor) = self.desks.get_mut(slot) else { return };
        visitor.heard_at = turn.now;
        let bytes = turn.buffer.get(..count).unwrap_or(&[]);
        let mut out = Vec::new();
        let orders = visitor.desk.client_sent(bytes, &view, &mut out);
        visitor.outbound.extend_from_slice(&out);
        for order in orders {
            self.obey(turn, order);
        }
        self.flush_desk(slot);
        let Some(visitor) = self.desks.get(slot) else { return };
        if visitor.desk.is_closed() || visitor.outbound.len() > limits::OUTBOUND_BYTES_MAX {
            self.close_desk(slot);
        } else {
            self.watch_desk(slot);
        }
    }

    fn rows(&self) -> Vec<Row> {
        let row = |client: &super::clients::Client| Row {
            thread: client.thread,
            user: client
                .session
                .guest()
                .user
                .and_then(|user| self.users.get(user))
                .map(|user| user.name.clone())
                .unwrap_or_default(),
            peer: client.session.peer().to_owned(),
            state: client.session.state(),
        };
        self.clients.iter().filter(|client| !client.session.is_closed()).map(row).collect()
    }

    fn obey(&mut self, turn: &mut Turn<'_>, order: Order) {
        match order {
            Order::SetOffline(host) => self.is_offline[host.index()] = true,
            Order::SetOnline(host) => self.is_offline[host.index()] = false,
        }
        log::info!("sql: {order:?} by the admin port");
        let given = self.given.clone();
        self.set_routes(turn, &given);
    }

    /// The control plane's routes under the operator's mask: a source that is offline holds its
    /// statements and lets open transactions end, a replica that is offline gets no reads.
    pub(super) fn masked(&self, given: &Routes) -> Routes {
        let mut routes = given.clone();
        for host in HostId::ALL.into_iter().filter(|host| self.is_offline[host.index()]) {
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
