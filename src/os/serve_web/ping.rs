//! Pings: the probe's connection to each php-fpm, and how connections to php-fpm begin.
//!
//! In: the upstream's orders, readiness. Out: what the pings came to. Must not: share a connection
//! with a client's request. Read first: web::probe, web::upstream.

use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::os::plane::{Key, Plane, Ready, Turn};
use crate::web::probe::{self, Probe};
use crate::web::upstream::Evidence;
use crate::wire::HostId;

use super::connection::Socket;
use super::{SIDE_POOL, SIDE_PROBE, ServeWeb, key};

/// A probe's connection.
#[derive(Debug)]
pub(super) struct Ping {
    generation: u16,
    socket: Socket,
    probe: Probe,
    /// The request, until it is sent.
    request: Option<Vec<u8>>,
}

impl ServeWeb {
    pub(super) fn probe(&mut self, turn: &mut Turn<'_>, host: HostId) {
        let address = self.site.php[host.index()];
        match self.begin(turn, SIDE_PROBE, host, address, probe::ping()) {
            Ok(ping) => self.probes[host.index()] = Some(ping),
            Err(errno) => match evidence_of(errno) {
                Some(evidence) => self.upstream.probe_failed(turn.now, host, evidence),
                None => self.upstream.probe_skipped(turn.now, host),
            },
        }
        if let Some(address) = self.site.php_status[host.index()] {
            let request = probe::pool(&self.settings.rules.config.php_status_path);
            // A status that cannot be asked for says nothing: the ping decides.
            self.pools[host.index()] = self.begin(turn, SIDE_POOL, host, address, request).ok();
        }
    }

    fn begin(
        &mut self,
        turn: &Turn<'_>,
        side: u8,
        host: HostId,
        address: SocketAddr,
        request: Vec<u8>,
    ) -> Result<Ping, Errno> {
        self.probe_generation = self.probe_generation.wrapping_add(1);
        let generation = self.probe_generation;
        let slot = if host == HostId::First { 0 } else { 1 };
        let socket = connect_to(turn.plane, address, key(side, slot, generation))?;
        Ok(Ping { generation, socket, probe: Probe::default(), request: Some(request) })
    }

    /// A pool's status goes on.
    pub(super) fn pool_ready(
        &mut self,
        turn: &mut Turn<'_>,
        slot: u32,
        generation: u16,
        ready: Ready,
    ) {
        let host = host_of(slot);
        let entry = &mut self.pools[host.index()];
        let Some((ping, result)) = ended(entry, generation, ready, turn.buffer) else { return };
        if let Some(pool) = ping.probe.told().filter(|_| result.is_ok()) {
            self.upstream.pool_answered(turn.now, host, pool);
        }
    }

    pub(super) fn probe_ready(
        &mut self,
        turn: &mut Turn<'_>,
        slot: u32,
        generation: u16,
        ready: Ready,
    ) {
        let host = host_of(slot);
        let entry = &mut self.probes[host.index()];
        match ended(entry, generation, ready, turn.buffer) {
            None => {}
            Some((_, Ok(()))) => self.upstream.probe_answered(turn.now, host),
            Some((_, Err(evidence))) => self.upstream.probe_failed(turn.now, host, evidence),
        }
    }
}

/// Of a probe's key: its slot is the host that it asks.
const fn host_of(slot: u32) -> HostId {
    if slot == 0 { HostId::First } else { HostId::Second }
}

/// Lets the ping of that generation go on; takes it out, with how it ended, when it has.
fn ended(
    entry: &mut Option<Ping>,
    generation: u16,
    ready: Ready,
    buffer: &mut [u8],
) -> Option<(Ping, Result<(), Evidence>)> {
    let ping = entry.as_mut().filter(|ping| ping.generation == generation)?;
    ping.socket.note(ready);
    let result = ping.advance(buffer)?;
    entry.take().map(|ping| (ping, result))
}

impl Ping {
    /// Does what can be done: `None` while it goes on.
    fn advance(&mut self, buffer: &mut [u8]) -> Option<Result<(), Evidence>> {
        let Self { socket, probe, request, .. } = self;
        if let Some(bytes) = request {
            match sockopt::socket_error(&socket.descriptor) {
                Ok(Ok(())) => {}
                Ok(Err(errno)) | Err(errno) => {
                    return Some(Err(evidence_of(errno).unwrap_or(Evidence::Unreachable)));
                }
            }
            // A fresh socket's buffer holds a ping; a short write would be no sound connection.
            match socket.send_once(bytes) {
                None => return None,
                Some(true) => *request = None,
                Some(false) => return Some(Err(Evidence::ProbeBroken)),
            }
        }
        loop {
            match socket.read(buffer)? {
                Ok(0) | Err(_) => return Some(Err(Evidence::ProbeBroken)),
                Ok(count) => match probe.handle(buffer.get(..count).unwrap_or_default()) {
                    Some(true) => return Some(Ok(())),
                    Some(false) => return Some(Err(Evidence::ProbeBroken)),
                    None => {}
                },
            }
        }
    }
}

/// What an error of `connect_to` says of the peer: nothing, where this host ran out of something.
pub(super) const fn evidence_of(errno: Errno) -> Option<Evidence> {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL => None,
        Errno::CONNREFUSED | Errno::CONNRESET => Some(Evidence::ConnectRefused),
        _ => Some(Evidence::Unreachable),
    }
}

/// Begins a connection; its outcome comes as an event.
pub(super) fn connect_to(plane: &Plane, address: SocketAddr, key: Key) -> Result<Socket, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let descriptor = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&descriptor, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno),
    }
    plane.register(&descriptor, key).map_err(|_full| Errno::NOMEM)?;
    Ok(Socket::new(descriptor))
}
