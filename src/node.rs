//! The control plane: composes the machines, asks `pair`'s table, publishes `Routes`.
//!
//! In: `Input`, one at a time, each with the instant. Out: `Output`, drained before the next input.
//! Must not: open a socket, read a clock, wait.
//! Read first: `pair` (the table), `seam` (inputs and outputs); then `hear` (what comes in),
//! `judge` (which event holds; `foreign` beside a keepalived, `silence` before a takeover, `orders`
//! against it), `act` (how an order is carried out; `announce` to the links), `report` (what the
//! peer, the data plane and operators are told; `status`, `trace`), `find` (what is wrong with the
//! network).
//!
//! ```text
//!  datagrams, kernel, answers, verbs -> machines -> judge -> pair::next -> act -> outputs
//! ```

mod act;
mod announce;
mod backing;
mod durable;
mod errant;
mod find;
mod foreign;
mod hear;
mod ills;
mod judge;
mod links;
mod orders;
mod report;
mod reseed;
mod seam;
mod silence;
mod status;
mod succession;
pub mod survey;
mod trace;
mod update;
mod witness;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::{Config, is_link_local};
use crate::console::finding::Finding;
use crate::console::message::Response;
use crate::console::note::Note;
use crate::limits;
use crate::net::addresses::{Addresses, Vip};
use crate::net::arp::Mac;
use crate::net::netlink;
use crate::pair::{self, Event, Role};
use crate::peer::{self, Handover, Peer};
use crate::repl;
use crate::routes::Routes;
use crate::time::{Instant, earliest};
use crate::vrrp::group::Group;
use crate::vrrp::packet::{Addresses as VrrpAddresses, Family, Version, password_data};
use crate::vrrp::router;
use crate::wire::{DeviceId, HostId, LinkId};
use links::{Device, LinkFacts};
pub use seam::{DataPlane, Input, Output, Persistent, Will};

/// How long a planned handover may take from the offer to the peer's promotion.
const HANDOVER_LIMIT: Duration = Duration::from_secs(10);
/// How long open transactions may go on before their sessions are closed.
const QUIET_LIMIT: Duration = Duration::from_millis(800);
/// How long requests in flight may go on before the addresses move.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// Between two attempts of what failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer to a probe may take. Three rounds end with the master-down timer, and begin
/// after the lease of a host that hung has run out (facts/vrrp.md 6.2 and 6.3).
const PROBE_LEAD: Duration = Duration::from_millis(120);
/// How long the election waits for a database that does not answer.
const ELECTION_PATIENCE: Duration = Duration::from_secs(10);
/// How long the source's database may be unreachable before a healthy standby takes over.
const DATABASE_PATIENCE: Duration = Duration::from_millis(1500);
/// How long the replica may trail the position at which its source closed.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(5);

/// How long a wish for the roles to be exchanged waits for a replica that is far behind: one whose
/// server was just started counts from what it last had.
const LAG_PATIENCE: Duration = Duration::from_secs(3);

/// A planned handover, or a leave, on the giving side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    None,
    /// Waiting until no statement is open on either host, at most until then.
    Quieting {
        until: Instant,
    },
    Closing,
    Offered {
        until: Instant,
    },
    Draining {
        until: Instant,
    },
}

/// The probes of one impending takeover.
#[derive(Debug, Clone, Copy, Default)]
struct Probes {
    sent_at: Option<Instant>,
    /// Somebody answered for a virtual address: whoever it is.
    answered_by: Option<(DeviceId, IpAddr, Mac)>,
    /// Rounds in a row that nobody answered, and how many there must be: one more for every round
    /// that was answered, so that a peer who keeps answering is not overtaken for a lost frame.
    unanswered: u32,
    wanted: u32,
}

#[derive(Debug)]
pub struct Node {
    config: Config,
    me: HostId,
    boot_id: u64,
    started_at: Option<Instant>,
    last_turn: Option<Instant>,

    role: Role,
    role_since: Instant,
    persistent: Persistent,
    is_terminating: bool,

    group: Group,
    peer: Peer,
    addresses: Addresses,
    engine: repl::Engine,
    devices: Vec<Device>,
    links: [LinkFacts; 2],
    netlink_sequence: u32,
    is_dumped: bool,
    lookout: witness::Lookout,

    /// Events that were noted outside of judging, oldest first.
    pending: VecDeque<(Event, String)>,
    /// The job that runs, and those that wait for it.
    job: Option<repl::JobKind>,
    jobs: VecDeque<repl::Job>,
    is_fenced: bool,
    retry_at: Instant,
    /// As it was when it answered last.
    is_database_open: bool,
    /// Since when it does not answer, or its commits hang.
    database_lost_since: Option<Instant>,
    replica_stopped_since: Option<Instant>,
    /// This host stopped its receiver, since the source was silent.
    has_stopped_receiving: bool,
    outranked_since: Option<Instant>,

    stage: Stage,
    is_leaving: bool,
    handover: Handover,
    handled_handover: Option<u64>,
    operator: Operator,

    probes: Probes,
    vrrp_resigned: bool,
    /// Another Master of a virtual router of ours: its priority and address, and when.
    rival: Option<Rival>,
    /// The peer's first and last claim in a row to addresses that this host holds.
    peer_claims: Option<(Instant, Instant)>,
    preemption: foreign::Preemption,
    hello_at: Instant,
    holds_writes: bool,
    data: DataPlane,
    /// When the next announcements are due, in order; empty while nothing is held.
    announce_at: heapless::Vec<Instant, 8>,
    /// A second claimant is answered no sooner.
    reclaim_at: Instant,
    routes: Routes,
    tracers: heapless::Vec<trace::Tracer, { trace::TRACERS_MAX }>,
    guard: durable::Guard,
    backing: backing::Backing,
    ills: ills::Ills,
    succession: succession::Succession,
    troubles: find::Troubles,
    findings: Findings,
    errants: errant::Errants,
    copying: reseed::Copying,
    updates: update::Updates,
    outputs: VecDeque<Output>,
}

/// What operators asked for, here and at the peer.
#[derive(Debug, Default)]
struct Operator {
    /// The peer is to begin an exchange of the roles; the number tells two wishes apart.
    wish: Option<u64>,
    handled_wish: Option<u64>,
    /// The peer's wish that waits for its database, and since when.
    wish_behind: Option<(u64, Instant)>,
    /// The peer's wish that could not be met.
    declined: Option<u64>,
    /// This host is to take no role, once it has given its own away.
    wants_maintenance: bool,
    /// This host was made to serve whatever the peer has, and does not yet.
    is_forced: bool,
    /// This host was made to serve although no witness answers.
    is_pardoned: bool,
    /// Who waits for the end of a change of roles, and since when.
    waiting: Vec<(u64, Instant)>,
}

/// Standing conditions an operator should know of.
#[derive(Debug, Default)]
struct Findings {
    waiting: Option<String>,
    database: Option<String>,
    /// How the last job failed, until one goes well.
    job: Option<String>,
    diverged: Option<String>,
    /// Why silence was not believed.
    held: Option<Finding>,
    /// By `find`, every second anew.
    network: Vec<Finding>,
}

/// Another Master of a virtual router of ours.
#[derive(Debug, Clone, Copy)]
struct Rival {
    at: Instant,
    link: LinkId,
    priority: u8,
    source: IpAddr,
}

impl Node {
    /// `boot_id` differs for every run of the daemon; `persistent` is what the last one left.
    #[must_use]
    pub fn new(config: Config, me: HostId, boot_id: u64, persistent: Persistent) -> Self {
        let group = Group::new(router_configs(&config, me));
        let addresses = Addresses::new(vips(&config));
        let site = repl::Site {
            me,
            addresses: HostId::ALL.map(|host| config.host(host).inside_address()),
            names: HostId::ALL.map(|host| config.host(host).name.clone()),
        };
        let devices = config.devices().into_iter().map(Device::new).collect();
        let started = Note::Started { host: config.host(me).name.clone(), epoch: persistent.epoch };
        let mut node = Self {
            group,
            peer: Peer::new(&config.peer, me),
            addresses,
            engine: repl::Engine::new(&config.repl, site),
            devices,
            lookout: witness::Lookout::new(&config, me, boot_id),
            links: LinkId::ALL.map(|link| LinkFacts::new(&config, me, link)),
            config,
            me,
            boot_id,
            started_at: None,
            last_turn: None,
            role: Role::Joining,
            role_since: Instant::ZERO,
            persistent,
            is_terminating: false,
            netlink_sequence: 0,
            is_dumped: false,
            pending: VecDeque::new(),
            job: None,
            jobs: VecDeque::new(),
            is_fenced: false,
            retry_at: Instant::ZERO,
            is_database_open: false,
            database_lost_since: None,
            replica_stopped_since: None,
            has_stopped_receiving: false,
            outranked_since: None,
            stage: Stage::None,
            is_leaving: false,
            handover: Handover::None,
            handled_handover: None,
            operator: Operator::default(),
            probes: Probes::default(),
            vrrp_resigned: false,
            rival: None,
            peer_claims: None,
            preemption: foreign::Preemption::default(),
            hello_at: Instant::ZERO,
            holds_writes: true,
            data: DataPlane::default(),
            announce_at: heapless::Vec::new(),
            reclaim_at: Instant::ZERO,
            routes: Routes::unknown(),
            tracers: heapless::Vec::new(),
            guard: durable::Guard::default(),
            backing: backing::Backing::default(),
            ills: ills::Ills::default(),
            succession: succession::Succession::default(),
            troubles: find::Troubles::default(),
            findings: Findings::default(),
            errants: errant::Errants::default(),
            copying: reseed::Copying::default(),
            updates: update::Updates::default(),
            outputs: VecDeque::new(),
        };
        node.note(started);
        node.dump_links();
        node
    }

    /// Whether it has given everything away and told so: `Output::Exit` is an end in order.
    #[must_use]
    pub const fn has_left(&self) -> bool {
        self.is_leaving
    }

    /// Takes one input; drain `poll_output` before the next.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.check_stall(now);
        if self.started_at.is_none() {
            self.started_at = Some(now);
            self.role_since = now;
            self.jobs.push_back(repl::Job::Fence);
        }
        self.trace_input(now, &input);
        match input {
            Input::Vrrp { link, datagram } => self.handle_vrrp(now, link, &datagram),
            Input::Frame { device, frame } => self.handle_frame(now, device, &frame),
            Input::Beacon { link, datagram } => self.handle_beacon(now, link, &datagram),
            Input::Echo { datagram } => self.lookout.witnesses.hear_icmp(now, &datagram),
            Input::Icmp { link, datagram } => self.handle_icmp(now, link, &datagram),
            Input::Netlink { datagram } => self.handle_netlink(now, &datagram),
            Input::NetlinkLost => self.dump_links(),
            Input::ClockSet { seconds } => self.troubles.clock_set(now, seconds),
            Input::Image(image) => self.set_image(image),
            Input::UpdateFailed { id, why } => self.update_failed(id, &why),
            Input::ErrantSaved(saved) => self.errant_saved(now, saved),
            Input::TookBack(result) => self.took_back(now, result),
            Input::CopyGoesOn(what) => self.copy_goes_on(what),
            Input::Copied(result) => self.copied(now, result),
            Input::Answer { id, result } => {
                self.engine.handle(now, repl::Input::Answer { id, result });
            }
            Input::DataPlane(data) => {
                // The giver of a handover waits for the word that nothing is open here.
                if data != self.data {
                    self.peer.hurry(now);
                }
                self.config.digest = data.saved_digest.unwrap_or(self.config.digest);
                self.data = data;
            }
            Input::Control { client, request, glance } => {
                self.handle_request(now, client, &request, *glance);
            }
            Input::Terminate => {
                self.is_terminating = true;
                self.pending.push_back((Event::Terminated, "told to end".into()));
            }
            Input::Wake => {}
        }
        self.run_machines(now);
        self.observe_ills(now);
        self.judge(now);
        self.keep_semi_sync(now);
        self.keep_backing(now);
        self.run_machines(now);
        self.find(now);
        self.speak(now);
        self.trace_outputs(now);
        self.troubles.due(self.deadline());
    }

    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `Input::Wake` is due. Beacons alone make it at most one beacon interval.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        // The peer's silence is judged when it begins and again with every beacon of ours.
        let is_ahead = |at: &Instant| self.last_turn.is_none_or(|last| *at > last);
        [
            Some(self.peer.deadline()),
            self.group.deadline(),
            self.addresses.deadline(),
            self.engine.deadline(),
            self.announce_at.first().copied(),
            self.gateway_deadline(),
            self.silent_at().filter(is_ahead),
            self.probe_deadline().filter(is_ahead),
            self.lookout.witnesses.deadline(),
        ]
        .into_iter()
        .fold(None, earliest)
    }

    /// A loop that did not run for longer than `STALL_MAX` may have been overtaken: nothing that
    /// was known before counts, and the role is lost before anything else is sent.
    fn check_stall(&mut self, now: Instant) {
        self.troubles.turn(now, (self.config.vrrp.interval / 2).max(find::LATE_MIN));
        let stalled = self.last_turn.map(|last| now.since(last));
        self.last_turn = Some(now);
        self.was_late(stalled.unwrap_or_default());
        // A fast peer takes over sooner; a slow one does not make a late loop any better.
        let interval = self.config.vrrp.interval;
        let limit = (interval * 3 / 2).clamp(limits::STALL_MIN, limits::STALL_MAX);
        if let Some(span) = stalled.filter(|span| *span > limit) {
            let milliseconds = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            self.note(Note::Stalled { milliseconds });
            self.peer.listen_again();
            self.group.listen_again(now);
            self.suspend_succession(now);
            self.apply(now, Event::Stalled, format!("did not run for {milliseconds} ms"));
        }
    }

    /// Asks for every link; the end of the answer asks for every address.
    fn dump_links(&mut self) {
        self.is_dumped = false;
        let request = netlink::dump_links(self.next_netlink_sequence());
        self.outputs.push_back(Output::Netlink { request });
    }

    fn next_netlink_sequence(&mut self) -> u32 {
        self.netlink_sequence = self.netlink_sequence.wrapping_add(1);
        self.netlink_sequence
    }

    /// Whether the other host runs a plain keepalived: it is configured so, and no tandem was ever
    /// heard from there. So the second host of an old pair is taken over without a restart here.
    fn has_foreign_peer(&self) -> bool {
        self.config.peer.kind == peer::Kind::Keepalived && self.peer.report().is_none()
    }

    /// Applies an event to the table and carries out its orders.
    fn apply(&mut self, now: Instant, event: Event, why: String) {
        let from = self.role;
        // The simulator collects these, to see which cells of the table it reaches.
        log::debug!(target: "pair", "{from} {event:?}");
        let (to, acts) = pair::next(from, event);
        if to != from {
            self.role = to;
            self.role_since = now;
            self.peer.hurry(now);
            self.tell_operators(Response::Progress(format!("{from} -> {to}: {why}")), false);
            self.note(Note::RoleChanged { from, to, why });
            self.enter(to);
        }
        for act in acts {
            self.perform(now, *act);
        }
    }

    /// What a role starts with, whatever led to it.
    fn enter(&mut self, role: Role) {
        match role {
            Role::Active => self.holds_writes = false,
            Role::Joining => {
                self.stage = Stage::None;
                self.handover = Handover::None;
                self.is_leaving = false;
                self.begin_wanted_maintenance();
                if self.is_terminating {
                    self.pending.push_back((Event::Terminated, "told to end".into()));
                }
            }
            Role::Standby => self.begin_succession(),
            Role::Promoting | Role::Demoting | Role::Refused => {}
        }
        self.operator.is_forced &= role == Role::Promoting;
        self.vrrp_resigned = false;
        self.has_stopped_receiving = false;
        self.findings.waiting = None;
    }

    fn note(&mut self, note: Note) {
        self.outputs.push_back(Output::Note(note));
    }
}

/// The virtual addresses of both links.
fn vips(config: &Config) -> impl Iterator<Item = Vip> {
    LinkId::ALL.into_iter().flat_map(move |link| {
        config.link(link).vip.iter().map(move |vip| Vip {
            device: config.device_of(link, vip),
            address: vip.address,
            label: vip.label.clone(),
        })
    })
}

/// One virtual router for each link and family that has virtual addresses.
fn router_configs(config: &Config, me: HostId) -> impl Iterator<Item = (LinkId, router::Config)> {
    let families = [Family::V4, Family::V6];
    LinkId::ALL.into_iter().flat_map(move |link| {
        families
            .into_iter()
            .filter_map(move |family| Some((link, router_config(config, me, link, family)?)))
    })
}

fn router_config(
    config: &Config,
    me: HostId,
    link: LinkId,
    family: Family,
) -> Option<router::Config> {
    let vips = config.link(link).vip.iter().map(|vip| vip.address.address);
    let addresses: VrrpAddresses = vips.filter(|it| Family::of(*it) == family).collect();
    let own = |host| IpAddr::from(config.host(host).address(link).address);
    let is_v4 = family == Family::V4;
    (!addresses.is_empty()).then(|| router::Config {
        family,
        // Version 2 has no IPv6.
        version: if is_v4 { config.vrrp.version } else { Version::V3 },
        vrid: config.link(link).vrid,
        priority: config.host(me).priority,
        interval: config.vrrp.interval,
        password: config
            .vrrp
            .password
            .as_ref()
            .filter(|_| is_v4)
            .map(|secret| password_data(secret.reveal())),
        transport: config.vrrp.transport,
        source: is_v4.then(|| own(me)),
        peer: is_v4.then(|| own(me.other())),
        addresses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EXAMPLE;

    fn requests(node: &mut Node) -> usize {
        let outputs = std::iter::from_fn(|| node.poll_output());
        outputs.filter(|output| matches!(output, Output::Netlink { .. })).count()
    }

    #[test]
    fn links_are_asked_for_again_when_the_kernel_dropped_messages() {
        let config = Config::parse(EXAMPLE).unwrap();
        let mut node = Node::new(config, HostId::First, 1, Persistent::default());
        assert_eq!(requests(&mut node), 1, "at the start");
        node.handle(Instant::from_nanos(1), Input::NetlinkLost);
        assert_eq!(requests(&mut node), 1);
    }

    #[test]
    fn a_saved_configuration_is_what_the_other_host_is_told() {
        let config = Config::parse(EXAMPLE).unwrap();
        let started = config.digest;
        let mut node = Node::new(config, HostId::First, 1, Persistent::default());
        for (saved_digest, told) in [(None, started), (Some([9; 8]), [9; 8])] {
            let data = DataPlane { saved_digest, ..DataPlane::default() };
            node.handle(Instant::from_nanos(1), Input::DataPlane(data));
            assert_eq!(node.config.digest, told, "what beacons carry");
        }
    }
}
