//! Virtual addresses: of both families, on any interface, labelled, deleted, claimed, announced.
//!
//! In: pairs with other `vip` lines than the scenario's. Out: laws of facts/vrrp.md 1.6, 1.7, 3.3
//! and 3.6, seen from a third host. Must not: need requests.

use std::net::Ipv4Addr;
use std::time::Duration;

use nix::sys::signal::Signal;
use tandem::net::arp::{Arp, Mac, Operation};

use crate::host::Host;
use crate::pair::{EXAMPLE, OUTSIDE_VIP, Pair, SETTLE_LIMIT};
use crate::wire::{Heard, Kind};
use crate::world::{Link, Outcome, wait_until};
use crate::{check, flavour, has_finding, on_a_pair, wire};

const OUTSIDE_V6: &str = "2001:db8:153::239";
const INSIDE_V6: &str = "2001:db8:3::150";
/// The first line that the front of an address answers.
const FETCH: &str =
    "exec 3<>/dev/tcp/$0/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -n 1 <&3";
const TAKEN_LIMIT: Duration = Duration::from_secs(5);

/// A pair in service with another configuration, and what `prepare` does to each server first.
fn on_a_pair_with(
    config: &str,
    prepare: impl Fn(&Host) -> Outcome<()>,
    law: impl FnOnce(&mut Pair) -> Outcome<()>,
) {
    let mut pair = Pair::new(flavour()).unwrap_or_else(|why| panic!("{why}"));
    let done = start_with(&mut pair, config, prepare).and_then(|()| law(&mut pair));
    if let Err(why) = done {
        panic!("{why}\n{}", pair.logs());
    }
}

fn start_with(
    pair: &mut Pair,
    config: &str,
    prepare: impl Fn(&Host) -> Outcome<()>,
) -> Outcome<()> {
    for number in 0..2 {
        prepare(&pair.servers[number].host)?;
        pair.configure(number, config)?;
        pair.start_tandem(number)?;
    }
    pair.wait_settled(0, SETTLE_LIMIT).map(drop)
}

fn with_ipv6() -> String {
    EXAMPLE
        .replacen(
            "[\"10.96.153.239/24\"]",
            &format!("[\"10.96.153.239/24\", \"fe80::50/64\", \"{OUTSIDE_V6}/64\"]"),
            1,
        )
        .replacen(
            "[\"192.168.3.150/24\"]",
            &format!("[\"192.168.3.150/24\", \"fe80::51/64\", \"{INSIDE_V6}/64\"]"),
            1,
        )
}

fn has_address(host: &Host, address: &str) -> bool {
    host.read(&["ip", "-o", "addr", "show"])
        .is_ok_and(|text| text.contains(&format!(" {address}/")))
}

/// Whom a host takes for an address: the hardware address in its neighbour table.
fn neighbour(host: &Host, link: Link, address: &str) -> String {
    let words = ["ip", "neigh", "show", address, "dev", link.device()];
    let line = host.read(&words).unwrap_or_default();
    let mut words = line.split_whitespace().skip_while(|word| *word != "lladdr");
    words.nth(1).unwrap_or_default().to_owned()
}

fn mac(host: &Host, link: Link) -> Outcome<String> {
    let shown = host.read(&["ip", "-o", "link", "show", link.device()])?;
    let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).map(str::to_owned).ok_or_else(|| format!("no hardware address: {shown}"))
}

#[test]
fn ipv6_addresses_move_with_the_others_and_neighbours_are_told() {
    on_a_pair_with(
        &with_ipv6(),
        |_| Ok(()),
        |pair| {
            let client = &pair.client;
            client.read(&["ip", "addr", "add", "2001:db8:153::1/64", "dev", "eth0", "nodad"])?;
            for (link, address) in [(Link::Outside, OUTSIDE_V6), (Link::Inside, INSIDE_V6)] {
                check(has_address(&pair.servers[0].host, address), || format!("no {address}"))?;
                check(!has_address(&pair.servers[1].host, address), || {
                    format!("{link:?}: {address} on both")
                })?;
            }
            // The front answers there, and the client knows whom it asked.
            let answer = client.read(&["bash", "-c", FETCH, OUTSIDE_V6])?;
            check(answer.starts_with("HTTP/1.1 "), || format!("the front says {answer:?}"))?;
            let first = mac(&pair.servers[0].host, Link::Outside)?;
            let known = neighbour(client, Link::Outside, OUTSIDE_V6);
            check(known == first, || format!("the client knows {known}, not {first}"))?;
            pair.servers[0].signal_node(Signal::SIGKILL)?;
            wait_until("server2 has the IPv6 addresses", TAKEN_LIMIT, || {
                let (one, other) = (&pair.servers[0].host, &pair.servers[1].host);
                [OUTSIDE_V6, INSIDE_V6, "fe80::50", "fe80::51"]
                    .iter()
                    .all(|address| has_address(other, address) && !has_address(one, address))
            })?;
            let second = mac(&pair.servers[1].host, Link::Outside)?;
            wait_until("the client was told", Duration::from_secs(2), || {
                neighbour(client, Link::Outside, OUTSIDE_V6) == second
            })?;
            pair.wait_settled(1, SETTLE_LIMIT).map(drop)
        },
    );
}

#[test]
fn an_ipv6_address_that_the_kernel_does_not_take_is_named() {
    on_a_pair_with(
        &with_ipv6(),
        |_| Ok(()),
        |pair| {
            let host = &pair.servers[0].host;
            let disable = "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6";
            host.read(&["bash", "-c", disable])?;
            wait_until("it is named", Duration::from_secs(5), || {
                has_finding(pair, 0, "vip-refused: the kernel does not take a virtual address")
            })?;
            check(pair.is_settled(0), || "the roles moved".into())?;
            let noted = host.log_text("tandem").matches("vip-refused").count();
            check(noted == 1, || format!("noted {noted} times"))?;
            host.read(&["bash", "-c", &disable.replace("echo 1", "echo 0")])?;
            wait_until("the address is back", Duration::from_secs(5), || {
                has_address(host, OUTSIDE_V6)
            })
            .map(drop)
        },
    );
}

#[test]
fn an_address_may_have_a_label_an_interface_and_a_prefix_of_its_own() {
    let config = EXAMPLE.replacen(
        "[\"10.96.153.239/24\"]",
        "[\"10.96.153.239/24\", { address = \"10.96.153.240/32\", label = \"eth0:shop\" }, \
         { address = \"172.30.1.5/28\", device = \"eth2\" }]",
        1,
    );
    let add_eth2 = |host: &Host| {
        host.read(&["ip", "link", "add", "eth2", "type", "veth", "peer", "name", "lan2"])?;
        host.read(&["ip", "link", "set", "eth2", "up"]).map(drop)
    };
    on_a_pair_with(&config, add_eth2, |pair| {
        let shown = |number: usize, device: &str| {
            pair.servers[number].host.read(&["ip", "-o", "-4", "addr", "show", "dev", device])
        };
        let eth0 = shown(0, "eth0")?;
        check(eth0.contains("inet 10.96.153.240/32") && eth0.contains("eth0:shop"), || eth0)?;
        let eth2 = shown(0, "eth2")?;
        check(eth2.contains("inet 172.30.1.5/28"), || eth2)?;
        pair.servers[0].signal_guard(Signal::SIGTERM)?;
        wait_until("server2 has them", TAKEN_LIMIT, || {
            let (one, other) = (&pair.servers[0].host, &pair.servers[1].host);
            ["10.96.153.240", "172.30.1.5"]
                .iter()
                .all(|address| has_address(other, address) && !has_address(one, address))
        })
        .map(drop)
    });
}

#[test]
fn a_deleted_address_is_put_back_at_once_and_reported_seldom() {
    on_a_pair(|pair| {
        let host = &pair.servers[0].host;
        let delete = ["ip", "addr", "del", "10.96.153.239/24", "dev", "eth0"];
        host.read(&delete)?;
        let after = wait_until("it is back", Duration::from_secs(1), || {
            has_address(host, "10.96.153.239")
        })?;
        println!("put back after {after:?}");
        // Somebody who insists: more often than it is repaired between two refreshes.
        for _ in 0..20 {
            let _gone_already = host.read(&delete);
        }
        wait_until("the finding is there", Duration::from_secs(3), || {
            has_finding(pair, 0, "vip-deleted: somebody else deleted 10.96.153.239/24")
        })?;
        wait_until("it is back", Duration::from_secs(1), || has_address(host, "10.96.153.239"))?;
        check(pair.is_settled(0), || "the roles moved".into())?;
        let noted = host.log_text("tandem").matches("vip-deleted").count();
        check(noted == 1, || format!("noted {noted} times"))
    });
}

#[test]
fn announcements_come_in_time_and_a_second_claimant_is_answered() {
    on_a_pair(|pair| {
        let client = &pair.client;
        let known = || neighbour(client, Link::Outside, "10.96.153.239");
        client.read(&["bash", "-c", FETCH, "10.96.153.239"])?;
        let first = mac(&pair.servers[0].host, Link::Outside)?;
        check(known() == first, || format!("the client knows {}, not {first}", known()))?;
        let took = |frames: &[Heard], mac: &str| -> Vec<Duration> {
            let is_own = |arp: &Arp| arp.sender == OUTSIDE_VIP && arp.sender_mac.to_string() == mac;
            let mut own = wire::arp(frames).filter(|(_, arp)| is_own(arp)).map(|(at, _)| at);
            let Some(start) = own.next() else { return Vec::new() };
            own.map(|at| at - start).collect()
        };
        let second = mac(&pair.servers[1].host, Link::Outside)?;
        let span = Duration::from_millis(5600);
        let heard = wire::hear(client, Link::Outside, Kind::Arp, span, || {
            pair.servers[0].signal_guard(Signal::SIGTERM)?;
            wait_until("the client was told", TAKEN_LIMIT, || known() == second).map(drop)
        })?;
        let times = took(&heard, &second);
        for second in [1, 2, 5] {
            // Both forms, a moment after each other.
            let due = Duration::from_secs(second);
            let near = times.iter().filter(|at| at.abs_diff(due) < Duration::from_millis(400));
            check(near.count() >= 2, || format!("no announcement after {due:?}: {times:?}"))?;
        }
        // Server1's port forges a machine that claims the address: the client believes it, and is
        // told again by the holder.
        let forger = Mac([2, 0x66, 0, 0, 0, 1]);
        let claim = Arp::announcement(forger, OUTSIDE_VIP).emit().to_vec();
        wire::send(&pair.servers[0].host, Link::Outside, &[claim])?;
        wait_until("the client knows the holder again", Duration::from_secs(2), || {
            known() == second
        })?;
        wait_until("the claimant is named", Duration::from_secs(3), || {
            has_finding(pair, 1, "address-conflict: outside: 02:66:00:00:00:01")
        })
        .map(drop)
    });
}

#[test]
fn an_address_that_a_stranger_answers_for_is_not_taken() {
    on_a_pair(|pair| {
        // The client is the stranger: it takes the address between two holders.
        for server in pair.servers.iter_mut().rev() {
            server.signal_guard(Signal::SIGTERM)?;
            wait_until("it has left", Duration::from_secs(20), || {
                server.host.ended("tandem").is_some()
            })?;
        }
        pair.client.read(&["ip", "addr", "add", "10.96.153.239/32", "dev", "eth0"])?;
        // The last source alone is entitled, and asks before it takes.
        pair.start_tandem(0)?;
        wait_until("the stranger is named", Duration::from_secs(30), || {
            // Any frame tells the host that its ports forward, so that it need not listen longer.
            let any = Arp::probe(Mac([2, 0x66, 0, 0, 0, 3]), Ipv4Addr::UNSPECIFIED).emit();
            let _heard = Link::ALL.map(|link| wire::send(&pair.client, link, &[any.to_vec()]));
            has_finding(pair, 0, "address-conflict: outside: 02:7a:00:00:09:00")
        })?;
        std::thread::sleep(TAKEN_LIMIT);
        check(pair.servers[0].holds_none(), || "it was taken all the same".into())?;
        pair.client.read(&["ip", "addr", "del", "10.96.153.239/32", "dev", "eth0"])?;
        wait_until("it is taken", TAKEN_LIMIT, || pair.servers[0].holds_all()).map(drop)
    });
}

#[test]
fn a_machine_that_uses_this_hosts_own_address_is_named() {
    on_a_pair(|pair| {
        let forged = Arp {
            operation: Operation::Reply,
            ..Arp::announcement(Mac([2, 0x66, 0, 0, 0, 2]), "192.168.3.100".parse().unwrap())
        };
        wire::send(&pair.client, Link::Inside, &[forged.emit().to_vec()])?;
        wait_until("it is named", Duration::from_secs(3), || {
            has_finding(pair, 0, "own-address-conflict: inside: 02:66:00:00:00:02 uses")
        })?;
        check(pair.is_settled(0), || "the roles moved".into())
    });
}

#[test]
fn the_gateway_is_asked_whether_it_sees_the_address() {
    let config = EXAMPLE.replacen("[link.outside]", "[link.outside]\ngateway = \"10.96.153.1\"", 1);
    on_a_pair_with(
        &config,
        |_| Ok(()),
        |pair| {
            check(!has_finding(pair, 0, "gateway"), || "it answers, and is blamed".into())?;
            // What a hypervisor does that knows nothing of the virtual address.
            let filter = |rule: &str| {
                let commands = [
                    "add table netdev t",
                    "add chain netdev t in { type filter hook ingress device eth0 priority 0; }",
                    rule,
                ];
                commands.iter().try_for_each(|it| pair.client.read(&["nft", it]).map(drop))
            };
            filter("add rule netdev t in arp saddr ip 10.96.153.239 drop")?;
            pair.servers[0].signal_guard(Signal::SIGTERM)?;
            wait_until("the drop is named", Duration::from_secs(20), || {
                has_finding(pair, 1, "vip-frames-blocked: outside: 10.96.153.1 answers this host")
            })?;
            pair.client.read(&["nft", "delete table netdev t"])?;
            wait_until("and forgotten", Duration::from_secs(40), || {
                !has_finding(pair, 1, "vip-frames-blocked")
            })
            .map(drop)
        },
    );
}
