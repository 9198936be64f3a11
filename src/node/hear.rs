//! Hearing: what datagrams and the kernel's messages change in the machines.
//!
//! In: bytes. Out: changed machines, notes on what was ignored and why. Must not: decide (`judge`).
//! Read first: `vrrp::router::Heard`, `peer::Refusal`, `net::netlink::Event`.

use std::net::Ipv4Addr;

use super::{Node, Output};
use crate::console::note::Note;
use crate::net::arp::{Arp, Mac};
use crate::net::netlink;
use crate::time::Instant;
use crate::units::Cidr;
use crate::vrrp::router::{Heard, Refusal};
use crate::wire::LinkId;

impl Node {
    pub(super) fn handle_vrrp(&mut self, now: Instant, link: LinkId, datagram: &[u8]) {
        match self.group.handle_datagram(now, link, datagram) {
            Heard::Master { source, priority } => {
                self.last_refusals[link.index()] = None;
                self.rival = Some((now, priority, source));
                self.ears[link.index()].advertisement(now);
                if self.group.is_list_different(link) {
                    self.ears[link.index()].list_differs(now);
                }
            }
            Heard::Resigned => self.vrrp_resigned = true,
            Heard::Stranger { source } => self.ears[link.index()].stranger(now, source),
            // Other virtual routers may live on the same network.
            Heard::Refused(Refusal::OtherVrid(_)) => {}
            Heard::Refused(refusal) => self.refuse_vrrp(link, &refusal),
        }
    }

    pub(super) fn handle_frame(&mut self, now: Instant, link: LinkId, source: Ipv4Addr) {
        if source == self.links[link.index()].own {
            return;
        }
        self.ears[link.index()].traffic(now);
        self.group.router(link).note_traffic(now);
        if source == self.links[link.index()].peer {
            self.ears[link.index()].frame(now);
        }
    }

    fn refuse_vrrp(&mut self, link: LinkId, refusal: &Refusal) {
        let why = match refusal {
            Refusal::Packet(error) => error.to_string(),
            Refusal::OtherVrid(vrid) => format!("VRID {vrid} is not ours"),
            Refusal::AuthTypeDiffers => "one side has a password and the other none".into(),
            Refusal::PasswordDiffers => "its password differs from vrrp.password".into(),
            Refusal::VersionDiffers => "its version differs from vrrp.version".into(),
            Refusal::IntervalDiffers { theirs } => {
                format!("its interval is {theirs:?}, vrrp.interval differs")
            }
        };
        self.note_once(link, why, |link, why| Note::VrrpRefused { link, why });
    }

    /// Says why something from a link is ignored, once until the reason changes.
    fn note_once(&mut self, link: LinkId, why: String, note: fn(LinkId, String) -> Note) {
        if self.last_refusals[link.index()].as_ref() != Some(&why) {
            self.last_refusals[link.index()] = Some(why.clone());
            self.note(note(link, why));
        }
    }

    pub(super) fn handle_arp(&mut self, now: Instant, link: LinkId, frame: &[u8]) {
        let Some(arp) = Arp::parse(frame) else { return };
        let facts = &mut self.links[link.index()];
        if arp.sender_mac == facts.mac {
            return;
        }
        if arp.claims(facts.peer) {
            facts.peer_mac = Some(arp.sender_mac);
            facts.peer_answered_at = Some(now);
        }
        self.group.router(link).note_traffic(now);
        self.ears[link.index()].traffic(now);
        let claimed = self
            .addresses
            .all()
            .find(|(vip_link, vip)| *vip_link == link && arp.claims(vip.address));
        if let Some((_, vip)) = claimed {
            self.probes.answered_by = Some((link, vip.address, arp.sender_mac));
        }
    }

    pub(super) fn handle_beacon(&mut self, now: Instant, link: LinkId, datagram: &[u8]) {
        self.group.router(link).note_traffic(now);
        self.ears[link.index()].traffic(now);
        match self.peer.handle_datagram(now, link, datagram) {
            Ok(_is_new_run) => {
                self.ears[link.index()].beacon(now);
                let theirs = self.peer.report().map(|report| report.config_digest);
                if theirs.is_some_and(|digest| digest != self.config.digest) {
                    let why = "configurations differ".to_owned();
                    self.note_once(link, why, |_, _| Note::ConfigDiffers);
                }
            }
            Err(refusal) => {
                let why = refusal.to_string();
                self.note_once(link, why, |link, why| Note::BeaconRefused { link, why });
            }
        }
    }

    pub(super) fn handle_netlink(&mut self, now: Instant, datagram: &[u8]) {
        for event in netlink::parse(datagram) {
            match event {
                netlink::Event::Link { index, name, mac, is_running } => {
                    self.observe_link(now, index, &name, mac, is_running);
                }
                netlink::Event::LinkRemoved { index } => {
                    if let Some(link) = self.link_of(index) {
                        self.links[link.index()].index = None;
                        self.set_carrier(now, link, false);
                    }
                }
                netlink::Event::AddressAdded { index, address } => {
                    self.observe_address(index, address, true);
                }
                netlink::Event::AddressRemoved { index, address } => {
                    self.observe_address(index, address, false);
                }
                netlink::Event::Acknowledged { error, .. } => self.acknowledge(error),
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
    fn acknowledge(&mut self, error: i32) {
        const EADDRNOTAVAIL: i32 = -99;
        if error != 0 && error != EADDRNOTAVAIL {
            let what = format!("the kernel refused an address: errno {}", -error);
            self.note(Note::SocketTrouble { what });
        }
    }

    fn observe_link(&mut self, now: Instant, index: u32, name: &str, mac: Mac, is_running: bool) {
        let found = LinkId::ALL.into_iter().find(|link| self.links[link.index()].device == name);
        let Some(link) = found else { return };
        let facts = &mut self.links[link.index()];
        facts.index = Some(index);
        facts.mac = mac;
        self.set_carrier(now, link, is_running);
        self.flush_addresses();
    }

    fn set_carrier(&mut self, now: Instant, link: LinkId, has_carrier: bool) {
        if self.group.has_carrier(link) == has_carrier {
            return;
        }
        self.group.router(link).set_carrier(now, has_carrier);
        self.ears[link.index()].carrier(now, has_carrier);
        self.note(if has_carrier {
            Note::CarrierFound { link }
        } else {
            Note::CarrierLost { link }
        });
        if has_carrier && self.addresses.is_desired() {
            self.group.router(link).serve(now);
            self.announce_next = Some((0, now));
        }
        self.peer.hurry(now);
    }

    fn observe_address(&mut self, index: u32, address: Cidr, is_present: bool) {
        let Some(link) = self.link_of(index) else { return };
        if self.addresses.observe(link, address, is_present) {
            let address = address.to_string();
            self.note(Note::VipDeletedByOther { link, address });
        }
    }

    fn link_of(&self, index: u32) -> Option<LinkId> {
        LinkId::ALL.into_iter().find(|link| self.links[link.index()].index == Some(index))
    }
}
