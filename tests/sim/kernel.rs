//! A host's kernel: links, addresses with lifetimes, answers to ARP.
//!
//! In: netlink requests as bytes, ARP frames, time. Out: netlink messages as bytes, ARP answers.
//! Must not: forget addresses when a process dies, or keep them when the host loses power.
//! Read first: rtnetlink(7); facts/vrrp.md 6.2 (how long an address outlives its lifetime).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tandem::net::arp::{Arp, Mac, Operation};
use tandem::net::netlink;
use tandem::node::Input;
use tandem::time::Instant;
use tandem::units::IpCidr;
use tandem::wire::{HostId, LinkId};

use super::host::Host;
use super::wire::Frame;
use super::world::{Event, World};

/// Virtual addresses by link, each with the end of its lifetime (true time).
#[derive(Debug, Default)]
pub struct Kernel {
    pub held: BTreeMap<(LinkId, IpAddr), Lease>,
}

#[derive(Debug, Clone, Copy)]
pub struct Lease {
    pub address: IpCidr,
    pub until: Option<Instant>,
}

impl Kernel {
    pub fn holds(&self, link: LinkId, address: IpAddr) -> bool {
        self.held.contains_key(&(link, address))
    }
}

/// As the kernel numbers them: lo is 1.
fn index_of(link: LinkId) -> u32 {
    match link {
        LinkId::Outside => 2,
        LinkId::Inside => 3,
    }
}

pub fn link_of(index: u32) -> Option<LinkId> {
    LinkId::ALL.into_iter().find(|link| index_of(*link) == index)
}

pub fn mac_of(port: usize, link: LinkId) -> Mac {
    let port = u8::try_from(port).unwrap();
    Mac([2, 0, 0, 0, port + 1, u8::try_from(link.index()).unwrap() + 1])
}

impl World {
    /// Performs a request as sendto() on a netlink socket does: at once. What the kernel says
    /// comes back through the socket of the node, if there is one.
    pub fn kernel_request(&mut self, host: HostId, request: &[u8]) {
        let sequence = u32::from_ne_bytes(*request[8..].first_chunk().unwrap());
        match u16::from_ne_bytes(*request[4..].first_chunk().unwrap()) {
            18 => {
                let mut answer = message(16, 0, &link_body(1, "lo", Mac::default(), true));
                for link in LinkId::ALL {
                    answer.extend(self.link_message(host, link));
                }
                answer.extend(message(3, sequence, &[0; 4]));
                self.tell_node(host, answer);
            }
            22 => {
                let mut answer = Vec::new();
                for link in LinkId::ALL {
                    let own = self.config.host(host).address(link);
                    answer.extend(netlink::set_address(0, index_of(link), own.into(), None, None));
                }
                for ((link, _), lease) in &self.hosts[host.index()].kernel.held {
                    let index = index_of(*link);
                    answer.extend(netlink::set_address(0, index, lease.address, None, None));
                }
                answer.extend(message(3, sequence, &[0; 4]));
                self.tell_node(host, answer);
            }
            20 => self.set_address(host, request, sequence),
            21 => self.remove_address(host, request, sequence),
            kind => self.fail("model", format!("netlink request of kind {kind}")),
        }
    }

    fn set_address(&mut self, host: HostId, request: &[u8], sequence: u32) {
        let Some((link, address)) = address_of(request) else { return };
        // struct ifa_cacheinfo is the last attribute: preferred, valid, two stamps.
        let valid = u32::from_ne_bytes(*request[request.len() - 12..].first_chunk().unwrap());
        let slack = 40 + self.rng.below(210);
        let lifetime = Duration::from_secs(valid.into()) + Duration::from_millis(slack);
        let until = (valid != u32::MAX && !self.plant.has_no_lease()).then(|| self.now + lifetime);
        let key = (link, address.address);
        let held = &mut self.hosts[host.index()].kernel.held;
        let was_held = held.insert(key, Lease { address, until }).is_some();
        if !was_held {
            self.say(host, format!("kernel: {address} on {link}"));
            self.note_gain(host);
        }
        if let Some(until) = until {
            self.at(until, Event::LeaseEnds { host, key });
        }
        let index = index_of(link);
        self.tell_node(host, netlink::set_address(0, index, address, None, None));
        self.tell_node(host, message(2, sequence, &[0; 20]));
    }

    fn remove_address(&mut self, host: HostId, request: &[u8], sequence: u32) {
        let Some((link, address)) = address_of(request) else { return };
        let held = &mut self.hosts[host.index()].kernel.held;
        let error = if held.remove(&(link, address.address)).is_some() {
            self.say(host, format!("kernel: {address} off {link}"));
            let gone = netlink::remove_address(0, index_of(link), address);
            self.tell_node(host, gone);
            0i32
        } else {
            -99
        };
        let mut body = error.to_ne_bytes().to_vec();
        body.extend([0; 16]);
        self.tell_node(host, message(2, sequence, &body));
    }

    pub fn lease_ends(&mut self, host: HostId, key: (LinkId, IpAddr)) {
        let Host { kernel, frozen_since, .. } = &mut self.hosts[host.index()];
        let Some(lease) = kernel.held.get(&key).copied() else { return };
        // A frozen host's timers stand still: the lifetime was moved on when it went on.
        if frozen_since.is_some() || lease.until.is_none_or(|until| until > self.now) {
            return;
        }
        kernel.held.remove(&key);
        self.say(host, format!("kernel: {} lapsed on {}", lease.address, key.0));
        let gone = netlink::remove_address(0, index_of(key.0), lease.address);
        self.tell_node(host, gone);
    }

    /// Carrier came or went at a host's port.
    pub fn set_carrier(&mut self, host: HostId, link: LinkId, has_carrier: bool) {
        let carrier = &mut self.links[link.index()].carrier[host.index()];
        if std::mem::replace(carrier, has_carrier) != has_carrier {
            let message = self.link_message(host, link);
            self.tell_node(host, message);
        }
    }

    fn link_message(&self, host: HostId, link: LinkId) -> Vec<u8> {
        let device = &self.config.link(link).device;
        let carrier = self.links[link.index()].carrier[host.index()];
        let mac = mac_of(host.index(), link);
        message(16, 0, &link_body(index_of(link), device, mac, carrier))
    }

    fn tell_node(&mut self, host: HostId, datagram: Vec<u8>) {
        let run = self.hosts[host.index()].run;
        let input = Input::Netlink { datagram };
        self.after(Duration::from_micros(30), Event::Input { host, run, input });
    }

    /// The kernel answers for what it holds, whatever its processes do.
    pub fn answer_arp(&mut self, host: HostId, link: LinkId, from: usize, frame: &[u8]) {
        let Some(arp) = Arp::parse(frame) else { return };
        let own = self.config.host(host).address(link).address;
        let is_held =
            own == arp.target || self.hosts[host.index()].kernel.holds(link, arp.target.into());
        if arp.operation != Operation::Request || arp.sender == arp.target || !is_held {
            return;
        }
        let reply = Arp {
            operation: Operation::Reply,
            sender_mac: mac_of(host.index(), link),
            sender: arp.target,
            target_mac: arp.sender_mac,
            target: arp.sender,
        };
        let frame = Frame::Arp(reply.emit().to_vec());
        self.send_to(link, host.index(), from, frame);
    }
}

fn address_of(request: &[u8]) -> Option<(LinkId, IpCidr)> {
    match netlink::parse(request).first()? {
        netlink::Event::AddressAdded { index, address }
        | netlink::Event::AddressRemoved { index, address } => Some((link_of(*index)?, *address)),
        netlink::Event::Link { .. }
        | netlink::Event::LinkRemoved { .. }
        | netlink::Event::Acknowledged { .. }
        | netlink::Event::Done => None,
    }
}

fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// struct ifinfomsg, IFLA_IFNAME, IFLA_ADDRESS. 0x1 is IFF_UP, 0x40 IFF_RUNNING.
fn link_body(index: u32, name: &str, mac: Mac, has_carrier: bool) -> Vec<u8> {
    let mut body = vec![0, 0, 1, 0];
    body.extend(index.to_ne_bytes());
    body.extend((if has_carrier { 0x41u32 } else { 1 }).to_ne_bytes());
    body.extend([0; 4]);
    let mut attribute = |kind: u16, value: &[u8]| {
        body.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    };
    attribute(3, format!("{name}\0").as_bytes());
    attribute(1, &mac.0);
    body
}
