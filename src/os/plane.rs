//! The data plane's one edge-triggered epoll: every socket of the web front and the SQL splitter is
//! registered here once for life, and events carry the key that finds its session.
//!
//! In: descriptors and their keys. Out: ready keys, a bounded number a turn. Must not: know what a
//! session is. The epoll descriptor itself is what the loop registers with async-io, once.
//! Read first: facts/sql.md 5.1 (4.2 system calls a query this way, 18 with one-shot readiness);
//! epoll(7), "Edge-triggered". The rule that follows from it: a socket that was not read or written
//! until EAGAIN or a short count gets no further event, so whoever stops early must remember it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::limits;
use crate::time::Instant;

/// Whose socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Web,
    Sql,
}

/// Finds the owner of a descriptor: the service, the slot in its own slab, which of the slot's
/// sockets it is, and the slot's generation, so that an event that was already queued for a closed
/// socket does not reach the slot's next user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub service: Service,
    pub side: u8,
    pub generation: u16,
    pub slot: u32,
}

impl Key {
    fn pack(self) -> u64 {
        let service = match self.service {
            Service::Web => 0u64,
            Service::Sql => 1,
        };
        service << 56
            | u64::from(self.side) << 48
            | u64::from(self.generation) << 32
            | u64::from(self.slot)
    }

    fn unpack(data: u64) -> Self {
        let [service, side, g1, g0, s3, s2, s1, s0] = data.to_be_bytes();
        Self {
            service: if service == 0 { Service::Web } else { Service::Sql },
            side,
            generation: u16::from_be_bytes([g1, g0]),
            slot: u32::from_be_bytes([s3, s2, s1, s0]),
        }
    }
}

/// What epoll said of a key. `is_hung_up` covers EPOLLHUP and EPOLLERR (read it to learn which);
/// `is_read_closed` is EPOLLRDHUP: the other side will send no more.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    pub key: Key,
    pub is_readable: bool,
    pub is_writable: bool,
    pub is_read_closed: bool,
    pub is_hung_up: bool,
}

/// What a service is handed whenever the loop calls it: the instant, the epoll to register new
/// sockets with, and the shared read buffer, whose contents mean nothing between two calls.
#[derive(Debug)]
pub struct Turn<'a> {
    pub now: Instant,
    pub plane: &'a Plane,
    pub buffer: &'a mut [u8],
}

pub struct Plane {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    /// Ends a wait. One timer for many waits: a time limit of each would be set and taken back in
    /// the processor's own timer, which a virtual machine leaves for its host, twice a wait.
    alarm: OwnedFd,
}

/// No key of a socket: `Key::pack` leaves its first bits alone.
const ALARM: u64 = u64::MAX;

/// What a wait came to.
#[derive(Debug, Clone, Copy)]
pub struct Waited {
    /// The limit for one turn was reached, so that more may be pending.
    pub has_more: bool,
    pub has_rung: bool,
}

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plane({:?})", self.epoll)
    }
}

impl Plane {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let alarm = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &alarm, epoll::EventData::new_u64(ALARM), flags)?;
        Ok(Self { epoll, events: Vec::with_capacity(limits::PLANE_EVENTS_PER_TURN), alarm })
    }

    /// The descriptor that the loop waits on: readable while any socket has an event.
    #[must_use]
    pub const fn epoll(&self) -> &OwnedFd {
        &self.epoll
    }

    /// Registers a socket for reading and writing, edge-triggered, until it is closed.
    pub fn register(&self, socket: impl AsFd, key: Key) -> io::Result<()> {
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(key.pack()), flags)?)
    }

    /// Lets the alarm ring once, after `limit`; what it was set to before counts no more.
    pub fn set_alarm(&self, limit: Duration) -> io::Result<()> {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = Timespec::try_from(limit).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: never, it_value };
        timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Fills `ready` with what is ready at this moment, without waiting. Returns whether the limit
    /// for one turn was reached, so that more may be pending.
    pub fn poll(&mut self, ready: &mut Vec<Ready>) -> io::Result<bool> {
        Ok(self.take(ready, false)?.has_more)
    }

    /// The same; with `waits` it first waits until something is ready or the alarm rings, which is
    /// to be set: else it waits for ever.
    pub fn take(&mut self, ready: &mut Vec<Ready>, waits: bool) -> io::Result<Waited> {
        self.events.clear();
        ready.clear();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let limit = (!waits).then_some(&at_once);
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), limit) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has_more = self.events.len() == limits::PLANE_EVENTS_PER_TURN;
        let mut has_rung = false;
        for event in &self.events {
            let (flags, data) = (event.flags, event.data.u64());
            if data == ALARM {
                has_rung = true;
                continue;
            }
            ready.push(Ready {
                key: Key::unpack(data),
                is_readable: flags.contains(epoll::EventFlags::IN),
                is_writable: flags.contains(epoll::EventFlags::OUT),
                is_read_closed: flags.contains(epoll::EventFlags::RDHUP),
                is_hung_up: flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR),
            });
        }
        Ok(Waited { has_more, has_rung })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_the_kernel() {
        let key = Key { service: Service::Sql, side: 2, generation: 65535, slot: u32::MAX - 1 };
        assert_eq!(Key::unpack(key.pack()), key);
        let (left, right) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        let mut plane = Plane::new().expect("an epoll descriptor");
        plane.register(&left, key).expect("registers");
        let mut ready = Vec::new();
        plane.poll(&mut ready).expect("polls");
        assert_eq!(ready.len(), 1);
        assert!(ready[0].key == key && ready[0].is_writable && !ready[0].is_readable);
        plane.poll(&mut ready).expect("polls");
        assert!(ready.is_empty(), "edge-triggered: the same state is told once");
        // Not dropped: a process that another test is just starting has it too, until its exec.
        right.shutdown(std::net::Shutdown::Both).expect("shuts down");
        plane.poll(&mut ready).expect("polls");
        assert!(ready[0].is_readable && ready[0].is_read_closed && ready[0].is_hung_up);
    }

    #[test]
    fn the_alarm_ends_a_wait_each_time_it_was_set() {
        let mut plane = Plane::new().expect("an epoll descriptor");
        let mut ready = Vec::new();
        for _ in 0..3 {
            plane.set_alarm(Duration::from_millis(1)).expect("sets");
            let waited = plane.take(&mut ready, true).expect("waits");
            assert!(waited.has_rung && !waited.has_more && ready.is_empty());
            assert!(!plane.take(&mut ready, false).expect("polls").has_rung, "told once");
        }
    }
}
