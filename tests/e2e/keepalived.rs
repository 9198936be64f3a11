//! A plain keepalived 2.2 on one host and tandem on the other, with the scenario's configuration.
//!
//! In: Debian's keepalived. Out: laws of facts/vrrp.md 4.3, both ways round.
//! Not here: databases. Nothing is known of a keepalived host's; tandem opens its own.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::foreign::{self, KEEPALIVED_PID, Timing, VRRP_PID};
use crate::pair::{EXAMPLE, Pair};
use crate::world::{Link, Outcome, wait_until};
use crate::{check, flavour};

/// Three advertisements of 1 s, the skew of priority 100, and a margin for a shared machine.
const MASTER_DOWN: Duration = Duration::from_millis(3610 + 700);
/// Longer than an election would take.
const QUIET: Duration = Duration::from_secs(6);

/// Both hosts up, nothing that speaks VRRP started yet. Server `tandem` has the higher priority
/// (101) in both configurations if it is server1.
fn hosts(tandem: usize) -> Outcome<Pair> {
    let pair = Pair::new(flavour())?;
    let text = EXAMPLE.replacen("[peer] ", "[peer]\nkind = \"keepalived\" ", 1);
    pair.configure(tandem, &text)?;
    let priority = if tandem == 0 { 100 } else { 101 };
    let other = &pair.servers[1 - tandem].host;
    foreign::configure(other, &Timing::V2, priority)?;
    Ok(pair)
}

fn start_keepalived(pair: &mut Pair, number: usize) -> Outcome<()> {
    foreign::start(&mut pair.servers[number].host)
}

/// The addresses are on `holder` and on nobody else.
fn wait_holder(pair: &Pair, holder: usize, limit: Duration) -> Outcome<Duration> {
    let what = format!("{} alone has the addresses", pair.servers[holder].name());
    wait_until(&what, limit, || {
        pair.servers[holder].holds_all() && pair.servers[1 - holder].holds_none()
    })
}

fn on_hosts(tandem: usize, law: impl FnOnce(&mut Pair) -> Outcome<()>) {
    let mut pair = hosts(tandem).unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = law(&mut pair) {
        panic!("{why}\n{}", pair.logs());
    }
}

/// Tandem on server `tandem` serves, keepalived on the other one is its backup.
fn with_tandem_master(tandem: usize, law: impl FnOnce(&mut Pair) -> Outcome<()>) {
    on_hosts(tandem, |pair| {
        pair.start_tandem(tandem)?;
        wait_holder(pair, tandem, Duration::from_secs(60))?;
        start_keepalived(pair, 1 - tandem)?;
        std::thread::sleep(QUIET);
        check(pair.servers[1 - tandem].holds_none(), || "keepalived took the addresses".into())?;
        law(pair)
    });
}

/// Keepalived on the other server serves, tandem is its backup.
fn with_keepalived_master(tandem: usize, law: impl FnOnce(&mut Pair) -> Outcome<()>) {
    on_hosts(tandem, |pair| {
        start_keepalived(pair, 1 - tandem)?;
        wait_holder(pair, 1 - tandem, Duration::from_secs(10))?;
        pair.start_tandem(tandem)?;
        wait_until("tandem is standby", Duration::from_secs(10), || {
            pair.servers[tandem].role() == "standby"
        })?;
        std::thread::sleep(QUIET);
        check(pair.servers[tandem].holds_none(), || "tandem took the addresses".into())?;
        law(pair)
    });
}

#[test]
fn keepalived_takes_over_within_the_skew_time_when_tandem_ends() {
    with_tandem_master(0, |pair| {
        let at = Instant::now();
        pair.servers[0].signal_guard(Signal::SIGTERM)?;
        wait_holder(pair, 1, Duration::from_millis(610 + 700))?;
        println!("SIGTERM: keepalived has the addresses after {:?}", at.elapsed());
        // The higher priority that comes back takes nothing.
        pair.start_tandem(0)?;
        std::thread::sleep(QUIET);
        wait_holder(pair, 1, Duration::from_millis(1))?;
        check(pair.two_holders().is_zero(), || format!("two holders: {:?}", pair.two_holders()))
    });
}

#[test]
fn keepalived_takes_over_from_a_tandem_that_is_killed() {
    with_tandem_master(0, |pair| {
        pair.servers[0].signal_node(Signal::SIGKILL)?;
        let after = wait_holder(pair, 1, Duration::from_millis(610 + 700))?;
        println!("SIGKILL: keepalived has the addresses after {after:?}");
        std::thread::sleep(QUIET);
        wait_holder(pair, 1, Duration::from_millis(1))?;
        check(pair.two_holders().is_zero(), || format!("two holders: {:?}", pair.two_holders()))
    });
}

#[test]
fn keepalived_takes_over_when_tandem_loses_a_cable() {
    with_tandem_master(0, |pair| {
        pair.pull(0, &[Link::Outside])?;
        // keepalived waits for the dead link's full timer (facts/vrrp.md 1.5, measured there).
        wait_holder(pair, 1, MASTER_DOWN)?;
        pair.replug(0, &[Link::Outside])?;
        std::thread::sleep(QUIET);
        wait_holder(pair, 1, Duration::from_millis(1))?;
        check(pair.two_holders().is_zero(), || format!("two holders: {:?}", pair.two_holders()))
    });
}

#[test]
fn a_keepalived_of_higher_priority_that_wakes_up_alone_steals_nothing_from_tandem() {
    // server2 runs tandem with priority 100, server1 keepalived with 101.
    with_tandem_master(1, |pair| {
        for link in Link::ALL {
            pair.world.mute("server1", link, true)?;
        }
        std::thread::sleep(MASTER_DOWN + Duration::from_secs(1));
        check(pair.servers[0].holds_all(), || "an isolated keepalived becomes Master".into())?;
        for link in Link::ALL {
            pair.world.mute("server1", link, false)?;
        }
        wait_holder(pair, 1, Duration::from_secs(3)).map(drop)
    });
}

#[test]
fn tandem_takes_over_when_keepalived_ends() {
    with_keepalived_master(0, |pair| {
        pair.servers[1].host.signal(KEEPALIVED_PID, Signal::SIGTERM)?;
        let after = wait_holder(pair, 0, Duration::from_millis(610 + 700))?;
        println!("SIGTERM: tandem has the addresses after {after:?}");
        wait_until("tandem's database is the source", Duration::from_secs(5), || {
            pair.servers[0].status().is_ok_and(|it| it["database"]["state"] == "source")
        })?;
        start_keepalived(pair, 1)?;
        std::thread::sleep(QUIET);
        wait_holder(pair, 0, Duration::from_millis(1))?;
        check(pair.two_holders().is_zero(), || format!("two holders: {:?}", pair.two_holders()))
    });
}

#[test]
fn tandem_takes_over_when_keepalived_loses_both_cables() {
    with_keepalived_master(0, |pair| {
        pair.pull(1, &Link::ALL)?;
        let after =
            wait_until("tandem has the addresses", MASTER_DOWN, || pair.servers[0].holds_all())?;
        println!("both cables: tandem has the addresses after {after:?}");
        pair.replug(1, &Link::ALL)?;
        std::thread::sleep(QUIET);
        wait_holder(pair, 0, Duration::from_millis(1)).map(drop)
    });
}

#[test]
fn tandem_takes_over_from_a_keepalived_that_left_its_addresses_behind() {
    with_keepalived_master(0, |pair| {
        // The parent would start it again, so both go.
        pair.servers[1].host.signal(VRRP_PID, Signal::SIGSTOP)?;
        pair.servers[1].host.signal(KEEPALIVED_PID, Signal::SIGKILL)?;
        pair.servers[1].host.signal(VRRP_PID, Signal::SIGKILL)?;
        check(pair.servers[1].holds_all(), || "keepalived leaves its addresses".into())?;
        let limit = MASTER_DOWN + Duration::from_secs(4);
        let after = wait_until("tandem has the addresses", limit, || pair.servers[0].holds_all())?;
        println!("SIGKILL: tandem has the addresses after {after:?}");
        Ok(())
    });
}
