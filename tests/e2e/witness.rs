//! Witnesses: of two hosts that do not hear each other, the one that is cut off stops.
//!
//! In: a pair whose configuration names the client, by an address on the outside network (ARP) or
//! by one behind it (ICMP). Out: never two holders, nothing lost.

use std::time::{Duration, Instant};

use crate::faults::nothing_is_lost;
use crate::load::{Kind, Load};
use crate::pair::{ELECTION, EXAMPLE, Pair, SETTLE_LIMIT};
use crate::stories::stage::{make_whole, wait_durable};
use crate::world::{Outcome, wait_until};
use crate::{check, flavour, has_finding};

/// An address of the client, on the network and beyond it.
const NEAR: &str = "10.96.153.1";
const FAR: &str = "192.0.2.7";
const TAKEN: Duration = Duration::from_secs(8);

#[test]
fn the_host_that_is_cut_off_stops_and_the_other_one_serves() {
    let mut pair = Pair::new(flavour()).unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = run(&mut pair) {
        panic!("{why}\n{}", pair.logs());
    }
}

fn run(pair: &mut Pair) -> Outcome<()> {
    pair.client.read(&["ip", "addr", "add", FAR, "dev", "lo"])?;
    start_with(pair, NEAR)?;
    pair.wait_settled(0, SETTLE_LIMIT)?;
    pair.make_schema()?;
    pair.watch_writers()?;
    let load = pair.load()?;
    a_cut_off_active_host_stops(pair, &load, 0)?;
    a_cut_off_standby_does_not_begin(pair, &load, 1)?;
    for number in [0, 1] {
        pair.servers[number].host.read(&["ip", "route", "add", FAR, "via", NEAR])?;
        pair.stop_tandem(number)?;
    }
    start_with(pair, FAR)?;
    wait_until("the pair is whole again", SETTLE_LIMIT, || {
        pair.is_settled(0) || pair.is_settled(1)
    })?;
    let active = usize::from(pair.is_settled(1));
    a_cut_off_active_host_stops(pair, &load, active)?;
    check(pair.two_holders().is_zero(), || format!("two holders for {:?}", pair.two_holders()))?;
    check(pair.two_writers().is_zero(), || format!("two writers for {:?}", pair.two_writers()))?;
    nothing_is_lost(pair, &load.finish()?)
}

fn start_with(pair: &mut Pair, witness: &str) -> Outcome<()> {
    let config = EXAMPLE.replacen("[peer] ", &format!("[peer]\nwitnesses = [\"{witness}\"] "), 1);
    for number in [0, 1] {
        pair.configure(number, &config)?;
        pair.start_tandem(number)?;
    }
    Ok(())
}

/// Every frame to and from it is lost, with carrier: it stops before the other one takes over.
fn a_cut_off_active_host_stops(pair: &mut Pair, load: &Load, active: usize) -> Outcome<()> {
    wait_durable(pair, active)?;
    let (one, other) = (&pair.servers[active], &pair.servers[1 - active]);
    let at = Instant::now();
    pair.mute(active, true)?;
    wait_until("it stops", Duration::from_secs(4), || one.holds_none())?;
    println!("stopped after {:?}", at.elapsed());
    wait_until("the other one serves", TAKEN, || other.holds_all())?;
    wait_until("a write succeeds", TAKEN, || load.has_good(Kind::Write, at))?;
    println!("written after {:?}", at.elapsed());
    std::thread::sleep(ELECTION);
    check(one.holds_none() && one.role() == "joining", || one.summary())?;
    pair.mute(active, false)?;
    becomes_whole(pair, 1 - active)
}

/// By itself, or by the command that it names: a commit may have been under way at the cut.
fn becomes_whole(pair: &mut Pair, active: usize) -> Outcome<()> {
    let mut told = Vec::new();
    let now_active = make_whole(pair, &mut told)?;
    println!("{}", told.join(", "));
    check(now_active == active, || pair.servers[active].summary())
}

fn a_cut_off_standby_does_not_begin(pair: &Pair, load: &Load, active: usize) -> Outcome<()> {
    let standby = &pair.servers[1 - active];
    pair.mute(1 - active, true)?;
    let at = Instant::now();
    std::thread::sleep(ELECTION);
    check(standby.holds_none() && standby.role() == "standby", || standby.summary())?;
    wait_until("it says why", Duration::from_secs(3), || {
        has_finding(pair, 1 - active, "so is every witness")
    })?;
    check(load.has_good(Kind::Write, at), || "the other one stopped too".into())?;
    pair.mute(1 - active, false)?;
    pair.wait_settled(active, SETTLE_LIMIT).map(drop)
}
