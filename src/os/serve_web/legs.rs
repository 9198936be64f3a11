//! Legs: connections to php-fpm, which outlive the client whose request they were opened for.
//!
//! In: orders to connect, to keep, to close; readiness of kept connections. Out: a connection's
//! socket in its session, or here while it waits for a next one. Must not: decide what is kept
//! (that is `web::keepalive`). Read first: os::plane: a socket is registered once, so its key names
//! the leg, and the leg names whose it is at the moment; no call is needed to hand it over.

use crate::os::plane::{Ready, Turn};
use crate::time::Instant;
use crate::web::session::Input;
use crate::web::upstream::Ticket;
use crate::wire::HostId;

use super::connection::{Connection, Socket};
use super::ping::{connect_to, evidence_of};
use super::{SIDE_UPSTREAM, ServeWeb, key, unread};

/// The end of STDIN, which php-fpm leaves unread while it runs a script that has no body.
const UNREAD_AT_MOST: u32 = 8;

/// A connection to php-fpm.
#[derive(Debug)]
pub(super) struct Leg {
    id: u32,
    pub(super) host: HostId,
    born_at: Instant,
    pub(super) socket: Socket,
}

/// Who has each leg.
#[derive(Debug, Default)]
pub(super) struct Legs {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    /// Tells a late event of a leg from an event of the next one of its number.
    generation: u16,
    user: User,
}

#[derive(Debug)]
enum User {
    Nobody,
    Session(Ticket),
    /// It is kept.
    Idle(Leg),
}

impl Legs {
    /// The number and generation of a new leg of this session.
    fn begin(&mut self, ticket: Ticket) -> Option<(u32, u16)> {
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.entries.push(Entry { generation: 0, user: User::Nobody });
                u32::try_from(self.entries.len() - 1).ok()?
            }
        };
        let entry = self.entry_mut(id)?;
        entry.user = User::Session(ticket);
        Some((id, entry.generation))
    }

    /// The leg is no more.
    fn end(&mut self, id: u32) {
        if let Some(entry) = self.entry_mut(id) {
            entry.generation = entry.generation.wrapping_add(1);
            entry.user = User::Nobody;
            self.free.push(id);
        }
    }

    fn take_idle(&mut self, id: u32, user: User) -> Option<Leg> {
        let entry = self.entry_mut(id)?;
        match std::mem::replace(&mut entry.user, user) {
            User::Idle(leg) => Some(leg),
            other @ (User::Nobody | User::Session(_)) => {
                entry.user = other;
                None
            }
        }
    }

    fn entry_mut(&mut self, id: u32) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(id).ok()?)
    }
}

impl ServeWeb {
    /// Begins a connection for a session, or hands it a kept one.
    pub(super) fn connect(
        &mut self,
        turn: &Turn<'_>,
        ticket: Ticket,
        connection: &mut Connection,
        host: HostId,
    ) -> Option<Input<'static>> {
        self.disconnect(connection);
        let may_reuse = connection.session.may_reuse();
        let kept = if may_reuse { self.upstream.reuse(turn.now, host) } else { None };
        if let Some(leg) = kept.and_then(|id| self.legs.take_idle(id, User::Session(ticket))) {
            connection.leg = Some(leg);
            return Some(Input::Reused);
        }
        let (id, generation) = self.legs.begin(ticket)?;
        let key = key(SIDE_UPSTREAM, id, generation);
        match connect_to(turn.plane, self.site.php[host.index()], key) {
            Ok(mut socket) => {
                // Over loopback the handshake is done within connect(2): the first write tells.
                if host == self.site.me {
                    socket.assume_writable();
                }
                connection.leg = Some(Leg { id, host, born_at: turn.now, socket });
                let keeps = self.upstream.begin_fresh(turn.now, host, ticket);
                Some(Input::Connecting { keeps })
            }
            Err(errno) => {
                self.legs.end(id);
                Some(Input::ConnectFailed(evidence_of(errno)))
            }
        }
    }

    /// Closes the connection to php-fpm.
    pub(super) fn disconnect(&mut self, connection: &mut Connection) {
        if let Some(leg) = connection.leg.take() {
            self.legs.end(leg.id);
        }
    }

    /// The request is answered: its connection waits for another one, or is closed.
    pub(super) fn keep(&mut self, now: Instant, ticket: Ticket, connection: &mut Connection) {
        let Some(leg) = connection.leg.take() else { return };
        let Leg { id, host, born_at, .. } = leg;
        if !leg.socket.is_quiet() {
            self.upstream.release(host, ticket);
            self.legs.end(id);
        } else if self.upstream.keep(now, host, ticket, id, born_at)
            && let Some(entry) = self.legs.entry_mut(id)
        {
            entry.user = User::Idle(leg);
        } else {
            self.legs.end(id);
        }
    }

    pub(super) fn close_idle(&mut self, id: u32) {
        if self.legs.take_idle(id, User::Nobody).is_some() {
            self.legs.end(id);
        }
    }

    /// An event of a connection to php-fpm.
    pub(super) fn leg_ready(&mut self, turn: &mut Turn<'_>, id: u32, ready: Ready) {
        let entry = self.legs.entry_mut(id);
        let Some(entry) = entry.filter(|entry| entry.generation == ready.key.generation) else {
            return;
        };
        match &mut entry.user {
            User::Nobody => {}
            User::Idle(leg) => {
                leg.socket.note(ready);
                // It was closed, or says what nobody asked for.
                if !leg.socket.is_quiet() {
                    self.upstream.idle_ended(id);
                    self.close_idle(id);
                }
            }
            &mut User::Session(ticket) => {
                let Some(slot) = self.slot_mut(ticket.slot) else { return };
                if slot.generation == ticket.generation
                    && let Some(connection) = &mut slot.connection
                    && let Some(leg) = connection.leg.as_mut().filter(|leg| leg.id == id)
                {
                    leg.socket.note(ready);
                    self.pump(turn, ticket.slot);
                }
            }
        }
    }

    /// Whether php-fpm has read what was written to it.
    pub(super) fn is_read(connection: &Connection) -> bool {
        connection.leg.as_ref().is_none_or(|leg| {
            unread::unread_bytes(&leg.socket.descriptor).is_none_or(|bytes| bytes <= UNREAD_AT_MOST)
        })
    }
}
