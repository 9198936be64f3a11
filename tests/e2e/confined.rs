//! What is left of root's rights to the process that reads what strangers send.
//!
//! In: a pair in service. Out: rights, as the kernel tells them; a failover of hosts whose daemon
//! was started with three capabilities. Must not: become that process.
//! Read first: src/os/confine.rs; proc(5), /proc/PID/status; capabilities(7).

use crate::host::Host;
use crate::pair::{GUARD_PID, NODE_PID, Pair, SETTLE_LIMIT};
use crate::world::{Outcome, wait_until};
use crate::{check, flavour, on_a_pair};

const DAC_OVERRIDE: u64 = 1 << 1;
/// CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW.
const THREE: u64 = 1 << 10 | 1 << 12 | 1 << 13;
const START_WITH_THREE: [&str; 4] = [
    "setpriv",
    "--inh-caps=-all",
    "--bounding-set=-all,+net_bind_service,+net_admin,+net_raw",
    "--",
];

#[test]
fn the_node_keeps_four_capabilities_and_a_filter_of_calls() {
    on_a_pair(|pair| {
        for server in &pair.servers {
            has_rights(&server.host, THREE | DAC_OVERRIDE)?;
            let guard = status(&server.host, &format!("$(cat {GUARD_PID})"))?;
            let effective = bits(&guard, "CapEff")?;
            check(effective & !(THREE | DAC_OVERRIDE) != 0, || format!("the guard: {guard}"))?;
        }
        Ok(())
    });
}

#[test]
fn three_capabilities_are_enough_to_start_with() {
    let mut pair = Pair::new(flavour()).expect("two hosts");
    pair.start_by(&START_WITH_THREE);
    let job = |pair: &mut Pair| {
        for number in 0..2 {
            pair.start_tandem(number)?;
        }
        pair.wait_settled(0, SETTLE_LIMIT)?;
        pair.servers.iter().try_for_each(|server| has_rights(&server.host, THREE))?;
        pair.power_off(0)?;
        wait_until("server2 takes over", SETTLE_LIMIT, || {
            pair.servers[1].role() == "active" && pair.servers[1].holds_all()
        })?;
        pair.power_on(0)?;
        pair.wait_settled(1, SETTLE_LIMIT).map(drop)
    };
    job(&mut pair).unwrap_or_else(|why| panic!("{why}\n{}", pair.logs()));
}

/// Every thread of the node has these rights, and its children can get no more.
fn has_rights(host: &Host, rights: u64) -> Outcome<()> {
    let threads = host.read(&["bash", "-c", &format!("ls /proc/$(cat {NODE_PID})/task")])?;
    check(!threads.trim().is_empty(), || "a node without threads".into())?;
    for thread in threads.split_whitespace() {
        let told = status(host, &format!("$(cat {NODE_PID})/task/{thread}"))?;
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            check(bits(&told, set)? == rights, || format!("{set} is not {rights:#x}: {told}"))?;
        }
        for (name, value) in [("CapInh", 0), ("NoNewPrivs", 1), ("Seccomp", 2)] {
            check(bits(&told, name)? == value, || format!("{name} is not {value}: {told}"))?;
        }
    }
    Ok(())
}

fn status(host: &Host, process: &str) -> Outcome<String> {
    host.read(&["bash", "-c", &format!("cat /proc/{process}/status")])
}

fn bits(status: &str, name: &str) -> Outcome<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = line.ok_or_else(|| format!("no {name}: {status}"))?;
    u64::from_str_radix(value.trim(), 16).map_err(crate::host::text)
}
