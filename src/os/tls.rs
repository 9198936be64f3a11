//! TLS of one connection, without its socket: records in, plain bytes out, and the reverse.
//!
//! In: bytes as they came from a socket, plain bytes to be sent. Out: plain bytes, records for the
//! socket. Must not: touch a socket, wait, or keep more than the start of what has not come whole.
//! Read first: RFC 8446, 5 (records); rustls `unbuffered`; `files` for certificates and trust.
//!
//! ```text
//!  shared read buffer    0 ................ ROOM ......................... its end
//!  before `open`         (room)             | what was left | what was read |
//!  after it              | plain bytes |    ...                     | left  |  -> kept
//! ```
//! The rules of `plane` hold unchanged, because `open` leaves no whole record behind: whatever is
//! still to be read is in the socket. So back pressure is the socket's too.

mod files;
mod reload;
mod validity;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{AlertDescription, CertificateError, ClientConfig, InvalidMessage, ServerConfig};

use crate::web::https::Protocol;
pub use files::{Identity, Trust};
pub use reload::Reloading;

/// The side that is connected to: its certificates, and whom it lets in.
#[derive(Debug, Clone)]
pub struct Acceptor(Arc<ServerConfig>);

/// The side that connects: whom it believes.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

/// One connection in TLS, from its first record on.
pub struct Tls {
    machine: Machine,
    /// The start of a record that has not come whole, or of a handshake message of several.
    partial: Vec<u8>,
    /// Plain bytes that wait for the end of the handshake.
    waiting: Vec<u8>,
    is_open: bool,
    is_ended: bool,
    /// Nothing that still comes is looked at: it was broken, or this side has said its goodbye.
    is_over: bool,
}

enum Machine {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// Why a connection in TLS is over.
#[derive(Debug)]
pub enum Error {
    Protocol(rustls::Error),
    /// A handshake message that is longer than any that is needed.
    Oversized,
    /// So much was sent under one key that no more may be.
    Exhausted,
}

impl Acceptor {
    /// Certificate chain and private key from files in PEM form. With `client_ca`, a file of
    /// certificates, a client must show one that one of them has signed.
    /// The error says which file is wrong, and how.
    pub fn load(certificate: &str, key: &str, client_ca: Option<&str>) -> Result<Self, String> {
        files::server_config(certificate, key, client_ca).map(|config| Self(Arc::new(config)))
    }

    /// With a certificate for each name that clients ask for (SNI), or for none. They come again
    /// with tickets, which cost no memory here, and are good on this host only.
    pub fn choosing<F>(protocols: &[Protocol], choose: F) -> Result<Self, String>
    where
        F: Fn(Option<&str>) -> Identity + Send + Sync + 'static,
    {
        files::choosing_config(protocols, choose).map(|config| Self(Arc::new(config)))
    }

    /// A client's first record is about to come.
    pub fn accept(&self) -> Result<Tls, Error> {
        let machine = UnbufferedServerConnection::new(Arc::clone(&self.0))?;
        Ok(Tls::new(Machine::Server(machine)))
    }
}

impl Connector {
    /// The error says which file is wrong, and how.
    pub fn load(trust: &Trust) -> Result<Self, String> {
        let (config, name) = files::client_config(trust)?;
        Ok(Self { config: Arc::new(config), name })
    }

    /// Begins: the first record is appended to `out`. The address stands for the name where none
    /// was given, and the server is not told it then.
    pub fn connect(&self, address: IpAddr, out: &mut Vec<u8>) -> Result<Tls, Error> {
        let name = self.name.clone().unwrap_or_else(|| ServerName::IpAddress(address.into()));
        let machine = UnbufferedClientConnection::new(Arc::clone(&self.config), name)?;
        let mut tls = Tls::new(Machine::Client(machine));
        tls.go_on(&[], out)?;
        Ok(tls)
    }
}

impl Tls {
    const fn new(machine: Machine) -> Self {
        let partial = Vec::new();
        Self {
            machine,
            partial,
            waiting: Vec::new(),
            is_open: false,
            is_ended: false,
            is_over: false,
        }
    }

    /// Whether the other side has said, and proved, that it sends no more.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether the handshake is over.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether a record has come in part.
    #[must_use]
    pub const fn is_amid_record(&self) -> bool {
        !self.partial.is_empty()
    }

    /// The part of the shared buffer that a read of the socket fills; `open` with the count of it
    /// comes next. Never empty in a buffer of `READ_BUFFER_BYTES`.
    #[must_use]
    pub fn window<'a>(&self, buffer: &'a mut [u8]) -> &'a mut [u8] {
        let start = ROOM + self.partial.len();
        if let Some(place) = buffer.get_mut(ROOM..start) {
            place.copy_from_slice(&self.partial);
        }
        buffer.get_mut(start..).unwrap_or_default()
    }

    /// Takes the `count` bytes that were read into `window`. Returns how many plain bytes lie at
    /// the front of the buffer then; what has to be sent because of them is appended to `out`,
    /// after an error too (the alert that tells the other side).
    pub fn open(
        &mut self,
        buffer: &mut [u8],
        count: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        if self.is_over {
            return Ok(0);
        }
        let end = (ROOM + self.partial.len() + count).min(buffer.len());
        let (mut at, mut plain) = (ROOM, 0);
        loop {
            // What is plain is shorter than its record: it never reaches the next one.
            let (front, records) = buffer.split_at_mut(at.min(end));
            let records = records.get_mut(..end.saturating_sub(at)).unwrap_or_default();
            let front = front.get_mut(plain..).unwrap_or_default();
            let (used, step) = self.machine.step(records, &self.waiting, front, out);
            let records = records.get_mut(used..).unwrap_or_default();
            at += used;
            match step {
                Ok(Step::More) => {}
                Ok(Step::Delivered(length)) => plain += length,
                Ok(Step::Ended) => self.is_ended = true,
                Ok(Step::Written) => {
                    (self.is_open, self.waiting) = (true, Vec::new());
                    break;
                }
                Ok(Step::Blocked) => break,
                Err(error) => {
                    self.is_over = true;
                    self.machine.say_why(records, out);
                    return Err(error);
                }
            }
        }
        let left = buffer.get(at..end).unwrap_or_default();
        if left.len() + ROOM >= buffer.len() {
            return Err(Error::Oversized);
        }
        if left.is_empty() {
            // A connection with nothing to wait for keeps no buffer.
            self.partial = Vec::new();
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(left);
        }
        Ok(plain)
    }

    /// Appends plain bytes to `out` as records; before the end of the handshake they wait for it,
    /// and after that of the connection they are nobody's.
    pub fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if self.is_over {
            return Ok(());
        }
        if self.is_open {
            return self.go_on(bytes, out);
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends the word that no more comes (close_notify), without which the other side cannot
    /// tell the end from a cut. Nothing before the end of the handshake.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.is_open && !self.is_over {
            self.is_over = true;
            self.machine.close(&mut self.partial, out);
        }
    }

    /// Turns the machine without new records.
    fn go_on(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        loop {
            let nothing = &mut [];
            let (used, step) = self.machine.step(&mut self.partial, bytes, nothing, out);
            self.partial.drain(..used.min(self.partial.len()));
            match step? {
                Step::More | Step::Delivered(_) => {}
                Step::Ended => self.is_ended = true,
                Step::Written | Step::Blocked => return Ok(()),
            }
        }
    }
}

/// What one step of a machine came to.
enum Step {
    More,
    /// So many plain bytes are there.
    Delivered(usize),
    /// The other side sends no more.
    Ended,
    /// The handshake is over, and what was to be said is sealed.
    Written,
    /// The handshake waits for the other side.
    Blocked,
}

impl Machine {
    fn step(
        &mut self,
        records: &mut [u8],
        words: &[u8],
        plain: &mut [u8],
        out: &mut Vec<u8>,
    ) -> (usize, Result<Step, Error>) {
        match self {
            Self::Server(it) => advance(it.process_tls_records(records), words, plain, out),
            Self::Client(it) => advance(it.process_tls_records(records), words, plain, out),
        }
    }

    /// After an error: what is still to be sent, with the alert at its end, if there is one. The
    /// broken record is not read again.
    fn say_why(&mut self, records: &mut [u8], out: &mut Vec<u8>) {
        while self.has_words() {
            let before = out.len();
            let _ = self.step(records, &[], &mut [], out);
            if out.len() == before {
                break;
            }
        }
    }

    fn has_words(&self) -> bool {
        match self {
            Self::Server(it) => it.wants_write(),
            Self::Client(it) => it.wants_write(),
        }
    }

    fn close(&mut self, records: &mut [u8], out: &mut Vec<u8>) {
        match self {
            Self::Server(it) => finish(it.process_tls_records(records), out),
            Self::Client(it) => finish(it.process_tls_records(records), out),
        }
    }
}

/// Performs what the machine asks for. Returns how many bytes of the records are done with.
fn advance<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    words: &[u8],
    plain: &mut [u8],
    out: &mut Vec<u8>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error.into()),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut length = 0;
            let mut result = Ok(());
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        let end = length + record.payload.len();
                        if let Some(place) = plain.get_mut(length..end) {
                            place.copy_from_slice(record.payload);
                            length = end;
                        } else {
                            result = Err(Error::Oversized);
                        }
                    }
                    Err(error) => result = Err(error.into()),
                }
            }
            result.map(|()| Step::Delivered(length))
        }
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::More)
        }
        Ok(ConnectionState::WriteTraffic(traffic)) => encrypt(traffic, words, out),
        Ok(ConnectionState::PeerClosed) => Ok(Step::Ended),
        // Early data is not offered.
        Ok(ConnectionState::BlockedHandshake | ConnectionState::ReadEarlyData(_)) => {
            Ok(Step::Blocked)
        }
        Ok(ConnectionState::Closed | _) => Ok(Step::Blocked),
    };
    (discard, step)
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) -> Result<Step, Error> {
    let start = out.len();
    loop {
        match data.encode(out.get_mut(start..).unwrap_or_default()) {
            Ok(count) => {
                out.truncate(start + count);
                return Ok(Step::More);
            }
            Err(EncodeError::InsufficientSize(need)) => out.resize(start + need.required_size, 0),
            Err(EncodeError::AlreadyEncoded) => return Ok(Step::More),
        }
    }
}

fn encrypt<Data>(
    mut traffic: WriteTraffic<'_, Data>,
    words: &[u8],
    out: &mut Vec<u8>,
) -> Result<Step, Error> {
    let start = out.len();
    if words.is_empty() {
        return Ok(Step::Written);
    }
    out.resize(start + words.len() + (words.len() / ROOM + 2) * RECORD_EXTRA, 0);
    loop {
        match traffic.encrypt(words, out.get_mut(start..).unwrap_or_default()) {
            Ok(count) => {
                out.truncate(start + count);
                return Ok(Step::Written);
            }
            Err(EncryptError::InsufficientSize(need)) => out.resize(start + need.required_size, 0),
            Err(EncryptError::EncryptExhausted) => {
                out.truncate(start);
                return Err(Error::Exhausted);
            }
        }
    }
}

fn finish<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut Vec<u8>) {
    let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else { return };
    let start = out.len();
    out.resize(start + RECORD_EXTRA, 0);
    let count = traffic.queue_close_notify(out.get_mut(start..).unwrap_or_default());
    out.truncate(start + count.unwrap_or(0));
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.machine {
            Machine::Server(_) => "server",
            Machine::Client(_) => "client",
        };
        write!(f, "Tls({side}, open {}, ended {})", self.is_open, self.is_ended)
    }
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Self::Protocol(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use rustls::Error as E;
        let error = match self {
            Self::Oversized => return f.write_str("a handshake message is longer than any is"),
            Self::Exhausted => return f.write_str("the keys of the connection are used up"),
            Self::Protocol(error) => error,
        };
        if let E::InvalidMessage(InvalidMessage::InvalidContentType) = error {
            return f.write_str("what came is not TLS");
        }
        write!(f, "{error}")?;
        if let E::InvalidCertificate(
            // Makers of certificates give their authorities one and the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) = error
        {
            f.write_str(" (none of the certificates to verify against has signed it)")?;
        }
        if let E::InvalidCertificate(CertificateError::NotValidForNameContext { .. }) = error {
            f.write_str(" (only names in subjectAltName count)")?;
        }
        if let E::PeerIncompatible(_)
        | E::AlertReceived(
            AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure,
        ) = error
        {
            f.write_str(" (TLS 1.2 and 1.3 are spoken here, nothing older)")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Plain bytes of the longest record (RFC 8446, 5.1), with its content type.
const ROOM: usize = (1 << 14) + 1;

/// More than any cipher adds to a record: header 5, explicit nonce 8, content type 1, tag 16.
const RECORD_EXTRA: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::READ_BUFFER_BYTES;
    use crate::time::Rng;
    use std::fs;
    use std::net::Ipv4Addr;
    use std::path::PathBuf;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn both_ends_agree_whatever_the_pieces() {
        let files = Files::new();
        for piece in [1, 7, 1000, 60_000] {
            let (mut client, mut server) = (files.client(Trust::Anybody), files.server());
            let question: Vec<u8> = (0..100_000u32).map(|n| n.to_le_bytes()[0]).collect();
            client.say(&question[..10]);
            assert_eq!(
                exchange(&mut client, &mut server, piece),
                (Vec::new(), question[..10].into())
            );
            client.say(&question);
            server.say(&question[..70_000]);
            let (heard_by_client, heard_by_server) = exchange(&mut client, &mut server, piece);
            assert!(heard_by_client == question[..70_000] && heard_by_server == question);
            assert_eq!(client.tls.partial.capacity() + server.tls.waiting.capacity(), 0);
            server.tls.close(&mut server.outbound);
            exchange(&mut client, &mut server, piece);
            assert!(client.tls.is_ended() && !server.tls.is_ended());
            client.say(b"late");
            client.tls.close(&mut client.outbound);
            let (_, heard) = exchange(&mut client, &mut server, piece);
            assert!(heard.is_empty() && server.failure.is_none(), "it had said goodbye");
        }
    }

    #[test]
    fn what_is_said_before_the_handshake_is_over_waits_for_it() {
        let files = Files::new();
        let mut client = files.client(Trust::Anybody);
        let hello = client.outbound.len();
        client.say(b"the password");
        assert_eq!(client.outbound.len(), hello);
        client.tls.close(&mut client.outbound);
        assert_eq!(client.outbound.len(), hello, "nobody is there to be said goodbye to");
    }

    #[test]
    fn trust_is_in_signers_certificates_and_names() {
        let files = Files::new();
        let signed = |ca: &str, name: Option<&str>| Trust::Signed {
            ca: files.path(ca),
            name: name.map(str::to_owned),
        };
        let failure = |trust| {
            let (mut client, mut server) = (files.client(trust), files.server());
            client.say(b"x");
            exchange(&mut client, &mut server, 60_000);
            assert!(client.failure.is_none() || server.failure.is_some(), "it is told");
            client.failure.map(|error| error.to_string())
        };
        assert_eq!(failure(signed("ca.pem", None)), None);
        assert_eq!(failure(signed("ca.pem", Some("db.example"))), None);
        assert_eq!(failure(signed("server.pem", None)), None, "it is in the list itself");
        let why = failure(signed("other.pem", None)).expect("not signed by it");
        assert!(why.contains("none of the certificates"), "{why}");
        let why = failure(signed("ca.pem", Some("web.example"))).expect("another name");
        assert!(why.contains("subjectAltName"), "{why}");
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let files = Files::new();
        let load = |certificate: &str, key: &str, ca: Option<&str>| {
            let ca = ca.map(|ca| files.path(ca));
            let acceptor =
                Acceptor::load(&files.path(certificate), &files.path(key), ca.as_deref());
            acceptor.map(drop)
        };
        assert_eq!(load("server.pem", "server-key.pem", Some("ca.pem")), Ok(()));
        for (certificate, key, ca, expected) in [
            ("nosuch.pem", "server-key.pem", None, "nosuch.pem: No such file"),
            ("server-key.pem", "server-key.pem", None, "no \"-----BEGIN CERTIFICATE-----\""),
            ("server.pem", "server.pem", None, "chmod o="),
            ("server.pem", "empty.pem", None, "no \"-----BEGIN PRIVATE KEY-----\""),
            ("server.pem", "secret.pem", None, "under a passphrase"),
            ("server.pem", "junk-key.pem", None, "P-256"),
            ("server.pem", "other-key.pem", None, "is not the private key of"),
            ("junk.pem", "server-key.pem", None, "junk.pem: "),
            ("server.pem", "server-key.pem", Some("empty.pem"), "empty.pem: no"),
            ("server.pem", "server-key.pem", Some("junk.pem"), "junk.pem: "),
        ] {
            let why = load(certificate, key, ca).expect_err(expected);
            assert!(why.contains(expected), "{why}");
        }
        let name = Some("no name".to_owned());
        let why = Connector::load(&Trust::Signed { ca: files.path("ca.pem"), name });
        assert!(why.expect_err("a space").contains("host name"));
    }

    /// Random damage anywhere in the conversation: an end or an error, and never a panic, or a
    /// plain byte that nobody said.
    #[test]
    fn damage_is_survived_and_delivers_nothing() {
        let files = Files::new();
        for seed in 1..400 {
            let mut rng = Rng::new(seed);
            let (mut client, mut server) = (files.client(Trust::Anybody), files.server());
            client.say(b"a question");
            let mut heard = Vec::new();
            let damage_at = rng.below(6);
            for turn in 0..12 {
                let (from, to) = if turn % 2 == 0 {
                    (&mut client, &mut server)
                } else {
                    (&mut server, &mut client)
                };
                let mut bytes = std::mem::take(&mut from.outbound);
                if turn == damage_at && !bytes.is_empty() {
                    let at = usize::try_from(rng.below(bytes.len() as u64)).expect("below");
                    match rng.below(3) {
                        0 => bytes[at] ^= 1 << rng.below(8),
                        1 => bytes.truncate(at),
                        _ => bytes.splice(at..at, b"junk".repeat(10)).for_each(drop),
                    }
                }
                heard.extend(to.hear(&bytes));
                if to.failure.is_none() && turn == 5 {
                    to.say(b"an answer");
                }
            }
            let is_ours = |it: &[u8]| {
                b"a question".starts_with(it)
                    || b"an answer".starts_with(it)
                    || it == b"a questionan answer"
            };
            assert!(is_ours(&heard), "seed {seed}: {heard:?}");
        }
        let mut rng = Rng::new(7);
        for _ in 0..2000 {
            let mut server = files.server();
            let mut bytes: Vec<u8> =
                (0..rng.below(300)).map(|_| rng.below(256).to_le_bytes()[0]).collect();
            if let Some(start) = bytes.get_mut(..5) {
                start.copy_from_slice(&[22, 3, 1, 0, 200]);
            }
            assert!(server.hear(&bytes).is_empty());
        }
    }

    #[test]
    fn a_message_without_end_is_refused() {
        let files = Files::new();
        let mut server = files.server();
        // A hello of 65,535 bytes in records of 16 KiB.
        let mut record = vec![22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
        record.resize(5 + 0x4000, 0);
        server.hear(&record);
        for _ in 0..4 {
            record[5..9].fill(0);
            server.hear(&record);
        }
        assert!(server.failure.is_some() && server.tls.partial.len() < READ_BUFFER_BYTES);
    }

    struct End {
        tls: Tls,
        outbound: Vec<u8>,
        failure: Option<Error>,
        buffer: Vec<u8>,
    }

    impl End {
        fn new(tls: Tls, outbound: Vec<u8>) -> Self {
            Self { tls, outbound, failure: None, buffer: vec![0; READ_BUFFER_BYTES] }
        }

        fn say(&mut self, bytes: &[u8]) {
            self.tls.seal(bytes, &mut self.outbound).expect("seals");
        }

        fn hear(&mut self, mut bytes: &[u8]) -> Vec<u8> {
            let mut heard = Vec::new();
            while !bytes.is_empty() && self.failure.is_none() && !self.tls.is_ended() {
                let window = self.tls.window(&mut self.buffer);
                let count = window.len().min(bytes.len());
                window[..count].copy_from_slice(&bytes[..count]);
                bytes = &bytes[count..];
                match self.tls.open(&mut self.buffer, count, &mut self.outbound) {
                    Ok(plain) => heard.extend_from_slice(&self.buffer[..plain]),
                    Err(error) => self.failure = Some(error),
                }
            }
            heard
        }
    }

    /// Carries bytes until nobody has any; what the first and the second have heard.
    fn exchange(one: &mut End, other: &mut End, piece: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut heard_by_one, mut heard_by_other) = (Vec::new(), Vec::new());
        while !(one.outbound.is_empty() && other.outbound.is_empty()) {
            for bytes in std::mem::take(&mut one.outbound).chunks(piece) {
                heard_by_other.extend(other.hear(bytes));
            }
            for bytes in std::mem::take(&mut other.outbound).chunks(piece) {
                heard_by_one.extend(one.hear(bytes));
            }
        }
        (heard_by_one, heard_by_other)
    }

    /// Certificates made for the test, in a directory that goes with it.
    struct Files(PathBuf);

    impl Files {
        fn new() -> Self {
            use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
            static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let name = format!("tandem-tls-{}-{number}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            fs::create_dir_all(&directory).expect("a directory");
            let files = Self(directory);
            let authority = || {
                // Both of one name, as those that servers make.
                let mut params = CertificateParams::new(Vec::new()).expect("no names");
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                let key = KeyPair::generate().expect("a key");
                let own = params.self_signed(&key).expect("signs");
                (own.pem(), Issuer::new(params, key))
            };
            let ((ca, issuer), (other, _)) = (authority(), authority());
            let (key, other_key) =
                (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
            let params = CertificateParams::new(vec!["db.example".to_owned()]).expect("a name");
            let own = params.signed_by(&key, &issuer).expect("signs").pem();
            let junk =
                |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
            files.write("ca.pem", &ca, 0o644);
            files.write("other.pem", &other, 0o644);
            files.write("server.pem", &own, 0o644);
            files.write("server-key.pem", &key.serialize_pem(), 0o600);
            files.write("other-key.pem", &other_key.serialize_pem(), 0o640);
            files.write("empty.pem", "", 0o600);
            files.write("secret.pem", &junk("ENCRYPTED PRIVATE KEY"), 0o600);
            files.write("junk-key.pem", &junk("PRIVATE KEY"), 0o600);
            files.write("junk.pem", &junk("CERTIFICATE"), 0o600);
            files
        }

        fn write(&self, name: &str, text: &str, mode: u32) {
            use std::os::unix::fs::PermissionsExt as _;
            let path = self.0.join(name);
            fs::write(&path, text).expect("writes");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("sets");
        }

        fn path(&self, name: &str) -> String {
            self.0.join(name).display().to_string()
        }

        fn server(&self) -> End {
            let (certificate, key) = (self.path("server.pem"), self.path("server-key.pem"));
            let acceptor = Acceptor::load(&certificate, &key, None).expect("loads");
            End::new(acceptor.accept().expect("begins"), Vec::new())
        }

        fn client(&self, trust: Trust) -> End {
            let connector = Connector::load(&trust).expect("loads");
            let mut hello = Vec::new();
            let tls = connector.connect(ADDRESS, &mut hello).expect("begins");
            End::new(tls, hello)
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
