//! Peers: requests get their php-fpm or wait for it, and what the upstream orders is done.
//!
//! In: requests that want a peer, the upstream's orders. Out: the same for their sessions; pings,
//! kept connections closed. Must not: choose a peer (that is `web::upstream`). Read first:
//! `web::upstream`, `legs`, `ping`.

use crate::console::note::Note;
use crate::os::notes;
use crate::os::plane::Turn;
use crate::time::Instant;
use crate::web::session::{Input, Session};
use crate::web::upstream::{Order, Pick, Ticket};
use crate::wire::HostId;

use super::ServeWeb;

impl ServeWeb {
    pub(super) fn acquire(
        &mut self,
        now: Instant,
        ticket: Ticket,
        session: &Session,
        tried: [bool; 2],
        is_charged: bool,
    ) -> Option<Input<'static>> {
        if tried == [false; 2] && !self.rates.admit(now, session.client()) {
            return Some(Input::Unassigned);
        }
        match self.upstream.acquire(now, ticket, session.want(tried), is_charged) {
            Pick::Peer(host) => Some(Input::Assigned(host)),
            Pick::Queued => None,
            Pick::Nothing => Some(Input::Unassigned),
        }
    }

    /// Gives free peers to those who wait, and carries out what the upstream ordered.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) {
        loop {
            if let Some((ticket, host)) = self.upstream.next_assigned(turn.now) {
                let is_there = self
                    .slot_mut(ticket.slot)
                    .is_some_and(|entry| entry.generation == ticket.generation);
                if is_there {
                    self.feed(turn.now, ticket.slot, Input::Assigned(host));
                    self.pump(turn, ticket.slot);
                } else {
                    self.upstream.release(host, ticket);
                }
                continue;
            }
            match self.upstream.poll_output() {
                None => return,
                Some(Order::Probe(host)) => self.probe(turn, host),
                Some(Order::EndProbe(host)) => {
                    self.probes[host.index()] = None;
                    self.pools[host.index()] = None;
                }
                Some(Order::Lost(host)) => self.lost(turn, host),
                Some(Order::CloseIdle(leg)) => self.close_idle(leg),
            }
        }
    }

    fn lost(&mut self, turn: &mut Turn<'_>, host: HostId) {
        let name = self.site.server_names[host.index()].clone();
        notes::tell(&Note::PhpOut { host: name });
        for index in 0..self.slots.len() {
            let Ok(slot) = u32::try_from(index) else { return };
            let leg = self.connection(slot).and_then(|connection| connection.leg.as_ref());
            if leg.is_some_and(|leg| leg.host == host) {
                self.feed(turn.now, slot, Input::HostLost(host));
                self.pump(turn, slot);
            }
        }
    }
}
