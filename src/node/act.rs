//! Acting: how each order of the pair's table is carried out, and what the machines emit meanwhile.
//!
//! In: `Act`, outputs of the machines. Out: `Output`. Must not: decide whether (that was `pair`).
//! Read first: `pair::Act`.

use std::time::Duration;

use super::{
    CATCH_UP_LIMIT, DRAIN_LIMIT, HANDOVER_LIMIT, Node, Output, Persistent, QUIET_LIMIT,
    RETRY_INTERVAL, Stage, Will,
};
use crate::console::message::Response;
use crate::console::note::Note;
use crate::net::addresses::{LEASE, Order, Vip};
use crate::net::netlink;
use crate::pair::{Act, Event, Role};
use crate::peer::Handover;
use crate::repl::{self, Commits, Failure, Job, JobKind, Outcome};
use crate::time::Instant;

impl Node {
    pub(super) fn perform(&mut self, now: Instant, act: Act) {
        match act {
            Act::Fence => {
                self.is_fenced = false;
                self.order_job(now, Job::Fence);
            }
            Act::Follow => {
                self.lose_whole();
                let theirs = self.fresh(now).and_then(|peer| peer.database.position.clone());
                let peer_position = theirs.map(|position| position.as_str().to_owned());
                self.order_job(now, Job::Follow { peer_position });
            }
            Act::Promote => self.order_promotion(now),
            Act::CatchUpAndPromote => {
                let theirs = self.fresh(now).and_then(|peer| peer.database.position.clone());
                let position = theirs.map(|text| text.as_str().to_owned()).unwrap_or_default();
                self.order_job(now, Job::CatchUp { position, limit: CATCH_UP_LIMIT });
            }
            Act::Close => {
                self.stage = Stage::Quieting { until: now + QUIET_LIMIT };
                self.handover = Handover::Holding { id: self.handover_id() };
                self.peer.hurry(now);
            }
            Act::Reopen => {
                self.stage = Stage::None;
                self.handover = Handover::None;
                self.is_leaving = false;
                self.operator.wants_maintenance = false;
                self.end_backing();
                self.order_job(now, Job::Reopen);
                self.tell_operators(Response::Refused("the handover was undone".into()), true);
            }
            Act::RaiseEpoch => {
                let theirs = self.peer.report().map_or(0, |report| report.epoch);
                let epoch = self.persistent.epoch.max(theirs) + 1;
                self.persist(Persistent { epoch, was_source: true, backed: 0, ..self.persistent });
            }
            Act::RecordRefused => self.record_refused(),
            Act::RecordStandby => {
                self.record_peer_rules();
                self.tell_operators(Response::Done("this host is standby".into()), true);
            }
            Act::TakeVips => self.take_vips(now),
            Act::DropVips => self.drop_vips(now),
            Act::Resign => self.resign(),
            Act::Announce => {
                self.group.advertise_at_once(now);
                // The taker of a handover has them only when the giver has let go.
                if self.addresses.is_desired() {
                    self.announce();
                }
            }
            Act::HoldWrites => self.holds_writes = true,
            Act::OfferHandover => {
                self.stage = Stage::Offered { until: now + HANDOVER_LIMIT };
                self.handover = Handover::Closed { id: self.handover_id() };
                self.peer.hurry(now);
            }
            Act::RefuseHandover => self.refuse_handover(now),
            Act::DrainWeb => {
                self.stage = Stage::Draining { until: now + DRAIN_LIMIT };
                self.data.is_web_drained = false;
            }
            Act::ListenAgain => self.group.listen_again(now),
            Act::AskPeer => {
                self.operator.wish = Some(self.boot_id ^ now.as_nanos());
                self.peer.hurry(now);
            }
            Act::Leave => self.leave(now),
        }
    }

    fn record_refused(&mut self) {
        self.record_peer_rules();
        // What is errant stays what it is only while nothing more comes.
        if self.is_replicating() {
            self.jobs.push_back(Job::StopReceiving);
        }
    }

    pub(super) fn record_peer_rules(&mut self) {
        let theirs = self.peer.report().map_or(0, |report| report.epoch);
        let epoch = self.persistent.epoch.max(theirs);
        self.persist(Persistent { epoch, was_source: false, ..self.persistent });
    }

    /// The number of a handover: differs for each one of this run and of every run.
    fn handover_id(&self) -> u64 {
        self.boot_id ^ self.role_since.as_nanos()
    }

    fn refuse_handover(&mut self, now: Instant) {
        let theirs = self.peer.report().map_or(0, |report| report.epoch);
        self.persist(Persistent { epoch: theirs, was_source: false, ..self.persistent });
        if let Some(id) = self.handled_handover {
            self.handover = Handover::Refused { id };
        }
        self.tell_operators(Response::Refused("the handover was undone".into()), true);
        self.peer.hurry(now);
    }

    /// A takeover without a closing conversation: what the peer's database said last is waited for
    /// when that database is still there to send it.
    fn order_promotion(&mut self, now: Instant) {
        let theirs = self.fresh(now).filter(|peer| peer.database.is_up);
        let position = theirs.and_then(|peer| peer.database.position.clone());
        self.jobs.clear();
        if let Some(position) = position
            && self.is_replicating()
        {
            let limit = Duration::from_secs(1);
            self.order_job(now, Job::CatchUp { position: position.as_str().to_owned(), limit });
            self.jobs.push_back(Job::Promote);
        } else {
            self.order_job(now, Job::Promote);
        }
    }

    /// Runs a job as soon as the running one can be dropped; what waited is forgotten.
    fn order_job(&mut self, now: Instant, job: Job) {
        self.jobs.clear();
        if self.job.is_some() {
            self.engine.handle(now, repl::Input::Abandon);
        }
        self.jobs.push_back(job);
        self.retry_at = now + RETRY_INTERVAL;
    }

    pub(super) fn persist(&mut self, persistent: Persistent) {
        if self.persistent != persistent {
            self.persistent = persistent;
            self.outputs.push_back(Output::Persist(persistent));
        }
    }

    fn take_vips(&mut self, now: Instant) {
        if self.addresses.is_desired() {
            return;
        }
        self.write_will();
        self.group.serve(now);
        self.send_advertisements(now);
        self.addresses.hold(now);
        self.flush_addresses();
        self.begin_announcements(now);
        self.peer.hurry(now);
        self.note(Note::VipsTaken);
    }

    fn drop_vips(&mut self, now: Instant) {
        let held_them = self.addresses.is_desired();
        self.addresses.drop_all();
        self.flush_addresses();
        self.end_announcements();
        self.group.stop(now);
        self.outputs.push_back(Output::Will(Will::default()));
        self.peer.hurry(now);
        if held_them {
            self.note(Note::VipsDropped);
        }
    }

    fn resign(&mut self) {
        for (link, datagram) in self.group.resignations() {
            self.outputs.push_back(Output::SendVrrp { link, datagram });
        }
    }

    /// What the guard does in our place should we die while holding the addresses.
    fn write_will(&mut self) {
        let mut removals = Vec::new();
        for (device, vip) in self.addresses.all() {
            if let Some(index) = self.devices[device.index()].index {
                removals.push(netlink::remove_address(0, index, vip));
            }
        }
        let resignations = self
            .group
            .resignations()
            .into_iter()
            .map(|(link, datagram)| (self.devices[link.index()].name.clone(), datagram))
            .collect();
        self.outputs.push_back(Output::Will(Will { removals, resignations }));
    }

    fn leave(&mut self, now: Instant) {
        self.is_leaving = true;
        self.note(Note::Leaving);
        self.peer.hurry(now);
        self.send_beacon(now);
        self.outputs.push_back(Output::Exit);
    }

    /// Moves outputs of the machines to ours, starts the next job.
    pub(super) fn run_machines(&mut self, now: Instant) {
        self.addresses.tick(now);
        self.flush_addresses();
        self.send_advertisements(now);
        self.run_announcements(now);
        self.send_probes(now);
        self.send_hellos(now);
        self.run_witnesses(now);
        loop {
            if self.job.is_none()
                && let Some(job) = self.jobs.pop_front()
            {
                self.job = Some(job.kind());
                self.engine.handle(now, repl::Input::Job(job));
            }
            self.engine.handle(now, repl::Input::Tick);
            let mut is_moving = false;
            while let Some(output) = self.engine.poll_output() {
                is_moving = true;
                self.take_engine_output(now, output);
            }
            if !is_moving {
                return;
            }
        }
    }

    fn take_engine_output(&mut self, now: Instant, output: repl::Output) {
        match output {
            repl::Output::Query { id, sql, limit } => {
                self.outputs.push_back(Output::Query { id, sql, limit });
            }
            repl::Output::Probe { id, sql, limit } => {
                self.outputs.push_back(Output::Probe { id, sql, limit });
            }
            repl::Output::Observed(observation) => self.observe(now, &observation),
            repl::Output::Progress(what) => self.note(Note::ReplicationSteps { what }),
            repl::Output::Done { job, result } => {
                self.job = None;
                self.finish_job(now, job, result);
            }
        }
    }

    fn observe(&mut self, now: Instant, observation: &repl::Observation) {
        self.observe_succession();
        self.observe_backing(now, observation);
        if observation.state == repl::State::Up {
            self.is_database_open = !observation.is_read_only;
        }
        let trouble = match (&observation.state, &observation.commits) {
            (repl::State::Up, Commits::Hang(why) | Commits::Refused(why)) => Some(why.clone()),
            (repl::State::Up, Commits::End) => observation.unfit.first().cloned(),
            (repl::State::Denied(why), _) => Some(format!("it refuses repl.user: {why}")),
            (repl::State::Unreachable(why), _) => Some(format!("it does not answer: {why}")),
        };
        let is_lost = match (&observation.state, &observation.commits) {
            (repl::State::Unreachable(_), _) | (repl::State::Up, Commits::Hang(_)) => true,
            (repl::State::Up, Commits::End | Commits::Refused(_)) => false,
            (repl::State::Denied(_), _) => false,
        };
        if !is_lost {
            let was_lost = self.database_lost_since.take().is_some();
            if was_lost && observation.state == repl::State::Up {
                self.retry_at = now;
            }
        } else if self.database_lost_since.is_none() {
            self.database_lost_since = Some(now);
        }
        if trouble != self.findings.database {
            self.note(match &trouble {
                Some(what) => Note::DatabaseTrouble { what: what.clone() },
                None => Note::Database { what: format!("{} answers", observation.version) },
            });
            self.findings.database = trouble;
        }
    }

    fn finish_job(&mut self, now: Instant, job: JobKind, result: Result<Outcome, Failure>) {
        match result {
            Ok(outcome) => self.finish_well(now, outcome),
            Err(Failure::Abandoned) => {}
            Err(Failure::Diverged { extra, transactions, known }) => {
                self.found_errant(now, extra, transactions, known);
            }
            Err(failure) => self.finish_badly(now, job, &failure),
        }
    }

    fn finish_well(&mut self, now: Instant, outcome: Outcome) {
        self.findings.job = None;
        match outcome {
            Outcome::Fenced { ended, .. } => {
                self.is_fenced = true;
                self.retry_at = now;
                self.note(Note::Database { what: format!("fenced, {ended} connections ended") });
            }
            Outcome::Following { .. } => {
                self.forget_errant();
                self.replica_stopped_since = None;
                self.pending.push_back((Event::Followed, "replicates from the peer".into()));
            }
            Outcome::CaughtUp { .. } => {
                if self.jobs.is_empty() && self.role == Role::Promoting {
                    self.jobs.push_back(Job::Promote);
                }
            }
            Outcome::Promoted { position, warnings } => {
                self.is_fenced = false;
                for what in warnings {
                    self.note(Note::DatabaseTrouble { what });
                }
                self.note(Note::Database { what: format!("promoted at {position}") });
                self.pending.push_back((Event::Promoted, "the database is open".into()));
                self.peer.hurry(now);
            }
            Outcome::Closed { ended, position } => {
                let what = format!("closed at {position}, {ended} connections ended");
                self.note(Note::Database { what });
                self.is_fenced = true;
                self.pending.push_back(self.closed_event());
            }
            Outcome::SemiSync { .. } => self.halves_set(now),
            Outcome::ReceivingStopped => {}
            Outcome::Reseeded => self.reseeded(),
            Outcome::Reopened { .. } => {
                self.is_fenced = false;
                self.note(Note::Database { what: "open again".into() });
            }
        }
    }

    fn closed_event(&self) -> (Event, String) {
        if self.is_leaving || self.is_terminating {
            (Event::ClosedToLeave, "closed, leaving".into())
        } else {
            (Event::Closed, "closed".into())
        }
    }

    fn finish_badly(&mut self, now: Instant, job: JobKind, failure: &Failure) {
        let what = format!("{job}: {failure}");
        if let (JobKind::SemiSync, Failure::Refused(_)) = (job, failure) {
            // The pair is whole without it; the status says what a write is worth.
            self.guard.is_refused = true;
            return self.note(Note::Database { what });
        }
        // Tried again and again: said when it changes.
        if self.findings.job.as_ref() != Some(&what) {
            self.note(Note::DatabaseTrouble { what: what.clone() });
        }
        self.findings.job = Some(what.clone());
        self.retry_at = now + RETRY_INTERVAL;
        match job {
            JobKind::CatchUp if self.handled_handover.is_some() && self.jobs.is_empty() => {
                self.pending.push_back((Event::CatchUpFailed, what));
            }
            JobKind::Close if self.is_leaving || self.is_terminating => {
                self.end_open_database(failure);
                self.pending.push_back((Event::ClosedToLeave, what));
            }
            JobKind::Close => self.pending.push_back((Event::CloseFailed, what)),
            // Each of these is tried again by `judge` after RETRY_INTERVAL.
            JobKind::Fence => self.end_open_database(failure),
            JobKind::Follow if matches!(failure, Failure::NeedsCopy(_)) => {
                self.fill_empty_database(now);
            }
            JobKind::Follow | JobKind::Promote | JobKind::CatchUp => {}
            JobKind::Reopen => {}
            JobKind::SemiSync | JobKind::StopReceiving => {}
            JobKind::Reseed => self.tell_operators(Response::Refused(what), true),
        }
    }

    /// A database that does not answer and is about to lose the role cannot be asked to close.
    pub(super) fn end_silent_database(&mut self) {
        if !self.is_database_up() {
            self.end_database();
        }
    }

    fn end_open_database(&mut self, failure: &Failure) {
        if matches!(failure, Failure::Blocked { .. } | Failure::Unreachable { .. }) {
            self.end_database();
        }
    }

    /// A server that was open when it answered last, and cannot be closed, must not write when it
    /// goes on: the peer may serve by then. It is ended once, whoever starts it again; where
    /// nothing listens there is nothing to end.
    fn end_database(&mut self) {
        if std::mem::take(&mut self.is_database_open) {
            self.note(Note::DatabaseEnded);
            self.outputs.push_back(Output::EndDatabase);
        }
    }

    pub(super) fn flush_addresses(&mut self) {
        while let Some(order) = self.addresses.poll_order() {
            let (Order::Set(Vip { device, .. }) | Order::Remove { device, .. }) = &order;
            if let Some(index) = self.devices[device.index()].index {
                let request = self.request(index, &order);
                self.outputs.push_back(Output::Netlink { request });
            }
        }
    }

    fn request(&mut self, index: u32, order: &Order) -> Vec<u8> {
        let sequence = self.next_netlink_sequence();
        match order {
            Order::Set(Vip { address, label, .. }) => {
                netlink::set_address(sequence, index, *address, label.as_deref(), Some(LEASE))
            }
            Order::Remove { address, .. } => netlink::remove_address(sequence, index, *address),
        }
    }

    fn send_advertisements(&mut self, now: Instant) {
        for (link, datagram) in self.group.poll_advertisements(now) {
            self.outputs.push_back(Output::SendVrrp { link, datagram });
        }
    }
}
