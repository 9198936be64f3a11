//! Intake: clients are accepted, and kept out while the host drains.
//!
//! In: readable listeners. Out: connections in slots. Must not: serve them (that is `pump`).
//! Read first: `listen`; routes::WebIntake.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::limits;
use crate::os::plane::Turn;
use crate::web::limit::Entry;
use crate::web::origin;
use crate::web::params::Ends;
use crate::web::place;
use crate::web::session::{Input, Session};

use super::connection::Connection;
use super::listen::{Accepted, Listener, Speech};
use super::records::Secure;
use super::{SIDE_CLIENT, ServeWeb, Slot, key};

/// Connections accepted from one listener in a turn.
const ACCEPTS_PER_TURN: usize = 64;

impl ServeWeb {
    pub(super) fn accept_all(&mut self, turn: &mut Turn<'_>) {
        for index in 0..self.listeners.len() {
            if let Ok(slot) = u32::try_from(index) {
                self.accept(turn, slot);
            }
        }
    }

    pub(super) fn accept(&mut self, turn: &mut Turn<'_>, index: u32) {
        for _ in 0..ACCEPTS_PER_TURN {
            let is_paused = self.accept_paused_until.is_some();
            let Some(listener) = self.listener_mut(index) else { return };
            if is_paused || !listener.is_readable {
                return;
            }
            match listener.accept() {
                Accepted::Connection(socket, client) => {
                    self.admit(turn, socket, client, index);
                }
                Accepted::Nothing => listener.is_readable = false,
                Accepted::Exhausted => {
                    self.accept_paused_until = Some(turn.now + limits::WEB_ACCEPT_PAUSE);
                }
            }
        }
    }

    fn admit(&mut self, turn: &mut Turn<'_>, socket: OwnedFd, client: SocketAddr, index: u32) {
        let Some(listener) = self.listener_mut(index) else { return };
        let Listener { address: mut local, is_virtual, speech, .. } = *listener;
        let is_port = speech == Speech::FastCgi;
        let is_strange = is_port && !listener.is_unix() && !self.may_use_port(client.ip());
        // Dropping the socket closes it: one too many, or nobody we know.
        if self.open >= self.settings.rules.config.connections_max || is_strange {
            return;
        }
        if local.ip().is_unspecified() {
            let name = rustix::net::getsockname(&socket).ok();
            local = name.and_then(|name| SocketAddr::try_from(name).ok()).unwrap_or(local);
        }
        let slot = self.free.pop().or_else(|| {
            let slot = u32::try_from(self.slots.len()).ok()?;
            self.slots.push(Slot::default());
            Some(slot)
        });
        let Some(slot) = slot else { return };
        let settings = Rc::clone(&self.settings);
        let ends = Ends { client, local, is_https: speech == Speech::Https };
        let session = if is_port {
            Session::of_port(turn.now, &settings.rules.config, ends)
        } else {
            Session::new(turn.now, &settings.rules.config, ends)
        };
        // Who serves many clients: a proxy names them one by one, a web server is known to us.
        let is_counted_here = !is_port
            && self.clients.is_on()
            && !origin::is_trusted(client.ip(), &settings.rules.config.set_real_ip_from);
        let security = self.security.as_ref().filter(|_| ends.is_https);
        let secure = security.map(|security| Box::new(Secure::new(security.acceptor())));
        let mut connection = Connection::new(session, settings, socket, secure, is_virtual);
        let counted = if is_counted_here { self.count(&mut connection) } else { None };
        if is_counted_here && counted.is_none() {
            self.free.push(slot);
            return;
        }
        let Some(entry) = self.slot_mut(slot) else { return };
        let key = key(SIDE_CLIENT, slot, entry.generation);
        if turn.plane.register(&connection.client.descriptor, key).is_err() {
            self.free.push(slot);
            if let Some(client) = connection.counted {
                self.clients.leave(client);
            }
            return;
        }
        entry.connection = Some(Box::new(connection));
        self.open += 1;
        if let Some(counted) = counted {
            self.feed(turn.now, slot, counted);
        }
        if is_virtual && self.is_draining {
            self.feed(turn.now, slot, Input::Drain);
        }
        self.arm(slot);
    }

    /// Counts a connection as its client's; `None`: it is to be closed without a word, or nothing
    /// is counted.
    pub(super) fn count(&mut self, connection: &mut Connection) -> Option<Input<'static>> {
        if !self.clients.is_on() {
            return None;
        }
        let client = connection.session.client();
        let entry = self.clients.enter(client);
        if entry == Entry::Flood {
            return None;
        }
        connection.counted = Some(client);
        Some(Input::Counted { is_one_too_many: entry == Entry::TooMany })
    }

    fn may_use_port(&self, client: IpAddr) -> bool {
        let is_allowed =
            place::is_allowed(client, &self.site.inside, &self.settings.rules.config.fastcgi_allow);
        if !is_allowed {
            log::debug!("FastCGI port: {client} is not in fastcgi_allow");
        }
        is_allowed
    }

    /// Draining, nothing in flight on virtual listeners, and nobody in their accept queues.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_draining
            && !self.listeners.iter().any(|listener| listener.is_virtual && listener.has_waiting())
            && !self
                .slots
                .iter()
                .filter_map(|slot| slot.connection.as_ref())
                .any(|connection| connection.is_virtual && connection.session.is_in_flight())
    }

    /// Idle connections of virtual listeners are closed; what they already sent is answered.
    pub(super) fn drain(&mut self, turn: &mut Turn<'_>) {
        for listener in self.listeners.iter_mut().filter(|listener| listener.is_virtual) {
            listener.is_readable = true;
        }
        self.accept_all(turn);
        for index in 0..self.slots.len() {
            let Ok(slot) = u32::try_from(index) else { return };
            if !self.connection(slot).is_some_and(|connection| connection.is_virtual) {
                continue;
            }
            self.pump(turn, slot);
            // Half a record may be a request, which is answered, and then the connection ends.
            if !self.connection(slot).is_some_and(Connection::is_amid_record) {
                self.feed(turn.now, slot, Input::Drain);
                self.pump(turn, slot);
            }
        }
    }
}
