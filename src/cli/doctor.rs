//! `tandem doctor [--json] [--host NAME] [FILE]`: looks at this host before anything is started.
//!
//! In: a configuration. Out: findings, the worst first. Exit codes: 0 nothing but notes, 1
//! warnings, 2 errors (or no valid configuration). Must not: change anything.
//! Read first: `crate::doctor` (the rules), os/examine.rs (what is looked at).

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use super::connection::Login;
use super::servers::Server;
use crate::config::Config;
use crate::doctor::firewall::{self, Protocol, Verdict, Wanted};
use crate::doctor::{self, Finding, Id, database, host};
use crate::os::{examine, file};
use crate::vrrp::packet;
use crate::wire::{HostId, LinkId};

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let (mut path, mut name, mut is_json) = (None, None, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--json" => is_json = true,
            "--host" => match rest.next() {
                Some(given) => name = Some(given.as_str()),
                None => return super::wrong("doctor", "--host needs a name"),
            },
            option if option.starts_with('-') => {
                return super::wrong("doctor", &format!("does not know {option}"));
            }
            given if path.is_none() => path = Some(given),
            given => {
                return super::wrong("doctor", &format!("takes one file, and {given} is a second"));
            }
        }
    }
    let path = path.unwrap_or(super::CONFIG_PATH);
    let looked = file::load_config(path).and_then(|config| {
        let me = super::this_host(&config, name)?;
        look(&config, me, path).map_err(|error| format!("cannot look at this host: {error}"))
    });
    match looked {
        Ok(findings) => tell(&findings, is_json),
        Err(why) => {
            eprintln!("tandem: {why}");
            ExitCode::from(2)
        }
    }
}

fn look(config: &Config, me: HostId, path: &str) -> std::io::Result<Vec<Finding>> {
    let facts = examine::host(config, path)?;
    let mut findings = host::findings(config, me, &facts);
    findings.extend(behind_firewall(config, me));
    let servers = HostId::ALL.map(|id| ask(config, id));
    findings.extend(database::findings(config, &servers));
    doctor::sort(&mut findings);
    Ok(findings)
}

fn tell(findings: &[Finding], is_json: bool) -> ExitCode {
    if is_json {
        super::put(&format!("{}\n", serde_json::json!({ "findings": findings })));
    } else if findings.is_empty() {
        println!("nothing is wrong that can be seen before serving");
    } else {
        for finding in findings {
            println!("{finding}");
        }
    }
    ExitCode::from(doctor::exit_code(findings))
}

/// Every kind of packet that the other host, or a visitor, sends here.
fn wanted(config: &Config, me: HostId) -> Vec<Wanted> {
    let (own, other) = (config.host(me), config.host(me.other()));
    let mut all = Vec::new();
    let mut push = |what, protocol, device: &str, source, destination| {
        all.push(Wanted { what, protocol, device: device.to_owned(), source, destination });
    };
    for link in LinkId::ALL {
        let device = &config.link(link).device;
        let [from, to] = [other, own].map(|host| host.address(link).address);
        push("VRRP", Protocol::Vrrp, device, from, packet::GROUP);
        push("the beacon", Protocol::Udp(config.peer.port), device, from, to);
    }
    let inside = (&config.link(LinkId::Inside).device, other.inside.address, own.inside.address);
    push("MySQL", Protocol::Tcp(config.repl.port), inside.0, inside.1, inside.2);
    push("FastCGI", Protocol::Tcp(config.web.php_port), inside.0, inside.1, inside.2);
    // A visitor, somewhere (TEST-NET-1, RFC 5737).
    let visitor = Ipv4Addr::new(192, 0, 2, 1);
    let device = &config.link(LinkId::Outside).device;
    push("HTTP", Protocol::Tcp(config.web.port), device, visitor, own.outside.address);
    all
}

/// Both tools are asked: rules of one are not seen by the other everywhere.
fn behind_firewall(config: &Config, me: HostId) -> Vec<Finding> {
    let tables = examine::said("iptables-save", &[]);
    let rules = examine::said("nft", &["-j", "list", "ruleset"]);
    let mut findings = Vec::new();
    for packet in wanted(config, me) {
        let by_iptables = tables.as_ref().map(|text| firewall::iptables(text, &packet));
        let by_nft = rules.as_ref().and_then(|json| firewall::nft(json, &packet).ok());
        let by_nft = by_nft.filter(|verdict| tables.is_none() || !is_of_iptables(verdict));
        for (tool, verdict) in [("iptables", by_iptables), ("nft", by_nft)] {
            let what = format!("{} from {} on {}", packet.what, packet.source, packet.device);
            match verdict {
                None | Some(Verdict::Accepted) => {}
                Some(Verdict::Dropped(rule)) => findings.push(
                    Finding::error(Id::Firewalled, format!("the firewall drops {what}"))
                        .seen(format!("{tool}: {rule}"))
                        .fix(firewall::hint(&packet)),
                ),
                Some(Verdict::Unclear(rule)) => findings.push(
                    Finding::note(Id::FirewallUnclear, format!("the firewall may drop {what}"))
                        .seen(format!("{tool}: {rule}"))
                        .fix(format!("if it does: {}", firewall::hint(&packet))),
                ),
            }
        }
    }
    findings
}

/// nft cannot tell what a rule says that iptables has put there; iptables-save has told it.
fn is_of_iptables(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Unclear(rule) if rule.contains("{\"xt\":"))
}

fn ask(config: &Config, id: HostId) -> Result<database::Server, String> {
    let login = Login {
        user: config.repl.user.clone(),
        password: config.repl.password.reveal().to_owned(),
        host: config.host(id).inside.address.to_string(),
        port: config.repl.port,
        socket: None,
    };
    let server = Server::connect(&login)?;
    let names: Vec<String> = database::VARIABLES.iter().map(|name| format!("'{name}'")).collect();
    let sql = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})", names.join(","));
    let rows = server.must(&sql)?;
    let variables = (0..rows.rows.len()).filter_map(|row| {
        let name = rows.value(row, &["Variable_name"])?.to_ascii_lowercase();
        Some((name, rows.value(row, &["Value"]).unwrap_or_default().to_owned()))
    });
    let variables = variables.collect();
    let now = server.must("SELECT UNIX_TIMESTAMP() AS now")?;
    let theirs: i64 = now.value(0, &["now"]).and_then(|text| text.parse().ok()).unwrap_or(0);
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let clock_offset = theirs - i64::try_from(ours).unwrap_or(0);
    Ok(database::Server { version: server.version, variables, clock_offset })
}
