//! Who holds the virtual addresses, seen from inside both hosts every two milliseconds.
//!
//! In: a running host. Out: for each address the intervals during which the kernel had it. A sample
//! is a netlink dump that begins and ends at known times, so an interval is counted from the end of
//! the first dump that shows the address to the beginning of the last one: what remains is certain,
//! and two such intervals overlap only when both hosts held the address at one moment.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send};

use crate::host::{Host, enter};
use crate::world::Outcome;

/// An interval in which the host held the address for certain.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub address: Ipv4Addr,
    pub from: Instant,
    pub to: Instant,
    /// The next sample did not show it any more.
    pub is_over: bool,
}

/// Watches one host from one boot to its end. Keeps the host's network namespace open meanwhile.
#[derive(Debug)]
pub struct Sampler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    addresses: Vec<Ipv4Addr>,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    spans: Vec<Span>,
    samples: u64,
    /// The longest time between two samples: how blind the sampler was at worst.
    blind: Duration,
    failure: Option<String>,
}

const PERIOD: Duration = Duration::from_millis(2);

impl Sampler {
    pub fn start(host: &Host, addresses: &[Ipv4Addr]) -> Outcome<Self> {
        let network = host.network()?;
        let shared = Arc::new(Shared {
            addresses: addresses.to_vec(),
            stop: AtomicBool::new(false),
            seen: Mutex::new(Seen::default()),
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let watched = enter(&network).and_then(|()| shared.watch());
                if let Err(why) = watched {
                    shared.lock().failure = Some(why);
                }
            }
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What was seen so far.
    pub fn spans(&self) -> Vec<Span> {
        self.shared.lock().spans.clone()
    }

    /// The addresses that the host holds by the last sample.
    pub fn held(&self) -> Vec<Ipv4Addr> {
        let seen = self.shared.lock();
        seen.spans.iter().filter(|span| !span.is_over).map(|span| span.address).collect()
    }

    /// Stops. What was seen after `moment` is not counted: the host was off the network by then.
    pub fn stop(mut self, moment: Instant) -> Outcome<Vec<Span>> {
        self.end();
        let seen = self.shared.lock();
        if let Some(why) = &seen.failure {
            return Err(format!("the address sampler ended: {why}"));
        }
        let mut spans = seen.spans.clone();
        spans.retain(|span| span.from < moment);
        for span in &mut spans {
            span.to = span.to.min(moment);
            span.is_over = true;
        }
        Ok(spans)
    }

    /// Samples taken and the longest time between two.
    pub fn sight(&self) -> (u64, Duration) {
        let seen = self.shared.lock();
        (seen.samples, seen.blind)
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) -> Outcome<()> {
        let socket = rustix::net::socket(
            AddressFamily::NETLINK,
            SocketType::RAW,
            None, /* ROUTE is 0 */
        )
        .map_err(|error| format!("netlink: {error}"))?;
        let mut last: Option<Instant> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let before = Instant::now();
            let found = dump(&socket)?;
            let after = Instant::now();
            let mut seen = self.lock();
            seen.samples += 1;
            if let Some(last) = last {
                seen.blind = seen.blind.max(after - last);
            }
            last = Some(before);
            for &address in &self.addresses {
                seen.note(address, found.contains(&address), before, after);
            }
            drop(seen);
            std::thread::sleep(PERIOD.saturating_sub(before.elapsed()));
        }
        Ok(())
    }
}

impl Seen {
    fn note(&mut self, address: Ipv4Addr, is_held: bool, before: Instant, after: Instant) {
        let open = self.spans.iter_mut().find(|span| span.address == address && !span.is_over);
        match (open, is_held) {
            (Some(span), true) => span.to = before.max(span.from),
            (Some(span), false) => span.is_over = true,
            (None, true) => {
                self.spans.push(Span { address, from: after, to: after, is_over: false });
            }
            (None, false) => {}
        }
    }
}

/// For how long both hosts held one address at the same time, summed over addresses.
pub fn overlap(one: &[Span], other: &[Span]) -> Duration {
    let mut sum = Duration::ZERO;
    for a in one {
        for b in other.iter().filter(|b| b.address == a.address) {
            sum += a.to.min(b.to).saturating_duration_since(a.from.max(b.from));
        }
    }
    sum
}

/// When the last of `addresses` arrived for the first time after `since`; none if one did not.
pub fn arrival(spans: &[Span], addresses: &[Ipv4Addr], since: Instant) -> Option<Instant> {
    let first = |address| {
        spans.iter().filter(|it| it.address == address && it.from >= since).map(|it| it.from).min()
    };
    addresses.iter().map(|&address| first(address)).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// RTM_GETADDR for IPv4, dumped: the addresses of every interface in the thread's namespace.
fn dump(socket: &impl std::os::fd::AsFd) -> Outcome<Vec<Ipv4Addr>> {
    // struct nlmsghdr: length, type, flags, sequence, pid; then struct ifaddrmsg.
    let mut request = [0_u8; 24];
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    request[..4].copy_from_slice(&24_u32.to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETADDR.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[16] = AF_INET;
    send(socket, &request, SendFlags::empty()).map_err(|error| format!("netlink send: {error}"))?;
    let mut found = Vec::new();
    let mut buffer = [0_u8; 16384];
    loop {
        let (count, _) = recv(socket, &mut buffer[..], RecvFlags::empty())
            .map_err(|error| format!("netlink receive: {error}"))?;
        let mut rest = &buffer[..count];
        while rest.len() >= 16 {
            let length = usize::try_from(u32_at(rest, 0)).unwrap_or(rest.len());
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            if kind == NLMSG_DONE || kind == NLMSG_ERROR || !(16..=rest.len()).contains(&length) {
                return Ok(found);
            }
            found.extend(local_address(&rest[..length]));
            rest = &rest[(length.next_multiple_of(4)).min(rest.len())..];
        }
    }
}

/// The IFA_LOCAL attribute of one RTM_NEWADDR message.
fn local_address(message: &[u8]) -> Option<Ipv4Addr> {
    let mut rest = message.get(24..)?;
    while rest.len() >= 8 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]])).max(4);
        let kind = u16::from_ne_bytes([rest[2], rest[3]]);
        if kind == IFA_LOCAL && length == 8 {
            return Some(Ipv4Addr::new(rest[4], rest[5], rest[6], rest[7]));
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

// Linux: include/uapi/linux/{netlink,rtnetlink,if_addr}.h
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_GETADDR: u16 = 22;
const IFA_LOCAL: u16 = 2;
const AF_INET: u8 = 2;
