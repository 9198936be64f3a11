//! The log-in packets: the server's greeting and the client's answer, read and written.
//!
//! In: payloads of both directions. Out: typed greetings and answers; payloads. Must not: decide
//! who may log in (that is `auth`). Read first: MySQL internals, "Protocol::HandshakeV10",
//! "Protocol::HandshakeResponse41"; facts/sql.md 5.3.

use std::fmt;

use crate::wire::{Reader, Short};

use super::packet;

/// Capability flags, by their MySQL names without CLIENT_.
pub mod capability {
    /// MariaDB reads a cleared bit as "extended capabilities follow", so it is always set.
    pub const LONG_PASSWORD: u32 = 1;
    pub const FOUND_ROWS: u32 = 1 << 1;
    pub const LONG_FLAG: u32 = 1 << 2;
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    pub const NO_SCHEMA: u32 = 1 << 4;
    pub const ODBC: u32 = 1 << 6;
    pub const LOCAL_FILES: u32 = 1 << 7;
    pub const IGNORE_SPACE: u32 = 1 << 8;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const INTERACTIVE: u32 = 1 << 10;
    pub const SSL: u32 = 1 << 11;
    pub const IGNORE_SIGPIPE: u32 = 1 << 12;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const MULTI_STATEMENTS: u32 = 1 << 16;
    pub const MULTI_RESULTS: u32 = 1 << 17;
    pub const PS_MULTI_RESULTS: u32 = 1 << 18;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const CONNECT_ATTRS: u32 = 1 << 20;
    pub const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
    pub const SESSION_TRACK: u32 = 1 << 23;
    pub const DEPRECATE_EOF: u32 = 1 << 24;
}
use capability as cap;

/// What changes the format or the meaning of what is relayed, so that both legs must agree on it.
pub const RELAYED: u32 = cap::FOUND_ROWS
    | cap::LONG_FLAG
    | cap::NO_SCHEMA
    | cap::ODBC
    | cap::LOCAL_FILES
    | cap::IGNORE_SPACE
    | cap::INTERACTIVE
    | cap::TRANSACTIONS
    | cap::MULTI_STATEMENTS
    | cap::MULTI_RESULTS
    | cap::PS_MULTI_RESULTS
    | cap::SESSION_TRACK
    | cap::DEPRECATE_EOF;

/// Everything the splitter may offer to a client, beside TLS where it has a certificate. Left out
/// on purpose: compression, query attributes, optional metadata, expired passwords, MariaDB's
/// extended flags.
pub const OFFERED: u32 = RELAYED | OWN | cap::CONNECT_ATTRS;

/// What the splitter speaks itself, whatever the servers do.
const OWN: u32 = cap::LONG_PASSWORD
    | cap::CONNECT_WITH_DB
    | cap::PROTOCOL_41
    | cap::IGNORE_SIGPIPE
    | cap::SECURE_CONNECTION
    | cap::PLUGIN_AUTH
    | cap::PLUGIN_AUTH_LENENC;

pub const SALT_BYTES: usize = 20;
pub type Salt = [u8; SALT_BYTES];

/// A salt from random bytes: NUL would end it early, and '$' separates fields in stored hashes.
#[must_use]
pub fn salt(random: Salt) -> Salt {
    random.map(|byte| match byte & 0x7f {
        0 | b'$' => b'x',
        printable => printable,
    })
}

/// How a password is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    Native,
    CachingSha2,
    /// A plugin that the splitter does not speak.
    Unknown,
}

impl Plugin {
    #[must_use]
    pub fn parse(name: &[u8]) -> Self {
        match name {
            b"mysql_native_password" => Self::Native,
            b"caching_sha2_password" => Self::CachingSha2,
            _ => Self::Unknown,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native | Self::Unknown => "mysql_native_password",
            Self::CachingSha2 => "caching_sha2_password",
        }
    }
}

/// What a server says of itself before anything else; also what clients are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub version: String,
    pub capabilities: u32,
    pub collation: u8,
    pub plugin: Plugin,
}

impl Facts {
    /// What clients are told while no server was ever reached: an old server that promises little.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            version: "5.6.51-tandem".to_owned(),
            capabilities: OFFERED & !(cap::SESSION_TRACK | cap::DEPRECATE_EOF),
            collation: 45,
            plugin: Plugin::Native,
        }
    }

    /// Whether the server resets a connection by COM_RESET_CONNECTION: MySQL 5.7.3, MariaDB 10.2.
    #[must_use]
    pub fn has_reset(&self) -> bool {
        let text = self.version.strip_prefix("5.5.5-").unwrap_or(&self.version);
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u16>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            return false;
        };
        let patch = numbers.next().and_then(Result::ok).unwrap_or(0);
        (major, minor) >= (10, 2)
            || (!self.version.contains("MariaDB") && (major, minor, patch) >= (5, 7, 3))
    }
}

/// Protocol::HandshakeV10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    pub facts: Facts,
    pub thread: u32,
    pub salt: Salt,
    /// The connection may go on in TLS.
    pub has_tls: bool,
}

impl Greeting {
    pub fn parse(payload: &[u8]) -> Result<Self, Short> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != 10 {
            return Err(Short);
        }
        let version = String::from_utf8_lossy(reader.until_nul()?).into_owned();
        let thread = reader.u32_le()?;
        let head: [u8; 8] = reader.array()?;
        reader.take(1)?;
        let low = reader.u16_le()?;
        let collation = reader.u8()?;
        reader.take(2)?;
        let high = reader.u16_le()?;
        reader.take(1 + 10)?;
        let tail: [u8; 12] = reader.array()?;
        reader.take(1)?;
        let capabilities = u32::from(high) << 16 | u32::from(low);
        let plugin = if capabilities & cap::PLUGIN_AUTH == 0 {
            Plugin::Native
        } else {
            Plugin::parse(reader.until_nul().unwrap_or_else(|Short| reader.rest()))
        };
        let mut salt = [0; SALT_BYTES];
        for (place, byte) in salt.iter_mut().zip(head.into_iter().chain(tail)) {
            *place = byte;
        }
        let facts = Facts { version, capabilities, collation, plugin };
        Ok(Self { facts, thread, salt, has_tls: capabilities & cap::SSL != 0 })
    }

    /// Writes the payload. The status says AUTOCOMMIT, which is how every session starts.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let tls = if self.has_tls { cap::SSL } else { 0 };
        let capabilities = (self.facts.capabilities & OFFERED) | OWN | tls;
        let [c0, c1, c2, c3] = capabilities.to_le_bytes();
        let (head, tail) = self.salt.split_at(8);
        out.push(10);
        out.extend(self.facts.version.bytes().filter(|&byte| byte != 0));
        out.push(0);
        out.extend_from_slice(&self.thread.to_le_bytes());
        out.extend_from_slice(head);
        out.extend_from_slice(&[0, c0, c1, self.facts.collation]);
        out.extend_from_slice(&packet::status::AUTOCOMMIT.to_le_bytes());
        out.extend_from_slice(&[c2, c3, 21]);
        out.extend_from_slice(&[0; 10]);
        out.extend_from_slice(tail);
        out.push(0);
        out.extend_from_slice(self.facts.plugin.name().as_bytes());
        out.push(0);
    }
}

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { version, capabilities, collation, .. } = &self.facts;
        write!(f, "greeting {version} thread {} {capabilities:#x} {collation}", self.thread)
    }
}

/// Protocol::HandshakeResponse41.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response<'a> {
    pub capabilities: u32,
    pub collation: u8,
    pub user: &'a [u8],
    pub proof: &'a [u8],
    pub database: Option<&'a [u8]>,
    pub plugin: Option<Plugin>,
}

impl<'a> Response<'a> {
    /// Reads a client's answer. The protocol before 4.1 is `Short`.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Short> {
        let mut reader = Reader::new(payload);
        let capabilities = reader.u32_le()?;
        if capabilities & cap::PROTOCOL_41 == 0 {
            return Err(Short);
        }
        reader.take(4)?;
        let collation = reader.u8()?;
        reader.take(23)?;
        let user = reader.until_nul()?;
        let proof = if capabilities & cap::PLUGIN_AUTH_LENENC != 0 {
            packet::lenenc_bytes(&mut reader)?
        } else if capabilities & cap::SECURE_CONNECTION != 0 {
            let count = reader.u8()?;
            reader.take(count.into())?
        } else {
            reader.until_nul()?
        };
        let database = if capabilities & cap::CONNECT_WITH_DB != 0 && !reader.is_empty() {
            Some(reader.until_nul()?).filter(|name| !name.is_empty())
        } else {
            None
        };
        let plugin = if capabilities & cap::PLUGIN_AUTH != 0 && !reader.is_empty() {
            Some(Plugin::parse(reader.until_nul().unwrap_or_else(|Short| reader.rest())))
        } else {
            None
        };
        Ok(Self { capabilities, collation, user, proof, database, plugin })
    }

    pub fn emit(&self, out: &mut Vec<u8>) {
        self.emit_head(out);
        out.extend_from_slice(self.user);
        out.push(0);
        out.push(u8::try_from(self.proof.len()).unwrap_or(0));
        out.extend_from_slice(self.proof);
        if let Some(database) = self.database {
            out.extend_from_slice(database);
            out.push(0);
        }
        out.extend_from_slice(self.plugin.unwrap_or(Plugin::Native).name().as_bytes());
        out.push(0);
    }

    /// The part that goes ahead in the clear, alone, to ask for TLS: Protocol::SSLRequest. Inside
    /// of TLS the whole answer follows, this part included.
    pub fn emit_head(&self, out: &mut Vec<u8>) {
        let base = OWN & !cap::CONNECT_WITH_DB & !cap::PLUGIN_AUTH_LENENC;
        let mut capabilities = self.capabilities & (RELAYED | cap::SSL) | base;
        if self.database.is_some() {
            capabilities |= cap::CONNECT_WITH_DB;
        }
        out.extend_from_slice(&capabilities.to_le_bytes());
        out.extend_from_slice(&PACKET_BYTES_MAX.to_le_bytes());
        out.push(self.collation);
        out.extend_from_slice(&[0; 23]);
    }
}

/// Whether a client's first packet is Protocol::SSLRequest: the head of its answer and no more.
#[must_use]
pub fn is_tls_request(payload: &[u8]) -> bool {
    let capabilities = Reader::new(payload).u32_le().unwrap_or(0);
    payload.len() == HEAD_BYTES && capabilities & cap::SSL != 0
}

/// Capabilities, largest packet, collation, filler.
const HEAD_BYTES: usize = 4 + 4 + 1 + 23;

/// Protocol::AuthSwitchRequest.
pub fn auth_switch(out: &mut Vec<u8>, sequence: u8, plugin: Plugin, salt: &Salt) {
    packet::frame(out, sequence, |out| {
        out.push(packet::mark::EOF);
        out.extend_from_slice(plugin.name().as_bytes());
        out.push(0);
        out.extend_from_slice(salt);
        out.push(0);
    });
}

/// Largest packet we announce; servers apply their own max_allowed_packet to what they receive.
const PACKET_BYTES_MAX: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Greeting {
        let facts = Facts {
            version: "5.5.5-10.11.19-MariaDB-0+deb12u1".to_owned(),
            capabilities: OFFERED,
            collation: 45,
            plugin: Plugin::Native,
        };
        Greeting { facts, thread: 7, salt: *b"abcdefghijklmnopqrst", has_tls: false }
    }

    fn response() -> Response<'static> {
        Response {
            capabilities: 0,
            collation: 255,
            user: b"app",
            proof: b"01234567890123456789",
            database: Some(b"t1"),
            plugin: Some(Plugin::CachingSha2),
        }
    }

    #[test]
    fn round_trips() {
        let mut bytes = Vec::new();
        greeting().emit(&mut bytes);
        assert_eq!(Greeting::parse(&bytes), Ok(greeting()));
        bytes.clear();
        response().emit(&mut bytes);
        let parsed = Response::parse(&bytes).expect("parses");
        assert_eq!(Response { capabilities: 0, ..parsed }, response());
    }

    #[test]
    fn refuses_truncation_and_survives_flips() {
        let (mut hello, mut answer) = (Vec::new(), Vec::new());
        greeting().emit(&mut hello);
        response().emit(&mut answer);
        for cut in 0..hello.len() - 23 {
            assert!(Greeting::parse(&hello[..cut]).is_err(), "cut at {cut}");
        }
        for cut in 0..57 {
            assert!(Response::parse(&answer[..cut]).is_err(), "cut at {cut}");
        }
        for bytes in [&hello, &answer] {
            for index in 0..bytes.len() * 8 {
                let mut broken = bytes.clone();
                broken[index / 8] ^= 1 << (index % 8);
                let _ = (Greeting::parse(&broken), Response::parse(&broken));
            }
        }
    }

    #[test]
    fn offers_nothing_that_it_cannot_relay() {
        let mut all = greeting();
        all.facts.capabilities = u32::MAX;
        let mut bytes = Vec::new();
        all.emit(&mut bytes);
        let offered = Greeting::parse(&bytes).expect("parses").facts.capabilities;
        assert_eq!(offered, OFFERED);
        // COMPRESS, SSL, QUERY_ATTRIBUTES, ZSTD, OPTIONAL_RESULTSET_METADATA.
        for bit in [5, 11, 22, 25, 26, 27, 28, 29] {
            assert_eq!(offered >> bit & 1, 0, "bit {bit}");
        }
        assert_eq!(offered & 1, 1, "no MariaDB extended capabilities");
        bytes.clear();
        Greeting { has_tls: true, ..all }.emit(&mut bytes);
        let parsed = Greeting::parse(&bytes).expect("parses");
        assert_eq!((parsed.facts.capabilities, parsed.has_tls), (OFFERED | cap::SSL, true));
    }

    #[test]
    fn a_request_for_tls_is_the_head_of_an_answer() {
        let answer = Response { capabilities: cap::SSL, ..response() };
        let (mut head, mut whole) = (Vec::new(), Vec::new());
        answer.emit_head(&mut head);
        answer.emit(&mut whole);
        assert!(is_tls_request(&head) && whole.starts_with(&head));
        assert!(!is_tls_request(&whole));
        for cut in 0..head.len() {
            assert!(!is_tls_request(&head[..cut]), "cut at {cut}");
        }
        head.clear();
        response().emit_head(&mut head);
        assert!(!is_tls_request(&head), "it does not ask");
    }

    #[test]
    fn a_salt_has_no_nul_and_no_dollar() {
        let mut random = [0; SALT_BYTES];
        random[3] = b'$';
        random[4] = b'$' | 0x80;
        assert!(salt(random).iter().all(|byte| !matches!(byte, 0 | b'$')));
    }

    #[test]
    fn reset_is_used_only_where_the_server_has_it() {
        for (version, expected) in [
            ("5.6.24-log", false),
            ("5.7.2", false),
            ("5.7.44", true),
            ("8.4.0", true),
            ("9.7.0", true),
            ("5.5.5-10.11.19-MariaDB", true),
            ("5.5.5-10.1.48-MariaDB", false),
            ("11.4.2-MariaDB", true),
            ("5.5.68-MariaDB", false),
            ("", false),
        ] {
            let facts = Facts { version: version.to_owned(), ..Facts::unknown() };
            assert_eq!(facts.has_reset(), expected, "{version}");
        }
    }
}
