//! Judging: which event holds at this moment. Every guard of the pair's table is computed here.
//!
//! In: the machines' states and the instant. Out: events to the table, each with its reason.
//! Must not: carry out an order (`act`), talk (`report`).
//! Read first: design section 5; `pair`. The question of each role is one function.

use std::time::Duration;

use super::{DATABASE_PATIENCE, ELECTION_PATIENCE, Node, RETRY_INTERVAL, Stage};
use crate::console::note::Note;
use crate::pair::{Event, Role};
use crate::peer::{Handover, Report};
use crate::repl;
use crate::time::Instant;
use crate::wire::LinkId;

pub(super) type Found = (Event, String);

/// Events in one turn; the table settles in three or four.
const EVENTS_PER_TURN_MAX: usize = 16;
/// How often a refused host looks whether it is still.
const REFUSED_RECHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How long replication may stand still before it is set up again.
const REPLICA_PATIENCE: Duration = Duration::from_secs(3);
/// How long a peer with a newer epoch must be seen to have more than we have.
const RANK_PATIENCE: Duration = Duration::from_secs(1);

/// Whether a peer serves, and says at which position: without it nobody attaches by guess.
pub(super) fn is_open(peer: &Report) -> bool {
    peer.role == Role::Active && peer.database.is_writable && peer.database.position.is_some()
}

/// How two positions compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    MineHasMore,
    TheirsHasMore,
    Diverged,
}

impl Node {
    /// Finds events and applies them until none holds.
    pub(super) fn judge(&mut self, now: Instant) {
        for _ in 0..EVENTS_PER_TURN_MAX {
            let Some((event, why)) = self.find_event(now) else { return };
            self.apply(now, event, why);
            self.run_machines(now);
        }
    }

    fn find_event(&mut self, now: Instant) -> Option<Found> {
        if let Some(found) = self.pending.pop_front() {
            return Some(found);
        }
        match self.role {
            Role::Joining => self.judge_joining(now),
            Role::Standby => self.judge_standby(now),
            Role::Promoting | Role::Active => self.judge_serving(now),
            Role::Demoting => self.judge_demoting(now),
            Role::Refused => self.judge_refused(now),
        }
    }

    /// What the peer said lately, if it did.
    pub(super) fn fresh(&self, now: Instant) -> Option<&Report> {
        self.peer.fresh_report(now, self.fresh_limit())
    }

    pub(super) fn fresh_limit(&self) -> Duration {
        4 * self.config.peer.interval
    }

    pub(super) fn is_free(&self) -> bool {
        self.job.is_none()
            && self.jobs.is_empty()
            && !self.copying.is_under_way
            && !self.is_taking_back()
    }

    fn has_carrier(&self) -> bool {
        LinkId::ALL.into_iter().any(|link| self.group.has_carrier(link))
    }

    pub(super) fn is_whole(&self) -> bool {
        LinkId::ALL.into_iter().all(|link| self.group.has_carrier(link))
    }

    /// A peer that serves with a newer epoch may have written what is not here: it is the last
    /// source from now on, whatever becomes of it.
    fn admit_newer_source(&mut self, now: Instant) {
        let mine = self.persistent;
        let is_newer = |peer: &Report| peer.role == Role::Active && peer.epoch > mine.epoch;
        if mine.was_source && self.fresh(now).is_some_and(is_newer) {
            self.record_peer_rules();
        }
    }

    fn judge_joining(&mut self, now: Instant) -> Option<Found> {
        self.admit_newer_source(now);
        if !self.is_fenced {
            self.retry_fence(now);
            // Web traffic does not need the database: a host that is entitled goes on without.
            let patience_ends = self.role_since + ELECTION_PATIENCE;
            if now < patience_ends {
                return None;
            }
        }
        if !self.has_carrier() {
            self.wait_for("no link has carrier".into());
            return None;
        }
        match self.fresh(now).cloned() {
            Some(peer) => self.judge_joining_with(now, &peer),
            None if self.has_foreign_peer() => self.judge_joining_foreign(now),
            None => self.judge_joining_alone(now),
        }
    }

    fn retry_fence(&mut self, now: Instant) {
        if !self.is_fenced && self.is_free() && now >= self.retry_at {
            self.jobs.push_back(repl::Job::Fence);
            self.retry_at = now + RETRY_INTERVAL;
        }
    }

    fn judge_joining_with(&mut self, now: Instant, peer: &Report) -> Option<Found> {
        match peer.role {
            Role::Active if peer.epoch < self.persistent.epoch => {
                self.wait_for(format!(
                    "{} serves with the older epoch {}: look at both databases, then run \
                     `tandem failover --force` on the host that is to serve",
                    self.peer_name(),
                    peer.epoch
                ));
                None
            }
            Role::Active if is_open(peer) => self.may_follow(now).then(|| {
                self.retry_at = now + RETRY_INTERVAL;
                (Event::PeerServes, format!("{} serves", self.peer_name()))
            }),
            Role::Active | Role::Promoting | Role::Demoting | Role::Standby => None,
            Role::Joining | Role::Refused if peer.is_leaving => None,
            Role::Joining | Role::Refused => {
                self.elect(now, peer).and_then(|found| self.unless_ordered_to_wait(found))
            }
        }
    }

    fn may_follow(&self, now: Instant) -> bool {
        self.is_fenced && self.is_free() && now >= self.retry_at && self.is_database_up()
    }

    pub(super) fn is_database_up(&self) -> bool {
        self.engine.observation().state == repl::State::Up
    }

    /// Nobody serves and both wait: both hosts come to the same answer from the same facts.
    fn elect(&mut self, now: Instant, peer: &Report) -> Option<Found> {
        let mine = self.engine.observation().position.clone().filter(|_| self.is_database_up());
        let theirs = peer.database.position.as_ref().filter(|_| peer.database.is_up);
        let was_patient = now.since(self.role_since) > ELECTION_PATIENCE;
        match (mine, theirs) {
            // A database that answers is closed first: it may have been left open.
            (Some(_), _) if !self.is_fenced => None,
            (Some(mine), Some(theirs)) => {
                let why = format!("nobody serves, {} waits too", self.peer_name());
                let is_won = self.wins_election(peer, &mine, theirs);
                is_won.then_some((Event::ElectionWon, why))
            }
            (Some(_), None) => {
                let peer_rules = peer.was_source && peer.epoch >= self.persistent.epoch;
                if peer_rules {
                    self.wait_for(format!(
                        "the database of {}, which was the last source, does not answer yet; \
                         `tandem failover --force` serves without it",
                        self.peer_name()
                    ));
                    return None;
                }
                was_patient
                    .then(|| (Event::ElectionWon, format!("{} has no database", self.peer_name())))
            }
            (None, Some(_)) => {
                self.wait_for("the database of this host does not answer".into());
                None
            }
            (None, None) => {
                self.wait_for("no database answers on either host".into());
                None
            }
        }
    }

    fn wins_election(&self, peer: &Report, mine: &str, theirs: &str) -> bool {
        let rank_mine = (self.persistent.epoch, self.persistent.was_source);
        let rank_theirs = (peer.epoch, peer.was_source);
        let priority = |host| self.config.host(host).priority;
        match self.relate(mine, theirs) {
            Relation::MineHasMore => true,
            Relation::TheirsHasMore => false,
            Relation::Equal | Relation::Diverged if rank_mine == rank_theirs => {
                priority(self.me) > priority(self.me.other())
            }
            Relation::Equal | Relation::Diverged => rank_mine > rank_theirs,
        }
    }

    fn relate(&self, mine: &str, theirs: &str) -> Relation {
        let (Some(mine), Some(theirs)) = (self.parse(mine), self.parse(theirs)) else {
            return Relation::Diverged;
        };
        match (mine.contains(&theirs), theirs.contains(&mine)) {
            (true, true) => Relation::Equal,
            (true, false) => Relation::MineHasMore,
            (false, true) => Relation::TheirsHasMore,
            (false, false) => Relation::Diverged,
        }
    }

    fn judge_joining_alone(&mut self, now: Instant) -> Option<Found> {
        if !self.is_peer_silent(now) {
            return None;
        }
        if self.persistent.was_source {
            let found = (Event::AloneEntitled, "the last source, and alone".into());
            let is_free = self.nobody_answers(now) && self.may_serve_alone(now);
            return if is_free { self.unless_ordered_to_wait(found) } else { None };
        }
        self.wait_for(format!(
            "{} is silent and was the last source, or none is known: start it, or run \
             `tandem failover --force` to serve with the data of this host",
            self.peer_name()
        ));
        None
    }

    fn judge_standby(&mut self, now: Instant) -> Option<Found> {
        // What was heard last is still fresh for a moment, but nobody could reach us.
        if !self.has_carrier() {
            return None;
        }
        let name = self.peer_name();
        // A foreign peer's resignation leaves the skew time on the timer, as the protocol has it.
        let has_resigned = std::mem::take(&mut self.vrrp_resigned) && !self.has_foreign_peer();
        if has_resigned && self.hears_the_present(now) {
            let is_handing_over =
                self.fresh(now).is_some_and(|peer| peer.handover != Handover::None);
            if !is_handing_over {
                let why = format!("{name} resigned (priority 0)");
                return self.succeed((Event::PeerResigned, why));
            }
        }
        if let Some(found) = self.judge_preemption(now) {
            return Some(found);
        }
        let Some(peer) = self.fresh(now).cloned() else {
            self.stop_receiving();
            let may_take = !self.has_foreign_peer() || self.is_whole();
            let is_gone = may_take
                && self.is_peer_silent(now)
                && self.nobody_answers(now)
                && self.may_serve_alone(now);
            let found = (Event::PeerGone, format!("{name} is silent on every path"));
            return if is_gone { self.succeed(found) } else { None };
        };
        match (peer.role, peer.handover) {
            (Role::Joining | Role::Refused, _) if !peer.holds_vips => {
                return self.judge_vacancy(now, &peer);
            }
            (Role::Demoting, Handover::Holding { .. }) if !self.holds_writes => {
                return Some((Event::PeerHandsOver, format!("{name} hands over")));
            }
            (Role::Demoting, Handover::Closed { id }) if self.handled_handover != Some(id) => {
                self.handled_handover = Some(id);
                return Some((Event::PeerClosed, format!("{name} hands over")));
            }
            (Role::Active, _) => {
                self.holds_writes = false;
                self.handover = Handover::None;
                self.findings.waiting = None;
            }
            (Role::Joining | Role::Refused | Role::Standby | Role::Promoting, _) => {}
            (Role::Demoting, _) => {}
        }
        self.judge_replica(now, &peer)
    }

    /// The source is silent on every path: the takeover that may follow is not to wait for that.
    fn stop_receiving(&mut self) {
        let may_stop = !self.has_foreign_peer() && !self.has_stopped_receiving;
        if may_stop && self.is_replicating() && self.is_free() {
            self.has_stopped_receiving = true;
            self.jobs.push_back(repl::Job::StopReceiving);
        }
    }

    /// Replication that stands still is set up again, unless its applier has an error, which only
    /// an operator can mend.
    fn judge_replica(&mut self, now: Instant, peer: &Report) -> Option<Found> {
        let stands = !self.is_replicating() && self.is_database_up();
        if !stands || !is_open(peer) {
            self.replica_stopped_since = None;
            return None;
        }
        let since = *self.replica_stopped_since.get_or_insert(now);
        let is_over = self.has_stopped_receiving || now.since(since) >= REPLICA_PATIENCE;
        if !is_over || !self.may_follow(now) {
            return None;
        }
        self.has_stopped_receiving = false;
        self.retry_at = now + REPLICA_PATIENCE;
        Some((Event::ReplicaStopped, "replication stopped".into()))
    }

    /// Both threads run and the source is the peer.
    pub(super) fn is_replicating(&self) -> bool {
        self.engine.is_following()
    }

    fn judge_serving(&mut self, now: Instant) -> Option<Found> {
        if let Some(found) = self.judge_isolation(now) {
            return Some(found);
        }
        self.retry_promotion(now);
        self.reopen_source(now);
        if self.has_foreign_peer() {
            return self.judge_serving_foreign(now);
        }
        let name = self.peer_name();
        let Some(peer) = self.fresh(now).cloned() else {
            if self.is_outclaimed(now) {
                let why = format!("{name} claims the addresses too, and has the higher priority");
                return Some((Event::PeerServes, why));
            }
            let may_take = !self.addresses.is_desired()
                && self.is_silent_for_long(now)
                && self.may_serve_alone(now);
            return may_take.then(|| (Event::PeerGone, format!("{name} is silent")));
        };
        if matches!(peer.role, Role::Active | Role::Promoting) {
            return self.judge_rival(now, &peer);
        }
        if let Some(found) = self.judge_rank(now, &peer) {
            return Some(found);
        }
        if !self.addresses.is_desired() && !peer.holds_vips {
            return Some((Event::PeerReleased, format!("{name} let go of the addresses")));
        }
        if self.role == Role::Active { self.judge_active(now, &peer) } else { None }
    }

    fn retry_promotion(&mut self, now: Instant) {
        if self.role == Role::Promoting && self.is_free() && now >= self.retry_at {
            self.retry_at = now + RETRY_INTERVAL;
            self.jobs.push_back(repl::Job::Promote);
        }
    }

    /// A source that was restarted comes up read-only; a handover that was undone left it closed.
    fn reopen_source(&mut self, now: Instant) {
        let is_closed = self.is_fenced || self.engine.observation().is_read_only;
        let may_ask = self.is_database_up() && self.is_free() && now >= self.retry_at;
        if self.role == Role::Active && is_closed && may_ask {
            self.retry_at = now + RETRY_INTERVAL;
            self.end_backing();
            self.jobs.push_back(repl::Job::Reopen);
        }
    }

    /// Two serve: the newer epoch is right, then the higher priority.
    fn judge_rival(&mut self, now: Instant, peer: &Report) -> Option<Found> {
        let priority = |host| self.config.host(host).priority;
        let mine = (self.persistent.epoch, priority(self.me));
        let theirs = (peer.epoch, priority(self.me.other()));
        if theirs > mine {
            let why = format!("{} serves with epoch {}", self.peer_name(), peer.epoch);
            return Some((Event::PeerServes, why));
        }
        if now < self.retry_at {
            return None;
        }
        self.retry_at = now + RETRY_INTERVAL;
        Some((Event::PeerServesWrongly, format!("{} serves too", self.peer_name())))
    }

    /// The peer does not serve, but did so after us. Where it has nothing that we lack, we go on
    /// with an epoch above its own; else its data are the newer ones, and the election follows.
    /// It follows too where ours is not open yet (its applier is broken, it has just restarted).
    fn judge_rank(&mut self, now: Instant, peer: &Report) -> Option<Found> {
        let theirs = peer.database.position.as_ref().filter(|_| peer.database.is_up);
        let mine = self.engine.observation().position.clone().filter(|_| self.is_database_up());
        let is_newer = peer.epoch > self.persistent.epoch && peer.was_source;
        let is_opening = self.role == Role::Promoting && !self.operator.is_forced;
        let (Some(mine), Some(theirs), true) =
            (mine, theirs, is_newer || (is_opening && peer.role == Role::Joining))
        else {
            self.outranked_since = None;
            return None;
        };
        let name = self.peer_name();
        let why = format!("{name} has the newer epoch {}", peer.epoch);
        match (self.relate(&mine, theirs), is_newer) {
            (Relation::Equal | Relation::MineHasMore, true) => Some((Event::EpochOvertaken, why)),
            (Relation::TheirsHasMore, _) | (Relation::Diverged, true) => {
                // Both positions are as old as a look or a beacon.
                let since = *self.outranked_since.get_or_insert(now);
                let why = if is_newer { why } else { format!("{name} has what is missing here") };
                (now.since(since) >= RANK_PATIENCE).then_some((Event::Outranked, why))
            }
            (Relation::Equal | Relation::MineHasMore | Relation::Diverged, false) => {
                self.outranked_since = None;
                None
            }
        }
    }

    fn judge_active(&mut self, now: Instant, peer: &Report) -> Option<Found> {
        let is_peer_fit = peer.role == Role::Standby && peer.database.is_up;
        if !is_peer_fit || peer.orders.in_maintenance {
            return None;
        }
        if self.is_held() {
            return self.judge_wish(now, peer);
        }
        self.judge_losses(now, peer)
            .or_else(|| self.judge_ills(now))
            .or_else(|| self.judge_wish(now, peer))
    }

    /// What ends the service here, and not at the peer.
    fn judge_losses(&mut self, now: Instant, peer: &Report) -> Option<Found> {
        if let Some(since) = self.database_lost_since
            && now.since(since) >= DATABASE_PATIENCE
        {
            let why = self.findings.database.clone().unwrap_or_default();
            self.end_silent_database();
            return Some((Event::DatabaseLost, format!("our database: {why}")));
        }
        let lost = LinkId::ALL.into_iter().find(|link| !self.group.has_carrier(*link));
        // Replication runs inside: once that link is gone, what it had not brought over stays here,
        // and handing over would lose it.
        if let Some(link) = lost
            && peer.carrier == [true; 2]
            && (link == LinkId::Outside || self.has_shipped_all(peer))
        {
            self.is_leaving = true;
            return Some((Event::LinkLost, format!("{link} has no carrier")));
        }
        None
    }

    pub(super) fn has_shipped_all(&self, peer: &Report) -> bool {
        let mine = self.engine.observation().position.as_deref();
        let theirs = peer.database.position.as_deref();
        mine.zip(theirs).is_some_and(|(mine, theirs)| match self.relate(mine, theirs) {
            Relation::Equal | Relation::TheirsHasMore => true,
            Relation::MineHasMore | Relation::Diverged => false,
        })
    }

    fn judge_isolation(&self, now: Instant) -> Option<Found> {
        if !self.has_carrier() {
            return Some((Event::Isolated, "no link has carrier".into()));
        }
        let why = || format!("{} and every witness are silent", self.peer_name());
        self.is_cut_off(now).then(|| (Event::Isolated, why()))
    }

    fn judge_demoting(&mut self, now: Instant) -> Option<Found> {
        if let Some(found) = self.judge_isolation(now).or_else(|| self.judge_taken(now)) {
            return Some(found);
        }
        match self.stage {
            Stage::Quieting { until } => {
                let is_peer_quiet = self.fresh(now).is_none_or(|peer| peer.is_quiet);
                if (self.data.is_sql_quiet && is_peer_quiet) || now >= until {
                    self.stage = Stage::Closing;
                    let limit = self.config.repl.close_limit;
                    self.jobs.push_back(repl::Job::Close { limit, ends_writers: true });
                }
                None
            }
            Stage::Offered { until } => self.judge_offer(now, until),
            Stage::Draining { until } => (self.data.is_web_drained || now >= until)
                .then(|| (Event::WebDrained, "handed over".into())),
            Stage::None | Stage::Closing => None,
        }
    }

    fn judge_offer(&mut self, now: Instant, until: Instant) -> Option<Found> {
        let name = self.peer_name();
        let Some(peer) = self.fresh(now) else {
            let is_gone = self.is_silent_for_long(now) && self.may_serve_alone(now);
            return is_gone.then(|| (Event::PeerGone, format!("{name} is silent")));
        };
        let Handover::Closed { id } = self.handover else { return None };
        match (peer.role, peer.handover) {
            (Role::Active, _) if peer.epoch > self.persistent.epoch => {
                Some((Event::PeerServes, format!("{name} serves")))
            }
            (_, Handover::Refused { id: refused }) if refused == id => {
                Some((Event::PeerRefused, format!("{name} could not take over")))
            }
            (Role::Standby, _) if now >= until => {
                Some((Event::HandoverOverdue, format!("{name} did not begin")))
            }
            (Role::Joining | Role::Refused, _) => {
                Some((Event::PeerResigned, format!("{name} is {}", peer.role)))
            }
            (Role::Active | Role::Standby | Role::Promoting | Role::Demoting, _) => None,
        }
    }

    fn judge_refused(&mut self, now: Instant) -> Option<Found> {
        self.retry_fence(now);
        if self.is_taking_back() || self.take_back_what_nobody_was_told(now) {
            return None;
        }
        let peer = self.fresh(now).cloned().filter(|_| self.has_carrier())?;
        if peer.role == Role::Joining && !peer.is_leaving {
            return self.judge_refused_alone(&peer).and_then(|found| self.unless_ordered(found));
        }
        if !is_open(&peer) || !self.may_follow(now) {
            return None;
        }
        self.retry_at = now + REFUSED_RECHECK_INTERVAL;
        Some((Event::PeerServes, format!("{} serves", self.peer_name())))
    }

    /// The peer stopped serving before it wrote anything: what we have too much is the newest.
    fn judge_refused_alone(&self, peer: &Report) -> Option<Found> {
        let theirs = peer.database.position.as_ref().filter(|_| peer.database.is_up)?;
        let is_known = self.is_fenced && self.is_database_up();
        let mine = self.engine.observation().position.as_ref().filter(|_| is_known)?;
        (self.relate(mine, theirs) == Relation::MineHasMore).then(|| {
            let name = self.peer_name();
            (Event::ElectionWon, format!("nobody serves, {name} has nothing that is not here"))
        })
    }

    /// Says once what this host waits for.
    pub(super) fn wait_for(&mut self, why: String) {
        if self.findings.waiting.as_ref() != Some(&why) {
            self.findings.waiting = Some(why.clone());
            self.note(Note::Waiting { why });
        }
    }

    pub(super) fn peer_name(&self) -> String {
        self.config.host(self.me.other()).name.clone()
    }
}
