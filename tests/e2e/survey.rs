//! `tandem check --live`: what can be seen of the network before anything serves.
//!
//! In: hosts on which tandem does not run. Out: each trouble by its name and exit code 1; none, and
//! exit code 0. Must not: find fault with a network that has none.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::foreign::{self, KEEPALIVED_PID, Timing};
use crate::pair::{CONFIG, EXAMPLE, Pair};
use crate::world::{Link, Outcome, wait_until};
use crate::{check, flavour};

/// Exit code and output of `tandem check --live` on server1.
fn look(pair: &Pair) -> Outcome<(Option<i32>, String)> {
    let words = ["tandem", "check", "--live", CONFIG];
    let output = pair.servers[0].host.run_within(Duration::from_secs(30), &words)?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

fn finds(pair: &Pair, finding: &str) -> Outcome<()> {
    let (code, said) = look(pair)?;
    check(code == Some(1) && said.contains(finding), || format!("no {finding:?}, {code:?}: {said}"))
}

fn finds_nothing(pair: &Pair) -> Outcome<()> {
    let (code, said) = look(pair)?;
    check(code == Some(0) && said.contains("nothing is wrong"), || format!("{code:?}: {said}"))?;
    check(said.contains("the gateway answers own and virtual addresses"), || said.clone())
}

fn nft(pair: &Pair, on_client: bool, commands: &[&str]) -> Outcome<()> {
    let host = if on_client { &pair.client } else { &pair.servers[0].host };
    commands.iter().try_for_each(|command| host.read(&["nft", command]).map(drop))
}

#[test]
fn a_check_of_the_network_names_what_is_wrong_before_anything_serves() {
    let mut pair = Pair::new(flavour()).unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = troubles(&mut pair) {
        panic!("{why}\n{}", pair.logs());
    }
}

fn troubles(pair: &mut Pair) -> Outcome<()> {
    let config = EXAMPLE.replacen("[link.outside]", "[link.outside]\ngateway = \"10.96.153.1\"", 1);
    pair.configure(0, &config)?;
    finds_nothing(pair)?;

    pair.pull(0, &[Link::Inside])?;
    finds(pair, "no-carrier: inside: eth1 has no carrier: look at the cable")?;
    pair.replug(0, &[Link::Inside])?;

    pair.client.read(&["ip", "addr", "add", "192.168.3.150/32", "dev", "eth1"])?;
    finds(pair, "address-conflict: inside: 02:7a:00:00:09:01, which is not the peer, answers")?;
    pair.client.read(&["ip", "addr", "del", "192.168.3.150/32", "dev", "eth1"])?;

    let chain = "add chain netdev t in { type filter hook ingress device eth0 priority 0; }";
    let drop = "add rule netdev t in arp saddr ip 10.96.153.239 drop";
    nft(pair, true, &["add table netdev t", chain, drop])?;
    finds(
        pair,
        "vip-frames-blocked: outside: 10.96.153.1 answers this host's own address and not",
    )?;
    nft(pair, true, &["delete table netdev t"])?;

    pair.world.mute("server2", Link::Inside, true)?;
    finds(pair, "inside: server2 does not answer ARP for 192.168.3.101")
        .or_else(|_| finds(pair, "link-silent: inside: eth1 is up but nothing was received"))?;
    pair.world.mute("server2", Link::Inside, false)?;

    // The peer still runs keepalived, with another password, behind this host's own firewall.
    foreign::configure(&pair.servers[1].host, &Timing::V2, 100)?;
    foreign::start(&mut pair.servers[1].host)?;
    wait_until("keepalived serves", Duration::from_secs(10), || pair.servers[1].holds_all())?;
    pair.configure(0, &config.replacen("\"3489\"", "\"4711\"", 1))?;
    finds(pair, "password-differs: outside: VRRP from server2 is ignored")?;
    let chain = "add chain ip t in { type filter hook input priority 0; }";
    nft(pair, false, &["add table ip t", chain, "add rule ip t in ip protocol 112 drop"])?;
    finds(pair, "vrrp-firewalled: inside: VRRP from server2 arrives on eth1 and the local")?;
    nft(pair, false, &["delete table ip t"])?;
    pair.servers[1].host.signal(KEEPALIVED_PID, Signal::SIGTERM)?;

    // Somebody else's installation with our VRIDs.
    foreign::configure(&pair.client, &Timing::V2, 50)?;
    foreign::start(&mut pair.client)?;
    let client_serves = || {
        let shown = pair.client.read(&["ip", "-o", "addr", "show"]);
        shown.is_ok_and(|shown| shown.contains("10.96.153.239/"))
    };
    wait_until("the stranger serves", Duration::from_secs(10), client_serves)?;
    pair.configure(0, &config)?;
    finds(pair, "vrid-taken: outside: 10.96.153.1, which is not the peer, advertises VRID 50")?;
    pair.client.signal(KEEPALIVED_PID, Signal::SIGTERM)?;

    // A daemon that runs knows all this, and its sockets are not to be shared.
    pair.start_tandem(0)?;
    wait_until("tandem runs", Duration::from_secs(10), || pair.servers[0].status().is_ok())?;
    finds(pair, "another tandem runs on this host")
}
