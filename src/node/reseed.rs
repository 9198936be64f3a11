//! Reseed: this host's database becomes a copy of the other host's.
//!
//! In: the operator's order, or a database that is empty and cannot be filled by replication; how
//! the copy went. Out: a job where the servers copy each other (`repl::reseed`), else an order to
//! the hands (`os::copy`). Must not: touch the database of a host that serves, or one with rows
//! without being told to.

use std::time::Duration;

use super::judge::is_open;
use super::{Node, Output};
use crate::console::message::Response;
use crate::console::note::Note;
use crate::pair::Role;
use crate::repl::{Dialect, Job, JobKind};
use crate::time::Instant;

/// A copy by the hands.
#[derive(Debug, Default)]
pub(super) struct Copying {
    pub(super) is_under_way: bool,
    /// When an empty database may be filled again without an order.
    retry_at: Instant,
}

impl Node {
    /// `tandem reseed`: everything here goes, so only where this host serves nobody and the other
    /// one does.
    pub(super) fn ask_reseed(&mut self, now: Instant, client: u64) {
        if let Some(why) = self.obstacle_to_reseed(now) {
            return self.refuse(client, why.to_owned());
        }
        self.operator.waiting.push((client, now));
        self.reseed();
    }

    /// There is nothing that could be lost, and nothing else that would make this host a replica.
    pub(super) fn fill_empty_database(&mut self, now: Instant) {
        if now < self.copying.retry_at || self.obstacle_to_reseed(now).is_some() {
            return;
        }
        self.copying.retry_at = now + FILL_INTERVAL;
        let name = self.peer_name();
        let what = format!("this database is empty, and is filled by a copy of {name}'s");
        self.note(Note::Database { what });
        self.reseed();
    }

    fn obstacle_to_reseed(&self, now: Instant) -> Option<&'static str> {
        let peer_serves = self.fresh(now).is_some_and(is_open);
        match self.role {
            Role::Active | Role::Promoting | Role::Demoting => Some("this host serves"),
            _ if !peer_serves => Some("the other host does not serve: there is nothing to copy"),
            Role::Standby => Some("this host follows, and needs no copy"),
            Role::Joining | Role::Refused if !self.is_free() => Some("another job is under way"),
            Role::Joining | Role::Refused => None,
        }
    }

    fn reseed(&mut self) {
        let version = &self.engine.observation().version;
        if Dialect::from_version(version).is_some_and(Dialect::can_clone) {
            self.jobs.push_back(Job::Reseed);
            return;
        }
        self.copying.is_under_way = true;
        self.outputs.push_back(Output::CopyDatabase);
    }

    pub(super) fn is_reseeding(&self) -> bool {
        self.copying.is_under_way || self.job == Some(JobKind::Reseed)
    }

    /// The servers did it.
    pub(super) fn reseeded(&mut self) {
        self.forget_errant();
        // What starts now is another database.
        self.is_fenced = false;
        let what = "this is a copy of the other host's database: start it, where nothing does";
        self.note(Note::Database { what: what.to_owned() });
        self.tell_operators(Response::Done(what.to_owned()), true);
    }

    pub(super) fn copy_goes_on(&mut self, what: String) {
        self.tell_operators(Response::Progress(what.clone()), false);
        self.wait_for(what);
    }

    /// The hands did it, or not: the database of a copy that was cut off says so itself.
    pub(super) fn copied(&mut self, now: Instant, result: Result<(), String>) {
        self.copying.is_under_way = false;
        self.retry_at = now;
        if let Err(why) = result {
            let what = format!("reseed: {why}");
            self.note(Note::DatabaseTrouble { what: what.clone() });
            return self.tell_operators(Response::Refused(what), true);
        }
        self.forget_errant();
        self.findings.waiting = None;
        let what = "this is a copy of the other host's database";
        self.note(Note::Database { what: what.to_owned() });
        self.tell_operators(Response::Done(what.to_owned()), true);
    }
}

/// What keeps a copy from being begun is seldom over at once.
const FILL_INTERVAL: Duration = Duration::from_secs(60);
