//! Survey: looks at the network before anything serves on it (`tandem check --live`).
//!
//! In: frames, datagrams, netlink messages, time. Out: questions by ARP and neighbour discovery;
//! findings, and a line about each link. Must not: take, announce or advertise anything.
//! Read first: facts/vrrp.md 3.8 and 6.9; `find`, which says the same of a running node.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::find::of_refusal;
use super::links::{Device, LinkFacts};
use super::{Input, router_configs, vips};
use crate::config::{Config, is_link_local};
use crate::console::finding::{Finding, Trouble};
use crate::net::arp::{self, Arp, Mac};
use crate::net::gateway::Verdict;
use crate::net::nd::Neighbour;
use crate::net::{netlink, probe_frame};
use crate::peer::{self, Peer};
use crate::time::{Instant, earliest};
use crate::units::IpCidr;
use crate::vrrp::group::Group;
use crate::vrrp::packet::{self, Family, Refusal};
use crate::vrrp::router::Heard;
use crate::wire::{DeviceId, HostId, LinkId};

/// How often everybody is asked, and how long an answer may take.
const ROUNDS: u32 = 3;
const ROUND_TIME: Duration = Duration::from_secs(1);

/// What a survey asks of the hands.
#[derive(Debug)]
pub enum Output {
    /// An Ethernet frame.
    Frame {
        device: DeviceId,
        frame: Vec<u8>,
    },
    Netlink {
        request: Vec<u8>,
    },
}

#[derive(Debug)]
pub struct Survey {
    config: Config,
    me: HostId,
    group: Group,
    peer: Peer,
    devices: Vec<Device>,
    links: [LinkFacts; 2],
    /// Who claims which virtual address.
    claims: Vec<(DeviceId, IpAddr, Mac)>,
    has_carrier: [bool; 2],
    is_vrrp_received: [bool; 2],
    is_dumped: bool,
    rounds: u32,
    next_at: Option<Instant>,
    ends_at: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Survey {
    #[must_use]
    pub fn new(config: Config, me: HostId) -> Self {
        let mut survey = Self {
            group: Group::new(router_configs(&config, me)),
            peer: Peer::new(&config.peer, me),
            devices: config.devices().into_iter().map(Device::new).collect(),
            links: LinkId::ALL.map(|link| LinkFacts::new(&config, me, link)),
            claims: Vec::new(),
            has_carrier: [false; 2],
            is_vrrp_received: [false; 2],
            is_dumped: false,
            rounds: 0,
            next_at: None,
            ends_at: None,
            outputs: VecDeque::new(),
            config,
            me,
        };
        survey.outputs.push_back(Output::Netlink { request: netlink::dump_links(1) });
        survey
    }

    pub fn handle(&mut self, now: Instant, input: Input) {
        // Long enough for a master to be heard, and for the last questions to be answered.
        let span = (ROUND_TIME * (ROUNDS + 4)).max(self.group.master_down_interval());
        self.ends_at.get_or_insert(now + span);
        let next_at = *self.next_at.get_or_insert(now + ROUND_TIME / 4);
        match input {
            Input::Vrrp { link, datagram } => self.handle_vrrp(now, link, &datagram),
            Input::Frame { device, frame } => self.handle_frame(now, device, &frame),
            Input::Beacon { link, datagram } => self.handle_beacon(now, link, &datagram),
            Input::Netlink { datagram } => self.handle_netlink(now, &datagram),
            Input::NetlinkLost
            | Input::ClockSet { .. }
            | Input::Answer { .. }
            | Input::ErrantSaved(_)
            | Input::TookBack(_)
            | Input::CopyGoesOn(_)
            | Input::Copied(_)
            | Input::Image(_)
            | Input::UpdateFailed { .. }
            | Input::DataPlane(_)
            | Input::Control { .. }
            | Input::Icmp { .. }
            | Input::Echo { .. }
            | Input::Terminate
            | Input::Wake => {}
        }
        if now >= next_at && self.rounds <= ROUNDS {
            self.next_at = Some(now + ROUND_TIME);
            self.rounds += 1;
            if self.rounds <= ROUNDS { self.ask_everybody() } else { self.ask_gateways(now) }
        }
        for link in LinkId::ALL {
            let mac = self.devices[link.index()].mac;
            let gateway = self.links[link.index()].gateway.as_mut();
            let frames = gateway.map(|gateway| gateway.tick(now, mac)).unwrap_or_default();
            self.send(link, frames);
        }
    }

    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let gateways = self.links.iter().filter_map(|link| link.gateway.as_ref());
        let first = earliest(self.ends_at, self.next_at.filter(|_| self.rounds <= ROUNDS));
        gateways.fold(first, |first, gateway| earliest(first, gateway.deadline()))
    }

    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.ends_at.is_some_and(|at| now >= at)
    }

    /// Who has the virtual addresses, and this host's own and the peer's?
    fn ask_everybody(&mut self) {
        for vip in vips(&self.config).collect::<Vec<_>>() {
            self.probe(vip.device, vip.address.address);
        }
        for link in LinkId::ALL {
            let facts = &self.links[link.index()];
            let (own, peer) = (facts.own, facts.peer);
            for address in [own, peer] {
                self.probe(link.into(), address.into());
            }
        }
    }

    fn probe(&mut self, device: DeviceId, address: IpAddr) {
        let frame = probe_frame(self.devices[device.index()].mac, address);
        self.outputs.push_back(Output::Frame { device, frame });
    }

    /// A question from a virtual address would take it from whoever has it: only a free one asks.
    fn ask_gateways(&mut self, now: Instant) {
        for link in LinkId::ALL {
            let is_taken = self.claims.iter().any(|(device, ..)| device.link() == Some(link))
                || self.links[link.index()].ears.frame_at.is_some();
            let mac = self.devices[link.index()].mac;
            let gateway = self.links[link.index()].gateway.as_mut().filter(|_| !is_taken);
            let frames = gateway.map(|gateway| gateway.ask(now, mac)).unwrap_or_default();
            self.send(link, frames);
        }
    }

    fn send(&mut self, link: LinkId, frames: Vec<[u8; arp::FRAME_BYTES]>) {
        for frame in frames {
            self.outputs.push_back(Output::Frame { device: link.into(), frame: frame.to_vec() });
        }
    }

    fn handle_vrrp(&mut self, now: Instant, link: LinkId, datagram: &[u8]) {
        let Some(heard) = self.group.handle_datagram(now, link, datagram) else { return };
        let ears = &mut self.links[link.index()].ears;
        let refused = packet::source_and_vrid(datagram).map(|(source, _)| source);
        match heard {
            Heard::Refused(Refusal::OtherVrid(_)) => return,
            Heard::Master { .. } | Heard::Resigned => ears.vrrp_at = Some(now),
            Heard::Stranger { source } => ears.stranger = Some((now, source)),
            Heard::Refused(refusal) => {
                ears.refused = refused.map(|source| (now, source, refusal)).or(ears.refused);
            }
        }
        if self.group.is_list_different(link) {
            ears.list_differs_at = Some(now);
        }
        self.is_vrrp_received[link.index()] = true;
    }

    fn handle_frame(&mut self, now: Instant, device: DeviceId, frame: &[u8]) {
        if let Some(arp) = Arp::parse(frame) {
            return self.handle_arp(now, device, &arp);
        }
        if let Some(neighbour) = Neighbour::parse(frame) {
            return self.hear_claim(device, neighbour.sender_mac, |address| match address {
                IpAddr::V4(_) => false,
                IpAddr::V6(address) => neighbour.claims(address),
            });
        }
        let datagram = frame.get(14..).unwrap_or_default();
        let (Some(link), Some((source, vrid))) = (device.link(), packet::source_and_vrid(datagram))
        else {
            return;
        };
        let facts = &mut self.links[link.index()];
        if source != IpAddr::from(facts.own) {
            facts.ears.anything_at = Some(now);
            if vrid == self.config.link(link).vrid {
                facts.ears.frame_at = Some(now);
            }
        }
    }

    fn handle_arp(&mut self, now: Instant, device: DeviceId, arp: &Arp) {
        if self.devices.iter().any(|device| device.mac == arp.sender_mac) {
            return;
        }
        if let Some(link) = device.link() {
            let facts = &mut self.links[link.index()];
            facts.ears.anything_at = Some(now);
            if arp.claims(facts.peer) {
                facts.peer_mac = Some(arp.sender_mac);
            }
            if arp.claims(facts.own) {
                facts.ears.own_claim = Some((now, arp.sender_mac));
            }
            if let Some(gateway) = &mut facts.gateway {
                gateway.hear(arp);
            }
        }
        self.hear_claim(device, arp.sender_mac, |address| match address {
            IpAddr::V4(address) => arp.claims(address),
            IpAddr::V6(_) => false,
        });
    }

    fn hear_claim(&mut self, device: DeviceId, mac: Mac, claims: impl Fn(IpAddr) -> bool) {
        if self.devices.iter().any(|device| device.mac == mac) {
            return;
        }
        let mut claimed = vips(&self.config).map(|vip| (vip.device, vip.address.address, mac));
        let found = claimed.find(|(at, address, _)| *at == device && claims(*address));
        self.claims.extend(found.filter(|found| !self.claims.contains(found)));
    }

    fn handle_beacon(&mut self, now: Instant, link: LinkId, datagram: &[u8]) {
        let ears = &mut self.links[link.index()].ears;
        ears.anything_at = Some(now);
        match self.peer.handle_datagram(now, link, datagram) {
            Ok(_) => ears.beacon_at = Some(now),
            Err(refusal) => ears.beacon_refused = Some((now, refusal)),
        }
        let digest = self.peer.report().map(|report| report.config_digest);
        if digest.is_some_and(|digest| digest != self.config.digest) {
            ears.config_differs_at = Some(now);
        }
    }

    fn handle_netlink(&mut self, now: Instant, datagram: &[u8]) {
        for event in netlink::parse(datagram) {
            match event {
                netlink::Event::Link { index, name, mac, is_running } => {
                    let place = self.devices.iter().position(|device| device.name == name);
                    let Some(device) = place.and_then(DeviceId::new) else { continue };
                    let known = &mut self.devices[device.index()];
                    (known.index, known.mac) = (Some(index), mac);
                    if let Some(link) = device.link() {
                        self.has_carrier[link.index()] = is_running;
                        self.group.set_carrier(now, link, is_running);
                    }
                }
                netlink::Event::AddressAdded { index, address } => {
                    self.observe_address(index, address);
                }
                netlink::Event::Done if !std::mem::replace(&mut self.is_dumped, true) => {
                    self.outputs.push_back(Output::Netlink { request: netlink::dump_addresses(2) });
                }
                netlink::Event::Done
                | netlink::Event::LinkRemoved { .. }
                | netlink::Event::AddressRemoved { .. }
                | netlink::Event::Acknowledged { .. } => {}
            }
        }
    }

    fn observe_address(&mut self, index: u32, address: IpCidr) {
        for link in LinkId::ALL {
            if self.devices[link.index()].index != Some(index) {
                continue;
            }
            let facts = &mut self.links[link.index()];
            facts.has_own |= address.address == IpAddr::from(facts.own);
            if is_link_local(address.address) {
                self.group.set_source(link, Family::V6, Some(address.address));
            }
        }
    }

    /// What is wrong, in the order of the links.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        LinkId::ALL
            .into_iter()
            .flat_map(|link| {
                let on = move |trouble| Finding { link: Some(link), trouble };
                self.find_on(link).into_iter().map(on)
            })
            .collect()
    }

    fn find_on(&self, link: LinkId) -> Vec<Trouble> {
        let facts = &self.links[link.index()];
        let device = self.devices[link.index()].name.clone();
        if self.devices[link.index()].index.is_none() {
            return vec![Trouble::NoDevice { device }];
        }
        if !self.has_carrier[link.index()] {
            return vec![Trouble::NoCarrier { device }];
        }
        let mut found = Vec::new();
        if !facts.has_own {
            found.push(Trouble::NoOwnAddress { device: device.clone(), address: facts.own.into() });
        }
        if facts.ears.anything_at.is_none() {
            let seconds = ROUND_TIME.as_secs() * u64::from(ROUNDS + 4);
            found.push(Trouble::LinkSilent { device, seconds });
        } else if facts.peer_mac.is_none() {
            found.push(Trouble::PeerUnanswered { name: self.peer_name(), address: facts.peer });
        }
        found.extend(self.find_claims(link));
        found.extend(self.find_vrrp(link));
        found.extend(self.find_off_network(link));
        if let Some(gateway) = &facts.gateway {
            match gateway.verdict() {
                Verdict::Unknown | Verdict::Sees => {}
                Verdict::BlocksVips => {
                    found.push(Trouble::VipFramesBlocked { gateway: gateway.address() });
                }
                Verdict::Silent => {
                    found.push(Trouble::GatewaySilent { gateway: gateway.address() })
                }
            }
        }
        found
    }

    fn find_claims(&self, link: LinkId) -> Vec<Trouble> {
        let facts = &self.links[link.index()];
        let mut found = Vec::new();
        if let Some((_, mac)) = facts.ears.own_claim {
            let mac = mac.to_string();
            found.push(Trouble::OwnAddressConflict { address: facts.own, mac });
        }
        let claims = self.claims.iter().filter(|(device, ..)| device.link() == Some(link));
        let (by_peer, by_others): (Vec<_>, Vec<_>) =
            claims.partition(|(.., mac)| facts.peer_mac == Some(*mac));
        let conflict = |(_, address, mac): &&(DeviceId, IpAddr, Mac)| Trouble::AddressConflict {
            address: *address,
            mac: mac.to_string(),
        };
        found.extend(by_others.iter().map(conflict));
        let is_silent = facts.ears.frame_at.is_none() && facts.ears.vrrp_at.is_none();
        if !by_peer.is_empty() && is_silent {
            let name = self.peer_name();
            found.push(match facts.ears.beacon_at {
                Some(_) => Trouble::MulticastBlocked { name },
                None => Trouble::VipsLeftBehind { name },
            });
        }
        found
    }

    fn find_vrrp(&self, link: LinkId) -> Vec<Trouble> {
        let facts = &self.links[link.index()];
        let ears = &facts.ears;
        let mut found = Vec::new();
        if let Some((_, source)) = ears.stranger {
            found.push(Trouble::VridTaken { vrid: self.config.link(link).vrid, source });
        }
        if let Some((_, source, refusal)) = ears.refused {
            let is_peer = source == IpAddr::from(facts.peer);
            found.push(of_refusal(self.peer_name(), is_peer, source, refusal));
        }
        if ears.list_differs_at.is_some() {
            found.push(Trouble::VipsDiffer { name: self.peer_name() });
        }
        if ears.frame_at.is_some() && !self.is_vrrp_received[link.index()] {
            let device = self.devices[link.index()].name.clone();
            found.push(Trouble::VrrpFirewalled { name: self.peer_name(), device });
        }
        match ears.beacon_refused {
            Some((_, peer::Refusal::Replayed)) | None => {}
            Some((_, refusal)) => {
                found.push(Trouble::BeaconsRefused { why: refusal.to_string() });
            }
        }
        if ears.config_differs_at.is_some() {
            found.push(Trouble::ConfigDiffers { name: self.peer_name() });
        }
        found
    }

    /// Virtual addresses that hosts on the link would look for elsewhere.
    fn find_off_network(&self, link: LinkId) -> Vec<Trouble> {
        let network = self.config.host(self.me).address(link);
        let vips = self.config.link(link).vip.iter().filter(|vip| vip.device.is_none());
        vips.filter(|vip| match vip.address.address {
            IpAddr::V4(address) => !network.contains(address),
            IpAddr::V6(_) => false,
        })
        .map(|vip| Trouble::VipOffNetwork {
            address: vip.address.to_string(),
            network: network.to_string(),
        })
        .collect()
    }

    /// What was seen on each link, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        LinkId::ALL.into_iter().map(|link| self.line(link)).collect()
    }

    fn line(&self, link: LinkId) -> String {
        let facts = &self.links[link.index()];
        let device = &self.devices[link.index()];
        let ears = &facts.ears;
        let peer = match facts.peer_mac {
            Some(mac) => format!("{} answers from {mac}", self.peer_name()),
            None => format!("{} does not answer", self.peer_name()),
        };
        let vrrp = match (ears.vrrp_at, ears.frame_at) {
            (Some(_), _) => "its VRRP is heard",
            (None, Some(_)) => "VRRP arrives and is not accepted",
            (None, None) => "nobody advertises, so that VRRP's way in is not tested",
        };
        let beacons = if ears.beacon_at.is_some() { "beacons are heard" } else { "no beacons" };
        let gateway = match facts.gateway.as_ref().map(|gateway| gateway.verdict()) {
            Some(Verdict::Sees) => ", the gateway answers own and virtual addresses",
            Some(Verdict::Unknown) => {
                ", the gateway was not asked: somebody has the virtual addresses"
            }
            Some(Verdict::BlocksVips | Verdict::Silent) | None => "",
        };
        format!("{link} {} {}: {peer}, {vrrp}, {beacons}{gateway}", device.name, facts.own)
    }

    fn peer_name(&self) -> String {
        self.config.host(self.me.other()).name.clone()
    }
}
