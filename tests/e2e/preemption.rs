//! Two tandems of which the higher priority takes the role back by itself.
//!
//! In: `vrrp.preempt` in both configurations. Out: a planned switchover, in which no request fails.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::faults::nothing_is_lost;
use crate::flavour;
use crate::pair::{EXAMPLE, Pair, SETTLE_LIMIT};
use crate::world::Outcome;

#[test]
fn the_higher_priority_takes_the_role_back_by_a_planned_switchover() {
    let mut pair = Pair::new(flavour()).unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = takes_it_back(&mut pair) {
        panic!("{why}\n{}", pair.logs());
    }
}

fn takes_it_back(pair: &mut Pair) -> Outcome<()> {
    let config = EXAMPLE.replacen(
        "interval = \"1s\"",
        "interval = \"1s\"\npreempt = true\npreempt_delay = \"5s\"",
        1,
    );
    for number in 0..2 {
        pair.configure(number, &config)?;
        pair.start_tandem(number)?;
    }
    pair.wait_settled(0, SETTLE_LIMIT)?;
    pair.make_schema()?;
    pair.servers[0].signal_node(Signal::SIGKILL)?;
    let load = pair.load()?;
    let at = Instant::now();
    pair.wait_settled(1, SETTLE_LIMIT)?;
    pair.wait_settled(0, Duration::from_secs(30))?;
    let after = at.elapsed();
    println!("server1 serves again after {after:?}");
    nothing_is_lost(pair, &load.finish()?)
}
