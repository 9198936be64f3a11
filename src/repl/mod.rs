//! Replication: what the database of this host is, and how it becomes source or replica.
//!
//! In: jobs, rows. Out: SQL, observations, how jobs ended. Must not: speak to the peer's database
//! (each host administrates its own), decide roles, or write on a host that is not the source.
//! Read first: facts/repl.md sections 0, 2, 3.8; `engine` for the flow, `job` for the words.
//!
//! ```text
//!   engine --- look (version, variables, replica status) ----> Observation
//!      |------ probe (a tiny commit: does it end?) ------------> Observation
//!      \------ job: shut | follow | promote | open, each a machine of steps
//!                      \ evict (KILL)   \ dialect (SQL)   \ gtid (compare)
//! ```

pub mod check;
pub mod copy;
mod dialect;
mod engine;
pub mod errant;
mod evict;
mod follow;
mod gtid;
mod job;
mod look;
mod open;
pub mod plan;
mod probe;
mod promote;
mod reseed;
mod rows;
mod semi_sync;
mod shut;
pub mod topology;

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use dialect::{Dialect, Statements, quote, quote_name};
pub use engine::{Engine, Input, Output};
pub use gtid::{Beyond, BinlogState, Flavour, GtidSet, Malformed, Position};
pub use job::{Failure, Job, JobKind, Outcome};
pub use look::{Observation, ReplicaStatus, SemiSync, State, ThreadState};
pub use probe::Commits;
pub use rows::{Rows, ServerError};

use crate::units::{self, Secret};
use crate::wire::HostId;

/// Section `[repl]`: the databases of the pair.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// TCP port of the database on both hosts' inside addresses.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Administrative account; it logs in from the host's own inside address.
    pub user: String,
    /// Password of `user`.
    pub password: Secret,
    /// Account that a replica logs in to its source with; made on the source where it is missing.
    pub replication_user: String,
    /// Password of `replication_user`.
    pub replication_password: Secret,
    /// How long a promotion may apply received transactions before it reports and retries.
    #[serde(default = "default_drain_limit", with = "units::duration")]
    pub drain_limit: Duration,
    /// How long closing the source may wait for running writes, which are then ended.
    #[serde(default = "default_close_limit", with = "units::duration")]
    pub close_limit: Duration,
    /// What an acknowledged write is worth. "continue": both hosts have it; without the replica,
    /// after two or three seconds, one host alone. "wait": both have it, however long that takes.
    /// "asynchronous": the source has it, and the last ones are lost with it.
    #[serde(default)]
    pub durability: Durability,
    /// Whether a source is probed with a tiny commit, into `tandem.commit_probe`: without it, a
    /// database whose disk is full looks healthy.
    #[serde(default = "default_commit_probe")]
    pub commit_probe: bool,
    /// The databases of a pair are prepared for what it may need later; an applet's are not.
    #[serde(skip, default = "default_is_of_a_pair")]
    pub is_of_a_pair: bool,
    /// How often the local database is looked at.
    #[serde(default = "default_probe_interval", with = "units::duration")]
    pub probe_interval: Duration,
}

/// What an acknowledged write is worth, and what happens when the replica is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A write is acknowledged when both hosts have it. When the replica is away, writes wait for
    /// two or three seconds, then go on with one host. Costs a round trip on the inside link for
    /// every commit.
    #[default]
    Continue,
    /// The same, but writes wait until the replica is back.
    Wait,
    /// A write is acknowledged when the source has it: the last ones are lost with it.
    Asynchronous,
}

const fn default_port() -> u16 {
    3306
}

const fn default_drain_limit() -> Duration {
    Duration::from_secs(60)
}

const fn default_close_limit() -> Duration {
    Duration::from_secs(3)
}

const fn default_commit_probe() -> bool {
    true
}

const fn default_is_of_a_pair() -> bool {
    true
}

const fn default_probe_interval() -> Duration {
    Duration::from_millis(500)
}

/// Where the two databases are.
#[derive(Debug, Clone)]
pub struct Site {
    pub me: HostId,
    /// Inside addresses, which the databases listen on.
    pub addresses: [Ipv4Addr; 2],
    /// Host names: a replica that an operator pointed at one of them is recognised.
    pub names: [String; 2],
}

impl Site {
    #[must_use]
    pub const fn own_address(&self) -> Ipv4Addr {
        self.addresses[self.me.index()]
    }

    #[must_use]
    pub const fn peer_address(&self) -> Ipv4Addr {
        self.addresses[self.me.other().index()]
    }

    #[must_use]
    pub fn peer_name(&self) -> &str {
        &self.names[self.me.other().index()]
    }

    /// Whether a replica that names `host` as its source follows the peer: by its address, as
    /// tandem sets it up, or by its name, as mysqlreplicate did.
    #[must_use]
    pub fn is_peer(&self, host: &str) -> bool {
        host == self.peer_address().to_string() || host.eq_ignore_ascii_case(self.peer_name())
    }
}
