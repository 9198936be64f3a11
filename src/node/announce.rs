//! Announcing: the virtual addresses' new place is told to the links, and whether it was heard is
//! asked of the gateway.
//!
//! In: orders of `act`, signs of a second claimant, time. Out: frames. Must not: announce what this
//! host does not hold. Read first: facts/vrrp.md 1.6, 3.3 and 6.7; `net::gateway`.

use std::net::IpAddr;
use std::time::Duration;

use super::{Node, Output};
use crate::net::arp::{Arp, FRAME_BYTES, Mac};
use crate::net::gateway::Gateway;
use crate::net::nd::Neighbour;
use crate::net::probe_frame;
use crate::time::{Instant, earliest};
use crate::wire::{DeviceId, LinkId};

/// Announcements after the first one, counted from it, for switches and hosts that missed one
/// (facts/vrrp.md 3.3); after the last they go on every `ANNOUNCE_INTERVAL`.
const ANNOUNCE_DELAYS: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(30);
/// Two hosts that both hold an address must not answer each other's every frame.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(1);

impl Node {
    /// Starts the series of announcements with the first one.
    pub(super) fn begin_announcements(&mut self, now: Instant) {
        self.announce();
        self.ask_gateways(now);
        let due = ANNOUNCE_DELAYS.map(|delay| now + delay);
        self.announce_at = due.into_iter().collect();
    }

    pub(super) fn run_announcements(&mut self, now: Instant) {
        self.run_gateways(now);
        if self.announce_at.first().is_none_or(|at| now < *at) {
            return;
        }
        self.announce();
        self.ask_gateways(now);
        self.announce_at.retain(|at| *at > now);
        if self.announce_at.is_empty() {
            self.announce_at.push(now + ANNOUNCE_INTERVAL).expect("it is empty");
        }
    }

    pub(super) fn end_announcements(&mut self) {
        self.announce_at.clear();
        let gateways = self.links.iter_mut().filter_map(|link| link.gateway.as_mut());
        gateways.for_each(|gateway| gateway.stop());
    }

    /// A sign of a second claimant: whoever listened to it is told again.
    pub(super) fn reclaim(&mut self, now: Instant) {
        if self.addresses.is_desired() && now >= self.reclaim_at {
            self.reclaim_at = now + RECLAIM_INTERVAL;
            self.group.advertise_at_once(now);
            self.announce();
        }
    }

    /// One request and one reply form for every IPv4 address, one advertisement for IPv6.
    pub(super) fn announce(&mut self) {
        let vips: Vec<_> = self.addresses.all().collect();
        for (device, vip) in vips {
            let mac = self.devices[device.index()].mac;
            match vip.address {
                IpAddr::V4(address) => {
                    self.send_frame(device, Arp::announcement(mac, address).emit().to_vec());
                    self.send_frame(device, Arp::announcement_reply(mac, address).emit().to_vec());
                }
                IpAddr::V6(address) => {
                    self.send_frame(device, Neighbour::announcement(mac, address).emit());
                }
            }
        }
    }

    /// Asks who has an address.
    pub(super) fn send_probe(&mut self, device: DeviceId, address: IpAddr) {
        self.send_frame(device, probe_frame(self.devices[device.index()].mac, address));
    }

    pub(super) fn send_frame(&mut self, device: DeviceId, frame: Vec<u8>) {
        self.outputs.push_back(Output::SendFrame { device, frame });
    }

    fn ask_gateways(&mut self, now: Instant) {
        self.with_gateways(|gateway, mac| gateway.ask(now, mac));
    }

    fn run_gateways(&mut self, now: Instant) {
        self.with_gateways(|gateway, mac| gateway.tick(now, mac));
    }

    fn with_gateways(&mut self, act: impl Fn(&mut Gateway, Mac) -> Vec<[u8; FRAME_BYTES]>) {
        for link in LinkId::ALL {
            let mac = self.devices[link.index()].mac;
            let gateway = self.links[link.index()].gateway.as_mut();
            for frame in gateway.map(|gateway| act(gateway, mac)).unwrap_or_default() {
                self.send_frame(link.into(), frame.to_vec());
            }
        }
    }

    pub(super) fn gateway_deadline(&self) -> Option<Instant> {
        let gateways = self.links.iter().filter_map(|link| link.gateway.as_ref());
        gateways.fold(None, |first, gateway| earliest(first, gateway.deadline()))
    }
}
