//! The splitter's two legs in TLS: what is offered, how it begins, bytes in and out.
//!
//! In: the section of the configuration, bytes of sockets. Out: plain bytes, records.
//! Must not: cost a connection without TLS more than the question whether it has any.
//! Read first: `tls`; `sql::login` for who asks for it; facts/sql.md 5.3 and 6.

use std::io;

use socket2::Socket;

use crate::console::note::Note;
use crate::limits;
use crate::os::notes;
use crate::os::plane::Turn;
use crate::os::tls::{self, Acceptor, Connector, Reloading, Tls, Trust};
use crate::sql::login;
use crate::sql::packet::ServerError;
use crate::sql::{self, ServerTls};
use crate::time::Instant;

use super::ServeSql;
use super::clients::{Client, write};
use super::servers::Stage;

/// Certificates and trust, as the configuration names them.
#[derive(Debug)]
pub(super) struct Security {
    acceptor: Option<Reloading<Acceptor>>,
    next_look: Instant,
    connector: Option<Connector>,
    /// By host: that there is no TLS with its server was told already.
    pub(super) is_told: [bool; 2],
}

/// What one read of a socket gave.
#[derive(Debug)]
pub(super) struct Received {
    /// Plain bytes at the front of the buffer; none if all that came was TLS's own.
    pub(super) count: usize,
    /// No more is in the socket.
    pub(super) is_drained: bool,
    /// The other side sends no more.
    pub(super) is_end: bool,
}

impl Security {
    pub(super) fn load(config: &sql::Config) -> io::Result<Self> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        let acceptor = match (&config.certificate, &config.key) {
            (Some(certificate), Some(key)) => {
                let files = [certificate, key].into_iter().chain(&config.client_ca).cloned();
                let acceptor = Reloading::load(files.collect(), || accepting(config));
                Some(acceptor.map_err(|why| invalid(format!("sql.certificate: {why}")))?)
            }
            (Some(_) | None, None) | (None, Some(_)) => None,
        };
        let trust = match config.server_tls {
            ServerTls::Off => None,
            ServerTls::Prefer | ServerTls::Require => Some(Trust::Anybody),
            ServerTls::Verify => {
                let ca = config.server_ca.clone().unwrap_or_default();
                Some(Trust::Signed { ca, name: config.server_name.clone() })
            }
        };
        let connector = trust.as_ref().map(Connector::load).transpose();
        let connector = connector.map_err(|why| invalid(format!("sql.server_ca: {why}")))?;
        Ok(Self { acceptor, next_look: Instant::ZERO, connector, is_told: [false; 2] })
    }

    /// When the certificate's files are looked at again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.acceptor.as_ref().map(|_| self.next_look)
    }

    /// Sessions that begin from here on get the certificate that is there now, if it is good.
    pub(super) fn expire(&mut self, now: Instant, config: &sql::Config) {
        let Some(acceptor) = self.acceptor.as_mut().filter(|_| self.next_look <= now) else {
            return;
        };
        self.next_look = now + limits::TLS_FILES_INTERVAL;
        match acceptor.look(|| accepting(config)) {
            None => {}
            Some(Ok(())) => {
                notes::tell(&Note::Certificate {
                    what: "sql.certificate: it is loaded again".into(),
                });
            }
            Some(Err(why)) => {
                let what = format!("sql.certificate: {why}: the old one is still shown");
                notes::tell(&Note::CertificateTrouble { what });
            }
        }
    }

    /// What clients that come over a network are offered.
    pub(super) const fn offer(&self, config: &sql::Config) -> login::Tls {
        match (&self.acceptor, config.require_tls) {
            (None, _) => login::Tls::Off,
            (Some(_), false) => login::Tls::Offered,
            (Some(_), true) => login::Tls::Required,
        }
    }
}

fn accepting(config: &sql::Config) -> Result<Acceptor, String> {
    let (certificate, key) = (config.certificate.as_deref(), config.key.as_deref());
    let client_ca = config.client_ca.as_deref();
    Acceptor::load(certificate.unwrap_or_default(), key.unwrap_or_default(), client_ca)
}

/// Whether the files that the section names can be used; why not, and what to do.
pub fn check_files(config: &sql::Config) -> Result<(), String> {
    Security::load(config).map(drop).map_err(|error| error.to_string())
}

impl ServeSql {
    /// A client asked for TLS, and may have begun with it.
    pub(super) fn secure_client(&mut self, turn: &mut Turn<'_>, slot: u32, hello: &[u8]) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let acceptor = self.security.acceptor.as_ref().map(Reloading::value);
        let begun = acceptor.map(Acceptor::accept);
        let Some(Ok(mut tls)) = begun else {
            log::debug!("client {}: {begun:?}", client.session.peer());
            self.client_left(turn, slot);
            return;
        };
        self.sealed.clear();
        let opened = match tls.window(turn.buffer).get_mut(..hello.len()) {
            Some(place) => {
                place.copy_from_slice(hello);
                tls.open(turn.buffer, hello.len(), &mut self.sealed)
            }
            None => Err(tls::Error::Oversized),
        };
        let sent = write(&mut client.socket, &mut client.outbound, &self.sealed);
        client.tls = Some(Box::new(tls));
        // Nothing is sealed before the first answer, so there is no plain byte.
        let begun = opened.map_err(io::Error::other).and(sent);
        if let Err(error) = begun {
            log::debug!("client {}: {error}", client.session.peer());
            self.client_left(turn, slot);
        }
    }

    /// A server was asked for TLS: the handshake begins, and the log-in waits in it.
    pub(super) fn secure_server(&mut self, turn: &mut Turn<'_>, slot: u32) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let Stage::Opening { login, .. } = &server.stage else { return };
        let mut words = Vec::new();
        login.respond(&mut words);
        let Some(connector) = &self.security.connector else { return };
        let address = self.site.servers[server.host.index()];
        self.sealed.clear();
        let begun = match connector.connect(address.ip(), &mut self.sealed) {
            Ok(mut tls) => {
                let sent = write(&mut server.socket, &mut server.outbound, &self.sealed);
                let waits = tls.seal(&words, &mut self.sealed).map_err(io::Error::other);
                server.tls = Some(Box::new(tls));
                sent.and(waits)
            }
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        if let Err(error) = begun {
            self.server_broken(turn, slot, &error);
        }
    }

    /// A read failed: the connection is lost, and if TLS could not begin somebody is told why.
    pub(super) fn server_broken(&mut self, turn: &mut Turn<'_>, slot: u32, error: &io::Error) {
        let Some(server) = self.servers.get(slot) else { return };
        let (host, is_opening) = (server.host, matches!(server.stage, Stage::Opening { .. }));
        let address = self.site.servers[host.index()];
        log::debug!("{address}: {error}");
        if error.kind() != io::ErrorKind::InvalidData || !is_opening {
            self.server_lost(turn, slot);
            return;
        }
        let text = format!("tandem: no TLS with the server {address}: {error}");
        if !std::mem::replace(&mut self.security.is_told[host.index()], true) {
            let what = format!("no TLS with the server {address}: {error}");
            notes::tell(&Note::SplitterTrouble { what });
        }
        self.log_in_failed(turn, slot, ServerError::new(NO_TLS, b"HY000", text));
    }
}

/// Reads a socket once.
pub(super) fn receive(
    socket: &mut Socket,
    tls: &mut Option<Box<Tls>>,
    outbound: &mut Vec<u8>,
    sealed: &mut Vec<u8>,
    buffer: &mut [u8],
) -> io::Result<Received> {
    let Some(tls) = tls else {
        let count = rustix::io::read(&*socket, &mut *buffer)?;
        return Ok(Received { count, is_drained: count < buffer.len(), is_end: count == 0 });
    };
    if tls.is_ended() {
        return Ok(Received { count: 0, is_drained: false, is_end: true });
    }
    let window = tls.window(buffer);
    let room = window.len();
    let count = rustix::io::read(&*socket, window)?;
    if count == 0 {
        // Without a word before it: whatever was to come is missing, as after any lost connection.
        return Ok(Received { count: 0, is_drained: false, is_end: true });
    }
    sealed.clear();
    let opened = tls.open(buffer, count, sealed);
    // After an error too, because it is the alert that tells the other side.
    write(socket, outbound, sealed)?;
    let plain = opened.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    // The end is found by the read that follows.
    Ok(Received { count: plain, is_drained: count < room && !tls.is_ended(), is_end: false })
}

/// Sends what waits and then `bytes`; keeps what the kernel does not take.
pub(super) fn send(
    socket: &mut Socket,
    tls: &mut Option<Box<Tls>>,
    outbound: &mut Vec<u8>,
    sealed: &mut Vec<u8>,
    bytes: &[u8],
) -> io::Result<()> {
    let Some(tls) = tls.as_mut().filter(|_| !bytes.is_empty()) else {
        return write(socket, outbound, bytes);
    };
    sealed.clear();
    tls.seal(bytes, sealed).map_err(|error: tls::Error| io::Error::other(error))?;
    write(socket, outbound, sealed)
}

/// Tells a client in TLS that no more comes.
pub(super) fn close(client: &mut Client, sealed: &mut Vec<u8>) {
    let Some(tls) = &mut client.tls else { return };
    sealed.clear();
    tls.close(sealed);
    // Whoever is not there any more needs no goodbye.
    let _ = write(&mut client.socket, &mut client.outbound, sealed);
}

/// MySQL: CR_SSL_CONNECTION_ERROR, which clients know and no server sends.
pub(super) const NO_TLS: u16 = 2026;
