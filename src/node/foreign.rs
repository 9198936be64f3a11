//! Judging by VRRP's own rules: beside a plain keepalived, and where the configuration takes the
//! role back by priority.
//!
//! In: what was heard in VRRP. Out: events to the table. Must not: know a foreign peer's database.
//! Read first: `judge`; facts/vrrp.md 1.4 and 3.1; RFC 9568, 6.4.

use std::net::IpAddr;
use std::time::Duration;

use super::judge::{Found, is_open};
use super::silence::HELLO_INTERVAL;
use super::{Node, Rival};
use crate::pair::{Event, Role};
use crate::time::Instant;
use crate::vrrp::router::PRIORITY_SERVING;
use crate::wire::LinkId;

/// A host that has just come takes nothing back before it was heard for a moment.
const PREEMPT_DELAY_MIN: Duration = Duration::from_secs(3);
/// A handover that failed holds writes for seconds: it is not tried again at once.
const PREEMPT_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Taking the role back by priority.
#[derive(Debug, Default)]
pub(super) struct Preemption {
    /// Since when it could be.
    since: Option<Instant>,
    again_at: Instant,
}

impl Node {
    /// With a keepalived on the other host roles follow VRRP: a Master that is heard serves, and
    /// silence entitles.
    pub(super) fn judge_joining_foreign(&mut self, now: Instant) -> Option<Found> {
        let name = self.peer_name();
        if self.is_rival_fresh(now) {
            return Some((Event::ForeignServes, format!("{name} is Master in VRRP")));
        }
        // keepalived: an instance without carrier keeps its whole sync group in FAULT. The peer may
        // be taking over on the other link's timer at this very moment.
        let is_gone = self.is_whole() && self.is_peer_silent(now) && self.nobody_answers(now);
        let found = (Event::AloneEntitled, format!("{name} is silent in VRRP"));
        if is_gone { self.unless_ordered_to_wait(found) } else { None }
    }

    fn is_rival_fresh(&self, now: Instant) -> bool {
        let limit = self.group.master_down_interval();
        self.rival.is_some_and(|rival| now.since(rival.at) < limit)
    }

    /// keepalived without `nopreempt`: the higher priority takes the role back, `preempt_delay`
    /// after it could. Between two tandems that is a planned switchover, tried again later if it
    /// fails.
    pub(super) fn judge_preemption(&mut self, now: Instant) -> Option<Found> {
        let own = self.config.host(self.me).priority;
        let other = self.config.host(self.me.other()).priority;
        let is_foreign = self.has_foreign_peer();
        let may_take = self.config.vrrp.preempt
            && !self.is_ordered_to_wait()
            && if is_foreign {
                self.is_rival_fresh(now) && self.rival.is_some_and(|it| it.priority < own)
            } else {
                let peer_serves = self.fresh(now).is_some_and(is_open);
                let is_ready = self.is_replicating() && self.is_lag_fit(self.own_lag());
                own > other && peer_serves && is_ready && self.is_whole()
            };
        if !may_take {
            self.preemption.since = None;
            return None;
        }
        let since = *self.preemption.since.get_or_insert(now);
        let delay = self.config.vrrp.preempt_delay.max(PREEMPT_DELAY_MIN);
        if now < since + delay || now < self.preemption.again_at {
            return None;
        }
        self.preemption.again_at = now + PREEMPT_RETRY_INTERVAL;
        let why = format!("vrrp.preempt, priority {own}");
        Some((if is_foreign { Event::Preempted } else { Event::SwitchoverAsked }, why))
    }

    /// RFC 9568, 6.4.3: the higher priority is right, then the higher address. The peer's own host
    /// is asked by ARP whether it lives, since a backup says nothing.
    pub(super) fn judge_serving_foreign(&mut self, now: Instant) -> Option<Found> {
        let name = self.peer_name();
        if let Some(rival) = self.rival.take()
            && now.since(rival.at) < self.group.master_down_interval()
        {
            let Rival { link, priority, source, .. } = rival;
            let own = match source {
                IpAddr::V4(_) => Some(self.links[link.index()].own.into()),
                IpAddr::V6(_) => self.devices[link.index()].link_local,
            };
            return Some(if (priority, Some(source)) > (PRIORITY_SERVING, own) {
                (Event::PeerServes, format!("{name} advertises priority {priority}"))
            } else {
                (Event::PeerServesWrongly, format!("{name} advertises too"))
            });
        }
        let is_peer_alive = self
            .links
            .iter()
            .any(|link| link.peer_answered_at.is_some_and(|at| now.since(at) < 3 * HELLO_INTERVAL));
        let lost = LinkId::ALL.into_iter().find(|link| !self.group.has_carrier(*link));
        let link =
            lost.filter(|_| is_peer_alive && self.role == Role::Active && !self.is_held())?;
        self.is_leaving = true;
        Some((Event::LinkLost, format!("{link} has no carrier")))
    }
}
