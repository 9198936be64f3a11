//! A host's kernel, rights, interfaces, ports, names, secrets and php-fpm.
//!
//! In: a configuration and what was seen on the host. Out: findings. Must not: look.
//! Read first: capabilities(7); README, what is lost on an old kernel.

use std::net::{IpAddr, SocketAddr};

use super::{Finding, Id};
use crate::config::Config;
use crate::wire::{HostId, LinkId};

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// uname(2), release.
    pub kernel: String,
    /// /proc/self/status, CapEff.
    pub capabilities: u64,
    pub devices: Vec<Device>,
    pub listeners: Vec<Listener>,
    /// Names of the programs that run (/proc/PID/comm).
    pub programs: Vec<String>,
    pub config_path: String,
    /// Permission bits of that file.
    pub config_mode: u32,
    /// What the resolver answers to the name of each host.
    pub addresses: [Vec<IpAddr>; 2],
    /// How each host's php-fpm answered a FastCGI ping.
    pub php: [Ping; 2],
}

/// A network interface.
#[derive(Debug, Clone, Default)]
pub struct Device {
    pub name: String,
    pub has_carrier: bool,
    pub addresses: Vec<IpAddr>,
}

/// A socket that takes connections or datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub is_udp: bool,
    pub address: SocketAddr,
    /// Who has it, as in "nginx (812)".
    pub program: String,
}

/// What came of a FastCGI ping.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ping {
    #[default]
    Answered,
    /// No connection; the reason.
    Unreachable(String),
    /// Closed without an answer.
    Closed,
    Silent,
}

#[must_use]
pub fn findings(config: &Config, me: HostId, facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    kernel(facts, &mut found);
    rights(facts, &mut found);
    for link in LinkId::ALL {
        device(config, me, link, facts, &mut found);
    }
    ports(config, me, facts, &mut found);
    others(facts, &mut found);
    names(config, facts, &mut found);
    php(config, me, facts, &mut found);
    if facts.config_mode & 0o077 != 0 {
        let path = &facts.config_path;
        found.push(
            Finding::warning(Id::SecretsReadable, "others can read the passwords")
                .seen(format!("{path} has mode {:04o}", facts.config_mode & 0o7777))
                .fix(format!("chmod 0600 {path}")),
        );
    }
    found
}

/// Major, minor, patch; what is missing or no number is 0.
fn version(release: &str) -> [u32; 3] {
    let mut parts = release.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

fn kernel(facts: &Facts, found: &mut Vec<Finding>) {
    let seen = format!("Linux {}", facts.kernel);
    match version(&facts.kernel) {
        old if old < [2, 6, 32] => found.push(
            Finding::error(Id::KernelTooOld, "tandem is not made for this kernel")
                .seen(seen)
                .fix("Linux 2.6.32 (CentOS 6) is the oldest"),
        ),
        old if old < [3, 9, 0] => found.push(
            Finding::note(
                Id::KernelNoLease,
                "addresses of this kernel do not run out by themselves",
            )
            .seen(seen)
            .fix("nothing; README lists what an old kernel lacks"),
        ),
        _ => {}
    }
}

/// Names and numbers of capabilities(7).
const NEEDED: [(&str, u32, &str); 3] = [
    ("CAP_NET_ADMIN", 12, "to set addresses"),
    ("CAP_NET_RAW", 13, "to speak VRRP and ARP"),
    ("CAP_NET_BIND_SERVICE", 10, "to listen on ports below 1024"),
];

fn rights(facts: &Facts, found: &mut Vec<Finding>) {
    for (name, number, purpose) in NEEDED {
        if facts.capabilities & (1 << number) == 0 {
            found.push(
                Finding::error(Id::CapabilityMissing, format!("{name} is missing {purpose}"))
                    .seen(format!("CapEff {:016x}", facts.capabilities))
                    .fix("start it as root"),
            );
        }
    }
}

fn device(config: &Config, me: HostId, link: LinkId, facts: &Facts, found: &mut Vec<Finding>) {
    let (own, of_link) = (config.host(me).address(link), config.link(link));
    let name = &of_link.device;
    let Some(device) = facts.devices.iter().find(|device| device.name == *name) else {
        let all: Vec<&str> = facts.devices.iter().map(|device| device.name.as_str()).collect();
        return found.push(
            Finding::error(Id::NoSuchDevice, format!("{link}: this host has no {name}"))
                .seen(format!("interfaces: {}", all.join(", ")))
                .fix(format!("name the interface in [link.{link}]")),
        );
    };
    if !device.has_carrier {
        found.push(
            Finding::error(Id::NoCarrier, format!("{link}: {name} has no carrier"))
                .fix("plug the cable in, or set the interface up"),
        );
    }
    if !device.addresses.contains(&IpAddr::V4(own.address)) {
        let all: Vec<String> = device.addresses.iter().map(ToString::to_string).collect();
        found.push(
            Finding::error(Id::NoOwnAddress, format!("{link}: {own} is not on {name}"))
                .seen(format!("{name} has {}", list(&all)))
                .fix("set it where this system sets its addresses: tandem sets the virtual ones"),
        );
    }
    for vip in &of_link.vip {
        let address = vip.address.address;
        if let Some(device) = facts.devices.iter().find(|it| it.addresses.contains(&address)) {
            let what = format!("{link}: the virtual address {address} is on this host already");
            found.push(
                Finding::warning(Id::AddressHeld, what)
                    .seen(format!("it is on {}", device.name))
                    .fix(
                        "stop whatever set it (keepalived?), or take it off, before tandem starts",
                    ),
            );
        }
    }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".into() } else { items.join(", ") }
}

/// What tandem will listen on here.
fn wanted_ports(config: &Config, me: HostId) -> Vec<(&'static str, bool, SocketAddr)> {
    let host = config.host(me);
    let (outside, inside) = (IpAddr::V4(host.outside.address), IpAddr::V4(host.inside.address));
    let mut all = vec![
        ("web.port", false, SocketAddr::new(outside, config.web.port)),
        ("peer.port", true, SocketAddr::new(inside, config.peer.port)),
    ];
    all.extend(config.sql.listen.iter().map(|address| ("sql.listen", false, *address)));
    let admin = config.sql.admin_listen.iter();
    all.extend(admin.map(|address| ("sql.admin_listen", false, *address)));
    if config.web.ssl_certificate.is_some() {
        all.push(("web.ssl_port", false, SocketAddr::new(outside, config.web.ssl_port)));
    }
    all
}

/// A socket on every address stands in the way of one on a single one.
fn ports(config: &Config, me: HostId, facts: &Facts, found: &mut Vec<Finding>) {
    for (key, is_udp, wanted) in wanted_ports(config, me) {
        let is_it = |it: &&Listener| {
            it.is_udp == is_udp
                && it.address.port() == wanted.port()
                && (it.address.ip() == wanted.ip() || it.address.ip().is_unspecified())
                && !it.program.starts_with("tandem")
        };
        if let Some(taken) = facts.listeners.iter().find(is_it) {
            let what = format!("{key}: {wanted} is taken");
            found.push(
                Finding::error(Id::PortTaken, what)
                    .seen(format!("{} listens on {}", taken.program, taken.address))
                    .fix("stop it, or give one of the two another port"),
            );
        }
    }
}

/// What tandem replaces, and would quarrel with.
const REPLACED: [(&str, &str); 3] = [
    ("keepalived", "it sends VRRP for the same virtual routers"),
    ("mysql-proxy", "Atlas sends writes past the roles that tandem gives"),
    ("haproxy", "if it is for the same addresses, one of the two has to go"),
];

fn others(facts: &Facts, found: &mut Vec<Finding>) {
    for (name, why) in REPLACED {
        if facts.programs.iter().any(|program| program == name) {
            found.push(
                Finding::warning(Id::ReplacedStillRuns, format!("{name} runs here: {why}"))
                    .fix(format!("stop {name} before tandem starts, and have nobody start it")),
            );
        }
    }
}

/// Replication names its source by name where report_host says one.
fn names(config: &Config, facts: &Facts, found: &mut Vec<Finding>) {
    for id in HostId::ALL {
        let (host, answers) = (config.host(id), &facts.addresses[id.index()]);
        let inside = IpAddr::V4(host.inside.address);
        if !answers.is_empty() && answers.contains(&inside) {
            continue;
        }
        let all: Vec<String> = answers.iter().map(ToString::to_string).collect();
        found.push(
            Finding::note(Id::NameElsewhere, format!("{} is not {inside} by name", host.name))
                .seen(format!("the resolver says {}", list(&all)))
                .fix(format!(
                    "in /etc/hosts of both hosts: {inside} {}; tandem itself needs no names, the \
                     database's own tools do",
                    host.name
                )),
        );
    }
}

fn php(config: &Config, me: HostId, facts: &Facts, found: &mut Vec<Finding>) {
    for id in HostId::ALL {
        let host = config.host(id);
        let place = format!("{}:{}", host.inside.address, config.web.php_port);
        let what = format!("php-fpm of {} does not answer at {place}", host.name);
        let finding = Finding::warning(Id::PhpUnreachable, what);
        let listen = "php-fpm.d/www.conf: listen on the inside address or on every one";
        found.push(match &facts.php[id.index()] {
            Ping::Answered => continue,
            Ping::Unreachable(why) => finding.seen(why.clone()).fix(listen),
            Ping::Silent => finding
                .seen("connected, and no answer to a FastCGI ping within a second")
                .fix("are its workers busy, or is it another program's port?"),
            Ping::Closed => finding.seen("connected, and closed without an answer").fix(format!(
                "php-fpm.d/www.conf of {}: listen.allowed_clients must have 127.0.0.1 and {}",
                host.name,
                config.host(me).inside.address
            )),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EXAMPLE;

    fn config() -> Config {
        Config::parse(EXAMPLE).expect("the example is valid")
    }

    /// A host of the example on which nothing is wrong.
    fn sound() -> Facts {
        let device = |name: &str, address: &str| Device {
            name: name.into(),
            has_carrier: true,
            addresses: vec![address.parse().expect("an address")],
        };
        Facts {
            kernel: "3.10.0-1160.el7.x86_64".into(),
            capabilities: 0x3f_ffff_ffff,
            devices: vec![device("eth0", "10.96.153.110"), device("eth1", "192.168.3.100")],
            config_path: "/etc/tandem/tandem.toml".into(),
            config_mode: 0o100_600,
            addresses: ["192.168.3.100", "192.168.3.101"]
                .map(|text| vec![text.parse().expect("an address")]),
            ..Facts::default()
        }
    }

    fn ids(facts: &Facts) -> Vec<&'static str> {
        findings(&config(), HostId::First, facts).iter().map(|it| it.id.name()).collect()
    }

    #[test]
    fn nothing_is_found_on_a_sound_host() {
        assert_eq!(ids(&sound()), [""; 0]);
    }

    #[test]
    fn each_fault_is_found_by_its_name() {
        let listener = |address: &str, program: &str| Listener {
            is_udp: false,
            address: address.parse().expect("an address"),
            program: program.into(),
        };
        type Fault = Box<dyn Fn(&mut Facts)>;
        let faults: Vec<(&str, Fault)> = vec![
            ("kernel-too-old", Box::new(|it| it.kernel = "2.6.18-398.el5".into())),
            ("kernel-no-lease", Box::new(|it| it.kernel = "2.6.32-754.el6.x86_64".into())),
            ("capability-missing", Box::new(|it| it.capabilities &= !(1 << 13))),
            ("no-carrier", Box::new(|it| it.devices[1].has_carrier = false)),
            ("no-own-address", Box::new(|it| it.devices[0].addresses.clear())),
            (
                "address-held",
                Box::new(|it| {
                    let vip = "192.168.3.150".parse().expect("an address");
                    it.devices[1].addresses.push(vip);
                }),
            ),
            (
                "port-taken",
                Box::new(move |it| {
                    it.listeners = vec![listener("0.0.0.0:80", "nginx (812)")];
                }),
            ),
            ("replaced-still-runs", Box::new(|it| it.programs = vec!["keepalived".into()])),
            ("name-elsewhere", Box::new(|it| it.addresses[1].clear())),
            ("php-unreachable", Box::new(|it| it.php[1] = Ping::Closed)),
            ("secrets-readable", Box::new(|it| it.config_mode = 0o100_644)),
        ];
        for (id, fault) in faults {
            let mut facts = sound();
            fault(&mut facts);
            assert_eq!(ids(&facts), [id]);
        }
        let mut facts = sound();
        facts.devices.remove(0);
        assert_eq!(ids(&facts), ["no-such-device"]);
    }

    #[test]
    fn what_tandem_has_itself_or_elsewhere_is_no_conflict() {
        let mut facts = sound();
        let at = |address: &str, program: &str, is_udp| Listener {
            is_udp,
            address: address.parse().expect("an address"),
            program: program.into(),
        };
        facts.listeners = vec![
            at("10.96.153.110:80", "tandem (9)", false),
            at("127.0.0.1:80", "nginx (8)", false),
            at("0.0.0.0:80", "dnsmasq (7)", true),
        ];
        assert_eq!(ids(&facts), [""; 0]);
    }
}
