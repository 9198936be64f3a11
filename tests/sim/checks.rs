//! The invariants, one function each, named as in style section 4.
//!
//! In: the world, at every output, every turn, every sample. Out: `World::fail`.
//! Must not: change anything but its own counters.
//! Read first: style section 4. S holds at every step, L after healing, D over runs (`main`).
//!
//! Weaker than the ideal in two points. Without a witness S1 judges only while frames pass in both
//! directions. S2 allows writes that one host alone acknowledged, and that were young when their
//! host was lost, to be missing on the Active while that host is Refused (or is still away).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tandem::config::Config;
use tandem::console::note::Note;
use tandem::net::arp::Arp;
use tandem::node::Output;
use tandem::repl::{Dialect, Rows, ServerError};
use tandem::routes::Flow;
use tandem::time::Instant;
use tandem::vrrp::packet::{Expected, Received, password_data};
use tandem::wire::{DeviceId, HostId, LinkId, Role};

use super::faults::{CALM, CONVERGE_LIMIT, Kind};
use super::kernel::mac_of;
use super::mysqld::{Gtid, Life};
use super::promises::Promises;
use super::service::Service;
use super::world::{Event, World};

#[derive(Debug, Default)]
pub struct Checks {
    two_writers_since: Option<Instant>,
    two_holders_since: Option<Instant>,
    dead_holder_since: [Option<Instant>; 2],
    astray_since: [Option<Instant>; 2],
    cut_off_since: [Option<Instant>; 2],
    /// Since when a host sees neither peer nor witness, and when it had not for long.
    alone_since: [Option<Instant>; 2],
    cut_off_at: [Option<Instant>; 2],
    /// By host: when a beacon of the other came in.
    pub heard_peer_at: [Option<Instant>; 2],
    /// By host: it lacks what was acknowledged long ago, and nobody has served for a while.
    pub waits_rightly: [bool; 2],
    errant_since: [Option<Instant>; 2],
    hosts: [OfHost; 2],
    healed_at: Option<Instant>,
    pub last_operated_at: Option<Instant>,
    pub role_changes: u32,
    samples: u64,
    pub promises: Promises,
    /// Rows that were taken back without an operator's word.
    pub taken_back: BTreeSet<u64>,
    pub service: Service,
}

#[derive(Debug, Default)]
struct OfHost {
    /// In this turn: a virtual address came, an announcement went.
    has_gained: bool,
    has_announced: bool,
    /// Whether this run of the node has advertised yet.
    has_advertised: bool,
    /// This run of the node has opened the database itself.
    has_opened: bool,
    /// It was stalled while it served, and has not been elected since.
    is_stale: bool,
    /// Its last promotion was a planned one.
    took_by_hand: bool,
    was_refused_for: Option<String>,
}

/// Demotion: hearing the other (a few beacons, some lost), closing routes.
const TWO_WRITERS_MAX: Duration = Duration::from_secs(3);
/// Where ARP alone passes: a second until it is asked, claims for longer than one may be a mistake.
const TWO_CLAIMANTS_MAX: Duration = Duration::from_millis(4500);
/// The lease, and a beacon to yield to.
const TWO_HOLDERS_MAX: Duration = Duration::from_secs(6);
/// The lease, as late as the kernel is.
const DEAD_HOLDER_MAX: Duration = Duration::from_millis(2500);
/// Four beacons, eight questions; a little before a standby takes over.
const CUT_OFF_MAX: Duration = Duration::from_millis(2400);
const LISTENS_MIN: Duration = Duration::from_secs(2);
const ASTRAY_MAX: Duration = Duration::from_secs(10);
const ERRANT_MAX: Duration = Duration::from_secs(5);
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

impl World {
    pub fn sample(&mut self) {
        self.after(SAMPLE_INTERVAL, Event::Sample);
        self.checks.samples += 1;
        self.note_lives();
        self.one_writer();
        self.one_holder();
        self.no_dead_holder();
        self.cut_off_yields();
        self.served();
        self.statements_find_the_source();
        if self.checks.samples.is_multiple_of(20) {
            self.note_waiting();
            self.writes_go_to_writer();
            self.never_standby_while_errant();
        }
        if self.plan.is_healed {
            let healed_at = *self.checks.healed_at.get_or_insert(self.now);
            let end = healed_at + CONVERGE_LIMIT + CALM;
            self.client.is_writing = self.now + Duration::from_secs(5) < end;
        }
    }

    /// Frames pass in both directions, on whatever link: behind a filter ARP does, and two that
    /// hold the addresses see each other's claims.
    fn are_connected(&self) -> bool {
        let passes = |a: usize, b: usize| self.links.iter().any(|link| link.passes(a, b));
        passes(0, 1) && passes(1, 0)
    }

    fn holds(&self, host: HostId) -> bool {
        let vip = self.config.link(LinkId::Outside).vip[0].address.address;
        let target = &self.hosts[host.index()];
        target.is_awake()
            && target.kernel.holds(LinkId::Outside, vip)
            && self.links[LinkId::Outside.index()].carrier[host.index()]
    }

    pub fn takes_writes(&self, host: HostId) -> bool {
        let target = &self.hosts[host.index()];
        let routes = &target.data.routes;
        target.is_running()
            && routes.writes == Flow::Flowing
            && routes.source == Some(host)
            && target.database.is_writable()
    }

    /// S1: never two reachable holders with writes flowing to their own databases, for longer than
    /// it takes to hear each other. A pair that is cut apart has no witness and may have two.
    fn one_writer(&mut self) {
        let is_wrong = self.are_connected()
            && HostId::ALL.into_iter().all(|host| self.holds(host) && self.takes_writes(host));
        let since = longer(&mut self.checks.two_writers_since, self.now, is_wrong);
        let is_filtered = self.links.iter().all(|link| link.has_filter);
        let limit = if is_filtered { TWO_CLAIMANTS_MAX } else { TWO_WRITERS_MAX };
        if since > limit {
            self.fail("S1 one_writer", format!("two writable holders for {since:?}"));
        }
    }

    /// S1, the addresses alone: two holders only as long as a lease lasts.
    fn one_holder(&mut self) {
        let is_wrong = self.are_connected() && HostId::ALL.into_iter().all(|host| self.holds(host));
        let since = longer(&mut self.checks.two_holders_since, self.now, is_wrong);
        if since > TWO_HOLDERS_MAX {
            self.fail("S1 one_holder", format!("two holders for {since:?}"));
        }
    }

    /// S1, the lease and the will: addresses do not outlive a daemon that is dead or stalled.
    fn no_dead_holder(&mut self) {
        for host in HostId::ALL {
            let is_wrong = self.holds(host) && !self.hosts[host.index()].is_running();
            let since =
                longer(&mut self.checks.dead_holder_since[host.index()], self.now, is_wrong);
            if since > DEAD_HOLDER_MAX {
                let what = format!("{} holds an address for {since:?}", self.name(host));
                self.fail("S1 no_dead_holder", what);
            }
        }
    }

    /// S1, with a witness: whoever sees neither it nor the peer does not go on, and does not begin.
    /// The operator may force it to.
    fn cut_off_yields(&mut self) {
        let is_forced = self.plan.kinds.contains(&Kind::Force);
        for host in HostId::ALL {
            let [own, other] = [host.index(), host.other().index()];
            // A daemon that ran between two samples and spoke was heard.
            let heard_at = self.checks.heard_peer_at[own];
            let is_heard = self.links.iter().any(|link| link.passes(other, own))
                && self.hosts[other].is_running()
                || heard_at.is_some_and(|at| self.now.since(at) <= SAMPLE_INTERVAL);
            let is_cut_off = !self.config.peer.witnesses.is_empty()
                && !self.sees_witness(host)
                && !is_heard
                && !is_forced;
            let alone_since = &mut self.checks.alone_since[own];
            if longer(alone_since, self.now, is_cut_off) > CUT_OFF_MAX {
                self.checks.cut_off_at[own] = Some(self.now);
            }
            let is_wrong =
                is_cut_off && !self.hosts[own].kernel.held.is_empty() && self.takes_writes(host);
            let since = longer(&mut self.checks.cut_off_since[own], self.now, is_wrong);
            if since > CUT_OFF_MAX {
                let what = format!("{} is cut off and serves for {since:?}", self.name(host));
                self.fail("S1 cut_off_yields", what);
            }
        }
    }

    /// S1: a host that was cut off hears its peer, if there is one, before it takes silence for
    /// death: what it did not hear meanwhile says nothing.
    fn listens_after_a_cut(&mut self, host: HostId, why: &str) {
        let by_silence = why.contains("silent") || why.contains("alone");
        let at = self.checks.cut_off_at[host.index()].filter(|_| self.sees_witness(host));
        if by_silence && at.is_some_and(|at| self.now.since(at) < LISTENS_MIN) {
            let what = format!("{} takes over as it comes back", self.name(host));
            self.fail("S1 listens_after_a_cut", what);
        }
    }

    /// S5: a host whose node runs does not go on sending writes to a database that refuses them.
    fn writes_go_to_writer(&mut self) {
        for host in HostId::ALL {
            let target = &self.hosts[host.index()];
            let is_wrong = target.is_running()
                && target.data.routes.writes == Flow::Flowing
                && target.data.routes.source.is_some_and(|source| {
                    let server = &self.hosts[source.index()];
                    let refuses = server.database.life == Life::Up && server.database.read_only;
                    refuses && server.is_running() && self.reaches_database(host, source)
                })
                && self.are_connected();
            let since = longer(&mut self.checks.astray_since[host.index()], self.now, is_wrong);
            if since > ASTRAY_MAX {
                let what = format!("{} sends to a read-only source for {since:?}", self.name(host));
                self.fail("S5 writes_go_to_writer", what);
            }
        }
    }

    /// S2, while it runs: no Standby has what the Active lacks.
    fn never_standby_while_errant(&mut self) {
        for host in HostId::ALL {
            let [own, other] = [host, host.other()].map(|host| &self.hosts[host.index()]);
            let is_wrong = own.is_running()
                && other.is_running()
                && own.role == Role::Standby
                && other.role == Role::Active
                && self.are_connected()
                && own.database.has.difference(&other.database.has).next().is_some();
            let since = longer(&mut self.checks.errant_since[host.index()], self.now, is_wrong);
            if since > ERRANT_MAX {
                let what = format!("{} is standby and errant for {since:?}", self.name(host));
                self.fail("S2 acks_kept_or_reported", what);
            }
        }
    }

    // ---- at every output -------------------------------------------------------------------

    pub fn note_start(&mut self, host: HostId) {
        self.checks.hosts[host.index()] = OfHost::default();
    }

    pub fn note_gain(&mut self, host: HostId) {
        self.checks.hosts[host.index()].has_gained = true;
    }

    /// The process did not run for `span`, as its own clock saw it.
    pub fn note_stall(&mut self, host: HostId, span: Duration) {
        let role = self.hosts[host.index()].role;
        let served = matches!(role, Role::Promoting | Role::Active | Role::Demoting);
        if served && span > Duration::from_millis(1600) {
            self.checks.hosts[host.index()].is_stale = true;
        }
    }

    pub fn check_output(&mut self, host: HostId, output: &Output) {
        match output {
            Output::SendVrrp { link, datagram } => {
                self.clean_restart(host, *link, &datagram.bytes);
            }
            Output::SendFrame { device, frame } => self.announced(host, *device, frame),
            Output::Note(note) => self.note_seen(host, note),
            Output::SendBeacon { .. }
            | Output::SendEcho { .. }
            | Output::Netlink { .. }
            | Output::Query { .. }
            | Output::Probe { .. }
            | Output::EndDatabase
            | Output::SaveErrant { .. }
            | Output::TakeBack { .. }
            | Output::CopyDatabase
            | Output::TakeUpdate { .. }
            | Output::Routes(_)
            | Output::Persist(_)
            | Output::Will(_)
            | Output::Reply { .. }
            | Output::Reload { .. }
            | Output::Exit => {}
        }
    }

    /// S7: no address and no writable database before a run's first advertisement as Master; but a
    /// database that hung until just now, or on a full disk, cannot be closed, and an entitled host
    /// does not wait for it.
    /// S8: no such advertisement between a stall and the next election.
    fn clean_restart(&mut self, host: HostId, link: LinkId, datagram: &[u8]) {
        let expected = expected(&self.config, link);
        let Ok(Received { advertisement, .. }) = Received::parse(datagram, &expected) else {
            return self.fail("model", "an advertisement that does not parse".into());
        };
        if advertisement.priority == 0 {
            return;
        }
        if self.checks.hosts[host.index()].is_stale {
            self.fail("S8 no_stale_master", format!("{} advertises", self.name(host)));
        }
        let had = std::mem::replace(&mut self.checks.hosts[host.index()].has_advertised, true);
        let has_opened = self.checks.hosts[host.index()].has_opened;
        let target = &self.hosts[host.index()];
        let answers_for = self.now.since(target.database.unhung_at);
        let could_be_closed = !target.database.is_full && answers_for > Duration::from_secs(3);
        if !had && !target.kernel.held.is_empty() {
            self.fail(
                "S7 clean_restart",
                format!("{} advertises with an old VIP", target.id.index()),
            );
        } else if !had && target.database.is_writable() && could_be_closed && !has_opened {
            self.fail("S7 clean_restart", format!("{}'s database is open", target.id.index()));
        }
    }

    /// S6: only the holder announces.
    fn announced(&mut self, host: HostId, device: DeviceId, frame: &[u8]) {
        let link = device.link().expect("the example names no further interface");
        let Some(arp) = Arp::parse(frame) else {
            return self.fail("model", "an ARP frame that does not parse".into());
        };
        let vips = &self.config.link(link).vip;
        let is_vip = vips.iter().any(|vip| vip.address.address == IpAddr::from(arp.sender));
        if !is_vip {
            return;
        }
        if !self.hosts[host.index()].kernel.holds(link, arp.sender.into()) {
            let what = format!("{} announces {} without it", self.name(host), arp.sender);
            self.fail("S6 announced", what);
        }
        if self.checks.hosts[host.index()].is_stale {
            self.fail("S8 no_stale_master", format!("{} announces", self.name(host)));
        }
        self.checks.hosts[host.index()].has_announced = true;
    }

    fn note_seen(&mut self, host: HostId, note: &Note) {
        self.durability_said(host, note);
        match note {
            Note::RoleChanged { from, to, why } => {
                self.checks.role_changes += 1;
                if *to == Role::Promoting {
                    self.orders_kept(host, why);
                    self.listens_after_a_cut(host, why);
                    self.old_writes_kept(host, *from, why);
                    let checks = &mut self.checks.hosts[host.index()];
                    checks.is_stale = false;
                    checks.took_by_hand = why.ends_with("hands over");
                }
                let taker = &self.checks.hosts[host.other().index()];
                if *from == Role::Demoting && why == "handed over" && taker.took_by_hand {
                    self.planned_loses_nothing(host);
                }
            }
            Note::Diverged { extra } => {
                self.checks.hosts[host.index()].was_refused_for = Some(extra.clone());
            }
            _ => {}
        }
    }

    /// S2, planned: when the giver lets go, the taker has everything that the giver has.
    fn planned_loses_nothing(&mut self, giver: HostId) {
        let [own, other] =
            [giver, giver.other()].map(|host| &self.hosts[host.index()].database.has);
        if let Some(gtid) = own.difference(other).next() {
            let what = format!("{gtid:?} of {} was not handed over", self.name(giver));
            self.fail("S2 planned_loses_nothing", what);
        }
    }

    /// S3 `drained_before_open`: a server that opens is no replica any more, and what it had
    /// received was applied, not thrown away.
    pub fn check_statement(&mut self, host: HostId, sql: &str, result: &Result<Rows, ServerError>) {
        if result.is_ok() {
            self.check_durability(host, sql);
        }
        let words = Dialect::Mariadb.statements();
        let database = &self.hosts[host.index()].database;
        if sql == words.forget_source && !database.dropped.is_empty() {
            let what = format!("{} received transactions dropped", database.dropped.len());
            self.fail("S3 drained_before_open", what);
        } else if sql == words.open && result.is_ok() {
            if database.replica.is_some() {
                self.fail("S3 drained_before_open", "a replica was opened for writes".into());
            }
            self.checks.hosts[host.index()].has_opened = true;
        }
    }

    /// S4 `closed_before_drop`, and the epoch on disk: what must hold after every turn.
    pub fn check_turn(&mut self, host: HostId) {
        self.checks.dead_holder_since[host.index()] = None;
        let (id, target) = (host.index(), &self.hosts[host.index()]);
        let routes = &target.data.routes;
        let flows_here = routes.writes == Flow::Flowing && routes.source == Some(host);
        if flows_here && target.role != Role::Active && target.process.is_some() {
            let what = format!("writes flow to {} while it is {}", self.name(host), target.role);
            self.fail("S4 closed_before_drop", what);
        } else if target.role == Role::Promoting && !target.disk.was_source {
            let what = format!("{} promotes with no epoch on disk", self.name(host));
            self.fail("S4 epoch_on_disk", what);
        }
        let checks = &mut self.checks.hosts[id];
        let is_silent = checks.has_gained && !checks.has_announced;
        (checks.has_gained, checks.has_announced) = (false, false);
        if is_silent {
            self.fail("S6 announced", format!("{} gained an address in silence", self.name(host)));
        }
    }

    /// S1, by what was acknowledged: only a source that may be one acknowledges.
    pub fn check_acknowledged(&mut self, source: HostId, gtid: Gtid) {
        if !self.hosts[source.index()].database.has.contains(&gtid) {
            self.fail("model", "an acknowledged transaction that is nowhere".into());
        }
        self.promise(source, gtid);
    }

    // ---- at the end ------------------------------------------------------------------------

    pub fn check_end(&mut self) {
        let active = HostId::ALL
            .into_iter()
            .filter(|host| self.hosts[host.index()].role == Role::Active)
            .collect::<Vec<_>>();
        let [active] = active[..] else {
            let roles = HostId::ALL.map(|host| self.hosts[host.index()].role.to_string());
            return self.fail("L1 converged", format!("roles are {roles:?}"));
        };
        self.converged(active);
        self.no_flap();
        self.caught_up(active);
        self.acks_kept_or_reported(active);
        self.on_both_again(active);
    }

    /// L1: one Active with the addresses and the writes; the other follows, or is Refused and says
    /// for what.
    fn converged(&mut self, active: HostId) {
        let other = active.other();
        let is_held = |host: HostId, link: LinkId| {
            let vips = &self.config.link(link).vip;
            vips.iter().all(|vip| self.hosts[host.index()].kernel.holds(link, vip.address.address))
        };
        if !LinkId::ALL.into_iter().all(|link| is_held(active, link)) {
            return self.fail("L1 converged", format!("{} lacks an address", self.name(active)));
        }
        if !self.hosts[other.index()].kernel.held.is_empty() {
            return self.fail("L1 converged", format!("{} holds an address", self.name(other)));
        }
        if !self.takes_writes(active) {
            return self.fail("L1 converged", format!("{} takes no writes", self.name(active)));
        }
        let away = self.now.since(self.client.last_acknowledged_at);
        if away > Duration::from_secs(8) {
            return self.fail("L1 converged", format!("no write for {away:?}"));
        }
        let role = self.hosts[other.index()].role;
        let is_errant = self.is_errant(other, active);
        let is_reported = self.checks.hosts[other.index()].was_refused_for.is_some();
        match (role, is_errant) {
            (Role::Standby, false) => {}
            (Role::Refused, true) if is_reported => {}
            _ => {
                let what = format!("{} is {role}, errant: {is_errant}", self.name(other));
                self.fail("L1 converged", what);
            }
        }
    }

    fn is_errant(&self, host: HostId, active: HostId) -> bool {
        let [own, other] = [host, active].map(|host| &self.hosts[host.index()].database.has);
        own.difference(other).next().is_some()
    }

    /// L2: nothing changed in the last minute.
    fn no_flap(&mut self) {
        let last = self.hosts.iter().map(|host| host.role_since).max().unwrap_or_default();
        if self.now.since(last) + Duration::from_secs(1) < CALM {
            self.fail("L2 no_flap", format!("the last role change was at {last:?}"));
        }
    }

    /// L3: the replica has everything, and the client knows where to go.
    fn caught_up(&mut self, active: HostId) {
        let [own, other] = [active, active.other()].map(|host| &self.hosts[host.index()]);
        if other.role == Role::Standby && own.database.has != other.database.has {
            let (a, b) = (own.database.has.len(), other.database.has.len());
            return self.fail("L3 caught_up", format!("{a} transactions here, {b} there"));
        }
        if self.client.view != Some(mac_of(active.index(), LinkId::Outside)) {
            self.fail("L3 caught_up", "the client's ARP view is wrong".into());
        }
    }

    /// S2: every acknowledged write is on the Active; or the host that has it is Refused, which
    /// happens only after an unplanned failover of a source that had not sent it yet (or a forced
    /// one). A run whose only events are planned switchovers loses nothing and refuses nobody.
    fn acks_kept_or_reported(&mut self, active: HostId) {
        let other = &self.hosts[active.other().index()];
        let is_planned = self.plan.kinds == [Kind::Switchover];
        let is_reported = other.role == Role::Refused && !is_planned;
        let has = &self.hosts[active.index()].database.has;
        let lost = self.client.acknowledged.iter().find(|(_, (gtid, _))| {
            !(has.contains(gtid) || is_reported && other.database.has.contains(gtid))
        });
        if let Some((row, (gtid, at))) = lost {
            let what = format!("row {row} ({gtid:?}), acknowledged at {at:?}, is gone");
            self.fail("S2 acks_kept_or_reported", what);
        } else if is_planned && other.role == Role::Refused {
            self.fail("S2 acks_kept_or_reported", "planned, and yet refused".into());
        }
    }
}

/// Since how long a condition stands.
pub fn longer(since: &mut Option<Instant>, now: Instant, holds: bool) -> Duration {
    if !holds {
        *since = None;
        return Duration::ZERO;
    }
    now.since(*since.get_or_insert(now))
}

/// What a host of the example takes as an advertisement.
fn expected(config: &Config, link: LinkId) -> Expected {
    Expected {
        version: config.vrrp.version,
        vrid: config.link(link).vrid,
        password: config.vrrp.password.as_ref().map(|secret| password_data(secret.reveal())),
        interval: config.vrrp.interval,
        own: None,
    }
}
