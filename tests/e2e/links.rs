//! Cables: pulled (the host sees it) and cut in silence (it does not), one at a time.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

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

#[test]
fn an_interface_that_is_made_anew_is_used_again() {
    on_a_pair(|pair| {
        let host = &pair.servers[1].host;
        pair.world.unplug("server2")?;
        wait_until("server1 misses server2", Duration::from_secs(5), || {
            pair.servers[0].status().is_ok_and(|it| it["peer"]["role"].is_null())
        })?;
        pair.world.plug("server2", host.identity().number, host.pid()?)?;
        let identity = host.identity();
        for (device, address) in [("eth0", identity.outside), ("eth1", identity.inside)] {
            host.read(&["ip", "addr", "add", address, "brd", "+", "dev", device])?;
            host.read(&["ip", "link", "set", device, "up"])?;
        }
        pair.wait_settled(0, SETTLE_LIMIT)?;
        // Only one that listens on the present interfaces takes over.
        pair.servers[0].signal_node(Signal::SIGKILL)?;
        taken_over(pair)
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
