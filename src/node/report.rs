//! Telling: what the peer, the data plane and the operator are told of this host.
//!
//! In: the node's state. Out: beacons, `Routes`, replies. Must not: change the role.
//! Read first: `peer::Report`, `routes::Routes`, `console::message`.

use std::net::IpAddr;
use std::time::Duration;

use super::orders::IN_MAINTENANCE;
use super::{Handover, Node, Output, QUIET_LIMIT, Stage};
use crate::console::message::{Request, Response};
use crate::console::note::Note;
use crate::console::status::Glance;
use crate::pair::{Event, Role};
use crate::peer::{DatabaseReport, Report};
use crate::routes::{Flow, Routes, WebIntake};
use crate::time::Instant;
use crate::wire::LinkId;

/// How long an operator's command may take before it is answered with what is true by then.
const OPERATOR_LIMIT: Duration = Duration::from_secs(30);
/// How long open transactions may go on when the source is lost without a word.
const LOST_LIMIT: Duration = Duration::from_secs(3);
/// A host that was silent for this long gets no PHP request.
const PHP_SILENCE_LIMIT: Duration = Duration::from_secs(1);

impl Node {
    /// Publishes routes that changed, sends the beacon that is due.
    pub(super) fn speak(&mut self, now: Instant) {
        self.note_links(now);
        let routes = self.routes_at(now);
        if routes != self.routes {
            if routes.writes != self.routes.writes {
                self.data.is_sql_quiet = false;
            }
            self.routes = routes.clone();
            self.outputs.push_back(Output::Routes(routes));
        }
        self.send_beacon(now);
        self.answer_operators(now);
    }

    pub(super) fn send_beacon(&mut self, now: Instant) {
        // A report is made for a beacon, not for every packet that comes in.
        if now < self.peer.deadline() {
            return;
        }
        let report = self.report(now);
        // To a keepalived's host too: a tandem may take its place. But not while its kernel is
        // asked whether anybody there listens to VRRP: Linux tells an address once a second that
        // something is unreachable, whatever it is (icmp(7), icmp_ratelimit), and a beacon would
        // use that up.
        let is_asking = self.has_foreign_peer() && self.probes.sent_at.is_some();
        let datagram = self.peer.poll_beacon(now, report).filter(|_| !is_asking);
        if let Some(datagram) = datagram {
            for link in LinkId::ALL {
                self.outputs.push_back(Output::SendBeacon { link, datagram: datagram.clone() });
            }
        }
    }

    fn note_links(&mut self, now: Instant) {
        for link in LinkId::ALL {
            let is_heard = self.peer.is_heard(now, link);
            let facts = &mut self.links[link.index()];
            if std::mem::replace(&mut facts.was_heard, is_heard) != is_heard {
                let note =
                    if is_heard { Note::PeerHeard { link } } else { Note::PeerLost { link } };
                self.note(note);
            }
        }
    }

    fn report(&self, now: Instant) -> Report {
        let observation = self.engine.observation();
        let is_up = self.is_database_up();
        // Until it is fenced, the position of a host that waits may still grow.
        let is_waiting = matches!(self.role, Role::Joining | Role::Refused);
        let position = observation.position.as_deref().filter(|_| !is_waiting || self.is_fenced);
        let (build, update, update_failed) = self.report_update();
        Report {
            host: self.me,
            boot_id: self.boot_id,
            sequence: 0,
            config_digest: self.config.digest,
            role: self.role,
            epoch: self.persistent.epoch,
            was_source: self.persistent.was_source,
            hears: LinkId::ALL.map(|link| self.peer.is_heard(now, link)),
            carrier: LinkId::ALL.map(|link| self.group.has_carrier(link)),
            holds_vips: self.addresses.is_desired() || self.addresses.held().next().is_some(),
            is_quiet: self.holds_writes && self.data.is_sql_quiet,
            is_leaving: self.is_leaving,
            handover: self.handover,
            wish: self.operator.wish,
            database: DatabaseReport {
                is_up,
                is_writable: is_up && self.role == Role::Active && self.is_source_open(),
                is_replicating: is_up && self.is_replicating(),
                lag_seconds: self.own_lag(),
                position: position.and_then(|text| heapless::String::try_from(text).ok()),
            },
            link_local: LinkId::ALL.map(|link| match self.devices[link.index()].link_local {
                Some(IpAddr::V6(address)) => Some(address),
                Some(IpAddr::V4(_)) | None => None,
            }),
            orders: self.persistent.orders,
            is_ill: self.ills.since.is_some(),
            declined: self.operator.declined,
            php_drain: self.persistent.php_drain,
            sections: self.config.sections.digests(),
            build,
            update,
            update_failed,
            backed: self.persistent.backed,
            keeps: self.keeps(),
        }
    }

    /// Where queries and requests go from this host.
    fn routes_at(&self, now: Instant) -> Routes {
        let peer = self.fresh(now);
        let them = self.me.other();
        let peer_serves = peer.is_some_and(|peer| {
            peer.role == Role::Active
                && peer.database.is_writable
                && peer.epoch >= self.persistent.epoch
        });
        let (source, writes) = match self.role {
            Role::Active if self.is_source_open() && !self.holds_writes => {
                (Some(self.me), Flow::Flowing)
            }
            Role::Active | Role::Promoting => (None, Flow::Held { open_limit: LOST_LIMIT }),
            // Whatever this host is busy with: a source that says that it takes writes is not one
            // that hands over, which is what they are held for.
            _ if peer_serves => (Some(them), Flow::Flowing),
            Role::Demoting if !peer_serves => {
                (Some(self.me), Flow::Held { open_limit: QUIET_LIMIT })
            }
            Role::Demoting => (Some(them), Flow::Flowing),
            Role::Standby if self.has_foreign_peer() => (Some(them), Flow::Flowing),
            Role::Standby if peer.is_some_and(|peer| peer.handover != Handover::None) => {
                (Some(them), Flow::Held { open_limit: QUIET_LIMIT })
            }
            Role::Joining | Role::Standby | Role::Refused => {
                (None, Flow::Held { open_limit: LOST_LIMIT })
            }
        };
        let is_at_work = !self.persistent.orders.in_maintenance;
        let mut is_replica_fit = [false; 2];
        is_replica_fit[self.me.index()] = self.role == Role::Standby
            && is_at_work
            && self.is_replicating()
            && self.is_lag_fit(self.own_lag());
        is_replica_fit[them.index()] = peer.is_some_and(|peer| {
            peer.role == Role::Standby
                && !peer.orders.in_maintenance
                && peer.database.is_replicating
                && self.is_lag_fit(peer.database.lag_seconds)
        });
        let mut is_host_alive = [true; 2];
        let heard_lately = self.peer.fresh_report(now, PHP_SILENCE_LIMIT);
        let is_peer_alive = heard_lately.is_some_and(|peer| !peer.is_leaving);
        // One of the two in maintenance rests; with both, PHP runs where it can.
        let does_peer_work = heard_lately.is_some_and(|peer| !peer.orders.in_maintenance);
        is_host_alive[them.index()] =
            self.has_foreign_peer() || (is_peer_alive && (does_peer_work || !is_at_work));
        is_host_alive[self.me.index()] = is_at_work || !is_host_alive[them.index()];
        let web = match self.stage {
            Stage::Draining { .. } => WebIntake::Draining,
            Stage::None | Stage::Quieting { .. } | Stage::Closing | Stage::Offered { .. } => {
                WebIntake::Serving
            }
        };
        let version = self.routes.version;
        let is_php_draining = self.persistent.php_drain.map(|order| order.is_on);
        let mut routes =
            Routes { version, source, is_replica_fit, writes, is_host_alive, is_php_draining, web };
        if routes != self.routes {
            routes.version += 1;
        }
        routes
    }

    /// Our database takes writes, as far as the last look at it goes.
    pub(super) fn is_source_open(&self) -> bool {
        !self.is_fenced && !self.engine.observation().is_read_only
    }

    pub(super) fn own_lag(&self) -> Option<u64> {
        self.engine.observation().replica.as_ref().and_then(|replica| replica.lag_seconds)
    }

    pub(super) fn is_lag_fit(&self, lag_seconds: Option<u64>) -> bool {
        lag_seconds.is_some_and(|lag| Duration::from_secs(lag) <= self.config.sql.lag_limit)
    }

    pub(super) fn handle_request(
        &mut self,
        now: Instant,
        client: u64,
        request: &Request,
        glance: Glance,
    ) {
        match request {
            Request::Status => {
                let response = Response::Status(Box::new(self.status(now, glance)));
                self.reply(client, response);
            }
            Request::Switchover => self.ask_switchover(now, client),
            Request::Rejoin => self.ask_rejoin(now, client),
            Request::Reseed => self.ask_reseed(now, client),
            Request::Hold(is_on) => self.ask_hold(now, client, *is_on),
            Request::Maintenance(is_on) => self.ask_maintenance(now, client, *is_on),
            Request::PhpDrain { host, is_on } => self.ask_php_drain(now, client, host, *is_on),
            Request::UpdatePeer { place } => self.ask_peer_update(now, client, place),
            Request::Trace { seconds, kinds } => self.begin_trace(now, client, *seconds, *kinds),
            // The hands have what is asked for, and answer themselves.
            Request::Log { .. }
            | Request::Config
            | Request::ConsoleLogin { .. }
            | Request::Power(_)
            | Request::WatchdogTest
            | Request::UpdateKept => {}
            Request::Reload => self.outputs.push_back(Output::Reload { client }),
            Request::FailoverForce => {
                let peer_serves = self.fresh(now).is_some_and(|peer| peer.role == Role::Active);
                let refusal = match self.role {
                    _ if self.persistent.orders.in_maintenance => Some(IN_MAINTENANCE),
                    Role::Active | Role::Promoting => Some("this host serves already"),
                    Role::Demoting => Some("a handover is under way"),
                    _ if self.is_taking_back() => {
                        Some("this host is taking transactions back: ask again in a moment")
                    }
                    _ if peer_serves => Some("the peer serves: use `tandem switchover`"),
                    Role::Joining if self.closes_first(now) => {
                        Some("this host is closing its database: ask again in a moment")
                    }
                    Role::Joining | Role::Standby | Role::Refused => None,
                };
                match refusal {
                    Some(why) => self.refuse(client, why.to_owned()),
                    None => {
                        self.operator.waiting.push((client, now));
                        self.operator.is_pardoned = true;
                        self.operator.is_forced = true;
                        let why = "forced by the operator".to_owned();
                        self.pending.push_back((Event::FailoverForced, why));
                    }
                }
            }
        }
    }

    fn ask_switchover(&mut self, now: Instant, client: u64) {
        let refusal = match self.role {
            Role::Active => self.why_no_handover(now),
            Role::Standby if self.persistent.orders.in_maintenance => Some(IN_MAINTENANCE.into()),
            Role::Standby if self.has_foreign_peer() => Some(format!(
                "{} runs keepalived, which cannot be asked: have this host's database promoted, \
                 then end keepalived there",
                self.peer_name()
            )),
            Role::Standby if !self.is_replicating() => {
                Some("the database of this host does not replicate".into())
            }
            Role::Standby => None,
            Role::Joining | Role::Promoting | Role::Demoting | Role::Refused => {
                Some(format!("this host is {}: only an active or standby host can", self.role))
            }
        };
        match refusal {
            Some(why) => self.refuse(client, why),
            None => {
                self.operator.waiting.push((client, now));
                let why = "asked by the operator".to_owned();
                self.pending.push_back((Event::SwitchoverAsked, why));
            }
        }
    }

    pub(super) fn refuse(&mut self, client: u64, why: String) {
        self.reply(client, Response::Refused(why));
    }

    pub(super) fn reply(&mut self, client: u64, response: Response) {
        self.outputs.push_back(Output::Reply { client, response });
    }

    /// Tells every waiting operator; `is_last` ends their wait.
    pub(super) fn tell_operators(&mut self, response: Response, is_last: bool) {
        for (client, _) in &self.operator.waiting {
            let output = Output::Reply { client: *client, response: response.clone() };
            self.outputs.push_back(output);
        }
        if is_last {
            self.operator.waiting.clear();
            self.operator.wish = None;
        }
    }

    fn answer_operators(&mut self, now: Instant) {
        let Some((_, since)) = self.operator.waiting.first() else { return };
        if self.role == Role::Active && self.addresses.is_desired() && !self.is_fenced {
            if self.role_since > *since {
                self.tell_operators(Response::Done("this host serves".into()), true);
            }
        } else if now.since(*since) > OPERATOR_LIMIT && !self.is_reseeding() {
            let what =
                format!("not done in {} s; this host is {}", OPERATOR_LIMIT.as_secs(), self.role);
            self.tell_operators(Response::Refused(what), true);
        }
    }
}
