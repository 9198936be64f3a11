//! Cables: pulled (the host sees it) and cut in silence (it does not), one at a time.

use std::time::{Duration, Instant};

use crate::faults::nothing_is_lost;
use crate::load::{Kind, Rates};
use crate::pair::{Pair, SETTLE_LIMIT};
use crate::world::{Link, Outcome, wait_until};
use crate::{check, on_a_pair};

/// Long enough for an election, had there been one.
const ELECTION: Duration = Duration::from_secs(6);

#[test]
fn the_outside_cable_pulled_moves_the_role_and_loses_nothing() {
    on_a_pair(|pair| {
        let load = pair.load()?;
        std::thread::sleep(Duration::from_secs(2));
        let at = Instant::now();
        pair.pull(0, &[Link::Outside])?;
        taken_over(pair)?;
        wait_until("a write succeeds", Duration::from_secs(5), || load.has_good(Kind::Write, at))?;
        pair.replug(0, &[Link::Outside])?;
        pair.wait_settled(1, SETTLE_LIMIT)?;
        nothing_is_lost(pair, &load.finish()?)
    });
}

#[test]
fn the_inside_cable_pulled_moves_the_role() {
    on_a_pair(|pair| {
        // No writes: what was acknowledged in the moment of the cut may not have been sent.
        let load = pair.load_at(Rates { writes: 0, ..Rates::STEADY })?;
        std::thread::sleep(Duration::from_secs(2));
        let at = Instant::now();
        pair.pull(0, &[Link::Inside])?;
        taken_over(pair)?;
        wait_until("a read succeeds", Duration::from_secs(5), || load.has_good(Kind::Read, at))?;
        pair.replug(0, &[Link::Inside])?;
        pair.wait_settled(1, SETTLE_LIMIT)?;
        load.finish()?;
        check(pair.two_holders().is_zero(), || format!("two holders: {:?}", pair.two_holders()))
    });
}

#[test]
fn one_link_cut_in_silence_moves_nobody() {
    on_a_pair(|pair| {
        for link in Link::ALL {
            pair.world.mute("server2", link, true)?;
            std::thread::sleep(ELECTION);
            check(pair.servers[0].holds_all() && pair.servers[1].holds_none(), || {
                format!("{link:?} cut: {:?}, {:?}", pair.servers[0].held(), pair.servers[1].held())
            })?;
            pair.world.mute("server2", link, false)?;
            pair.wait_settled(0, SETTLE_LIMIT)?;
        }
        check(pair.two_holders().is_zero(), || format!("two holders: {:?}", pair.two_holders()))
    });
}

fn taken_over(pair: &Pair) -> Outcome<()> {
    wait_until("server2 has the addresses, server1 none", Duration::from_secs(5), || {
        pair.servers[1].holds_all() && pair.servers[0].holds_none()
    })
    .map_err(|why| {
        format!("{why}: {}; {}", pair.servers[0].summary(), pair.servers[1].summary())
    })?;
    wait_until("server2 is the source", Duration::from_secs(10), || {
        pair.servers[1].status().is_ok_and(|it| it["database"]["state"] == "source")
    })
    .map(drop)
}
