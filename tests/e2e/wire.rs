//! A host's Ethernet frames: what it hears, and forged ones that it sends.
//!
//! In: a running host, a link. Out: frames with the moment at which they came; frames sent in the
//! name of whoever the test likes. Must not: leave the host's namespace.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tandem::net::arp::Arp;
use tandem::os::link::DeviceSockets;

use crate::host::{Host, text};
use crate::world::{Link, Outcome};

/// Sends frames from a host, each with whatever sender it names.
pub fn send(host: &Host, link: Link, frames: &[Vec<u8>]) -> Outcome<()> {
    host.on_network(|| {
        let sockets = DeviceSockets::open(link.device(), false).map_err(text)?;
        frames.iter().try_for_each(|frame| sockets.send(frame).map_err(text))
    })?
}

/// The ARP packets that a host hears while `during` runs, and for `span` after it.
pub fn arp_heard(
    host: &Host,
    link: Link,
    span: Duration,
    during: impl FnOnce() -> Outcome<()> + Send,
) -> Outcome<Vec<(Instant, Arp)>> {
    let sockets = host.on_network(|| DeviceSockets::open(link.device(), false))?.map_err(text)?;
    let socket = sockets.frames.first().ok_or("no packet socket")?.get_ref();
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
                heard.extend(Arp::parse(&buffer[..count]).map(|arp| (Instant::now(), arp)));
            }
        }
        done.join().map_err(|_| "a thread panicked".to_owned())??;
        Ok(heard)
    })
}

/// An advertisement as a third host sees it.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    pub at: Instant,
    pub priority: u8,
}

/// The advertisements that a host hears for `span`, whatever is wrong with them.
pub fn vrrp_heard(host: &Host, link: Link, span: Duration) -> Outcome<Vec<Heard>> {
    let sockets = host.on_network(|| DeviceSockets::open(link.device(), false))?.map_err(text)?;
    let socket = sockets.frames.get(1).ok_or("no packet socket for IPv4")?.get_ref();
    let (start, mut heard, mut buffer) = (Instant::now(), Vec::new(), [0; 2048]);
    while start.elapsed() < span {
        let wait = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let _ready = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait));
        while let Ok(count) = rustix::io::read(socket, &mut buffer[..]) {
            // Ethernet and IPv4 headers, then version, VRID, priority.
            let priority = buffer[..count].get(14 + 20 + 2).copied();
            heard.extend(priority.map(|priority| Heard { at: Instant::now(), priority }));
        }
    }
    Ok(heard)
}
