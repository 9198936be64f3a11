//! Logging in, from both ends: `Door` checks a client without any server, `Login` opens a
//! connection to a server.
//!
//! In: packets of the log-in phase, random bytes. Out: packets, and who came in or why not.
//! Must not: read a clock or draw random bytes; say anything after a refusal.
//! Read first: facts/sql.md sections 5.3 and 6; `handshake` for the packets, `auth` for proofs.
//!
//! ```text
//! Door:   greeting -> Greeted --proof fits--> in          Login: Greeting -> Proof --OK--> in
//!          TLS asked -^   `--other plugin--> Switched --> in         switch, 01 04 -> Key -> Proof
//! ```

use crate::wire::Reader;

use super::auth;
use super::handshake::{self, Facts, Greeting, OFFERED, Plugin, Response, Salt, capability};
use super::packet::{self, Header, ServerError, mark};
use super::users::{UserId, Users};
use super::{ServerTls, User};

/// Who came in, and how the session is to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// `None` where there is nobody of that name.
    pub user: Option<UserId>,
    pub capabilities: u32,
    pub collation: u8,
    pub database: Option<Vec<u8>>,
}

/// How a client's connection stands to TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// There is no certificate, or nobody can listen (a unix socket).
    Off,
    Offered,
    /// Without it the client is refused.
    Required,
    /// Everything from here on is inside of it.
    On,
}

/// What a step of the door led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The client has to send another packet.
    Waiting,
    /// What follows the packet is TLS, and the client's answer inside of it.
    Secured,
    /// The proof fits; the caller says OK with this sequence number, or ERR.
    Admitted(Guest, u8),
    /// The client was told; nothing it sends from here on is read.
    Refused,
}

/// The splitter's own side of a client's log-in.
#[derive(Debug)]
pub struct Door {
    salt: Salt,
    plugin: Plugin,
    tls: Tls,
    /// Set once the client was asked to prove itself by another plugin.
    switched: Option<Claim>,
}

#[derive(Debug)]
struct Claim {
    name: Vec<u8>,
    guest: Guest,
}

impl Door {
    #[must_use]
    pub const fn new(salt: Salt, plugin: Plugin, tls: Tls) -> Self {
        Self { salt, plugin, tls, switched: None }
    }

    /// Writes the greeting.
    pub fn greet(&self, facts: &Facts, thread: u32, out: &mut Vec<u8>) {
        let has_tls = self.tls != Tls::Off;
        let greeting = Greeting { facts: facts.clone(), thread, salt: self.salt, has_tls };
        packet::frame(out, 0, |out| greeting.emit(out));
    }

    /// Starts over for COM_CHANGE_USER: whoever it is must answer a fresh salt.
    pub fn change(
        salt: Salt,
        plugin: Plugin,
        name: &[u8],
        guest: Guest,
        sequence: u8,
        out: &mut Vec<u8>,
    ) -> Self {
        handshake::auth_switch(out, sequence, plugin, &salt);
        // Whatever the connection is, it was good enough for the first log-in.
        let tls = Tls::On;
        Self { salt, plugin, tls, switched: Some(Claim { name: name.to_vec(), guest }) }
    }

    /// Takes one packet of the client.
    pub fn packet(
        &mut self,
        header: Header,
        payload: &[u8],
        users: &Users,
        peer: &str,
        out: &mut Vec<u8>,
    ) -> Entry {
        let sequence = header.sequence.wrapping_add(1);
        if let Some(Claim { name, mut guest }) = self.switched.take() {
            // Meanwhile somebody else may have the name.
            guest.user = users.find(&name).map(|(id, _)| id);
            let is_admitted = self.admits(self.plugin, &name, payload, users);
            return self.answer(
                is_admitted,
                &name,
                !payload.is_empty(),
                guest,
                sequence,
                peer,
                out,
            );
        }
        if handshake::is_tls_request(payload) && matches!(self.tls, Tls::Offered | Tls::Required) {
            self.tls = Tls::On;
            return Entry::Secured;
        }
        let Some(response) = self.parse(payload, sequence, out) else { return Entry::Refused };
        let guest = Guest {
            user: users.find(response.user).map(|(id, _)| id),
            capabilities: response.capabilities & OFFERED,
            collation: response.collation,
            database: response.database.map(<[u8]>::to_vec),
        };
        let claimed = response.plugin.unwrap_or(Plugin::Native);
        let is_admitted = self.admits(claimed, response.user, response.proof, users);
        if !is_admitted && claimed != self.plugin && response.plugin.is_some() {
            // The client made its proof for a plugin of its own choice: ask again, by that plugin
            // if it is spoken here. The salt stays the same, as servers keep it.
            if claimed != Plugin::Unknown {
                self.plugin = claimed;
            }
            handshake::auth_switch(out, sequence, self.plugin, &self.salt);
            self.switched = Some(Claim { name: response.user.to_vec(), guest });
            return Entry::Waiting;
        }
        self.plugin = claimed;
        let has_proof = !response.proof.is_empty();
        self.answer(is_admitted, response.user, has_proof, guest, sequence, peer, out)
    }

    /// The client's answer, or none after it was told why not.
    fn parse<'a>(
        &self,
        payload: &'a [u8],
        sequence: u8,
        out: &mut Vec<u8>,
    ) -> Option<Response<'a>> {
        let is_plain = self.tls != Tls::On;
        let response = Response::parse(payload)
            .ok()
            .filter(|it| !is_plain || it.capabilities & capability::SSL == 0);
        if response.is_none() {
            let offer = if self.tls == Tls::Off { " without TLS" } else { "" };
            let text = format!("Bad handshake: the splitter speaks protocol 4.1{offer}");
            ServerError::new(1043, b"08S01", text).emit(out, sequence);
        } else if self.tls == Tls::Required {
            // MySQL: ER_SECURE_TRANSPORT_REQUIRED.
            let text = "Connections using insecure transport are prohibited: the splitter's \
                        require_tls is set, so connect with TLS";
            ServerError::new(3159, b"HY000", text).emit(out, sequence);
            return None;
        }
        response
    }

    fn admits(&self, plugin: Plugin, name: &[u8], given: &[u8], users: &Users) -> bool {
        users.find(name).is_some_and(|(_, user)| {
            auth::is_proved(plugin, &self.salt, user.password.reveal(), given)
        })
    }

    fn answer(
        &self,
        is_admitted: bool,
        name: &[u8],
        has_proof: bool,
        guest: Guest,
        sequence: u8,
        peer: &str,
        out: &mut Vec<u8>,
    ) -> Entry {
        if !is_admitted {
            let name = String::from_utf8_lossy(name);
            let using = if has_proof { "YES" } else { "NO" };
            let text =
                format!("Access denied for user '{name}'@'{peer}' (using password: {using})");
            ServerError::new(1045, b"28000", text).emit(out, sequence);
            return Entry::Refused;
        }
        let mut sequence = sequence;
        if self.plugin == Plugin::CachingSha2 && has_proof {
            packet::frame(out, sequence, |out| out.extend_from_slice(&[mark::AUTH_MORE, FAST_OK]));
            sequence = sequence.wrapping_add(1);
        }
        Entry::Admitted(guest, sequence)
    }
}

/// COM_CHANGE_USER's argument: whom the client wants to become.
#[must_use]
pub fn parse_change_user(
    argument: &[u8],
    capabilities: u32,
    users: &Users,
) -> Option<(Vec<u8>, Guest)> {
    let mut reader = Reader::new(argument);
    let name = reader.until_nul().ok()?;
    let count = reader.u8().ok()?;
    reader.take(count.into()).ok()?;
    let database = reader.until_nul().ok()?;
    let [collation, _] = reader.array().unwrap_or([45, 0]);
    let guest = Guest {
        user: users.find(name).map(|(id, _)| id),
        capabilities,
        collation,
        database: Some(database.to_vec()).filter(|name| !name.is_empty()),
    };
    Some((name.to_vec(), guest))
}

/// What a step of a log-in to a server led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    Waiting,
    /// TLS begins, and `respond` writes what is first said in it.
    Secured,
    Done,
    /// The server refused, or is not one that the splitter can talk to.
    Failed(ServerError),
}

/// The splitter as a client of a server.
#[derive(Debug)]
pub struct Login {
    pub user: String,
    pub password: crate::units::Secret,
    pub database: Option<Vec<u8>>,
    pub capabilities: u32,
    pub collation: u8,
    /// What the server's greeting said, once it came.
    pub facts: Option<Facts>,
    /// The number that the server gave to this connection.
    pub thread: u32,
    salt: Salt,
    plugin: Plugin,
    /// Nobody can listen, so that the password may travel as it is (MySQL: a unix socket, TLS).
    pub is_private: bool,
    /// Whether to go on in TLS.
    pub tls: ServerTls,
    is_secured: bool,
    is_key_awaited: bool,
    partial: Vec<u8>,
}

impl Login {
    #[must_use]
    pub fn new(user: &User, capabilities: u32, collation: u8, database: Option<Vec<u8>>) -> Self {
        Self {
            user: user.name.clone(),
            password: user.password.clone(),
            database,
            capabilities,
            collation,
            facts: None,
            thread: 0,
            salt: [0; handshake::SALT_BYTES],
            plugin: Plugin::Native,
            is_private: false,
            tls: ServerTls::Off,
            is_secured: false,
            is_key_awaited: false,
            partial: Vec::new(),
        }
    }

    /// Takes bytes of the server. `seed` is fresh random bytes, used at most once.
    pub fn feed(&mut self, bytes: &[u8], seed: Salt, out: &mut Vec<u8>) -> Progress {
        self.partial.extend_from_slice(bytes);
        let partial = std::mem::take(&mut self.partial);
        let mut rest = partial.as_slice();
        let mut progress = Progress::Waiting;
        while progress == Progress::Waiting
            && let Some((header, payload, after)) = packet::split(rest)
        {
            progress = self.packet(header, payload, seed, out);
            rest = after;
        }
        if progress == Progress::Waiting && rest.len() > LOGIN_BYTES_MAX {
            progress = failed("the server's log-in packet is longer than any log-in packet is");
        }
        if progress == Progress::Secured && !rest.is_empty() {
            // Else somebody's clear words would be taken for the server's secured ones.
            progress = failed("the server went on in the clear where TLS begins");
        }
        self.partial = rest.to_vec();
        progress
    }

    fn packet(
        &mut self,
        header: Header,
        payload: &[u8],
        seed: Salt,
        out: &mut Vec<u8>,
    ) -> Progress {
        let sequence = header.sequence.wrapping_add(1);
        if payload.first() == Some(&mark::ERR) {
            return Progress::Failed(
                ServerError::parse(payload)
                    .unwrap_or_else(|_| ServerError::new(1043, b"08S01", "a malformed refusal")),
            );
        }
        let Some(facts) = &self.facts else {
            return self.greeted(payload, sequence, out);
        };
        match (payload.first(), payload.get(1)) {
            (Some(&mark::OK), _) => Progress::Done,
            (Some(&mark::EOF), _) => self.switch(payload, sequence, out),
            (Some(&mark::AUTH_MORE), _) if self.is_key_awaited => {
                self.is_key_awaited = false;
                let pem = payload.get(1..).unwrap_or(&[]);
                match auth::encrypt(self.password.reveal(), &self.salt, pem, seed) {
                    Ok(sealed) => {
                        packet::frame(out, sequence, |out| out.extend_from_slice(&sealed));
                        Progress::Waiting
                    }
                    Err(error) => failed(&format!("the server's public key is {error:?}")),
                }
            }
            (Some(&mark::AUTH_MORE), Some(&FAST_OK)) => Progress::Waiting,
            (Some(&mark::AUTH_MORE), Some(&FULL_AUTHENTICATION)) if self.is_private => {
                packet::frame(out, sequence, |out| {
                    out.extend_from_slice(self.password.reveal().as_bytes());
                    out.push(0);
                });
                Progress::Waiting
            }
            (Some(&mark::AUTH_MORE), Some(&FULL_AUTHENTICATION)) => {
                // Over a plain connection the password travels under the server's RSA key.
                self.is_key_awaited = true;
                packet::frame(out, sequence, |out| out.push(REQUEST_KEY));
                Progress::Waiting
            }
            _ => failed(&format!("the server {} broke the log-in protocol", facts.version)),
        }
    }

    fn greeted(&mut self, payload: &[u8], sequence: u8, out: &mut Vec<u8>) -> Progress {
        let Ok(greeting) = Greeting::parse(payload) else {
            return failed("the server's greeting is not of protocol 10");
        };
        self.salt = greeting.salt;
        self.thread = greeting.thread;
        self.plugin = match greeting.facts.plugin {
            Plugin::Unknown => Plugin::Native,
            known @ (Plugin::Native | Plugin::CachingSha2) => known,
        };
        // A server that reads no local files says so when it is asked to.
        let needed = handshake::RELAYED & !capability::LOCAL_FILES;
        let missing = self.capabilities & needed & !greeting.facts.capabilities;
        self.facts = Some(greeting.facts);
        if missing != 0 {
            return failed(&format!(
                "this server lacks what the client was promised: {missing:#x}"
            ));
        }
        if self.tls != ServerTls::Off {
            if greeting.has_tls {
                (self.is_secured, self.is_private) = (true, true);
                let response = self.response(&[]);
                packet::frame(out, sequence, |out| response.emit_head(out));
                return Progress::Secured;
            }
            if self.tls != ServerTls::Prefer {
                return Progress::Failed(ServerError::new(2026, b"HY000", NO_TLS));
            }
        }
        self.prove(sequence, out);
        Progress::Waiting
    }

    /// Writes what is first said inside of TLS: the answer to the greeting.
    pub fn respond(&self, out: &mut Vec<u8>) {
        // After the greeting, 0, and the request, 1.
        self.prove(2, out);
    }

    fn prove(&self, sequence: u8, out: &mut Vec<u8>) {
        let proof = auth::proof(self.plugin, &self.salt, self.password.reveal());
        let response = self.response(&proof);
        packet::frame(out, sequence, |out| response.emit(out));
    }

    fn response<'a>(&'a self, proof: &'a [u8]) -> Response<'a> {
        let tls = if self.is_secured { capability::SSL } else { 0 };
        Response {
            capabilities: self.capabilities | tls,
            collation: self.collation,
            user: self.user.as_bytes(),
            proof,
            database: self.database.as_deref(),
            plugin: Some(self.plugin),
        }
    }

    fn switch(&mut self, payload: &[u8], sequence: u8, out: &mut Vec<u8>) -> Progress {
        let mut reader = Reader::new(payload);
        let (Ok(_), Ok(name)) = (reader.take(1), reader.until_nul()) else {
            return failed("the server asks for mysql_old_password");
        };
        self.plugin = Plugin::parse(name);
        let Ok(salt) = reader.array() else {
            return failed("the server's salt is short");
        };
        if self.plugin == Plugin::Unknown {
            let name = String::from_utf8_lossy(name);
            return failed(&format!("user {} needs {name}, which is not spoken", self.user));
        }
        self.salt = salt;
        let proof = auth::proof(self.plugin, &self.salt, self.password.reveal());
        packet::frame(out, sequence, |out| out.extend_from_slice(&proof));
        Progress::Waiting
    }
}

/// What a server that has no TLS gets under server_tls = "require" and "verify".
const NO_TLS: &str = "tandem: the server offers no TLS and sql.server_tls asks for it: give the \
                      server a certificate, or write \"prefer\"";

fn failed(text: &str) -> Progress {
    Progress::Failed(ServerError::new(1105, b"HY000", format!("tandem: {text}")))
}

/// MySQL: caching_sha2_password's second byte after AuthMoreData, and its key request.
const REQUEST_KEY: u8 = 2;
const FAST_OK: u8 = 3;
const FULL_AUTHENTICATION: u8 = 4;

/// The longest packet that a log-in has is a public key in PEM form.
const LOGIN_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Secret;

    const SALT: Salt = *b"abcdefghijklmnopqrst";

    fn users() -> Vec<User> {
        let user = |name: &str, password: &str| User {
            name: name.to_owned(),
            password: Secret::Text(password.to_owned()),
        };
        vec![user("app", "secret"), user("open", "")]
    }

    fn roster() -> Users {
        Users::new(&users())
    }

    fn facts(plugin: Plugin) -> Facts {
        Facts { plugin, capabilities: OFFERED, ..Facts::unknown() }
    }

    /// Lets the two machines talk until one of them has decided.
    fn converse(plugin: Plugin, user: &User) -> (Entry, Progress) {
        let mut door = Door::new(SALT, plugin, Tls::Off);
        let mut login = Login::new(user, handshake::RELAYED, 45, Some(b"db".to_vec()));
        let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
        door.greet(&facts(plugin), 9, &mut to_client);
        let (mut entry, mut progress) = (Entry::Waiting, Progress::Waiting);
        while progress == Progress::Waiting {
            let bytes = std::mem::take(&mut to_client);
            assert!(!bytes.is_empty(), "the door is silent");
            progress = login.feed(&bytes, [1; 20], &mut to_server);
            let bytes = std::mem::take(&mut to_server);
            if let Some((header, payload, rest)) = packet::split(&bytes) {
                assert!(rest.is_empty());
                entry = door.packet(header, payload, &roster(), "peer", &mut to_client);
                if let Entry::Admitted(_, sequence) = entry {
                    packet::ok(&mut to_client, sequence, packet::status::AUTOCOMMIT);
                }
            }
        }
        (entry, progress)
    }

    #[test]
    fn both_ends_agree_by_either_plugin() {
        for plugin in [Plugin::Native, Plugin::CachingSha2] {
            for user in &users() {
                let (entry, progress) = converse(plugin, user);
                assert!(
                    matches!(&entry, Entry::Admitted(guest, _) if guest.collation == 45
                        && guest.database.as_deref() == Some(b"db")),
                    "{plugin:?}: {entry:?}"
                );
                assert_eq!(progress, Progress::Done);
            }
        }
    }

    #[test]
    fn a_wrong_password_or_name_is_refused_with_1045() {
        for plugin in [Plugin::Native, Plugin::CachingSha2] {
            for (name, password) in [("app", "wrong"), ("app", ""), ("nobody", "secret")] {
                let user = User { name: name.into(), password: Secret::Text(password.into()) };
                let (entry, progress) = converse(plugin, &user);
                assert_eq!(entry, Entry::Refused);
                assert!(matches!(progress, Progress::Failed(error) if error.code == 1045));
            }
        }
    }

    #[test]
    fn a_client_of_another_plugin_is_switched() {
        let mut door = Door::new(SALT, Plugin::Native, Tls::Off);
        let mut out = Vec::new();
        let mut answer = Vec::new();
        Response {
            capabilities: handshake::RELAYED,
            collation: 45,
            user: b"app",
            proof: b"",
            database: None,
            plugin: Some(Plugin::CachingSha2),
        }
        .emit(&mut answer);
        let header = Header { length: answer.len(), sequence: 1 };
        assert_eq!(door.packet(header, &answer, &roster(), "peer", &mut out), Entry::Waiting);
        assert!(out.windows(21).any(|it| it == b"caching_sha2_password"));
        let given = auth::proof(Plugin::CachingSha2, &SALT, "secret");
        let header = Header { length: given.len(), sequence: 3 };
        out.clear();
        let entry = door.packet(header, &given, &roster(), "peer", &mut out);
        assert!(matches!(entry, Entry::Admitted(Guest { user: Some(UserId(0)), .. }, 5)));
        assert_eq!(&out[..6], b"\x02\0\0\x04\x01\x03", "fast authentication, then OK");
    }

    #[test]
    fn a_cold_cache_gets_the_password_under_the_servers_key() {
        let mut login = Login::new(&users()[0], 0, 45, None);
        let mut out = Vec::new();
        let mut hello = Vec::new();
        Door::new(SALT, Plugin::CachingSha2, Tls::Off).greet(
            &facts(Plugin::CachingSha2),
            1,
            &mut hello,
        );
        assert_eq!(login.feed(&hello, [1; 20], &mut out), Progress::Waiting);
        out.clear();
        assert_eq!(login.feed(b"\x02\0\0\x02\x01\x04", [1; 20], &mut out), Progress::Waiting);
        assert_eq!(out, b"\x01\0\0\x03\x02");
        let progress = login.feed(b"\x05\0\0\x04\x01junk", [1; 20], &mut out);
        assert!(matches!(progress, Progress::Failed(_)), "a malformed key is no panic");
    }

    #[test]
    fn a_server_that_lacks_a_promise_is_refused() {
        let mut login = Login::new(&users()[0], handshake::RELAYED, 45, None);
        let mut hello = Vec::new();
        Door::new(SALT, Plugin::Native, Tls::Off).greet(&Facts::unknown(), 1, &mut hello);
        assert!(matches!(login.feed(&hello, [1; 20], &mut Vec::new()), Progress::Failed(_)));
        assert!(login.facts.is_some(), "what it said is learned all the same");
    }

    /// Sends a client's packets to a door; what it came to, and what was said.
    fn knock(tls: Tls, packets: &[&[u8]]) -> (Entry, Vec<u8>) {
        let mut door = Door::new(SALT, Plugin::Native, tls);
        let (mut entry, mut out) = (Entry::Waiting, Vec::new());
        for (sequence, payload) in (1..).zip(packets) {
            let header = Header { length: payload.len(), sequence };
            entry = door.packet(header, payload, &roster(), "peer", &mut out);
        }
        (entry, out)
    }

    #[test]
    fn tls_is_asked_for_where_it_is_offered_and_once() {
        let proof = auth::proof(Plugin::Native, &SALT, "secret");
        let answer = Response {
            capabilities: capability::SSL,
            collation: 45,
            user: b"app",
            proof: &proof,
            database: None,
            plugin: Some(Plugin::Native),
        };
        let (mut request, mut whole, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        answer.emit_head(&mut request);
        answer.emit(&mut whole);
        Response { capabilities: 0, ..answer }.emit(&mut plain);
        let error = |out: &[u8]| u16::from_le_bytes([out[5], out[6]]);
        for tls in [Tls::Offered, Tls::Required] {
            assert_eq!(knock(tls, &[&request]), (Entry::Secured, Vec::new()));
            let (entry, _) = knock(tls, &[&request, &whole]);
            let is_in = matches!(entry, Entry::Admitted(Guest { user: Some(UserId(0)), .. }, 3));
            assert!(is_in, "{entry:?}");
            // No second request inside of it, and no whole answer that claims to be.
            let (entry, out) = knock(tls, &[&request, &request]);
            assert_eq!((entry, error(&out)), (Entry::Refused, 1043));
            let (entry, out) = knock(tls, &[&whole]);
            assert_eq!((entry, error(&out)), (Entry::Refused, 1043));
        }
        let (entry, out) = knock(Tls::Off, &[&request]);
        assert_eq!((entry, error(&out)), (Entry::Refused, 1043));
        assert!(matches!(knock(Tls::Offered, &[&plain]).0, Entry::Admitted(..)));
        let (entry, out) = knock(Tls::Required, &[&plain]);
        assert_eq!((entry, error(&out)), (Entry::Refused, 3159), "although the proof fits");
    }

    #[test]
    fn a_server_is_asked_for_tls_as_the_configuration_says() {
        let greet = |tls, has_tls| {
            let mut login = Login::new(&users()[0], 0, 45, None);
            login.tls = tls;
            let offer = if has_tls { Tls::Offered } else { Tls::Off };
            let (mut hello, mut out) = (Vec::new(), Vec::new());
            Door::new(SALT, Plugin::CachingSha2, offer).greet(
                &facts(Plugin::CachingSha2),
                1,
                &mut hello,
            );
            let progress = login.feed(&hello, [1; 20], &mut out);
            (login, progress, out)
        };
        for (tls, has_tls) in
            [(ServerTls::Off, true), (ServerTls::Off, false), (ServerTls::Prefer, false)]
        {
            let (mut login, progress, out) = greet(tls, has_tls);
            assert_eq!(progress, Progress::Waiting);
            assert!(out.windows(4).any(|it| it == b"app\0"), "{tls:?}");
            login.feed(b"\x02\0\0\x02\x01\x04", [1; 20], &mut Vec::new());
            assert!(login.is_key_awaited, "in the clear the password goes under the key");
        }
        for tls in [ServerTls::Prefer, ServerTls::Require, ServerTls::Verify] {
            let (mut login, progress, mut out) = greet(tls, true);
            assert_eq!(progress, Progress::Secured);
            let (header, payload, rest) = packet::split(&out).expect("a packet");
            assert!(handshake::is_tls_request(payload) && rest.is_empty());
            assert_eq!(header.sequence, 1);
            out.clear();
            login.respond(&mut out);
            assert!(out[3] == 2 && out.windows(4).any(|it| it == b"app\0"));
            out.clear();
            login.feed(b"\x02\0\0\x03\x01\x04", [1; 20], &mut out);
            assert_eq!(out, b"\x07\0\0\x04secret\0", "a cold cache");
        }
        for tls in [ServerTls::Require, ServerTls::Verify] {
            let (_, progress, out) = greet(tls, false);
            assert!(matches!(&progress, Progress::Failed(error) if error.code == 2026));
            assert!(out.is_empty(), "not a word to a server without it");
        }
    }

    #[test]
    fn what_a_server_adds_to_its_greeting_in_the_clear_is_refused() {
        let mut login = Login::new(&users()[0], 0, 45, None);
        login.tls = ServerTls::Prefer;
        let mut hello = Vec::new();
        Door::new(SALT, Plugin::Native, Tls::Offered).greet(&facts(Plugin::Native), 1, &mut hello);
        packet::ok(&mut hello, 3, packet::status::AUTOCOMMIT);
        let progress = login.feed(&hello, [1; 20], &mut Vec::new());
        assert!(matches!(progress, Progress::Failed(_)), "{progress:?}");
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut hello = Vec::new();
        Door::new(SALT, Plugin::CachingSha2, Tls::Off).greet(
            &facts(Plugin::CachingSha2),
            1,
            &mut hello,
        );
        hello.extend_from_slice(b"\x2c\0\0\x02\xfecaching_sha2_password\0abcdefghijklmnopqrst\0");
        hello.extend_from_slice(b"\x02\0\0\x04\x01\x03\x07\0\0\x05\0\0\0\x02\0\0\0");
        for index in 0..hello.len() * 8 {
            let mut broken = hello.clone();
            broken[index / 8] ^= 1 << (index % 8);
            let mut login = Login::new(&users()[0], 0, 45, None);
            let _ = login.feed(&broken, [1; 20], &mut Vec::new());
            let mut door = Door::new(SALT, Plugin::Native, Tls::Off);
            let header = Header { length: broken.len(), sequence: 1 };
            let _ = door.packet(header, &broken, &roster(), "peer", &mut Vec::new());
        }
        let argument = b"app\0\x03abcdb\0\x2d\0";
        for cut in 0..argument.len() {
            let _ = parse_change_user(&argument[..cut], 0, &roster());
        }
        let (name, guest) = parse_change_user(argument, 0, &roster()).expect("parses");
        assert_eq!((name.as_slice(), guest.database.as_deref()), (&b"app"[..], Some(&b"db"[..])));
    }
}
