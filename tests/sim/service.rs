//! The service goes on: writes are acknowledged, and every host's statements find the source.
//!
//! In: samples. Out: `World::fail`. Must not: change anything but its own counters.

use std::time::Duration;

use tandem::routes::Flow;
use tandem::time::Instant;
use tandem::vrrp::router::LISTEN_MAX;
use tandem::wire::{HostId, Role};

use super::checks::longer;
use super::mysqld::{APPLY_RATE, Life, SHIP_RATE};
use super::wire::CLIENT;
use super::world::World;

#[derive(Debug, Default)]
pub struct Service {
    healthy_since: [Option<Instant>; 2],
    /// Since when both hosts are whole under a standing order.
    sound_since: Option<Instant>,
    /// By host: since when it sends nothing to a source that it hears; since when its database
    /// lives.
    held_since: [Option<Instant>; 2],
    alive_since: [Option<Instant>; 2],
}

/// Four beacons.
const HELD_MAX: Duration = Duration::from_millis(400);
/// Until its own node has run and looked, a database that hung is one that takes nothing.
const LOOK_MAX: Duration = Duration::from_secs(3);
/// With one host whole, how long no write may be acknowledged: the longest wait is for a link that
/// may be blocked by spanning tree (`LISTEN_MAX`), then the election.
const OUTAGE_MAX: Duration = Duration::from_secs(LISTEN_MAX.as_secs() + 10);

impl World {
    /// L4: a host that is whole, and was standby or serving, keeps the service up whatever the
    /// other host does: writes are acknowledged again within `OUTAGE_MAX`. Not a standby that lacks
    /// what was acknowledged long ago: by `old_writes_kept` it waits for the source.
    pub fn served(&mut self) {
        let is_network_whole = self.is_network_whole();
        let (mut sound, mut sources) = (0, 0);
        let mut worst = None;
        for host in HostId::ALL {
            let target = &self.hosts[host.index()];
            let carrier = self.links.iter().all(|link| link.carrier[host.index()]);
            let database = &target.database;
            let is_sound = is_network_whole
                && carrier
                && target.is_running()
                && database.life == Life::Up
                && !target.data.is_php_down
                && !database.is_full
                && (database.apply_rate, database.ship_rate) == (APPLY_RATE, SHIP_RATE)
                && !self.may_wait();
            let is_whole = is_sound
                && !self.are_ordered()
                && !self.checks.waits_rightly[host.index()]
                && !matches!(target.role, Role::Joining | Role::Refused);
            // Orders keep a role from being taken, not the last source from going on with its own.
            let may_go_on = target.disk.was_source && !target.disk.orders.in_maintenance;
            sound += usize::from(is_sound);
            sources += usize::from(may_go_on && target.role != Role::Refused);
            let since =
                longer(&mut self.checks.service.healthy_since[host.index()], self.now, is_whole);
            if since > OUTAGE_MAX {
                worst = Some(host);
            }
        }
        let goes_on = self.are_ordered() && sound == 2 && sources > 0;
        let outage = self.now.since(self.client.last_acknowledged_at);
        let since = longer(&mut self.checks.service.sound_since, self.now, goes_on);
        if since > OUTAGE_MAX && outage > OUTAGE_MAX && self.client.is_writing {
            self.fail("L4 served", format!("no write for {outage:?} with both hosts whole"));
        }
        if let Some(host) = worst
            && outage > OUTAGE_MAX
            && self.client.is_writing
        {
            let name = self.name(host).to_owned();
            let role = self.hosts[host.index()].role;
            let what = format!("no write for {outage:?} although {name} ({role}) is whole");
            self.fail("L4 served", what);
        }
    }

    /// L6: whatever else a host is busy with, what its programs ask goes to the source that serves:
    /// PHP runs on both.
    pub fn statements_find_the_source(&mut self) {
        let is_whole = self.is_network_whole()
            && self.links.iter().all(|link| link.carrier.iter().all(|is_up| *is_up));
        for host in HostId::ALL {
            let source = host.other();
            let [own, other] = [host, source].map(|host| &self.hosts[host.index()]);
            let routes = &own.data.routes;
            let is_alive = other.is_running() && other.database.life == Life::Up;
            let alive =
                longer(&mut self.checks.service.alive_since[source.index()], self.now, is_alive);
            let is_wrong = is_whole
                && alive > LOOK_MAX
                && own.is_running()
                && matches!(own.role, Role::Joining | Role::Standby | Role::Refused)
                && own.disk.epoch <= other.disk.epoch
                && other.role == Role::Active
                && self.takes_writes(source)
                && (routes.writes, routes.source) != (Flow::Flowing, Some(source));
            let since =
                longer(&mut self.checks.service.held_since[host.index()], self.now, is_wrong);
            if since > HELD_MAX {
                let what =
                    format!("{} holds what {} would take", self.name(host), self.name(source));
                self.fail("L6 statements_find_the_source", format!("{what}, for {since:?}"));
            }
        }
    }

    fn is_network_whole(&self) -> bool {
        self.links.iter().all(|link| {
            link.cut == [[false; 3]; 3]
                && !link.has_filter
                && link.noise.lost == 0
                && link.carrier[CLIENT]
        })
    }
}
