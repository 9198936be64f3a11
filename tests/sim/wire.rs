//! The two networks: who hears what, when, and how it was bent on the way.
//!
//! In: frames of hosts and of the client. Out: the same, later, twice, bent or never.
//! Must not: hold what a host keeps (addresses are the kernel's, in `kernel`).
//! Read first: `world`. A port is a host's index or `CLIENT`, which is on the outside link only.

use std::net::Ipv4Addr;
use std::time::Duration;

use tandem::net::arp::{Arp, Operation};
use tandem::net::icmp::Echo;
use tandem::node::Input;
use tandem::time::Rng;
use tandem::wire::{HostId, LinkId, Role};

use super::kernel::mac_of;
use super::world::{Event, World};

/// The client's port is where the witnesses are, too: a router and what lies behind it.
pub const CLIENT: usize = 2;
pub const NEAR_WITNESS: Ipv4Addr = Ipv4Addr::new(10, 96, 153, 1);
pub const FAR_WITNESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const PORTS: usize = 3;

#[derive(Debug, Clone)]
pub enum Frame {
    Vrrp(Vec<u8>),
    Arp(Vec<u8>),
    Beacon(Vec<u8>),
    /// To the far witness, and back as a datagram.
    Echo(Vec<u8>),
}

/// Of a thousand frames, and how late one may be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noise {
    pub lost: u64,
    pub doubled: u64,
    pub bent: u64,
    pub jitter: Duration,
}

#[derive(Debug, Clone)]
pub struct Link {
    /// By port: whether the cable is plugged and the other end alive.
    pub carrier: [bool; PORTS],
    /// From port, to port: a silent cut.
    pub cut: [[bool; PORTS]; PORTS],
    pub noise: Noise,
    /// A filter between the hosts that only ARP passes.
    pub has_filter: bool,
}

impl Link {
    pub fn new() -> Self {
        Self {
            carrier: [true; PORTS],
            cut: [[false; PORTS]; PORTS],
            noise: Noise::default(),
            has_filter: false,
        }
    }

    pub fn passes(&self, from: usize, to: usize) -> bool {
        self.carrier[from] && self.carrier[to] && !self.cut[from][to]
    }
}

impl Frame {
    fn bytes(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Vrrp(bytes) | Self::Arp(bytes) | Self::Beacon(bytes) | Self::Echo(bytes) => bytes,
        }
    }

    /// One bit turned over, where no checksum below ours would catch it: the kernel drops a bad IP
    /// header, the Ethernet checksum guards ARP.
    fn bend(&mut self, rng: &mut Rng) -> bool {
        let guarded = match self {
            Self::Vrrp(_) => 20,
            Self::Beacon(_) => 0,
            Self::Arp(_) | Self::Echo(_) => return false,
        };
        let bytes = self.bytes();
        let bits = u64::try_from((bytes.len() - guarded) * 8).unwrap();
        let bit = usize::try_from(rng.below(bits)).unwrap();
        bytes[guarded + bit / 8] ^= 1 << (bit % 8);
        true
    }

    pub fn input(self, link: LinkId) -> Input {
        match self {
            Self::Vrrp(datagram) => Input::Vrrp { link, datagram },
            Self::Arp(frame) => Input::Frame { device: link.into(), frame },
            Self::Beacon(datagram) => Input::Beacon { link, datagram },
            Self::Echo(datagram) => Input::Echo { datagram },
        }
    }
}

impl World {
    /// Sends to everybody who is meant: beacons to the other host, the rest to the whole link.
    pub fn send(&mut self, link: LinkId, from: usize, frame: &Frame) {
        let ports = if link == LinkId::Outside { PORTS } else { 2 };
        for to in (0..ports).filter(|to| *to != from) {
            if to == CLIENT && !matches!(frame, Frame::Arp(_)) {
                continue;
            }
            self.send_to(link, from, to, frame.clone());
        }
    }

    pub fn send_to(&mut self, link: LinkId, from: usize, to: usize, frame: Frame) {
        let Link { noise, has_filter, .. } = self.links[link.index()];
        // The filter stands between the hosts.
        if has_filter && !matches!(frame, Frame::Arp(_) | Frame::Echo(_)) {
            return;
        }
        if !self.links[link.index()].passes(from, to) || self.rng.below(1000) < noise.lost {
            return;
        }
        let copies = 1 + usize::from(self.rng.below(1000) < noise.doubled);
        for _ in 0..copies {
            let mut copy = frame.clone();
            if self.rng.below(1000) < noise.bent && !copy.bend(&mut self.rng) {
                continue;
            }
            let jitter = u64::try_from(noise.jitter.as_micros()).unwrap();
            let delay = 50 + self.rng.below(100) + self.rng.below(jitter + 1);
            let event = Event::Arrive { link, from, to, frame: copy };
            self.after(Duration::from_micros(delay), event);
        }
    }

    pub fn arrive(&mut self, link: LinkId, from: usize, to: usize, frame: Frame) {
        if !self.links[link.index()].carrier[to] {
            return;
        }
        let Some(host) = HostId::ALL.get(to).copied() else {
            return self.arrive_at_client(from, &frame);
        };
        if !self.hosts[to].is_awake() {
            return;
        }
        if let Frame::Arp(bytes) = &frame {
            self.answer_arp(host, link, from, bytes);
        }
        if matches!(frame, Frame::Beacon(_)) {
            if self.hosts[to].is_running() {
                self.checks.heard_peer_at[to] = Some(self.now);
            }
            let is_of_source =
                matches!(self.hosts[from.min(1)].role, Role::Active | Role::Demoting);
            if is_of_source && self.hosts[to].takes_input() {
                self.checks.promises.heard_source_at[to] = Some(self.now);
            }
        }
        self.deliver(host, frame.input(link));
    }

    fn arrive_at_client(&mut self, from: usize, frame: &Frame) {
        match frame {
            Frame::Arp(bytes) => {
                let Some(arp) = Arp::parse(bytes) else { return };
                self.client.learn(&arp);
                if arp.operation == Operation::Request && arp.target == NEAR_WITNESS {
                    let reply = Arp {
                        operation: Operation::Reply,
                        sender_mac: mac_of(CLIENT, LinkId::Outside),
                        sender: NEAR_WITNESS,
                        target_mac: arp.sender_mac,
                        target: arp.sender,
                    };
                    let frame = Frame::Arp(reply.emit().to_vec());
                    self.send_to(LinkId::Outside, CLIENT, from, frame);
                }
            }
            Frame::Echo(message) => {
                let number = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
                let echo = Echo { identifier: number(4), sequence: number(6) };
                let reply = echo.reply(FAR_WITNESS, Ipv4Addr::LOCALHOST);
                self.send_to(LinkId::Outside, CLIENT, from, Frame::Echo(reply));
            }
            Frame::Vrrp(_) | Frame::Beacon(_) => {}
        }
    }

    /// Whether a host and a witness reach each other.
    pub fn sees_witness(&self, host: HostId) -> bool {
        !self.config.peer.witnesses.is_empty() && self.path(LinkId::Outside, host.index(), CLIENT)
    }

    /// Whether both directions pass between two ports.
    pub fn path(&self, link: LinkId, a: usize, b: usize) -> bool {
        let link = &self.links[link.index()];
        link.passes(a, b) && link.passes(b, a)
    }

    /// A host reaches the database of `to`: its own always.
    pub fn reaches_database(&self, from: HostId, to: HostId) -> bool {
        from == to
            || (self.hosts[to.index()].is_powered
                && self.path(LinkId::Inside, from.index(), to.index()))
    }
}
