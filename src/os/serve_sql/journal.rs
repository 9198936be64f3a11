//! What statements came to: digests, the slow log.
//!
//! In: statements that were answered to their end. Out: counts, a log line for a slow one.
//! Must not: log a literal of a statement. Read first: `sql::digest`.

use crate::console::note::Note;
use crate::os::notes;
use crate::sql::command::code;
use crate::sql::digest::{Ended, Finished};
use crate::sql::packet::HEADER_BYTES;
use crate::time::Instant;

use super::ServeSql;

impl ServeSql {
    pub(super) fn note_finished(&mut self, now: Instant, slot: u32, finished: &mut Vec<Finished>) {
        for done in finished.drain(..) {
            let took = now.since(done.since);
            let Some(client) = self.clients.get(slot) else { continue };
            let text = client.session.text_of(&done.packets, done.statement);
            if let Some(digests) = &mut self.digests {
                let ended = Ended { host: done.host, took, is_error: done.error.is_some() };
                match (done.packets.get(HEADER_BYTES), text) {
                    (Some(&(code::QUERY | code::STMT_EXECUTE)), Some(text)) => {
                        digests.note(text, ended);
                    }
                    (Some(&code::STMT_EXECUTE), None) => digests.note(TEXT_NOT_KEPT, ended),
                    (None, _) => digests.note(TOO_LONG, ended),
                    (Some(_), _) => {}
                }
            }
            if self.config.slow_limit.is_some_and(|limit| took >= limit) {
                self.status.slow += 1;
                self.log_slow(slot, &done, took.as_millis());
            }
        }
    }

    fn log_slow(&self, slot: u32, done: &Finished, milliseconds: u128) {
        let Some(client) = self.clients.get(slot) else { return };
        let session = &client.session;
        let error = done.error.map_or_else(String::new, |code| format!(", error {code}"));
        let database = session.database().map(|it| String::from_utf8_lossy(it));
        let what = format!(
            "slow: {milliseconds} ms on {}, session {} of {}@{}, database {:?}, {} rows, {} \
             bytes{error}: {}",
            self.site.servers[done.host.index()],
            client.thread,
            self.name_of(session.guest().user),
            session.peer(),
            database.unwrap_or_default(),
            done.rows,
            done.bytes,
            session.describe(&done.packets, done.statement),
        );
        notes::tell(&Note::SlowStatement { what });
    }
}

const TEXT_NOT_KEPT: &[u8] = b"(a prepared statement whose text is not kept)";
const TOO_LONG: &[u8] = b"(a statement too long to keep)";
