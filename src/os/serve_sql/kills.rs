//! KILL on its way: the session is found by the splitter's own number, and the server that runs
//! its statement is told to stop it, under the name of the user who asked.
//!
//! In: what a session wants to end. Out: a short errand to a server, an answer for the session.
//! Must not: decide who may kill whom where a server can: it knows the privileges.
//! Read first: `sql::kill`.

use crate::os::plane::Turn;
use crate::sql::command::code;
use crate::sql::handshake::SALT_BYTES;
use crate::sql::kill::{self, Kill};
use crate::sql::packet::{self, ServerError};
use crate::sql::pool;
use crate::sql::result::{Kind, Reply};
use crate::sql::session::{Context, Session};

use super::ServeSql;
use super::servers::{PROBE_COLLATION, Purpose, Stage};

/// A KILL that a server is asked to carry out.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    /// Who asked: the slot, and the number that the slot's session had then.
    asker: (u32, u32),
    target: (u32, u32),
    kill: Kill,
    /// The number that the server knows the target by.
    thread: u32,
}

impl ServeSql {
    /// A session asks for the end of one.
    pub(super) fn kill(&mut self, turn: &mut Turn<'_>, slot: u32, kill: Kill) {
        let Some(asker) = self.clients.get(slot) else { return };
        let (Some(user), asker) = (asker.session.guest().user, (slot, asker.thread)) else {
            return;
        };
        let found = self.clients.slots().into_iter().find(|&other| {
            self.clients.get(other).is_some_and(|client| {
                client.thread == kill.thread
                    && !client.session.is_arrived()
                    && !client.session.is_closed()
            })
        });
        let Some((place, client)) = found.and_then(|at| self.clients.get(at).map(|it| (at, it)))
        else {
            self.answer_kill(turn, asker, Err(kill::unknown(kill.thread)));
            return;
        };
        let target = (place, client.thread);
        // By name: whoever was removed and added again is the same person.
        let name = |user| self.users.get(user).map(|user| &user.name);
        let is_own = client.session.guest().user.and_then(name) == name(user);
        if place == slot {
            self.carry_out(turn, target, kill);
            self.answer_kill(turn, asker, Err(kill::interrupted()));
            return;
        }
        let host = client.session.place_to_kill(kill.is_query);
        let server = host.and_then(|host| self.servers.get(client.legs[host.index()]?));
        let Some((host, thread)) = server.map(|server| (server.host, server.thread)) else {
            // Nothing of it is on a server.
            let answer = if is_own { Ok(()) } else { Err(kill::foreign(kill.thread)) };
            if is_own {
                self.carry_out(turn, target, kill);
            }
            self.answer_kill(turn, asker, answer);
            return;
        };
        let errand = Errand { asker, target, kill, thread };
        let key = pool::Key::new(host, user, 0, PROBE_COLLATION);
        if let Err(error) = self.connect(turn, key, None, Purpose::Kill(errand)) {
            self.answer_kill(turn, asker, Err(unreachable(&error.to_string())));
        }
    }

    /// The errand's connection is logged in.
    pub(super) fn send_errand(&mut self, turn: &mut Turn<'_>, slot: u32, errand: Errand) {
        let Some(server) = self.servers.get(slot) else { return };
        let leg = self
            .clients
            .get(errand.target.0)
            .filter(|client| client.thread == errand.target.1)
            .and_then(|client| client.legs[server.host.index()]);
        if leg.and_then(|leg| self.servers.get(leg)).map(|leg| leg.thread) != Some(errand.thread) {
            // The connection is no longer the target's: it may be another session's already.
            self.close_server(slot);
            let unknown = kill::unknown(errand.kill.thread);
            self.finish_errand(turn, &errand, Err(unknown));
            return;
        }
        let Some(server) = self.servers.get_mut(slot) else { return };
        let mut bytes = Vec::new();
        packet::command(&mut bytes, code::QUERY, kill::statement(errand.thread).as_bytes());
        let is_written = server.send(&mut self.sealed, &bytes).is_ok();
        let reply = Box::new(Reply::new(Kind::Single, false));
        server.stage = Stage::Killing { errand: Box::new(errand), reply, answer: Vec::new() };
        if !is_written {
            self.server_lost(turn, slot);
        }
    }

    /// The server has answered, or cannot.
    pub(super) fn finish_errand(
        &mut self,
        turn: &mut Turn<'_>,
        errand: &Errand,
        answer: Result<(), ServerError>,
    ) {
        // The statement may have ended, and its connection with it, before the server looked.
        let is_gone = answer.as_ref().is_err_and(|error| error.code == 1094);
        let is_same = self
            .clients
            .get(errand.target.0)
            .is_some_and(|client| client.thread == errand.target.1);
        if answer.is_ok() && is_same {
            self.carry_out(turn, errand.target, errand.kill);
        }
        let answer = if is_gone { Err(kill::unknown(errand.kill.thread)) } else { answer };
        self.answer_kill(turn, errand.asker, answer);
    }

    /// The splitter's own part of it.
    fn carry_out(&mut self, turn: &mut Turn<'_>, target: (u32, u32), kill: Kill) {
        self.with_current(turn, target, |session, context, out| {
            if kill.is_query {
                session.interrupted(context, out);
            } else {
                session.killed(out);
            }
        });
    }

    fn answer_kill(
        &mut self,
        turn: &mut Turn<'_>,
        asker: (u32, u32),
        answer: Result<(), ServerError>,
    ) {
        self.with_current(turn, asker, |session, context, out| {
            session.kill_answered(context, answer, out);
        });
    }

    /// Runs a verb, if the slot still has the session that is meant. What comes of it is performed
    /// by the caller's turn, because the caller may be performing another session's acts.
    fn with_current(
        &mut self,
        turn: &mut Turn<'_>,
        (slot, thread): (u32, u32),
        verb: impl FnOnce(&mut Session, &Context<'_>, &mut crate::sql::session::Outbox),
    ) {
        if self.clients.get(slot).is_none_or(|client| client.thread != thread) {
            return;
        }
        let others = std::mem::take(&mut self.out);
        let (now, salt) = (turn.now, [0; SALT_BYTES]);
        let context = context!(self, now, salt);
        if let Some(client) = self.clients.get_mut(slot) {
            verb(&mut client.session, &context, &mut self.out);
            self.settle(turn, slot);
        }
        self.out = others;
    }
}

fn unreachable(why: &str) -> ServerError {
    ServerError::new(1105, b"HY000", format!("tandem: the server that runs it: {why}"))
}

/// The errand's connection broke.
pub(super) fn lost() -> ServerError {
    unreachable("connection lost")
}
