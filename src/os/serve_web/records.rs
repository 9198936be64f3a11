//! Records: one client's connection in TLS, between its socket and its session.
//!
//! In: what of the socket is ready, what the session wants. Out: inputs for the session, as without
//! TLS. Must not: tell the session that bytes are gone while their record is here; keep a buffer
//! while nothing waits. Read first: `tls`; `connection`.
//!
//! ```text
//!  session.pending, file --seal--> sealed (shared by all) --send--> socket
//!                                        \--> unsent (its own), what the kernel did not take
//! ```

use rustix::io::{Errno, pread};
use rustix::net::SendFlags;

use crate::limits;
use crate::os::tls::{Acceptor, Tls};
use crate::web::https::Opening;
use crate::web::session::{Context, Input};

use super::connection::{Connection, Moved, Socket};
use super::root::Source;

/// TLS of one connection.
#[derive(Debug)]
pub(super) struct Secure {
    acceptor: Acceptor,
    /// None before it is known that the client speaks it.
    tls: Option<Tls>,
    unsent: Vec<u8>,
    /// So many bytes of it are sent.
    sent: usize,
    owed: Owed,
}

/// What the session is told as the records go.
#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    bytes: usize,
    is_file: bool,
}

impl Secure {
    pub(super) const fn new(acceptor: Acceptor) -> Self {
        let owed = Owed { bytes: 0, is_file: false };
        Self { acceptor, tls: None, unsent: Vec::new(), sent: 0, owed }
    }

    /// Sends records behind those that wait; returns how many bytes went.
    fn send(
        &mut self,
        socket: &mut Socket,
        records: &[u8],
        flags: SendFlags,
    ) -> Result<usize, Errno> {
        let mut count = 0;
        if self.unsent.is_empty() && socket.is_writable && !records.is_empty() {
            count = socket.write(records, flags)?;
        }
        self.unsent.extend_from_slice(records.get(count..).unwrap_or_default());
        Ok(count)
    }

    /// Sends what waits; returns how many bytes went.
    fn flush(&mut self, socket: &mut Socket) -> Result<usize, Errno> {
        let waiting = self.unsent.get(self.sent..).unwrap_or_default();
        let count = socket.write(waiting, SendFlags::empty())?;
        self.sent += count;
        if self.sent >= self.unsent.len() {
            // A connection that waits for nothing keeps no buffer.
            (self.unsent, self.sent) = (Vec::new(), 0);
        }
        Ok(count)
    }

    /// What the session is told when `count` bytes of records went: never of the last plain byte
    /// before its record is gone.
    fn told(&mut self, count: usize) -> Input<'static> {
        let is_gone = self.unsent.is_empty();
        let bytes = if is_gone { self.owed.bytes } else { count.min(self.owed.bytes - 1) };
        self.owed.bytes -= bytes;
        if self.owed.is_file {
            Input::FileSent(u64::try_from(bytes).unwrap_or(0))
        } else {
            Input::Wrote(bytes)
        }
    }
}

impl Connection {
    /// Does the first thing that can be done with the client.
    pub(super) fn advance_secure(
        &mut self,
        cx: Context<'_>,
        buffer: &mut [u8],
        sealed: &mut Vec<u8>,
    ) -> Moved {
        let steps = [Self::flush, Self::seal_file, Self::seal_pending, Self::open_records];
        for step in steps {
            let moved = step(self, cx, buffer, sealed);
            if moved != Moved::Nothing {
                return moved;
            }
        }
        Moved::Nothing
    }

    /// Whether its next bytes belong to a handshake, which costs more than they look like.
    pub(super) fn is_shaking_hands(&self) -> bool {
        let Some(secure) = &self.secure else { return false };
        self.client.is_readable && !secure.tls.as_ref().is_some_and(Tls::is_open)
    }

    /// Whether a record has come in part, and so perhaps a request.
    pub(super) fn is_amid_record(&self) -> bool {
        let tls = self.secure.as_ref().and_then(|secure| secure.tls.as_ref());
        tls.is_some_and(|tls| tls.is_open() && tls.is_amid_record())
    }

    /// Tells the client that no more comes, unless it has to see that something is missing.
    pub(super) fn say_goodbye(&mut self) {
        let Some(secure) = &mut self.secure else { return };
        let Some(tls) = secure.tls.as_mut().filter(|_| !self.session.is_cut()) else { return };
        let mut words = Vec::new();
        tls.close(&mut words);
        // Whoever takes no more bytes needs no goodbye.
        let _ = secure.send(&mut self.client, &words, SendFlags::empty());
    }

    fn flush(&mut self, cx: Context<'_>, _: &mut [u8], _: &mut Vec<u8>) -> Moved {
        let Some(secure) = &mut self.secure else { return Moved::Nothing };
        if secure.unsent.is_empty() || !self.client.is_writable {
            return Moved::Nothing;
        }
        let flushed = secure.flush(&mut self.client);
        self.progressed(cx, flushed)
    }

    /// Records went, or the client is gone.
    fn progressed(&mut self, cx: Context<'_>, sent: Result<usize, Errno>) -> Moved {
        match (sent, &mut self.secure) {
            (Ok(count), Some(secure)) => {
                if secure.owed.bytes > 0 {
                    let told = secure.told(count);
                    self.session.handle(cx, told);
                }
                Moved::Bytes(count)
            }
            (Ok(_), None) | (Err(_), _) => self.gone(cx),
        }
    }

    fn gone(&mut self, cx: Context<'_>) -> Moved {
        self.client.is_readable = false;
        self.client.is_writable = false;
        self.session.handle(cx, Input::Gone);
        Moved::Bytes(0)
    }

    /// Whether bytes can be sealed and sent now.
    fn is_free(&self) -> bool {
        self.client.is_writable
            && self.secure.as_ref().is_some_and(|secure| {
                secure.unsent.is_empty() && secure.tls.as_ref().is_some_and(Tls::is_open)
            })
    }

    fn seal_file(&mut self, cx: Context<'_>, buffer: &mut [u8], sealed: &mut Vec<u8>) -> Moved {
        let moved = self.advance_small_file(cx, buffer);
        if moved != Moved::Nothing {
            return moved;
        }
        let (Some(span), Source::Open(file)) = (self.session.file(), &self.file) else {
            return Moved::Nothing;
        };
        if !self.session.pending().is_empty() || !self.is_free() {
            return Moved::Nothing;
        }
        let wanted = usize::try_from(span.length).unwrap_or(usize::MAX);
        let wanted = wanted.min(limits::WEB_SEAL_BYTES).min(buffer.len());
        let room = buffer.get_mut(..wanted).unwrap_or_default();
        let count = pread(file, &mut *room, span.offset).unwrap_or(0);
        if count == 0 {
            self.session.handle(cx, Input::FileCut);
            return Moved::Bytes(0);
        }
        let Some(secure) = &mut self.secure else { return Moved::Nothing };
        secure.owed = Owed { bytes: count, is_file: true };
        let bytes = room.get(..count).unwrap_or_default();
        let sent = seal(secure, &mut self.client, bytes, SendFlags::empty(), sealed);
        self.progressed(cx, sent)
    }

    fn seal_pending(&mut self, cx: Context<'_>, _: &mut [u8], sealed: &mut Vec<u8>) -> Moved {
        let pending = self.session.pending();
        if pending.is_empty() || !self.is_free() {
            return Moved::Nothing;
        }
        let count = pending.len().min(limits::WEB_SEAL_BYTES);
        let bytes = pending.get(..count).unwrap_or_default();
        // The head of a file waits in the kernel for the file's first bytes.
        let is_more = self.session.file().is_some();
        let flags = if is_more { SendFlags::MORE } else { SendFlags::empty() };
        let Some(secure) = &mut self.secure else { return Moved::Nothing };
        secure.owed = Owed { bytes: count, is_file: false };
        let sent = seal(secure, &mut self.client, bytes, flags, sealed);
        self.progressed(cx, sent)
    }

    fn open_records(&mut self, cx: Context<'_>, buffer: &mut [u8], sealed: &mut Vec<u8>) -> Moved {
        if !self.client.is_readable || !self.session.wants_client() {
            return Moved::Nothing;
        }
        let Some(secure) = &mut self.secure else { return Moved::Nothing };
        if secure.unsent.len() > limits::OUTBOUND_BYTES_MAX {
            return Moved::Nothing;
        }
        let Some(tls) = &mut secure.tls else { return self.greet(cx, buffer, sealed) };
        let read = if tls.is_ended() { Some(Ok(0)) } else { self.client.read(tls.window(buffer)) };
        match read {
            None => Moved::Nothing,
            Some(Ok(0)) => {
                self.client.is_readable = false;
                self.session.handle(cx, Input::ReadClosed);
                Moved::Bytes(0)
            }
            Some(Ok(count)) => self.opened(cx, buffer, count, sealed),
            Some(Err(_)) => self.gone(cx),
        }
    }

    /// So many bytes of records were read into the window.
    fn opened(
        &mut self,
        cx: Context<'_>,
        buffer: &mut [u8],
        count: usize,
        sealed: &mut Vec<u8>,
    ) -> Moved {
        let Some(Secure { tls: Some(tls), .. }) = self.secure.as_deref_mut() else {
            return Moved::Nothing;
        };
        sealed.clear();
        let was_open = tls.is_open();
        let opened = tls.open(buffer, count, sealed);
        // The end is found by the read that follows.
        self.client.is_readable |= tls.is_ended();
        let is_secured = !was_open && tls.is_open();
        let Some(secure) = &mut self.secure else { return Moved::Nothing };
        // After an error too, because it is the alert that tells the other side.
        let sent = secure.send(&mut self.client, sealed, SendFlags::empty());
        let plain = match opened {
            Ok(plain) if sent.is_ok() => plain,
            Ok(_) => return self.gone(cx),
            Err(error) => {
                log::debug!("web: TLS: {error}");
                return self.gone(cx);
            }
        };
        if is_secured {
            self.session.handle(cx, Input::Secured);
        }
        if plain > 0 {
            let bytes = buffer.get(..plain).unwrap_or_default();
            self.session.handle(cx, Input::Received(bytes));
        }
        Moved::Bytes(count)
    }

    /// The first bytes of a connection, until it is known what it speaks.
    fn greet(&mut self, cx: Context<'_>, buffer: &mut [u8], sealed: &mut Vec<u8>) -> Moved {
        // No more than the window of TLS has room for.
        let end = buffer.len() / 4;
        let read = self.client.read(buffer.get_mut(..end).unwrap_or_default());
        let count = match read {
            None => return Moved::Nothing,
            Some(Ok(0)) => {
                self.client.is_readable = false;
                self.session.handle(cx, Input::ReadClosed);
                return Moved::Bytes(0);
            }
            Some(Ok(count)) => count,
            Some(Err(_)) => return self.gone(cx),
        };
        match self.session.open(cx, buffer.get(..count).unwrap_or_default()) {
            Opening::More => Moved::Bytes(count),
            Opening::Plain => {
                self.secure = None;
                Moved::Bytes(count)
            }
            Opening::Tls(records) => {
                let Some(secure) = &mut self.secure else { return Moved::Nothing };
                let Ok(tls) = secure.acceptor.accept() else { return self.gone(cx) };
                let window = tls.window(buffer);
                let Some(place) = window.get_mut(..records.len()) else { return self.gone(cx) };
                place.copy_from_slice(&records);
                secure.tls = Some(tls);
                self.opened(cx, buffer, records.len(), sealed)
            }
        }
    }
}

/// Seals bytes and sends their records; returns how many bytes of records went.
fn seal(
    secure: &mut Secure,
    socket: &mut Socket,
    bytes: &[u8],
    flags: SendFlags,
    sealed: &mut Vec<u8>,
) -> Result<usize, Errno> {
    sealed.clear();
    let Some(tls) = &mut secure.tls else { return Err(Errno::PROTO) };
    tls.seal(bytes, sealed).map_err(|_| Errno::PROTO)?;
    secure.send(socket, sealed, flags)
}
