//! The status: what is true now, on the screen and as `tandem status --json`.
//!
//! In: facts of node and data plane. Out: data. Must not: lose or rename a name that was released
//! (tests/golden/status.txt has them all); new ones may come anywhere.

use serde::{Deserialize, Serialize};

use super::note::Record;
use crate::wire::Role;

/// Everything on the status screen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub host: String,
    pub release: String,
    pub health: Health,
    pub role: Role,
    pub epoch: u64,
    pub role_seconds: u64,
    /// The virtual addresses that this host holds, and all there are.
    pub vips: Vec<String>,
    pub addresses: Vec<VipStatus>,
    pub orders: OrdersStatus,
    pub config_digest: String,
    pub peer: PeerStatus,
    pub build: BuildStatus,
    pub witnesses: Vec<WitnessStatus>,
    pub links: LinksStatus,
    pub database: DatabaseStatus,
    pub sql: SqlStatus,
    pub web: WebStatus,
    pub children: Vec<ChildStatus>,
    /// The last ones, oldest first.
    pub notes: Vec<Record>,
    pub findings: Vec<String>,
}

/// In one word, and the exit code of `tandem status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Either host can die.
    Healthy,
    /// There is something to do, or this host is alone.
    Degraded,
    /// This host neither serves nor stands by.
    Down,
}

impl Health {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VipStatus {
    pub address: String,
    pub device: String,
    /// Who has it: this host as its kernel says, the other one as it says itself.
    pub is_here: bool,
    pub is_at_peer: bool,
}

/// What operators ordered, until they take it back.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct OrdersStatus {
    /// Roles stay where they are.
    pub hold: bool,
    pub maintenance: bool,
    pub peer_maintenance: bool,
}

/// A process that is watched over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChildStatus {
    pub name: String,
    pub pid: u32,
    pub seconds: u64,
    /// How often it was started again after it died.
    pub restarts: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerStatus {
    pub name: String,
    /// How its VRRP version 3 advertisements are summed, once one was heard.
    pub vrrp_checksum: Option<String>,
    /// `None` when it was not heard lately.
    pub role: Option<Role>,
    pub epoch: u64,
    pub heard: ByLink,
    pub config_digest: Option<String>,
    /// Sections of the configuration that are not as here.
    pub config_differs: Vec<String>,
    /// `None` when it was not heard lately.
    pub database: Option<PeerDatabaseStatus>,
}

/// Builds of appliances, in seconds since 1970; 0: no appliance, or not heard lately.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct BuildStatus {
    pub built: u64,
    /// It is not known yet whether it is kept.
    pub is_on_trial: bool,
    pub peer_built: u64,
    pub is_peer_on_trial: bool,
    /// The peer was let take a build, and has neither booted nor refused it yet.
    pub is_peer_ordered: bool,
}

/// The other host's database, as that host says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerDatabaseStatus {
    pub is_up: bool,
    pub is_writable: bool,
    pub is_replicating: bool,
    pub lag_seconds: Option<u64>,
    pub position: Option<String>,
}

/// An address that tells a host whether it is itself cut off.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WitnessStatus {
    pub address: String,
    pub answers: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ByLink {
    pub outside: bool,
    pub inside: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinksStatus {
    pub outside: LinkStatus,
    pub inside: LinkStatus,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkStatus {
    pub device: String,
    pub carrier: bool,
    /// This host's own address, and the other one's.
    pub address: String,
    pub peer_address: String,
    /// Milliseconds since a beacon of the peer, and since an advertisement of our virtual router by
    /// another host, came in here.
    pub beacon_ago_ms: Option<u64>,
    pub vrrp_ago_ms: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DatabaseStatus {
    /// "source", "replica", "closed" or "unreachable".
    pub state: String,
    pub version: String,
    pub position: Option<String>,
    /// Transactions that only the other host has, and that only this one has, as far as its last
    /// beacon goes.
    pub missing: Option<u64>,
    pub ahead: Option<u64>,
    pub lag_seconds: Option<u64>,
    /// By whom a write is acknowledged, on the source: "by both hosts", "by this host alone for
    /// 7 s", "by this host alone, as configured", "once server2 is back, for 7 s by now".
    pub durability: Option<String>,
    pub error: Option<String>,
    /// Transactions that keep this host from following.
    pub errant: Option<ErrantStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrantStatus {
    pub gtids: String,
    pub transactions: u64,
    /// What the peer has.
    pub known: String,
    /// Where they are saved.
    pub directory: Option<String>,
    /// Why they cannot be taken back, or saved.
    pub obstacle: Option<String>,
}

/// The splitter at a glance; counts since the daemon started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SqlStatus {
    pub sessions: usize,
    pub held: usize,
    pub queries_to_source: u64,
    pub queries_to_replica: u64,
    pub pooled: usize,
    /// Statements in the last second.
    pub per_second: u64,
    pub logins: u64,
    pub held_total: u64,
    pub retried: u64,
    pub blocked: u64,
    pub slow: u64,
    pub errors: u64,
    pub refused: u64,
}

/// The web front at a glance; counts since the daemon started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WebStatus {
    pub connections: usize,
    pub requests: u64,
    /// Requests in the last second.
    pub per_second: u64,
    /// By first digit of the answer's status, 1xx to 5xx.
    pub by_class: [u64; 5],
    pub in_flight: usize,
    pub queued: usize,
    pub php: Vec<PhpStatus>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PhpStatus {
    pub host: String,
    pub is_up: bool,
    pub reason: String,
    /// Spared by an operator: it gets nothing new.
    pub is_draining: bool,
    /// Requests there from this front, and those it ever had.
    pub in_flight: usize,
    pub requests: u64,
    /// Connections that are kept for a next request.
    pub idle: usize,
}

/// What the hands know of it.
#[derive(Debug, Clone, Default)]
pub struct Glance {
    pub sql: SqlStatus,
    pub web: WebStatus,
    pub children: Vec<ChildStatus>,
    pub notes: Vec<Record>,
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;

    use super::*;
    use crate::console::message::Level;

    fn peer() -> PeerStatus {
        PeerStatus {
            name: "server2".into(),
            vrrp_checksum: Some("over the message alone".into()),
            role: Some(Role::Standby),
            epoch: 7,
            heard: ByLink { outside: true, inside: true },
            config_digest: Some("0123456789abcdef".into()),
            config_differs: vec!["web".into()],
            database: Some(PeerDatabaseStatus {
                is_up: true,
                is_writable: false,
                is_replicating: true,
                lag_seconds: Some(0),
                position: Some("0-1-8".into()),
            }),
        }
    }

    /// A status in which nothing is absent.
    pub(crate) fn whole() -> Status {
        let link = || LinkStatus {
            device: "eth0".into(),
            carrier: true,
            address: "10.96.153.110".into(),
            peer_address: "10.96.153.114".into(),
            beacon_ago_ms: Some(120),
            vrrp_ago_ms: Some(15_000),
        };
        let php = |host: &str| PhpStatus { host: host.into(), is_up: true, ..PhpStatus::default() };
        Status {
            host: "server1".into(),
            release: "0.1.0".into(),
            health: Health::Healthy,
            role: Role::Active,
            epoch: 7,
            role_seconds: 130,
            vips: vec!["10.96.153.239/24".into()],
            addresses: vec![VipStatus {
                address: "10.96.153.239/24".into(),
                device: "eth0".into(),
                is_here: true,
                is_at_peer: false,
            }],
            orders: OrdersStatus::default(),
            config_digest: "0123456789abcdef".into(),
            peer: peer(),
            build: BuildStatus::default(),
            witnesses: vec![WitnessStatus { address: "10.96.153.1".into(), answers: true }],
            links: LinksStatus { outside: link(), inside: link() },
            database: DatabaseStatus {
                state: "source".into(),
                version: "10.11.14-MariaDB".into(),
                position: Some("0-1-9".into()),
                missing: Some(0),
                ahead: Some(1),
                lag_seconds: Some(0),
                durability: Some("by both hosts".into()),
                error: Some("an error".into()),
                errant: Some(ErrantStatus {
                    gtids: "0-2-7".into(),
                    transactions: 1,
                    known: "0-1-6".into(),
                    directory: Some("/var/lib/tandem/errant/1".into()),
                    obstacle: Some("a DROP TABLE".into()),
                }),
            },
            sql: SqlStatus::default(),
            web: WebStatus { php: vec![php("server1"), php("server2")], ..WebStatus::default() },
            children: vec![ChildStatus { name: "node".into(), pid: 16, seconds: 130, restarts: 0 }],
            notes: vec![Record {
                number: 1,
                at_ms: 1_764_275_015_003,
                level: Level::Info,
                name: "started".into(),
                text: "started as server1, epoch 7".into(),
            }],
            findings: vec!["held: `tandem hold off` ends it".into()],
        }
    }

    fn names(value: &Value, path: &str, found: &mut Vec<String>) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "number",
            Value::String(_) => "text",
            Value::Array(list) => {
                let path = format!("{path}[]");
                return list.iter().take(1).for_each(|item| names(item, &path, found));
            }
            Value::Object(map) => {
                return map.iter().for_each(|(name, value)| {
                    let dot = if path.is_empty() { "" } else { "." };
                    names(value, &format!("{path}{dot}{name}"), found);
                });
            }
        };
        found.push(format!("{path:<40} {kind}"));
    }

    /// Programs read these. A name that is gone or means something else breaks them.
    #[test]
    fn the_names_of_the_json_are_those_that_were_released() {
        let json = serde_json::to_value(whole()).expect("plain data");
        let mut found = Vec::new();
        names(&json, "", &mut found);
        found.sort();
        let found = found.join("\n") + "\n";
        let golden = include_str!("../../tests/golden/status.txt");
        assert_eq!(found, golden, "\ntests/golden/status.txt has to say so too");
    }
}
