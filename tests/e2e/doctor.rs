//! `tandem doctor` on real hosts, before tandem is started: sound ones, and each fault by its name.
//!
//! In: hosts, databases and php-fpm of a pair. Out: laws of the findings. Must not: start tandem.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::database;
use crate::host::text;
use crate::pair::{CONFIG, Pair};
use crate::world::Outcome;
use crate::{check, flavour};

const RULES: &str = "
add table inet guard
add chain inet guard input { type filter hook input priority 0; policy drop; }
add rule inet guard input ct state established,related accept
add rule inet guard input tcp dport { 22, 80, 3306, 9000 } accept
add rule inet guard input iifname eth1 meta l4proto vrrp accept
add rule inet guard input meta l4proto udp accept
";

#[test]
fn the_doctor_finds_what_would_keep_a_pair_from_working() {
    let pair = Pair::new(flavour()).unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = sound(&pair).and_then(|()| faults(&pair)) {
        panic!("{why}\n{}", pair.logs());
    }
}

/// What it says by `--json`, and how it ends.
fn examine(pair: &Pair) -> Outcome<(Vec<Value>, i32)> {
    let output = pair.servers[0].host.run(&["tandem", "doctor", "--json"])?;
    let said: Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let findings = said["findings"].as_array().cloned().ok_or("no list of findings")?;
    Ok((findings, output.status.code().unwrap_or(-1)))
}

fn sound(pair: &Pair) -> Outcome<()> {
    let path = pair.servers[0].host.path(CONFIG);
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(text)?;
    let (findings, code) = examine(pair)?;
    check(code == 0, || format!("a sound host: code {code}: {findings:?}"))
}

fn faults(pair: &Pair) -> Outcome<()> {
    let [one, other] = [&pair.servers[0].host, &pair.servers[1].host];
    let path = one.path(CONFIG);
    fs::set_permissions(path, Permissions::from_mode(0o644)).map_err(text)?;
    fs::write(one.path("/var/rules"), RULES).map_err(text)?;
    one.read(&["nft", "-f", "/var/rules"])?;
    let _taken =
        one.on_network(|| TcpListener::bind("0.0.0.0:80")).and_then(|it| it.map_err(text))?;
    one.read(&["ip", "addr", "add", "192.168.3.150/24", "dev", "eth1"])?;
    one.read(&["ip", "addr", "del", "10.96.153.110/24", "dev", "eth0"])?;
    database::ask(other, "SET GLOBAL sync_binlog=0")?;
    let (findings, code) = examine(pair)?;
    check(code == 2, || format!("a host with errors: code {code}"))?;
    let found: BTreeSet<&str> = findings.iter().filter_map(|it| it["id"].as_str()).collect();
    for id in [
        "secrets-readable",
        "firewalled",
        "port-taken",
        "address-held",
        "no-own-address",
        "not-durable",
    ] {
        check(found.contains(id), || format!("{id} is not found: {findings:?}"))?;
    }
    // VRRP may come in on eth1, and everything that is wanted beside it.
    let dropped: Vec<String> = findings
        .iter()
        .filter(|it| it["id"] == "firewalled")
        .map(|it| it["what"].to_string())
        .collect();
    check(dropped.len() == 1 && dropped[0].contains("VRRP from 10.96.153.114 on eth0"), || {
        format!("firewalled: {dropped:?}")
    })?;
    let shown = one.run(&["tandem", "doctor"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    check(shown.starts_with("error: ") && shown.contains("\n    do: "), || shown.clone())
}
