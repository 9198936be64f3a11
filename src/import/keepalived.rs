//! keepalived: its virtual routers, and what became of the rest.
//!
//! In: keepalived.conf with what it includes. Out: instances, facts of `[vrrp]`, addresses, notes.
//! Must not: choose which instance is which link (see `pair`).
//! Read first: keepalived.conf(5); facts/vrrp.md.

use std::collections::BTreeMap;

use crate::units::IpCidr;

use super::draft::{Draft, Instance, Origin, Vip, Whose, quoted};
use super::tree::{self, Statement, Style};

pub(super) fn read(draft: &mut Draft, at: &Origin, files: &BTreeMap<String, String>) {
    for statement in tree::load(draft, at, Style::Lines, files) {
        match statement.name() {
            "vrrp_instance" => instance(draft, &statement),
            "vrrp_sync_group" => group(draft, &statement),
            "global_defs" => global(draft, &statement),
            name => {
                let why = top(name);
                draft.left(&statement.origin, &statement.shown(), why);
            }
        }
    }
}

fn top(name: &str) -> &'static str {
    match name {
        "vrrp_script" => {
            "tandem checks php-fpm, the database and both networks by itself, without scripts"
        }
        "track_file" | "vrrp_track_process" | "vrrp_track_file" | "bfd_instance" => {
            "tandem knows by itself what runs on both hosts"
        }
        "virtual_server" | "virtual_server_group" | "real_server" => {
            "LVS is not replaced: PHP is balanced by [web], SQL by [sql]; keep it elsewhere"
        }
        "static_ipaddress" | "static_routes" | "static_rules" => {
            "belongs to the network's own configuration of the host"
        }
        "linkbeat_use_polling" => "the kernel tells tandem of carrier at once",
        "net_namespace" | "instance" => "start tandem in that network namespace instead",
        name if name.starts_with('$') => {
            "definitions are not expanded: write their value where they are used"
        }
        name if name.starts_with('@') => {
            "conditions on the host are not read: give each host's file as that host has it"
        }
        _ => "tandem does not know it: see keepalived.conf(5) whether you need it",
    }
}

fn global(draft: &mut Draft, global: &Statement) {
    for statement in global.inner() {
        let at = &statement.origin;
        match statement.name() {
            "vrrp_version" => version(draft, statement),
            name => {
                let why = match name {
                    "notification_email"
                    | "notification_email_from"
                    | "smtp_server"
                    | "smtp_connect_timeout"
                    | "smtp_helo_name"
                    | "smtp_alert" => "tandem sends no mail: watch [console] syslog or metrics",
                    "router_id" | "lvs_id" => "a host is known by the name in [[host]]",
                    "script_user" | "enable_script_security" => "tandem runs no scripts",
                    "vrrp_skip_check_adv_addr"
                    | "vrrp_strict"
                    | "vrrp_iptables"
                    | "vrrp_mcast_group4"
                    | "vrrp_mcast_group6" => "tandem follows the standard's values here",
                    name if name.starts_with("vrrp_garp") || name.starts_with("vrrp_gna") => {
                        "tandem announces each address at once and repeats it by itself"
                    }
                    name if name.starts_with("vrrp_") || name.starts_with("checker_") => {
                        "tandem schedules itself"
                    }
                    _ => "of keepalived alone",
                };
                draft.left(at, &statement.shown(), why);
            }
        }
    }
}

fn version(draft: &mut Draft, statement: &Statement) {
    match statement.value() {
        text @ ("2" | "3") => draft.set("vrrp", "version", text.to_owned(), &statement.origin),
        _ => draft.error(&statement.origin, "version 2 or 3"),
    }
}

fn group(draft: &mut Draft, group: &Statement) {
    for statement in group.inner() {
        let at = &statement.origin;
        match statement.name() {
            // Both links always move together.
            "group" => {}
            name if name.starts_with("notify") => notify(draft, statement),
            "smtp_alert"
            | "global_tracking"
            | "track_script"
            | "track_interface"
            | "sync_group_tracking_weight" => {
                draft.left(at, &statement.shown(), "tandem watches both links by itself");
            }
            _ => draft.left(at, &statement.shown(), "tandem does not know it"),
        }
    }
}

fn notify(draft: &mut Draft, statement: &Statement) {
    let why = match statement.name() {
        "notify_master" => {
            "promotion is built in, and comes before the addresses; other work has no place"
        }
        "notify_backup" | "notify_fault" | "notify_stop" | "notify_deleted" => {
            "closing the database is built in; other work has no place"
        }
        _ => "what changes is told by `tandem log`, syslog and metrics; no script is run",
    };
    draft.left(&statement.origin, &statement.shown(), why);
}

fn instance(draft: &mut Draft, block: &Statement) {
    let mut it = Instance {
        name: block.value().to_owned(),
        origin: block.origin.clone(),
        device: None,
        vrid: None,
        priority: None,
        vips: Vec::new(),
        is_master: None,
        nopreempt: None,
    };
    if block.block.is_none() {
        draft.error(&block.origin, "{ after the name of the instance");
    }
    for statement in block.inner() {
        let at = &statement.origin;
        match statement.name() {
            "state" => match statement.value() {
                "MASTER" => it.is_master = Some(at.clone()),
                "BACKUP" => {}
                _ => draft.error(at, "state MASTER or BACKUP"),
            },
            "interface" => it.device = Some((statement.value().to_owned(), at.clone())),
            "virtual_router_id" => it.vrid = number(draft, statement),
            "priority" => it.priority = number(draft, statement),
            "nopreempt" => it.nopreempt = Some(at.clone()),
            "preempt" => {}
            "virtual_ipaddress" | "virtual_ipaddress_excluded" => {
                for line in statement.inner() {
                    vip(draft, line, &mut it);
                }
            }
            _ => timing(draft, statement),
        }
    }
    draft.instances.push(it);
}

fn number(draft: &mut Draft, statement: &Statement) -> Option<(u8, Origin)> {
    let parsed = statement.value().parse::<u8>().ok().filter(|number| *number > 0);
    if parsed.is_none() {
        draft.error(&statement.origin, &format!("{} with a number, 1 to 255", statement.name()));
    }
    parsed.map(|number| (number, statement.origin.clone()))
}

/// What both instances share.
fn timing(draft: &mut Draft, statement: &Statement) {
    let at = &statement.origin;
    match statement.name() {
        "advert_int" => match millis(statement.value()) {
            Some(ms) => draft.set("vrrp", "interval", quoted(&span(ms)), at),
            None => draft.error(at, "advert_int with a number of seconds"),
        },
        "version" => version(draft, statement),
        "authentication" => authentication(draft, statement),
        "preempt_delay" => match millis(statement.value()) {
            Some(ms) => draft.set("vrrp", "preempt_delay", quoted(&span(ms)), at),
            None => draft.error(at, "preempt_delay with a number of seconds"),
        },
        "unicast_peer" => {
            draft.set("vrrp", "transport", quoted("unicast"), at);
            for peer in statement.inner() {
                draft.see(Whose::Other(at.host), peer.name(), None, &peer.origin);
            }
        }
        "unicast_src_ip" | "mcast_src_ip" => {
            draft.see(Whose::Own(at.host), statement.value(), None, at);
        }
        name if name.starts_with("notify") || name == "smtp_alert" => notify(draft, statement),
        name => {
            let why = match name {
                "track_script" | "track_process" | "track_file" | "track_bfd" => {
                    "tandem checks php-fpm, the database and both networks by itself"
                }
                "track_interface" | "dont_track_primary" | "track_src_ip" => {
                    "tandem watches both links by itself"
                }
                "virtual_routes" | "virtual_rules" => {
                    "tandem moves addresses only: make the route one that is always there"
                }
                "use_vmac" | "vmac_xmit_base" | "use_ipvlan" => {
                    "tandem keeps the card's own hardware address and announces the virtual ones"
                }
                "debug" => "`tandem trace` shows the packets",
                "strict_mode"
                | "accept"
                | "no_accept"
                | "native_ipv6"
                | "lvs_sync_daemon_interface" => "has no counterpart",
                name if name.starts_with("garp_") => {
                    "tandem announces each address at once and repeats it by itself"
                }
                _ => "tandem does not know it: see keepalived.conf(5) whether you need it",
            };
            draft.left(at, &statement.shown(), why);
        }
    }
}

fn authentication(draft: &mut Draft, block: &Statement) {
    let is_pass = |it: &Statement| it.name() == "auth_type" && it.value() != "AH";
    let is_plain = block.inner().iter().any(is_pass);
    for statement in block.inner() {
        let (at, text) = (&statement.origin, statement.value());
        match statement.name() {
            "auth_type" if is_plain => {}
            "auth_type" => draft.left(
                at,
                &statement.shown(),
                "IPSEC-AH is not spoken (RFC 5798 took it out): the two tandems' beacons are \
                 authenticated by peer.key",
            ),
            "auth_pass" if !is_plain => {
                draft.left(at, "auth_pass", "belongs to a type of authentication that is not PASS");
            }
            "auth_pass" if text.is_empty() => draft.error(at, "auth_pass with a password"),
            "auth_pass" => {
                let cut: String = text.chars().take(8).collect();
                if cut != text {
                    draft.warn(at, "auth_pass", "keepalived used its first 8 characters only");
                }
                draft.set("vrrp", "password", quoted(&cut), at);
            }
            _ => draft.left(at, &statement.shown(), "tandem does not know it"),
        }
    }
}

/// `192.168.3.150/24 dev eth1 label eth1:1`.
fn vip(draft: &mut Draft, line: &Statement, it: &mut Instance) {
    let at = &line.origin;
    let text = line.name();
    let is_bare = !text.contains('/');
    let full = match is_bare {
        true if text.contains(':') => format!("{text}/128"),
        true => format!("{text}/32"),
        false => text.to_owned(),
    };
    let Ok(address) = full.parse::<IpCidr>() else {
        draft.error(at, &format!("an address in place of {text:?}, as in 192.168.3.150/24"));
        return;
    };
    let (mut device, mut label) = (None, None);
    let values = line.values();
    let mut words = values.iter();
    while let Some(word) = words.next() {
        match (*word, words.next()) {
            ("dev", Some(name)) => device = Some((*name).to_owned()),
            ("label", Some(name)) => label = Some((*name).to_owned()),
            ("brd" | "broadcast" | "scope", Some(_)) => {}
            (word, value) => {
                let what = format!("{text} ... {word} {}", value.unwrap_or(&""));
                draft.left(at, what.trim_end(), "an address has a device and a label only");
            }
        }
    }
    let main = it.device.as_ref().map(|(name, _)| name.clone());
    let device = device.filter(|name| main.as_ref() != Some(name));
    let address_text = quoted(&full);
    let literal = match (&device, &label) {
        (None, None) => address_text,
        (_, _) => {
            let pairs = [("device", &device), ("label", &label)];
            let rest: String = pairs
                .iter()
                .filter_map(|(key, value)| {
                    value.as_ref().map(|value| format!(", {key} = {}", quoted(value)))
                })
                .collect();
            format!("{{ address = {address_text}{rest} }}")
        }
    };
    it.vips.push(Vip { address, is_bare, literal, origin: at.clone() });
}

/// Seconds with or without a fraction.
pub(super) fn millis(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    let ms = whole.parse::<u64>().ok()?.checked_mul(1000)?;
    ms.checked_add(part.parse().ok()?).filter(|ms| *ms > 0)
}

/// As `units` reads it.
pub(super) fn span(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}
