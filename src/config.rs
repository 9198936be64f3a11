//! tandem.toml to `Config`: one section, one module, one struct beside the code that it configures.
//!
//! In: the file's text. Out: `Config`, or an error with line, column and what to write instead;
//! the digest that both hosts compare. Must not: read files (see `resolve`), know this host.
//! Read first: example.toml beside this file, which `tandem example` prints.

pub mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::units::{Cidr, IpCidr, Secret};
use crate::vrrp::packet::Version;
use crate::wire::{DeviceId, HostId, LinkId};
use crate::{console, peer, repl, sql, vrrp, web};

/// Each is asked several times a second while the peer is silent.
const WITNESSES_MAX: usize = 16;

/// The scenario's configuration, commented.
pub const EXAMPLE: &str = include_str!("example.toml");

/// The whole configuration, checked: two hosts, addresses on their networks, names that differ.
#[derive(Debug, Clone)]
pub struct Config {
    pub hosts: [Host; 2],
    pub links: [Link; 2],
    pub vrrp: vrrp::Config,
    pub peer: peer::Config,
    pub repl: repl::Config,
    pub sql: sql::Config,
    pub web: web::Config,
    pub console: console::Config,
    /// The first 8 bytes of the SHA-256 of the text: equal on both hosts, or somebody edited one.
    pub digest: [u8; 8],
    /// Tells which sections another text changes.
    pub sections: Sections,
}

/// Every section, in the order of the file; beacons carry a digest of each in this order.
pub const SECTIONS: [&str; 8] = ["host", "link", "vrrp", "peer", "repl", "sql", "web", "console"];

/// A digest of every section of a text, without its comments and its order of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sections(BTreeMap<String, [u8; 8]>);

impl Sections {
    fn of(text: &str) -> Result<Self, toml::de::Error> {
        let tables: BTreeMap<String, toml::Value> = toml::from_str(text)?;
        let pairs = tables.into_iter().map(|(name, value)| (name, digest(&format!("{value:?}"))));
        Ok(Self(pairs.collect()))
    }

    /// By `SECTIONS`: the first 4 bytes of each digest; 0 for one that is not there.
    #[must_use]
    pub fn digests(&self) -> [u32; SECTIONS.len()] {
        SECTIONS.map(|name| {
            let digest = self.0.get(name).and_then(|digest| digest.first_chunk());
            digest.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        })
    }

    /// The names of the sections that differ, or that only one of both has.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let all: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let differs = |name: &&String| self.0.get(*name) != other.0.get(*name);
        all.into_iter().filter(differs).cloned().collect()
    }
}

/// Section `[[host]]`: one of the two hosts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its host name, with or without domain: by it a host finds itself here.
    pub name: String,
    /// VRRP priority, 1 to 254, different on both; the higher one serves first when nothing else
    /// decides (keepalived: priority).
    pub priority: u8,
    /// Its own address on the outside network, set by the system and not by tandem.
    pub outside: Cidr,
    /// Its own address on the inside network: of its database and its php-fpm for the other host.
    pub inside: Cidr,
}

/// Section `[link.outside]` or `[link.inside]`: a network that both hosts are on. Clients come by
/// the outside one, replication and PHP requests go by the inside one, heartbeats by both.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The interface, of the same name on both hosts (keepalived: interface).
    pub device: String,
    /// Virtual router identifier, 1 to 255: of the IPv4 addresses, and of the IPv6 ones; nobody
    /// else's on this network (keepalived: virtual_router_id).
    pub vrid: u8,
    /// Virtual addresses, 1 to 20, on the host that serves; the first IPv6 one is link-local
    /// (keepalived: virtual_ipaddress).
    pub vip: Vec<Vip>,
    /// A router on this network, asked by ARP whether it sees what is announced. On an appliance
    /// that of the outside link is the default route.
    pub gateway: Option<Ipv4Addr>,
}

/// A virtual address: "192.168.3.150/24", or a table with what keepalived's `virtual_ipaddress`
/// says beside the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The address, with the prefix that the interface gets it with.
    pub address: IpCidr,
    /// The interface that gets it, where that is not the link's own (keepalived: dev).
    pub device: Option<String>,
    /// Name for ip(8) and ifconfig(8), IPv4 only (keepalived: label).
    pub label: Option<String>,
}

/// The short form where it says all.
impl Serialize for Vip {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Table<'a> {
            address: IpCidr,
            device: Option<&'a str>,
            label: Option<&'a str>,
        }
        match (self.device.as_deref(), self.label.as_deref()) {
            (None, None) => serializer.collect_str(&self.address),
            (device, label) => Table { address: self.address, device, label }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Vip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            address: String,
            device: Option<String>,
            label: Option<String>,
        }
        struct Written;
        impl<'de> Visitor<'de> for Written {
            type Value = Vip;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"192.168.3.150/24\" or { address = \"...\", device = \"eth2\" }")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vip, E> {
                let address = text.parse().map_err(E::custom)?;
                Ok(Vip { address, device: None, label: None })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vip, A::Error> {
                let Table { address, device, label } =
                    Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Vip { address: address.parse().map_err(A::Error::custom)?, device, label })
            }
        }
        deserializer.deserialize_any(Written)
    }
}

/// What both hosts compare: the first 8 bytes of the SHA-256 of the text.
#[must_use]
pub fn digest(text: &str) -> [u8; 8] {
    let digest = Sha256::digest(text.as_bytes());
    *digest.first_chunk().expect("SHA-256 is longer than 8 bytes")
}

/// The file as it is written; `Config` is what passed the checks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    host: Vec<Host>,
    link: WrittenLinks,
    #[serde(default)]
    vrrp: vrrp::Config,
    peer: peer::Config,
    repl: repl::Config,
    #[serde(default)]
    sql: sql::Config,
    #[serde(default)]
    web: web::Config,
    #[serde(default)]
    console: console::Config,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLinks {
    outside: Link,
    inside: Link,
}

/// A file that holds a secret of the configuration, and what the secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    pub name: String,
    pub path: String,
    pub kind: SecretKind,
}

/// What a secret has to look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    Key,
    Password,
    /// One to eight characters.
    Vrrp,
    /// The hash of a password, as crypt(5) writes it.
    Console,
}

/// What is wrong with a configuration, in one message for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl Config {
    /// Reads and checks the text of a configuration.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |error: toml::de::Error| Error(error.to_string().trim_end().to_owned());
        let written: Written = toml::from_str(text).map_err(invalid)?;
        let hosts: [Host; 2] = written.host.try_into().map_err(|hosts: Vec<Host>| {
            Error(format!("{} [[host]] sections: write exactly two", hosts.len()))
        })?;
        let config = Self {
            hosts,
            links: [written.link.outside, written.link.inside],
            vrrp: written.vrrp,
            peer: written.peer,
            repl: written.repl,
            sql: written.sql,
            web: written.web,
            console: written.console,
            digest: digest(text),
            sections: Sections::of(text).map_err(invalid)?,
        };
        config.check()?;
        Ok(config)
    }

    /// Replaces every secret that names a file by what `read` returns for it.
    pub fn resolve(
        &mut self,
        mut read: impl FnMut(&str) -> Result<String, String>,
    ) -> Result<(), Error> {
        for (_, _, secret) in self.secrets() {
            if let Secret::File(path) = secret {
                let text = read(path).map_err(|why| Error(format!("secret file {path}: {why}")))?;
                *secret = Secret::Text(text.trim_end_matches(['\r', '\n']).to_owned());
            }
        }
        self.check_secrets()
    }

    /// The secrets that stand in files; none any more where they were resolved.
    #[must_use]
    pub fn secret_files(&self) -> Vec<SecretFile> {
        let mut all = self.clone();
        let files = all.secrets().filter_map(|(name, kind, secret)| match secret {
            Secret::File(path) => Some(SecretFile { name, kind, path: std::mem::take(path) }),
            Secret::Text(_) => None,
        });
        files.collect()
    }

    fn secrets(&mut self) -> impl Iterator<Item = (String, SecretKind, &mut Secret)> {
        let always = [
            ("peer.key", SecretKind::Key, &mut self.peer.key),
            ("repl.password", SecretKind::Password, &mut self.repl.password),
            (
                "repl.replication_password",
                SecretKind::Password,
                &mut self.repl.replication_password,
            ),
        ];
        let optional = [
            ("vrrp.password", SecretKind::Vrrp, self.vrrp.password.as_mut()),
            ("sql.admin_password", SecretKind::Password, self.sql.admin_password.as_mut()),
            ("console.password", SecretKind::Console, self.console.password.as_mut()),
        ];
        let optional = optional.into_iter().filter_map(|(name, kind, it)| Some((name, kind, it?)));
        let named = always.into_iter().chain(optional);
        let users = self.sql.users.iter_mut().map(|user| {
            let name = format!("the password of sql.user {:?}", user.name);
            (name, SecretKind::Password, &mut user.password)
        });
        named.map(|(name, kind, it)| (name.to_owned(), kind, it)).chain(users)
    }

    /// What is in use, as a text that could be written: defaults and all, secrets hidden.
    #[must_use]
    pub fn effective(&self) -> String {
        #[derive(Serialize)]
        struct Links<'a> {
            outside: &'a Link,
            inside: &'a Link,
        }
        #[derive(Serialize)]
        struct Effective<'a> {
            host: &'a [Host; 2],
            link: Links<'a>,
            vrrp: &'a vrrp::Config,
            peer: &'a peer::Config,
            repl: &'a repl::Config,
            sql: &'a sql::Config,
            web: &'a web::Config,
            console: &'a console::Config,
        }
        let Self { hosts, links: [outside, inside], vrrp, peer, repl, sql, web, console, .. } =
            self;
        let link = Links { outside, inside };
        let effective = Effective { host: hosts, link, vrrp, peer, repl, sql, web, console };
        toml::to_string(&effective).unwrap_or_else(|error| format!("# {error}\n"))
    }

    /// The host of that name.
    pub fn find_host(&self, name: &str) -> Result<HostId, Error> {
        let short = name.split('.').next().unwrap_or(name);
        HostId::ALL
            .into_iter()
            .find(|&id| self.host(id).name == name || self.host(id).name == short)
            .ok_or_else(|| {
                let [first, second] = &self.hosts;
                Error(format!(
                    "this host is {name:?}, the configuration has {:?} and {:?}: \
                     set the host name or start with --host NAME",
                    first.name, second.name
                ))
            })
    }

    #[must_use]
    pub const fn host(&self, id: HostId) -> &Host {
        let [first, second] = &self.hosts;
        match id {
            HostId::First => first,
            HostId::Second => second,
        }
    }

    #[must_use]
    pub const fn link(&self, id: LinkId) -> &Link {
        let [outside, inside] = &self.links;
        match id {
            LinkId::Outside => outside,
            LinkId::Inside => inside,
        }
    }

    /// Every interface that this host's part needs, by `DeviceId`.
    #[must_use]
    pub fn devices(&self) -> Vec<&str> {
        let mut devices: Vec<&str> = self.links.iter().map(|link| link.device.as_str()).collect();
        for name in
            self.links.iter().flat_map(|link| &link.vip).filter_map(|vip| vip.device.as_deref())
        {
            if !devices.contains(&name) {
                devices.push(name);
            }
        }
        devices
    }

    /// The interface of a virtual address of that link.
    #[must_use]
    pub fn device_of(&self, link: LinkId, vip: &Vip) -> DeviceId {
        let name = vip.device.as_deref().unwrap_or_else(|| self.link(link).device.as_str());
        let index = self.devices().into_iter().position(|it| it == name);
        index.and_then(DeviceId::new).unwrap_or_else(|| link.into())
    }

    fn check(&self) -> Result<(), Error> {
        let [first, second] = &self.hosts;
        let refuse = |message: String| Err(Error(message));
        if first.name == second.name {
            return refuse(format!("both [[host]] sections are named {:?}", first.name));
        }
        if first.priority == second.priority {
            return refuse(format!(
                "both hosts have priority {}: give the one that serves first the higher one",
                first.priority
            ));
        }
        for host in &self.hosts {
            if !(1..=254).contains(&host.priority) {
                return refuse(format!(
                    "host {:?}: priority {} is out of range: write 1 to 254 (255 owns the \
                     addresses and takes them whenever it wakes up; vrrp.preempt takes the role \
                     back in order)",
                    host.name, host.priority
                ));
            }
        }
        for id in LinkId::ALL {
            self.check_link(id)?;
        }
        if self.link(LinkId::Outside).device == self.link(LinkId::Inside).device {
            return refuse("link.outside and link.inside have the same device".into());
        }
        self.check_sections()
    }

    fn check_link(&self, id: LinkId) -> Result<(), Error> {
        let link = self.link(id);
        let refuse = |message: String| Err(Error(format!("link.{id}: {message}")));
        let [first, second] = &self.hosts;
        let (a, b) = (first.address(id), second.address(id));
        if a.address == b.address {
            return refuse(format!("both hosts have the address {}", a.address));
        }
        if !a.contains(b.address) || a.prefix != b.prefix {
            return refuse(format!("{a} and {b} are not on one network"));
        }
        if link.vrid == 0 {
            return refuse("vrid 0 is not allowed: write 1 to 255".into());
        }
        if link.vip.is_empty() || link.vip.len() > 20 {
            return refuse(format!("{} virtual addresses: write 1 to 20", link.vip.len()));
        }
        let own = [a.address, b.address].map(IpAddr::from);
        for (place, vip) in link.vip.iter().enumerate() {
            vip.check().map_err(|why| Error(format!("link.{id}: vip {}: {why}", vip.address)))?;
            if own.contains(&vip.address.address) {
                return refuse(format!("the virtual address {} is a host's own", vip.address));
            }
            if link.vip.iter().skip(place + 1).any(|it| it.address.address == vip.address.address) {
                return refuse(format!("the virtual address {} stands there twice", vip.address));
            }
        }
        let first_v6 = link.vip.iter().map(|vip| vip.address.address).find(IpAddr::is_ipv6);
        if first_v6.is_some_and(|first| !is_link_local(first)) {
            return refuse(
                "the first IPv6 address must be link-local, as in \"fe80::50/64\" (RFC 9568, \
                 5.2.9; keepalived wants the same)"
                    .into(),
            );
        }
        if let Some(gateway) = link.gateway
            && (!a.contains(gateway) || own.contains(&gateway.into()))
        {
            return refuse(format!("gateway {gateway}: write a router's address within {a}"));
        }
        check_device(&link.device).map_err(|why| Error(format!("link.{id}: {why}")))
    }

    fn check_sections(&self) -> Result<(), Error> {
        let refuse = |message: &str| Err(Error(message.to_owned()));
        self.vrrp.check().map_err(|why| Error(format!("vrrp.{why}")))?;
        if self.vrrp.version == Version::V3 && self.vrrp.password.is_some() {
            return refuse("vrrp.password: version 3 carries none; remove it");
        }
        let interval = self.peer.interval;
        if interval < Duration::from_millis(20) || 4 * interval > 3 * self.vrrp.interval {
            return refuse("peer.interval: write \"20ms\" up to three quarters of vrrp.interval");
        }
        self.check_witnesses().map_err(|why| Error(format!("peer.witnesses: {why}")))?;
        self.sql.check().map_err(Error)?;
        let names = HostId::ALL.map(|host| self.host(host).name.as_str());
        self.web.check_hosts(names).map_err(Error)?;
        let inside = self.hosts.each_ref().map(|host| host.inside_address().into());
        self.web.check(&inside).map_err(Error)?;
        self.console.check().map_err(Error)
    }

    fn check_witnesses(&self) -> Result<(), String> {
        let witnesses = &self.peer.witnesses;
        if !witnesses.is_empty() && self.peer.kind == peer::Kind::Keepalived {
            return Err("a keepalived knows none: remove them, or run tandem on both hosts".into());
        }
        if witnesses.len() > WITNESSES_MAX {
            let count = witnesses.len();
            return Err(format!("{count} addresses: write {WITNESSES_MAX} at most"));
        }
        for (place, address) in witnesses.iter().enumerate() {
            let is_ours = LinkId::ALL.into_iter().any(|link| {
                let is_vip = |vip: &Vip| vip.address.address == IpAddr::from(*address);
                let is_own = |host: &Host| host.address(link).address == *address;
                self.link(link).vip.iter().any(is_vip) || self.hosts.iter().any(is_own)
            });
            if is_ours {
                return Err(format!("{address} is the pair's own: name somebody else's"));
            }
            if witnesses.iter().skip(place + 1).any(|it| it == address) {
                return Err(format!("{address} stands there twice"));
            }
            if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
                return Err(format!("{address} is no host's address"));
            }
        }
        Ok(())
    }

    fn check_secrets(&self) -> Result<(), Error> {
        if self.peer.key.reveal().len() < 16 {
            return Err(Error("peer.key: write at least 16 characters".into()));
        }
        if self.sql.admin_password.as_ref().is_some_and(|it| it.reveal().is_empty()) {
            return Err(Error("sql.admin_password: an empty password lets anybody in".into()));
        }
        if let Some(password) = &self.vrrp.password {
            let length = password.reveal().len();
            if length == 0 || length > 8 {
                return Err(Error(format!(
                    "vrrp.password has {length} characters: PASS carries 1 to 8 (keepalived cuts \
                     longer ones in silence)"
                )));
            }
        }
        Ok(())
    }
}

impl Vip {
    fn check(&self) -> Result<(), String> {
        self.device.as_deref().map_or(Ok(()), check_device)?;
        let Some(label) = &self.label else { return Ok(()) };
        if self.address.address.is_ipv6() {
            return Err("label: IPv6 addresses have none; remove it".into());
        }
        // Linux: IFA_LABEL is as long as an interface's name.
        if label.is_empty() || label.len() > 15 {
            return Err(format!("label {label:?}: write 1 to 15 characters"));
        }
        Ok(())
    }
}

fn check_device(name: &str) -> Result<(), String> {
    // Linux: IFNAMSIZ is 16 with the final NUL.
    if name.is_empty() || name.len() > 15 {
        return Err(format!("device {name:?} is not an interface name"));
    }
    Ok(())
}

/// Link-local unicast, fe80::/10 (RFC 4291, 2.5.6).
#[must_use]
pub const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

impl Host {
    #[must_use]
    pub const fn address(&self, link: LinkId) -> Cidr {
        match link {
            LinkId::Outside => self.outside,
            LinkId::Inside => self.inside,
        }
    }

    /// The address of the host's database and php-fpm for the other host.
    #[must_use]
    pub const fn inside_address(&self) -> Ipv4Addr {
        self.inside.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_files_are_told_with_their_kind() {
        let key = r#"key = { file = "/etc/tandem/key" }"#;
        let text = EXAMPLE.lines().map(|line| if line.starts_with("key = ") { key } else { line });
        let config = Config::parse(&text.collect::<Vec<_>>().join("\n")).expect("valid");
        let [file] = &config.secret_files()[..] else { panic!("one file") };
        assert_eq!((file.name.as_str(), file.path.as_str()), ("peer.key", "/etc/tandem/key"));
        assert_eq!(file.kind, SecretKind::Key);
    }

    #[test]
    fn the_example_is_valid_and_is_the_scenario() {
        let mut config = Config::parse(EXAMPLE).expect("the example parses");
        config.resolve(|_| Err("the example names no file".into())).expect("nothing to read");
        assert_eq!(config.find_host("server2").map(HostId::index), Ok(1));
        assert_eq!(config.find_host("server1.example.net"), Ok(HostId::First));
        assert_eq!(config.link(LinkId::Inside).vip[0].address.to_string(), "192.168.3.150/24");
        assert_eq!(config.hosts[0].priority, 101);
    }

    #[test]
    fn errors_say_where_and_what_to_write() {
        let cases = [
            ("interval = \"1s\"", "interval = 1", "write a duration as"),
            ("interval = \"1s\"", "interval = \"1500ms\"", "whole seconds"),
            ("vrid = 50", "vrid = 300", "line 19, column 8"),
            ("vrid = 50", "vird = 50", "unknown field `vird`"),
            ("priority = 100", "priority = 101", "both hosts have priority 101"),
            ("priority = 100", "priority = 255", "write 1 to 254"),
            ("name = \"server2\"", "name = \"server1\"", "both [[host]]"),
            ("192.168.3.101/24", "192.168.4.101/24", "not on one network"),
            ("192.168.3.101/24", "192.168.3.101", "with its prefix"),
            ("10.96.153.239/24", "10.96.153.110/24", "is a host's own"),
            ("10.96.153.239/24", "10.96.153.239", "with its prefix"),
            ("[\"10.96.153.239/24\"]", "[\"2001:db8::1/64\"]", "must be link-local"),
            ("[\"10.96.153.239/24\"]", "[7]", "device = \"eth2\""),
            ("vrid = 50", "vrid = 50\ngateway = \"10.96.154.1\"", "within 10.96.153.110/24"),
            ("interval = \"1s\"", "interval = \"1s\"\npreempt_delay = \"5s\"", "preempt = true"),
            ("[peer] ", "[peer]\nwitnesses = [\"10.96.153.239\"] ", "the pair's own"),
            ("[peer] ", "[peer]\nwitnesses = [\"router\"] ", "invalid IPv4 address"),
            ("[peer] ", "[peer]\nkind = \"keepalived\"\nwitnesses = [\"10.96.153.1\"] ", "both"),
            ("device = \"eth1\"", "device = \"eth0\"", "the same device"),
            ("/var/www/html", "html", "absolute path"),
            ("hold_limit", "admin_listen = [\"127.0.0.1:1\"]\nhold_limit", "admin_password"),
            ("hold_limit", "clients = [\"192.168\"]\nhold_limit", "192.168.3.0/24"),
            ("hold_limit", "certificate = \"/c\"\nhold_limit", "needs sql.key"),
            ("hold_limit", "key = \"/k\"\nhold_limit", "needs sql.certificate"),
            ("hold_limit", "require_tls = true\nhold_limit", "no client gets in"),
            ("hold_limit", "client_ca = \"/c\"\nhold_limit", "needs sql.certificate"),
            ("hold_limit", "server_tls = \"verify\"\nhold_limit", "needs sql.server_ca"),
            ("hold_limit", "server_tls = \"yes\"\nhold_limit", "`prefer`, `require`"),
            ("hold_limit", "server_ca = \"/c\"\nhold_limit", "server_tls = \"verify\""),
            ("php_port", "fastcgi_listen = [\"0.0.0.0:9001\"]\nphp_port", "fastcgi_allow"),
            ("php_port", "fastcgi_listen = [\"192.168.3.9:9001\"]\nphp_port", "fastcgi_allow"),
            ("php_port", "fastcgi_listen = [\"9001\"]\nphp_port", "unix:/run/tandem-php.sock"),
            ("php_port", "fastcgi_allow = [\"192.168\"]\nphp_port", "with its prefix"),
        ];
        for (from, to, expected) in cases {
            let text = EXAMPLE.replacen(from, to, 1);
            assert_ne!(text, EXAMPLE, "{from:?} is in the example");
            let error = Config::parse(&text).expect_err(to).to_string();
            assert!(error.contains(expected), "{to:?} gave {error:?}, not {expected:?}");
        }
    }

    #[test]
    fn the_fastcgi_port_may_be_where_only_the_pair_comes() {
        for place in ["127.0.0.1:9001", "192.168.3.100:9001", "192.168.3.101:9001", "unix:/x"] {
            let key = format!("fastcgi_listen = [\"{place}\"]\nphp_port");
            let config = Config::parse(&EXAMPLE.replacen("php_port", &key, 1));
            assert_eq!(config.map(|config| config.web.fastcgi_listen.len()), Ok(1), "{place}");
        }
    }

    #[test]
    fn secrets_come_from_files_and_are_checked() {
        let text = EXAMPLE.replacen("\"3489\"", "{ file = \"/etc/tandem/pass\" }", 1);
        let mut config = Config::parse(&text).expect("parses");
        config.resolve(|path| Ok(format!("{}\n", path.len()))).expect("resolves");
        assert_eq!(config.vrrp.password.expect("is set").reveal(), "16");
        let mut config = Config::parse(&text).expect("parses");
        let error = config.resolve(|_| Ok("longer than eight".into())).expect_err("too long");
        assert!(error.to_string().contains("1 to 8"), "{error}");
        let mut config = Config::parse(&text).expect("parses");
        let error = config.resolve(|_| Err("mode is 0644".into())).expect_err("unreadable");
        assert_eq!(error.to_string(), "secret file /etc/tandem/pass: mode is 0644");
    }

    #[test]
    fn an_unknown_host_name_is_told_what_there_is() {
        let config = Config::parse(EXAMPLE).expect("parses");
        let error = config.find_host("db7").expect_err("not configured").to_string();
        assert!(error.contains("\"server1\"") && error.contains("--host"), "{error}");
    }
}
