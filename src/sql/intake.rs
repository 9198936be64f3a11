//! The client half of a session: log-in, commands as they arrive, long commands on their way.
//!
//! In: bytes of the client. Out: as `session`. Must not: look at a command before there is enough
//! of it to decide, or keep more of it than that.
//! Read first: `session` for the picture; `command` for what each command is.

use crate::limits;
use crate::wire::{HostId, Reader};

use super::command::{self, Plan, code};
use super::handshake::{Plugin, capability};
use super::login::{self, Door, Entry, Guest};
use super::number;
use super::packet::{self, HEADER_BYTES, Header, PAYLOAD_MAX, ServerError, Walker, status};
use super::result::Kind;
use super::route::{Charset, Verdict};
use super::session::{Act, Context, Job, Outbox, Phase, Session};
use super::statement::LAST_ID;

impl Session {
    /// Bytes from the client.
    pub fn client_sent(&mut self, context: &Context<'_>, bytes: &[u8], out: &mut Outbox) {
        if !self.is_at_door() {
            // A log-in has its time as a whole, however often a byte of it comes.
            self.idle_since = context.now;
        }
        if self.inbox.is_empty() {
            let used = self.process(context, bytes, out);
            self.inbox.extend_from_slice(bytes.get(used..).unwrap_or(&[]));
        } else {
            self.inbox.extend_from_slice(bytes);
            self.process_inbox(context, out);
        }
    }

    /// Goes on with what the client sent ahead.
    pub(super) fn process_inbox(&mut self, context: &Context<'_>, out: &mut Outbox) {
        let mut inbox = std::mem::take(&mut self.inbox);
        let used = self.process(context, &inbox, out);
        if used == inbox.len() {
            // An idle session keeps no buffer.
            return;
        }
        inbox.drain(..used);
        self.inbox = inbox;
    }

    fn process(&mut self, context: &Context<'_>, bytes: &[u8], out: &mut Outbox) -> usize {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or(&[]);
            if rest.is_empty() {
                return used;
            }
            let step = match &self.phase {
                Phase::Door(_) => self.knock(context, rest, out),
                Phase::Idle => self.take_command(context, rest, out),
                Phase::Running { host, .. } => {
                    let host = *host;
                    self.upload(host, rest, out)
                }
                Phase::Closed => return bytes.len(),
                Phase::Arrived
                | Phase::Held { .. }
                | Phase::Opening(_)
                | Phase::Replaying { .. }
                | Phase::Killing => 0,
            };
            if step == 0 {
                return used;
            }
            used += step;
        }
    }

    /// A packet of the log-in.
    fn knock(&mut self, context: &Context<'_>, bytes: &[u8], out: &mut Outbox) -> usize {
        let Some((header, payload, rest)) = packet::split(bytes) else {
            if bytes.len() > limits::SQL_LOGIN_BYTES_MAX {
                self.close(out);
            }
            return 0;
        };
        let Phase::Door(door) = &mut self.phase else { return 0 };
        match door.packet(header, payload, context.users, &self.peer, &mut out.client) {
            Entry::Waiting => {}
            Entry::Secured => {
                // Never taken for a packet: it was not inside of TLS.
                out.acts.push(Act::Secure(rest.to_vec()));
                return bytes.len();
            }
            Entry::Admitted(guest, sequence) => self.admit(context, guest, sequence, out),
            Entry::Refused => {
                out.tally.refused += 1;
                self.close(out);
            }
        }
        HEADER_BYTES + header.length
    }

    /// The client proved who it is. If it asks for a database, a connection is taken right away,
    /// because a database that is not there must be told in place of the OK.
    fn admit(&mut self, context: &Context<'_>, guest: Guest, sequence: u8, out: &mut Outbox) {
        self.reading.charset = charset(guest.collation);
        self.database.clone_from(&guest.database);
        self.guest = guest;
        self.idle_since = context.now;
        if !context.config.local_infile {
            // Whatever the client claims: no server may ask it for a file.
            self.guest.capabilities &= !capability::LOCAL_FILES;
        }
        self.phase = Phase::Idle;
        if self.database.is_none() {
            packet::ok(&mut out.client, sequence, status::AUTOCOMMIT);
            return;
        }
        self.job = Some(Job {
            bytes: Vec::new(),
            kind: Kind::Results,
            statement: None,
            verdict: Verdict::READ,
            since: context.now,
            is_retried: false,
            needs_source: false,
            is_file: false,
            upload: None,
            admission: Some(sequence),
        });
        self.dispatch(context, out);
    }

    /// The next command, as soon as there is enough of it to decide.
    fn take_command(&mut self, context: &Context<'_>, bytes: &[u8], out: &mut Outbox) -> usize {
        let mut reader = Reader::new(bytes);
        let Ok(header) = Header::parse(&mut reader) else { return 0 };
        let whole = HEADER_BYTES + header.length;
        let (length, is_whole) = if bytes.len() >= whole && header.length < PAYLOAD_MAX {
            (whole, true)
        } else if bytes.len() >= limits::SQL_STATEMENT_BYTES_MAX {
            (bytes.len(), false)
        } else {
            return 0;
        };
        let packets = bytes.get(..length).unwrap_or(bytes);
        if header.sequence != 0 {
            let text = "Got packets out of order";
            self.fail(ServerError::new(1156, b"08S01", text), header.sequence, out);
            return length;
        }
        let payload = packets.get(HEADER_BYTES..).unwrap_or(&[]);
        match command::plan(payload, is_whole, self.reading) {
            Plan::Quit => self.close(out),
            _ if self.doom.is_some() => {
                if let Some(error) = self.doom.take() {
                    self.fail(error, 0, out);
                }
            }
            Plan::Pong => packet::ok(&mut out.client, 1, self.status()),
            Plan::Refuse(error) if is_whole => error.emit(&mut out.client, 1),
            Plan::Reset => {
                self.start_over(out);
                packet::ok(&mut out.client, 1, status::AUTOCOMMIT);
            }
            Plan::Kill(kill) => {
                out.acts.push(Act::Kill(kill));
                self.phase = Phase::Killing;
            }
            Plan::ChangeUser => self.change_user(context, payload, out),
            Plan::Refuse(error) => self.fail(error, 0, out),
            Plan::Forward(_, verdict) if verdict.is_risky && context.config.blocklist => {
                out.tally.blocked += 1;
                command::forbidden().emit(&mut out.client, 1);
            }
            Plan::Forward(kind, verdict) => {
                let upload = (!is_whole).then(Walker::default);
                let command = payload.first().copied().unwrap_or(0);
                let filled = self.filled(payload, &verdict);
                let packets = filled.as_deref().unwrap_or(packets);
                self.begin(context, packets, command, kind, verdict, upload, out);
            }
        }
        length
    }

    /// The packet with the session's own number in it, if it asks for that.
    fn filled(&self, payload: &[u8], verdict: &Verdict) -> Option<Vec<u8>> {
        if !verdict.asks_number {
            return None;
        }
        let (&command, text) = payload.split_first()?;
        let text = number::fill_in(text, self.number)?;
        let mut packets = Vec::with_capacity(HEADER_BYTES + 1 + text.len());
        packet::command(&mut packets, command, &text);
        Some(packets)
    }

    fn begin(
        &mut self,
        context: &Context<'_>,
        packets: &[u8],
        command: u8,
        kind: Kind,
        mut verdict: Verdict,
        mut upload: Option<Walker>,
        out: &mut Outbox,
    ) {
        let payload = packets.get(HEADER_BYTES..).unwrap_or(&[]);
        let mut statement = None;
        if NAME_A_STATEMENT.contains(&command) {
            let mut reader = Reader::new(payload.get(1..).unwrap_or(&[]));
            let id = match reader.u32_le().unwrap_or(0) {
                LAST_ID => self.last_statement,
                id => id,
            };
            if command == code::STMT_CLOSE {
                self.close_statement(id, out);
                return;
            }
            let is_on_source = HostId::ALL
                .into_iter()
                .filter_map(|host| self.leg(host))
                .any(|leg| leg.is_source && leg.prepared.iter().any(|handle| handle.id == id));
            let Some(known) = self.statements.iter_mut().find(|it| it.id == id) else {
                self.unknown_statement(id, kind, upload.is_some(), out);
                return;
            };
            if command == code::STMT_RESET && !known.is_bound {
                // It has no cursor and no long data on any connection.
                let status = self.status();
                packet::ok(&mut out.client, 1, status);
                return;
            }
            verdict = known.verdict(payload, is_on_source);
            statement = Some(id);
        }
        if let Some(walker) = &mut upload {
            let (mut used, mut is_whole) = (0, false);
            while used < packets.len() {
                let (step, packet) = walker.walk(packets.get(used..).unwrap_or(&[]));
                used += step;
                is_whole = packet.is_some_and(|packet| packet.length < PAYLOAD_MAX);
            }
            if is_whole {
                upload = None;
            }
        }
        self.job = Some(Job {
            bytes: packets.to_vec(),
            kind,
            statement,
            verdict,
            since: context.now,
            is_retried: false,
            needs_source: false,
            is_file: false,
            upload,
            admission: None,
        });
        self.dispatch(context, out);
    }

    /// Closes a statement on every connection that has it. Nobody waits for an answer.
    fn close_statement(&mut self, id: u32, out: &mut Outbox) {
        self.statements.retain(|it| it.id != id);
        for (leg, outbound) in self.legs.iter_mut().zip(&mut out.servers) {
            let Some(leg) = leg else { continue };
            if let Some(at) = leg.prepared.iter().position(|handle| handle.id == id) {
                let handle = leg.prepared.swap_remove(at);
                packet::command(outbound, code::STMT_CLOSE, &handle.server.to_le_bytes());
            }
        }
    }

    fn unknown_statement(&mut self, id: u32, kind: Kind, is_upload: bool, out: &mut Outbox) {
        if kind != Kind::Silent {
            let text = format!("Unknown prepared statement handler ({id}) given to the splitter");
            out.tally.errors += 1;
            ServerError::new(1243, b"HY000", text).emit(&mut out.client, 1);
        }
        if is_upload {
            self.close(out);
        }
    }

    /// The rest of a long command, on its way to the server.
    fn upload(&mut self, host: HostId, bytes: &[u8], out: &mut Outbox) -> usize {
        let Some(job) = &mut self.job else { return 0 };
        let Some(walker) = &mut job.upload else { return 0 };
        let (used, packet) = walker.walk(bytes);
        let is_last = packet.is_some_and(|packet| {
            // A file ends with an empty packet, a command with one that is not full.
            let is_empty = packet.length == 0 && !packet.is_continuation;
            if job.is_file { is_empty } else { packet.length < PAYLOAD_MAX }
        });
        if is_last {
            job.upload = None;
        }
        if let (Some(outbound), Some(part)) = (out.servers.get_mut(host.index()), bytes.get(..used))
        {
            outbound.extend_from_slice(part);
        }
        if self.job.as_ref().is_some_and(|job| job.upload.is_none() && job.kind == Kind::Silent) {
            self.job = None;
            self.phase = Phase::Idle;
        }
        used
    }

    /// Gives both connections back and forgets everything but who the client is.
    fn start_over(&mut self, out: &mut Outbox) {
        for host in HostId::ALL {
            self.release_leg(host, out);
        }
        self.settings.clear();
        self.reading.charset = charset(self.guest.collation);
        (self.is_pinned, self.pinned_by) = (false, None);
        self.statements = Vec::new();
        self.last_statement = 0;
        self.last_host = None;
    }

    fn change_user(&mut self, context: &Context<'_>, payload: &[u8], out: &mut Outbox) {
        let argument = payload.get(1..).unwrap_or(&[]);
        let capabilities = self.guest.capabilities;
        let parsed = login::parse_change_user(argument, capabilities, context.users);
        let Some((name, guest)) = parsed else {
            self.fail(ServerError::new(1047, b"08S01", "Unknown command"), 0, out);
            return;
        };
        self.start_over(out);
        let named = guest.capabilities & capability::PLUGIN_AUTH != 0;
        let plugin = if named && argument.windows(12).any(|it| it == b"caching_sha2") {
            Plugin::CachingSha2
        } else {
            Plugin::Native
        };
        let door = Door::change(context.salt, plugin, &name, guest, 1, &mut out.client);
        self.phase = Phase::Door(door);
    }
}

/// Commands whose first argument is a statement's number.
const NAME_A_STATEMENT: [u8; 5] = [
    code::STMT_EXECUTE,
    code::STMT_SEND_LONG_DATA,
    code::STMT_CLOSE,
    code::STMT_RESET,
    code::STMT_FETCH,
];

/// The character set of a log-in. A server that does not know the collation falls back to its own
/// default: the last one of UTF-8 is MySQL's alone.
fn charset(id: u8) -> Charset {
    use mysql_common::collations::{Collation, CollationId};
    let collation = Collation::resolve(CollationId::from(u16::from(id)));
    match Charset::of(collation.charset().as_bytes()) {
        Charset::Utf8 if id == UTF8MB4_0900_AI_CI => Charset::Plain,
        known @ (Charset::Utf8 | Charset::Plain | Charset::Unknown) => known,
    }
}

/// Its siblings have ids of two bytes.
const UTF8MB4_0900_AI_CI: u8 = 255;
