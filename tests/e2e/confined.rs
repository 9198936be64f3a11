//! What is left of root's rights to the process that reads what strangers send.
//!
//! In: a pair in service. Out: rights, as the kernel tells them; a failover of hosts whose daemon
//! was started with three capabilities. Must not: become that process.
//! Read first: src/os/confine.rs; proc(5), /proc/PID/status; capabilities(7).

use crate::host::Host;
use crate::pair::{CONFIG, EXAMPLE, GUARD_PID, NODE_PID, Pair, SETTLE_LIMIT};
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

/// The file is behind a link, and of a group of its own, as people have it.
#[test]
fn a_configuration_behind_a_link_is_saved() {
    on_a_pair(|pair| {
        pair.stop_tandem(1)?;
        let admin = "[sql]\nadmin_listen = [\"127.0.0.1:2345\"]\nadmin_password = \"secret\"\n# ";
        pair.configure(1, &EXAMPLE.replacen("[sql]", admin, 1))?;
        let host = &pair.servers[1].host;
        let link = format!(
            "mkdir /etc/pair && mv {CONFIG} /etc/pair/ && ln -s /etc/pair/tandem.toml {CONFIG} && \
             chgrp games /etc/pair/tandem.toml && chmod 640 /etc/pair/tandem.toml"
        );
        host.read(&["bash", "-c", &link])?;
        pair.start_tandem(1)?;
        let host = &pair.servers[1].host;
        let order =
            "mysql -h127.0.0.1 -P2345 -uadmin -psecret -e 'ADD CLIENT 127.0.0.1; SAVE CONFIG'";
        let mut said = String::new();
        wait_until("the configuration is saved", SETTLE_LIMIT, || {
            let saved = host.read(&["bash", "-c", order]);
            said = saved.as_ref().err().cloned().unwrap_or_default();
            saved.is_ok()
        })
        .map_err(|why| format!("{why}: {said}"))?;
        let file = host.read(&["bash", "-c", "stat -c '%a %U %G' /etc/pair/tandem.toml"])?;
        check(file.trim() == "640 root games", || format!("of {file}"))?;
        let text = host.read(&["cat", CONFIG])?;
        check(text.contains("clients = [\"127.0.0.1\"]"), || text)
    });
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
