//! Hearing: what datagrams, frames and the kernel's messages change in the machines.
//!
//! In: bytes. Out: changed machines, what was ignored and why. Must not: decide (`judge`).
//! Read first: `vrrp::router::Heard`, `peer::Refusal`, `net::netlink::Event`.

use std::net::IpAddr;

use super::{Node, Output, Rival, is_link_local};
use crate::console::note::Note;
use crate::net::arp::{Arp, Mac};
use crate::net::icmp::{Reason, Unreachable};
use crate::net::nd::Neighbour;
use crate::net::{arp, nd, netlink};
use crate::time::Instant;
use crate::units::IpCidr;
use crate::vrrp::packet::{self, Family, Refusal};
use crate::vrrp::router::Heard;
use crate::wire::{DeviceId, LinkId};

/// Ethernet type of IPv4 (RFC 894).
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];
/// Bytes of an Ethernet header without a tag.
const ETHERNET_BYTES: usize = 14;

impl Node {
    pub(super) fn handle_vrrp(&mut self, now: Instant, link: LinkId, datagram: &[u8]) {
        let Some(heard) = self.group.handle_datagram(now, link, datagram) else { return };
        let ears = &mut self.links[link.index()].ears;
        match heard {
            Heard::Master { source, priority } => {
                ears.vrrp_at = Some(now);
                ears.refused = None;
                if self.group.is_list_different(link) {
                    ears.list_differs_at = Some(now);
                }
                if self.addresses.is_desired() {
                    ears.rival = Some((now, priority));
                }
                self.rival = Some(Rival { at: now, link, priority, source });
            }
            Heard::Resigned => {
                self.vrrp_resigned = true;
                // Whoever resigns has announced the addresses before (RFC 9568, 6.4.3).
                self.reclaim(now);
            }
            Heard::Stranger { source } => {
                ears.stranger = Some((now, source));
                self.reclaim(now);
            }
            // Other virtual routers may live on the same network.
            Heard::Refused(Refusal::OtherVrid(_)) => {}
            Heard::Refused(refusal) => {
                let source = packet::source_and_vrid(datagram).map(|(source, _)| source);
                ears.refused = source.map(|source| (now, source, refusal)).or(ears.refused);
            }
        }
    }

    pub(super) fn handle_frame(&mut self, now: Instant, device: DeviceId, frame: &[u8]) {
        let Some(kind) = frame.get(12..).and_then(|rest| rest.first_chunk::<2>()) else { return };
        match *kind {
            arp::ETHERTYPE => {
                if let Some(arp) = Arp::parse(frame) {
                    self.handle_arp(now, device, &arp);
                }
            }
            ETHERTYPE_IPV4 => self.handle_ip_frame(now, device, frame),
            nd::ETHERTYPE => match Neighbour::parse(frame) {
                Some(neighbour) => self.handle_neighbour(now, device, &neighbour),
                None => self.handle_ip_frame(now, device, frame),
            },
            _ => {}
        }
    }

    /// A datagram of VRRP that the firewall has not seen yet.
    fn handle_ip_frame(&mut self, now: Instant, device: DeviceId, frame: &[u8]) {
        let datagram = frame.get(ETHERNET_BYTES..).unwrap_or_default();
        let (Some(link), Some((source, vrid))) = (device.link(), packet::source_and_vrid(datagram))
        else {
            return;
        };
        let facts = &self.links[link.index()];
        let own_link_local = self.devices.get(device.index()).and_then(|it| it.link_local);
        if source == IpAddr::from(facts.own) || Some(source) == own_link_local {
            return;
        }
        let is_peer = source == IpAddr::from(facts.peer);
        self.note_traffic(now, link);
        if is_peer && vrid == self.config.link(link).vrid {
            self.links[link.index()].ears.frame_at = Some(now);
        }
    }

    /// Something came in: the link forwards.
    fn note_traffic(&mut self, now: Instant, link: LinkId) {
        self.group.note_traffic(now, link);
        self.links[link.index()].ears.anything_at = Some(now);
    }

    fn handle_arp(&mut self, now: Instant, device: DeviceId, arp: &Arp) {
        if self.is_own_mac(arp.sender_mac) {
            return;
        }
        if let Some(link) = device.link() {
            self.note_traffic(now, link);
            let facts = &mut self.links[link.index()];
            if arp.claims(facts.peer) {
                facts.peer_mac = Some(arp.sender_mac);
                facts.peer_answered_at = Some(now);
            }
            if arp.claims(facts.own) {
                facts.ears.own_claim = Some((now, arp.sender_mac));
            }
            if let Some(gateway) = &mut facts.gateway {
                gateway.hear(arp);
            }
            self.lookout.witnesses.hear_arp(now, link, arp);
        }
        self.hear_claim(now, device, arp.sender_mac, |address| match address {
            IpAddr::V4(address) => arp.claims(address),
            IpAddr::V6(_) => false,
        });
    }

    fn handle_neighbour(&mut self, now: Instant, device: DeviceId, neighbour: &Neighbour) {
        if self.is_own_mac(neighbour.sender_mac) {
            return;
        }
        if let Some(link) = device.link() {
            self.note_traffic(now, link);
        }
        self.hear_claim(now, device, neighbour.sender_mac, |address| match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => neighbour.claims(address),
        });
    }

    /// Whether a frame comes from this very host, by way of another of its interfaces, say.
    fn is_own_mac(&self, mac: Mac) -> bool {
        self.devices.iter().any(|device| device.mac == mac)
    }

    /// Somebody else says that he has one of the virtual addresses.
    fn hear_claim(
        &mut self,
        now: Instant,
        device: DeviceId,
        mac: Mac,
        claims: impl Fn(IpAddr) -> bool,
    ) {
        let vips = self.addresses.all().filter(|(at, _)| *at == device);
        let Some(vip) = vips.map(|(_, vip)| vip).find(|vip| claims(vip.address)) else { return };
        self.probes.answered_by = Some((device, vip.address, mac));
        if !self.addresses.is_desired() {
            return;
        }
        if let Some(link) = device.link() {
            let facts = &mut self.links[link.index()];
            if facts.peer_mac == Some(mac) {
                facts.ears.peer_claim = Some((now, vip.address));
                self.note_peer_claim(now);
            } else {
                facts.ears.claim = Some((now, vip.address, mac));
            }
        }
        self.reclaim(now);
    }

    pub(super) fn handle_beacon(&mut self, now: Instant, link: LinkId, datagram: &[u8]) {
        self.note_traffic(now, link);
        let ears = &mut self.links[link.index()].ears;
        match self.peer.handle_datagram(now, link, datagram) {
            Ok(_is_new_run) => {
                ears.beacon_at = Some(now);
                ears.beacon_refused = None;
                let Some(report) = self.peer.report() else { return };
                if report.config_digest != self.config.digest {
                    ears.config_differs_at = Some(now);
                }
                let theirs = report.link_local[link.index()].map(IpAddr::from);
                self.group.set_peer(link, Family::V6, theirs);
                self.hear_hold(now);
                self.hear_php_drain(now);
                self.hear_refusal();
                self.count_beacons(now);
                self.hear_source(now);
                self.hear_update();
            }
            Err(refusal) => ears.beacon_refused = Some((now, refusal)),
        }
    }

    pub(super) fn handle_icmp(&mut self, now: Instant, link: LinkId, datagram: &[u8]) {
        let facts = &mut self.links[link.index()];
        let said = Unreachable::parse(datagram);
        match said.filter(|it| it.source == facts.peer && it.destination == facts.peer) {
            Some(Unreachable { reason: Reason::NobodyListens, .. }) => {
                facts.unheard_by_peer_at = Some(now);
            }
            Some(Unreachable { reason: Reason::Prohibited, .. }) => {
                facts.ears.rejected_at = Some(now);
            }
            None => {}
        }
    }

    pub(super) fn handle_netlink(&mut self, now: Instant, datagram: &[u8]) {
        for event in netlink::parse(datagram) {
            match event {
                netlink::Event::Link { index, name, mac, is_running } => {
                    self.observe_link(now, index, &name, mac, is_running);
                }
                netlink::Event::LinkRemoved { index } => {
                    let Some(device) = self.device_of(index) else { continue };
                    self.devices[device.index()].index = None;
                    if let Some(link) = device.link() {
                        self.set_carrier(now, link, false);
                    }
                }
                netlink::Event::AddressAdded { index, address } => {
                    self.observe_address(now, index, address, true);
                }
                netlink::Event::AddressRemoved { index, address } => {
                    self.observe_address(now, index, address, false);
                }
                netlink::Event::Acknowledged { error, .. } => self.acknowledge(now, error),
                netlink::Event::Done => {
                    if !std::mem::replace(&mut self.is_dumped, true) {
                        let request = netlink::dump_addresses(self.next_netlink_sequence());
                        self.outputs.push_back(Output::Netlink { request });
                    }
                }
            }
        }
    }

    /// Errors of our own requests: a removal of what is not there is what we wanted.
    fn acknowledge(&mut self, now: Instant, error: i32) {
        const EADDRNOTAVAIL: i32 = -99;
        if error != 0 && error != EADDRNOTAVAIL {
            self.troubles.address_refused(now, error.unsigned_abs());
        }
    }

    fn observe_link(&mut self, now: Instant, index: u32, name: &str, mac: Mac, is_running: bool) {
        let Some(place) = self.devices.iter().position(|device| device.name == name) else {
            return;
        };
        let device = &mut self.devices[place];
        let is_remade = *device.first_index.get_or_insert(index) != index;
        device.index = Some(index);
        device.mac = mac;
        if is_remade {
            // Sockets and memberships belong to the one that is gone: a new run opens them anew.
            let what = format!("interface {name} was made anew: this daemon starts again");
            self.note(Note::SocketTrouble { what });
            self.outputs.push_back(Output::Exit);
        }
        if let Some(link) = DeviceId::new(place).and_then(DeviceId::link) {
            self.set_carrier(now, link, is_running);
        }
        self.flush_addresses();
    }

    fn set_carrier(&mut self, now: Instant, link: LinkId, has_carrier: bool) {
        if self.group.has_carrier(link) == has_carrier {
            return;
        }
        self.group.set_carrier(now, link, has_carrier);
        self.links[link.index()].ears.carrier(now, has_carrier);
        self.note(if has_carrier {
            Note::CarrierFound { link }
        } else {
            Note::CarrierLost { link }
        });
        if has_carrier && self.addresses.is_desired() {
            self.group.serve_on(now, link);
            self.begin_announcements(now);
        }
        self.peer.hurry(now);
    }

    fn observe_address(&mut self, now: Instant, index: u32, address: IpCidr, is_present: bool) {
        let Some(device) = self.device_of(index) else { return };
        if self.addresses.observe(device, address, is_present) {
            self.troubles.vip_deleted(now, address);
        }
        let is_vip =
            self.addresses.all().any(|(at, vip)| at == device && vip.address == address.address);
        let Some(link) = device.link().filter(|_| !is_vip) else { return };
        let facts = &mut self.links[link.index()];
        if address.address == IpAddr::from(facts.own) {
            facts.has_own = is_present;
        }
        let link_local = &mut self.devices[device.index()].link_local;
        if is_link_local(address.address) && (is_present || *link_local == Some(address.address)) {
            *link_local = is_present.then_some(address.address);
            self.group.set_source(link, Family::V6, *link_local);
        }
    }

    fn device_of(&self, index: u32) -> Option<DeviceId> {
        self.devices.iter().position(|device| device.index == Some(index)).and_then(DeviceId::new)
    }
}
