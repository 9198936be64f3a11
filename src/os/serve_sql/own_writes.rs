//! The two connections by which the source's position is followed to the replica.
//!
//! In: the questions of `sql::own_writes`. Out: the servers' answers to it. Must not: keep a
//! connection to a server that changed its role. Read first: `sql::own_writes`.

use crate::limits;
use crate::os::plane::Turn;
use crate::sql::command::code;
use crate::sql::packet;
use crate::sql::pool;
use crate::sql::result::{self, Kind, Reply};
use crate::time::Instant;
use crate::wire::HostId;

use super::ServeSql;
use super::servers::{PROBE_COLLATION, Purpose, Stage};

impl ServeSql {
    /// Asks whoever is to be asked something.
    pub(super) fn follow_writes(&mut self, turn: &mut Turn<'_>) {
        let Some(host) = self.own_writes.host(turn.now) else { return };
        match self.askers[host.index()] {
            Some(slot) => self.ask(turn, host, slot),
            None => {
                let Some(user) = self.users.first() else { return };
                let key = pool::Key::new(host, user, 0, PROBE_COLLATION);
                match self.connect(turn, key, None, Purpose::Ask) {
                    Ok(slot) => self.askers[host.index()] = Some(slot),
                    Err(error) => {
                        log::debug!("{}: {error}", self.site.servers[host.index()]);
                        self.own_writes.failed(turn.now);
                    }
                }
            }
        }
    }

    fn ask(&mut self, turn: &Turn<'_>, host: HostId, slot: u32) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let Stage::Asking { reply: reply @ None, answer } = &mut server.stage else { return };
        let version = self.facts[host.index()].as_ref().map_or("", |facts| &facts.version);
        let question = self.own_writes.ask(turn.now, version);
        *reply = Some(Box::new(Reply::new(Kind::Results, false)));
        answer.clear();
        let mut bytes = Vec::new();
        packet::command(&mut bytes, code::QUERY, question.as_bytes());
        server.write(&mut self.sealed, &bytes);
        server.deadline = Some(turn.now + limits::SQL_SERVER_SILENCE);
        self.postpone_server(slot);
        self.watch_server(slot);
    }

    /// Bytes of a server that was asked.
    pub(super) fn asker_heard(&mut self, turn: &mut Turn<'_>, slot: u32, count: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let Stage::Asking { reply, answer } = &mut server.stage else { return };
        let bytes = turn.buffer.get(..count).unwrap_or(&[]);
        let Some(pending) = reply else {
            // Nobody asked: it says goodbye.
            self.server_lost(turn, slot);
            return;
        };
        pending.feed(bytes);
        answer.extend_from_slice(bytes);
        if pending.is_broken || answer.len() > limits::SQL_POSITION_BYTES_MAX {
            self.server_lost(turn, slot);
        } else if pending.is_done() {
            let value = result::only_value(answer);
            self.own_writes.answered(turn.now, value);
            *answer = Vec::new();
            *reply = None;
            server.deadline = Some(turn.now + limits::SQL_POOL_IDLE);
            self.watch_server(slot);
        }
    }

    /// The connection is gone, whatever it was to be used for.
    pub(super) fn asker_lost(&mut self, turn: &Turn<'_>, slot: u32, was_busy: bool) {
        for asker in &mut self.askers {
            if *asker == Some(slot) {
                *asker = None;
                if was_busy {
                    self.own_writes.failed(turn.now);
                }
            }
        }
    }

    /// They are not to be used any longer; what they were asked is asked again if it matters.
    pub(super) fn replace_askers(&mut self, now: Instant) {
        if self.askers.iter().any(Option::is_some) {
            self.dismiss_askers();
            self.own_writes.failed(now);
        }
    }

    pub(super) fn dismiss_askers(&mut self) {
        for slot in std::mem::take(&mut self.askers).into_iter().flatten() {
            self.close_server(slot);
        }
    }
}
