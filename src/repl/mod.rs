//! Replication: what the database of this host is, and how it becomes source or replica.
//!
//! Read first: facts/repl.md sections 0, 2, 3.8.

use std::time::Duration;

use serde::Deserialize;

use crate::units::{self, Secret};

/// Section `[repl]`: the databases of the pair.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// TCP port of the database on both hosts' inside addresses.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Administrative account; it logs in from the host's own inside address.
    pub user: String,
    pub password: Secret,
    /// Account that a replica logs in to its source with; made on the source where it is missing.
    pub replication_user: String,
    pub replication_password: Secret,
    /// How long a promotion may apply received transactions before it reports and retries.
    #[serde(default = "default_drain_limit", deserialize_with = "units::duration")]
    pub drain_limit: Duration,
    /// How long closing the source may wait for running writes, which are then ended.
    #[serde(default = "default_close_limit", deserialize_with = "units::duration")]
    pub close_limit: Duration,
    /// How often the local database is looked at.
    #[serde(default = "default_probe_interval", deserialize_with = "units::duration")]
    pub probe_interval: Duration,
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

const fn default_probe_interval() -> Duration {
    Duration::from_millis(500)
}
