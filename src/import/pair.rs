//! Pair: what the old files say of each host alone becomes two hosts on two links.
//!
//! In: a draft with everything read. Out: the same with `[[host]]`, `[link]` and what is missing.
//! Must not: guess where a wrong guess would not be noticed: that is "FILL IN", and said.

use std::net::{IpAddr, Ipv4Addr};

use crate::units::Cidr;
use crate::wire::LinkId;

use super::draft::{Draft, Fact, Instance, Origin, Seen, Whose, quoted, shown};

pub(super) const FILL_IN: &str = "\"FILL IN\"";

pub(super) fn settle(draft: &mut Draft, key: &str) {
    let links = links(draft);
    for number in 0..2 {
        host(draft, number, &links);
    }
    priorities(draft, &links);
    for (id, instances) in LinkId::ALL.into_iter().zip(&links) {
        link(draft, id, instances);
    }
    preempt(draft, &links);
    protocol(draft);
    draft.fill("peer", "key", &quoted(key), "new: made by tandem import, the same on both hosts");
    accounts(draft);
}

/// By link: the instances of both hosts.
fn links(draft: &mut Draft) -> [Vec<Instance>; 2] {
    let mut links = [Vec::<Instance>::new(), Vec::new()];
    let instances = draft.instances.clone();
    let named: Vec<Option<usize>> = instances.iter().map(|it| named(draft, it)).collect();
    for (instance, named) in instances.into_iter().zip(named) {
        let host = instance.origin.host;
        let has = |link: &Vec<Instance>| link.iter().any(|it| it.origin.host == host);
        let is_twin = |link: &Vec<Instance>| {
            let vrid = |it: &Instance| it.vrid.as_ref().map(|it| it.0);
            let is_same = |it: &Instance| {
                (it.vrid.is_some() && vrid(it) == vrid(&instance)) || it.name == instance.name
            };
            link.iter().any(|it| it.origin.host != host && is_same(it))
        };
        let twin = links.iter().position(is_twin);
        let first_free = links.iter().position(|link| !has(link));
        let wanted = twin.or(named).filter(|&place| links.get(place).is_some_and(|it| !has(it)));
        let place = wanted.or(first_free);
        match place.and_then(|place| links.get_mut(place)) {
            Some(link) => link.push(instance),
            None => draft.left(
                &instance.origin,
                &format!("vrrp_instance {}", instance.name),
                "a pair has two links, which move together: add its addresses to vip of one",
            ),
        }
    }
    links
}

/// Which link the name of an instance means, or its addresses.
fn named(draft: &Draft, instance: &Instance) -> Option<usize> {
    let has = |list: &[Ipv4Addr]| {
        let is_listed = |address: IpAddr| list.iter().any(|it| IpAddr::from(*it) == address);
        instance.vips.iter().any(|vip| is_listed(vip.address.address))
    };
    let name = instance.name.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if has(&draft.writes_to) && !has(&draft.listens_on) {
        Some(1)
    } else if has(&draft.listens_on) || says(&["out", "ext", "pub", "wan", "front", "web", "www"]) {
        Some(0)
    } else if says(&["inside", "internal", "priv", "lan", "back", "db", "sql"]) {
        Some(1)
    } else {
        None
    }
}

fn host(draft: &mut Draft, number: usize, links: &[Vec<Instance>; 2]) {
    let table = format!("host/{number}");
    match draft.names.get(number).cloned() {
        Some(name) => {
            draft.fill(&table, "name", &quoted(&name), "as it was given to tandem import");
        }
        None => {
            draft.fill(&table, "name", FILL_IN, "the other host's name, as hostname(1) prints it")
        }
    }
    let found = links.iter().flatten().filter(|it| it.origin.host == number);
    let priorities: Vec<(u8, Origin)> = found.filter_map(|it| it.priority.clone()).collect();
    if let Some((priority, at)) = priorities.first() {
        draft.set(&table, "priority", (*priority).min(254).to_string(), at);
        if *priority == 255 {
            draft.warn(
                at,
                "priority 255",
                "owns the addresses and always takes them: 254 is taken",
            );
        }
        if let Some((other, other_at)) = priorities.iter().find(|it| it.0 != *priority) {
            let why = format!("both links move together: {priority} of line {} is taken", at.line);
            draft.warn(other_at, &format!("priority {other}"), &why);
        }
    }
    for (id, instances) in LinkId::ALL.into_iter().zip(links) {
        address(draft, number, id, instances);
    }
}

/// The host's own address on a link, if any file says it.
fn address(draft: &mut Draft, number: usize, id: LinkId, instances: &[Instance]) {
    let key = if id == LinkId::Outside { "outside" } else { "inside" };
    let table = format!("host/{number}");
    let mut remark = String::new();
    let vips: Vec<Cidr> = instances
        .iter()
        .flat_map(|it| &it.vips)
        .filter_map(|vip| match vip.address.address {
            IpAddr::V4(address) => {
                Some(Cidr { address, prefix: if vip.is_bare { 32 } else { vip.address.prefix } })
            }
            IpAddr::V6(_) => None,
        })
        .collect();
    let of_network = |it: &Seen| {
        let prefix = it.prefix?;
        let network = Cidr { address: it.address, prefix };
        vips.iter().any(|vip| network.contains(vip.address)).then_some(network)
    };
    let known = draft.seen.iter().find_map(of_network);
    let network = known.or_else(|| vips.iter().find(|vip| vip.prefix < 31).copied());
    let network = network.or_else(|| {
        remark = "FILL IN: whether /24 is its prefix, no file says it".to_owned();
        vips.first().map(|vip| Cidr { prefix: 24, ..*vip })
    });
    let Some(network) = network else {
        draft.fill(
            &table,
            key,
            FILL_IN,
            &format!("its own address on the {key} network, with its prefix"),
        );
        return;
    };
    let is_own = |it: &&Seen| {
        network.contains(it.address) && !vips.iter().any(|vip| vip.address == it.address)
    };
    let of = |host: usize| {
        let mine = |it: &&Seen| match &it.whose {
            Whose::Own(whose) => *whose == host,
            Whose::Other(whose) => *whose != host,
            Whose::Named(name) => draft.names.get(host) == Some(name),
        };
        draft.seen.iter().filter(is_own).find(mine)
    };
    let other = of(1 - number.min(1)).map(|it| it.address);
    let unnamed = |it: &&Seen| it.whose == Whose::Named(String::new()) && Some(it.address) != other;
    let rest = || {
        // One address of two databases is the other one's.
        other.and_then(|_| draft.seen.iter().filter(is_own).find(unnamed))
    };
    match of(number).or_else(rest).cloned() {
        Some(seen) => {
            let literal = quoted(&format!("{}/{}", seen.address, network.prefix));
            draft.set(&table, key, literal, &seen.origin);
            if let Some(fact) = draft.facts.last_mut() {
                fact.remark = remark;
            }
        }
        None => draft.fill(
            &table,
            key,
            FILL_IN,
            &format!(
                "its own address on the network of {}, with its prefix, /{}",
                network.address, network.prefix
            ),
        ),
    }
}

fn priorities(draft: &mut Draft, links: &[Vec<Instance>; 2]) {
    let of = |draft: &Draft, number: usize| {
        let table = format!("host/{number}");
        let fact = draft.facts.iter().find(|it| it.table == table && it.key == "priority")?;
        fact.literal.parse::<u8>().ok()
    };
    let (first, second) = (of(draft, 0), of(draft, 1));
    if let (Some(first), Some(second), Some(at)) =
        (first, second, links.iter().flatten().find(|it| it.origin.host == 1))
        && first == second
    {
        let lower = if first > 1 { first - 1 } else { 2 };
        let at = at.priority.as_ref().map_or_else(|| at.origin.clone(), |it| it.1.clone());
        let why = format!("both hosts have it: {lower} is written for the second one");
        draft.warn(&at, &format!("priority {second}"), &why);
        for fact in draft.facts.iter_mut().filter(|it| it.table == "host/1" && it.key == "priority")
        {
            fact.literal = lower.to_string();
        }
    }
    let remark = "no file says it: the higher one serves first";
    let usual = if first.or(second).is_some() { [FILL_IN; 2] } else { ["101", "100"] };
    for (table, usual) in ["host/0", "host/1"].into_iter().zip(usual) {
        draft.fill(table, "priority", usual, remark);
    }
    one_sided(draft, links);
}

/// What only one of two keepaliveds was told.
fn one_sided(draft: &mut Draft, links: &[Vec<Instance>; 2]) {
    let has_keepalived = |host: usize| links.iter().flatten().any(|it| it.origin.host == host);
    if !has_keepalived(0) || !has_keepalived(1) {
        return;
    }
    for key in ["version", "interval", "password", "transport"] {
        let of_key = |it: &&Fact| it.table == "vrrp" && it.key == key;
        let found: Vec<&Fact> = draft.facts.iter().filter(of_key).collect();
        if let [fact] = found.as_slice()
            && let Some(at) = fact.origin.clone()
        {
            let what = format!("{key} = {}", shown(key, &fact.literal));
            draft.warn(&at, &what, "only this host has it: it is written for both");
        }
    }
}

fn link(draft: &mut Draft, id: LinkId, instances: &[Instance]) {
    let table = format!("link.{id}");
    for instance in instances {
        if let Some((device, at)) = &instance.device {
            draft.set(&table, "device", quoted(device), at);
        }
        if let Some((vrid, at)) = &instance.vrid {
            draft.set(&table, "vrid", vrid.to_string(), at);
        }
        for vip in &instance.vips {
            draft.add(&table, "vip", vip.literal.clone(), &vip.origin);
        }
    }
    draft.fill(
        &table,
        "device",
        FILL_IN,
        &format!("the interface of the {id} network, as in \"eth0\""),
    );
    draft.fill(&table, "vrid", FILL_IN, "1 to 255, one that no other pair on this network has");
    let why = "a virtual address on this network, with its prefix";
    draft.fill(&table, "vip", "[\"FILL IN\"]", why);
}

/// keepalived takes the role back unless `nopreempt` stands at the host of higher priority; a
/// tandem only where it is told to.
fn preempt(draft: &mut Draft, links: &[Vec<Instance>; 2]) {
    let all: Vec<&Instance> = links.iter().flatten().collect();
    let hosts = |it: &&&Instance| it.is_master.is_some();
    let masters: Vec<&&Instance> = all.iter().filter(hosts).collect();
    for instance in &masters {
        if let (Some(at), Some(_)) = (&instance.is_master, &instance.nopreempt) {
            let why = "with state MASTER keepalived ignores nopreempt, so the role was taken back";
            draft.warn(at, "state MASTER", why);
        }
        let second = masters
            .iter()
            .find(|it| it.origin.host > instance.origin.host && it.name == instance.name);
        if let (Some(at), Some(second)) = (&instance.is_master, second) {
            let why = format!(
                "also on {}, line {}: both begin as master; a tandem always begins by listening",
                draft.names.get(second.origin.host).map_or("the other host", String::as_str),
                second.is_master.as_ref().map_or(0, |it| it.line)
            );
            draft.warn(at, "state MASTER", &why);
        }
    }
    let highest = all
        .iter()
        .max_by_key(|it| (it.priority.as_ref().map(|it| it.0), std::cmp::Reverse(it.origin.host)));
    let Some(highest) = highest else { return };
    if draft.names.len() < 2 && highest.is_master.is_none() {
        let why = "whether the role is taken back by itself (vrrp.preempt) is said by the host of \
                   higher priority: look into its file too";
        draft.warn(&highest.origin, &format!("vrrp_instance {}", highest.name), why);
        return;
    }
    if highest.nopreempt.is_none() || highest.is_master.is_some() {
        let at = &highest.origin;
        draft.set("vrrp", "preempt", "true".into(), at);
        draft.warn(
            at,
            "no nopreempt",
            "the host of higher priority takes the role back when it returns: as preempt = true \
             it does so as a planned switchover; without the line it waits for your switchover",
        );
    } else if let Some(place) =
        draft.facts.iter().position(|it| it.table == "vrrp" && it.key == "preempt_delay")
    {
        let fact = draft.facts.remove(place);
        if let Some(at) = fact.origin {
            draft.left(&at, "preempt_delay", "means nothing with nopreempt");
        }
    }
}

/// What version 2 and 3 can carry.
fn protocol(draft: &mut Draft) {
    let is_v3 =
        draft.facts.iter().any(|it| it.table == "vrrp" && it.key == "version" && it.literal == "3");
    let facts = std::mem::take(&mut draft.facts);
    for mut fact in facts {
        let at = fact.origin.clone().filter(|_| fact.table == "vrrp");
        match (at, fact.key) {
            (Some(at), "password") if is_v3 => {
                draft.left(&at, "auth_pass", "version 3 of VRRP carries no password");
                continue;
            }
            (Some(at), "interval") => {
                let text = fact.literal.trim_matches('"').to_owned();
                if let Some(ms) = text.strip_suffix("ms").and_then(|it| it.parse::<u64>().ok()) {
                    if !is_v3 {
                        let seconds = ms.div_ceil(1000);
                        fact.literal = quoted(&format!("{seconds}s"));
                        let why = format!("version 2 carries whole seconds: {seconds}s is written");
                        draft.warn(&at, &format!("advert_int of {ms} ms"), &why);
                    } else if ms < 267 {
                        let beacons = quoted(&format!("{}ms", (ms / 2).max(20)));
                        draft.fill(
                            "peer",
                            "interval",
                            &beacons,
                            "below three quarters of vrrp.interval",
                        );
                    }
                }
            }
            (_, _) => {}
        }
        draft.facts.push(fact);
    }
}

fn accounts(draft: &mut Draft) {
    for (key, what) in [
        ("user", "an account that administers both databases, from the inside network"),
        ("password", "its password"),
        ("replication_user", "the account that a replica logs in with; tandem makes it"),
        ("replication_password", "its password"),
    ] {
        draft.fill("repl", key, FILL_IN, what);
    }
    let users: Vec<String> = draft
        .facts
        .iter()
        .filter(|it| it.table.starts_with("sql.user/") && it.key == "name")
        .map(|it| it.table.clone())
        .collect();
    for table in &users {
        if !draft.has(table, "password_encrypted") {
            draft.fill(table, "password", FILL_IN, "its password, the same on both databases");
        }
    }
    if users.is_empty() {
        let what = "the account of the programs: it has to exist in the databases";
        draft.fill("sql.user/", "name", FILL_IN, what);
        draft.fill("sql.user/", "password", FILL_IN, "its password, the same on both databases");
    }
    if draft.has("sql", "admin_listen") {
        draft.fill("sql", "admin_password", FILL_IN, "the password of the admin port");
    }
    warn_of_root(draft);
}

/// read_only binds everybody but those with SUPER.
fn warn_of_root(draft: &mut Draft) {
    let is_root = |fact: &Fact| {
        let is_user = fact.table.starts_with("sql.user/") && fact.key == "name";
        is_user && fact.literal == quoted("root")
    };
    let found: Vec<Origin> = draft
        .facts
        .iter()
        .filter(|fact| is_root(fact))
        .filter_map(|fact| fact.origin.clone())
        .collect();
    for at in found {
        let why = "it can write to a database that is closed: give the programs an account \
                   without SUPER";
        draft.warn(&at, "root as the account of programs", why);
    }
}
