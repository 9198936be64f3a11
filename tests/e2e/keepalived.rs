//! A plain keepalived 2.2 on one host and tandem on the other, with the scenario's configuration.
//!
//! In: Debian's keepalived. Out: laws of facts/vrrp.md 4.3, both ways round; for every event one
//! line with the table's median beside what was seen.
//! Not here: databases. Nothing is known of a keepalived host's; tandem opens its own.
//!
//! Setting a pair up costs more than most events, so several strike one pair, one after the other:
//! whom one event made the master the next one strikes. Two pairs run side by side, since both do
//! little but wait for the protocol's timers.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::check;
use crate::mixed::{ADVERTISEMENT, MARGIN, MASTER_DOWN, Mixed, SKEW};
use crate::pair::OUTSIDE_VIP;
use crate::world::{Link, Outcome, wait_until};

/// As the table has it.
const ISOLATION: Duration = Duration::from_secs(8);
const FREEZE: Duration = Duration::from_millis(6500);
const PARTITION: Duration = Duration::from_secs(5);
/// The samplers have looked at the addresses since.
const SEEN: Duration = Duration::from_millis(50);

/// One pair: which server runs tandem, who serves first, and what happens then.
type Chain = (usize, bool, fn(&mut Mixed) -> Outcome<()>);

/// Two chains of events at the same time, each on a pair of its own.
fn side_by_side(chains: [Chain; 2]) {
    let run = |(tandem, is_tandem_master, events): Chain| {
        let mut mixed = Mixed::new(tandem, is_tandem_master)?;
        events(&mut mixed).map_err(|why| format!("{why}\n{}", mixed.pair.logs()))
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let running = chains.map(|chain| scope.spawn(move || run(chain)));
        let ended = running.map(|chain| chain.join());
        ended
            .into_iter()
            .filter_map(|it| it.unwrap_or_else(|_| Err("a chain panicked".into())).err())
            .collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_role_moves_when_a_process_or_a_link_of_the_master_fails() {
    side_by_side([(0, true, processes_fail), (0, true, links_fail)]);
}

#[test]
fn nobody_steals_what_the_other_one_serves() {
    side_by_side([(1, true, tandem_keeps), (0, false, keepalived_keeps)]);
}

#[test]
fn a_tandem_that_cannot_hear_a_living_keepalived_takes_nothing() {
    side_by_side([(0, false, cannot_receive), (0, false, multicast_blocked)]);
}

fn processes_fail(mixed: &mut Mixed) -> Outcome<()> {
    address_deleted(mixed)?;
    child_killed(mixed)?;
    reload(mixed)?;
    sigterm(mixed)?;
    child_killed(mixed)?;
    node_killed(mixed)?;
    sigterm(mixed)?;
    sigkill(mixed)?;
    sigkill(mixed)?;
    mixed.hand_to(1 - mixed.tandem)?;
    freeze(mixed)
}

fn links_fail(mixed: &mut Mixed) -> Outcome<()> {
    for links in [&[Link::Outside][..], &[Link::Outside], &Link::ALL, &Link::ALL] {
        cables(mixed, links)?;
    }
    flap(mixed)?;
    flap(mixed)?;
    partition(mixed)?;
    freeze(mixed)?;
    partition(mixed)
}

fn sigterm(mixed: &mut Mixed) -> Outcome<()> {
    let struck = mixed.master;
    let at = Instant::now();
    mixed.terminate(struck)?;
    mixed.taken_over("SIGTERM", "0.632 s", at, SKEW)?;
    if mixed.is_tandem_master() {
        wait_until("tandem's database is the source", Duration::from_secs(5), || {
            let status = mixed.pair.servers[mixed.tandem].status();
            status.is_ok_and(|it| it["database"]["state"] == "source")
        })?;
    }
    mixed.start_again(struck)?;
    mixed.nobody_moves()
}

/// Both processes at once. What is left on the host differs: the kernel takes tandem's addresses
/// off when nobody refreshes them, keepalived's stay until it is started again; its kernel says
/// that nobody listens there.
fn sigkill(mixed: &mut Mixed) -> Outcome<()> {
    let (struck, is_tandem) = (mixed.master, mixed.is_tandem_master());
    let at = Instant::now();
    mixed.kill(struck)?;
    mixed.taken_over("SIGKILL of both processes", "2.826 s", at, MASTER_DOWN)?;
    mixed.start_again(struck)?;
    if !is_tandem {
        mixed.wait_holder(mixed.master, Duration::from_secs(2))?;
        mixed.excuse();
    }
    mixed.nobody_moves()
}

/// Tandem's guard sees it and resigns in the node's place, then starts it again.
fn node_killed(mixed: &mut Mixed) -> Outcome<()> {
    mixed.hand_to(mixed.tandem)?;
    let at = Instant::now();
    mixed.signal_speaker(mixed.tandem, Signal::SIGKILL)?;
    mixed.taken_over("SIGKILL of the node, its guard lives", "0.04 to 3.48 s", at, SKEW)?;
    mixed.nobody_moves()
}

/// Keepalived's parent starts the VRRP child again; as master it has lost the role.
fn child_killed(mixed: &mut Mixed) -> Outcome<()> {
    let event = "SIGKILL of keepalived's VRRP child";
    let at = Instant::now();
    mixed.signal_speaker(1 - mixed.tandem, Signal::SIGKILL)?;
    if mixed.is_tandem_master() {
        return mixed.stays(event, "(no such event)");
    }
    mixed.taken_over(event, "0.04 to 3.48 s", at, MASTER_DOWN)?;
    mixed.nobody_moves()
}

fn reload(mixed: &mut Mixed) -> Outcome<()> {
    let before = mixed.pair.servers[mixed.master].spans().len();
    let keepalived = &mixed.pair.servers[1 - mixed.tandem].host;
    keepalived.signal(crate::foreign::KEEPALIVED_PID, Signal::SIGHUP)?;
    mixed.stays("SIGHUP of keepalived", "no gap")?;
    let spans = mixed.pair.servers[mixed.master].spans().len();
    check(spans == before, || "an address went for a moment".into())
}

/// The process that speaks stands still; its kernel goes on answering.
fn freeze(mixed: &mut Mixed) -> Outcome<()> {
    let (struck, is_tandem) = (mixed.master, mixed.is_tandem_master());
    let at = Instant::now();
    mixed.signal_speaker(struck, Signal::SIGSTOP)?;
    if is_tandem {
        mixed.taken_over("SIGSTOP of 6.5 s", "about 3.6 s, then stolen back", at, MASTER_DOWN)?;
    }
    std::thread::sleep(FREEZE.saturating_sub(at.elapsed()));
    if !is_tandem {
        // Its addresses answer and its sockets are there: nothing is taken from the living.
        nothing_taken(mixed)?;
    }
    mixed.signal_speaker(struck, Signal::SIGCONT)?;
    if !is_tandem {
        mixed.say("keepalived", "SIGSTOP of 6.5 s", "stolen back", at.elapsed());
    }
    mixed.nobody_moves()
}

/// Tandem puts it back; keepalived lets go of both and races for them.
fn address_deleted(mixed: &mut Mixed) -> Outcome<()> {
    let (event, table) = ("an address deleted by hand", "gap of 0.6 to 0.7 s");
    let at = Instant::now();
    let is_tandem = mixed.is_tandem_master();
    mixed.delete_address(mixed.master, OUTSIDE_VIP, Link::Outside)?;
    std::thread::sleep(SEEN);
    if is_tandem {
        mixed.wait_holder(mixed.master, MARGIN)?;
        mixed.say("tandem", event, table, at.elapsed());
    } else {
        mixed.wait_anyone(SKEW + MARGIN)?;
        let seen = at.elapsed();
        // Their skews are 4 ms apart, and tandem writes its epoch to disk before it says anything:
        // both may have it for the time of a packet, and then VRRP's rule decides.
        std::thread::sleep(ADVERTISEMENT);
        mixed.wait_anyone(MARGIN)?;
        mixed.say("keepalived", event, table, seen);
        mixed.excuse();
    }
    mixed.nobody_moves()
}

/// Keepalived waits for the dead link's full timer, also after priority 0 on the other one
/// (facts/vrrp.md 1.5, measured there); to tandem that counts for both.
fn cables(mixed: &mut Mixed, links: &[Link]) -> Outcome<()> {
    let (event, table) =
        if links.len() == 1 { ("one cable", "3.09 s") } else { ("both cables", "3.24 s") };
    let struck = mixed.master;
    let is_told = links.len() == 1 && !mixed.is_tandem_master();
    let at = Instant::now();
    mixed.pair.pull(struck, links)?;
    mixed.taken_over(event, table, at, if is_told { SKEW } else { MASTER_DOWN })?;
    mixed.pair.replug(struck, links)?;
    mixed.nobody_moves()
}

fn flap(mixed: &mut Mixed) -> Outcome<()> {
    let struck = mixed.master;
    let at = Instant::now();
    mixed.pair.pull(struck, &[Link::Outside])?;
    std::thread::sleep(Duration::from_secs(1));
    mixed.pair.replug(struck, &[Link::Outside])?;
    mixed.taken_over("a cable out for 1 s", "gap of 3.1 to 3.6 s", at, MASTER_DOWN)?;
    mixed.nobody_moves()
}

/// Both serve while nothing passes, as they must. Afterwards it is VRRP's rule that decides, since
/// keepalived says nothing else, and tandem as master says priority 254: it serves in the end.
fn partition(mixed: &mut Mixed) -> Outcome<()> {
    let struck = mixed.master;
    let at = Instant::now();
    mixed.pair.mute(struck, true)?;
    mixed.taken_over("silent cut", "3.40 s", at, MASTER_DOWN)?;
    std::thread::sleep(PARTITION.saturating_sub(at.elapsed()));
    let healed = Instant::now();
    mixed.pair.mute(struck, false)?;
    mixed.wait_holder(mixed.tandem, ADVERTISEMENT + MARGIN)?;
    mixed.master = mixed.tandem;
    let before = if struck == mixed.tandem { "tandem" } else { "keepalived" };
    mixed.say(before, "partition of 5 s healed", "server1 again", healed.elapsed());
    mixed.excuse();
    mixed.nobody_moves()
}

/// Keepalived has the higher priority.
fn tandem_keeps(mixed: &mut Mixed) -> Outcome<()> {
    let (tandem, keepalived) = (mixed.tandem, 1 - mixed.tandem);
    boot_isolated(mixed, keepalived)?;
    wait_until("an isolated keepalived becomes master", MASTER_DOWN + MARGIN, || {
        mixed.pair.servers[keepalived].holds_all()
    })?;
    end_of(mixed, "boot isolation of 8 s", |mixed| mixed.pair.mute(keepalived, false))?;

    mixed.deafen(keepalived, true)?;
    std::thread::sleep(ISOLATION);
    check(mixed.pair.servers[tandem].holds_all(), || "tandem let go".into())?;
    end_of(mixed, "keepalived cannot receive", |mixed| mixed.deafen(keepalived, false))?;

    mixed.pair.filter_multicast(true)?;
    std::thread::sleep(ISOLATION);
    check(mixed.pair.servers[tandem].holds_all(), || "tandem let go".into())?;
    end_of(mixed, "multicast blocked", |mixed| mixed.pair.filter_multicast(false))
}

/// Tandem has the higher priority.
fn keepalived_keeps(mixed: &mut Mixed) -> Outcome<()> {
    let tandem = mixed.tandem;
    reload(mixed)?;
    boot_isolated(mixed, tandem)?;
    nothing_taken(mixed)?;
    end_of(mixed, "boot isolation of 8 s", |mixed| mixed.pair.mute(tandem, false))?;
    address_deleted(mixed)
}

fn cannot_receive(mixed: &mut Mixed) -> Outcome<()> {
    let tandem = mixed.tandem;
    mixed.deafen(tandem, true)?;
    std::thread::sleep(ISOLATION);
    nothing_taken(mixed)?;
    end_of(mixed, "tandem cannot receive", |mixed| mixed.deafen(tandem, false))
}

fn multicast_blocked(mixed: &mut Mixed) -> Outcome<()> {
    mixed.pair.filter_multicast(true)?;
    std::thread::sleep(ISOLATION);
    nothing_taken(mixed)?;
    end_of(mixed, "multicast blocked", |mixed| mixed.pair.filter_multicast(false))
}

fn nothing_taken(mixed: &Mixed) -> Outcome<()> {
    check(mixed.pair.servers[mixed.tandem].holds_none(), || {
        "tandem took the addresses of a keepalived that lives and has them".into()
    })
}

/// The backup starts while its ports do not forward, as a switch with spanning tree has it.
fn boot_isolated(mixed: &mut Mixed, number: usize) -> Outcome<()> {
    mixed.terminate(number)?;
    mixed.pair.mute(number, true)?;
    mixed.start_again(number)?;
    std::thread::sleep(ISOLATION);
    check(mixed.pair.servers[1 - number].holds_all(), || "the master let go".into())
}

/// When the trouble ends the master alone has the addresses again within an advertisement. What
/// keepalived took meanwhile it could not know better.
fn end_of(mixed: &mut Mixed, event: &str, end: impl FnOnce(&Mixed) -> Outcome<()>) -> Outcome<()> {
    let at = Instant::now();
    end(mixed)?;
    mixed.wait_holder(mixed.master, ADVERTISEMENT + MARGIN)?;
    mixed.say(mixed.program(mixed.master), event, "stolen", at.elapsed());
    mixed.excuse();
    mixed.nobody_moves()
}
