//! Faults: what goes wrong in a run, drawn from its seed, and how each one ends.
//!
//! In: the seed (which kinds, how often), time. Out: calls on the world's parts.
//! Must not: leave anything broken after `heal_all`.
//! Read first: style section 4. Swarm: a run has some of the kinds only, so that every mixture of
//! a few faults comes about, and not always the same one of all.

use std::fmt;
use std::time::Duration;

use tandem::node::Input;
use tandem::time::{Instant, Rng};
use tandem::wire::{HostId, LinkId, Role};

use super::mysqld::{APPLY_RATE, Life, SHIP_RATE, STUCK};
use super::wire::{CLIENT, Noise};
use super::world::{Event, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    PowerLoss,
    PowerLossOfBoth,
    NodeCrash,
    NodeCrashLoop,
    Stall,
    Freeze,
    DatabaseCrash,
    DatabaseHang,
    DiskFull,
    SlowApply,
    SlowShip,
    LongWrite,
    Carrier,
    CarrierOfBothLinks,
    Cut,
    CutBothLinks,
    OneWay,
    ClientCut,
    Filter,
    Noise,
    Switchover,
    Terminate,
    Force,
    Hold,
    Maintenance,
    PhpDown,
    /// The node is late again and again.
    Sluggish,
    /// Nothing passes to or from the host, on either link.
    CutOff,
}

pub const KINDS: [Kind; 28] = [
    Kind::PowerLoss,
    Kind::PowerLossOfBoth,
    Kind::NodeCrash,
    Kind::NodeCrashLoop,
    Kind::Stall,
    Kind::Freeze,
    Kind::DatabaseCrash,
    Kind::DatabaseHang,
    Kind::DiskFull,
    Kind::SlowApply,
    Kind::SlowShip,
    Kind::LongWrite,
    Kind::Carrier,
    Kind::CarrierOfBothLinks,
    Kind::Cut,
    Kind::CutBothLinks,
    Kind::OneWay,
    Kind::ClientCut,
    Kind::Filter,
    Kind::Noise,
    Kind::Switchover,
    Kind::Terminate,
    Kind::Force,
    Kind::Hold,
    Kind::Maintenance,
    Kind::PhpDown,
    Kind::Sluggish,
    Kind::CutOff,
];

const BROKEN_HANDOVERS: [Kind; 7] = [
    Kind::Switchover,
    Kind::Switchover,
    Kind::CutBothLinks,
    Kind::OneWay,
    Kind::LongWrite,
    Kind::Stall,
    Kind::SlowApply,
];

const DIVERGENCE: [Kind; 5] =
    [Kind::Force, Kind::Stall, Kind::OneWay, Kind::CutBothLinks, Kind::PowerLoss];

const SOURCE_DEATHS: [Kind; 4] = [Kind::PowerLoss, Kind::PowerLoss, Kind::Cut, Kind::SlowShip];

/// One fault in progress; `number` tells two of a kind apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    pub host: HostId,
    pub link: LinkId,
    pub number: u64,
    /// The kind's own choice, such as whether a clock sees a freeze.
    pub twist: bool,
}

/// What the seed decided for a run.
#[derive(Debug)]
pub struct Plan {
    /// Faults have their own numbers, so that the packets of a run do not move them.
    pub rng: Rng,
    pub kinds: Vec<Kind>,
    pub mean_pause: Duration,
    pub mean_length: Duration,
    pub boot_delays: [Duration; 2],
    /// The inside link is one cable: it loses carrier at both ends.
    pub is_inside_a_cable: bool,
    /// One role change in this many is followed by a fault.
    pub bad_moments: u64,
    /// A source loses its power in the middle of a commit.
    pub dies_in_commits: bool,
    /// Statements that take long are killed, also where they wait for the replica.
    pub has_killers: bool,
    /// And the replica's database is killed at that moment.
    pub replica_dies_too: bool,
    /// The operator mends refused hosts.
    pub reseeds: bool,
    /// The applier is busy now and then.
    pub has_long_transactions: bool,
    pub calm_before: Duration,
    pub heal_after: Duration,
    pub end_after: Duration,
    pub active: Vec<Fault>,
    pub count: u64,
    pub is_healed: bool,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cable = if self.is_inside_a_cable { "cable" } else { "switch" };
        write!(
            f,
            "{:?}, every {:?} for {:?}, inside is a {cable}",
            self.kinds, self.mean_pause, self.mean_length
        )
    }
}

/// After healing: this much to come together, then as much again without a change.
pub const CONVERGE_LIMIT: Duration = Duration::from_secs(90);
pub const CALM: Duration = Duration::from_secs(60);

impl Plan {
    /// Every twentieth seed has planned switchovers only: nothing may be lost in it.
    pub fn draw(seed: u64, rng: &mut Rng) -> Self {
        let mut kinds: Vec<Kind> = Vec::new();
        let wanted = 1 + rng.below(5);
        while (kinds.len() as u64) < wanted {
            let kind = KINDS[usize::try_from(rng.below(KINDS.len() as u64)).unwrap()];
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        // Mixtures that rare cells of the table need.
        match seed % 20 {
            0 => kinds = vec![Kind::Switchover],
            7 => kinds = vec![Kind::Filter, Kind::Noise],
            3 | 13 => kinds = BROKEN_HANDOVERS.to_vec(),
            9 => kinds = DIVERGENCE.to_vec(),
            4 => kinds = SOURCE_DEATHS.to_vec(),
            _ => {}
        }
        let seconds = |rng: &mut Rng, low, span| Duration::from_secs(low + rng.below(span));
        let apart = if rng.below(4) == 0 { 40 } else { 2 };
        let heal_after = seconds(rng, 90, 90);
        Self {
            rng: Rng::new(rng.next_u64()),
            kinds,
            mean_pause: seconds(rng, 5, 25),
            mean_length: seconds(rng, 1, 20),
            boot_delays: [0, 1].map(|_| Duration::from_millis(rng.below(apart * 1000))),
            is_inside_a_cable: rng.below(2) == 0,
            bad_moments: if matches!(seed % 20, 3 | 9 | 13) { 1 } else { 3 },
            dies_in_commits: seed % 3 == 1 || seed % 20 == 4,
            has_killers: seed % 5 == 2,
            replica_dies_too: seed % 6 == 1,
            reseeds: rng.below(2) == 0,
            has_long_transactions: rng.below(3) == 0,
            calm_before: seconds(rng, 5, 40),
            heal_after,
            end_after: heal_after + CONVERGE_LIMIT + CALM,
            active: Vec::new(),
            count: 0,
            is_healed: false,
        }
    }
}

/// Between half and twice the mean.
fn around(rng: &mut Rng, mean: Duration) -> Duration {
    let mean = u64::try_from(mean.as_millis()).unwrap();
    Duration::from_millis(mean / 2 + rng.below(mean * 3 / 2))
}

impl World {
    pub fn next_fault(&mut self) {
        if self.plan.is_healed {
            return;
        }
        // Some come on the heels of another.
        let pause = if self.plan.rng.below(4) == 0 {
            Duration::from_millis(self.plan.rng.below(3000))
        } else {
            around(&mut self.plan.rng, self.plan.mean_pause)
        };
        self.after(pause, Event::NextFault);
        self.draw_fault();
    }

    /// A role changes: a bad moment for the next fault, within microseconds or seconds.
    pub fn role_changed(&mut self, host: HostId, to: Role) {
        if to == Role::Refused && self.plan.reseeds {
            let delay = Duration::from_millis(2000 + self.plan.rng.below(20_000));
            self.after(delay, Event::Reseed { host });
        }
        if self.plan.is_healed || self.now < Instant::ZERO + self.plan.calm_before {
            return;
        }
        if self.plan.rng.below(self.plan.bad_moments) == 0 {
            let delay = Duration::from_micros(1 << self.plan.rng.below(22));
            self.after(delay, Event::BadMoment);
        }
    }

    /// The refused host's data are saved elsewhere and replaced by a copy of the Active's.
    pub fn reseed(&mut self, host: HostId) {
        let [first, second] = &mut self.hosts;
        let (own, other) = match host {
            HostId::First => (first, second),
            HostId::Second => (second, first),
        };
        let are_up = own.database.life == Life::Up && other.database.life == Life::Up;
        if own.role == Role::Refused && other.role == Role::Active && are_up {
            own.database.copy(&other.database);
            let kept = own.database.has.clone();
            self.client.acknowledged.retain(|_, (gtid, _)| kept.contains(gtid));
            self.note(format!("!! reseeded ({})", self.name(host)));
        }
    }

    pub fn draw_fault(&mut self) {
        if self.plan.is_healed {
            return;
        }
        let index = self.plan.rng.below(self.plan.kinds.len() as u64);
        let kind = self.plan.kinds[usize::try_from(index).unwrap()];
        self.plan.count += 1;
        let fault = Fault {
            kind,
            host: HostId::ALL[usize::try_from(self.plan.rng.below(2)).unwrap()],
            link: LinkId::ALL[usize::try_from(self.plan.rng.below(2)).unwrap()],
            number: self.plan.count,
            twist: self.plan.rng.below(2) == 0,
        };
        self.begin_fault(fault);
    }

    fn begin_fault(&mut self, fault: Fault) {
        let Fault { kind, host, link, twist, .. } = fault;
        let twisted = if twist { ", twisted" } else { "" };
        let name = self.name(host).to_owned();
        self.note(format!("!! {kind:?} ({name}, {link}{twisted})"));
        let mut length = around(&mut self.plan.rng, self.plan.mean_length);
        if self.plan.rng.below(8) == 0 {
            length += Duration::from_secs(30);
        }
        let target = self.host(host);
        match kind {
            Kind::PowerLoss => self.lose_power_soon(host),
            Kind::PowerLossOfBoth => HostId::ALL.into_iter().for_each(|host| self.lose_power(host)),
            Kind::NodeCrash | Kind::NodeCrashLoop => {
                self.crash_node(host);
                if kind == Kind::NodeCrash {
                    return;
                }
                length = Duration::from_millis(800 + self.plan.rng.below(2000));
            }
            Kind::Stall => self.stall(host),
            Kind::Freeze => self.freeze(host),
            Kind::DatabaseCrash => target.database.stop(),
            Kind::DatabaseHang if target.database.life == Life::Up => {
                target.database.life = Life::Hung;
            }
            Kind::DatabaseHang => return,
            Kind::DiskFull => {
                target.database.is_full = true;
                target.database.is_stubborn = twist;
                length = length.max(Duration::from_secs(20));
            }
            Kind::PhpDown => {
                self.set_php(host, true);
                length += Duration::from_secs(12);
            }
            Kind::Sluggish => {
                length = length.max(Duration::from_secs(40));
                self.after(Duration::ZERO, Event::Hiccup(fault));
            }
            Kind::SlowApply => target.database.apply_rate = if twist { 0 } else { 100 },
            Kind::SlowShip => target.database.ship_rate = usize::from(twist),
            Kind::LongWrite if target.database.is_writable() => {
                target.database.writer = Some(100 + fault.number);
            }
            Kind::LongWrite => return,
            Kind::Carrier
            | Kind::CarrierOfBothLinks
            | Kind::Cut
            | Kind::CutBothLinks
            | Kind::OneWay
            | Kind::ClientCut
            | Kind::CutOff
            | Kind::Filter
            | Kind::Noise => self.begin_network_fault(fault),
            Kind::Switchover | Kind::Force => {
                self.operate(host, kind, fault.number);
                return;
            }
            Kind::Hold | Kind::Maintenance => self.operate(host, kind, fault.number),
            Kind::Terminate => self.terminate(host),
        }
        self.plan.active.push(fault);
        self.after(length, Event::EndFault(fault));
    }

    fn terminate(&mut self, host: HostId) {
        self.deliver(host, Input::Terminate);
        let run = self.hosts[host.index()].run;
        if let Some(process) = &mut self.host(host).process {
            process.is_terminating = true;
            self.after(Duration::from_secs(20), Event::KillLeaver { host, run });
        }
    }

    fn begin_network_fault(&mut self, fault: Fault) {
        let Fault { kind, host, link, twist, .. } = fault;
        let (one, other) = (host.index(), host.other().index());
        match kind {
            Kind::Carrier => self.unplug(host, link),
            Kind::CarrierOfBothLinks => {
                LinkId::ALL.into_iter().for_each(|link| self.unplug(host, link));
            }
            Kind::Cut | Kind::CutBothLinks => {
                for cut in LinkId::ALL {
                    if cut == link || kind == Kind::CutBothLinks {
                        self.links[cut.index()].cut[one][other] = true;
                        self.links[cut.index()].cut[other][one] = true;
                    }
                }
            }
            Kind::OneWay => {
                for cut in LinkId::ALL {
                    if cut == link || twist {
                        self.links[cut.index()].cut[one][other] = true;
                    }
                }
            }
            Kind::ClientCut => {
                let outside = &mut self.links[LinkId::Outside.index()];
                outside.cut[CLIENT][one] = true;
                outside.cut[one][CLIENT] = !twist;
            }
            Kind::CutOff => {
                for cut in &mut self.links {
                    for port in (0..=CLIENT).filter(|port| *port != one) {
                        cut.cut[port][one] = true;
                        cut.cut[one][port] = true;
                    }
                }
            }
            Kind::Filter => self.links.iter_mut().for_each(|link| link.has_filter = true),
            _ => {
                let noise = Noise {
                    lost: self.plan.rng.below(250),
                    doubled: self.plan.rng.below(100),
                    bent: self.plan.rng.below(100),
                    jitter: Duration::from_millis(self.plan.rng.below(60)),
                };
                self.links[link.index()].noise = noise;
                if twist {
                    self.links.iter_mut().for_each(|link| link.noise = noise);
                }
            }
        }
    }

    fn unplug(&mut self, host: HostId, link: LinkId) {
        self.set_carrier(host, link, false);
        if link == LinkId::Inside && self.plan.is_inside_a_cable {
            self.set_carrier(host.other(), link, false);
        }
    }

    pub fn end_fault(&mut self, fault: Fault) {
        if !self.plan.active.contains(&fault) {
            return;
        }
        self.plan.active.retain(|active| *active != fault);
        let name = self.name(fault.host).to_owned();
        self.note(format!("!! over: {:?} ({name})", fault.kind));
        let Fault { kind, host, link, twist, .. } = fault;
        match kind {
            Kind::PowerLoss => self.restore_power(host),
            Kind::PowerLossOfBoth => {
                for host in HostId::ALL {
                    let delay = Duration::from_millis(self.plan.rng.below(8000));
                    self.restore_power_after(host, delay);
                }
            }
            Kind::NodeCrashLoop => {
                self.crash_node(host);
                if twist && self.hosts[host.index()].process.is_none() {
                    let again = Fault { twist: false, ..fault };
                    self.plan.active.push(again);
                    self.after(Duration::from_millis(1200), Event::EndFault(again));
                }
            }
            Kind::Stall => self.go_on(host),
            Kind::Freeze => self.thaw(host, twist),
            Kind::DatabaseCrash => {
                let guard_run = self.hosts[host.index()].guard.run;
                self.start_mysqld(host, guard_run);
            }
            Kind::DatabaseHang => self.unhang(host),
            Kind::DiskFull => self.free_disk(host),
            Kind::SlowApply => self.host(host).database.apply_rate = APPLY_RATE,
            Kind::SlowShip => self.host(host).database.ship_rate = SHIP_RATE,
            Kind::LongWrite => self.end_long_write(host, 100 + fault.number),
            Kind::Terminate => self.start_daemon(host),
            Kind::Carrier
            | Kind::CarrierOfBothLinks
            | Kind::Cut
            | Kind::CutBothLinks
            | Kind::OneWay
            | Kind::ClientCut
            | Kind::CutOff
            | Kind::Filter
            | Kind::Noise => self.mend_network(host, link, kind),
            Kind::Hold | Kind::Maintenance => self.lift_orders(),
            Kind::PhpDown => self.set_php(host, false),
            Kind::Sluggish => self.go_on(host),
            Kind::NodeCrash | Kind::Switchover | Kind::Force => {}
        }
    }

    /// The node does not run for most of a second, and does so again some seconds later.
    pub fn hiccup(&mut self, fault: Fault) {
        let host = fault.host;
        if !self.plan.active.contains(&fault) {
            return;
        }
        let (span, pause) = (600 + self.plan.rng.below(700), 4000 + self.plan.rng.below(4000));
        self.stall(host);
        self.after(Duration::from_millis(span), Event::GoOn { host });
        self.after(Duration::from_millis(span + pause), Event::Hiccup(fault));
    }

    fn free_disk(&mut self, host: HostId) {
        let database = &mut self.host(host).database;
        database.is_full = false;
        database.writer = database.writer.filter(|writer| *writer != STUCK);
    }

    /// The long write commits by itself.
    fn end_long_write(&mut self, host: HostId, writer: u64) {
        let now = self.now;
        let database = &mut self.host(host).database;
        if database.writer == Some(writer) {
            database.writer = None;
            if database.is_writable() {
                database.enter(now, writer, super::mysqld::Payload::Grant);
            }
        }
    }

    fn restore_power(&mut self, host: HostId) {
        self.restore_power_after(host, Duration::ZERO);
    }

    fn restore_power_after(&mut self, host: HostId, delay: Duration) {
        if self.hosts[host.index()].is_powered {
            return;
        }
        let other_is_on = self.hosts[host.other().index()].is_powered;
        for link in LinkId::ALL {
            let needs_other = link == LinkId::Inside && self.plan.is_inside_a_cable;
            self.links[link.index()].carrier[host.index()] = other_is_on || !needs_other;
        }
        if other_is_on && self.plan.is_inside_a_cable {
            self.set_carrier(host.other(), LinkId::Inside, true);
        }
        self.power_on(host, delay);
    }

    fn mend_network(&mut self, host: HostId, link: LinkId, kind: Kind) {
        let is_noise = kind == Kind::Noise;
        for (index, mended) in LinkId::ALL.into_iter().enumerate() {
            if kind == Kind::Filter {
                self.links[index].has_filter = false;
            } else if is_noise {
                self.links[index].noise = Noise::default();
            } else {
                self.links[index].cut = Default::default();
            }
            if kind == Kind::CarrierOfBothLinks || (kind == Kind::Carrier && mended == link) {
                self.plug(host, mended);
            }
        }
    }

    fn plug(&mut self, host: HostId, link: LinkId) {
        let is_cable = link == LinkId::Inside && self.plan.is_inside_a_cable;
        let is_on = |host: HostId| self.hosts[host.index()].is_powered;
        let both_on = HostId::ALL.into_iter().all(is_on);
        if is_on(host) && (both_on || !is_cable) {
            self.set_carrier(host, link, true);
        }
        if is_cable && both_on {
            self.set_carrier(host.other(), link, true);
        }
    }

    /// Everything is mended at once; the daemons have to do the rest.
    pub fn heal_all(&mut self) {
        self.note("!! everything is healed".into());
        self.plan.is_healed = true;
        for fault in self.plan.active.clone() {
            self.end_fault(fault);
        }
        for host in HostId::ALL {
            self.restore_power(host);
            self.thaw(host, false);
            self.go_on(host);
            let guard_run = self.hosts[host.index()].guard.run;
            if self.hosts[host.index()].database.run > 0 {
                self.start_mysqld(host, guard_run);
            }
            self.unhang(host);
            self.host(host).database.writer = None;
            self.host(host).database.apply_rate = APPLY_RATE;
            self.host(host).database.ship_rate = SHIP_RATE;
            self.start_daemon(host);
        }
        self.lift_orders();
        for link in LinkId::ALL {
            self.links[link.index()].noise = Noise::default();
            self.links[link.index()].cut = Default::default();
            self.links[link.index()].has_filter = false;
            HostId::ALL.into_iter().for_each(|host| self.plug(host, link));
        }
    }
}
