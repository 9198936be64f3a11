//! The splitter's clients: their sockets, and what their sessions ask for.
//!
//! In: readiness, outboxes of sessions. Out: bytes for sessions and for sockets.
//! Must not: read from a client whose session has no use for more, or from a server whose client
//! is slow. Read first: `plane` for the edge-triggered rule; `sql::session`.

use std::io;
use std::net::Shutdown;

use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::Socket;

use crate::limits;
use crate::os::plane::{Ready, Turn};
use crate::os::tls::Tls;
use crate::sql::handshake::SALT_BYTES;
use crate::sql::session::{Act, Context, Outbox, Session};
use crate::time::Instant;
use crate::wire::HostId;

use super::secure;
use super::slab::Place;
use super::{READS_PER_TURN, ServeSql};

/// A client's socket and its session.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: Socket,
    pub(super) tls: Option<Box<Tls>>,
    pub(super) session: Session,
    /// Leased connections by host.
    pub(super) legs: [Option<u32>; 2],
    pub(super) outbound: Vec<u8>,
    /// The socket may have bytes that no event will tell of again.
    pub(super) is_unread: bool,
    pub(super) is_postponed: bool,
    /// The client will send no more than what is already there.
    pub(super) is_read_closed: bool,
    /// The session is over; the socket waits for its last bytes to be taken.
    pub(super) close_by: Option<Instant>,
    pub(super) armed: Option<Instant>,
    pub(super) thread: u32,
}

impl ServeSql {
    pub(super) fn client_ready(&mut self, turn: &mut Turn<'_>, slot: u32, ready: Ready) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.is_read_closed |= ready.is_read_closed;
        client.is_unread |= ready.is_readable || ready.is_read_closed || ready.is_hung_up;
        if ready.is_hung_up {
            // Reset, or both halves closed: nobody is there to read an answer.
            self.client_left(turn, slot);
            return;
        }
        if ready.is_writable && !client.outbound.is_empty() {
            self.flush_client(turn, slot);
        }
        self.read_client(turn, slot);
    }

    pub(super) fn read_client(&mut self, turn: &mut Turn<'_>, slot: u32) {
        for _ in 0..READS_PER_TURN {
            let Some(client) = self.clients.get_mut(slot) else { return };
            if !client.is_unread {
                return;
            }
            let is_closing = client.close_by.is_some();
            if !is_closing && client.session.is_held() && client.is_read_closed {
                self.client_left(turn, slot);
                return;
            }
            let is_full = client.legs.iter().flatten().any(|&leg| {
                self.servers
                    .get(leg)
                    .is_some_and(|server| server.outbound.len() > limits::OUTBOUND_BYTES_MAX)
            });
            if !is_closing && (is_full || !client.session.wants_client()) {
                return;
            }
            let (socket, tls) = (&mut client.socket, &mut client.tls);
            let outbound = &mut client.outbound;
            let read = secure::receive(socket, tls, outbound, &mut self.sealed, turn.buffer);
            let count = match read {
                Ok(read) if read.is_end => {
                    self.client_left(turn, slot);
                    return;
                }
                Ok(read) => {
                    if read.is_drained && !client.is_read_closed {
                        client.is_unread = false;
                    }
                    read.count
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    client.is_unread = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::debug!("client {}: {error}", client.session.peer());
                    self.client_left(turn, slot);
                    return;
                }
            };
            if is_closing || count == 0 {
                continue; // Whatever comes after the end is not looked at; or it was TLS's own.
            }
            let now = turn.now;
            let salt = self.salt();
            let context = context!(self, now, salt);
            let Some(client) = self.clients.get_mut(slot) else { return };
            let bytes = turn.buffer.get(..count).unwrap_or(&[]);
            client.session.client_sent(&context, bytes, &mut self.out);
            if client.session.is_at_door() {
                self.consume_salt();
            }
            self.settle(turn, slot);
        }
        self.postpone_client(slot);
    }

    pub(super) fn postpone_client(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot)
            && client.is_unread
            && !client.is_postponed
        {
            client.is_postponed = true;
            self.postponed.push_back(Place::Client(slot));
        }
    }

    pub(super) fn client_left(&mut self, turn: &mut Turn<'_>, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot) {
            client.session.client_left(&mut self.out);
            self.settle(turn, slot);
            self.remove_client(slot);
        }
    }

    pub(super) fn remove_client(&mut self, slot: u32) {
        if let Some(client) = self.clients.remove(slot) {
            self.timers.disarm(Place::Client(slot), client.armed);
            for leg in client.legs.into_iter().flatten() {
                self.close_server(leg);
            }
        }
    }

    pub(super) fn expire_client(&mut self, turn: &mut Turn<'_>, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.armed = None;
        if client.close_by.is_some_and(|by| turn.now >= by) {
            self.remove_client(slot);
            return;
        }
        let now = turn.now;
        let salt = self.salt();
        let context = context!(self, now, salt);
        let Some(client) = self.clients.get_mut(slot) else { return };
        let is_due = client.session.deadline(&context).is_some_and(|at| now >= at);
        if is_due && client.session.is_arrived() {
            self.greet(turn, slot);
        } else if is_due {
            client.session.expire(&context, &mut self.out);
        }
        self.settle(turn, slot);
    }

    /// Runs a verb of a session and performs what came of it.
    pub(super) fn with_session(
        &mut self,
        turn: &mut Turn<'_>,
        slot: u32,
        verb: impl FnOnce(&mut Session, &Context<'_>, &mut Outbox),
    ) {
        let now = turn.now;
        let salt = self.salt();
        let context = context!(self, now, salt);
        if let Some(client) = self.clients.get_mut(slot) {
            verb(&mut client.session, &context, &mut self.out);
            self.settle(turn, slot);
        }
    }

    /// Performs the outbox: bytes first, then acts, until nothing more comes of them.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>, slot: u32) {
        loop {
            let mut out = std::mem::take(&mut self.out);
            self.status.add(std::mem::take(&mut out.tally));
            if std::mem::take(&mut out.has_written) {
                self.own_writes.wrote(turn.now);
            }
            self.note_finished(turn.now, slot, &mut out.finished);
            let has_bytes = !out.client.is_empty() || out.servers.iter().any(|it| !it.is_empty());
            if !has_bytes && out.acts.is_empty() {
                self.out = out;
                break;
            }
            let has_last_words = !out.client.is_empty();
            if has_last_words {
                self.write_client(turn, slot, &out.client);
                out.client.clear();
            }
            for host in HostId::ALL {
                let bytes = &mut out.servers[host.index()];
                if !bytes.is_empty() {
                    self.write_leg(slot, host, bytes);
                    bytes.clear();
                }
            }
            for act in out.acts.drain(..) {
                self.perform(turn, slot, act, has_last_words);
            }
            let is_over = self.out.client.is_empty()
                && self.out.acts.is_empty()
                && self.out.servers.iter().all(Vec::is_empty);
            if is_over {
                // The shared buffers keep their capacity from one query to the next.
                let tally = self.out.tally;
                self.out = Outbox { tally, ..out };
            }
        }
        self.watch_client(turn.now, slot);
    }

    pub(super) fn perform(
        &mut self,
        turn: &mut Turn<'_>,
        slot: u32,
        act: Act,
        has_last_words: bool,
    ) {
        match act {
            Act::Open(host) => self.lease(turn, slot, host),
            Act::Drop(host) => {
                if let Some(leg) = self.take_leg(slot, host) {
                    self.close_server(leg);
                }
            }
            Act::Release(host, database) => {
                if let Some(leg) = self.take_leg(slot, host) {
                    self.clean(turn, leg, database);
                }
            }
            Act::Kill(kill) => self.kill(turn, slot, kill),
            Act::Secure(hello) => self.secure_client(turn, slot, &hello),
            Act::CloseClient => {
                let Some(client) = self.clients.get_mut(slot) else { return };
                secure::close(client, &mut self.sealed);
                if client.outbound.is_empty() && !has_last_words {
                    self.remove_client(slot);
                    return;
                }
                // The last words must not be lost to a reset that unread bytes would cause.
                client.close_by = Some(turn.now + limits::SQL_LINGER);
                client.is_unread = true;
                if client.outbound.is_empty() {
                    let _ = client.socket.shutdown(Shutdown::Write);
                }
            }
        }
    }

    pub(super) fn write_leg(&mut self, slot: u32, host: HostId, bytes: &[u8]) {
        let leg = self.clients.get(slot).and_then(|client| client.legs[host.index()]);
        let Some(leg) = leg else { return };
        if let Some(server) = self.servers.get_mut(leg) {
            server.write(&mut self.sealed, bytes);
        }
        self.postpone_server(leg);
    }

    pub(super) fn take_leg(&mut self, slot: u32, host: HostId) -> Option<u32> {
        self.clients.get_mut(slot)?.legs[host.index()].take()
    }

    pub(super) fn write_client(&mut self, turn: &mut Turn<'_>, slot: u32, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let (socket, tls) = (&mut client.socket, &mut client.tls);
        if secure::send(socket, tls, &mut client.outbound, &mut self.sealed, bytes).is_err() {
            client.outbound.clear();
            client.session.client_left(&mut self.out);
            client.close_by = Some(turn.now);
        }
    }

    pub(super) fn flush_client(&mut self, turn: &mut Turn<'_>, slot: u32) {
        self.write_client(turn, slot, &[]);
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.outbound.len() <= limits::OUTBOUND_BYTES_MAX {
            for leg in client.legs.into_iter().flatten() {
                self.postpone_server(leg);
            }
        }
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.outbound.is_empty() && client.close_by.is_some() {
            let _ = client.socket.shutdown(Shutdown::Write);
        }
        self.settle(turn, slot);
    }

    /// After anything happened to a client: its timer, and its unread bytes.
    pub(super) fn watch_client(&mut self, now: Instant, slot: u32) {
        let salt = [0; SALT_BYTES];
        let context = context!(self, now, salt);
        let Some(client) = self.clients.get_mut(slot) else { return };
        let deadline = match client.close_by {
            Some(by) => Some(by),
            None => client.session.deadline(&context),
        };
        self.timers.arm(Place::Client(slot), &mut client.armed, deadline);
        let left_while_held = client.session.is_held() && client.is_read_closed;
        if client.is_unread && (client.session.wants_client() || left_while_held)
            || client.close_by.is_some()
        {
            self.postpone_client(slot);
        }
    }
}

/// Sends what waits and then `bytes`; keeps what the kernel does not take.
pub(super) fn write(socket: &mut Socket, outbound: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    if outbound.is_empty() {
        let sent = send(socket, bytes)?;
        outbound.extend_from_slice(bytes.get(sent..).unwrap_or(&[]));
        return Ok(());
    }
    outbound.extend_from_slice(bytes);
    let sent = send(socket, outbound)?;
    outbound.drain(..sent);
    if outbound.is_empty() {
        // A socket with nothing to wait for keeps no buffer.
        *outbound = Vec::new();
    }
    Ok(())
}

/// Sends as much as the kernel takes; returns how much that is. A client that left is an error, not
/// a signal. A system call of rustix's own: libc's is one that a thread could be cancelled in,
/// which costs a hundredth of a query.
fn send(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match rustix::net::send(socket, rest, SendFlags::NOSIGNAL) {
            Ok(count) => sent += count,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}
