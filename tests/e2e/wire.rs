//! A host's Ethernet frames: what it hears, and forged ones that it sends.
//!
//! In: a running host, a link. Out: frames with the moment at which they came; frames sent in the
//! name of whoever the test likes. Must not: leave the host's namespace.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tandem::net::arp::Arp;
use tandem::os::link::DeviceSockets;

use crate::host::{Host, enter, text};
use crate::world::{Link, Outcome};

/// What a packet socket is fed with: its place among `DeviceSockets::frames`.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Arp,
    /// VRRP over IPv4.
    Vrrp,
}

/// A frame, Ethernet header included, and when it came.
pub type Heard = (Instant, Vec<u8>);

/// Sends frames from a host, each with whatever sender it names.
pub fn send(host: &Host, link: Link, frames: &[Vec<u8>]) -> Outcome<()> {
    host.on_network(|| {
        let sockets = DeviceSockets::open(link.device(), false).map_err(text)?;
        frames.iter().try_for_each(|frame| sockets.send(frame).map_err(text))
    })?
}

/// The frames that a host hears while `during` runs, and for `span` after it.
pub fn hear(
    host: &Host,
    link: Link,
    kind: Kind,
    span: Duration,
    during: impl FnOnce() -> Outcome<()> + Send,
) -> Outcome<Vec<Heard>> {
    hear_in(&host.network()?, link, kind, span, during)
}

/// The same in a host's network namespace, so that `during` may have the host itself.
pub fn hear_in(
    network: &File,
    link: Link,
    kind: Kind,
    span: Duration,
    during: impl FnOnce() -> Outcome<()> + Send,
) -> Outcome<Vec<Heard>> {
    let open = || {
        enter(network)?;
        DeviceSockets::open(link.device(), false).map_err(text)
    };
    let sockets = std::thread::scope(|scope| scope.spawn(open).join())
        .unwrap_or_else(|_| Err("the thread in the namespace panicked".into()))?;
    let place = match kind {
        Kind::Arp => 0,
        Kind::Vrrp => 1,
    };
    let socket = sockets.frames.get(place).ok_or("no packet socket")?.get_ref();
    std::thread::scope(|scope| {
        let done = scope.spawn(during);
        let mut until = None;
        let mut heard = Vec::new();
        let mut buffer = [0; 2048];
        while until.is_none_or(|until| Instant::now() < until) {
            if done.is_finished() && until.is_none() {
                until = Some(Instant::now() + span);
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            let _ready = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait));
            while let Ok(count) = rustix::io::read(socket, &mut buffer[..]) {
                heard.push((Instant::now(), buffer[..count].to_vec()));
            }
        }
        done.join().map_err(|_| "a thread panicked".to_owned())??;
        Ok(heard)
    })
}

/// The ARP packets among frames.
pub fn arp(heard: &[Heard]) -> impl Iterator<Item = (Instant, Arp)> {
    heard.iter().filter_map(|(at, frame)| Some((*at, Arp::parse(frame)?)))
}

/// The priority that a frame of VRRP over IPv4 says, whatever is wrong with it: behind the headers
/// of Ethernet and IPv4, version and VRID.
pub fn priority(frame: &[u8]) -> Option<u8> {
    frame.get(14 + 20 + 2).copied()
}
