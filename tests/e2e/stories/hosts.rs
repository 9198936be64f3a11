//! Hosts and daemons: dead, paused, started together, apart and alone.
//!
//! In: a scene. Out: laws of the design's section 5 and of facts/repl.md section 5, 1, 20 to 23, 31
//! and 42.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::stage::{Ending, Scene, Story, findings, seen};
use crate::load::Kind;
use crate::pair::{ELECTION, GUARD_PID, NODE_PID};
use crate::world::{Outcome, wait_until};
use crate::{check, database};

/// Silence has to be believed first: the master-down interval, and a margin for a busy machine.
const SILENCE: Duration = Duration::from_secs(8);
/// The guard says it when its node dies: skew time, and not three lost advertisements.
const SAID: Duration = Duration::from_secs(3);

pub fn all() -> Vec<Story> {
    use Ending::{Either, Moves, Stays};
    vec![
        Story::new("the active host dies", Moves, active_host_dies),
        Story::new("the standby host dies", Stays, standby_host_dies),
        Story::new("the active host dies while the other one rejoins", Either, dies_at_rejoin),
        Story::new("both hosts boot together", Either, boot_together),
        Story::new("the last source boots first", Stays, last_source_boots_first),
        Story::new("the stale host boots alone", Stays, stale_host_boots_alone),
        Story::new("the active host is paused", Moves, active_host_is_paused),
        Story::new("the standby host is paused", Stays, standby_host_is_paused),
        Story::new("the active node is killed", Moves, active_node_is_killed),
        Story::new("the active guard is killed", Either, active_guard_is_killed),
        Story::new("the active daemon is killed, guard and node", Moves, active_daemon_is_killed),
        Story::new("the active node hangs", Moves, active_node_hangs),
        Story::new("the standby node hangs for good", Stays, standby_node_hangs_for_good),
        Story::new("the standby node is killed", Stays, standby_node_is_killed),
        Story::new("the standby daemon is killed", Stays, standby_daemon_is_killed),
    ]
}

fn active_host_dies(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = scene.pair.power_off(scene.active)?;
    scene.taken_over(at, SILENCE)?;
    scene.pair.power_on(scene.active)
}

fn standby_host_dies(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = scene.pair.power_off(scene.standby)?;
    scene.writes_go_on(at, SILENCE)?;
    scene.nobody_moves(ELECTION)?;
    scene.pair.power_on(scene.standby)
}

fn dies_at_rejoin(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = scene.pair.power_off(scene.active)?;
    scene.taken_over(at, SILENCE)?;
    scene.pair.power_on(scene.active)?;
    let (first, second) = (scene.active, scene.standby);
    // Had it never heard the other one, it would be right to serve: it was the last source.
    wait_until("the returning daemon hears who serves", ELECTION, || {
        scene.pair.servers[first].status().is_ok_and(|it| it["peer"]["role"] == "active")
    })?;
    let role = scene.role(first);
    scene.pair.power_off(second)?;
    std::thread::sleep(ELECTION);
    scene.tell(format!("it was {role}, then {}", scene.role(first)));
    scene.pair.power_on(second)
}

fn boot_together(scene: &mut Scene<'_>) -> Outcome<()> {
    scene.pair.power_off(0)?;
    scene.pair.power_off(1)?;
    scene.pair.power_on(0)?;
    scene.pair.power_on(1)
}

fn last_source_boots_first(scene: &mut Scene<'_>) -> Outcome<()> {
    let (active, standby) = (scene.active, scene.standby);
    scene.pair.power_off(standby)?;
    scene.pair.power_off(active)?;
    let at = Instant::now();
    scene.pair.power_on(active)?;
    wait_until("it serves alone", Duration::from_secs(20), || {
        is_chatting(scene) && scene.role(active) == "active"
    })
    .map_err(|why| format!("{why}; seen: {}", seen_of(scene, active)))?;
    scene.writes_go_on(at, Duration::from_secs(15))?;
    scene.pair.power_on(standby)
}

fn stale_host_boots_alone(scene: &mut Scene<'_>) -> Outcome<()> {
    let (active, standby) = (scene.active, scene.standby);
    let at = scene.pair.power_off(standby)?;
    scene.writes_go_on(at, SILENCE)?;
    wait_until("more is written", Duration::from_secs(5), || {
        scene.load.has_good(Kind::Write, at + Duration::from_secs(3))
    })?;
    scene.pair.power_off(active)?;
    scene.pair.power_on(standby)?;
    wait_until("it says for whom it waits", Duration::from_secs(20), || {
        is_chatting(scene) && findings(scene.pair, standby).contains("`tandem failover --force`")
    })
    .map_err(|why| format!("{why}; seen: {}", seen_of(scene, standby)))?;
    let says = findings(scene.pair, standby);
    let other = scene.pair.servers[active].name();
    check(says.contains(other), || format!("it does not name {other}: {says}"))?;
    std::thread::sleep(ELECTION);
    let stale = &scene.pair.servers[standby];
    check(stale.role() == "joining" && stale.holds_none(), || stale.summary())?;
    let closed = database::ask(&stale.host, "SELECT @@GLOBAL.read_only")?;
    check(closed == [["1"]], || "its database is open".into())?;
    scene.pair.power_on(active)
}

/// Somebody else speaks on both networks, as somebody always does: a host that hears nothing at
/// all waits for the switch, 35 s.
fn is_chatting(scene: &Scene<'_>) -> bool {
    let chat = || -> std::io::Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for nobody in ["10.96.153.77:9", "192.168.3.77:9"] {
            // The question who that is goes to everybody.
            socket.send_to(b"?", nobody)?;
        }
        Ok(())
    };
    scene.pair.client.on_network(chat).is_ok_and(|sent| sent.is_ok())
}

/// The summary of one host while the other one is off.
fn seen_of(scene: &Scene<'_>, number: usize) -> String {
    scene.pair.servers[number].summary()
}

/// The kernel of a paused host lives on here, which is harder than a paused machine: it answers
/// for the addresses until their lease ends.
fn active_host_is_paused(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    scene.pair.servers[scene.active].host.freeze()?;
    let standby = scene.standby;
    wait_until("the standby has the addresses", SILENCE, || {
        scene.pair.servers[standby].holds_all()
    })?;
    scene.writes_go_on(at, SILENCE)?;
    scene.pair.servers[scene.active].host.thaw()
}

fn standby_host_is_paused(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    scene.pair.servers[scene.standby].host.freeze()?;
    let paused = scene.writes_go_on(at + Duration::from_millis(500), SILENCE);
    std::thread::sleep(ELECTION.saturating_sub(at.elapsed()));
    scene.pair.servers[scene.standby].host.thaw()?;
    paused
}

fn active_node_is_killed(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    scene.pair.servers[scene.active].signal_node(Signal::SIGKILL)?;
    scene.taken_over(at, SAID)
}

/// Its node ends with it, or serves on without: one host serves in either case.
fn active_guard_is_killed(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    let active = scene.active;
    scene.pair.servers[active].signal_guard(Signal::SIGKILL)?;
    wait_until("one host serves", Duration::from_secs(10), || {
        let serves = |number: usize| scene.role(number) == "active";
        (serves(0) ^ serves(1)) && scene.load.has_good(Kind::Write, at + Duration::from_secs(1))
    })?;
    scene.writes_go_on(at, SAID)?;
    if scene.pair.servers[active].host.is_alive(GUARD_PID) {
        return Ok(());
    }
    scene.pair.start_tandem(active)
}

fn active_daemon_is_killed(scene: &mut Scene<'_>) -> Outcome<()> {
    let active = scene.active;
    kill_daemon(scene, active)?;
    scene.taken_over(Instant::now(), SILENCE)?;
    scene.pair.start_tandem(active)
}

fn standby_daemon_is_killed(scene: &mut Scene<'_>) -> Outcome<()> {
    let standby = scene.standby;
    kill_daemon(scene, standby)?;
    scene.nobody_moves(ELECTION)?;
    scene.pair.start_tandem(standby)
}

/// Both processes in one moment: nobody says good-bye.
fn kill_daemon(scene: &mut Scene<'_>, number: usize) -> Outcome<()> {
    let host = &mut scene.pair.servers[number].host;
    let processes = [GUARD_PID, NODE_PID].map(|file| host.outer_pid(file));
    for process in processes {
        nix::sys::signal::kill(process?, Signal::SIGKILL).map_err(|error| error.to_string())?;
    }
    wait_until("tandem has ended", Duration::from_secs(5), || host.ended("tandem").is_some())
        .map(drop)
}

fn active_node_hangs(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    let active = scene.active;
    scene.pair.servers[active].signal_node(Signal::SIGSTOP)?;
    let taken = scene.taken_over(at, SILENCE);
    scene.pair.servers[active].signal_node(Signal::SIGCONT)?;
    taken.map_err(|why| format!("{why}; seen: {}", seen(scene.pair)))
}

/// Its guard, which hears nothing of it any more, starts another one.
fn standby_node_hangs_for_good(scene: &mut Scene<'_>) -> Outcome<()> {
    let server = &scene.pair.servers[scene.standby];
    let node = server.host.outer_pid(NODE_PID)?;
    server.signal_node(Signal::SIGSTOP)?;
    wait_until("another node runs", Duration::from_secs(15), || {
        server.host.outer_pid(NODE_PID).is_ok_and(|it| it != node)
    })?;
    scene.nobody_moves(ELECTION)
}

fn standby_node_is_killed(scene: &mut Scene<'_>) -> Outcome<()> {
    scene.pair.servers[scene.standby].signal_node(Signal::SIGKILL)?;
    scene.nobody_moves(ELECTION)
}
