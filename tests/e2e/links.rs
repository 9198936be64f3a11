//! Interfaces that go and come back. Cables and switches: `stories::links`.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::on_a_pair;
use crate::pair::{Pair, SETTLE_LIMIT};
use crate::world::{Outcome, wait_until};

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
