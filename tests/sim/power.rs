//! Machines that lose their power, or stand still as a whole.
//!
//! In: faults. Out: hosts that are gone, or frozen, and what becomes of them later.
//! Must not: end a process in order. Read first: `faults`, which begins and ends these.

use std::time::Duration;

use tandem::node::Input;
use tandem::time::Instant;
use tandem::wire::{HostId, LinkId};

use super::world::{Event, World};

/// Clients write more often.
const COMMIT_AWAITED_MAX: Duration = Duration::from_millis(400);

impl World {
    /// In a commit that waits for the replica, where the plan has it so; or with the replica's
    /// database, which had received and acknowledged what it had not applied yet.
    pub fn lose_power_soon(&mut self, host: HostId) {
        let until = self.now + COMMIT_AWAITED_MAX;
        if self.plan.replica_dies_too {
            self.host(host.other()).database.busy_until = until;
        }
        self.await_commit(host, until);
    }

    pub fn await_commit(&mut self, host: HostId, until: Instant) {
        let semi_sync = &self.hosts[host.index()].database.semi_sync;
        let is_in_force = self.plan.dies_in_commits && semi_sync.is_in_force();
        let is_due = semi_sync.has_waiting() && !self.plan.replica_dies_too;
        if is_in_force && !is_due && self.now < until {
            return self.after(Duration::from_millis(1), Event::PowerLoss { host, until });
        }
        if is_in_force && self.plan.replica_dies_too {
            self.end_database(host.other());
        }
        self.lose_power(host);
    }

    pub fn lose_power(&mut self, host: HostId) {
        self.power_off(host);
        for link in LinkId::ALL {
            self.links[link.index()].carrier[host.index()] = false;
        }
        if self.plan.is_inside_a_cable {
            self.set_carrier(host.other(), LinkId::Inside, false);
        }
    }

    pub fn freeze(&mut self, host: HostId) {
        let now = self.now;
        let target = self.host(host);
        if target.is_powered {
            target.frozen_since.get_or_insert(now);
        }
    }

    /// The machine goes on; its clock may have stood still, its kernel's timers did.
    pub fn thaw(&mut self, host: HostId, clock_stood: bool) {
        let now = self.now;
        let target = self.host(host);
        let Some(since) = target.frozen_since.take() else { return };
        let span = now.since(since);
        if clock_stood {
            target.clock.miss(span);
        }
        let mut leases = Vec::new();
        for (key, lease) in &mut target.kernel.held {
            lease.until = lease.until.map(|until| until + span);
            leases.extend(lease.until.map(|until| (*key, until)));
        }
        for (key, until) in leases {
            self.at(until, Event::LeaseEnds { host, key });
        }
        if self.hosts[host.index()].is_running() {
            if !clock_stood {
                self.note_stall(host, span);
            }
            self.turn(host, Input::Wake);
        }
        for (run, input) in std::mem::take(&mut self.host(host).frozen_inputs) {
            if self.hosts[host.index()].run == run {
                self.deliver(host, input);
            }
        }
    }
}
