//! Traces: packets as they come and go, one line each, for operators who ask.
//!
//! In: inputs and outputs of a turn. Out: lines. Must not: change anything; end late.
//! Read first: tcpdump(8), whose arrows these are.

use std::time::Duration;

use super::{Input, Node, Output};
use crate::console::message::{Response, TraceKinds};
use crate::net::arp::{self, Arp};
use crate::net::nd::Neighbour;
use crate::time::Instant;
use crate::vrrp::packet;
use crate::wire::DeviceId;

pub(super) const TRACERS_MAX: usize = 4;
const TRACE_SECONDS_MAX: u32 = 50;

#[derive(Debug)]
pub(super) struct Tracer {
    client: u64,
    kinds: TraceKinds,
    since: Instant,
    until: Instant,
    packets: u64,
}

#[derive(Clone, Copy)]
enum Kind {
    Vrrp,
    Beacon,
    Arp,
}

impl Kind {
    const fn is_in(self, kinds: TraceKinds) -> bool {
        match self {
            Self::Vrrp => kinds.vrrp,
            Self::Beacon => kinds.beacon,
            Self::Arp => kinds.arp,
        }
    }
}

impl Node {
    pub(super) fn begin_trace(
        &mut self,
        now: Instant,
        client: u64,
        seconds: u32,
        kinds: TraceKinds,
    ) {
        let until = now + Duration::from_secs(seconds.clamp(1, TRACE_SECONDS_MAX).into());
        let tracer = Tracer { client, kinds, since: now, until, packets: 0 };
        if self.tracers.push(tracer).is_err() {
            let why = format!("{TRACERS_MAX} traces run already: wait for one to end");
            self.refuse(client, why);
        }
    }

    pub(super) fn trace_input(&mut self, now: Instant, input: &Input) {
        if self.tracers.is_empty() {
            return;
        }
        match input {
            Input::Vrrp { link, datagram } => {
                self.trace(now, Kind::Vrrp, &format!("{link} in  {}", vrrp(datagram)));
            }
            Input::Beacon { link, datagram } => {
                let line = format!("{link} in  beacon, {} bytes", datagram.len());
                self.trace(now, Kind::Beacon, &line);
            }
            Input::Frame { device, frame } => self.trace_frame(now, *device, "in ", frame),
            Input::Echo { .. }
            | Input::Icmp { .. }
            | Input::Netlink { .. }
            | Input::NetlinkLost
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
            | Input::Terminate
            | Input::Wake => {}
        }
    }

    /// What this turn sends; traces whose time is up end.
    pub(super) fn trace_outputs(&mut self, now: Instant) {
        if self.tracers.is_empty() {
            return;
        }
        for index in 0..self.outputs.len() {
            match self.outputs.get(index) {
                Some(Output::SendVrrp { link, datagram }) => {
                    let line = format!("{link} out {}", vrrp(&datagram.bytes));
                    self.trace(now, Kind::Vrrp, &line);
                }
                Some(Output::SendBeacon { link, datagram }) => {
                    let line = format!(
                        "{link} out beacon, {} bytes: {}, epoch {}",
                        datagram.len(),
                        self.role,
                        self.persistent.epoch
                    );
                    self.trace(now, Kind::Beacon, &line);
                }
                Some(Output::SendFrame { device, frame }) => {
                    let (device, frame) = (*device, frame.clone());
                    self.trace_frame(now, device, "out", &frame);
                }
                Some(_) | None => {}
            }
        }
        while let Some(index) = self.tracers.iter().position(|tracer| tracer.until <= now) {
            let Tracer { client, packets, since, .. } = self.tracers.swap_remove(index);
            let seconds = now.since(since).as_secs();
            self.reply(client, Response::Done(format!("{packets} packets in {seconds} s")));
        }
    }

    fn trace_frame(&mut self, now: Instant, device: DeviceId, way: &str, frame: &[u8]) {
        let what = if frame.get(12..14) == Some(&arp::ETHERTYPE[..]) {
            Arp::parse(frame).map(|arp| {
                let Arp { operation, sender, sender_mac, target, .. } = arp;
                format!("ARP {operation:?}, {sender} at {sender_mac} > {target}")
            })
        } else {
            Neighbour::parse(frame).map(|neighbour| format!("{neighbour:?}"))
        };
        if let Some(what) = what {
            let name = self.devices.get(device.index()).map_or("?", |device| device.name.as_str());
            let line = format!("{name} {way} {what}");
            self.trace(now, Kind::Arp, &line);
        }
    }

    fn trace(&mut self, now: Instant, kind: Kind, line: &str) {
        for tracer in self.tracers.iter_mut().filter(|tracer| kind.is_in(tracer.kinds)) {
            tracer.packets += 1;
            let at = now.since(tracer.since);
            let text = format!("{:3}.{:03} {line}", at.as_secs(), at.subsec_millis());
            let response = Response::Progress(text);
            self.outputs.push_back(Output::Reply { client: tracer.client, response });
        }
    }
}

/// A datagram, with its IP header where it has one.
fn vrrp(datagram: &[u8]) -> String {
    match packet::source_and_message(datagram) {
        Some((source, message)) => format!("{source}: {}", words(message)),
        // The kernel writes the header of what goes out in IPv6.
        None => words(datagram),
    }
}

/// The fixed head of a message of VRRP; whether it is right is judged elsewhere (RFC 9568, 5.1).
fn words(message: &[u8]) -> String {
    match message {
        [kind, vrid, priority, count, ..] => format!(
            "VRRPv{} type {}, vrid {vrid}, prio {priority}, {count} addresses",
            kind >> 4,
            kind & 15
        ),
        _ => format!("{} bytes, too short for VRRP", message.len()),
    }
}
