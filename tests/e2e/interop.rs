//! A plain keepalived and a tandem, beyond the scenario's configuration: IPv6, unicast, preemption,
//! and every difference of the two configurations by its name.
//!
//! In: Debian's keepalived on server2, tandem on server1. Out: laws of facts/vrrp.md 1.1 to 1.4 and
//! 3.1 f. Must not: repeat `keepalived`, which has the scenario's own configuration.

use std::time::Duration;

use nix::sys::signal::Signal;
use tandem::net::arp::Arp;

use crate::foreign::{self, KEEPALIVED_PID, Timing};
use crate::host::text;
use crate::pair::{EXAMPLE, INSIDE_VIP, Pair};
use crate::wire::Kind;
use crate::world::{Link, Outcome, wait_until};
use crate::{check, flavour, has_finding, wire};

const CONF: &str = "/etc/keepalived.conf";
const TAKEN_LIMIT: Duration = Duration::from_secs(10);
/// Longer than an election would take.
const QUIET: Duration = Duration::from_secs(5);

/// Tandem's configuration beside a keepalived.
fn beside_keepalived(changes: &[(&str, &str)]) -> String {
    let text = EXAMPLE.replacen("[peer] ", "[peer]\nkind = \"keepalived\" ", 1);
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is in the example");
        text.replacen(from, to, 1)
    })
}

/// A pair with nothing started that speaks VRRP: tandem is server1, of priority 101.
fn on_hosts(tandem: &str, keepalived: &str, law: impl FnOnce(&mut Pair) -> Outcome<()>) {
    let mut pair = Pair::new(flavour()).unwrap_or_else(|why| panic!("{why}"));
    let prepare = || {
        pair.configure(0, tandem)?;
        std::fs::write(pair.servers[1].host.path(CONF), keepalived).map_err(text)
    };
    if let Err(why) = prepare().and_then(|()| law(&mut pair)) {
        panic!("{why}\n{}", pair.logs());
    }
}

/// The scenario's keepalived.conf with `changes`, priority 100.
fn scenario(changes: &[(&str, &str)]) -> String {
    let conf = foreign::conf(&Timing::V2, 100);
    changes.iter().fold(conf, |conf, (from, to)| {
        assert!(conf.contains(from), "{from:?} is in {conf}");
        conf.replace(from, to)
    })
}

fn start_keepalived(pair: &mut Pair) -> Outcome<()> {
    foreign::start(&mut pair.servers[1].host)
}

fn wait_holder(pair: &Pair, holder: usize, limit: Duration) -> Outcome<()> {
    let what = format!("{} alone has the addresses", pair.servers[holder].name());
    wait_until(&what, limit, || {
        pair.servers[holder].holds_all() && pair.servers[1 - holder].holds_none()
    })
    .map(drop)
}

fn has_address(pair: &Pair, number: usize, address: &str) -> bool {
    let words = ["ip", "-o", "addr", "show"];
    let shown = pair.servers[number].host.read(&words);
    shown.is_ok_and(|shown| shown.contains(&format!(" {address}/")))
}

/// Keepalived serves first, tandem takes over when it ends and keeps what it has.
fn tandem_follows_and_leads(pair: &mut Pair) -> Outcome<()> {
    start_keepalived(pair)?;
    wait_holder(pair, 1, TAKEN_LIMIT)?;
    pair.start_tandem(0)?;
    wait_until("tandem is standby", TAKEN_LIMIT, || pair.servers[0].role() == "standby")?;
    std::thread::sleep(QUIET);
    wait_holder(pair, 1, Duration::from_millis(1))?;
    pair.servers[1].host.signal(KEEPALIVED_PID, Signal::SIGTERM)?;
    wait_holder(pair, 0, Duration::from_secs(2))?;
    std::thread::sleep(Duration::from_secs(2));
    start_keepalived(pair)?;
    std::thread::sleep(QUIET);
    wait_holder(pair, 0, Duration::from_millis(1))?;
    pair.servers[0].signal_guard(Signal::SIGTERM)?;
    wait_holder(pair, 1, Duration::from_secs(2))
}

#[test]
fn version_3_over_both_families_moves_all_addresses_both_ways() {
    let tandem = beside_keepalived(&[
        ("version = 2", "version = 3"),
        ("password = \"3489\"\n", ""),
        ("[\"10.96.153.239/24\"]", "[\"10.96.153.239/24\", \"fe80::50/64\"]"),
        ("\"192.168.3.150/24\"]", "\"192.168.3.150/24\", \"fe80::51/64\", \"fd00:3::150/64\"]"),
    ]);
    let instance = |name: &str, device: &str, vrid: u8, vips: &str| {
        format!(
            "vrrp_instance {name} {{\n state BACKUP\n interface {device}\n \
             virtual_router_id {vrid}\n priority 100\n advert_int 1\n \
             virtual_ipaddress {{\n {vips}\n }}\n}}\n"
        )
    };
    let keepalived = format!(
        "global_defs {{\n vrrp_version 3\n}}\nvrrp_sync_group vg {{\n group {{\n in4\n in6\n \
         out4\n out6\n }}\n}}\n{}{}{}{}",
        instance("in4", "eth1", 51, "192.168.3.150/24"),
        instance("in6", "eth1", 51, "fe80::51/64\n fd00:3::150/64"),
        instance("out4", "eth0", 50, "10.96.153.239/24"),
        instance("out6", "eth0", 50, "fe80::50/64"),
    );
    on_hosts(&tandem, &keepalived, |pair| {
        tandem_follows_and_leads(pair)?;
        let all = ["fe80::50", "fe80::51", "fd00:3::150"];
        check(all.iter().all(|address| has_address(pair, 1, address)), || {
            "keepalived lacks an IPv6 address".into()
        })?;
        check(!all.iter().any(|address| has_address(pair, 0, address)), || {
            "tandem kept an IPv6 address".into()
        })?;
        let said = pair.servers[1].host.log_text("keepalived");
        check(!said.contains("bogus") && !said.contains("invalid"), || said.clone())
    });
}

#[test]
fn unicast_peers_understand_each_other() {
    let unicast = |own: &str, peer: &str| {
        format!("advert_int 1\n unicast_src_ip {own}\n unicast_peer {{\n {peer}\n }}\n")
    };
    let keepalived = scenario(&[]);
    let (inside, outside) = keepalived.split_at(keepalived.rfind("vrrp_instance").unwrap_or(0));
    let keepalived = format!(
        "{}{}",
        inside.replace("advert_int 1\n", &unicast("192.168.3.101", "192.168.3.100")),
        outside.replace("advert_int 1\n", &unicast("10.96.153.114", "10.96.153.110")),
    );
    let tandem = beside_keepalived(&[("[vrrp] ", "[vrrp]\ntransport = \"unicast\" ")]);
    on_hosts(&tandem, &keepalived, |pair| {
        // Nothing of it goes to the group.
        for server in ["server1", "server2"] {
            for link in Link::ALL {
                pair.world.filter_multicast(server, link, true)?;
            }
        }
        tandem_follows_and_leads(pair)
    });
}

#[test]
fn the_higher_priority_takes_the_role_back_only_if_it_is_told_to() {
    let tandem = beside_keepalived(&[(
        "interval = \"1s\"",
        "interval = \"1s\"\npreempt = true\npreempt_delay = \"6s\"",
    )]);
    on_hosts(&tandem, &scenario(&[]), |pair| {
        start_keepalived(pair)?;
        wait_holder(pair, 1, TAKEN_LIMIT)?;
        pair.start_tandem(0)?;
        wait_until("tandem is standby", TAKEN_LIMIT, || pair.servers[0].role() == "standby")?;
        std::thread::sleep(Duration::from_secs(4));
        wait_holder(pair, 1, Duration::from_millis(1))?;
        wait_holder(pair, 0, Duration::from_secs(5))?;
        std::thread::sleep(QUIET);
        wait_holder(pair, 0, Duration::from_millis(1))
    });
}

/// A difference keeps tandem from believing what it hears: it is named, and nothing is taken while
/// the other host lives and answers for the addresses.
#[test]
fn every_difference_of_the_configurations_is_named_and_moves_nothing() {
    let cases = [
        ("auth_pass 3489", "auth_pass 1234", "password-differs: outside: VRRP from server2"),
        ("advert_int 1\n", "advert_int 2\n", "interval-differs: inside: VRRP from server2"),
        (
            "authentication {\n auth_type PASS\n auth_pass 3489\n }\n",
            "",
            "password-differs: inside",
        ),
        ("vrrp_version 2", "vrrp_version 3", "version-differs: outside: VRRP from server2"),
        ("192.168.3.150/24", "192.168.3.150/24\n 192.168.3.151/24", "vips-differ: inside: server2"),
    ];
    let tandem = beside_keepalived(&[]);
    on_hosts(&tandem, &scenario(&[]), |pair| {
        for (from, to, finding) in cases {
            let conf = scenario(&[(from, to)]);
            std::fs::write(pair.servers[1].host.path(CONF), conf).map_err(text)?;
            start_keepalived(pair)?;
            wait_until("keepalived serves", TAKEN_LIMIT, || pair.servers[1].holds_all())?;
            pair.start_tandem(0)?;
            wait_until(finding, Duration::from_secs(15), || has_finding(pair, 0, finding))
                .map_err(|why| format!("{why}: {:?}", pair.servers[0].status()))?;
            std::thread::sleep(QUIET);
            check(pair.servers[0].holds_none(), || format!("{finding}: tandem took all the same"))?;
            pair.servers[0].signal_guard(Signal::SIGTERM)?;
            pair.servers[1].host.signal(KEEPALIVED_PID, Signal::SIGTERM)?;
            wait_until("both have ended", TAKEN_LIMIT, || {
                let mut ended =
                    |number: usize, name| pair.servers[number].host.ended(name).is_some();
                ended(0, "tandem") && ended(1, "keepalived")
            })?;
        }
        Ok(())
    });
}

/// What the two put on the wire in the same place differs in the sender alone, and in the priority
/// of a host that serves.
#[test]
fn what_is_on_the_wire_is_keepaliveds_to_the_byte() {
    on_hosts(&beside_keepalived(&[]), &scenario(&[]), |pair| {
        let keepalived = takeover(pair, 1, start_keepalived)?;
        pair.start_tandem(0)?;
        wait_until("tandem is standby", TAKEN_LIMIT, || pair.servers[0].role() == "standby")?;
        let tandem =
            takeover(pair, 0, |pair| pair.servers[1].host.signal(KEEPALIVED_PID, Signal::SIGTERM))?;
        check(wire::priority(&tandem[0]) == Some(254), || format!("{:02x?}", tandem[0]))?;
        // Ethernet source; IPv4 identification, checksum and source; VRRP priority and checksum.
        let vrrp = [6..12, 18..20, 24..26, 26..30, 36..37, 40..42];
        // Ethernet source and the sender's hardware address.
        let arp = [6..12, 22..28];
        for (place, masks) in [&vrrp[..], &arp[..]].into_iter().enumerate() {
            let [ours, theirs] = [&tandem, &keepalived].map(|frames| {
                let mut frame = frames[place].clone();
                masks.iter().for_each(|mask| frame[mask.clone()].fill(0));
                frame
            });
            check(ours == theirs, || format!("{ours:02x?}\n{theirs:02x?}"))?;
        }
        Ok(())
    });
}

/// The first advertisement and the first announcement that `server` sends inside once `act` makes
/// it Master.
fn takeover(
    pair: &mut Pair,
    server: usize,
    act: impl FnOnce(&mut Pair) -> Outcome<()> + Send,
) -> Outcome<[Vec<u8>; 2]> {
    let listener = pair.client.network()?;
    let (mut vrrp, mut arp) = (Vec::new(), Vec::new());
    let brief = Duration::from_millis(200);
    vrrp.extend(wire::hear_in(&listener, Link::Inside, Kind::Vrrp, brief, || {
        arp.extend(wire::hear_in(&listener, Link::Inside, Kind::Arp, brief, || {
            act(pair)?;
            wait_holder(pair, server, TAKEN_LIMIT)
        })?);
        Ok(())
    })?);
    let source = [192, 168, 3, 100 + u8::try_from(server).unwrap_or(0)];
    let is_own = |frame: &&Vec<u8>| frame[26..30] == source && wire::priority(frame) != Some(0);
    let advertisement = vrrp.iter().map(|(_, frame)| frame).find(is_own);
    let announcement = arp.iter().map(|(_, frame)| frame).find(|frame| {
        Arp::parse(frame).is_some_and(|arp| arp.sender == INSIDE_VIP && arp.target == INSIDE_VIP)
    });
    match (advertisement, announcement) {
        (Some(advertisement), Some(announcement)) => {
            Ok([advertisement.clone(), announcement.clone()])
        }
        _ => Err(format!("{} frames of VRRP, {} of ARP", vrrp.len(), arp.len())),
    }
}
