//! One client's sockets and files: what of them is ready, and the calls that move bytes.
//!
//! In: readiness from epoll, what the session wants. Out: inputs for the session. Must not: decide
//! what bytes mean. Read first: os::plane on edge-triggered readiness: a flag set by an event stays
//! until a call came back with EAGAIN or a short count.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::sendfile;
use rustix::io::{Errno, pread, pwrite};
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use crate::limits;
use crate::os::plane::Ready;
use crate::web::exchange::{Exchange, Phase};
use crate::web::session::{Context, Input, Session};

use super::legs::Leg;
use super::ping::evidence_of;
use super::records::Secure;
use super::root::{Source, spool_file};
use super::settings::Settings;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) session: Session,
    /// Those of the request that is being answered, else the newest.
    pub(super) settings: Rc<Settings>,
    pub(super) client: Socket,
    pub(super) secure: Option<Box<Secure>>,
    pub(super) is_virtual: bool,
    /// Its connection to php-fpm.
    pub(super) leg: Option<Leg>,
    /// The static file that is looked at or sent.
    pub(super) file: Source,
    spool: Option<(OwnedFd, u64)>,
    pub(super) is_runnable: bool,
    /// php-fpm answered something since the hands last asked.
    pub(super) is_host_heard: bool,
    /// Which request's connection to php-fpm broke without a byte since then.
    pub(super) reset: Option<u64>,
    /// As whose connection it is counted.
    pub(super) counted: Option<IpAddr>,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) descriptor: OwnedFd,
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
    is_read_closed: bool,
    is_hung_up: bool,
}

/// What one call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// Nothing could be done.
    Nothing,
    /// So many bytes, or a change of state (0).
    Bytes(usize),
}

impl Socket {
    pub(super) const fn new(descriptor: OwnedFd) -> Self {
        Self {
            descriptor,
            is_readable: false,
            is_writable: false,
            is_read_closed: false,
            is_hung_up: false,
        }
    }

    pub(super) const fn note(&mut self, ready: Ready) {
        self.is_readable |= ready.is_readable || ready.is_hung_up;
        self.is_writable |= ready.is_writable || ready.is_hung_up;
        self.is_read_closed |= ready.is_read_closed;
        self.is_hung_up |= ready.is_hung_up;
    }

    /// It is open as far as is known, and all that came was read.
    pub(super) const fn is_quiet(&self) -> bool {
        !self.is_readable && !self.is_read_closed && !self.is_hung_up
    }

    /// The first write may find it otherwise.
    pub(super) const fn assume_writable(&mut self) {
        self.is_writable = true;
    }

    /// Reads once; `None` when nothing is there yet.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<Result<usize, Errno>> {
        let room = buffer.len();
        loop {
            match recv(&self.descriptor, &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => {
                    // A short count means that all was read, unless an end follows that gives no
                    // event of its own any more.
                    self.is_readable = count == room || (count > 0 && self.is_read_closed);
                    return Some(Ok(count));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.is_readable = false;
                    return None;
                }
                Err(errno) => return Some(Err(errno)),
            }
        }
    }

    /// Writes a short message once the socket is writable: `None` before, false when it failed.
    pub(super) fn send_once(&mut self, bytes: &[u8]) -> Option<bool> {
        if !self.is_writable {
            return None;
        }
        Some(self.write(bytes, SendFlags::empty()) == Ok(bytes.len()))
    }

    /// What takes more than one write shall not wait for the other end's acknowledgements. One
    /// write never does, so a short request is spared the call.
    fn send_at_once(&self) {
        if let Err(error) = sockopt::set_tcp_nodelay(&self.descriptor, true) {
            log::debug!("TCP_NODELAY: {error}");
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], flags: SendFlags) -> Result<usize, Errno> {
        match send(&self.descriptor, bytes, flags | SendFlags::NOSIGNAL) {
            Ok(count) => {
                self.is_writable = count == bytes.len();
                Ok(count)
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                self.is_writable = false;
                Ok(0)
            }
            Err(errno) => Err(errno),
        }
    }
}

impl Connection {
    pub(super) const fn new(
        session: Session,
        settings: Rc<Settings>,
        client: OwnedFd,
        secure: Option<Box<Secure>>,
        is_virtual: bool,
    ) -> Self {
        Self {
            session,
            settings,
            client: Socket::new(client),
            secure,
            is_virtual,
            leg: None,
            file: Source::Nowhere,
            spool: None,
            is_runnable: false,
            is_host_heard: false,
            reset: None,
            counted: None,
        }
    }

    /// Does the first thing that can be done. `sealed` is room for the records of TLS.
    pub(super) fn advance(
        &mut self,
        cx: Context<'_>,
        buffer: &mut [u8],
        sealed: &mut Vec<u8>,
    ) -> Moved {
        if self.session.is_head_due() {
            self.session.handle(cx, Input::Proceed);
            return Moved::Bytes(0);
        }
        if self.client.is_hung_up
            || (self.client.is_read_closed && self.session.is_waiting_for_php())
        {
            self.client.is_hung_up = false;
            self.client.is_read_closed = false;
            self.session.handle(cx, Input::Gone);
            return Moved::Bytes(0);
        }
        for step in [Self::advance_upstream_write, Self::advance_upstream_read] {
            let moved = step(self, cx, buffer);
            if moved != Moved::Nothing {
                return moved;
            }
        }
        if self.secure.is_some() {
            return self.advance_secure(cx, buffer, sealed);
        }
        for step in [Self::advance_file, Self::advance_client_write, Self::advance_client_read] {
            let moved = step(self, cx, buffer);
            if moved != Moved::Nothing {
                return moved;
            }
        }
        Moved::Nothing
    }

    fn advance_client_read(&mut self, cx: Context<'_>, buffer: &mut [u8]) -> Moved {
        if !self.client.is_readable || !self.session.wants_client() {
            return Moved::Nothing;
        }
        match self.client.read(buffer) {
            None => Moved::Nothing,
            Some(Ok(0)) => {
                self.client.is_readable = false;
                self.session.handle(cx, Input::ReadClosed);
                Moved::Bytes(0)
            }
            Some(Ok(count)) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                self.session.handle(cx, Input::Received(bytes));
                Moved::Bytes(count)
            }
            Some(Err(_)) => {
                self.client.is_readable = false;
                self.session.handle(cx, Input::Gone);
                Moved::Bytes(0)
            }
        }
    }

    fn advance_client_write(&mut self, cx: Context<'_>, _buffer: &mut [u8]) -> Moved {
        let pending = self.session.pending();
        if pending.is_empty() || !self.client.is_writable {
            return Moved::Nothing;
        }
        // The head of a file waits in the kernel for the file's first bytes.
        let is_more = self.session.file().is_some();
        let flags = if is_more { SendFlags::MORE } else { SendFlags::empty() };
        match self.client.write(pending, flags) {
            Ok(count) => {
                self.session.handle(cx, Input::Wrote(count));
                if count == 0 { Moved::Nothing } else { Moved::Bytes(count) }
            }
            Err(_) => {
                self.client.is_writable = false;
                self.session.handle(cx, Input::Gone);
                Moved::Bytes(0)
            }
        }
    }

    /// A file that needs no room but that of its answer.
    pub(super) fn advance_small_file(&mut self, cx: Context<'_>, buffer: &mut [u8]) -> Moved {
        let Some(span) = self.session.file() else { return Moved::Nothing };
        let file = match &self.file {
            Source::Nowhere => return Moved::Nothing,
            Source::Open(file) => file,
            Source::Memory(bytes) => {
                let bytes = span.slice(bytes);
                self.session.handle(cx, Input::FileBytes(bytes));
                return Moved::Bytes(bytes.len());
            }
        };
        let small = usize::try_from(span.length)
            .ok()
            .filter(|_| span.length <= limits::WEB_SMALL_FILE_BYTES)
            .and_then(|length| buffer.get_mut(..length));
        if let Some(room) = small {
            let wanted = room.len();
            let input = match pread(file, &mut *room, span.offset) {
                Ok(count) if count == wanted => Input::FileBytes(room),
                Ok(_) | Err(_) => Input::FileCut,
            };
            self.session.handle(cx, input);
            return Moved::Bytes(wanted);
        }
        Moved::Nothing
    }

    fn advance_file(&mut self, cx: Context<'_>, buffer: &mut [u8]) -> Moved {
        let moved = self.advance_small_file(cx, buffer);
        if moved != Moved::Nothing {
            return moved;
        }
        let (Some(span), Source::Open(file)) = (self.session.file(), &self.file) else {
            return Moved::Nothing;
        };
        if !self.session.pending().is_empty() || !self.client.is_writable {
            return Moved::Nothing;
        }
        let wanted = usize::try_from(span.length).unwrap_or(usize::MAX);
        let wanted = wanted.min(limits::WEB_SESSION_BYTES_PER_TURN);
        let mut offset = span.offset;
        match sendfile(&self.client.descriptor, file, Some(&mut offset), wanted) {
            Ok(0) => self.session.handle(cx, Input::FileCut),
            Ok(count) => {
                self.session.handle(cx, Input::FileSent(u64::try_from(count).unwrap_or(0)));
                return Moved::Bytes(count);
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                self.client.is_writable = false;
                return Moved::Nothing;
            }
            Err(_) => self.session.handle(cx, Input::Gone),
        }
        Moved::Bytes(0)
    }

    fn advance_upstream_write(&mut self, cx: Context<'_>, buffer: &mut [u8]) -> Moved {
        let Some(Leg { socket, .. }) = &mut self.leg else { return Moved::Nothing };
        if !socket.is_writable {
            return Moved::Nothing;
        }
        let Some(exchange) = self.session.exchange() else { return Moved::Nothing };
        let is_connecting = matches!(exchange.phase(), Phase::Connecting(_));
        if let Some((offset, count)) = exchange.stdin_due() {
            if offset == 0 {
                socket.send_at_once();
            }
            let room = buffer.get_mut(..count).unwrap_or_default();
            let wanted = room.len();
            let read =
                self.spool.as_ref().map_or(Ok(0), |(file, _)| pread(file, &mut *room, offset));
            let input = match read {
                Ok(count) if count == wanted && count > 0 => Input::StdinBytes(room),
                Ok(_) | Err(_) => Input::AnswerReset,
            };
            self.session.handle(cx, input);
            return Moved::Bytes(0);
        }
        let pending = exchange.pending();
        if pending.is_empty() {
            return Moved::Nothing;
        }
        let pending_bytes = pending.len();
        match socket.write(pending, SendFlags::empty()) {
            Ok(0) => Moved::Nothing,
            Ok(count) => {
                if count < pending_bytes {
                    socket.send_at_once();
                }
                if is_connecting {
                    self.session.handle(cx, Input::Connected);
                }
                self.session.handle(cx, Input::UpstreamWrote(count));
                Moved::Bytes(count)
            }
            // send(2) tells how the connection failed.
            Err(errno) if is_connecting => {
                self.session.handle(cx, Input::ConnectFailed(evidence_of(errno)));
                Moved::Bytes(0)
            }
            Err(_) => {
                self.session.handle(cx, Input::UpstreamWriteFailed);
                Moved::Bytes(0)
            }
        }
    }

    fn advance_upstream_read(&mut self, cx: Context<'_>, buffer: &mut [u8]) -> Moved {
        let Some(Leg { socket, .. }) = &mut self.leg else { return Moved::Nothing };
        let is_talking = self
            .session
            .exchange()
            .is_some_and(|exchange| matches!(exchange.phase(), Phase::Talking(_)));
        if !is_talking || !socket.is_readable || !self.session.wants_upstream() {
            return Moved::Nothing;
        }
        let Some(read) = socket.read(buffer) else { return Moved::Nothing };
        let is_closing = socket.is_read_closed;
        let is_end = !matches!(read, Ok(count) if count > 0);
        if is_end {
            self.reset = self.session.exchange().and_then(Exchange::unheard);
        }
        let (input, count) = match read {
            Ok(0) => (Input::AnswerEnded, 0),
            Ok(count) => {
                self.is_host_heard = true;
                let bytes = buffer.get(..count).unwrap_or_default();
                (Input::Answered { bytes, is_closing }, count)
            }
            Err(_) => (Input::AnswerReset, 0),
        };
        self.session.handle(cx, input);
        Moved::Bytes(count)
    }

    /// Moves a piece of the request's body to its file.
    pub(super) fn spool(&mut self) -> Result<(), Errno> {
        let stored = self.session.take_stored();
        if self.spool.is_none() {
            self.spool = Some((spool_file()?, 0));
        }
        let Some((file, end)) = &mut self.spool else { return Err(Errno::IO) };
        let mut rest = stored.as_slice();
        while !rest.is_empty() {
            let count = pwrite(&*file, rest, *end)?;
            if count == 0 {
                return Err(Errno::NOSPC);
            }
            *end += u64::try_from(count).unwrap_or(0);
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// A request is answered: its files are closed.
    pub(super) fn forget_request(&mut self) {
        self.file = Source::Nowhere;
        self.spool = None;
    }
}
